"""The diseases a patient is compared with: the knowledge, minus what is left out, plus what was enrolled.

Responsible for putting profiles drawn anew beside the shipped ones under one numbering of columns.
Column c below the knowledge's size is its disease c; the columns after it are the overlay's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.rare.evidence import Profile
from models.rare.matching import Match, Matcher
from models.rare.phenotype import Query
from models.rare.segment import Segment, build_segment
from models.rare.terms import F32, I32, Terms, runs


@dataclass(frozen=True, eq=False)
class Overlay:
    """Profiles that replace those of the knowledge or are new: `owner` [N] the disease each is of (numbers
    from the knowledge's size on are enrolled diseases), `hidden` the diseases not to be scored as shipped."""

    owner: I32
    hidden: I32
    matcher: Matcher


def overlay_of(replaced: dict[int, Profile], terms: Terms, hidden: Sequence[int] = ()) -> Overlay | None:
    """The overlay that puts profiles in the place of diseases or adds them; `None` for nothing."""
    if not replaced and not hidden:
        return None
    owners = sorted(replaced)
    segment = build_segment([replaced[owner] for owner in owners], terms)
    return Overlay(
        np.array(owners, dtype=np.int32),
        np.array(sorted({*hidden, *owners}), dtype=np.int32),
        Matcher(segment, terms),
    )


@dataclass(frozen=True, eq=False)
class Columns:
    """All columns of one comparison: the match, whether a column takes part, and the disease it is of."""

    match: Match
    segments: tuple[Segment, ...]
    alive: NDArray[np.bool_]
    owner: I32

    def gathered(self, columns: I32, starts: str, fields: Sequence[str]) -> list[NDArray[Any]]:
        """Runs of the segments' arrays for some columns [C]: first the column's place of each element,
        then the elements of each field, one column after the other.

        `starts` names the array [D + 1] that divides the `fields`.
        """
        base = self.segments[0]
        first = columns < base.size
        bounds = getattr(base, starts)
        number = np.where(first, columns, 0)
        begins, ends = bounds[number].astype(np.int64), bounds[number + 1].astype(np.int64)
        size = len(getattr(base, fields[0]))
        if len(self.segments) > 1 and not first.all():
            bounds = getattr(self.segments[1], starts)
            number = np.where(first, 0, columns - base.size)
            begins = np.where(first, begins, bounds[number] + size)
            ends = np.where(first, ends, bounds[number + 1] + size)
        place = runs(begins, ends)
        found: list[NDArray[Any]] = [np.repeat(np.arange(len(columns)), ends - begins)]
        beyond = np.flatnonzero(place >= size) if len(self.segments) > 1 else place[:0]
        for field in fields:
            values = getattr(base, field)[np.minimum(place, size - 1)]
            if len(beyond):
                values[beyond] = getattr(self.segments[1], field)[place[beyond] - size]
            found.append(values)
        return found

    def masses(self, columns: I32) -> F32:
        """`Segment.mass` of some columns."""
        base = self.segments[0]
        found = base.mass[np.minimum(columns, base.size - 1)]
        if len(self.segments) > 1:
            extra = np.flatnonzero(columns >= base.size)
            found[extra] = self.segments[1].mass[columns[extra] - base.size]
        return found


def compare(base: Matcher, overlay: Overlay | None, query: Query) -> Columns:
    """Match a patient against the knowledge and the overlay."""
    match = base.match(query)
    size = base.segment.size
    alive = np.ones(size, dtype=bool)
    owner = np.arange(size, dtype=np.int32)
    if overlay is None:
        return Columns(match, (base.segment,), alive, owner)
    alive[overlay.hidden[overlay.hidden < size]] = False
    extra = overlay.matcher.segment
    return Columns(
        match.beside(overlay.matcher.match(query)),
        (base.segment, extra),
        np.concatenate([alive, np.ones(extra.size, dtype=bool)]),
        np.concatenate([owner, overlay.owner]),
    )
