"""Every red flag fires on its own picture, stays silent when a needed part is gone, and cites real codes."""

import copy
from datetime import timedelta
from typing import Any

import pytest
import simple_icd_10_cm as icd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rule_charts import (
    AT,
    ONTOLOGY,
    RED_FLAGS,
    chart,
    finding,
    fitting_subject,
    met,
    problem,
    satisfying,
    value,
)

from fhir_adapters.chart import PatientChart, Subject
from models.assessment import RedFlag
from models.rules.actions import Actions
from models.rules.analytes import load_analytes
from models.rules.currency import Currency, Windows
from models.rules.errors import RulesInvalid
from models.rules.red_flags import RedFlagRules
from models.rules.terms import TermTable

FLAGS: list[dict[str, Any]] = RED_FLAGS["red_flag"]
IDS = [flag["id"] for flag in FLAGS]
TERMS = TermTable(ONTOLOGY, load_analytes())
RULES = RedFlagRules.load(TERMS, Actions.load())
WINDOWS = Windows.load()


def flags_of(patient: PatientChart) -> dict[str, RedFlag]:
    hits = TERMS.match(patient, Currency(patient, WINDOWS))
    return {flag.id: flag for flag in RULES.evaluate(patient, hits)}


@pytest.mark.parametrize("rule", FLAGS, ids=IDS)
def test_a_red_flag_fires_on_its_own_picture(rule: dict[str, Any]) -> None:
    patient = chart(*satisfying(rule["when"]), subject=fitting_subject(rule.get("population")))
    flag = flags_of(patient)[rule["id"]]
    assert flag.urgency == rule["urgency"]
    assert flag.facts
    assert flag.source.startswith(rule["source"])
    assert not flag.stale


@pytest.mark.parametrize("rule", FLAGS, ids=IDS)
def test_a_red_flag_stays_silent_when_a_needed_part_is_gone(rule: dict[str, Any]) -> None:
    items = satisfying(rule["when"])
    subject = fitting_subject(rule.get("population"))
    silenced = 0
    for gone in range(len(items)):
        patient = chart(*items[:gone], *items[gone + 1 :], subject=subject)
        fires = rule["id"] in flags_of(patient)
        assert fires == met(rule["when"], patient)
        silenced += not fires
    assert silenced, "no part of this picture is needed"


@pytest.mark.parametrize(
    "rule",
    [rule for rule in FLAGS if "age_max_days" in rule.get("population", {})],
    ids=lambda rule: rule["id"],
)
def test_a_red_flag_for_an_age_stays_silent_beyond_it(rule: dict[str, Any]) -> None:
    subject = fitting_subject(rule["population"])
    older = Subject("p", subject.sex, rule["population"]["age_max_days"] + 1, "day", subject.pregnant)
    assert rule["id"] not in flags_of(chart(*satisfying(rule["when"]), subject=older))


@pytest.mark.parametrize(
    "rule",
    [rule for rule in FLAGS if rule.get("population", {}).get("age_min_days")],
    ids=lambda rule: rule["id"],
)
def test_a_red_flag_for_an_age_stays_silent_below_it(rule: dict[str, Any]) -> None:
    subject = fitting_subject(rule["population"])
    younger = Subject("p", subject.sex, rule["population"]["age_min_days"] - 1, "day", subject.pregnant)
    assert rule["id"] not in flags_of(chart(*satisfying(rule["when"]), subject=younger))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from([item for rule in FLAGS for item in satisfying(rule["when"])]),
        max_size=12,
        unique=True,
    ),
    st.sampled_from(FLAGS),
)
def test_the_compiled_rules_agree_with_a_naive_reading_of_the_file(
    items: list[Any], rule: dict[str, Any]
) -> None:
    patient = chart(*items, *satisfying(rule["when"])[1:], subject=fitting_subject(rule.get("population")))
    assert (rule["id"] in flags_of(patient)) == met(rule["when"], patient)


def test_there_are_at_least_sixty_and_each_suspect_is_a_real_code() -> None:
    assert len(FLAGS) >= 60
    for rule in FLAGS:
        for code in rule["suspects"]:
            assert icd.is_valid_item(code), (rule["id"], code)


def test_every_problem_term_is_a_real_code_or_chapter() -> None:
    for name in TERMS.names:
        kind, _, body = name.partition(":")
        if kind in ("acute", "problem", "history") and len(body) >= 3:
            assert icd.is_valid_item(body), name


def test_a_finding_counts_for_its_more_general_term() -> None:
    assert ONTOLOGY.is_a(finding("Focal-onset seizure").hpo, finding("Seizure").hpo)
    assert "seizure-acute" in flags_of(chart(finding("Focal-onset seizure")))


def test_pressure_on_the_chest_is_chest_pain_although_hpo_files_it_elsewhere() -> None:
    assert "chest-pain-adult" in flags_of(chart(finding("Chest pain described as pressure")))


def test_uncertain_evidence_alone_is_one_step_less_urgent() -> None:
    sure = flags_of(chart(finding("Thunderclap headache")))["thunderclap-headache"]
    unsure = flags_of(chart(finding("Thunderclap headache", state="uncertain")))["thunderclap-headache"]
    read = flags_of(chart(finding("Thunderclap headache", from_text=True)))["thunderclap-headache"]
    assert (sure.urgency, unsure.urgency, read.urgency) == ("immediate", "urgent", "urgent")


def test_uncertain_evidence_beside_sure_evidence_keeps_the_urgency() -> None:
    patient = chart(finding("Chest pain", state="uncertain"), finding("Hyperhidrosis"), finding("Dyspnea"))
    assert flags_of(patient)["chest-pain-acs"].urgency == "immediate"


def test_a_denied_finding_is_no_evidence() -> None:
    patient = chart(finding("Thunderclap headache", state="absent"))
    assert flags_of(patient) == {}


def test_history_is_no_present_problem() -> None:
    assert "stroke-signs" not in flags_of(chart(problem("I63.9", "resolved")))


def test_a_stale_measurement_never_meets_a_term() -> None:
    old = AT - timedelta(days=5)
    assert "hyperkalaemia-danger" in flags_of(chart(value("2823-3", 6.8, "mmol/L")))
    assert "hyperkalaemia-danger" not in flags_of(chart(value("2823-3", 6.8, "mmol/L", time=old)))


def test_a_value_in_another_unit_is_converted_and_an_unknown_unit_is_no_evidence() -> None:
    assert "hypoglycaemia-symptomatic" in flags_of(chart(value("2345-7", 2.2, "mmol/L")))
    assert "hypoglycaemia-symptomatic" not in flags_of(chart(value("2345-7", 7.0, "mmol/L")))
    assert "hypoglycaemia-symptomatic" not in flags_of(chart(value("2345-7", 2.2, "furlong")))


def test_a_comparator_only_counts_on_its_own_side() -> None:
    below = value("2345-7", 60.0, "mg/dL", comparator=">")
    assert "hypoglycaemia-symptomatic" not in flags_of(chart(below))
    under = value("2345-7", 40.0, "mg/dL", comparator="<")
    assert "hypoglycaemia-symptomatic" in flags_of(chart(under))


def test_an_old_complaint_makes_no_acute_red_flag_but_still_a_slow_one() -> None:
    month_ago = AT - timedelta(days=30)
    patient = chart(
        finding("Thunderclap headache", time=month_ago), finding("Macroscopic hematuria", time=month_ago)
    )
    found = flags_of(PatientChart(**{**_fields(patient), "subject": Subject("p", "male", 70 * 365, "day")}))
    assert "thunderclap-headache" not in found
    assert found["haematuria-cancer"].stale


def test_an_age_known_only_to_the_year_makes_nobody_an_infant() -> None:
    fever = value("8310-5", 38.5, "Cel")
    sure = chart(fever, subject=Subject("p", "male", 40, "day"))
    vague = chart(fever, subject=Subject("p", "male", 40, "year"))
    assert "fever-infant-3-months" in flags_of(sure)
    assert "fever-infant-3-months" not in flags_of(vague)


def test_a_better_red_flag_hides_the_one_it_says_better() -> None:
    patient = chart(finding("Hematemesis"), value("8480-6", 80.0, "mm[Hg]"))
    hits = TERMS.match(patient, Currency(patient, WINDOWS))
    flags = RULES.evaluate(patient, hits)
    assert {"gi-bleed", "gi-bleed-unstable"} <= {flag.id for flag in flags}
    assert "gi-bleed" not in {flag.id for flag in RULES.visible(flags)}


def test_gestation_decides_between_early_and_antepartum_bleeding() -> None:
    bleeding = finding("Abnormal vaginal bleeding")
    early = flags_of(chart(bleeding, subject=Subject("p", "female", 30 * 365, "day", True, 9.0)))
    late = flags_of(chart(bleeding, subject=Subject("p", "female", 30 * 365, "day", True, 32.0)))
    assert "antepartum-haemorrhage" not in early
    assert early["early-pregnancy-bleeding"].urgency == "urgent"
    assert late["antepartum-haemorrhage"].urgency == "immediate"


def _fields(patient: PatientChart) -> dict[str, Any]:
    return {name: getattr(patient, name) for name in patient.__struct_fields__}


BROKEN: dict[str, Any] = {
    "unknown HPO id": {"when": {"all": ["finding:HP:9999999 Nothing"]}},
    "HPO id under another name": {"when": {"all": ["finding:HP:0100749 Headache"]}},
    "misspelt ICD code": {"when": {"all": ["problem:1X"]}},
    "unknown kind of term": {"when": {"all": ["smell:roses"]}},
    "unknown group": {"when": {"all": ["group:nowhere"]}},
    "analyte without a row": {"when": {"all": ["measurement:4548-4 > 9 %"]}},
    "unit of another analyte": {"when": {"all": ["measurement:8480-6 < 90 kg"]}},
    "no condition": {"when": {}},
    "more than there are": {"when": {"at_least": 3, "of": ["problem:D70", "problem:D71"]}},
    "unknown action": {"actions": ["pray"]},
    "suspect that is no code": {"suspects": ["heart attack"]},
    "routine": {"urgency": "routine"},
    "unknown urgency": {"urgency": "whenever"},
    "no source": {"source": ""},
    "unknown grade": {"grade": "Z"},
    "nobody": {"population": {"age_min_days": 10, "age_max_days": 5}},
    "a pregnant man": {"population": {"sex": "male", "pregnant": "yes"}},
    "supersedes nothing": {"supersedes": ["no-such-flag"]},
    "unknown member": {"colour": "red"},
    "not kebab-case": {"id": "Thunder Clap"},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_the_loader_names_file_and_id_of_a_wrong_rule(broken: dict[str, Any]) -> None:
    rule = {**copy.deepcopy(FLAGS[IDS.index("thunderclap-headache")]), **copy.deepcopy(broken)}
    with pytest.raises(RulesInvalid, match=r"red_flags\.toml: ") as caught:
        RedFlagRules.from_data({"red_flag": [rule]}, TermTable(ONTOLOGY, load_analytes()), Actions.load())
    assert rule["id"] in str(caught.value)


def test_a_rule_may_not_hide_a_graver_one() -> None:
    low = copy.deepcopy(FLAGS[IDS.index("breast-lump")])
    low["supersedes"] = ["thunderclap-headache"]
    raw = {"red_flag": [low, FLAGS[IDS.index("thunderclap-headache")]]}
    with pytest.raises(RulesInvalid, match="graver"):
        RedFlagRules.from_data(raw, TermTable(ONTOLOGY, load_analytes()), Actions.load())
