"""One hook call from bytes to bytes: decode, complete, chart, assess, cards, audit, answer.

The answer is returned only after its audit event is durable; a refusal of a call whose caller and
patient are known is audited too.  All clinical content comes from below; nothing is decided here.
"""

import time
from collections.abc import Awaitable
from datetime import datetime
from typing import Any

import msgspec
import structlog

from cds_server import authorities
from cds_server.audit import AuditUnavailable, Decision, ShownCard, digest, new_id
from cds_server.audit.access import TREATMENT, Caller, caller
from cds_server.auth.principal import Principal
from cds_server.authorities import Authority
from cds_server.cds_hooks.answering import Assessed, Manner, Read, answer_call, read_call
from cds_server.cds_hooks.prefetch import Reach, Record, complete
from cds_server.decisions.keeper import Kept, Sealed
from cds_server.decisions.stored import Circumstances
from cds_server.errors import ServerNotTheirs, status_of
from cds_server.http import Call
from cds_server.state import House, Knowledge
from hooks.cards import Card
from hooks.services import Service

_log = structlog.get_logger(__name__)
_TYPICAL_BYTES = 500
"""Of a fetched resource, to tell whether the work is large."""


class _Moment(msgspec.Struct, frozen=True):
    """What is known of a call before its body is read, and the knowledge it is answered with to its end."""

    service: Service
    event_id: str
    language: str
    client: str | None
    caller: Caller
    principal: Principal
    now: datetime
    began: float
    input_digest: Awaitable[str]
    knowledge: Knowledge


class HookCalls:
    """Answers the calls of the hook services."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._reach = Reach(house.fhir_servers.admit, lambda: house.fhir)

    async def answer(self, service: Service, request: Call, language: str, client: str | None) -> bytes:
        """The body of the answer to a hook call; takes the request's body for itself.

        Raises a `Refused`, or `AuditUnavailable` when the decision cannot be recorded.
        """
        house = self._house
        body = request.take_body()
        size = len(body)
        began = time.perf_counter()
        call = _Moment(
            service=service,
            event_id=new_id(),
            language=language,
            client=client,
            caller=caller(house, request),
            principal=request.principal,
            now=house.clock(),
            began=began,
            input_digest=house.digest(body),
            knowledge=house.knowledge,
        )
        status = 200
        try:
            read, kept = await house.apart(size, lambda: self._read(call, body))
            body = b""  # megabytes that nothing needs any more while the chart is built
            whose = authorities.of_call(call.principal, house.clients, read.request.fhir_server)
            try:
                if not whose.theirs:
                    raise ServerNotTheirs
                record = await complete(self._reach, service, read.request, read.request.found)
                size = max(size, record.found.count * _TYPICAL_BYTES)
                done, sealed = await house.apart(size, lambda: self._assess(call, read, whose, kept, record))
            except Exception as error:
                await self._record_refusal(call, read, whose, error)
                raise
            assessment = done.assessment
            decision = self._decision(
                call,
                read,
                whose,
                input_digest=await call.input_digest,
                output_digest=done.output_digest,
                severity=assessment.severity,
                immediate=assessment.immediate,
                escalation=assessment.escalation.code,
                rule=assessment.escalation.rule,
                status=200,
                cards=tuple([_shown(card) for card in done.cards]),
                stored=sealed.outcome,
                stored_digest=sealed.digest,
            )
            await house.trail.record_all((decision, *sealed.records))
            house.keeper.confirm(sealed)
        except Exception as error:
            status = status_of(error)
            raise
        finally:
            seconds = time.perf_counter() - call.began
            house.metrics.answered(service.id, status, seconds)
        self._observe(call, done, seconds)
        return done.body

    def _read(self, call: _Moment, body: bytes) -> tuple[Read, Kept]:
        read = read_call(call.service, body, call.now)
        kept = self._house.keeper.body(body, call.now, token=read.request.token is not None)
        return read, kept

    def _assess(
        self, call: _Moment, read: Read, whose: Authority, kept: Kept, record: Record
    ) -> tuple[Assessed, Sealed]:
        house = self._house
        settings = house.settings
        manner = Manner(call.language, call.now, call.event_id, settings.public_base_url, house.card_settings)
        done = answer_call(call.knowledge, call.service, read, record, manner)
        engine = call.knowledge.engine
        circumstances = Circumstances(
            kind="hook-call",
            service=call.service.id,
            language=call.language,
            now=call.now,
            software=house.software,
            bundle=call.knowledge.bundle,
            model=engine.model_id,
            knowledge=engine.knowledge_id,
            base_url=settings.public_base_url,
            cards=house.card_settings,
            admitted=record.admitted,
            most_pages=settings.fhir_max_pages,
            whole=kept.whole,
        )
        sealed = house.keeper.seal(
            kept,
            circumstances,
            event_id=call.event_id,
            subject=house.pseudonymiser.pseudonym("patient", read.request.patient_id, whose.name),
            fetched=record.fetched,
            answer=done.body,
        )
        return done, sealed

    def _decision(self, call: _Moment, read: Read, whose: Authority, **result: Any) -> Decision:
        house = self._house
        request = read.request
        engine = call.knowledge.engine
        user = authorities.user_of(request.user_id, whose)
        name = house.pseudonymiser.pseudonym
        return Decision(
            event_id=call.event_id,
            recorded=call.now,
            action="hook-call",
            service=call.service.id,
            hook_instance=request.instance,
            client=call.client,
            # What somebody says who may not speak of them is in nobody's record.
            user=name("user", user, whose.name) if whose.theirs else None,
            patient=name("patient", request.patient_id, whose.name) if whose.theirs else None,
            model=engine.model_id,
            knowledge=engine.knowledge_id,
            duration_ms=(time.perf_counter() - call.began) * 1000,
            language=call.language,
            roles=call.caller.roles,
            purpose=TREATMENT,
            network=call.caller.network,
            **result,
        )

    async def _record_refusal(self, call: _Moment, read: Read, whose: Authority, error: Exception) -> None:
        """Who was refused what.  When even that cannot be kept, the refusal itself is the safe answer."""
        decision = self._decision(
            call,
            read,
            whose,
            input_digest=await call.input_digest,
            output_digest=digest(b""),
            rule=f"refused: {type(error).__name__}",
            status=status_of(error),
        )
        try:
            await self._house.trail.record(decision)
        except AuditUnavailable:
            _log.error("refusal.not_recorded", event_id=call.event_id)

    def _observe(self, call: _Moment, done: Assessed, seconds: float) -> None:
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


def _shown(card: Card) -> ShownCard:
    topic = card.source.topic
    return ShownCard(
        uuid=card.uuid or "",
        key=topic.code if topic is not None else "",
        indicator=card.indicator,
        suggestions=tuple([s.uuid for s in card.suggestions if s.uuid]),
    )
