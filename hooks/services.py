"""The CDS services on offer: their discovery document and the prefetch templates they ask for.

Holds what `GET /cds-services` answers and what the server needs to know to fetch a missing key
itself (which resource types a template answers, whether the call is impossible without it).  Does
no fetching, and knows nothing of cards.

Templates stay inside the subset the standard recommends (CDS Hooks 2.0.1, "Prefetch query
restrictions"): instance reads, type searches, patient references, token equality, `_count` and
`_sort`, and only tokens whose context field is always there.  `context.encounterId` is optional in
patient-view and a template with an absent token cannot be satisfied, so encounters are searched by
patient.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

CDS_HOOKS_VERSION = "2.0.1"


class PrefetchTemplate(msgspec.Struct, frozen=True):
    """One prefetch key: its template, the FHIR types it answers, and whether the call needs it.

    `required` is for the server (HTTP 412 when it can be had neither from the prefetch nor from the
    FHIR server); the standard has no such member, so it is not sent.
    """

    key: str
    template: str
    resource_types: tuple[str, ...]
    required: bool = False


class Service(msgspec.Struct, frozen=True):
    """One CDS service as the discovery document shows it, with its templates."""

    id: str
    hook: str
    title: str
    description: str
    usage_requirements: str
    templates: tuple[PrefetchTemplate, ...]

    @property
    def required_keys(self) -> tuple[str, ...]:
        """Prefetch keys without which the service answers 412."""
        return tuple(template.key for template in self.templates if template.required)


_PATIENT = "{{context.patientId}}"


def _search(key: str, resource_type: str, sort: str, count: int, *criteria: str) -> PrefetchTemplate:
    query = "&".join((f"patient={_PATIENT}", *criteria, f"_sort={sort}", f"_count={count}"))
    return PrefetchTemplate(key, f"{resource_type}?{query}", (resource_type,))


_TEMPLATES = (
    PrefetchTemplate("patient", f"Patient/{_PATIENT}", ("Patient",), required=True),
    _search("encounters", "Encounter", "-date", 20),
    _search("conditions", "Condition", "-recorded-date", 200),
    _search("observations-vitals", "Observation", "-date", 100, "category=vital-signs"),
    _search("observations-labs", "Observation", "-date", 200, "category=laboratory"),
    # Three keys, because "a,b" (token OR) is outside the recommended subset.
    _search("observations-social", "Observation", "-date", 50, "category=social-history"),
    _search("observations-survey", "Observation", "-date", 50, "category=survey"),
    _search("observations-exam", "Observation", "-date", 50, "category=exam"),
    _search("diagnostic-reports", "DiagnosticReport", "-date", 50),
    _search("allergies", "AllergyIntolerance", "-date", 100),
    _search("medication-requests", "MedicationRequest", "-authoredon", 100),
    _search("medication-statements", "MedicationStatement", "-effective", 100),
    _search("procedures", "Procedure", "-date", 100),
    _search("family-history", "FamilyMemberHistory", "-date", 50),
    _search("orders", "ServiceRequest", "-authored", 100),
    _search("immunizations", "Immunization", "-date", 100),
)

_USAGE = (
    "Works with FHIR R4. Every prefetch key except 'patient' is optional: what is neither prefetched nor "
    "readable from 'fhirServer' is named on the cards as not known. Supports clinicians; does not replace "
    "clinical judgement."
)

SERVICES: tuple[Service, ...] = (
    Service(
        id="diagnostic-assessment",
        hook="patient-view",
        title="Diagnostic assessment",
        description=(
            "Warns when the record shows a patient who needs attention now: published early-warning scores, "
            "red-flag combinations and critical values, each with the facts it rests on, what is not known, "
            "and draft orders for tests that are still missing. Adds a ranked differential of common "
            "diseases with the facts for and against each; its model is trained on simulated patients. Says "
            "nothing when there is nothing to say."
        ),
        usage_requirements=_USAGE,
        templates=_TEMPLATES,
    ),
    Service(
        id="order-review",
        hook="order-select",
        title="Order review",
        description=(
            "Reviews the orders being selected against the record: allergies and contraindications, drugs "
            "that do harm in a leading diagnosis, tests that already have a recent result, tests the record "
            "asks for that are not among the drafts, and the test that would separate the leading diagnoses "
            "best."
        ),
        usage_requirements=_USAGE,
        templates=_TEMPLATES,
    ),
)

BY_ID: Mapping[str, Service] = {service.id: service for service in SERVICES}


def _describe(service: Service) -> dict[str, Any]:
    return {
        "id": service.id,
        "hook": service.hook,
        "title": service.title,
        "description": service.description,
        "usageRequirements": service.usage_requirements,
        # Recommended from CDS Hooks 3.0 on; clients of 2.0.1 ignore members they do not know.
        "version": CDS_HOOKS_VERSION,
        "prefetch": {template.key: template.template for template in service.templates},
    }


def discovery() -> dict[str, Any]:
    """The body of `GET /cds-services`: ``{"services": [...]}``."""
    return {"services": [_describe(service) for service in SERVICES]}


DISCOVERY_JSON: bytes = msgspec.json.encode(discovery())


def resolve_template(template: str, context: Mapping[str, Any]) -> str | None:
    """Put a hook's context into a prefetch template.

    Args:
        template: for example ``"Condition?patient={{context.patientId}}"``.
        context: the hook's `context` object; only root-level strings (and integers) fill tokens.

    Returns:
        The relative FHIR URL with percent-encoded values, or `None` when a token is not of the form
        ``context.<name>``, absent, empty or not a primitive, or when the template's braces do not pair.
    """
    pieces = template.split("{{")
    if "}}" in pieces[0]:
        return None
    out = [pieces[0]]
    for piece in pieces[1:]:
        token, closed, rest = piece.partition("}}")
        scope, dot, name = token.strip().partition(".")
        if not closed or "}}" in rest or scope != "context" or not dot:
            return None
        value = context.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            return None
        try:
            # "." and ".." would change the path of an instance read even when percent-encoded.
            text = str(value)
            if text in {".", ".."}:
                return None
            out.append(quote(text, safe=""))
        except UnicodeEncodeError:
            return None
        out.append(rest)
    return "".join(out)
