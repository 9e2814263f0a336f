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
from models.rare.segment import build_segment
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
    matchers: tuple[Matcher, ...]
    alive: NDArray[np.bool_]
    owner: I32

    def profiles(self, columns: I32) -> tuple[NDArray[np.intp], NDArray[np.intp], F32]:
        """The profiles of some columns [C]: how many findings each has [C], then the findings and how often
        each is present, one column after the other."""
        base = self.matchers[0].segment
        number = np.minimum(columns, base.size - 1)
        begins, ends = base.starts[number], base.starts[number + 1]
        shift = len(base.terms)
        extra = self.matchers[1].segment if len(self.matchers) > 1 else None
        if extra is not None:
            beyond = np.flatnonzero(columns >= base.size)
            number = columns[beyond] - base.size
            begins[beyond], ends[beyond] = extra.starts[number] + shift, extra.starts[number + 1] + shift
        place = runs(begins, ends)
        late = np.flatnonzero(place >= shift) if extra is not None else place[:0]

        def picked(field: str) -> NDArray[Any]:
            values: NDArray[Any] = getattr(base, field).take(place, mode="clip")
            if extra is not None and len(late):
                values[late] = getattr(extra, field)[place[late] - shift]
            return values

        # As numpy indexes with them: anything narrower it would turn into this at every use.
        terms = picked("terms").astype(np.intp)
        return (ends - begins).astype(np.intp), terms, picked("chance")

    def overlap(self, columns: I32, closure: Sequence[int]) -> F32:
        """Information content that some columns [C] have in common with findings and their ancestors."""
        base = self.matchers[0]
        found = base.overlap(np.minimum(columns, base.segment.size - 1), closure)
        if len(self.matchers) > 1:
            beyond = np.flatnonzero(columns >= base.segment.size)
            found[beyond] = self.matchers[1].overlap(columns[beyond] - base.segment.size, closure)
        return found

    def masses(self, columns: I32) -> F32:
        """`Segment.mass` of some columns."""
        return self._of_columns(columns, [each.segment.mass for each in self.matchers])

    def totals(self, columns: I32) -> F32:
        """`Matcher.totals` of some columns [4, C]."""
        return self._of_columns(columns, [each.totals for each in self.matchers])

    def _of_columns(self, columns: I32, values: Sequence[F32]) -> F32:
        """Values [..., D] of each matcher's diseases for some columns [..., C]."""
        size = self.matchers[0].segment.size
        found = values[0].take(columns, axis=-1, mode="clip")
        if len(values) > 1:
            extra = np.flatnonzero(columns >= size)
            found[..., extra] = values[1][..., columns[extra] - size]
        return found


def compare(base: Matcher, overlay: Overlay | None, query: Query) -> Columns:
    """Match a patient against the knowledge and the overlay."""
    match = base.match(query)
    size = base.segment.size
    alive = np.ones(size, dtype=bool)
    owner = np.arange(size, dtype=np.int32)
    if overlay is None:
        return Columns(match, (base,), alive, owner)
    alive[overlay.hidden[overlay.hidden < size]] = False
    extra = overlay.matcher.segment
    return Columns(
        match.beside(overlay.matcher.match(query)),
        (base, overlay.matcher),
        np.concatenate([alive, np.ones(extra.size, dtype=bool)]),
        np.concatenate([owner, overlay.owner]),
    )
