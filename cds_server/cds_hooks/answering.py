"""The pure part of a hook call: body to request, record to chart, assessment, cards and the answer's bytes.

The same functions answer a call (`cds_hooks.service`) and recompute it later (`decisions.replay`): what
comes out depends on what is passed in and on nothing else.
"""

from datetime import datetime

import msgspec

from cds_server.audit import digest
from cds_server.cds_hooks.prefetch import Record
from cds_server.cds_hooks.request import HookRequest, decode_request
from cds_server.errors import RequestMalformed, expression_of
from cds_server.state import Knowledge
from fhir_adapters.chart import PatientChart
from fhir_adapters.collected import Resources
from fhir_adapters.decode import MalformedJSON, read_bundle
from hooks import diagnostic_assessment, order_review
from hooks.cards import Card, CardResponse, CardSettings
from hooks.services import Service
from models.assessment import Assessment

_encode = msgspec.json.Encoder().encode
_CARDS = {
    "diagnostic-assessment": diagnostic_assessment.cards,
    "order-review": order_review.cards,
}
_ALTERNATIVES = frozenset({"diagnostic-assessment"})
"""Services whose cards say what would change the differential."""


class Read(msgspec.Struct, frozen=True):
    """A request with its FHIR content decoded."""

    request: HookRequest
    drafts: Resources | None


class Assessed(msgspec.Struct, frozen=True):
    """What came out, ready to be recorded and sent."""

    chart: PatientChart
    assessment: Assessment
    cards: tuple[Card, ...]
    body: bytes
    output_digest: str


class Manner(msgspec.Struct, frozen=True):
    """How a call is answered: in which language, at which time, under which event id, by which site."""

    language: str
    now: datetime
    event_id: str
    base_url: str | None
    cards: CardSettings


def read_call(service: Service, body: bytes, now: datetime) -> Read:
    """The request in a body; raises `RequestMalformed`."""
    request = decode_request(body, service, now)
    drafts = None
    if request.draft_orders is not None:
        try:
            drafts = read_bundle(request.draft_orders)
        except MalformedJSON as fault:
            path = expression_of(fault.path)
            where = f"context.draftOrders.{path}" if path else "context.draftOrders"
            raise RequestMalformed(fault.reason, where) from None
    return Read(request, drafts)


def answer_call(
    knowledge: Knowledge, service: Service, read: Read, record: Record, manner: Manner
) -> Assessed:
    """Chart, assessment, cards and the encoded answer; uses up what is in `record`."""
    request = read.request
    chart = knowledge.builder.build(
        record.found,
        at=request.at or manner.now,
        patient_id=request.patient_id,
        encounter_id=request.encounter_id,
        draft_orders=read.drafts,
        selections=request.selections,
        sections_missing=record.sections_missing,
    )
    assessment = knowledge.engine.assess(chart, alternatives=service.id in _ALTERNATIVES)
    cards = _CARDS[service.id](
        chart,
        assessment,
        language=manner.language,
        seed=manner.event_id,
        names=knowledge.builder.name_of,
        base_url=manner.base_url,
        settings=manner.cards,
    )
    body = _encode(CardResponse(cards))
    return Assessed(chart, assessment, cards, body, digest(body))
