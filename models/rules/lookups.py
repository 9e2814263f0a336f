"""What matching looks up: term numbers by code, ordered limits, groups; filled at load, read for every chart.

Responsible for the prepared form of the terms and for which terms a code meets by its prefix; it reads
no chart.  Terms are spelt in `models.rules.terms` and matched in `models.rules.matching`.
"""

import msgspec

from models.rules.currency import Window

_MEMORY = (
    8192  # codes remembered with their terms; charts repeat few codes, hostile ones must not fill memory
)


class Limit(msgspec.Struct, frozen=True, gc=False):
    """One limit on an analyte: met by values below (`below`) or above it, or at it when `inclusive`."""

    below: bool
    inclusive: bool
    limit: float
    term: int


class Measured(msgspec.Struct, frozen=True, gc=False):
    """The limits on an analyte, with the factors from units a chart may carry to the rules' unit."""

    window: Window
    factors: dict[str, float]
    limits: tuple[Limit, ...]
    below: tuple[Limit, ...] = ()
    above: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, window: Window, factors: dict[str, float], limits: tuple[Limit, ...]) -> "Measured":
        """With the limits of each side in the order in which a value drifting away from normal meets them."""
        below = sorted([limit for limit in limits if limit.below], key=_descending)
        above = sorted([limit for limit in limits if not limit.below], key=_ascending)
        return cls(window, factors, limits, tuple(below), tuple(above))


class Group(msgspec.Struct, frozen=True, gc=False):
    """A named set of terms, met when at least `least` of them are."""

    index: int
    least: int
    members: tuple[int, ...]


class Lookups:
    """What `match` looks up: term numbers by code, filled by `TermTable` at load only.

    `acute`, `problem` and `history` are keyed by ICD-10-CM prefix, `medication` and `allergy` by ATC
    prefix, `measured` by LOINC (every code of the analyte), `coded` by LOINC and key.
    """

    def __init__(self) -> None:
        self.present: dict[str, list[int]] = {}
        self.known: dict[str, list[int]] = {}
        self.absent: dict[str, list[int]] = {}
        self.acute: dict[str, list[int]] = {}
        self.problem: dict[str, list[int]] = {}
        self.history: dict[str, list[int]] = {}
        self.medication: dict[str, list[int]] = {}
        self.allergy: dict[str, list[int]] = {}
        self.coded: dict[str, dict[str, list[int]]] = {}
        self.measured: dict[str, Measured] = {}
        self.groups: dict[int, Group] = {}
        # For every term the groups that it may decide, through other groups too.
        self.parents: dict[int, tuple[int, ...]] = {}
        self._icd: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {}
        self._drugs: dict[str, tuple[int, ...]] = {}
        self._allergies: dict[str, tuple[int, ...]] = {}

    def terms_of_problem(self, code: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The acute, problem and history terms that an ICD-10-CM code meets."""
        found = self._icd.get(code)
        if found is None:
            acute = () if is_side_effect(code) else _prefixed(code, self.acute)
            found = (acute, _prefixed(code, self.problem), _prefixed(code, self.history))
            if len(self._icd) < _MEMORY:
                self._icd[code] = found
        return found

    def terms_of_drug(self, code: str) -> tuple[int, ...]:
        """The medication terms that an ATC code meets."""
        return _remembered(code, self.medication, self._drugs)

    def terms_of_allergy(self, code: str) -> tuple[int, ...]:
        """The allergy terms that an ATC code meets."""
        return _remembered(code, self.allergy, self._allergies)


def is_side_effect(code: str) -> bool:
    """Whether an ICD-10-CM code of T36 to T50 says adverse effect or underdosing and not poisoning.

    The sixth character tells: 1-4 poisoning, 5 adverse effect, 6 underdosing
    (ICD-10-CM guidelines, I.C.19.e).
    """
    return len(code) >= 7 and "T36" <= code[:3] <= "T50" and code[6] in "56"


def _ascending(limit: Limit) -> tuple[float, bool]:
    return limit.limit, not limit.inclusive


def _descending(limit: Limit) -> tuple[float, bool]:
    return -limit.limit, not limit.inclusive


def _prefixed(code: str, lookup: dict[str, list[int]]) -> tuple[int, ...]:
    return tuple([index for length in range(1, len(code) + 1) for index in lookup.get(code[:length], ())])


def _remembered(
    code: str, lookup: dict[str, list[int]], memory: dict[str, tuple[int, ...]]
) -> tuple[int, ...]:
    found = memory.get(code)
    if found is None:
        found = _prefixed(code, lookup)
        if len(memory) < _MEMORY:
            memory[code] = found
    return found
