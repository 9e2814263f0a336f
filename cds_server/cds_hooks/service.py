"""One hook call from bytes to bytes: decode, complete, chart, assess, cards, audit, answer.

The answer is returned only after its audit event is durable; a refusal of a call whose caller and
patient are known is audited too.  All clinical content comes from below; nothing is decided here.
"""

import time
from collections.abc import Awaitable
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
import structlog

from cds_server.audit import AuditUnavailable, Decision, ShownCard, digest, new_id
from cds_server.cds_hooks.prefetch import Record, complete
from cds_server.cds_hooks.request import HookRequest, decode_request
from cds_server.errors import RequestMalformed, expression_of, status_of
from cds_server.http import Call
from cds_server.state import House, Knowledge
from fhir_adapters.chart import PatientChart
from fhir_adapters.collected import Resources
from fhir_adapters.decode import MalformedJSON, read_bundle
from hooks import diagnostic_assessment, order_review
from hooks.cards import Card, CardResponse
from hooks.services import Service
from models.assessment import Assessment

_log = structlog.get_logger(__name__)
_TYPICAL_BYTES = 500
"""Of a fetched resource, to tell whether the work is large."""

_encode = msgspec.json.Encoder().encode
_CARDS = {
    "diagnostic-assessment": diagnostic_assessment.cards,
    "order-review": order_review.cards,
}
_ALTERNATIVES = frozenset({"diagnostic-assessment"})
"""Services whose cards say what would change the differential."""


class _Moment(msgspec.Struct, frozen=True):
    """What is known of a call before its body is read, and the knowledge it is answered with to its end."""

    service: Service
    event_id: str
    language: str
    client: str | None
    now: datetime
    began: float
    input_digest: Awaitable[str]
    knowledge: Knowledge


class _Read(msgspec.Struct, frozen=True):
    """A request with its FHIR content decoded."""

    request: HookRequest
    drafts: Resources | None


class _Assessed(msgspec.Struct, frozen=True):
    """What came out, ready to be recorded and sent."""

    chart: PatientChart
    assessment: Assessment
    cards: tuple[Card, ...]
    body: bytes
    output_digest: str


class HookCalls:
    """Answers the calls of the hook services."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def answer(self, service: Service, request: Call, language: str, client: str | None) -> bytes:
        """The body of the answer to a hook call; takes the request's body for itself.

        Raises a `Refused`, or `AuditUnavailable` when the decision cannot be recorded.
        """
        house = self._house
        body = request.take_body()
        size = len(body)
        began = time.perf_counter()
        call = _Moment(
            service, new_id(), language, client, house.clock(), began, house.digest(body), house.knowledge
        )
        status = 200
        try:
            read = await house.apart(size, partial(self._read, service, body, call.now))
            body = b""  # megabytes that nothing needs any more while the chart is built
            try:
                record = await complete(house, service, read.request, read.request.found)
                size = max(size, record.found.count * _TYPICAL_BYTES)
                done = await house.apart(size, lambda: self._assess(call, read, record))
            except Exception as error:
                await self._record_refusal(call, read, error)
                raise
            assessment = done.assessment
            await house.trail.record(
                self._decision(
                    call,
                    read,
                    input_digest=await call.input_digest,
                    output_digest=done.output_digest,
                    severity=assessment.severity,
                    immediate=assessment.immediate,
                    escalation=assessment.escalation.code,
                    rule=assessment.escalation.rule,
                    status=200,
                    cards=tuple([_shown(card) for card in done.cards]),
                )
            )
        except Exception as error:
            status = status_of(error)
            raise
        finally:
            seconds = time.perf_counter() - call.began
            house.metrics.answered(service.id, status, seconds)
        self._observe(call, done, seconds)
        return done.body

    def _read(self, service: Service, body: bytes, now: datetime) -> _Read:
        request = decode_request(body, service, now)
        drafts = None
        if request.draft_orders is not None:
            try:
                drafts = read_bundle(request.draft_orders)
            except MalformedJSON as fault:
                raise _orders_malformed(fault) from None
        return _Read(request, drafts)

    def _assess(self, call: _Moment, read: _Read, record: Record) -> _Assessed:
        house = self._house
        knowledge = call.knowledge
        request = read.request
        chart = knowledge.builder.build(
            record.found,
            at=request.at or call.now,
            patient_id=request.patient_id,
            encounter_id=request.encounter_id,
            draft_orders=read.drafts,
            selections=request.selections,
            sections_missing=record.sections_missing,
        )
        assessment = knowledge.engine.assess(chart, alternatives=call.service.id in _ALTERNATIVES)
        cards = _CARDS[call.service.id](
            chart,
            assessment,
            language=call.language,
            seed=call.event_id,
            names=knowledge.builder.name_of,
            base_url=house.settings.public_base_url,
            settings=house.card_settings,
        )
        body = _encode(CardResponse(cards))
        return _Assessed(chart, assessment, cards, body, digest(body))

    def _decision(self, call: _Moment, read: _Read, **result: Any) -> Decision:
        house = self._house
        request = read.request
        engine = call.knowledge.engine
        return Decision(
            event_id=call.event_id,
            recorded=call.now,
            action="hook-call",
            service=call.service.id,
            hook_instance=request.instance,
            client=call.client,
            user=house.pseudonymiser.pseudonym("user", request.user_id),
            patient=house.pseudonymiser.pseudonym("patient", request.patient_id),
            model=engine.model_id,
            knowledge=engine.knowledge_id,
            duration_ms=(time.perf_counter() - call.began) * 1000,
            language=call.language,
            **result,
        )

    async def _record_refusal(self, call: _Moment, read: _Read, error: Exception) -> None:
        """Who was refused what.  When even that cannot be kept, the refusal itself is the safe answer."""
        try:
            await self._house.trail.record(
                self._decision(
                    call,
                    read,
                    input_digest=await call.input_digest,
                    output_digest=digest(b""),
                    rule=f"refused: {type(error).__name__}",
                    status=status_of(error),
                )
            )
        except AuditUnavailable:
            _log.error("refusal.not_recorded", event_id=call.event_id)

    def _observe(self, call: _Moment, done: _Assessed, seconds: float) -> None:
        metrics = self._house.metrics
        service = call.service
        chart = done.chart
        for card in done.cards:
            metrics.cards.labels(service.id, card.indicator).inc()
        metrics.escalations.labels(service.id, done.assessment.escalation.code).inc()
        metrics.read(chart)
        _log.info(
            "hook.answered",
            service=service.id,
            event_id=call.event_id,
            escalation=done.assessment.escalation.code,
            cards=len(done.cards),
            resources=chart.resources_read,
            issues=len(chart.issues),
            ms=round(seconds * 1000, 2),
        )


def _orders_malformed(fault: MalformedJSON) -> RequestMalformed:
    path = expression_of(fault.path)
    return RequestMalformed(fault.reason, f"context.draftOrders.{path}" if path else "context.draftOrders")


def _shown(card: Card) -> ShownCard:
    topic = card.source.topic
    return ShownCard(
        uuid=card.uuid or "",
        key=topic.code if topic is not None else "",
        indicator=card.indicator,
        suggestions=tuple([s.uuid for s in card.suggestions if s.uuid]),
    )
