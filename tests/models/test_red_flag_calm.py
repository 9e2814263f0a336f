"""Everyday pictures that must not cry wolf, each beside the unstable picture that must still be called."""

# ruff: noqa: E501 (a table of patients, one a line)

from datetime import timedelta

import pytest
from rule_charts import AT, Item, chart, drug, finding, problem, value

from fhir_adapters.chart import CodedValue, Subject
from fhir_adapters.hpo import load_ontology
from models.engine import Engine

ENGINE = Engine.load(load_ontology())
MAN = Subject("p", "male", 58 * 365, "day")
WOMAN = Subject("p", "female", 29 * 365, "day")
OLD = Subject("p", "female", 78 * 365, "day")
TODDLER = Subject("p", "male", 3 * 365, "day")
PREGNANT = Subject("p", "female", 31 * 365, "day", True, 32.0)


def urgencies(items: list[Item], subject: Subject) -> dict[str, str]:
    return {flag.id: flag.urgency for flag in ENGINE.assess(chart(*items, subject=subject)).red_flags}


BREATHS, PULSE, PRESSURE, HEAT, SATURATION = "9279-1", "8867-4", "8480-6", "8310-5", "59408-5"


def rr(number: float) -> Item:
    return value(BREATHS, number, "/min")


def hr(number: float) -> Item:
    return value(PULSE, number, "/min")


def sbp(number: float) -> Item:
    return value(PRESSURE, number, "mm[Hg]")


def temp(number: float) -> Item:
    return value(HEAT, number, "Cel")


def spo2(number: float) -> Item:
    return value(SATURATION, number, "%")


# (what, everyday picture, the unstable picture, subject, the flag that must be immediate only in the latter)
PAIRS: list[tuple[str, list[Item], list[Item], Subject, str]] = [
    ("pyelonephritis or infected stone", [finding("Flank pain"), temp(38.9)], [problem("N20.1", role="encounter"), temp(38.9)], WOMAN, "urinary-obstruction-infected"),
    ("faint or ruptured ectopic", [finding("Syncope")], [finding("Syncope"), finding("Abdominal pain")], WOMAN, "ectopic-pregnancy"),
    ("pneumonia or shock from embolism", [finding("Dyspnea"), hr(118), spo2(90), temp(38.6)], [finding("Dyspnea"), finding("Deep venous thrombosis"), hr(124), sbp(84)], MAN, "pulmonary-embolism-massive"),
    ("heart failure swelling or embolism", [finding("Dyspnea"), finding("Pedal edema"), spo2(90)], [finding("Dyspnea"), finding("Syncope"), spo2(86)], OLD, "pulmonary-embolism-massive"),
    ("sore throat and hoarseness or epiglottitis", [finding("Pharyngitis"), finding("Dysphonia"), temp(38.5)], [finding("Pharyngitis"), finding("Drooling"), temp(39.0)], MAN, "epiglottitis"),
    ("toddler's normal breathing or anaphylaxis", [finding("Urticaria"), rr(28)], [finding("Urticaria"), finding("Wheezing")], TODDLER, "anaphylaxis"),
    ("toddler with a wheeze or exhausted", [finding("Wheezing"), rr(32), hr(128)], [finding("Wheezing"), spo2(88)], TODDLER, "asthma-severe"),
    ("warfarin and delirium or liver failure", [finding("Confusion"), value("6301-6", 2.6, "{INR}"), drug("B01AA03")], [finding("Confusion"), finding("Jaundice")], OLD, "acute-liver-failure"),
    ("simple or complicated fever seizure", [finding("Seizure"), temp(39.2)], [finding("Status epilepticus"), temp(39.2)], TODDLER, "fever-child-high-risk"),
    ("raised pressure with pain or encephalopathy", [finding("Chest pain"), sbp(186)], [finding("Confusion"), sbp(224)], MAN, "hypertensive-emergency"),
    ("headache in pregnancy or severe pressure", [finding("Headache"), sbp(142)], [finding("Headache"), sbp(168)], PREGNANT, "pre-eclampsia-severe"),
    ("stress incontinence or retention with back pain", [finding("Back pain"), finding("Urinary incontinence")], [finding("Back pain"), finding("Urinary retention")], OLD, "cauda-equina"),
    ("haemorrhoids or bleeding out", [finding("Hematochezia"), hr(102), sbp(134)], [finding("Hematochezia"), hr(118), sbp(94)], MAN, "gi-bleed-unstable"),
    ("rate control and gastroenteritis or dead bowel", [problem("I48.91"), finding("Abdominal pain"), finding("Vomiting")], [problem("I48.91"), finding("Abdominal pain"), value("2524-7", 3.4, "mmol/L")], OLD, "mesenteric-ischaemia"),
    ("sore eye or glaucoma", [finding("Ocular pain"), finding("Blurred vision")], [finding("Ocular pain"), finding("Blurred vision"), finding("Headache")], MAN, "acute-angle-closure"),
    ("Bell's palsy or stroke", [finding("Facial palsy")], [finding("Facial palsy"), finding("Slurred speech")], MAN, "stroke-signs"),
    ("side effect or overdose of an opioid", [problem("T40.2X5A", role="encounter")], [problem("T40.2X1A", role="encounter")], MAN, "opioid-toxidrome"),
    ("codeine and slow breathing", [drug("R05DA04"), rr(14)], [drug("R05DA04"), rr(8)], MAN, "opioid-toxidrome"),
    ("methadone and slow breathing", [drug("N07BC02"), rr(14)], [drug("N07BC02"), rr(8)], MAN, "opioid-toxidrome"),
    ("type 2 diabetes with pneumonia or ketoacidosis", [problem("E11.9"), value("2345-7", 214, "mg/dL"), rr(26)], [problem("E11.9"), value("2345-7", 214, "mg/dL"), value("6873-4", 4.2, "mmol/L")], MAN, "diabetic-ketoacidosis"),
    ("steroid burst and a faint or shock", [drug("H02AB06"), finding("Syncope")], [drug("H02AB06"), sbp(82)], MAN, "adrenal-crisis"),
    ("high fever and delirium or heat", [finding("Confusion"), temp(40.2)], [finding("Confusion"), temp(40.2), problem("T67.9XXA", role="encounter")], OLD, "heat-stroke"),
    ("pneumonia on a good day or as bad as NEWS2 of 7", [temp(38.7), spo2(91), rr(24), hr(98)], [temp(38.7), spo2(90), rr(24), hr(126)], OLD, "sepsis-suspected"),
    ("knee pain in fibrillation or a cold leg", [finding("Limb pain"), problem("I48.91"), finding("Paresthesia")], [finding("Limb pain"), problem("I48.91"), finding("Coldness")], OLD, "acute-limb-ischaemia"),
    ("chest pain with nausea or with sweating too", [finding("Chest pain"), finding("Nausea")], [finding("Chest pain"), finding("Nausea"), finding("Hyperhidrosis")], MAN, "chest-pain-acs"),
    ("cold trauma patient or cold sepsis", [temp(35.6), rr(24), problem("S72.001A", role="encounter")], [temp(35.6), rr(24), problem("N10", role="encounter")], OLD, "sepsis-suspected"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("everyday", "unstable", "subject", "flag"), [case[1:] for case in PAIRS], ids=[case[0] for case in PAIRS]
)
def test_an_everyday_picture_stays_calm_and_the_unstable_one_is_called(
    everyday: list[Item], unstable: list[Item], subject: Subject, flag: str
) -> None:
    calm, alarmed = urgencies(everyday, subject), urgencies(unstable, subject)
    assert flag not in calm
    assert "immediate" not in calm.values(), calm
    assert alarmed.get(flag) == "immediate", alarmed


@pytest.mark.parametrize("code", ["K35.80", "I63.9", "I21.3", "S06.5X0A", "I26.99", "G00.9", "E10.10"])
def test_an_acute_disease_left_on_the_problem_list_is_no_present_emergency(code: str) -> None:
    old = problem(code, role="problem-list", time=AT - timedelta(days=400))
    undated = problem(code, role="problem-list")
    fresh = problem(code, role="problem-list", time=AT - timedelta(hours=6))
    assert urgencies([old], MAN) == {}
    assert urgencies([undated], MAN) == {}
    assert urgencies([fresh], MAN)


def test_the_reason_for_the_visit_counts_however_long_ago_it_began() -> None:
    begun = problem("I63.9", role="complaint", time=AT - timedelta(days=20))
    assert urgencies([begun], MAN)["stroke-signs"] == "immediate"


@pytest.mark.parametrize("code", ["T45.515A", "T38.0X5A", "T50.905A", "T39.1X6A"])
def test_a_side_effect_or_a_missed_dose_is_no_poisoning(code: str) -> None:
    assert urgencies([problem(code, role="encounter")], MAN) == {}


@pytest.mark.parametrize("code", ["T43.011A", "T50.902A", "T39.1X2A"])
def test_a_poisoning_is_one(code: str) -> None:
    assert urgencies([problem(code, role="encounter")], MAN)


def test_severe_abdominal_pain_alone_does_not_need_somebody_within_minutes() -> None:
    normal = [
        hr(84),
        sbp(128),
        rr(16),
        spo2(98),
        temp(36.8),
        CodedValue("67775-7", "alert", AT, "Observation/c"),
    ]
    sore = chart(finding("Abdominal pain"), value("72514-3", 8, "{score}"), *normal, subject=WOMAN)
    assessment = ENGINE.assess(sore)
    assert not assessment.immediate
    assert assessment.escalation.code == "none"


def test_marfan_is_not_suggested_to_somebody_known_to_have_it() -> None:
    picture: list[Item] = [finding("Aortic root aneurysm"), finding("Ectopia lentis")]
    assert urgencies(picture, WOMAN)["marfan-criteria"] == "soon"
    assert "marfan-criteria" not in urgencies([*picture, problem("Q87.410")], WOMAN)
