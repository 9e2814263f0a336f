"""Diseases that are told as one: the table ``data/families.toml``, and a differential grouped by it.

Responsible for which predictions stand together and what they are worth together.  Which of them are
told is decided in `differential`; it adds probabilities of diseases that exclude one another, nothing else.
"""

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

import msgspec

from hooks.errors import DataInvalid
from models.assessment import Prediction


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table: names in both languages and the ids of its diseases."""

    id: str
    en: str
    es: str
    members: tuple[str, ...]
    source: str


class Entry(msgspec.Struct, frozen=True):
    """One line of a differential: a disease, or a family with several `members` (likeliest first).

    `probability` is that of all diseases of the family, also of those too improbable to be named.
    """

    members: tuple[Prediction, ...]
    probability: float
    family: Family | None = None

    @property
    def leading(self) -> Prediction:
        """The likeliest member."""
        return self.members[0]

    @property
    def immediate(self) -> float:
        """Chance of needing attention within minutes, over the members."""
        total = sum([one.probability for one in self.members])
        if total <= 0:
            return max([one.immediate for one in self.members])
        return sum([one.probability * one.immediate for one in self.members]) / total


class _File(msgspec.Struct, forbid_unknown_fields=True):
    family: tuple[Family, ...]


@cache
def families() -> Mapping[str, Family]:
    """The family of each disease that has one, read once per process; raises `DataInvalid`."""
    return read_families(
        resources.files("hooks").joinpath("data", "families.toml").read_text(encoding="utf-8")
    )


def read_families(text: str) -> Mapping[str, Family]:
    """Check and read the text of a ``families.toml``; raises `DataInvalid` naming the family."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise DataInvalid(f"families.toml: {problem}") from problem
    found: dict[str, Family] = {}
    for family in file.family:
        if not (family.en and family.es and family.source) or len(family.members) < 2:
            raise DataInvalid(f"families.toml, {family.id}: both names, a source and two members are needed")
        for member in family.members:
            if member in found:
                raise DataInvalid(f"families.toml, {family.id}: {member} is in a family already")
            found[member] = family
    return found


def entries(predictions: Iterable[Prediction], least: float) -> tuple[Entry, ...]:
    """Predictions by family, the most probable first.

    A disease is named from a probability of `least`; a family of which fewer than two are stands as the
    disease itself.
    """
    known = families()
    grouped: dict[str, list[Prediction]] = {}
    for one in predictions:
        family = known.get(one.id)
        grouped.setdefault(family.id if family is not None else one.id, []).append(one)
    found: list[Entry] = []
    for members in grouped.values():
        named = tuple([one for one in members if one.probability >= least])
        if len(named) > 1:
            found.append(Entry(named, sum([one.probability for one in members]), known[named[0].id]))
        else:
            found += [Entry((one,), one.probability) for one in named]
    return tuple(sorted(found, key=_by_probability))


def _by_probability(entry: Entry) -> float:
    return -entry.probability
