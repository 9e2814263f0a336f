"""How well each finding of a patient fits each disease: the first stage, over all diseases at once.

For every finding the most specific thing it has in common with a disease is found: the finding itself
(or a kind of it), a broader annotation of the disease, or only a shared ancestor.  From that come a
likelihood ratio with back-off and the information in common.  Both are kept as whole thousandths of a
nat: small, quick to compare, and the same on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.phenotype import Query
from models.rare.segment import Segment
from models.rare.terms import F32, I16, Terms

UNIT = np.float32(0.001)
"""Nats of one step of `Match.gain` and `Match.shared`."""
NOISE = 0.02
"""Chance that a finding belongs to something else; bounds what a single mismatch can cost."""
BROADER, SHARED = 0.85, 0.45
"""How much of the evidence of an ancestor counts: annotated itself, or only shared.  Grade C, then
weighed by the re-ranker."""
MISMATCH = -1200
"""Log likelihood ratio (in `UNIT`) of a finding that has nothing in common with the disease.  Grade C."""
GENERAL_IC = 0.35
"""Ancestors of less information (nats) are not followed: nearly every disease has them."""
COMMON = 400
"""Terms of more diseases than this keep a row over all diseases; the others only their posting."""


@dataclass(frozen=True, eq=False)
class Match:
    """Q findings present and E absent against the D diseases of one segment.

    `gain` [Q, D] log likelihood ratio of each finding with back-off, `shared` [Q, D] information content
    of what is in common, both in `UNIT`; `exact` [Q, D] whether the finding or a kind of it is annotated;
    `denied` [E, D] frequency in the disease of what is absent.  Sums over findings: `exact_ic` [D] the
    information of exact matches, `penalty` [D] log chance that the patient lacks what is denied.
    """

    gain: I16
    shared: I16
    exact: NDArray[np.bool_]
    denied: F32
    exact_ic: F32
    penalty: F32

    def beside(self, other: "Match") -> "Match":
        """Both matches of the same patient as one, the columns of `other` last."""

        def joined(field: str) -> NDArray[np.generic]:
            return np.concatenate([getattr(self, field), getattr(other, field)], axis=-1)

        names = ("gain", "shared", "exact", "denied", "exact_ic", "penalty")
        return Match(**{name: joined(name) for name in names})  # type: ignore[arg-type]


class Matcher:
    """The postings of one segment with what does not depend on the patient worked out beforehand."""

    def __init__(self, segment: Segment, terms: Terms) -> None:
        self.segment = segment
        self._terms = terms
        self._posted = segment.posted.tolist()
        self._disease = segment.disease.astype(np.intp)
        at_term = np.repeat(np.arange(len(terms)), np.diff(segment.posted))
        ratio = np.log((1 - NOISE) * segment.likely / terms.rate[at_term] + NOISE) / UNIT
        scale = np.where(segment.own == 1, np.float32(BROADER), np.float32(SHARED))
        self._ratio = np.maximum(np.round(ratio), MISMATCH).astype(np.int16)
        broad = np.where(ratio > 0, ratio * scale, ratio)
        self._broad = np.maximum(np.round(broad), MISMATCH).astype(np.int16)
        self._penalty = np.log1p(-np.minimum(segment.likely, np.float32(0.98)))
        self._ic = np.round(terms.ic / UNIT).astype(np.int16)
        self._followed = terms.ic >= GENERAL_IC
        self._row, self._gains, self._shares = self._common_rows()
        # Worked out when a term is first asked for, and the same for ever.
        self._plans: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def _common_rows(self) -> tuple[dict[int, int], I16, I16]:
        """For common terms, what their ancestors and they themselves give as something broader [N, D]."""
        common = np.flatnonzero((np.diff(self.segment.posted) > COMMON) & self._followed)
        row = {int(term): number for number, term in enumerate(common)}
        gains = np.full((len(common), self.segment.size), MISMATCH, dtype=np.int16)
        shares = np.zeros((len(common), self.segment.size), dtype=np.int16)
        for number, term in enumerate(common.tolist()):
            # Every ancestor of a common term is at least as common.
            for ancestor in self._terms.ancestors(term).tolist():
                if self._followed[ancestor]:
                    self._broaden(gains[number], shares[number], ancestor)
        return row, gains, shares

    def _broaden(self, gain: I16, shared: I16, term: int) -> None:
        """Let a line [D] of gains and shares know what an ancestor gives."""
        at = slice(self._posted[term], self._posted[term + 1])
        diseases = self._disease[at]
        gain[diseases] = np.maximum(gain[diseases], self._broad[at])
        shared[diseases] = np.maximum(shared[diseases], self._ic[term])

    def match(self, query: Query) -> Match:
        """Match a patient against every disease of the segment."""
        size, posted = self.segment.size, self._posted
        count = len(query.present)
        gain = np.empty((count, size), dtype=np.int16)
        shared = np.empty((count, size), dtype=np.int16)
        exact = np.zeros((count, size), dtype=bool)
        exact_ic = np.zeros(size, dtype=np.float32)
        for line, term in enumerate(query.present.tolist()):
            self._back_off(gain[line], shared[line], term)
            at = slice(posted[term], posted[term + 1])
            diseases = self._disease[at]
            # What the disease says of the finding itself replaces what its ancestors suggest.
            gain[line, diseases] = self._ratio[at]
            shared[line, diseases] = self._ic[term]
            exact[line, diseases] = True
            exact_ic[diseases] += self._terms.ic[term]
        denied = np.zeros((len(query.absent), size), dtype=np.float32)
        penalty = np.zeros(size, dtype=np.float32)
        for line, term in enumerate(query.absent.tolist()):
            at = slice(posted[term], posted[term + 1])
            diseases = self._disease[at]
            denied[line, diseases] = self.segment.likely[at]
            penalty[diseases] += self._penalty[at]
        return Match(gain, shared, exact, denied, exact_ic, penalty)

    def _back_off(self, gain: I16, shared: I16, term: int) -> None:
        """Fill a line [D] with what the proper ancestors of a finding give."""
        plan = self._plans.get(term)
        if plan is None:
            plan = self._plans[term] = self._plan(term)
        rows, others = plan
        if rows:
            gain[:], shared[:] = self._gains[rows[0]], self._shares[rows[0]]
            for row in rows[1:]:
                np.maximum(gain, self._gains[row], out=gain)
                np.maximum(shared, self._shares[row], out=shared)
        else:
            gain[:], shared[:] = MISMATCH, 0
        for ancestor in others:
            self._broaden(gain, shared, ancestor)

    def _plan(self, term: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The rows of the lowest common ancestors of a term, and its other ancestors that are followed."""
        above = [t for t in self._terms.chain(term)[:-1] if self._followed[t]]
        common = [t for t in above if t in self._row]
        implied = {a for t in common for a in self._terms.chain(t)[:-1]}
        return (
            tuple(self._row[t] for t in common if t not in implied),
            tuple(t for t in above if t not in self._row),
        )
