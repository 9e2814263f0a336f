"""Builds the draft FHIR R4 resources that a clinician can accept from a card.

One `ServiceRequest` per orderable action of ``models/rules/data/actions.toml``: status `draft`,
intent `order`, no id (it is new), no requester (the person who signs is not ours to name).  Decides
nothing about which actions to suggest.
"""

import tomllib
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import msgspec

from fhir_adapters.chart import PatientChart
from hooks.cards import Action, Suggestion
from hooks.markdown import plain
from hooks.texts import Texts, texts_for
from models.rules.actions import Actions

SNOMED = "http://snomed.info/sct"

# FHIR R4 value set servicerequest-category, and SNOMED CT for the kinds it does not have.
_CATEGORY: Mapping[str, tuple[str, str]] = {
    "order-lab": ("108252007", "Laboratory procedure"),
    "order-imaging": ("363679005", "Imaging"),
    "order-procedure": ("103693007", "Diagnostic procedure"),
    "referral": ("3457005", "Patient referral"),
}

_PRESSING = frozenset({"stat", "asap"})

# A person is called for these; a request in a queue would be the wrong tool.
_CALLED_NOT_ORDERED = frozenset({"emergency-review", "urgent-review", "senior-review"})


class OrderableInvalid(ValueError):
    """The catalogue of actions cannot be drafted as it stands; names the entry."""


class Orderable(msgspec.Struct, frozen=True):
    """What of an action goes into a draft: its kind, FHIR priority and codings (system, code, display).

    `also_ordered_as` are further ``"system|code"`` pairs under which it is ordered, `answered_by` the
    LOINC codes of results that answer it.
    """

    id: str
    kind: str
    priority: str
    codings: tuple[tuple[str, str, str], ...]
    also_ordered_as: tuple[str, ...] = ()
    answered_by: tuple[str, ...] = ()

    @property
    def drafted(self) -> bool:
        """Whether a draft order makes sense (measuring, advice and calls are said, not ordered)."""
        return bool(self.codings) and self.kind in _CATEGORY and self.id not in _CALLED_NOT_ORDERED


@cache
def catalogue() -> Mapping[str, Orderable]:
    """Every action by id; raises `OrderableInvalid`.  Read once per process."""
    text = resources.files("models.rules").joinpath("data", "actions.toml").read_text(encoding="utf-8")
    found: dict[str, Orderable] = {}
    for number, row in enumerate(tomllib.loads(text)["action"], start=1):
        try:
            action = msgspec.convert(row, Orderable)
        except msgspec.ValidationError as problem:
            raise OrderableInvalid(f"actions.toml, entry {number}: {problem}") from problem
        if action.id in found:
            raise OrderableInvalid(f"actions.toml, entry {number}: {action.id} occurs twice")
        found[action.id] = action
    return found


@cache
def ordered_as() -> Mapping[str, str]:
    """``"system|code"`` of an order to the id of the action it orders; the first action that names a code."""
    found: dict[str, str] = {}
    for action in catalogue().values():
        for system, code, _ in action.codings:
            found.setdefault(f"{system}|{code}", action.id)
    for action in catalogue().values():
        for coding in action.also_ordered_as:
            found.setdefault(coding, action.id)
    return found


def action_title(action_id: str, texts: Texts) -> str:
    """The action's name for people, its id when the texts are older than the rules."""
    return texts.get(f"action.{action_id}.title", action_id.replace("-", " "))


@cache
def _actions() -> Actions:
    return Actions.load()


def answered(action_id: str, chart: PatientChart) -> str | None:
    """The reference of the recent result or open order that answers an action, or `None`."""
    known = _actions()
    return known.already(action_id, chart, chart.at) if action_id in known.by_id else None


@lru_cache(maxsize=1024)
def _fixed(name: str, language: str) -> tuple[list[Any], dict[str, Any]]:
    """Category and code of an action's drafts: the same for every patient, shared and never changed."""
    action = catalogue()[name]
    category, display = _CATEGORY[action.kind]
    return (
        [{"coding": [{"system": SNOMED, "code": category, "display": display}]}],
        {
            "coding": [{"system": s, "code": c, "display": d} for s, c, d in action.codings],
            "text": action_title(action.id, texts_for(language)),
        },
    )


@lru_cache(maxsize=1024)
def _labels(action: str, language: str) -> tuple[str, str]:
    """Label and description of an action's suggestion."""
    texts = texts_for(language)
    title = action_title(action, texts)
    return texts["card.order"].format(title=title), texts["card.order_description"].format(title=title)


def service_request(
    action: Orderable, chart: PatientChart, texts: Texts, reason: str, *, pressing: bool = True
) -> dict[str, Any]:
    """A complete draft R4 ServiceRequest for the chart's patient.

    Args:
        action: what to order.
        chart: gives subject, encounter (when known) and `authoredOn` (the chart's moment).
        texts: the language of `code.text`.
        reason: plain text for `reasonCode`, one line; left out when empty.
        pressing: whether it is asked for within hours; otherwise the priority is at most ``urgent``.
    """
    category, code = _fixed(action.id, texts.language)
    request: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "order",
        "category": category,
        "priority": "urgent" if not pressing and action.priority in _PRESSING else action.priority,
        "code": code,
        "subject": {"reference": f"Patient/{chart.subject.patient_id}"},
        "authoredOn": chart.at.isoformat(timespec="seconds"),
    }
    if chart.encounter is not None and chart.encounter.reference:
        request["encounter"] = {"reference": chart.encounter.reference}
    if reason:
        request["reasonCode"] = [{"text": reason}]
    return request


def order_suggestion(
    action: Orderable,
    chart: PatientChart,
    texts: Texts,
    *,
    reason: str,
    recommended: bool,
    pressing: bool = True,
) -> Suggestion:
    """A suggestion that creates the action's draft order."""
    label, description = _labels(action.id, texts.language)
    return Suggestion(
        label=label,
        isRecommended=recommended,
        actions=(
            Action(
                type="create",
                description=description,
                resource=service_request(action, chart, texts, plain(reason), pressing=pressing),
            ),
        ),
    )


def removal_suggestion(reference: str, label: str, texts: Texts, *, recommended: bool) -> Suggestion:
    """A suggestion that deletes a draft; `reference` is relative (``ServiceRequest/x``), `label` as sent."""
    named = texts["order_card.remove"].format(order=plain(label, 80))
    return Suggestion(
        label=named,
        isRecommended=recommended,
        actions=(Action(type="delete", description=named, resourceId=reference),),
    )
