"""Medications, allergies, orders, procedures and immunizations of a chart.

Drugs are turned into ATC classes by `terminology.drugs` (codes first, then the ingredient's name); one
that no table knows stays in the chart under its label and is counted as unmapped.  Whether a drug or
an order is right for the patient is not decided here.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.building import Build
from fhir_adapters.chart import Allergy, Immunization, Medication, Order, Procedure, ReadIssue, Unmapped
from fhir_adapters.conditions import codes_of
from fhir_adapters.observations import LOINC
from fhir_adapters.terminology.drugs import Drug

CVX = "http://hl7.org/fhir/sid/cvx"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
# https://hl7.org/fhir/R4/valueset-medicationrequest-status.html and medication-statement-status.
_NOT_TAKEN = frozenset({"entered-in-error", "cancelled", "not-taken", "draft"})
_TAKEN_NOW = frozenset({"active", "on-hold", "intended", "unknown", None})
_NOT_DONE = frozenset({"entered-in-error", "not-done", "preparation"})
_NOT_ORDERED = frozenset({"entered-in-error", "revoked", "cancelled"})
_CRITICALITY = frozenset({"low", "high", "unable-to-assess"})

# "None known" as it is typed where a code was meant; only these whole phrases count.
# Grade C: estimate of this project (common usage; NKDA and NKA are the customary abbreviations).
_NO_ALLERGY = frozenset(
    {
        "nka",
        "nkda",
        "nkfa",
        "no known allergies",
        "no known allergy",
        "no known drug allergies",
        "no known drug allergy",
        "no known food allergies",
        "no known medication allergies",
        "no allergies",
        "no drug allergies",
        "none known",
        "none",
        "sin alergias",
        "sin alergias conocidas",
        "sin alergias medicamentosas",
        "sin alergias medicamentosas conocidas",
        "no alergias conocidas",
        "no alergias",
        "no ram",
        "no amc",
        "niega alergias",
    }
)

_contained: msgspec.json.Decoder[Any] = msgspec.json.Decoder(r.AnyResource)
_Prescription = r.MedicationRequest | r.MedicationStatement


def _text(concept: r.CodeableConcept) -> str | None:
    return concept.text or next((c.display for c in concept.coding or () if c.display), None)


def _says_none(concept: r.CodeableConcept) -> bool:
    return " ".join((_text(concept) or "").casefold().strip(" .").split()) in _NO_ALLERGY


def _label(concept: r.CodeableConcept | None, fallback: str) -> str:
    return (_text(concept) if concept is not None else None) or fallback


def _pairs(concept: r.CodeableConcept) -> list[tuple[str, str]]:
    return [(c.system or "", c.code) for c in concept.coding or () if c.code]


def _drug(build: Build, concept: r.CodeableConcept, reference: str) -> Drug | None:
    pairs = _pairs(concept)
    build.coded_total += bool(pairs)
    lookup = build.tables.drugs.lookup
    found = lookup(pairs, None) if pairs else None
    if found is None or not found.atc:
        for text in (concept.text, *[c.display for c in concept.coding or ()]):
            if text:
                found = lookup((), text) or found
                if found is not None and found.atc:
                    break
    if found is None:
        system, code = pairs[0] if pairs else ("text", "")
        build.unmapped.append(Unmapped(reference, system, code))
    return found


def _medication_concept(
    build: Build, reference: str, sent: _Prescription, medications: dict[str, r.Medication]
) -> r.CodeableConcept | None:
    if sent.medicationCodeableConcept is not None:
        return sent.medicationCodeableConcept
    target = sent.medicationReference
    if target is None:
        build.issues.append(ReadIssue("missing-code", reference, "medication[x]"))
        return None
    wanted = target.reference or ""
    if wanted.startswith("#"):
        for raw in sent.contained or ():
            try:
                inner = _contained.decode(raw)
            except (msgspec.DecodeError, RecursionError):
                build.issues.append(ReadIssue("unreadable-resource", reference, "contained"))
                continue
            if isinstance(inner, r.Medication) and f"#{inner.id}" == wanted:
                return inner.code
    known = medications.get(build.full_urls.get(wanted, wanted))
    if known is not None and known.code is not None:
        return known.code
    if target.display:
        return r.CodeableConcept(text=target.display)
    build.issues.append(ReadIssue("missing-code", reference, "medicationReference"))
    return None


def read_medications(
    build: Build, pairs: Iterable[tuple[str, _Prescription]], medications: dict[str, r.Medication]
) -> tuple[Medication, ...]:
    """What the patient takes or took; the same drug from several resources is one, with all sources."""
    mentions: dict[tuple[str, tuple[str, ...]], list[tuple[str, bool, datetime | None]]] = {}
    rxnorm: dict[tuple[str, tuple[str, ...]], str | None] = {}
    for reference, sent in pairs:
        subject = sent.subject
        if sent.status in _NOT_TAKEN or (
            subject is not None
            and subject.reference != build.patient_reference
            and not build.is_ours(reference, subject)
        ):
            continue
        if isinstance(sent, r.MedicationRequest):
            if sent.doNotPerform:
                continue
            written: str | None = sent.authoredOn
        else:
            period = sent.effectivePeriod
            written = sent.effectiveDateTime or (period.start if period is not None else None)
        concept = _medication_concept(build, reference, sent, medications)
        if concept is None:
            continue
        drug = _drug(build, concept, reference)
        label = drug.label if drug is not None else _label(concept, "?")
        atc = drug.atc if drug is not None else ()
        time = build.time(written, reference, "authoredOn")
        mentions.setdefault((label, atc), []).append((reference, sent.status in _TAKEN_NOW, time))
        if (label, atc) not in rxnorm:
            coded = next((code for system, code in _pairs(concept) if system == RXNORM), None)
            rxnorm[label, atc] = coded or (drug.rxnorm if drug is not None else None)
    return tuple(
        [
            Medication(
                label,
                any(active for _, active, _ in said),
                tuple(dict.fromkeys(reference for reference, _, _ in said)),
                rxnorm[label, atc],
                atc,
                max((time for _, _, time in said if time is not None), default=None),
            )
            for (label, atc), said in mentions.items()
        ]
    )


def read_allergies(build: Build, pairs: Iterable[tuple[str, r.AllergyIntolerance]]) -> tuple[Allergy, ...]:
    """Recorded allergies; a refuted one and "no known allergies" stay as absent."""
    allergies = []
    for reference, sent in pairs:
        verification, clinical = set(codes_of(sent.verificationStatus)), set(codes_of(sent.clinicalStatus))
        if "entered-in-error" in verification or not build.is_ours(reference, sent.patient):
            continue
        if sent.code is None:
            build.issues.append(ReadIssue("missing-code", reference, "code"))
            continue
        absent = bool(clinical & {"resolved", "inactive"}) or "refuted" in verification
        drug = build.tables.drugs.lookup(_pairs(sent.code), _text(sent.code))
        concept = None
        if drug is None:
            concept = build.resolve(sent.code, reference)
            if concept is not None:
                absent = absent or concept.absent
            elif _says_none(sent.code):
                absent = True
            elif not sent.code.coding:
                build.unmapped.append(Unmapped(reference, "text", ""))
        elif sent.code.coding:
            build.coded_total += 1
        criticality = sent.criticality if sent.criticality in _CRITICALITY else "unknown"
        label = (
            drug.label
            if drug is not None
            else concept.label
            if concept is not None
            else _label(sent.code, "?")
        )
        allergies.append(
            Allergy(label, (reference,), drug.atc if drug is not None else (), criticality, absent)  # type: ignore[arg-type]
        )
    return tuple(allergies)


def read_procedures(build: Build, pairs: Iterable[tuple[str, r.Procedure]]) -> tuple[Procedure, ...]:
    """Procedures that were done or are being done."""
    done = []
    for reference, sent in pairs:
        if sent.status in _NOT_DONE or not build.is_ours(reference, sent.subject):
            continue
        if sent.code is None:
            build.issues.append(ReadIssue("missing-code", reference, "code"))
            continue
        period = sent.performedPeriod
        performed = sent.performedDateTime or ((period.end or period.start) if period is not None else None)
        codes = tuple(f"{system}|{code}" for system, code in _pairs(sent.code))
        done.append(
            Procedure(
                _label(sent.code, "?"), codes, (reference,), build.time(performed, reference, "performed")
            )
        )
    return tuple(done)


def read_immunizations(build: Build, pairs: Iterable[tuple[str, r.Immunization]]) -> tuple[Immunization, ...]:
    """Vaccines that were given."""
    given = []
    for reference, sent in pairs:
        if sent.status in _NOT_DONE or not build.is_ours(reference, sent.patient):
            continue
        code = sent.vaccineCode
        cvx = next((c for s, c in _pairs(code) if s == CVX), None) if code is not None else None
        time = build.time(sent.occurrenceDateTime, reference, "occurrenceDateTime")
        given.append(Immunization(cvx, _label(code, "?"), (reference,), time))
    return tuple(given)


def read_orders(
    build: Build,
    pairs: Iterable[tuple[str, r.ServiceRequest | r.MedicationRequest]],
    *,
    draft: bool,
    selections: Sequence[str] = (),
    medications: dict[str, r.Medication] | None = None,
) -> tuple[Order, ...]:
    """ServiceRequests (and drafted MedicationRequests) as orders.

    `selections` are the references the clinician has just picked (order-select); a bare id counts too.
    """
    orders = []
    selected = {s.rpartition("/")[2] for s in selections}
    for reference, sent in pairs:
        # A draft that the record system lists among its orders has not been ordered.
        unsigned = sent.status == "draft" and not draft
        if (
            sent.status in _NOT_ORDERED
            or unsigned
            or sent.doNotPerform
            or not build.is_ours(reference, sent.subject)
        ):
            continue
        if isinstance(sent, r.ServiceRequest):
            code, kind = sent.code, "ServiceRequest"
        else:
            code, kind = _medication_concept(build, reference, sent, medications or {}), "MedicationRequest"
        if code is None:
            # In order-select the details of an order may still be missing (CDS Hooks, order-select).
            continue
        pairs_sent = _pairs(code)
        drug = _drug(build, code, reference) if kind == "MedicationRequest" else None
        orders.append(
            Order(
                kind,
                reference,
                drug.label if drug is not None else _label(code, "?"),
                draft,
                tuple(f"{system}|{value}" for system, value in pairs_sent),
                _loinc(build, pairs_sent),
                drug.atc if drug is not None else (),
                _written(build, reference, sent.authoredOn),
                reference.rpartition("/")[2] in selected,
            )
        )
    return tuple(orders)


def _written(build: Build, reference: str, text: str | None) -> datetime | None:
    return build.time(text, reference, "authoredOn")


def _loinc(build: Build, pairs: list[tuple[str, str]]) -> str | None:
    """The canonical LOINC of a test that is ordered by a LOINC code (an unknown one stays as sent)."""
    for system, code in pairs:
        if system == LOINC:
            analyte = build.tables.analytes.by_loinc.get(code)
            return analyte.loinc if analyte is not None else code
    return None
