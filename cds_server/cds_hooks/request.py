"""Hook requests, decoded from their bytes and checked as far as the standard binds the caller.

Tolerant of unknown members, missing optional ones and extensions; strict where a guess could assess
the wrong patient at the wrong moment.  FHIR content stays raw here: `fhir_adapters` reads it.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from cds_server.clock import EARLIEST_YEAR
from cds_server.errors import RequestMalformed, malformed
from fhir_adapters.collected import PrefetchValue, Resources
from fhir_adapters.decode import read_decoded, read_prefetch
from hooks.services import Service

AS_OF = "org.cds-server.as-of"
"""Extension of the request: the moment to assess the record at (replays, teaching, tests)."""

_FUTURE = timedelta(minutes=5)
"""How far a caller's clock may be ahead."""

_LONGEST_ID = 256
_UUID = re.compile(r"(urn:uuid:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


class _Authorization(msgspec.Struct, gc=False):
    access_token: str | None = None
    token_type: str | None = None

    def __repr__(self) -> str:
        return "<fhirAuthorization>"


class _Request(msgspec.Struct, gc=False):
    hook: str
    hookInstance: str
    context: msgspec.Raw
    fhirServer: str | None = None
    fhirAuthorization: _Authorization | None = None
    prefetch: dict[str, msgspec.Raw] | None = None
    extension: dict[str, msgspec.Raw] | None = None


class _TypedRequest(_Request, gc=False):
    prefetch: dict[str, PrefetchValue] | None = None


class _PatientView(msgspec.Struct, gc=False):
    userId: str
    patientId: str
    encounterId: str | None = None


class _OrderSelect(msgspec.Struct, gc=False):
    userId: str
    patientId: str
    selections: list[str]
    draftOrders: msgspec.Raw
    encounterId: str | None = None


class _AsOf(msgspec.Struct, gc=False):
    instant: str


class HookRequest(msgspec.Struct, frozen=True):
    """A checked hook request.

    `found` holds what its prefetch brought.  `token` is kept out of every representation; `at` is aware
    or `None`.
    """

    hook: str
    instance: str
    user_id: str
    patient_id: str
    encounter_id: str | None
    selections: tuple[str, ...]
    draft_orders: msgspec.Raw | None
    found: Resources
    fhir_server: str | None
    at: datetime | None
    token: str | None

    def __repr__(self) -> str:
        return f"<HookRequest {self.hook} {self.instance}>"

    def context(self) -> dict[str, Any]:
        """The context's fields that a prefetch template may use."""
        fields = {"userId": self.user_id, "patientId": self.patient_id}
        if self.encounter_id:
            fields["encounterId"] = self.encounter_id
        return fields


_typed_request = msgspec.json.Decoder(_TypedRequest)
_request = msgspec.json.Decoder(_Request)
_contexts: dict[str, msgspec.json.Decoder[Any]] = {
    "patient-view": msgspec.json.Decoder(_PatientView),
    "order-select": msgspec.json.Decoder(_OrderSelect),
}
_as_of = msgspec.json.Decoder(_AsOf)


def decode_request(body: bytes, service: Service, now: datetime) -> HookRequest:
    """Decode and check a request to `service`; `now` bounds the as-of extension.

    Raises `RequestMalformed` naming the member at fault.
    """
    request, found = _with_prefetch(body)
    if request.hook != service.hook:
        raise RequestMalformed(f"this service answers the hook {service.hook}", "hook")
    if not _UUID.match(request.hookInstance):
        raise RequestMalformed("expected a UUID", "hookInstance")
    context = _decoded(_contexts[service.hook], request.context, "context")
    authorization = request.fhirAuthorization
    orders = isinstance(context, _OrderSelect)
    return HookRequest(
        hook=request.hook,
        instance=request.hookInstance.lower().removeprefix("urn:uuid:"),
        user_id=_identifier(context.userId, "context.userId"),
        patient_id=_identifier(context.patientId, "context.patientId").removeprefix("Patient/"),
        encounter_id=context.encounterId.removeprefix("Encounter/") if context.encounterId else None,
        selections=tuple(context.selections) if orders else (),
        draft_orders=context.draftOrders if orders else None,
        found=found,
        fhir_server=request.fhirServer,
        at=_moment(request.extension, now),
        token=authorization.access_token if authorization is not None else None,
    )


def _with_prefetch(body: bytes) -> tuple[_Request, Resources]:
    """The request and its FHIR content, in one pass when all of it fits.

    When anything does not, the request is read again with its prefetch left raw, and then resource by
    resource, so that what is wrong is named and the rest still counts.
    """
    try:
        request: _Request = _typed_request.decode(body)
    except (msgspec.ValidationError, RecursionError):
        request = _decoded(_request, body, "")
        return request, read_prefetch(request.prefetch or {})
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise malformed(fault, "") from None
    return request, read_decoded(request.prefetch or {})


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes | msgspec.Raw, where: str) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as fault:
        raise malformed(fault, where) from None


def _identifier(value: str, where: str) -> str:
    if not value.strip() or len(value) > _LONGEST_ID or not value.isprintable():
        raise RequestMalformed("expected the id of a FHIR resource", where)
    return value


def _moment(extension: dict[str, msgspec.Raw] | None, now: datetime) -> datetime | None:
    raw = extension.get(AS_OF) if extension else None
    if raw is None:
        return None
    where = f"extension.{AS_OF}"
    text = _decoded(_as_of, raw, where).instant
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RequestMalformed("expected a date and time with an offset", f"{where}.instant") from None
    if moment.tzinfo is None:
        raise RequestMalformed("the time needs an offset, such as Z or +02:00", f"{where}.instant")
    if moment > now + _FUTURE:
        raise RequestMalformed("the moment lies in the future", f"{where}.instant")
    if moment.year < EARLIEST_YEAR:
        raise RequestMalformed(f"the moment lies before {EARLIEST_YEAR}", f"{where}.instant")
    return moment.astimezone(UTC)
