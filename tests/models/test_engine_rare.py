"""The engine with the rare-disease part of a bundle: when it speaks and what it rests on."""

import dataclasses
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rare_bundles import both
from rule_charts import chart

from fhir_adapters.chart import Finding, PatientChart
from fhir_adapters.hpo import load_ontology
from models.engine import Engine
from models.policy import PolicySettings

ONTOLOGY = load_ontology()
ENGINE = Engine.load(ONTOLOGY, bundle=both())
MARFAN = ("HP:0001083", "HP:0002616", "HP:0001166", "HP:0000767", "HP:0000098")


def patient(*present: str, absent: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> PatientChart:
    found = [finding(hpo, "present", f"Condition/{hpo[3:]}") for hpo in present]
    found += [finding(hpo, "absent", "Condition/no") for hpo in absent]
    return msgspec.structs.replace(chart(), findings=tuple(found), exclude_evidence=exclude)


def finding(hpo: str, state: Literal["present", "absent"], source: str) -> Finding:
    return Finding(hpo, ONTOLOGY.label(hpo), state, "encounter", (source,))


def test_the_alarm_escalates_and_says_why() -> None:
    found = ENGINE.assess(patient("HP:0001166", "HP:0000767", "HP:0100775", absent=("HP:0001249",)))
    assert found.rare_alarm and found.escalation.code == "rare-disease-alarm"
    assert len(found.rare) >= 100 and found.rare_opinion is not None
    assert [one.name for one in found.rare_opinion.assessed.candidates] == [one.label for one in found.rare]
    assert {fact.code: fact.state for fact in found.rare_opinion.findings}["HP:0001249"] == "absent"


def test_reasons_are_worked_out_only_where_they_are_read() -> None:
    calm = patient("HP:0001945", "HP:0012735")
    hook, asked = ENGINE.assess(calm), ENGINE.assess(calm, thorough=True)
    assert (hook.rare, hook.rare_opinion) == ((), None)
    assert len(asked.rare) >= 100 and not asked.rare_alarm
    assert hook.rare_alarm_probability == asked.rare_alarm_probability > 0


@pytest.mark.parametrize("thorough", [False, True])
def test_without_a_finding_present_nothing_is_said(thorough: bool) -> None:
    found = ENGINE.assess(patient(absent=("HP:0001249",)), thorough=thorough)
    assert (found.rare, found.rare_alarm_probability, found.rare_opinion) == ((), 0.0, None)


def test_a_site_may_set_its_threshold() -> None:
    strict = Engine.load(ONTOLOGY, PolicySettings(rare_alarm_threshold=0.3), both())
    found = strict.assess(patient(*MARFAN))
    assert found.rare_opinion is not None and found.rare_opinion.assessed.alarm.threshold == 0.3


def test_the_order_of_the_findings_changes_nothing() -> None:
    first, second = (ENGINE.assess(patient(*ids), thorough=True) for ids in (MARFAN, MARFAN[::-1]))
    assert first.rare == second.rare
    assert msgspec.json.encode(first.rare_opinion) == msgspec.json.encode(second.rare_opinion)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([*MARFAN, "HP:0001250", "HP:0000252"]), min_size=1, unique=True))
def test_shares_of_the_explained_diseases_add_up_to_their_scores(present: list[str]) -> None:
    opinion = ENGINE.assess(patient(*present), thorough=True).rare_opinion
    assert opinion is not None
    for one in opinion.assessed.candidates:
        if one.explained:
            total = one.baseline + sum(share.amount for share in one.shares)
            assert total == pytest.approx(one.score, abs=1e-3)
    total = sum(one.probability for one in opinion.assessed.candidates)
    assert total + opinion.assessed.none_probability + opinion.assessed.rest_probability == pytest.approx(1)


def test_papers_to_leave_out_are_named_with_or_without_their_prefix() -> None:
    charts = [patient(*MARFAN, exclude=(name,)) for name in ("PMID:16596670", "16596670")]
    one, other = (ENGINE.assess(each, thorough=True) for each in charts)
    assert one == other and one.rare_opinion is not None
    assert one.rare_opinion.excluded == ("PMID:16596670",)
    assert one.rare != ENGINE.assess(patient(*MARFAN), thorough=True).rare


def test_a_bundle_without_the_part_says_nothing_of_rare_diseases() -> None:
    plain = Engine.load(ONTOLOGY, bundle=dataclasses.replace(both(), rare=None))
    found = plain.assess(patient(*MARFAN), thorough=True)
    assert (found.rare, found.rare_alarm) == ((), False) and "hpo" not in found.knowledge
