"""How well each finding of a patient fits each disease: the first stage, over all diseases at once.

For every finding the most specific thing it has in common with a disease is found: the finding itself
(or a kind of it), a broader annotation of the disease, or only a shared ancestor.  From that come a
likelihood ratio with back-off and the information in common.  Both are kept as whole thousandths of a
nat: small, quick to compare, and the same on every machine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rare.phenotype import Query
from models.rare.segment import Segment
from models.rare.terms import F32, I16, I32, Terms

UNIT = np.float32(0.001)
"""Nats of one step of `Match.gain` and `Match.shared`."""
NOISE = 0.02
"""Chance that a finding belongs to something else; bounds what a single mismatch can cost."""
BROADER, SHARED = 0.85, 0.45
"""How much of the evidence of an ancestor counts: annotated itself, or only shared.  Grade C, then
weighed by the re-ranker."""
MISMATCH = -1200
"""Log likelihood ratio (in `UNIT`) of a finding that has nothing in common with the disease.  Grade C."""
CERTAIN = np.float32(0.98)
"""Nothing is so regular that its absence excludes a disease.  Grade C."""
GENERAL_IC = 0.35
"""Ancestors of less information (nats) are not followed: nearly every disease has them."""
RARE = 48
"""Terms of no more diseases than this have no row of bits either."""
OFTEN = 0.5
"""A finding of more than half of the patients is missed when it is denied or not mentioned."""
COMMON = 700
"""Terms of more diseases than this keep a row over all diseases; the others only their posting."""


@dataclass(frozen=True, eq=False)
class Match:
    """Q findings present and E absent against the D diseases of one segment.

    `gain` [Q, D] log likelihood ratio of each finding with back-off, `shared` [Q, D] information content
    of what is in common, `denied` [E, D] log chance that a patient with the disease lacks what is absent,
    all in `UNIT`; `exact` [Q, D] whether the finding or a kind of it is annotated, `exact_ic` [D] the
    information of all that are.
    """

    gain: I16
    shared: I16
    exact: NDArray[np.bool_]
    denied: I16
    exact_ic: F32

    def of(self, columns: NDArray[np.integer]) -> "Match":
        """The match with some diseases only."""
        return self._made(lambda values: values.take(columns, axis=-1))

    def beside(self, other: "Match") -> "Match":
        """Both matches of the same patient as one, the columns of `other` last."""

        theirs = iter(other._fields())
        return self._made(lambda values: np.concatenate([values, next(theirs)], axis=-1))

    def _fields(self) -> tuple[NDArray[Any], ...]:
        return self.gain, self.shared, self.exact, self.denied, self.exact_ic

    def _made(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> "Match":
        return Match(*[change(values) for values in self._fields()])


class Matcher:
    """The postings of one segment with what does not depend on the patient worked out beforehand."""

    def __init__(self, segment: Segment, terms: Terms) -> None:
        self.segment = segment
        self._terms = terms
        self._posted = segment.posted.tolist()
        self._ratio, self._broad, self._lacks = np.empty((3, len(segment.disease)), dtype=np.int16)
        self._compare(segment, terms)
        self._ic = np.round(terms.ic / UNIT).astype(np.int16)
        self._followed = terms.ic >= GENERAL_IC
        self._row, self._gains, self._shares, self._lacking = self._common_rows()
        self._bit, self._bits = self._membership()
        self.totals = self._totals()
        # Worked out when a term is first asked for, and the same for ever.
        self._plans: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def _compare(self, segment: Segment, terms: Terms) -> None:
        """Fill in what a finding says for a disease that has it, itself or only as something broader, and
        what its absence says.

        In runs, so that the postings are never in memory at the width of an index.
        """
        for first in range(0, len(terms), 512):
            last = min(first + 512, len(terms))
            at = slice(self._posted[first], self._posted[last])
            rate = np.repeat(terms.rate[first:last], np.diff(segment.posted[first : last + 1]))
            ratio = np.log(np.float32(1 - NOISE) * segment.likely[at] / rate + np.float32(NOISE)) / UNIT
            scale = np.where(segment.own[at] == 1, np.float32(BROADER), np.float32(SHARED))
            broad = np.where(ratio > 0, ratio * scale, ratio)
            self._ratio[at] = np.maximum(np.round(ratio), MISMATCH)
            self._broad[at] = np.maximum(np.round(broad), MISMATCH)
            self._lacks[at] = np.round(np.log1p(-np.minimum(segment.likely[at], CERTAIN)) / UNIT)

    def _at(self, term: int) -> tuple[slice, NDArray[np.intp]]:
        """The postings of a term, and their diseases as numpy indexes."""
        at = slice(self._posted[term], self._posted[term + 1])
        return at, self.segment.disease[at].astype(np.intp)

    def _totals(self) -> F32:
        """What a disease's profile holds in all [4, D]: information expected of a patient, that of frequent
        findings, the patients behind all findings, and how many findings were counted."""
        segment = self.segment
        worth = segment.chance * self._terms.ic[segment.terms]
        parts = (worth, worth * (segment.chance > OFTEN), segment.weight, segment.weight > 0)
        return summed(np.stack(parts).astype(np.float32), np.diff(segment.starts).astype(np.intp))

    def _membership(self) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """Who has a term, for all but the rarest terms: the row of each term [T], -1 for none, and rows
        over all diseases, a bit each [N, D / 8]."""
        frequent = np.flatnonzero(np.diff(self.segment.posted) > RARE)
        row = np.full(len(self._terms), -1, dtype=np.intp)
        row[frequent] = np.arange(len(frequent))
        bits = np.zeros((len(frequent), -(-self.segment.size // 8)), dtype=np.uint8)
        for number, term in enumerate(frequent.tolist()):
            line = np.zeros(self.segment.size, dtype=np.bool_)
            line[self._at(term)[1]] = True
            bits[number] = np.packbits(line, bitorder="little")
        return row, bits

    def _common_rows(self) -> tuple[dict[int, int], I16, I16, I16]:
        """For common terms, what their ancestors and they themselves give as something broader, and what
        their absence says [N, D]."""
        common = np.flatnonzero((np.diff(self.segment.posted) > COMMON) & self._followed)
        row = {int(term): number for number, term in enumerate(common)}
        gains = np.full((len(common), self.segment.size), MISMATCH, dtype=np.int16)
        shares = np.zeros((len(common), self.segment.size), dtype=np.int16)
        lacking = np.zeros((len(common), self.segment.size), dtype=np.int16)
        for number, term in enumerate(common.tolist()):
            at, diseases = self._at(term)
            lacking[number, diseases] = self._lacks[at]
            # Every ancestor of a common term is at least as common.
            for ancestor in self._terms.ancestors(term).tolist():
                if self._followed[ancestor]:
                    self._broaden(gains[number], shares[number], ancestor)
        return row, gains, shares, lacking

    def _broaden(self, gain: I16, shared: I16, term: int) -> None:
        """Let a line [D] of gains and shares know what an ancestor gives."""
        at, diseases = self._at(term)
        gain[diseases] = np.maximum(gain[diseases], self._broad[at])
        shared[diseases] = np.maximum(shared[diseases], self._ic[term])

    def match(self, query: Query) -> Match:
        """Match a patient against every disease of the segment."""
        size = self.segment.size
        count = len(query.present)
        gain = np.empty((count, size), dtype=np.int16)
        shared = np.empty((count, size), dtype=np.int16)
        exact = np.zeros((count, size), dtype=bool)
        exact_ic = np.zeros(size, dtype=np.float32)
        for line, term in enumerate(query.present.tolist()):
            gains, shares = gain[line], shared[line]
            self._back_off(gains, shares, term)
            at, diseases = self._at(term)
            # What the disease says of the finding itself replaces what its ancestors suggest.
            gains[diseases] = self._ratio[at]
            shares[diseases] = self._ic[term]
            exact[line][diseases] = True
            exact_ic[diseases] += self._terms.ic[term]
        denied = np.empty((len(query.absent), size), dtype=np.int16)
        for line, term in enumerate(query.absent.tolist()):
            row = self._row.get(term)
            if row is not None:
                denied[line] = self._lacking[row]
                continue
            at, diseases = self._at(term)
            lacks = denied[line]
            lacks[:] = 0
            lacks[diseases] = self._lacks[at]
        return Match(gain, shared, exact, denied, exact_ic)

    def overlap(self, diseases: I32, closure: Sequence[int]) -> F32:
        """Information content of the terms, ancestors included, that some diseases [C] come to as well."""
        terms, ic = np.array(closure, dtype=np.intp), self._terms.ic
        row = self._bit[terms]
        known = row >= 0
        bits = self._bits[row[known][:, None], diseases >> 3] >> (diseases & 7).astype(np.uint8) & 1
        found = ic[terms[known]] @ bits.astype(np.float32)
        rest = np.zeros(self.segment.size, dtype=np.float32)
        for term in terms[~known].tolist():
            rest[self._at(term)[1]] += ic[term]
        return np.asarray(found + rest[diseases], dtype=np.float32)

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


def summed(values: F32, sizes: NDArray[np.intp]) -> F32:
    """Sums [K, C] of several rows [K, N] over runs of some sizes [C], empty ones too."""
    found = np.zeros((len(values), len(sizes)), dtype=np.float32)
    filled = np.flatnonzero(sizes)
    if len(filled):
        lengths = sizes[filled]
        found[:, filled] = np.add.reduceat(values, np.cumsum(lengths) - lengths, axis=1)
    return found
