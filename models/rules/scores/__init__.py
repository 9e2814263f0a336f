"""Published scores and critical values of a chart, as values: `ScoreRules.load().evaluate(chart)`.

Responsible for loading the score tables once and running every score that applies to the patient.
It neither weighs the scores against each other nor escalates (`models.policy`), and holds no texts.
"""

import msgspec

from fhir_adapters.chart import PatientChart
from models.assessment import CriticalValue, Missing, Score
from models.rules.currency import Currency, Windows
from models.rules.scores.bands import Bands
from models.rules.scores.news2 import news2
from models.rules.scores.points import PointsTable
from models.rules.scores.view import Reader

__all__ = ["ScoreRules", "ScoresResult"]


class ScoresResult(msgspec.Struct, frozen=True):
    """What the published scores say of one chart.

    `scores` in a fixed order, `critical_values` gravest first, `missing` one entry per parameter that
    a score that applies did without.
    """

    scores: tuple[Score, ...]
    critical_values: tuple[CriticalValue, ...]
    missing: tuple[Missing, ...]


class ScoreRules:
    """All published scores, loaded and checked; immutable and shared by all requests."""

    def __init__(self, windows: Windows, reader: Reader, bands: Bands, news2_table: PointsTable) -> None:
        self.windows = windows
        self.bands = bands
        self._reader = reader
        self._news2 = news2_table

    @classmethod
    def load(cls) -> "ScoreRules":
        """Load the packaged tables; raises `models.rules.data_rows.RuleDataError` naming file and row."""
        windows = Windows.load()
        reader = Reader(windows)
        return cls(windows, reader, Bands.load(), PointsTable.load("news2.csv", reader.decimals()))

    def evaluate(self, chart: PatientChart) -> ScoresResult:
        """Every score that applies to the chart's patient, its critical values, and what was missing."""
        currency = Currency(chart, self.windows)
        view = self._reader.read(chart, currency)
        scores: list[Score] = []
        score = news2(view, self._news2, self.bands)
        if score is not None:
            scores.append(score)
        return ScoresResult(tuple(scores), (), _missing(scores))

    def actions(self, score: Score) -> tuple[str, ...]:
        """The action ids (``data/actions.toml``) that the score's band asks for."""
        for band in self.bands.by_score.get(score.id, ()):
            if band.band == score.band:
                return band.actions
        return ()


def _missing(scores: list[Score]) -> tuple[Missing, ...]:
    """The missing parameters of all scores, each with the scores it was for."""
    needed: dict[str, list[str]] = {}
    for score in scores:
        for name in score.missing:
            needed.setdefault(name, []).append(score.id)
    return tuple([Missing(name, tuple(ids)) for name, ids in needed.items()])
