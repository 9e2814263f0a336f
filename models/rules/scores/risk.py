"""What a score's value means as a probability (``data/score_risk.csv``): published or graded estimates.

Responsible for the table and for reading it between its points; mixing the scores into one
probability is the engine's (`models.rules.immediate`).  Published rows (grade B) are mortality;
``immediate-attention`` (critical care, death or resuscitation-level triage) is our estimate (grade C).

The triage level is read without its pain modifier.

A partial score is a lower bound.  A parameter nobody measured is mostly normal, so each one is
counted as `PER_MISSING` of a point (grade C: estimate of this project); a score that is no sum
(shock index, coma score, triage level) is read as it is.
"""

from bisect import bisect_right

from models.assessment import Score
from models.rules.data_rows import read_rows

FILE = "score_risk.csv"
COLUMNS = ("score", "value", "probability", "outcome", "grade", "source")
OUTCOMES = ("immediate-attention", "death-24h", "death-hospital")
SUMS = frozenset({"news2", "meows", "pews", "qsofa", "paediatric-vitals"})
PER_MISSING = 0.25
UNMODIFIED = 5  # the CTAS level without any modifier


class ScoreRisk:
    """Probabilities by score and outcome."""

    __slots__ = ("_points",)

    def __init__(self, points: dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
        self._points = points

    @classmethod
    def load(cls) -> "ScoreRisk":
        """Read and check the packaged table; raises `RulesInvalid`."""
        found: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        for row in read_rows(FILE, COLUMNS):
            key = (row.text("score"), row.one_of("outcome", OUTCOMES))
            values, probabilities = found.setdefault(key, ([], []))
            value, probability = row.real("value"), row.real("probability")
            if values and value <= values[-1]:
                raise row.error("values of a score rise")
            if not 0 < probability < 1:
                raise row.error("a probability lies between 0 and 1")
            row.one_of("grade", ("A", "B", "C"))
            row.text("source")
            values.append(value)
            probabilities.append(probability)
        return cls({key: (tuple(values), tuple(chances)) for key, (values, chances) in found.items()})

    def of(self, score: Score, outcome: str = "immediate-attention") -> float | None:
        """The probability of an outcome given a score, or `None` when the table has no such row.

        ``immediate-attention`` is read linearly between its rows; a published mortality holds from its
        row on and is never interpolated, since its publication gives ranges.
        """
        points = self._points.get((score.id, outcome))
        if points is None:
            return None
        values, chances = points
        value = score.value
        if score.id == "ctas-modifiers":
            # Pain asks for relief, not for somebody within minutes; it is weighed once, as pain.
            value = UNMODIFIED - max(
                [part.points for part in score.parts if part.parameter != "pain"], default=0
            )
        if score.id in SUMS and outcome == "immediate-attention":
            value += PER_MISSING * len([name for name in score.missing if name not in ("age", "exact-age")])
        after = bisect_right(values, value)
        if after == 0 or after == len(values) or outcome != "immediate-attention":
            return chances[max(after - 1, 0)]
        share = (value - values[after - 1]) / (values[after] - values[after - 1])
        return chances[after - 1] + share * (chances[after] - chances[after - 1])
