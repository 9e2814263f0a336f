"""The engine: a chart in, an `Assessment` out, with the published rules as its only engine for now.

Responsible for loading the rule data once, running scores, red flags and the severity mapping over a
chart, and putting them through the policy.  Pure and deterministic: no I/O after `load`, no clock, no
randomness; the same chart gives the same bytes.
"""

from fhir_adapters.chart import PatientChart
from fhir_adapters.hpo import Ontology
from models.assessment import Assessment, Fact, Missing
from models.policy import EngineVote, PolicySettings, RuleResults, decide
from models.recommendations import recommend
from models.rules import tables
from models.rules.actions import Actions
from models.rules.analytes import load_analytes
from models.rules.complaints import ComplaintRisk
from models.rules.currency import Currency
from models.rules.facts import fact_of
from models.rules.immediate import PAIN, ImmediateModel, Weights
from models.rules.order_rules import OrderRules
from models.rules.red_flags import RedFlagRules
from models.rules.scores import ScoreRules, ScoresResult
from models.rules.scores.risk import ScoreRisk
from models.rules.severity import SeverityRules
from models.rules.terms import TermTable

VERSION = "1"
MODEL_ID = f"rules-{VERSION}"


class Engine:
    """All rules, loaded and checked; immutable and shared by all requests of a process.

    `model_id` names the model (rules only, for now), `knowledge_id` the rule data with the SHA-256
    digest over all its files.
    """

    def __init__(
        self,
        *,
        settings: PolicySettings,
        terms: TermTable,
        actions: Actions,
        scores: ScoreRules,
        red_flags: RedFlagRules,
        order_rules: OrderRules,
        complaints: ComplaintRisk,
        severity: SeverityRules,
        immediate: ImmediateModel,
        knowledge_id: str,
    ) -> None:
        self.settings = settings
        self.actions = actions
        self.model_id = MODEL_ID
        self.knowledge_id = knowledge_id
        self._terms = terms
        self._scores = scores
        self._red_flags = red_flags
        self._order_rules = order_rules
        self._complaints = complaints
        self._severity = severity
        self._immediate = immediate

    @classmethod
    def load(cls, ontology: Ontology, settings: PolicySettings | None = None) -> "Engine":
        """Load the packaged rule data.

        Raises `models.rules.errors.RulesInvalid` or `models.rules.data_rows.RuleDataError` naming the
        file and the entry that is wrong.
        """
        analytes = load_analytes()
        actions = Actions.load()
        terms = TermTable(ontology, analytes)
        red_flags = RedFlagRules.load(terms, actions)
        return cls(
            settings=settings if settings is not None else PolicySettings(),
            terms=terms,
            actions=actions,
            scores=ScoreRules.load(),
            red_flags=red_flags,
            order_rules=OrderRules.load(terms, actions),
            complaints=ComplaintRisk.load(ontology),
            severity=SeverityRules.load(),
            immediate=ImmediateModel(Weights.load(), ScoreRisk.load(), analytes),
            knowledge_id=f"rules-{VERSION}+sha256.{tables.digest()}",
        )

    def assess(self, chart: PatientChart) -> Assessment:
        """Assess one chart.  Pure and deterministic; under 300 microseconds for an emergency chart."""
        currency = Currency(chart, self._scores.windows)
        scored = self._scores.evaluate(chart, currency)
        hits = self._terms.match(chart, currency)
        met = self._red_flags.evaluate(chart, hits)
        visible = self._red_flags.visible(met)
        complaints = self._complaints.of(chart)
        immediate = self._immediate.assess(
            chart,
            scores=scored.scores,
            critical_values=scored.critical_values,
            red_flags=met,
            complaints=complaints,
            pain=self._pain(chart, currency),
        )
        results = RuleResults(visible, scored.scores, scored.critical_values)
        ranks = _urgencies(results)
        situation = self._severity.situation(
            chart,
            complaints,
            immediate="immediate" in ranks,
            urgent="urgent" in ranks or immediate.probability > self.settings.immediate_threshold,
        )
        severity, probabilities = self._severity.probabilities(situation)
        decision = decide(self.settings, results, (EngineVote("rules", severity, immediate.probability),))
        recommendations = recommend(chart, self.actions, self._scores, results)
        return Assessment(
            severity=decision.severity,
            severity_probabilities=probabilities,
            immediate=decision.immediate,
            immediate_probability=decision.immediate_probability,
            escalation=decision.escalation,
            scores=scored.scores,
            red_flags=visible,
            critical_values=scored.critical_values,
            recommendations=recommendations,
            order_concerns=self._order_rules.review(chart, currency, results, recommendations),
            common=(),
            rare=(),
            rare_alarm=decision.rare_alarm,
            rare_alarm_probability=0.0,
            explanation=immediate.contributions,
            missing=_missing(chart, scored),
            model=self.model_id,
            knowledge=self.knowledge_id,
        )

    def _pain(self, chart: PatientChart, currency: Currency) -> Fact | None:
        series = chart.measurements.get(PAIN)
        if not series:
            return None
        newest = currency.newest_of(PAIN, series, "vital")
        return fact_of(newest[0], self._terms.analytes) if newest is not None and not newest[1] else None


def _urgencies(results: RuleResults) -> set[str]:
    """The urgencies of everything the rules found that speaks of the present."""
    found: set[str] = {flag.urgency for flag in results.red_flags if not flag.stale}
    found.update(value.urgency for value in results.critical_values if not value.stale)
    found.update(score.urgency for score in results.scores if score.urgency is not None and not score.stale)
    return found


def _missing(chart: PatientChart, scored: ScoresResult) -> tuple[Missing, ...]:
    """What the assessment did without: score parameters, then whole sections of the record."""
    sections = tuple([Missing(f"section-{_kebab(name)}", ("assessment",)) for name in chart.sections_missing])
    return scored.missing + sections


def _kebab(name: str) -> str:
    """``AllergyIntolerance`` as ``allergy-intolerance``."""
    return "".join([f"-{letter.lower()}" if letter.isupper() else letter for letter in name]).lstrip("-")
