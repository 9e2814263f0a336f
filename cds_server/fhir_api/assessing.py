"""One audited assessment outside CDS Hooks: the shared line under `$assess` and the simple API.

A Bundle of one patient in, chart and assessment out, the audit event written from the very bytes that
will be sent.  Form in and out is the caller's business.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
import structlog

from cds_server.audit import Decision, digest, new_id
from cds_server.auth.principal import Principal
from cds_server.clock import EARLIEST_YEAR
from cds_server.errors import status_of
from cds_server.state import House
from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import moment_of
from fhir_adapters.collected import Resources
from fhir_adapters.decode import read_bundle
from models.assessment import Assessment

_log = structlog.get_logger(__name__)
_AHEAD = timedelta(days=366)
"""Test data and planned encounters lie ahead of the clock; a date further on is an error of writing."""

Encode = Callable[[PatientChart, Assessment], bytes]


class _Done(msgspec.Struct, frozen=True):
    assessment: Assessment
    chart: PatientChart
    body: bytes
    output_digest: str
    input_digest: str


async def assess_bundle(
    house: House,
    service: str,
    body: bytes,
    *,
    caller: Principal,
    bundle: Callable[[], bytes],
    encode: Encode,
    language: str,
) -> bytes:
    """The encoded answer to `bundle()`, once its audit event is durable.

    Args:
        service: the name in audit and metrics.
        body: the request as it came, for the digest.
        caller: who asked; recorded as client, or as pseudonym of the user.
        bundle: gives the FHIR Bundle's JSON; called where large work is done.
        encode: gives the answer's bytes.

    Raises what decoding and the chart builder raise, and `AuditUnavailable`.
    """
    began = time.perf_counter()
    now = house.clock()
    status = 200
    knowledge = house.knowledge  # once: a new model may arrive while this call is answered

    def work() -> _Done:
        found = read_bundle(bundle())
        chart = knowledge.builder.build(
            found,
            at=_moment(found, now),
            patient_id=None,
            retrospective=True,
        )
        assessment = knowledge.engine.assess(chart, thorough=True)
        answer = encode(chart, assessment)
        return _Done(assessment, chart, answer, digest(answer), digest(body))

    try:
        done = await house.apart(len(body), work)
        assessment = done.assessment
        await house.trail.record(
            Decision(
                event_id=new_id(),
                recorded=now,
                action="assess",
                service=service,
                client=caller.client,
                user=house.pseudonymiser.pseudonym("user", caller.user) if caller.user else None,
                patient=house.pseudonymiser.pseudonym("patient", done.chart.subject.patient_id),
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
            )
        )
    except Exception as error:
        status = status_of(error)
        raise
    finally:
        seconds = time.perf_counter() - began
        house.metrics.answered(service, status, seconds)
    house.metrics.read(done.chart)
    house.metrics.escalations.labels(service, assessment.escalation.code).inc()
    _log.info(
        "assess.answered",
        service=service,
        escalation=assessment.escalation.code,
        resources=done.chart.resources_read,
        issues=len(done.chart.issues),
        ms=round(seconds * 1000, 2),
    )
    return done.body


def _moment(found: Resources, now: datetime) -> datetime:
    """The moment the record speaks of, or now when it names none that can be true."""
    stated = moment_of(found)
    if stated is None or stated.year < EARLIEST_YEAR or stated > now + _AHEAD:
        return now
    return stated
