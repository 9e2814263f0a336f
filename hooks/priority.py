"""Which statement leads a card and which scores deserve one, from ``data/priority.toml``.

Holds the table and its checks only; `statements` sorts and groups with it.  Contains no words for
people but the short forms of references.
"""

import re
import tomllib
from functools import cache, lru_cache
from importlib import resources

import msgspec

from hooks.errors import DataInvalid

RANK = {"immediate": 0, "urgent": 1, "soon": 2, "routine": 3}
_CLASS = {"minutes": 0, "consequence": 2}
_DISEASE = 1
_LONGEST_CITATION = 64
_GRADE = re.compile(r"\s*\((?:grade [AB]|[^()]*)\)|\s*grade [AB]\b")
_ESTIMATE = re.compile(r"grade C\b.*")


class Priorities(msgspec.Struct, frozen=True):
    """Class and tie-break of red flags; rank from which a score stands alone; scores that restate."""

    classes: dict[str, int]
    stable: dict[str, int]
    alone: dict[str, int]
    restating: frozenset[str]
    citations: tuple[tuple[str, str], ...]

    def of_flag(self, name: str) -> tuple[int, int]:
        """Class and tie-break of a red flag; one that no row names is a disease after all that are named."""
        return self.classes.get(name, _DISEASE), self.stable.get(name, len(self.stable))

    def is_consequence(self, flag: str) -> bool:
        """Whether a red flag is a state that follows from a disease."""
        return self.classes.get(flag) == _CLASS["consequence"]

    def stands_alone(self, score: str, rank: int) -> bool:
        """Whether a score of this rank is worth a card of its own; one that no row names: from urgent on."""
        return rank <= self.alone.get(score, RANK["urgent"])


class _Class(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    red_flags: list[str]
    source: str


class _Stable(msgspec.Struct, forbid_unknown_fields=True):
    red_flags: list[str]
    source: str


class _Score(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str]
    alone: str
    source: str
    restates: bool = False


class _Citation(msgspec.Struct, forbid_unknown_fields=True):
    begins: str
    short: str


class _File(msgspec.Struct, forbid_unknown_fields=True, rename={"class_": "class"}):
    class_: list[_Class]
    stable: list[_Stable]
    score: list[_Score]
    citation: list[_Citation]


@cache
def priorities() -> Priorities:
    """The table, read once per process; raises `DataInvalid` naming the entry."""
    text = resources.files("hooks").joinpath("data", "priority.toml").read_text(encoding="utf-8")
    return read_priorities(text)


def read_priorities(text: str) -> Priorities:
    """Check and read the text of a ``priority.toml``; raises `DataInvalid`."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as problem:
        raise DataInvalid(f"priority.toml: {problem}") from problem
    sources = [entry.source for entry in file.class_] + [row.source for row in file.stable]
    if not all(sources + [score.source for score in file.score]):
        raise DataInvalid("priority.toml: an entry has no source")
    return Priorities(
        _classes(file.class_),
        _once([flag for row in file.stable for flag in row.red_flags], "stable"),
        _alone(file.score),
        frozenset([name for score in file.score if score.restates for name in score.ids]),
        tuple([(entry.begins, entry.short) for entry in file.citation]),
    )


def _classes(entries: list[_Class]) -> dict[str, int]:
    classes: dict[str, int] = {}
    for entry in entries:
        if entry.name not in _CLASS:
            raise DataInvalid(f"priority.toml, class {entry.name}: there is no such class")
        for flag in entry.red_flags:
            if flag in classes:
                raise DataInvalid(f"priority.toml, class {entry.name}: {flag} occurs twice")
            classes[flag] = _CLASS[entry.name]
    return classes


def _once(names: list[str], where: str) -> dict[str, int]:
    """Names to their places; raises `DataInvalid` for a name that stands twice."""
    places = {name: place for place, name in enumerate(names)}
    if len(places) != len(names):
        raise DataInvalid(f"priority.toml, {where}: a name occurs twice")
    return places


def _alone(entries: list[_Score]) -> dict[str, int]:
    _once([name for entry in entries for name in entry.ids], "score")
    alone: dict[str, int] = {}
    for entry in entries:
        if entry.alone not in ("immediate", "urgent"):
            raise DataInvalid(f"priority.toml, score {entry.ids}: alone must be immediate or urgent")
        alone.update(dict.fromkeys(entry.ids, RANK[entry.alone]))
    return alone


@lru_cache(maxsize=1024)
def short_citation(source: str) -> str:
    """A reference in a few words: without grades A and B and remarks, two publications at most.

    That something is our own estimate (grade C) is never left out.
    """
    for begins, short in priorities().citations:
        if source.startswith(begins):
            return short
    estimate = " (grade C)" if "grade C" in source else ""
    text = _GRADE.sub("", _ESTIMATE.sub("", source)).strip(" ;:,(")
    kept = ""
    for part in text.split(";")[:2]:
        longer = f"{kept}; {part.strip()}" if kept else part.strip()
        if kept and len(longer) > _LONGEST_CITATION:
            break
        kept = longer
    if len(kept) > _LONGEST_CITATION:
        kept = kept.partition(": ")[0]
    return (kept + estimate).strip()
