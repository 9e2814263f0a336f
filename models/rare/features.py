"""What the second stage sees of each candidate: scores, coverage, contradictions, the rest of the chart.

Every feature is 0 where there is nothing to say, so that 0 is the baseline of explanations.
"""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from models.rare.diseases import ONSETS, Diseases
from models.rare.matching import GENERAL_IC, OFTEN, UNIT, Match, summed
from models.rare.panel import Columns
from models.rare.phenotype import Phenotype, Query
from models.rare.terms import F32, I16, I32, Terms, runs

FEATURES = (
    "likelihood", "likelihood-mean", "likelihood-worst", "likelihood-best", "likelihood-three",
    "resnik", "resnik-share", "exact", "exact-share", "exact-information", "exact-information-share",
    "unmatched", "unmatched-information",
    "simgic", "reverse-share", "reverse", "expected",
    "disease-side", "disease-side-share", "frequent-missing", "frequent-missing-share",
    "denied-likelihood", "denied-worst", "denied-often", "denied-annotated", "denied-share",
    "pattern", "profile-size", "profile-patients", "counted-share",
    "onset", "age-before-onset", "sex", "findings", "information",
    "likelihood-lead", "resnik-lead", "exact-lead", "simgic-lead", "pattern-lead", "first-stage-lead",
)  # fmt: skip
_LACKS_OFTEN = np.float32(np.log1p(-OFTEN))
_NEAR = 0.6


class FeatureMaker:
    """Works out the features; immutable, one for a knowledge."""

    def __init__(self, terms: Terms, diseases: Diseases) -> None:
        self._terms = terms
        # Each term and those of its ancestors that say something: nearly every disease has the others.
        kept = terms.ic[terms.above] >= GENERAL_IC
        kept[terms.starts[1:] - 1] = True
        self._begins = np.concatenate([[0], np.cumsum(kept)])[terms.starts]
        self._above = terms.above[kept].astype(np.intp)
        self._by_onset, self._too_early = _onset_tables(diseases.onset)
        # What being male or female says for each disease: log of its share against one half.
        shares = np.clip(np.stack([diseases.male, 1 - diseases.male]), 0.01, 0.99)
        self._of_sex = dict(zip(("MALE", "FEMALE"), np.log(2 * shares).astype(np.float32), strict=True))

    def make(
        self,
        columns: Columns,
        chosen: I32,
        match: Match,
        query: Query,
        phenotype: Phenotype,
        pattern: F32,
        first: F32,
    ) -> F32:
        """Features [C, F] of the chosen columns, whose match is `match`; `pattern` and `first` [C] are scores
        of the first stage."""
        terms = self._terms
        ic = terms.ic[query.present]
        count, total = max(1, len(ic)), max(float(ic.sum()), 1e-6)
        gain, shared = match.gain * UNIT, match.shared * UNIT
        ordered = np.sort(gain, axis=0)
        likelihood, resnik = gain.sum(axis=0), shared.sum(axis=0)
        exact_count, exact_ic = match.exact.sum(axis=0), match.exact_ic
        lost = shared < _NEAR * ic[:, None]
        mine = np.zeros(len(terms), dtype=np.float32)
        above = sorted({each for term in query.present.tolist() for each in terms.chain(term)})
        mine[above] = terms.ic[above]
        # simGIC: shared over joint information content, ancestors included (Pesquita et al. 2008).
        overlap = columns.overlap(chosen, above)
        simgic = overlap / np.maximum(float(mine.sum()) + columns.masses(chosen) - overlap, 1e-6)
        side = self._disease_side(columns, chosen, mine)
        denied = self._denied(match.denied)
        owner = columns.owner[chosen]
        onset, early = self._onsets(owner, phenotype)
        table = np.empty((len(FEATURES), len(chosen)), dtype=np.float32)
        for row, values in enumerate((
            likelihood, likelihood / count, ordered[0], ordered[-1], ordered[-3:].sum(axis=0),
            resnik, resnik / total, exact_count, exact_count / count, exact_ic, exact_ic / total,
            lost.sum(axis=0), ic @ lost,
            simgic, *side[:7],
            *denied,
            pattern, *side[7:],
            onset, early, self._sex(owner, phenotype), count, total,
            *(_lead(each) for each in (likelihood, resnik, exact_ic, simgic, pattern, first)),
        )):  # fmt: skip
            table[row] = values
        return table.T

    def _disease_side(self, columns: Columns, chosen: I32, mine: F32) -> tuple[F32, ...]:
        """How much of each disease the patient shows, and how large and well counted its profile is."""
        terms = self._terms
        size, term, chance = columns.profiles(chosen)
        near = self._near(term, mine)
        best, content = near.take(term), terms.ic.take(term)
        worth = chance * content
        sums = np.empty((3, len(term)), dtype=np.float32)
        np.multiply(worth, mine.take(term) > 0, out=sums[0])
        np.multiply(chance, best, out=sums[1])
        np.multiply(worth, (chance > OFTEN) & (best < _NEAR * content), out=sums[2])
        reverse, seen, missed = summed(sums, size)
        expected, frequent, patients, counted = columns.totals(chosen)
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

    def _near(self, term: NDArray[np.integer], mine: F32) -> F32:
        """The best the patient has of each term asked for [T]: greatest information of a common ancestor."""
        terms = self._terms
        near = np.zeros(len(terms), dtype=np.float32)
        if not len(term):
            return near
        asked = np.zeros(len(terms), dtype=bool)
        asked[term] = True
        found = np.flatnonzero(asked)
        begins, ends = self._begins[found], self._begins[found + 1]
        first = np.cumsum(ends - begins) - (ends - begins)
        near[found] = np.maximum.reduceat(mine.take(self._above.take(runs(begins, ends))), first)
        return near

    @staticmethod
    def _denied(denied: I16) -> tuple[NDArray[np.floating], ...]:
        """What findings denied say of each candidate."""
        if not len(denied):
            none = np.zeros(denied.shape[1])
            return none, none, none, none, none
        often = (denied * UNIT < _LACKS_OFTEN).sum(axis=0)
        return (
            denied.sum(axis=0, dtype=np.int32) * UNIT,
            -np.expm1(denied.min(axis=0) * UNIT),
            often,
            (denied < 0).sum(axis=0),
            often / len(denied),
        )

    def _sex(self, owner: I32, phenotype: Phenotype) -> F32:
        """Log ratio of the patient's sex; 0 where it is not known, and for diseases that are enrolled."""
        found = np.zeros(len(owner), dtype=np.float32)
        if phenotype.sex is not None:
            known = self._of_sex[phenotype.sex]
            shipped = owner < len(known)
            found[shipped] = known[owner[shipped]]
        return found

    def _onsets(self, owner: I32, phenotype: Phenotype) -> tuple[F32, F32]:
        """Log ratio of the onset stated, and whether the disease begins later than the patient is old."""
        onset, early = np.zeros((2, len(owner)), dtype=np.float32)
        shipped = owner < self._by_onset.shape[1]
        if phenotype.onset_years is not None:
            ends = [high for _, _, high in ONSETS]
            at = min(bisect_left(ends, phenotype.onset_years), len(ONSETS) - 1)
            onset[shipped] = self._by_onset[at].take(owner[shipped])
        if phenotype.age_years is not None:
            begun = sum(low <= phenotype.age_years + 0.01 for _, low, _ in ONSETS)
            early[shipped] = self._too_early[begun].take(owner[shipped])
        return onset, early


def _onset_tables(shares: F32) -> tuple[F32, F32]:
    """For each class of onset stated, the log ratio of each disease [9, D], and for each number of classes
    that have begun by the patient's age, the share of patients whose illness begins later [10, D]."""
    known = shares.astype(np.float64)
    has = known.sum(axis=1) > 0
    places = np.arange(len(ONSETS))
    by_onset = []
    for at in places:
        near = np.exp(-0.9 * np.abs(places - at))
        by_onset.append(np.where(has, np.log((known @ near + 0.05) / (near.mean() + 0.05)), 0.0))
    later = [known[:, begun:].sum(axis=1) for begun in range(len(ONSETS) + 1)]
    return np.array(by_onset, dtype=np.float32), np.array(later, dtype=np.float32)


def _lead(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far each candidate is behind the best one."""
    return values - values.max() if len(values) else values
