"""How well each finding of a patient fits each disease: the first stage, over all diseases at once.

For every finding the most specific thing it has in common with a disease is found: the finding itself
(or a kind of it), a broader annotation of the disease, or only a shared ancestor.  From that come a
likelihood ratio with back-off, information content in common, and overlaps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.phenotype import Query
from models.rare.segment import Segment
from models.rare.terms import F32, I32, Terms

NOISE = 0.02
"""Chance that a finding belongs to something else; bounds what a single mismatch can cost."""
BROADER, SHARED = 0.85, 0.45
"""How much of the evidence of an ancestor counts: annotated itself, or only shared.  Grade C, then
weighed by the re-ranker."""
MISMATCH = -1.2
"""Log likelihood ratio of a finding that has nothing in common with the disease.  Grade C."""
GENERAL_IC = 0.35
"""Ancestors of less information are not followed: nearly every disease has them."""


@dataclass(frozen=True, eq=False)
class Match:
    """Q findings present and E absent against the D diseases of one segment.

    `gain` [Q, D] log likelihood ratio of each finding with back-off; `shared` [Q, D] information content
    of what is in common; `exact` [Q, D] whether the finding or a kind of it is annotated; `chance` [Q, D]
    frequency of what is in common; `denied` [E, D] frequency in the disease of what is absent.
    """

    gain: F32
    shared: F32
    exact: NDArray[np.bool_]
    chance: F32
    denied: F32
    overlap: F32
    reverse: F32
    asked: float


class Matcher:
    """The postings of one segment with what does not depend on the patient worked out beforehand."""

    def __init__(self, segment: Segment, terms: Terms) -> None:
        self.segment = segment
        self._terms = terms
        at_term = np.repeat(np.arange(len(terms)), np.diff(segment.posted))
        rate = terms.rate[at_term]
        # What a disease reports as rare or absent is evidence against it, and never more than a mismatch.
        ratio = np.log((1 - NOISE) * segment.likely / rate + NOISE)
        self._ratio = ratio.astype(np.float32)
        scale = np.where(segment.own == 1, np.float32(BROADER), np.float32(SHARED))
        self._broad = np.where(ratio > 0, ratio * scale, ratio).astype(np.float32)
        owned = np.flatnonzero(segment.own == 1)
        self._own_starts = np.searchsorted(owned, segment.posted).astype(np.int32)
        self._own_disease = segment.disease[owned]
        self._own_mass = (segment.likely[owned] * terms.ic[at_term[owned]]).astype(np.float32)
        self.expected = np.bincount(self._own_disease, self._own_mass, segment.size).astype(np.float32)

    def match(self, query: Query) -> Match:
        """Match a patient against every disease of the segment."""
        segment, terms = self.segment, self._terms
        shape = (len(query.present), segment.size)
        gain = np.full(shape, MISMATCH, dtype=np.float32)
        shared = np.zeros(shape, dtype=np.float32)
        chance = np.zeros(shape, dtype=np.float32)
        exact = np.zeros(shape, dtype=bool)
        posted, ic = segment.posted, terms.ic
        closure: set[int] = set()
        for row, term in enumerate(query.present.tolist()):
            line_gain, line_shared, line_chance = gain[row], shared[row], chance[row]
            above = terms.ancestors(term)
            closure.update(above.tolist())
            # The most general first: what is more specific overwrites it.
            for ancestor in above[:-1].tolist():
                content = ic[ancestor]
                if content < GENERAL_IC:
                    continue
                at = slice(posted[ancestor], posted[ancestor + 1])
                diseases = segment.disease[at]
                line_gain[diseases] = self._broad[at]
                line_shared[diseases] = content
                line_chance[diseases] = segment.likely[at]
            at = slice(posted[term], posted[term + 1])
            diseases = segment.disease[at]
            line_gain[diseases] = self._ratio[at]
            line_shared[diseases] = ic[term]
            line_chance[diseases] = segment.likely[at]
            exact[row, diseases] = True
        np.maximum(gain, MISMATCH, out=gain)
        denied = np.zeros((len(query.absent), segment.size), dtype=np.float32)
        for row, term in enumerate(query.absent.tolist()):
            at = slice(posted[term], posted[term + 1])
            denied[row, segment.disease[at]] = segment.likely[at]
        members = np.array(sorted(closure), dtype=np.int32)
        return Match(
            gain,
            shared,
            exact,
            chance,
            denied,
            self._overlap(members),
            self._reverse(members),
            float(terms.ic[members].sum()),
        )

    def _overlap(self, closure: I32) -> F32:
        """Information content of all terms in common [D] (the numerator of simGIC)."""
        segment = self.segment
        found = np.zeros(segment.size, dtype=np.float32)
        for term in closure.tolist():
            content = self._terms.ic[term]
            if content >= GENERAL_IC:
                # A disease stands once in a posting: plain addition is enough.
                found[segment.disease[segment.posted[term] : segment.posted[term + 1]]] += content
        return found

    def _reverse(self, closure: I32) -> F32:
        """Expected information of the disease's annotations that the patient has [D]."""
        found = np.zeros(self.segment.size, dtype=np.float32)
        for term in closure.tolist():
            at = slice(self._own_starts[term], self._own_starts[term + 1])
            found[self._own_disease[at]] += self._own_mass[at]
        return found
