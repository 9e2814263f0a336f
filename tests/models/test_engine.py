"""The engine as a whole: deterministic, explained to the last logit, monotone, sound in its vignettes."""

# The vignettes are a table, one patient a line.
# ruff: noqa: E501

import math
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import simple_icd_10_cm as icd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_charts import (
    AT,
    ONTOLOGY,
    RED_FLAGS,
    Item,
    chart,
    data,
    drug,
    finding,
    problem,
    satisfying,
    value,
)

from fhir_adapters.chart import CodedValue, Encounter, PatientChart, Procedure, Subject, Unmapped
from models.assessment import SEVERITIES, Assessment
from models.engine import Engine
from models.knowledge.drug_harms import PACKAGED
from models.policy import PolicySettings
from models.rules import tables
from models.rules.complaints import ComplaintRisk
from models.rules.errors import RulesInvalid
from models.rules.immediate import Weights
from models.rules.severity import SeverityRules, load_chronic

ENGINE = Engine.load(ONTOLOGY)
BASE: dict[str, float] = data("immediate.toml")["base"]
ALL_ITEMS: list[Item] = [item for rule in RED_FLAGS["red_flag"] for item in satisfying(rule["when"])]
SIGNS = [item for item in ALL_ITEMS if type(item).__name__ in ("Finding", "Problem")]
PRESENT = [item for item in SIGNS if getattr(item, "state", "present") == "present"]


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def vitals(
    *, rr: float = 14, hr: float = 75, sbp: float = 125, dbp: float = 78, temp: float = 36.8, spo2: float = 98
) -> list[Item]:
    return [
        value("9279-1", rr, "/min"),
        value("8867-4", hr, "/min"),
        value("8480-6", sbp, "mm[Hg]"),
        value("8462-4", dbp, "mm[Hg]"),
        value("8310-5", temp, "Cel"),
        value("59408-5", spo2, "%"),
        CodedValue("67775-7", "alert", AT, "Observation/avpu"),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ALL_ITEMS), max_size=15, unique=True))
def test_the_same_chart_gives_the_same_bytes_from_any_engine(items: list[Item]) -> None:
    patient = chart(*items)
    first = msgspec.json.encode(ENGINE.assess(patient))
    assert first == msgspec.json.encode(OTHER_ENGINE.assess(patient))
    assert msgspec.json.decode(first, type=Assessment) == ENGINE.assess(patient)


OTHER_ENGINE = Engine.load(ONTOLOGY)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(ALL_ITEMS), max_size=15, unique=True),
    st.sampled_from(["emergency", "inpatient", "ambulatory", "home", "virtual", "unknown"]),
    st.integers(0, 100 * 365),
)
def test_the_contributions_sum_to_the_logit_less_its_base(items: list[Item], setting: Any, age: int) -> None:
    encounter = Encounter("Encounter/1", setting, AT - timedelta(hours=1))
    patient = chart(*items, encounter=encounter, subject=Subject("p", "female", age, "day"))
    assessment = ENGINE.assess(patient)
    total = math.fsum(item.amount for item in assessment.explanation)
    if assessment.immediate_probability < 1 - 1e-9:
        assert logit(assessment.immediate_probability) - logit(BASE[setting]) == pytest.approx(
            total, abs=1e-6
        )
    facts = [item.fact for item in assessment.explanation]
    assert len(set(facts)) == len(facts)
    assert all(item.target == "immediate-attention" for item in assessment.explanation)
    assert all(fact.sources for fact in facts if fact.kind != "demographic")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(PRESENT), max_size=10, unique=True), st.sampled_from(PRESENT))
def test_a_further_sign_of_danger_never_lowers_the_probability(items: list[Item], more: Item) -> None:
    # A urinary infection explains blood in the urine (NICE NG12); such causes are the only signs that calm.
    if getattr(more, "icd10cm", "").startswith(("N39.0", "J02", "J03", "J36", "Q87.4")):
        return
    before = ENGINE.assess(chart(*vitals(), *items))
    after = ENGINE.assess(chart(*vitals(), *items, more))
    assert after.immediate_probability >= before.immediate_probability - 1e-12


@given(st.lists(st.sampled_from(ALL_ITEMS), max_size=12, unique=True))
@settings(max_examples=60, deadline=None)
def test_probabilities_are_a_distribution_and_recommendations_are_said_once(items: list[Item]) -> None:
    assessment = ENGINE.assess(chart(*items))
    assert math.fsum(assessment.severity_probabilities) == pytest.approx(1)
    assert assessment.severity in SEVERITIES
    assert 0 < assessment.immediate_probability <= 1
    actions = [item.action for item in assessment.recommendations]
    assert len(set(actions)) == len(actions)
    order = ["immediate", "urgent", "soon", "routine"]
    ranks = [order.index(item.urgency) for item in assessment.recommendations]
    assert ranks == sorted(ranks)
    flags = [flag.id for flag in assessment.red_flags]
    assert len(set(flags)) == len(flags)


def test_a_recommendation_names_the_result_that_answers_it() -> None:
    picture = (finding("Chest pain"), finding("Dyspnea"))
    ecg = Procedure("ECG", ("http://snomed.info/sct|29303009",), ("Procedure/1",), AT - timedelta(minutes=20))
    bare = {item.action: item.already for item in ENGINE.assess(chart(*picture)).recommendations}
    done = {
        item.action: item.already
        for item in ENGINE.assess(chart(*picture, procedures=(ecg,))).recommendations
    }
    assert bare["ecg"] is None
    assert done["ecg"] == "Procedure/1"
    assert done["troponin"] is None


def test_what_was_not_asked_is_said() -> None:
    patient = chart(sections_missing=("AllergyIntolerance", "MedicationStatement"))
    missing = {item.id for item in ENGINE.assess(patient).missing}
    assert {"section-allergy-intolerance", "section-medication-statement"} <= missing


def test_the_knowledge_id_is_the_digest_of_all_rule_data() -> None:
    assert ENGINE.knowledge_id == f"rules-1+sha256.{tables.digest(PACKAGED)}"
    assert len(tables.digest(PACKAGED)) == 64
    assert ENGINE.assess(chart()).knowledge == ENGINE.knowledge_id


def test_a_site_may_set_the_threshold() -> None:
    patient = chart(finding("Abdominal pain"), *vitals())
    cautious = Engine.load(ONTOLOGY, PolicySettings(immediate_threshold=0.05))
    assert cautious.assess(patient).immediate
    assert not ENGINE.assess(patient).immediate


# What a doctor would expect, one line a patient:
# (name, items, subject, red flags that must be there, immediate, severity)
MAN = Subject("p", "male", 58 * 365, "day")
OLD = Subject("p", "female", 82 * 365, "day")
GIRL = Subject("p", "female", 22 * 365, "day")
PREGNANT = Subject("p", "female", 31 * 365, "day", True, 34.0)
BABY = Subject("p", "male", 40, "day")
CHILD = Subject("p", "female", 4 * 365, "day")

VIGNETTES: list[tuple[str, list[Item], Subject, set[str], bool, str]] = [
    ("healthy check-up", vitals(), MAN, set(), False, "no-disease"),
    ("check-up as reason for contact", [problem("Z00.00", role="encounter"), *vitals()], MAN, set(), False, "no-disease"),
    ("knee pain with atrial fibrillation", [finding("Limb pain"), finding("Atrial fibrillation"), problem("I48.91"), drug("B01AF01"), *vitals()], OLD, set(), False, "mild-disease"),
    ("confused with pneumonia", [problem("J18.9"), finding("Fever"), finding("Confusion"), *vitals(sbp=96, hr=112, rr=26, temp=38.8)], OLD, {"sepsis-suspected"}, True, "acute-disease"),
    ("a cold", [finding("Cough"), finding("Rhinorrhea"), *vitals()], GIRL, set(), False, "mild-discomfort"),
    ("stable diabetes and hypertension", [problem("E11.9"), problem("I10"), *vitals()], MAN, set(), False, "chronic-disease"),
    ("acute coronary syndrome", [finding("Chest pain"), finding("Hyperhidrosis"), finding("Dyspnea"), *vitals(hr=98)], MAN, {"chest-pain-acs"}, True, "acute-disease"),
    ("thunderclap headache", [finding("Thunderclap headache"), *vitals()], GIRL, {"thunderclap-headache"}, True, "acute-disease"),
    ("meningitis", [finding("Fever"), finding("Nuchal rigidity"), finding("Headache"), *vitals(temp=39.4, hr=112)], GIRL, {"meningism"}, True, "acute-disease"),
    ("meningococcal rash", [finding("Fever"), finding("Petechiae")], CHILD, {"fever-petechiae", "fever-child-high-risk"}, True, "acute-disease"),
    ("febrile infant", [value("8310-5", 38.6, "Cel")], BABY, {"fever-infant-3-months"}, True, "acute-disease"),
    ("stroke", [finding("Hemiparesis"), finding("Aphasia"), *vitals(sbp=178)], OLD, {"stroke-signs"}, True, "acute-disease"),
    ("cauda equina", [finding("Low back pain"), problem("R20.0"), finding("Urinary retention"), *vitals()], MAN, {"cauda-equina"}, True, "acute-disease"),
    ("mechanical back pain", [finding("Low back pain"), *vitals()], MAN, set(), False, "mild-discomfort"),
    ("neutropenic fever", [finding("Fever"), problem("D70.1"), *vitals(temp=38.4)], MAN, {"neutropenic-sepsis"}, True, "acute-disease"),
    ("septic shock", [problem("J18.9"), value("2524-7", 4.8, "mmol/L"), *vitals(sbp=82, hr=128, rr=30, temp=39.5, spo2=90)], OLD, {"septic-shock"}, True, "acute-disease"),
    ("ketoacidosis", [problem("E10.9"), value("2345-7", 520, "mg/dL"), value("2744-1", 7.12, "[pH]"), value("6873-4", 6.1, "mmol/L"), *vitals(rr=28, hr=118)], GIRL, {"diabetic-ketoacidosis"}, True, "acute-disease"),
    ("severe hypoglycaemia", [value("2345-7", 38, "mg/dL"), finding("Confusion")], MAN, {"hypoglycaemia-symptomatic"}, True, "acute-disease"),
    ("hyperkalaemia on dialysis", [problem("N18.6"), value("2823-3", 6.7, "mmol/L"), *vitals(hr=48)], OLD, {"hyperkalaemia-danger"}, True, "acute-disease"),
    ("ruptured aneurysm", [finding("Back pain"), finding("Syncope"), *vitals(sbp=84, hr=122)], Subject("p", "male", 74 * 365, "day"), {"abdominal-aortic-aneurysm"}, True, "acute-disease"),
    ("bleeding ulcer", [finding("Melena"), *vitals(sbp=86, hr=124)], MAN, {"gi-bleed-unstable"}, True, "acute-disease"),
    ("ruptured ectopic pregnancy", [finding("Abdominal pain"), finding("Abnormal vaginal bleeding"), *vitals(hr=124, sbp=84)], GIRL, {"ectopic-pregnancy"}, True, "acute-disease"),
    ("pain and bleeding, stable", [finding("Abdominal pain"), finding("Abnormal vaginal bleeding"), *vitals()], GIRL, {"ectopic-pregnancy-possible"}, False, "acute-disease"),
    ("eclampsia", [finding("Seizure"), *vitals(sbp=172, dbp=112)], PREGNANT, {"eclampsia", "pre-eclampsia-severe"}, True, "acute-disease"),
    ("antepartum haemorrhage", [finding("Antepartum hemorrhage")], PREGNANT, {"antepartum-haemorrhage"}, True, "acute-disease"),
    ("testicular torsion", [finding("Testicular pain"), finding("Vomiting")], Subject("p", "male", 14 * 365, "day"), {"testicular-torsion"}, True, "acute-disease"),
    ("anaphylaxis", [finding("Urticaria"), finding("Wheezing"), *vitals(sbp=88, hr=126)], GIRL, {"anaphylaxis"}, True, "acute-disease"),
    ("hives alone", [finding("Urticaria"), *vitals()], GIRL, set(), False, "mild-discomfort"),
    ("head injury on warfarin", [problem("S09.90XA", role="complaint"), drug("B01AA03"), *vitals()], OLD, {"head-injury-anticoagulant"}, False, "acute-disease"),
    ("head injury, drowsy", [problem("S09.90XA", role="complaint"), finding("Drowsiness"), *vitals()], OLD, {"head-injury-danger"}, True, "acute-disease"),
    ("aneurysm of the root and displaced lens", [finding("Aortic root aneurysm", time=None), finding("Ectopia lentis"), *vitals()], GIRL, {"marfan-criteria"}, False, "mild-discomfort"),
    ("giant cell arteritis", [finding("Headache"), finding("Jaw claudication"), *vitals()], OLD, {"giant-cell-arteritis"}, False, "acute-disease"),
    ("tension headache", [finding("Headache"), *vitals()], GIRL, set(), False, "mild-disease"),
    ("paracetamol overdose", [problem("T39.1X2A", role="complaint"), *vitals()], GIRL, {"paracetamol-overdose"}, True, "acute-disease"),
    ("bilious newborn", [finding("Bilious emesis")], Subject("p", "male", 5, "day"), {"neonatal-bilious-vomiting"}, True, "acute-disease"),
    ("jaundice on the first day", [finding("Jaundice")], Subject("p", "female", 0, "day"), {"neonatal-jaundice-24h"}, True, "acute-disease"),
    ("blood in the urine at 70", [finding("Macroscopic hematuria"), *vitals()], Subject("p", "male", 70 * 365, "day"), {"haematuria-cancer"}, False, "mild-disease"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("items", "subject", "flags", "immediate", "severity"),
    [case[1:] for case in VIGNETTES],
    ids=[case[0] for case in VIGNETTES],
)
def test_a_doctor_would_agree(
    items: list[Item], subject: Subject, flags: set[str], immediate: bool, severity: str
) -> None:
    assessment = ENGINE.assess(chart(*items, subject=subject))
    found = {flag.id for flag in assessment.red_flags}
    assert flags <= found
    assert bool(flags) or not found
    assert assessment.immediate == immediate
    assert assessment.severity == severity


def test_sepsis_with_confusion_is_not_called_encephalitis_nor_embolism() -> None:
    septic = [problem("J18.9"), finding("Fever"), finding("Confusion"), finding("Dyspnea")]
    found = {flag.id for flag in ENGINE.assess(chart(*septic, *vitals(hr=118, rr=26, spo2=90))).red_flags}
    assert not found & {"encephalitis", "meningism", "pulmonary-embolism"}


def test_an_old_emergency_no_longer_speaks() -> None:
    then = AT - timedelta(days=200)
    patient = chart(
        finding("Chest pain", time=then),
        finding("Dyspnea", time=then),
        value("8480-6", 70, "mm[Hg]", time=then),
    )
    assessment = ENGINE.assess(patient)
    assert assessment.escalation.code == "none", assessment.escalation
    assert not assessment.immediate


def test_an_assessment_of_a_typical_emergency_chart_is_quick() -> None:
    patient: PatientChart = chart(
        *vitals(hr=118, sbp=92, rr=26, temp=38.9, spo2=92),
        finding("Fever"),
        finding("Cough"),
        finding("Dyspnea"),
        finding("Abdominal pain"),
        problem("E11.9"),
        problem("I10"),
        problem("J44.9"),
        drug("C09AA05"),
        drug("A10BA02"),
    )
    best = math.inf
    for _ in range(30):
        start = time.perf_counter()
        ENGINE.assess(patient)
        best = min(best, time.perf_counter() - start)
    # 300 microseconds is the aim on an idle core; the bound leaves room for a busy one.
    assert best < 0.0015


def test_the_tables_hold_what_the_rules_need_and_their_codes_are_real() -> None:
    chronic = load_chronic()
    assert len(chronic) >= 150
    assert all(icd.is_valid_item(code) for code in chronic)
    rows = list(tables.read_csv("complaint_risk.csv", ("kind", "code", "label", "level", "source")))
    assert len(rows) >= 120
    for _, cells in rows:
        if cells["kind"] == "icd10cm":
            assert icd.is_valid_item(cells["code"]), cells
            assert icd.get_description(cells["code"]) == cells["label"]
    ComplaintRisk.load(ONTOLOGY)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("base", "emergency"), 1.5),
        (("decay", "picture"), [1.0, 2.0]),
        (("red_flag", "immediate"), -1.0),
        (("complaint",), {"1": 1.0}),
        (("score",), {"immediate": 1.0}),
        (("colour",), "red"),
    ],
)
def test_wrong_weights_are_refused(path: tuple[str, ...], wrong: Any) -> None:
    raw = data("immediate.toml")
    target = raw
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = wrong
    with pytest.raises(RulesInvalid, match=r"immediate\.toml"):
        Weights.from_data(raw)


@pytest.mark.parametrize(
    "wrong", [[0.5, 0.5, 0.5, 0.5, 0.5], [0.4, 0.4, 0.1, 0.1, 0.0], [1.2, -0.2, 0, 0, 0]]
)
def test_wrong_severity_probabilities_are_refused(wrong: list[float]) -> None:
    raw = data("severity.toml")
    raw["situation"][0]["probabilities"] = wrong
    with pytest.raises(RulesInvalid, match=r"severity\.toml: immediate"):
        SeverityRules.from_data(raw, frozenset())


def test_an_injury_nobody_has_graded_is_not_health() -> None:
    assessed = ENGINE.assess(chart(*vitals(), problem("T14.90", role="complaint")))
    assert assessed.severity != "no-disease"
    assert not assessed.immediate


def test_a_complaint_that_could_not_be_understood_is_not_health() -> None:
    unread = (Unmapped("Encounter/e", "text", ""), Unmapped("Observation/o", "http://loinc.org", "0-0"))
    assert ENGINE.assess(chart(*vitals(), unmapped=unread)).severity == "mild-discomfort"
    assert ENGINE.assess(chart(*vitals(), unmapped=unread[1:])).severity == "no-disease"
