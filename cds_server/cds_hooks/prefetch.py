"""What the caller prefetched, what is still needed, and getting it from the EHR's FHIR server.

Decides which keys to fetch and what their absence means (412 for what is required, a missing section
for the rest).  How a server is read is `fhir_adapters.client`'s business.
"""

from collections.abc import Callable

import msgspec

from cds_server.cds_hooks.request import HookRequest
from cds_server.errors import PatientMismatch, PrefetchIncomplete
from fhir_adapters.chart import ReadIssue
from fhir_adapters.collected import Resources
from fhir_adapters.origin import ServerBase, ServerNotAllowed
from fhir_adapters.reading import Access, Fetched, FhirReader, Query
from hooks.services import PrefetchTemplate, Service, resolve_template


class Record(msgspec.Struct, frozen=True):
    """The resources of one call, and the FHIR types that were neither sent nor could be fetched.

    `admitted` says whether the request's FHIR server was asked at all, `fetched` what it answered.
    """

    found: Resources
    sections_missing: tuple[str, ...]
    admitted: bool = False
    fetched: tuple[Fetched, ...] = ()


class Reach(msgspec.Struct, frozen=True):
    """How far a call reaches beyond what was sent: which FHIR servers it may ask, and who reads there.

    `admit` raises `ServerNotAllowed`; `reader` is called at the first use.
    """

    admit: Callable[[str], ServerBase]
    reader: Callable[[], FhirReader]


def unanswered(service: Service, found: Resources) -> list[PrefetchTemplate]:
    """The templates whose key brought neither data nor an explicit null."""
    return [template for template in service.templates if template.key not in found.answered]


async def complete(reach: Reach, service: Service, request: HookRequest, found: Resources) -> Record:
    """Fetch what `found` lacks, as far as the caller gave access to a server the site allows.

    Raises `PrefetchIncomplete` when required data cannot be had, `PatientMismatch` when the data is of
    another patient than the context names.
    """
    lacking = unanswered(service, found)
    obstacle = "it was not prefetched and no fhirServer was given"
    admitted = False
    log: list[Fetched] = []
    if (lacking or found.next_links) and request.fhir_server:
        try:
            access = Access(reach.admit(request.fhir_server), request.token)
        except ServerNotAllowed as fault:
            obstacle = f"it was not prefetched, and fhirServer cannot be used: {fault}"
        else:
            obstacle = "it was not prefetched and could not be read from fhirServer"
            admitted = True
            await _fetch(
                reach.reader(), access, log, service=service, request=request, found=found, lacking=lacking
            )
            lacking = unanswered(service, found)
    for key in found.next_links:
        _not_followed(service, key, found)
    _check_patient(service, request, found, lacking, obstacle)
    # A type the caller sent under a key of its own was sent all the same.
    sent = {kind.__name__ for kind in found.of}
    missing = [kind for template in lacking for kind in template.resource_types if kind not in sent]
    return Record(found, tuple(dict.fromkeys(missing)), admitted, tuple(log))


async def _fetch(
    reader: FhirReader,
    access: Access,
    log: list[Fetched],
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
        found.merge(await reader.fetch(access, queries, log))
    if links:
        found.merge(await reader.follow(access, links, log))


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
