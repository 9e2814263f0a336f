"""A record as it stood at a visit's decision: the Bundle from which the chart is built.

Nothing that was known later gets in, nor what the visit turned out to be: the label's own Conditions,
other diagnoses made at the visit, the triage level.  What did get in is taken back to its state then: a
visit still going on, an illness not yet over, a patient alive.  It does not look at labels otherwise, so
what it leaves out tells nothing about them.
"""

from collections import Counter
from datetime import timedelta

import msgspec

from fhir_adapters.collected import Resources
from fhir_adapters.decode import read_bundle
from training.datasets.attention import AttentionCodes
from training.datasets.labels import LabelMap
from training.datasets.moments import Resource, codings_of, earliest, latest, rows_at, text_at, words_of
from training.datasets.visits import Item, Record, Visit

_OLD = timedelta(days=30)
"""An illness that began longer ago is history when it is on the problem list, whenever it was entered."""
_OVER = frozenset({"resolved", "inactive", "remission"})
_ENDED = frozenset({"completed", "stopped", "on-hold"})
_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
_ACTIVE = {"coding": [{"system": _CLINICAL, "code": "active"}]}
_SAID_NO = frozenset({"refuted", "entered-in-error"})


class AsOf:
    """Takes records back to the decision of a visit."""

    def __init__(self, labels: LabelMap, attention: AttentionCodes) -> None:
        self._labels = labels
        self._attention = attention

    def resources(
        self,
        record: Record,
        visit: Visit,
        own: frozenset[str],
        medications: dict[str, bytes],
        left_out: Counter[str],
    ) -> Resources:
        """The decoded resources of a visit's chart.

        `own` are the references of the label's Conditions, `medications` the raw Medication resources by
        id; what is left out is counted in `left_out` by reason.
        """
        parts = [_encoded(_patient(record.patient)), _encoded(self._encounter(visit))]
        wanted: set[str] = set()
        for item in record.items:
            reason = self._reason(item, visit, own)
            if reason is not None:
                left_out[reason] += 1
                continue
            parts.append(_as_it_was(item, visit))
            reference = text_at(item.resource, "medicationReference.reference")
            if reference is not None:
                wanted.add(reference.rpartition("/")[2])
        parts.extend(medications[key] for key in sorted(wanted & medications.keys()))
        entries = b",".join(b'{"resource":%b}' % part for part in parts)
        return read_bundle(b'{"resourceType":"Bundle","type":"collection","entry":[%b]}' % entries)

    def _reason(self, item: Item, visit: Visit, own: frozenset[str]) -> str | None:
        """Why a resource is no evidence at the visit, `None` when it is."""
        if item.known is None:
            return "undated"
        if item.known > visit.decision:
            return "after-decision"
        if item.reference in own:
            return "label"
        if item.kind == "Observation" and self._attention.is_triage(item.resource):
            return "triage-level"
        if item.kind == "Condition" and self._is_diagnosis_of(item, visit):
            return "diagnosis-of-visit"
        return None

    def _is_diagnosis_of(self, item: Item, visit: Visit) -> bool:
        """Whether a Condition is a diagnosis made at the visit (not a symptom, not history, not denied)."""
        condition = item.resource
        if item.known is None or (item.known < visit.start and item.visit != visit.id):
            return False
        if not _SAID_NO.isdisjoint(code for _, code in codings_of(condition.get("verificationStatus"))):
            return False
        listed = any(
            code == "problem-list-item"
            for row in rows_at(condition, "category")
            for _, code in codings_of(row)
        )
        onset = latest(text_at(condition, "onsetDateTime") or text_at(condition, "onsetPeriod.start"))
        if listed and onset is not None and onset < visit.start - _OLD:
            return False
        code = condition.get("code")
        return self._labels.names_disease(codings_of(code), words_of(code))

    def _encounter(self, visit: Visit) -> Resource:
        """The visit while it goes on: no end, no diagnoses, reasons only where they are complaints."""
        sent = visit.encounter
        reasons = [
            reason
            for reason in rows_at(sent, "reasonCode")
            if not self._labels.names_disease(codings_of(reason), words_of(reason))
        ]
        return {
            "resourceType": "Encounter",
            "id": visit.id,
            "status": "in-progress",
            "class": _class(visit),
            "subject": sent.get("subject"),
            "period": {"start": text_at(sent, "period.start")},
            "reasonCode": reasons,
        }


def _class(visit: Visit) -> Resource | None:
    """The class of the visit at its decision: an admission later on is not known yet."""
    held = [
        (start, row["class"])
        for row in rows_at(visit.encounter, "classHistory")
        if isinstance(row.get("class"), dict)
        and (start := earliest(text_at(row, "period.start"))) is not None
        and start <= visit.decision
    ]
    if held:
        found: Resource = max(held, key=lambda pair: pair[0])[1]
        return found
    sent = visit.encounter.get("class")
    return sent if isinstance(sent, dict) else None


def _patient(patient: Resource) -> Resource:
    return {name: patient[name] for name in ("resourceType", "id", "gender", "birthDate") if name in patient}


def _as_it_was(item: Item, visit: Visit) -> bytes:
    """The bytes of a resource in its state at the decision."""
    if item.kind == "Condition":
        return _condition(item, visit)
    if item.kind in ("MedicationRequest", "MedicationStatement"):
        return _medication(item, visit)
    return item.raw


def _condition(item: Item, visit: Visit) -> bytes:
    sent = item.resource
    over = not _OVER.isdisjoint(code for _, code in codings_of(sent.get("clinicalStatus")))
    ended = text_at(sent, "abatementDateTime") or text_at(sent, "abatementPeriod.end")
    end = latest(ended)
    if end is not None:
        later = end > visit.decision
    else:
        # A status without a date: what was entered at this visit ended after it was entered.
        later = over and item.known is not None and item.known >= visit.start
    if not later:
        return item.raw
    kept = {name: value for name, value in sent.items() if not name.startswith("abatement")}
    return _encoded({**kept, "clinicalStatus": _ACTIVE} if over else kept)


def _medication(item: Item, visit: Visit) -> bytes:
    sent = item.resource
    if sent.get("status") not in _ENDED:
        return item.raw
    end = latest(text_at(sent, "effectivePeriod.end") or text_at(sent, "dispenseRequest.validityPeriod.end"))
    if end is not None:
        going_on = end > visit.decision
    else:
        going_on = item.known is not None and item.known >= visit.start
    return _encoded({**sent, "status": "active"}) if going_on else item.raw


def _encoded(resource: Resource) -> bytes:
    return msgspec.json.encode(resource)
