"""What the caller prefetched, what is still needed, and getting it from the EHR's FHIR server.

Decides which keys to fetch and what their absence means (412 for what is required, a missing section
for the rest).  How a server is read is `fhir_adapters.client`'s business.
"""

import msgspec

from cds_server.cds_hooks.request import HookRequest
from cds_server.errors import PatientMismatch, PrefetchIncomplete
from cds_server.state import House
from fhir_adapters.chart import ReadIssue
from fhir_adapters.client import Access, Query
from fhir_adapters.collected import Resources
from fhir_adapters.origin import ServerNotAllowed
from hooks.services import PrefetchTemplate, Service, resolve_template


class Record(msgspec.Struct, frozen=True):
    """The resources of one call, and the FHIR types that were neither sent nor could be fetched."""

    found: Resources
    sections_missing: tuple[str, ...]


def unanswered(service: Service, found: Resources) -> list[PrefetchTemplate]:
    """The templates whose key brought neither data nor an explicit null."""
    return [template for template in service.templates if template.key not in found.answered]


async def complete(house: House, service: Service, request: HookRequest, found: Resources) -> Record:
    """Fetch what `found` lacks, as far as the caller gave access to a server the site allows.

    Raises `PrefetchIncomplete` when required data cannot be had, `PatientMismatch` when the data is of
    another patient than the context names.
    """
    lacking = unanswered(service, found)
    obstacle = "it was not prefetched and no fhirServer was given"
    if (lacking or found.next_links) and request.fhir_server:
        try:
            access = Access(house.fhir_servers.admit(request.fhir_server), request.token)
        except ServerNotAllowed as fault:
            obstacle = f"it was not prefetched, and fhirServer cannot be used: {fault}"
        else:
            obstacle = "it was not prefetched and could not be read from fhirServer"
            await _fetch(house, access, service=service, request=request, found=found, lacking=lacking)
            lacking = unanswered(service, found)
    for key in found.next_links:
        _not_followed(service, key, found)
    _check_patient(service, request, found, lacking, obstacle)
    # A type the caller sent under a key of its own was sent all the same.
    sent = {kind.__name__ for kind in found.of}
    missing = [kind for template in lacking for kind in template.resource_types if kind not in sent]
    return Record(found, tuple(dict.fromkeys(missing)))


async def _fetch(
    house: House,
    access: Access,
    *,
    service: Service,
    request: HookRequest,
    found: Resources,
    lacking: list[PrefetchTemplate],
) -> None:
    context = request.context()
    queries: list[Query] = []
    for template in lacking:
        url = resolve_template(template.template, context)
        if url is not None:
            queries.append(Query(template.key, url, template.resource_types))
    links: dict[Query, tuple[str, int]] = {}
    for template in service.templates:
        link = found.next_links.get(template.key)
        url = resolve_template(template.template, context) if link else None
        if link is None or url is None:
            continue
        query = Query(template.key, url, template.resource_types)
        already = found.sent[template.key]
        if query.wanted is None or already < query.wanted:
            links[query] = (link, already)
    found.next_links.clear()
    if queries:
        found.merge(await house.fhir.fetch(access, queries))
    if links:
        found.merge(await house.fhir.follow(access, links))


def _not_followed(service: Service, key: str, found: Resources) -> None:
    """A paged Bundle without access to its next page: part of the data, and said so."""
    for template in service.templates:
        if template.key == key:
            found.issues.extend(
                ReadIssue("truncated", kind, "", "no-access-to-next-page") for kind in template.resource_types
            )


def _check_patient(
    service: Service,
    request: HookRequest,
    found: Resources,
    lacking: list[PrefetchTemplate],
    obstacle: str,
) -> None:
    patients = found.patients
    if any(patient.id == request.patient_id for patient in patients):
        return
    if patients:
        raise PatientMismatch(
            "the Patient sent or fetched is not the one of context.patientId; nothing was assessed",
            "prefetch.patient",
        )
    required = next((template.key for template in lacking if template.required), None)
    if required is None:
        key = service.required_keys[0]
        raise PrefetchIncomplete(f"{key} is required, and there is none", f"prefetch.{key}")
    raise PrefetchIncomplete(f"{required} is required: {obstacle}", f"prefetch.{required}")
