"""A kept decision computed again: the same functions that answered it, on what they were given then.

Pure but for what it is passed: it reads no clock, asks no FHIR server and stores nothing.
"""

from typing import assert_never

import msgspec

from cds_server.api.bundle import bundle_of
from cds_server.api.endpoints import simple_in, validated
from cds_server.cds_hooks.answering import Manner, answer_call, read_call
from cds_server.cds_hooks.prefetch import Reach, complete
from cds_server.decisions.stored import Stored
from cds_server.fhir_api.assessing import assess_body
from cds_server.fhir_api.endpoints import parameters_in
from cds_server.state import Knowledge
from fhir_adapters.chart import PatientChart
from fhir_adapters.origin import ServerBase, ServerNotAllowed
from fhir_adapters.reading import FhirLimits, RecordedFhir
from hooks.services import BY_ID
from models.assessment import Assessment


class Recomputed(msgspec.Struct, frozen=True):
    """What came out again: the answer's bytes, and what they were made from."""

    chart: PatientChart
    assessment: Assessment
    body: bytes


async def recompute(stored: Stored, event_id: str, knowledge: Knowledge) -> Recomputed:
    """The answer as `knowledge` gives it now.

    Raises what the call would raise.
    """
    kind = stored.circumstances.kind
    match kind:
        case "hook-call":
            return await _hook_call(stored, event_id, knowledge)
        case "assess" | "predict":
            return _assessment(stored, knowledge)
    assert_never(kind)


async def _hook_call(stored: Stored, event_id: str, knowledge: Knowledge) -> Recomputed:
    then = stored.circumstances
    service = BY_ID[then.service]

    def admit(url: str) -> ServerBase:
        if not then.admitted:
            raise ServerNotAllowed("this FHIR server was not on the site's allow list")
        return ServerBase.parse(url)

    reader = RecordedFhir(FhirLimits(pages=then.most_pages), stored.fetched)
    read = read_call(service, stored.body, then.now)
    record = await complete(Reach(admit, lambda: reader), service, read.request, read.request.found)
    manner = Manner(then.language, then.now, event_id, then.base_url, then.cards)
    done = answer_call(knowledge, service, read, record, manner)
    return Recomputed(done.chart, done.assessment, done.body)


def _assessment(stored: Stored, knowledge: Knowledge) -> Recomputed:
    then = stored.circumstances
    if then.kind == "assess":
        bundle, encode = stored.body, parameters_in(then.language)
    else:
        bundle, encode = bundle_of(validated(stored.body), then.now), simple_in(then.language)
    done = assess_body(knowledge, bundle, then.now, encode)
    return Recomputed(done.chart, done.assessment, done.body)
