"""One audited assessment outside CDS Hooks: the shared line under `$assess` and the simple API.

A Bundle of one patient in, chart and assessment out, the audit event written from the very bytes that
will be sent.  Form in and out is the caller's business.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec
import structlog

from cds_server import authorities
from cds_server.audit import Decision, digest, new_id
from cds_server.audit.access import caller, of_call
from cds_server.clock import EARLIEST_YEAR
from cds_server.decisions.keeper import Sealed
from cds_server.decisions.stored import Circumstances
from cds_server.errors import ServerNotTheirs, status_of
from cds_server.http import Call
from cds_server.state import House, Knowledge
from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import moment_of
from fhir_adapters.collected import Resources
from fhir_adapters.decode import read_bundle
from models.assessment import Assessment

_log = structlog.get_logger(__name__)
_AHEAD = timedelta(days=366)
"""Test data and planned encounters lie ahead of the clock; a date further on is an error of writing."""

_SERVICES = {"assess": "$assess", "predict": "predict"}

Encode = Callable[[Knowledge, PatientChart, Assessment], bytes]


class Result(msgspec.Struct, frozen=True):
    """What a Bundle was answered with; `server` is the base URL that its Patient is at, where it says so."""

    chart: PatientChart
    assessment: Assessment
    body: bytes
    server: str | None


def assess_body(knowledge: Knowledge, bundle: bytes, now: datetime, encode: Encode) -> Result:
    """The pure part: a Bundle's JSON to chart, assessment and the encoded answer, for a call or a replay.

    Raises what decoding and the chart builder raise.
    """
    found = read_bundle(bundle)
    chart = knowledge.builder.build(found, at=_moment(found, now), patient_id=None, retrospective=True)
    assessment = knowledge.engine.assess(chart, thorough=True)
    return Result(chart, assessment, encode(knowledge, chart, assessment), _server_of(found))


class _Done(msgspec.Struct, frozen=True):
    result: Result
    sealed: Sealed
    patient: str | None
    authority: str
    output_digest: str
    input_digest: str


async def assess_bundle(
    house: House,
    kind: Literal["assess", "predict"],
    call: Call,
    *,
    bundle: Callable[[datetime], bytes],
    encode: Encode,
    language: str,
) -> bytes:
    """The encoded answer to the Bundle of a request, once its audit event is durable.

    Args:
        kind: what was called; the patient of ``predict`` is nobody in particular.
        call: the request; its body as it came is for the digest and to be kept, its caller is recorded.
        bundle: gives the FHIR Bundle's JSON at the call's time; called where large work is done.
        encode: gives the answer's bytes.

    Raises what decoding and the chart builder raise, and `AuditUnavailable`.
    """
    service = _SERVICES[kind]
    body = call.body
    who = caller(house, call)
    began = time.perf_counter()
    now = house.clock()
    status = 200
    knowledge = house.knowledge  # once: a new model may arrive while this call is answered

    event_id = new_id()

    def work() -> _Done:
        kept = house.keeper.body(body, now)
        result = assess_body(knowledge, bundle(now), now, encode)
        identity = result.chart.subject.patient_id if kind == "assess" else ""
        whose = authorities.of_call(call.principal, house.clients, result.server)
        if not whose.theirs:
            raise ServerNotTheirs
        patient = house.pseudonymiser.pseudonym("patient", identity, whose.name) if identity else None
        circumstances = Circumstances(
            kind=kind,
            service=service,
            language=language,
            now=now,
            software=house.software,
            bundle=knowledge.bundle,
            model=knowledge.engine.model_id,
            knowledge=knowledge.engine.knowledge_id,
            whole=kept.whole,
        )
        sealed = house.keeper.seal(
            kept,
            circumstances,
            event_id=event_id,
            subject=patient or f"event:{event_id}",
            fetched=(),
            answer=result.body,
        )
        authority = whose.name if patient else authorities.UNNAMED
        return _Done(result, sealed, patient, authority, digest(result.body), digest(body))

    try:
        done = await house.apart(len(body), work)
        assessment = done.result.assessment
        named = house.authority_names.keep(done.authority)
        decision = Decision(
            event_id=event_id,
            recorded=now,
            action="assess",
            service=service,
            client=who.client,
            user=who.user,
            patient=done.patient,
            authority=named.digest,
            input_digest=done.input_digest,
            output_digest=done.output_digest,
            severity=assessment.severity,
            immediate=assessment.immediate,
            escalation=assessment.escalation.code,
            rule=assessment.escalation.rule,
            model=assessment.model,
            knowledge=assessment.knowledge,
            duration_ms=(time.perf_counter() - began) * 1000,
            status=200,
            language=language,
            roles=who.roles,
            network=who.network,
            stored=done.sealed.outcome,
            stored_digest=done.sealed.digest,
        )
        await house.trail.record_all((decision, *named.records, *done.sealed.records))
        house.keeper.confirm(done.sealed)
        house.authority_names.confirm(named)
    except Exception as error:
        status = status_of(error)
        if isinstance(error, ServerNotTheirs):
            denied = of_call(house, call, "access-denied", service=service, status=403, reason="fhir-server")
            await house.refusals.record(denied)
        raise
    finally:
        seconds = time.perf_counter() - began
        house.metrics.answered(service, status, seconds)
    house.metrics.read(done.result.chart)
    house.metrics.escalations.labels(service, assessment.escalation.code).inc()
    _log.info(
        "assess.answered",
        service=service,
        escalation=assessment.escalation.code,
        resources=done.result.chart.resources_read,
        issues=len(done.result.chart.issues),
        ms=round(seconds * 1000, 2),
    )
    return done.result.body


def _server_of(found: Resources) -> str | None:
    """Where the Bundle says that its Patient is: the `fullUrl` without ``Patient/id`` (FHIR R4, Bundle)."""
    if len(found.patients) != 1:
        return None
    end = f"/Patient/{found.patients[0].id}"
    urls = (url.removesuffix(end) for url in found.full_urls if url.endswith(end))
    return next((url for url in urls if authorities.base_of(url)), None)


def _moment(found: Resources, now: datetime) -> datetime:
    """The moment the record speaks of, or now when it names none that can be true."""
    stated = moment_of(found)
    if stated is None or stated.year < EARLIEST_YEAR or stated > now + _AHEAD:
        return now
    return stated
