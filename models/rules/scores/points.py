"""The points tables: from a value to the points a publication gives it.

Responsible for reading ``parameter, variant, low, high, key, points, source`` tables, proving at
load that the intervals of a parameter cover every value once, and looking a value up.  Which
parameters a score adds up is the score's business.

Both bounds are inclusive at the parameter's published resolution (whole breaths, tenths of a
degree): a value is first rounded half up to that resolution, as on the paper chart.
"""

import math
from bisect import bisect_right
from itertools import pairwise

from models.rules.data_rows import read_rows
from models.rules.errors import RulesInvalid

COLUMNS = ("parameter", "variant", "low", "high", "key", "points", "source")


class Steps:
    """Points as a step function of one number: `cuts[i]` (scaled) is where `points[i + 1]` begins."""

    __slots__ = ("cuts", "points", "scale")

    def __init__(self, scale: int, cuts: tuple[int, ...], points: tuple[int, ...]) -> None:
        self.scale = scale
        self.cuts = cuts
        self.points = points

    def at(self, value: float) -> int:
        """The points of `value`, rounded half up to the table's resolution."""
        return self.points[self.index(value)]

    def index(self, value: float) -> int:
        """The position of the interval `value` falls in."""
        # The addend keeps 38.05 (38.04999... in binary) on the side a person would round it to.
        return bisect_right(self.cuts, math.floor(value * self.scale + 0.5 + 1e-9))

    def proven(self, value: float, comparator: str | None) -> tuple[int, bool]:
        """The least points compatible with a bounded value (``<90``) and whether no others are possible."""
        if comparator is None:
            return self.at(value), True
        here = self.index(value)
        possible = self.points[: here + 1] if comparator.startswith("<") else self.points[here:]
        return min(possible), min(possible) == max(possible)


class PointsTable:
    """All steps and keyed points of one score, by ``(parameter, variant)`` and ``(parameter, key)``."""

    __slots__ = ("keys", "steps")

    def __init__(self, steps: dict[tuple[str, str], Steps], keys: dict[tuple[str, str], int]) -> None:
        self.steps = steps
        self.keys = keys

    @classmethod
    def load(cls, file: str, decimals: dict[str, int]) -> "PointsTable":
        """Read and check ``data/<file>``.

        `decimals` is the published resolution per numeric parameter.  Raises `RulesInvalid` when a
        parameter is unknown, intervals leave a gap, overlap, or do not reach to both infinities.
        """
        intervals: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
        keys: dict[tuple[str, str], int] = {}
        for row in read_rows(file, COLUMNS):
            parameter, variant, key = row.text("parameter"), row.cells["variant"], row.maybe("key")
            points = row.integer("points")
            row.text("source")
            if points < 0:
                raise row.error("points are negative")
            if key is not None:
                if row.cells["low"] or row.cells["high"] or (parameter, key) in keys:
                    raise row.error("a keyed row has no bounds and occurs once")
                keys[parameter, key] = points
                continue
            if parameter not in decimals:
                raise row.error(f"{parameter} is not a numeric parameter")
            low, high = row.maybe_real("low"), row.maybe_real("high")
            intervals.setdefault((parameter, variant), []).append(
                (-math.inf if low is None else low, math.inf if high is None else high, points)
            )
        steps = {where: _steps(file, where, rows, decimals[where[0]]) for where, rows in intervals.items()}
        return cls(steps, keys)


def _steps(file: str, where: tuple[str, str], rows: list[tuple[float, float, int]], decimals: int) -> Steps:
    """The step function of one parameter's intervals, which must tile the number line."""
    scale = 10**decimals
    rows.sort()
    name = " ".join(filter(None, where))
    if rows[0][0] != -math.inf or rows[-1][1] != math.inf:
        raise RulesInvalid(file, name, "does not reach to both ends")
    cuts = []
    for (_, high, _), (low, _, _) in pairwise(rows):
        if round(low * scale) != round(high * scale) + 1 or abs(low * scale - round(low * scale)) > 1e-6:
            raise RulesInvalid(file, name, f"{high:g} is not followed by the next step, but by {low:g}")
        cuts.append(round(low * scale))
    return Steps(scale, tuple(cuts), tuple(points for _, _, points in rows))
