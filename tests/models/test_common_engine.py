"""The engine with an ensemble: explained to the last fact, honest about doubt, under the same policy."""

import functools
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ensemble_helpers import charts, tiny, tiny_run_bundle
from rule_charts import ONTOLOGY, RED_FLAGS, chart, finding, fitting_subject, problem, satisfying, value

from fhir_adapters.chart import Encounter, PatientChart, Subject
from models.assessment import Assessment
from models.common.alternatives import CHANGEABLE, LEAST_CHANGE, MOST
from models.common.engine import EXPLAINED, IMMEDIATE, CommonEngine
from models.engine import Engine
from models.policy import PolicySettings
from models.rules.actions import Actions
from models.rules.immediate import logistic

RULES = Engine.load(ONTOLOGY)


@functools.cache
def engine(similarity: float | None = None) -> Engine:
    policy = PolicySettings() if similarity is None else PolicySettings(similarity_threshold=similarity)
    with tempfile.TemporaryDirectory() as directory:
        return Engine.load(ONTOLOGY, policy, tiny_run_bundle(Path(directory) / "bundle"))


def common() -> CommonEngine:
    found = engine().common
    assert found is not None
    return found


@functools.cache
def assessed() -> tuple[tuple[PatientChart, Assessment], ...]:
    return tuple((patient, engine().assess(patient)) for patient in charts())


def sum_of(found: Assessment, target: str) -> float:
    return math.fsum(item.amount for item in found.explanation if item.target == target)


def pneumonia(**changes: Any) -> PatientChart:
    return chart(
        finding("Cough"),
        finding("Fever"),
        finding("Dyspnea"),
        finding("Crackles", role="encounter"),
        value("8310-5", 39.4, "Cel"),
        value("1988-5", 180.0, "mg/L"),
        **changes,
    )


# --- explanation


def test_baseline_and_contributions_are_the_score_of_every_disease_explained() -> None:
    for _, found in assessed():
        for prediction in found.common[:EXPLAINED]:
            assert prediction.baseline + sum_of(found, prediction.id) == pytest.approx(
                prediction.score, abs=1e-3
            )
        for prediction in found.common[EXPLAINED:]:
            assert prediction.baseline == prediction.score


def test_the_explanation_of_immediate_attention_adds_up_to_its_logit() -> None:
    ensemble = common().ensemble
    weight = ensemble.stack.immediate[0]
    for patient, found in assessed():
        rules = RULES.rules_logit(patient)
        features = common().reader.read(patient)
        outcome = ensemble.run(features, rules)
        columns = outcome.disease.argsort()[-1:]
        amounts, baseline = ensemble.explain(outcome, len(features.items), columns, immediate=True)
        learned = baseline[-1] + amounts[:, -1].sum() + weight * rules
        assert learned == pytest.approx(outcome.immediate_logit, abs=1e-3)
        assert logistic(outcome.immediate_logit) == pytest.approx(found.immediate_probability, abs=1e-9)
        # The rules' own base is no fact.
        base = RULES.assess(patient)
        base_logit = rules - sum_of(base, IMMEDIATE)
        total = baseline[-1] + weight * base_logit + sum_of(found, IMMEDIATE)
        assert total == pytest.approx(outcome.immediate_logit, abs=1e-3)


def test_every_fact_is_named_once_for_every_target() -> None:
    for _, found in assessed():
        named = Counter(
            (item.target, item.fact.kind, item.fact.code, item.fact.sources) for item in found.explanation
        )
        assert max(named.values(), default=1) == 1
        targets = {item.target for item in found.explanation}
        assert targets <= {IMMEDIATE, *[prediction.id for prediction in found.common[:EXPLAINED]]}


def test_rules_and_ensemble_speak_of_one_fact_together() -> None:
    """Fever counts for both; the amount is what both make of it."""
    patient = pneumonia()
    rules = RULES.assess(patient)
    both = engine().assess(patient)
    weight = common().ensemble.stack.immediate[0]
    learned = common().assess(patient, RULES.rules_logit(patient)).contributions
    for item in (item for item in rules.explanation if item.target == IMMEDIATE):
        also = [x.amount for x in learned if x.target == IMMEDIATE and key(x.fact) == key(item.fact)]
        (found,) = [x for x in both.explanation if x.target == IMMEDIATE and key(x.fact) == key(item.fact)]
        assert found.amount == pytest.approx(weight * item.amount + sum(also))


def key(fact: Any) -> tuple[str, str, tuple[str, ...]]:
    return fact.kind, fact.code, fact.sources


def test_facts_carry_the_resources_behind_them() -> None:
    found = engine().assess(pneumonia())
    for item in found.explanation:
        assert item.fact.sources or item.fact.kind == "demographic"
        assert item.fact.label


def test_every_reason_of_an_encounter_is_a_fact_of_its_own() -> None:
    """Complaints written together in one place are told apart; so is what is denied there."""
    place = ("Encounter/1",)
    patient = chart(
        finding("Fever", state="absent", sources=place),
        finding("Headache", sources=place),
        finding("Cough", sources=place),
        problem("R05.9", role="complaint", sources=place),
    )
    found = engine().assess(patient)
    said = {
        item.fact.label: item.fact.state for item in found.explanation if item.target == found.common[0].id
    }
    assert said["Headache"] == "present" and said["Fever"] == "absent" and said["Cough"] == "present"


def test_what_one_condition_says_is_one_fact() -> None:
    both = ("Condition/1",)
    patient = chart(finding("Cough", sources=both), problem("J20.9", role="encounter", sources=both))
    facts, owner = common()._facts(common().reader.read(patient))
    assert [fact.label for fact in facts if fact.sources == both] == ["Cough"]
    assert len(set(owner.tolist())) == len(facts)


def test_a_disease_that_is_denied_is_never_said_to_be_present() -> None:
    patient = chart(finding("Cough"), problem("E11.9", status="absent"))
    found = engine().assess(patient)
    states = {item.fact.state for item in found.explanation if item.fact.code == "E11.9"}
    assert states == {"absent"}


# --- the differential


def test_the_same_chart_gives_the_same_bytes_from_any_engine() -> None:
    other = tiny().common_engine(ONTOLOGY)
    for patient in charts()[:10]:
        first = msgspec.json.encode(engine().assess(patient))
        assert first == msgspec.json.encode(engine().assess(patient))
        logit = RULES.rules_logit(patient)
        assert other.assess(patient, logit) == common().assess(patient, logit)
        assert msgspec.json.decode(first, type=Assessment) == engine().assess(patient)


def test_the_differential_falls_and_adds_up_to_one() -> None:
    for _, found in assessed():
        shares = [prediction.probability for prediction in found.common]
        assert shares == sorted(shares, reverse=True) and 15 <= len(shares) <= 40
        assert sum(shares) + found.other_probability == pytest.approx(1.0)
        assert sum(found.severity_probabilities) == pytest.approx(1.0)
        assert len({prediction.id for prediction in found.common}) == len(shares)
        listed = sum(prediction.in_set for prediction in found.common)
        assert found.set_size is not None and listed == min(found.set_size, len(shares))
        assert found.coverage == 0.9


def test_an_empty_chart_is_answered_too() -> None:
    nobody = chart(subject=Subject("p", "unknown", None), encounter=None)
    found = engine().assess(nobody)
    assert found.explanation == () and found.counterfactuals == ()
    assert found.similarity == 1.0
    best = found.common[0]
    assert best.baseline == pytest.approx(best.score, abs=1e-3)


def test_the_model_is_named_by_its_bundle() -> None:
    assert engine().assess(pneumonia()).model == engine().model_id
    assert engine().model_id.startswith("tiny-1.0.0+")
    assert RULES.assess(pneumonia()).model == "rules-1"


# --- what if, and what next


def test_counterfactuals_are_few_and_of_facts_that_can_change() -> None:
    some = 0
    for _, found in assessed():
        assert len(found.counterfactuals) <= MOST
        for item in found.counterfactuals:
            some += 1
            assert item.fact.kind in CHANGEABLE and item.fact.state == "present"
            assert item.target == found.common[0].id
            assert item.before == found.common[0].probability
            assert abs(item.after - item.before) >= LEAST_CHANGE
            # A measurement is imagined normal, a finding not mentioned.
            assert (item.value is None) == (item.fact.kind == "finding")
            assert (item.state is None) == (item.fact.kind == "measurement")
    assert some > 20


def test_one_who_shows_no_alternatives_gets_everything_else() -> None:
    for patient, found in assessed():
        bare = engine().assess(patient, alternatives=False)
        assert bare == msgspec.structs.replace(found, counterfactuals=())


def test_a_counterfactual_is_what_the_ensemble_says_of_a_normal_value() -> None:
    patient = chart(finding("Cough"), value("8310-5", 40.2, "Cel"), value("1988-5", 250.0, "mg/L"))
    found = engine().assess(patient)
    measured = [item for item in found.counterfactuals if item.fact.kind == "measurement"]
    for item in measured:
        assert item.value is not None
        normal = value(item.fact.code, item.value, item.fact.unit or "")
        changed = msgspec.structs.replace(
            patient, measurements={**patient.measurements, item.fact.code: (normal,)}
        )
        # With the rules' evidence as it is: a counterfactual asks the ensemble only.
        outcome = common().ensemble.run(common().reader.read(changed), RULES.rules_logit(patient))
        number = [disease.id for disease in common().diseases].index(item.target)
        assert item.after == pytest.approx(float(outcome.disease[number]), abs=1e-6)


def test_next_steps_ask_what_the_chart_does_not_say_and_order_known_actions() -> None:
    actions = set(Actions.load().by_id)
    asked = ordered = 0
    findings = common().reader.schema.findings
    for patient, found in assessed():
        features = common().reader.read(patient)
        known = {findings[place] for place in features.index if place < len(findings)}
        ids = {prediction.id for prediction in found.common}
        for step in found.next_steps:
            if step.kind == "ask":
                asked += 1
                assert step.code not in known and step.label
            else:
                ordered += 1
                assert step.code in actions
            assert 0.02 <= step.gain <= 1
            # A test tells two diseases apart only where the knowledge says that it does.
            assert set(step.separates) <= ids
            assert len(set(step.separates)) == 2 or (step.kind == "test" and step.separates == ())
    assert asked > 20 and ordered > 20


# --- similarity


def test_a_chart_without_findings_resembles_and_nonsense_does_less() -> None:
    """How much less is a matter of the bundle that is shipped, and tested on it."""
    assert engine().assess(chart(value("8310-5", 36.6, "Cel"))).similarity == 1.0
    usual = engine().assess(pneumonia()).similarity
    named = ("Whooping cough", "Bradykinesia", "Epistaxis", "Limb pain", "Hallucinations", "Dysuria")
    nonsense = engine().assess(chart(*[finding(name) for name in named])).similarity
    assert usual is not None and nonsense is not None
    assert usual > 0.4 and nonsense < 0.6 * usual


# --- policy


@pytest.mark.parametrize("rule", RED_FLAGS["red_flag"], ids=lambda rule: rule["id"])
def test_a_red_flag_of_the_rules_escalates_whatever_the_ensemble_holds(rule: dict[str, Any]) -> None:
    patient = chart(*satisfying(rule["when"]), subject=fitting_subject(rule.get("population")))
    alone, both = RULES.assess(patient), engine().assess(patient)
    assert alone.escalation.code == "red-flag"
    assert both.escalation == alone.escalation
    assert both.red_flags == alone.red_flags
    if alone.escalation.rule.endswith("-immediate"):
        assert both.immediate


def test_what_the_rules_escalate_is_escalated_alike() -> None:
    escalated = 0
    for patient, found in assessed():
        alone = RULES.assess(patient)
        assert found.scores == alone.scores and found.critical_values == alone.critical_values
        if alone.escalation.code == "red-flag":
            escalated += 1
            assert found.escalation == alone.escalation
        else:
            assert found.escalation.code != "red-flag"
    assert escalated > 5


def test_precaution_needs_something_urgent_of_the_rules() -> None:
    threshold = PolicySettings().immediate_threshold
    cautious = 0
    for patient, found in assessed():
        alone = RULES.assess(patient)
        if found.escalation.code == "precaution":
            cautious += 1
            assert alone.immediate_probability > threshold
            assert found.severity == alone.severity
            assert found.escalation.because == ("rules", "common")
    assert cautious > 0


def test_a_mild_mapping_of_the_rules_does_not_contradict_the_ensemble() -> None:
    calm = chart(finding("Cough"), encounter=Encounter("Encounter/1", "ambulatory"))
    assert RULES.assess(calm).immediate_probability < 0.2
    found = engine().assess(calm)
    assert found.escalation.code in ("none", "atypical-case")
    differential = common().assess(calm, RULES.rules_logit(calm))
    assert found.severity == differential.severity


def test_a_chart_under_the_similarity_threshold_is_an_atypical_case() -> None:
    strict, lenient = engine(1.0), engine(0.0)
    seen: Counter[str] = Counter()
    for patient, found in assessed():
        if found.escalation.code in ("red-flag", "precaution"):
            assert strict.assess(patient).escalation == found.escalation
            continue
        assert found.similarity is not None and found.set_size is not None
        expected = "atypical-case" if found.similarity < 1.0 or found.set_size == 0 else "none"
        assert strict.assess(patient).escalation.code == expected
        expected = "atypical-case" if found.set_size == 0 else "none"
        assert lenient.assess(patient).escalation.code == expected
        seen[strict.assess(patient).escalation.code] += 1
    assert seen["atypical-case"] > 10
