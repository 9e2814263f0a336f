"""Risk bands of the scores (``data/score_bands.csv``): from a sum to band, urgency and actions.

A band is reached by a sum (`at_least`) or by one parameter alone (`single`, NEWS2's red score); the
gravest band reached wins, and the rows of a score are in rising gravity.  Adds nothing up itself.
"""

from typing import cast, get_args

import msgspec

from models.assessment import Score, Urgency
from models.rules.data_rows import read_rows

FILE = "score_bands.csv"
COLUMNS = ("score", "band", "at_least", "single", "urgency", "actions", "source")


class Band(msgspec.Struct, frozen=True, gc=False):
    """One band: reached from `at_least` points on, or when one parameter alone gives `single` points."""

    band: str
    at_least: float | None
    single: int | None
    urgency: Urgency | None
    actions: tuple[str, ...]
    source: str


class Bands:
    """All bands by score id."""

    __slots__ = ("_actions", "by_score")

    def __init__(self, by_score: dict[str, tuple[Band, ...]]) -> None:
        self.by_score = by_score
        self._actions: dict[tuple[str, str, str | None], tuple[str, ...]] = {}

    @classmethod
    def load(cls) -> "Bands":
        """Read and check the packaged table; raises `RulesInvalid`."""
        found: dict[str, list[Band]] = {}
        for row in read_rows(FILE, COLUMNS):
            bands = found.setdefault(row.text("score"), [])
            single = row.maybe_real("single")
            band = Band(
                row.text("band"),
                row.maybe_real("at_least"),
                None if single is None else int(single),
                cast(Urgency, row.one_of("urgency", get_args(Urgency))) if row.cells["urgency"] else None,
                row.words("actions"),
                row.text("source"),
            )
            if (band.at_least is None) == (band.single is None):
                raise row.error("a band is reached by at_least or by single, one of them")
            if any(known.band == band.band for known in bands):
                raise row.error(f"band {band.band} occurs twice")
            reached = [known.at_least for known in bands if known.at_least is not None]
            if band.at_least is not None and reached and band.at_least <= reached[-1]:
                raise row.error("bands of a score stand in rising order")
            bands.append(band)
        return cls({score: tuple(bands) for score, bands in found.items()})

    def of(self, score: str, total: float, single: int = 0) -> Band:
        """The gravest band that `total` points, or `single` points in one parameter, reach."""
        bands = self.by_score[score]
        best = bands[0]
        for band in bands[1:]:
            if (band.at_least is not None and total >= band.at_least) or (
                band.single is not None and single >= band.single
            ):
                best = band
        return best

    def actions(self, score: Score) -> tuple[str, ...]:
        """The actions of a score's band: of the gravest band of that name among the score's tables."""
        key = (score.id, score.band, score.urgency)
        known = self._actions.get(key)
        if known is not None:
            return known
        found: tuple[str, ...] = ()
        for table, bands in self.by_score.items():
            if table == score.id or table.startswith(f"{score.id}-"):
                for band in bands:
                    if band.band == score.band and band.urgency == score.urgency:
                        found = band.actions
        self._actions[key] = found
        return found
