"""A segment: some diseases' profiles, inverted so that a patient's findings find them quickly.

The shipped knowledge is one segment; profiles drawn anew (a paper left out, a case enrolled) make a
small second one that is scored by the same code beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.evidence import Profile
from models.rare.terms import F32, I32, U16, Arrays, Terms, runs

OWN, BELOW = 1, 0
"""How a disease comes to a term: annotated with it, or only with a kind of it."""
MOST = 1 << 16
"""Diseases, and terms, that numbers of two bytes tell apart."""
PRESENT_FROM = 0.02
"""Findings less frequent than this are no reason to find a disease (0 of m patients, "excluded")."""


@dataclass(frozen=True, eq=False)
class Segment:
    """D diseases over T terms.

    Profiles by disease: ``starts`` [D + 1], ``terms``, ``chance``, ``weight``.  Postings by term, the
    annotations carried up to all ancestors: those of term t are ``posted[t]:posted[t + 1]`` of `disease`,
    `likely` (the greatest frequency of any annotation at or below t) and `own` (annotated with t itself).
    `mass` [D] is the information content of all terms that a disease comes to.
    """

    starts: I32
    terms: U16
    chance: F32
    weight: F32
    posted: I32
    disease: U16
    likely: F32
    own: NDArray[np.uint8]
    mass: F32

    @property
    def size(self) -> int:
        """Number of diseases."""
        return len(self.starts) - 1

    def profile(self, disease: int) -> Profile:
        """The profile of a disease (without its numbers of lines)."""
        at = slice(int(self.starts[disease]), int(self.starts[disease + 1]))
        terms = self.terms[at]
        return Profile(
            terms.astype(np.int32), self.chance[at], self.weight[at], np.zeros(len(terms), dtype=np.int32)
        )

    def arrays(self) -> Arrays:
        """What `of` reads."""
        return {
            "segment.starts": self.starts,
            "segment.terms": self.terms,
            "segment.chance": self.chance,
            "segment.weight": self.weight,
            "segment.posted": self.posted,
            "segment.disease": self.disease,
            "segment.likely": self.likely,
            "segment.own": self.own,
            "segment.mass": self.mass,
        }

    @classmethod
    def of(cls, arrays: Arrays) -> "Segment":
        """The segment stored under ``segment.*``: what `invert` made of profiles, kept to start quickly."""

        def i32(field: str) -> I32:
            return arrays[f"segment.{field}"].astype(np.int32)

        def f32(field: str) -> F32:
            return arrays[f"segment.{field}"].astype(np.float32)

        def u16(field: str) -> U16:
            return arrays[f"segment.{field}"].astype(np.uint16)

        return cls(
            i32("starts"), u16("terms"), f32("chance"), f32("weight"), i32("posted"), u16("disease"),
            f32("likely"), arrays["segment.own"].astype(np.uint8), f32("mass"),
        )  # fmt: skip


def build_segment(profiles: Sequence[Profile], terms: Terms) -> Segment:
    """The segment of some profiles; disease numbers are places in the sequence."""
    lengths = [len(profile.terms) for profile in profiles]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

    def joined(field: str, kind: type[np.generic]) -> NDArray[np.generic]:
        parts = [getattr(profile, field) for profile in profiles]
        return np.concatenate(parts).astype(kind) if parts else np.zeros(0, dtype=kind)

    return invert(
        starts, joined("terms", np.int32), joined("chance", np.float32), joined("weight", np.float32), terms
    )


def invert(
    starts: I32,
    term: NDArray[np.generic],
    chance: NDArray[np.generic],
    weight: NDArray[np.generic],
    terms: Terms,
) -> Segment:
    """Postings of profiles: every annotation carried up to its ancestors."""
    number = term.astype(np.int32)
    if len(starts) - 1 > MOST or len(terms) > MOST:
        raise ValueError(f"a segment holds at most {MOST} diseases and terms")
    frequency = chance.astype(np.float32)
    owner = np.repeat(np.arange(len(starts) - 1, dtype=np.int64), np.diff(starts))
    real = np.flatnonzero(frequency >= PRESENT_FROM)
    begins, ends = terms.starts[number[real]], terms.starts[number[real] + 1]
    above = terms.above[runs(begins, ends)]
    length = ends - begins
    who = np.repeat(owner[real], length)
    how = np.repeat(frequency[real], length)
    own = above == np.repeat(number[real], length)
    size = max(1, len(starts) - 1)
    key = above.astype(np.int64) * size + who
    # By term, then disease; within, the most frequent annotation first.
    order = np.lexsort((-how, key))
    sorted_key = key[order]
    first = np.flatnonzero(np.r_[True, sorted_key[1:] != sorted_key[:-1]]) if len(key) else np.zeros(0, int)
    kept = sorted_key[first]
    at_own = np.maximum.reduceat(own[order].astype(np.uint8), first) if len(first) else np.zeros(0, np.uint8)
    disease = (kept % size).astype(np.uint16)
    at_term = kept // size
    likely = how[order][first].astype(np.float32)
    posted = np.searchsorted(at_term, np.arange(len(terms) + 1)).astype(np.int32)
    return Segment(
        starts.astype(np.int32),
        number.astype(np.uint16),
        frequency,
        weight.astype(np.float32),
        posted,
        disease,
        likely,
        at_own,
        np.bincount(disease, terms.ic[at_term], len(starts) - 1).astype(np.float32),
    )
