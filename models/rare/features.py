"""What the second stage sees of each candidate: scores, coverage, contradictions, the rest of the chart.

Every feature is 0 where there is nothing to say, so that 0 is the baseline of explanations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rare.diseases import ONSETS, Diseases
from models.rare.matching import UNIT
from models.rare.panel import Columns
from models.rare.phenotype import Phenotype, Query
from models.rare.terms import F32, I32, Terms, runs

FEATURES = (
    "likelihood", "likelihood-mean", "likelihood-worst", "likelihood-best", "likelihood-three",
    "resnik", "resnik-share", "exact", "exact-share", "exact-information", "exact-information-share",
    "unmatched", "unmatched-information",
    "simgic", "reverse-share", "reverse", "expected",
    "disease-side", "disease-side-share", "frequent-missing", "frequent-missing-share",
    "denied-likelihood", "denied-worst", "denied-often", "denied-annotated", "denied-share",
    "pattern", "profile-size", "profile-patients", "counted-share",
    "onset", "age-before-onset", "findings", "information",
    "likelihood-lead", "resnik-lead", "exact-lead", "simgic-lead", "pattern-lead", "first-stage-lead",
)  # fmt: skip
OFTEN = 0.5
"""A finding of more than half of the patients is missed when it is denied or not mentioned."""
_NEAR = 0.6


class FeatureMaker:
    """Works out the features; immutable, one for a knowledge."""

    def __init__(self, terms: Terms, diseases: Diseases) -> None:
        self._terms = terms
        self._onset = diseases.onset
        self._low = np.array([low for _, low, _ in ONSETS])
        self._high = np.array([high for _, _, high in ONSETS])

    def make(
        self,
        columns: Columns,
        chosen: I32,
        query: Query,
        phenotype: Phenotype,
        pattern: F32,
        first: F32,
    ) -> F32:
        """Features [C, F] of the chosen columns; `pattern` and `first` [C] are scores of the first stage."""
        match, terms = columns.match, self._terms
        ic = terms.ic[query.present]
        count, total = max(1, len(ic)), max(float(ic.sum()), 1e-6)
        gain = match.gain[:, chosen] * UNIT
        shared, exact = match.shared[:, chosen] * UNIT, match.exact[:, chosen]
        ordered = np.sort(gain, axis=0)
        likelihood, resnik = gain.sum(axis=0), shared.sum(axis=0)
        exact_count, exact_ic = exact.sum(axis=0), match.exact_ic[chosen]
        lost = shared < _NEAR * ic[:, None]
        mine = np.zeros(len(terms), dtype=np.float32)
        above = [each for term in query.present.tolist() for each in terms.chain(term)]
        mine[above] = terms.ic[above]
        simgic = self._overlap(columns, chosen, mine)
        side = self._disease_side(columns, chosen, mine)
        denied = self._denied(match.denied[:, chosen], match.penalty[chosen])
        onset, early = self._onsets(columns.owner[chosen], phenotype)
        ones = np.ones(len(chosen))
        table = [
            likelihood, likelihood / count, ordered[0], ordered[-1], ordered[-3:].sum(axis=0),
            resnik, resnik / total, exact_count, exact_count / count, exact_ic, exact_ic / total,
            lost.sum(axis=0), ic @ lost,
            simgic, *side[:7],
            *denied,
            pattern, *side[7:],
            onset, early, ones * count, ones * total,
            *(_lead(each) for each in (likelihood, resnik, exact_ic, simgic, pattern, first)),
        ]  # fmt: skip
        return np.stack(table, axis=1).astype(np.float32)

    @staticmethod
    def _overlap(columns: Columns, chosen: I32, mine: F32) -> NDArray[np.float64]:
        """simGIC: shared over joint information content, ancestors included (Pesquita et al. 2008)."""
        owner, term = columns.gathered(chosen, "reached_starts", ("reached",))
        overlap = _summed((mine[term],), np.bincount(owner, minlength=len(chosen)))[0]
        joint = float(mine.sum()) + columns.masses(chosen) - overlap
        return np.asarray(overlap / np.maximum(joint, 1e-6))

    def _disease_side(self, columns: Columns, chosen: I32, mine: F32) -> tuple[NDArray[np.float64], ...]:
        """How much of each disease the patient shows, and how large and well counted its profile is."""
        terms = self._terms
        owner, term, chance, weight = columns.gathered(chosen, "starts", ("terms", "chance", "weight"))
        # The best the patient has of each term: greatest information of a common ancestor.
        asked = np.zeros(len(terms), dtype=bool)
        asked[term] = True
        found = np.flatnonzero(asked)
        begins, ends = terms.starts[found], terms.starts[found + 1]
        lengths = (ends - begins).astype(np.int64)
        near = np.zeros(len(terms), dtype=np.float32)
        if len(found):
            near[found] = np.maximum.reduceat(
                mine[terms.above[runs(begins, ends)]], np.cumsum(lengths) - lengths
            )
        best, content = near[term], terms.ic[term]
        worth = chance * content
        often = chance > OFTEN
        size = np.bincount(owner, minlength=len(chosen))
        reverse, expected, seen, missed, frequent, patients, counted = _summed(
            (
                worth * (mine[term] > 0),
                worth,
                chance * best,
                worth * (often & (best < _NEAR * content)),
                worth * often,
                weight,
                weight > 0,
            ),
            size,
        )
        size = np.maximum(size, 1)
        return (
            reverse / (expected + 5.0),
            reverse,
            np.log1p(expected),
            seen,
            seen / (expected + 5.0),
            missed,
            missed / (frequent + 5.0),
            np.log1p(size),
            np.log1p(patients / size),
            counted / size,
        )

    @staticmethod
    def _denied(denied: F32, penalty: F32) -> tuple[NDArray[np.floating], ...]:
        """What findings denied say of each candidate."""
        if not len(denied):
            none = np.zeros(denied.shape[1])
            return none, none, none, none, none
        known = denied > 0
        return (
            penalty,
            denied.max(axis=0),
            (denied > OFTEN).sum(axis=0),
            known.sum(axis=0),
            (denied > OFTEN).sum(axis=0) / len(denied),
        )

    def _onsets(self, owner: I32, phenotype: Phenotype) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log ratio of the onset stated, and whether the disease begins later than the patient is old."""
        zeros = np.zeros(len(owner))
        known = np.zeros((len(owner), len(ONSETS)))
        shipped = owner < len(self._onset)
        known[shipped] = self._onset[owner[shipped]]
        has = known.sum(axis=1) > 0
        onset, early = zeros, zeros
        if phenotype.onset_years is not None:
            at = min(int(np.searchsorted(self._high, phenotype.onset_years, side="left")), len(ONSETS) - 1)
            near = np.exp(-0.9 * np.abs(np.arange(len(ONSETS)) - at))
            onset = np.where(has, np.log((known @ near + 0.05) / (near.mean() + 0.05)), 0.0)
        if phenotype.age_years is not None:
            begun = self._low <= phenotype.age_years + 0.01
            early = np.where(has, (known * ~begun).sum(axis=1), 0.0)
        return onset, early


def _summed(values: Sequence[NDArray[Any]], sizes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Sums of several arrays [K, N] over runs of some sizes [C], empty ones too: [K, C]."""
    table = np.zeros((len(values), len(values[0]) + 1))
    for row, each in enumerate(values):
        table[row, :-1] = each
    found = np.add.reduceat(table, np.cumsum(sizes) - sizes, axis=1)
    found[:, sizes == 0] = 0
    return np.asarray(found)


def _lead(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far each candidate is behind the best one."""
    return values - values.max() if len(values) else values
