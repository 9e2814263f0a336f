"""Draft orders are complete FHIR R4 resources."""

import json

import pytest
from fhir.resources.R4B.servicerequest import ServiceRequest
from hook_values import AT, chart

from fhir_adapters.chart import Encounter
from hooks.suggestions import catalogue, order_suggestion, removal_suggestion, service_request
from hooks.texts import texts_for

DRAFTED = [action for action in catalogue().values() if action.drafted]


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("action", DRAFTED, ids=lambda action: action.id)
def test_every_draft_is_a_valid_r4_service_request(action, language):
    texts = texts_for(language)
    patient = chart(encounter=Encounter("Encounter/e1", "emergency"))
    resource = service_request(action, patient, texts, "Possible sepsis")
    parsed = ServiceRequest.model_validate(json.loads(json.dumps(resource)))
    assert parsed.status == "draft"
    assert parsed.intent == "order"
    assert parsed.subject.reference == "Patient/p1"
    assert parsed.encounter.reference == "Encounter/e1"
    assert parsed.code.text == texts[f"action.{action.id}.title"]
    assert parsed.authoredOn == AT
    assert parsed.priority in {"routine", "urgent", "asap", "stat"}
    assert "id" not in resource
    assert "requester" not in resource


def test_what_is_done_or_called_for_is_not_drafted_as_an_order():
    drafted = {action.id for action in DRAFTED}
    assert {"ecg", "blood-cultures", "ct-head", "referral-cardiology"} <= drafted
    assert drafted.isdisjoint({"emergency-review", "oxygen-to-target", "vital-signs-now", "adrenaline-im"})


def test_without_encounter_and_reason_the_members_are_left_out():
    resource = service_request(catalogue()["ecg"], chart(), texts_for("en"), "")
    assert {"encounter", "reasonCode"}.isdisjoint(resource)


def test_the_label_says_what_is_ordered():
    suggestion = order_suggestion(catalogue()["ecg"], chart(), texts_for("es"), reason="", recommended=True)
    assert suggestion.label == "Solicitar: ECG de 12 derivaciones"
    assert suggestion.actions[0].type == "create"


def test_removal_names_the_draft_by_its_reference():
    suggestion = removal_suggestion("MedicationRequest/7", "Amoxi\ncillin", texts_for("en"), recommended=True)
    (action,) = suggestion.actions
    assert (action.type, action.resourceId, action.resource) == ("delete", "MedicationRequest/7", None)
    assert suggestion.label == "Remove: Amoxi cillin"
