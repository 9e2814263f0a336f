"""The engine: a chart in, an `Assessment` out, by the published rules and two learned engines.

Responsible for loading the rule data once, running scores, red flags and the engines of a model bundle
over a chart, and putting what they hold through the policy.  Without a bundle the rules speak alone.
Pure and deterministic: no I/O after `load`, no clock, no randomness; the same chart gives the same bytes.
"""

import math
from collections.abc import Sequence
from copy import copy

import msgspec

from fhir_adapters.chart import PatientChart
from fhir_adapters.hpo import Ontology
from fhir_adapters.phenotype import PhenotypeReader
from models.assessment import Assessment, Contribution, Fact, Missing, RedFlag, Severity
from models.bundle import Bundle
from models.common.engine import CommonEngine, Differential
from models.knowledge import drug_harms
from models.order_guidance import OrderGuidance
from models.policy import EngineVote, PolicySettings, RuleResults, decide
from models.rare.engine import RareEngine
from models.rare.enrolment import EnrolledCase
from models.rare_opinion import NOTHING, RareReader
from models.recommendations import recommend
from models.rules import tables
from models.rules.actions import Actions
from models.rules.analytes import load_analytes
from models.rules.complaints import Complaint, ComplaintRisk
from models.rules.currency import Currency
from models.rules.facts import fact_of
from models.rules.immediate import PAIN, TARGET, Immediate, ImmediateModel, Weights, logistic
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

    `model_id` names the model bundle (the rules, where there is none), `knowledge_id` the rule data with
    the SHA-256 digest over all its files, `common` is the engine of the bundle.
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
        common: CommonEngine | None = None,
        rare: RareReader | None = None,
        model_id: str = MODEL_ID,
    ) -> None:
        self.settings = settings
        self.actions = actions
        self.model_id = model_id
        self.common = common
        self.rare = rare
        self.knowledge_id = knowledge_id
        self._without_cases = knowledge_id
        self._terms = terms
        self._scores = scores
        self._red_flags = red_flags
        self._order_rules = order_rules
        self._order_guidance = OrderGuidance.load(actions, order_rules)
        self._complaints = complaints
        self._severity = severity
        self._immediate = immediate

    @classmethod
    def load(
        cls, ontology: Ontology, settings: PolicySettings | None = None, bundle: Bundle | None = None
    ) -> "Engine":
        """Load the packaged rule data, and the ensemble of a verified bundle.

        Raises `models.rules.errors.RulesInvalid` or `models.rules.data_rows.RuleDataError` naming the
        file and the entry that is wrong.
        """
        analytes = load_analytes()
        actions = Actions.load()
        terms = TermTable(ontology, analytes)
        red_flags = RedFlagRules.load(terms, actions)
        common, rare = None, None
        knowledge_id = f"rules-{VERSION}+sha256.{tables.digest(drug_harms.PACKAGED)}"
        if bundle is not None:
            if bundle.rare is not None:
                phenotypes = PhenotypeReader.load(ontology)
                rare = RareReader(RareEngine.of(bundle.rare), phenotypes, ontology)
                knowledge_id = f"{knowledge_id}+hpo.{rare.release}"
            common = CommonEngine(
                schema=bundle.schema,
                ontology=ontology,
                diseases=bundle.diseases,
                arrays=bundle.arrays,
                stack=bundle.stack,
                analytes=analytes,
            )
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
            knowledge_id=knowledge_id,
            common=common,
            rare=rare,
            model_id=MODEL_ID if bundle is None else bundle.id,
        )

    def enrolled(self, cases: Sequence[EnrolledCase], identity: str) -> "Engine":
        """This engine with confirmed cases of rare diseases: all that count, none for as it was loaded.

        `identity` names them at the end of `knowledge_id`.  Without a rare-disease engine nothing changes.
        """
        if self.rare is None:
            return self
        other = copy(self)
        other.rare = self.rare.enrolled(cases)
        other.knowledge_id = f"{self._without_cases}+{identity}" if cases else self._without_cases
        return other

    def assess(self, chart: PatientChart, *, alternatives: bool = True, thorough: bool = False) -> Assessment:
        """Assess one chart.  Pure and deterministic; docs/benchmark.md has the time it takes.

        Without `alternatives` there are no counterfactuals, for one who would not show them.  `thorough`
        lists rare diseases with their reasons whether or not there is an alarm.
        """
        currency = Currency(chart, self._scores.windows)
        scored = self._scores.evaluate(chart, currency)
        hits = self._terms.match(chart, currency)
        met = self._red_flags.evaluate(chart, hits)
        visible = self._red_flags.visible(met)
        complaints = self._complaints.of(chart)
        immediate = self._attention(chart, currency, scored, met, complaints)
        results = RuleResults(visible, scored.scores, scored.critical_values)
        ranks = _urgencies(results)
        situation = self._severity.situation(
            chart,
            complaints,
            immediate="immediate" in ranks,
            urgent="urgent" in ranks or immediate.probability > self.settings.immediate_threshold,
        )
        severity, probabilities = self._severity.probabilities(situation)
        found = None
        if self.common is not None:
            found = self.common.assess(chart, logit_of(immediate), alternatives=alternatives)
        votes = _votes(severity, immediate, found, graver=situation in ("immediate", "urgent"))
        held = NOTHING
        if self.rare is not None:
            alarm_from = self.settings.rare_alarm_threshold
            held = self.rare.hold(chart, visible, alarm_from, thorough=thorough)
        decision = decide(self.settings, results, votes, held.probability)
        recommendations = recommend(chart, self.actions, self._scores, results)
        assessment = Assessment(
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
            rare=held.predictions,
            rare_alarm=decision.rare_alarm,
            rare_alarm_probability=held.probability,
            rare_opinion=held.opinion,
            explanation=immediate.contributions,
            missing=_missing(chart, scored),
            model=self.model_id,
            knowledge=self.knowledge_id,
        )
        if found is None:
            return assessment
        return self._order_guidance.complete(_with_differential(assessment, immediate, found), chart, hits)

    def rules_logit(self, chart: PatientChart) -> float:
        """The published rules' own logit of immediate attention, which the ensemble's pool takes in."""
        currency = Currency(chart, self._scores.windows)
        scored = self._scores.evaluate(chart, currency)
        met = self._red_flags.evaluate(chart, self._terms.match(chart, currency))
        return logit_of(self._attention(chart, currency, scored, met, self._complaints.of(chart)))

    def _attention(
        self,
        chart: PatientChart,
        currency: Currency,
        scored: ScoresResult,
        met: tuple[RedFlag, ...],
        complaints: list[Complaint],
    ) -> Immediate:
        """The rules' probability of immediate attention from what they found."""
        return self._immediate.assess(
            chart,
            scores=scored.scores,
            critical_values=scored.critical_values,
            red_flags=met,
            complaints=complaints,
            pain=self._pain(chart, currency),
        )

    def _pain(self, chart: PatientChart, currency: Currency) -> Fact | None:
        series = chart.measurements.get(PAIN)
        if not series:
            return None
        newest = currency.newest_of(PAIN, series, "vital")
        return fact_of(newest[0], self._terms.analytes) if newest is not None and not newest[1] else None


def logit_of(immediate: Immediate) -> float:
    """The logit that the rules' contributions add up to."""
    return immediate.base_logit + math.fsum([item.amount for item in immediate.contributions])


def _votes(
    severity: Severity, immediate: Immediate, found: Differential | None, *, graver: bool
) -> tuple[EngineVote, ...]:
    """What the engines hold.

    The rules' severity is a vote beside the ensemble's only where they found something urgent: their
    mapping of milder situations is a stopgap for the time without a learned engine.  Both give their
    probability of immediate attention, and one that calls is enough.
    """
    if found is None:
        return (EngineVote("rules", severity, immediate.probability),)
    learned = EngineVote(
        "common", found.severity, logistic(found.immediate_logit), found.set_size, found.similarity
    )
    rules = EngineVote("rules", severity if graver else found.severity, immediate.probability)
    return rules, learned


def _with_differential(assessment: Assessment, immediate: Immediate, found: Differential) -> Assessment:
    """The assessment with what the ensemble holds; the explanation adds up to the pooled scores."""
    rules = [
        Contribution(TARGET, item.fact, item.amount * found.rules_weight)
        for item in immediate.contributions
        if found.rules_weight
    ]
    return msgspec.structs.replace(
        assessment,
        severity_probabilities=found.severity_probabilities,
        common=found.predictions,
        other_probability=found.other_probability,
        explanation=(*_merged(rules, found), *[c for c in found.contributions if c.target != TARGET]),
        counterfactuals=found.counterfactuals,
        next_steps=found.next_steps,
        coverage=found.coverage,
        set_size=found.set_size,
        similarity=found.similarity,
    )


def _merged(rules: list[Contribution], found: Differential) -> list[Contribution]:
    """Rules' and learned contributions to immediate attention, one for each fact, largest first."""
    # The rules may know a complaint as the problem that the ensemble knows as the finding.
    total: dict[tuple[str, tuple[str, ...]], Contribution] = {}
    for item in (*rules, *[c for c in found.contributions if c.target == TARGET]):
        fact = item.fact
        key = (fact.label if fact.kind in ("finding", "problem") else fact.code, fact.sources)
        held = total.get(key)
        amount = item.amount if held is None else held.amount + item.amount
        total[key] = Contribution(TARGET, item.fact if held is None else held.fact, amount)
    return sorted(total.values(), key=lambda item: -abs(item.amount))


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
