"""A kept decision computed again: the same functions that answered it, on what they were given then.

Pure but for what it is passed: it reads no clock, asks no FHIR server and stores nothing.
"""

from typing import assert_never

from cds_server.api.bundle import bundle_of
from cds_server.api.endpoints import simple_in, validated
from cds_server.cds_hooks.answering import Manner, answer_call, read_call
from cds_server.cds_hooks.prefetch import Reach, complete
from cds_server.decisions.stored import Stored
from cds_server.fhir_api.assessing import assess_body
from cds_server.fhir_api.endpoints import parameters_in
from cds_server.state import Knowledge
from fhir_adapters.origin import ServerBase, ServerNotAllowed
from fhir_adapters.reading import FhirLimits, RecordedFhir
from hooks.services import BY_ID


async def recompute(stored: Stored, event_id: str, knowledge: Knowledge) -> bytes:
    """The answer's bytes as `knowledge` gives them now.

    Raises what the call would raise.
    """
    kind = stored.circumstances.kind
    match kind:
        case "hook-call":
            return await _hook_call(stored, event_id, knowledge)
        case "assess" | "predict":
            return _assessment(stored, knowledge)
    assert_never(kind)


async def _hook_call(stored: Stored, event_id: str, knowledge: Knowledge) -> bytes:
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
    return answer_call(knowledge, service, read, record, manner).body


def _assessment(stored: Stored, knowledge: Knowledge) -> bytes:
    then = stored.circumstances
    if then.kind == "assess":
        bundle, encode = stored.body, parameters_in(then.language)
    else:
        bundle, encode = bundle_of(validated(stored.body), then.now), simple_in(then.language)
    return assess_body(knowledge, bundle, then.now, encode).body
