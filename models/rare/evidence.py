"""The evidence of the knowledge, line by line with its reference, and profiles drawn from it.

A line says: this reference reports this finding in n of m patients of this disease (or how often in
words, or that it occurs).  Lines stay apart so that a profile can be drawn as if a paper had never been
read.  A profile is what is scored: the findings of one disease with their frequencies.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.rare.terms import F32, I32, Arrays

COUNTED, WORDED, UNSTATED = 0, 1, 2
"""How a frequency is given: n of m patients; an HPO frequency term or a percentage; not at all."""
WORDED_PATIENTS = 10.0
"""Patients that a frequency in words or percent stands for.  Grade C: an estimate of this project."""
PRIOR_PATIENTS = 1.0
"""Patients that the prior frequency stands for: 1 of 1 is not certainty."""
PRIOR = 0.5
"""Frequency of a finding of which only the occurrence is reported, and the prior of every other: near
the mean frequency of the counted findings in HPOA 2025-01-16."""


@dataclass(frozen=True, eq=False)
class Profile:
    """The findings of one disease: `terms` [K] ascending, `chance` [K] how often each is present,
    `weight` [K] the patients this rests on, `lines` [K] the number of lines."""

    terms: I32
    chance: F32
    weight: F32
    lines: I32


@dataclass(frozen=True, eq=False)
class Evidence:
    """L lines of D diseases: those of disease d are ``starts[d]:starts[d + 1]``.

    `term` [L] term numbers, `reference` [L] numbers of `references`, `seen` and `of` [L] counts, `kind`
    [L] how the frequency is given, `sex` [L] 0 both, 1 men, 2 women.  A reference is one or more ids
    (``"PMID:1;PMID:2"``).
    """

    starts: I32
    term: I32
    reference: I32
    seen: F32
    of: F32
    kind: NDArray[np.uint8]
    sex: NDArray[np.uint8]
    references: tuple[str, ...]

    def citing(self, reference: str) -> I32:
        """The diseases with a line that cites a reference, ascending."""
        index, order, bounds = self._cited
        lines = [order[bounds[n] : bounds[n + 1]] for n in index.get(reference, ())]
        if not lines:
            return np.zeros(0, dtype=np.int32)
        return np.unique(np.searchsorted(self.starts, np.concatenate(lines), side="right") - 1).astype(
            np.int32
        )

    @cached_property
    def _cited(self) -> tuple[dict[str, list[int]], I32, I32]:
        """Numbers of the references that name an id, and the lines of each reference."""
        index: dict[str, list[int]] = {}
        for number, each in enumerate(self.references):
            for one in each.split(";"):
                index.setdefault(one, []).append(number)
        order = np.argsort(self.reference, kind="stable").astype(np.int32)
        bounds = np.searchsorted(self.reference[order], np.arange(len(self.references) + 1))
        return index, order, bounds.astype(np.int32)

    def profile(self, disease: int, without: Collection[str] = ()) -> Profile:
        """The findings of a disease as if the references `without` had never been read.

        A line that cites nothing else falls away; one that cites another reference too keeps the
        finding but not the pooled frequency.
        """
        term, seen, of, kind, _ = self.lines(disease, without)
        return profile_of(term, seen, of, kind)

    def lines(
        self, disease: int, without: Collection[str] = ()
    ) -> tuple[I32, F32, F32, NDArray[np.uint8], list[str]]:
        """Term, seen, of, kind and references of the lines that `profile` pools."""
        at = slice(int(self.starts[disease]), int(self.starts[disease + 1]))
        seen, of, kind = self.seen[at], self.of[at], self.kind[at]
        cited = [self.references[number] for number in self.reference[at].tolist()]
        if not without:
            return self.term[at], seen, of, kind, cited
        keep = np.ones(len(seen), dtype=bool)
        kind = kind.copy()
        for place, each in enumerate(cited):
            named = each.split(";")
            left = [one for one in named if one not in without]
            if not left:
                keep[place] = False
            elif len(left) < len(named):
                kind[place] = UNSTATED
                cited[place] = ";".join(left)
        return (
            self.term[at][keep],
            seen[keep],
            of[keep],
            kind[keep],
            [each for each, kept in zip(cited, keep.tolist(), strict=True) if kept],
        )

    @staticmethod
    def none() -> tuple[I32, F32, F32, NDArray[np.uint8], list[str]]:
        """The lines of a disease that nothing is known of."""
        nothing = np.zeros(0, dtype=np.float32)
        return np.zeros(0, dtype=np.int32), nothing, nothing, np.zeros(0, dtype=np.uint8), []

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> "Evidence":
        """The evidence stored under ``evidence.*``."""
        kind = arrays["evidence.kind"].astype(np.uint8)
        seen = arrays["evidence.seen"].astype(np.float32)
        # Frequencies in words are stored as thousandths.
        seen = np.where(kind == WORDED, seen / np.float32(1000), seen).astype(np.float32)
        return cls(
            arrays["evidence.starts"].astype(np.int32),
            arrays["evidence.term"].astype(np.int32),
            arrays["evidence.reference"].astype(np.int32),
            seen,
            arrays["evidence.of"].astype(np.float32),
            kind,
            arrays["evidence.sex"].astype(np.uint8),
            tuple(texts(arrays["evidence.references"])),
        )

    def arrays(self) -> Arrays:
        """What `of_arrays` reads."""
        seen = np.where(self.kind == WORDED, np.round(self.seen * 1000), self.seen)
        return {
            "evidence.starts": self.starts,
            "evidence.term": self.term.astype(np.uint16),
            "evidence.reference": self.reference.astype(np.uint16),
            "evidence.seen": seen.astype(np.uint16),
            "evidence.of": self.of.astype(np.uint16),
            "evidence.kind": self.kind,
            "evidence.sex": self.sex,
            "evidence.references": blob(self.references),
        }


def profile_of(term: NDArray[np.integer], seen: F32, of: F32, kind: NDArray[np.uint8]) -> Profile:
    """Pool lines [L] into one frequency for each finding.

    Counts add up; a frequency in words counts as `WORDED_PATIENTS`; with neither, the prior is all there is.
    """
    found, place, lines = np.unique(term, return_inverse=True, return_counts=True)
    patients = np.where(kind == COUNTED, of, np.where(kind == WORDED, WORDED_PATIENTS, 0.0))
    positive = np.where(kind == COUNTED, seen, np.where(kind == WORDED, seen * WORDED_PATIENTS, 0.0))
    total = np.bincount(place, patients, len(found))
    present = np.bincount(place, positive, len(found))
    chance = (present + PRIOR * PRIOR_PATIENTS) / (total + PRIOR_PATIENTS)
    return Profile(
        found.astype(np.int32), chance.astype(np.float32), total.astype(np.float32), lines.astype(np.int32)
    )


def blob(lines: Sequence[str]) -> NDArray[np.generic]:
    """Texts as bytes of one array, a line each."""
    if any("\n" in line for line in lines):
        raise ValueError("a text holds a line break")
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)


def texts(data: NDArray[np.generic]) -> list[str]:
    """What `blob` packed."""
    return data.tobytes().decode().split("\n") if data.size else []
