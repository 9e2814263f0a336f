"""Running every published score on a chart: the tables loaded once, the scores that apply to the patient.

Responsible for loading, and for which scores are asked; it neither weighs the scores against each
other nor escalates (`models.policy`), and holds no texts.
"""

import msgspec

from fhir_adapters.chart import PatientChart
from models.assessment import CriticalValue, Missing, Score
from models.rules.critical_values import CriticalValues
from models.rules.currency import Currency, Windows
from models.rules.errors import RulesInvalid
from models.rules.scores.adult import news2, qsofa
from models.rules.scores.age_bands import AgeBands
from models.rules.scores.bands import Bands
from models.rules.scores.children import paediatric_vitals, pews
from models.rules.scores.ctas import ctas_modifiers
from models.rules.scores.obstetric import meows
from models.rules.scores.points import PointsTable
from models.rules.scores.simple import glasgow, shock_index
from models.rules.scores.view import Reader


class ScoresResult(msgspec.Struct, frozen=True):
    """What the published scores say of one chart.

    `scores` in a fixed order, `critical_values` gravest first, `missing` one entry per parameter that
    a score that applies did without.
    """

    scores: tuple[Score, ...]
    critical_values: tuple[CriticalValue, ...]
    missing: tuple[Missing, ...]


class ScoreRules:
    """All published scores and critical values, loaded and checked; immutable and shared by all requests."""

    def __init__(self) -> None:
        """Load the packaged tables; raises `models.rules.errors.RulesInvalid` naming file and row."""
        self.windows = Windows.load()
        self.bands = Bands.load()
        self.critical_values = CriticalValues.load()
        self._reader = Reader(self.windows)
        decimals = self._reader.decimals()
        self._news2 = PointsTable.load("news2.csv", decimals)
        self._qsofa = PointsTable.load("qsofa.csv", decimals)
        self._pews = PointsTable.load("pews.csv", decimals)
        self._vitals = PointsTable.load("paediatric_vitals.csv", decimals)
        self._meows = PointsTable.load("meows.csv", decimals)
        self._ctas = PointsTable.load("ctas.csv", decimals)
        self._ages = AgeBands.load()
        for score, table in (("pews", self._pews), ("paediatric-vitals", self._vitals)):
            _check_variants(score, table, self._ages)

    @classmethod
    def load(cls) -> "ScoreRules":
        """The rules of the packaged tables."""
        return cls()

    def evaluate(self, chart: PatientChart, currency: Currency | None = None) -> ScoresResult:
        """Every score that applies to the chart's patient, its critical values, and what was missing.

        `currency` is the windows laid over this chart, when the caller has them already.
        """
        if currency is None:
            currency = Currency(chart, self.windows)
        view = self._reader.read(chart, currency)
        bands = self.bands
        asked = (
            news2(view, self._news2, bands),
            meows(view, self._meows, bands),
            pews(view, self._pews, bands, self._ages),
            paediatric_vitals(view, self._vitals, bands, self._ages),
            qsofa(view, self._qsofa, bands),
            shock_index(view, bands),
            glasgow(view, bands),
            ctas_modifiers(view, self._ctas, bands),
        )
        scores = tuple([score for score in asked if score is not None])
        return ScoresResult(scores, self.critical_values.evaluate(chart, currency), _missing(scores))

    def actions(self, score: Score) -> tuple[str, ...]:
        """The action ids (``data/actions.toml``) that the score's band asks for."""
        return self.bands.actions(score)


def _missing(scores: tuple[Score, ...]) -> tuple[Missing, ...]:
    """The missing parameters of all scores, each with the scores it was for."""
    needed: dict[str, list[str]] = {}
    for score in scores:
        for name in score.missing:
            needed.setdefault(name, []).append(score.id)
    return tuple([Missing(name, tuple(ids)) for name, ids in needed.items()])


def _check_variants(score: str, table: PointsTable, ages: AgeBands) -> None:
    """Every age band of a score must have its points."""
    held: dict[str, set[str]] = {}
    for parameter, variant in table.steps:
        if variant:
            held.setdefault(parameter, set()).add(variant)
    for (owner, parameter), variants in ages.variants().items():
        if owner != score:
            continue
        for name in held if parameter == "*" else (parameter,):
            if held.get(name) != set(variants):
                raise RulesInvalid(
                    "age_bands.csv", f"{score} {name}", "these are not the bands of its points"
                )
