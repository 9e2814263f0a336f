"""A drafted test whose answer is there already, for laboratory tests and imaging alike."""

from datetime import timedelta

import pytest
from rule_charts import AT, ONTOLOGY, chart, draft, value

from fhir_adapters.chart import Allergy, CodedValue, Order, PatientChart, Procedure
from models.assessment import OrderConcern
from models.engine import Engine
from models.rules.actions import Actions

ENGINE = Engine.load(ONTOLOGY)
ACTIONS = Actions.load()
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ORDERABLE = [action for action in ACTIONS.by_id.values() if action.kind.startswith("order-")]


def duplicate(patient: PatientChart) -> OrderConcern | None:
    found = [c for c in ENGINE.assess(patient).order_concerns if c.kind == "duplicate"]
    assert len(found) <= 1
    return found[0] if found else None


def lab(code: str) -> Order:
    return draft("lab", loinc=code, codes=(f"{LOINC}|{code}",))


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


@pytest.mark.parametrize("action", ORDERABLE, ids=lambda action: action.id)
def test_every_orderable_test_is_answered_by_a_recent_study_or_report_of_the_same_code(action) -> None:
    keys = tuple(f"{system}|{code}" for system, code, _ in action.codings)
    order = draft(action.id, codes=keys)
    done = Procedure(action.id, keys, ("DiagnosticReport/1",), AT - hours(action.within_hours / 2))
    found = duplicate(chart(orders=(order,), procedures=(done,)))
    assert found is not None and found.facts[0].sources == ("DiagnosticReport/1",)
    old = Procedure(action.id, keys, ("DiagnosticReport/1",), AT - hours(action.within_hours + 1))
    assert duplicate(chart(orders=(order,), procedures=(old,))) is None
    assert duplicate(chart(orders=(order,))) is None


@pytest.mark.parametrize("action", [a for a in ORDERABLE if a.answered_by], ids=lambda action: action.id)
def test_every_laboratory_test_is_answered_by_its_recent_result_and_by_an_open_order(action) -> None:
    keys = tuple(f"{system}|{code}" for system, code, _ in action.codings)
    order = draft(action.id, codes=keys)
    result = value(action.answered_by[0], 1.0, "1", time=AT - hours(action.within_hours / 2))
    # A differential count is ordered as a full count, and answered by both.
    others = [a for a in ACTIONS.matching(order) if a.id != action.id and a.answered_by]
    more = [value(a.answered_by[0], 1.0, "1", time=AT - hours(a.within_hours / 2)) for a in others]
    found = duplicate(chart(*more, result, orders=(order,)))
    assert found is not None
    assert result.source in {fact.sources[0] for fact in found.facts}
    old = value(action.answered_by[0], 1.0, "1", time=AT - hours(action.within_hours + 1))
    assert duplicate(chart(old, orders=(order,))) is None
    placed = Order("ServiceRequest", "ServiceRequest/1", "x", False, keys, time=AT - hours(1))
    assert duplicate(chart(orders=(order, placed))) is not None


def test_a_repeat_of_one_analyte_is_not_answered_by_its_panel_partner() -> None:
    creatinine = value("2160-0", 80.0, "umol/L", time=AT - hours(20))
    old = value("2823-3", 6.4, "mmol/L", time=AT - hours(20))
    # A potassium of 20 hours ago says nothing of now, and the creatinine beside it even less.
    assert duplicate(chart(creatinine, old, orders=(lab("2823-3"),))) is None
    recent = value("2823-3", 6.4, "mmol/L", time=AT - hours(3))
    assert duplicate(chart(creatinine, recent, orders=(lab("2823-3"),))) is not None
    # Creatinine has no action of its own: it takes the window of the panel it belongs to.
    assert duplicate(chart(creatinine, orders=(lab("2160-0"),))) is not None
    assert duplicate(chart(recent, orders=(lab("2160-0"),))) is None


def test_a_panel_is_answered_only_when_all_it_holds_is() -> None:
    panel = draft("cmp", loinc="24323-8", codes=(f"{LOINC}|24323-8",))
    creatinine = value("2160-0", 80.0, "umol/L", time=AT - hours(6))
    alt = value("1742-6", 20.0, "U/L", time=AT - hours(6))
    assert duplicate(chart(creatinine, orders=(panel,))) is None
    found = duplicate(chart(creatinine, alt, orders=(panel,)))
    assert found is not None
    assert {fact.sources[0] for fact in found.facts} == {creatinine.source, alt.source}


def test_an_open_panel_answers_a_drafted_part_of_it() -> None:
    panel = Order(
        "ServiceRequest", "ServiceRequest/1", "U&E", False, (f"{LOINC}|51990-0",), time=AT - hours(1)
    )
    found = duplicate(chart(orders=(lab("2160-0"), panel)))
    assert found is not None and found.facts[0].sources == ("ServiceRequest/1",)


def test_a_test_that_no_action_knows_is_compared_by_its_own_code_for_a_day() -> None:
    code = "2132-9"
    recent = value(code, 300.0, "pmol/L", time=AT - hours(5))
    assert duplicate(chart(recent, orders=(lab(code),))) is not None
    assert duplicate(chart(value(code, 300.0, "pmol/L", time=AT - hours(30)), orders=(lab(code),))) is None
    coded = CodedValue(code, "positive", AT - hours(5), "Observation/c")
    assert duplicate(chart(coded, orders=(lab(code),))) is not None
    mri = (f"{SNOMED}|816077007",)
    order = draft("MRI of head", codes=mri)
    done = Procedure("MRI of head", mri, ("DiagnosticReport/1",), AT - hours(5))
    found = duplicate(chart(orders=(order,), procedures=(done,)))
    assert found is not None and found.facts[0].label == "MRI of head"
    undated = Procedure("MRI of head", mri, ("DiagnosticReport/1",))
    assert duplicate(chart(orders=(order,), procedures=(undated,))) is None
    placed = Order("ServiceRequest", "ServiceRequest/1", "MRI", False, mri, time=AT - hours(2))
    assert duplicate(chart(orders=(order, placed))) is not None


def test_vital_signs_are_measured_again_without_a_word() -> None:
    pulse = value("8867-4", 80.0, "/min", time=AT - hours(0.5))
    assert duplicate(chart(pulse, orders=(lab("8867-4"),))) is None


def test_a_draft_is_no_duplicate_of_itself() -> None:
    order = draft("ct", codes=(f"{SNOMED}|303653007",))
    listed = Order("ServiceRequest", order.reference, "ct", False, order.codes, time=AT)
    assert duplicate(chart(orders=(order, listed))) is None


def test_an_allergy_to_a_whole_group_speaks_against_each_drug_of_it() -> None:
    group = Allergy("Aminoglycosides", ("AllergyIntolerance/1",), ("J01G",))
    gentamicin = draft("gentamicin", atc=("J01GB03",))
    found = ENGINE.assess(chart(orders=(gentamicin,), allergies=(group,))).order_concerns
    assert [(c.kind, c.rule, c.urgency) for c in found] == [("allergy", "allergy-same-class", "immediate")]
    other = draft("doxycycline", atc=("J01AA02",))
    assert ENGINE.assess(chart(orders=(other,), allergies=(group,))).order_concerns == ()
    absent = Allergy("Aminoglycosides", ("AllergyIntolerance/1",), ("J01G",), absent=True)
    assert ENGINE.assess(chart(orders=(gentamicin,), allergies=(absent,))).order_concerns == ()


def test_where_a_rule_knows_how_far_an_allergy_reaches_the_rule_speaks() -> None:
    penicillin = Allergy("Penicillin", ("AllergyIntolerance/1",), ("J01C",))
    amoxicillin = draft("amoxicillin", atc=("J01CA04",))
    found = ENGINE.assess(chart(orders=(amoxicillin,), allergies=(penicillin,))).order_concerns
    assert [c.rule for c in found] == ["penicillin-allergy-beta-lactam"]


def test_an_nsaid_inside_a_combination_is_an_nsaid() -> None:
    ibuprofen = Allergy("Ibuprofen", ("AllergyIntolerance/1",), ("M01AE01",))
    combined = draft("codeine and ibuprofen", atc=("N02AJ08",))
    found = ENGINE.assess(chart(orders=(combined,), allergies=(ibuprofen,))).order_concerns
    assert "nsaid-allergy-class" in {c.rule for c in found}
