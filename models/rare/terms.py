"""The HPO terms the engine scores with: numbers, former ids, ancestors, information content.

A term's number is its place in the ascending list of current phenotypic abnormalities of one HPO
release.  Names and the rest of the ontology are `fhir_adapters.hpo`'s business.
"""

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
U16 = NDArray[np.uint16]
Arrays = dict[str, NDArray[np.generic]]
ROOT = 118
"""Phenotypic abnormality, HP:0000118: everything scored is a kind of it."""


@dataclass(frozen=True, eq=False)
class Terms:
    """T terms.

    `ids` [T] the digits of the HPO ids, ascending; `former` and `current` [R] former ids and the numbers
    that replace them; the ancestors of t, itself last and the most general first, are
    ``above[starts[t]:starts[t + 1]]``; `ic` [T] is the information content in nats: minus the logarithm
    of the share of diseases annotated with the term or a kind of it (Resnik 1995); `rate` [T] is how
    often a patient of a rare disease drawn at random has it; `visitor` [T] how often a patient of an
    everyday disease is recorded to have it; `system` [T] a bit for each organ system it belongs to.
    """

    ids: I32
    former: I32
    current: I32
    starts: I32
    above: I32
    ic: F32
    rate: F32
    visitor: F32
    system: I32

    @cached_property
    def root(self) -> int:
        """The number of "Phenotypic abnormality"."""
        return int(np.searchsorted(self.ids, ROOT))

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, term_id: str) -> int | None:
        """The number of an HPO id, former ids followed; `None` if it is no abnormality of this release."""
        if len(term_id) != len("HP:0000118") or not term_id.startswith("HP:"):
            return None
        digits = int(term_id[3:]) if term_id[3:].isdecimal() and term_id.isascii() else -1
        place = bisect_left(self._digits, digits)
        if place < len(self._digits) and self._digits[place] == digits:
            return place
        return self._former.get(digits)

    @cached_property
    def _digits(self) -> "array[int]":
        """`ids` in a form in which one is found in no time; a dictionary of them would be 3 MB."""
        return array("i", self.ids.astype(np.int32).tobytes())

    @cached_property
    def _former(self) -> dict[int, int]:
        return dict(zip(self.former.tolist(), self.current.tolist(), strict=True))

    def hpo(self, number: int) -> str:
        """The HPO id of a term number."""
        return f"HP:{int(self.ids[number]):07d}"

    def ancestors(self, number: int) -> I32:
        """The numbers of a term's ancestors, the most general first and itself last."""
        return self.above[self.starts[number] : self.starts[number + 1]]

    def chain(self, number: int) -> tuple[int, ...]:
        """The same as plain integers, remembered."""
        known = self._chains.get(number)
        if known is None:
            known = self._chains[number] = tuple(self.ancestors(number).tolist())
        return known

    @cached_property
    def _chains(self) -> dict[int, tuple[int, ...]]:
        return {}

    @classmethod
    def of(cls, arrays: Arrays) -> "Terms":
        """The terms stored under ``terms.*``."""

        def i32(field: str) -> I32:
            return arrays[f"terms.{field}"].astype(np.int32)

        def f32(field: str) -> F32:
            return arrays[f"terms.{field}"].astype(np.float32)

        return cls(
            i32("ids"), i32("former"), i32("current"), i32("starts"), i32("above"),
            f32("ic"), f32("rate"), f32("visitor"), i32("system"),
        )  # fmt: skip

    def arrays(self) -> Arrays:
        """What `of` reads."""
        return {
            "terms.ids": self.ids,
            "terms.former": self.former,
            "terms.current": self.current.astype(np.uint16),
            "terms.starts": self.starts,
            "terms.above": self.above.astype(np.uint16),
            "terms.ic": self.ic,
            "terms.rate": self.rate,
            "terms.visitor": self.visitor,
            "terms.system": self.system,
        }


def runs(starts: NDArray[np.integer], ends: NDArray[np.integer]) -> NDArray[np.int64]:
    """All positions of several half-open ranges, one range after the other."""
    lengths = (ends - starts).astype(np.int64)
    offsets = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    return np.asarray(np.arange(total) + np.repeat(starts - offsets, lengths), dtype=np.int64)
