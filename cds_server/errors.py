"""Every refusal the server can make, and the one place where refusals become HTTP.

The slices raise the errors below, named for what went wrong; only `answer_for` knows status codes and
the FHIR OperationOutcome each becomes.  Messages are ours, written beforehand: they name fields, types
and limits, never a value that was sent.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from cds_server.audit import AuditUnavailable
from fhir_adapters.chart_builder import PatientMissing, SeveralPatients
from fhir_adapters.decode import MalformedJSON


class Refused(Exception):
    """A request that is answered with a refusal.

    `reason` is told to the caller; `expression` names the element it is about (``context.patientId``).
    """

    def __init__(self, reason: str, expression: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expression = expression


class RequestMalformed(Refused):
    """Not JSON, or not of the shape the endpoint takes."""


class ServiceUnknown(Refused):
    """No CDS service has that id."""


class PathUnknown(Refused):
    """Nothing lives at that path."""


class MethodWrong(Refused):
    """The path exists, for other methods; `allowed` lists them."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path takes {allowed}")
        self.allowed = allowed


class ContentTypeWrong(Refused):
    """The body is not declared as JSON."""


class BodyTooLarge(Refused):
    """More bytes than the site allows."""


class BodyTooSlow(Refused):
    """The body did not arrive in the time the site allows."""


class PrefetchIncomplete(Refused):
    """Data without which there is no assessment was neither sent nor could be fetched (CDS Hooks: 412)."""


class PatientMismatch(Refused):
    """The data is of another patient than the request's context names; nobody is assessed."""


class PatientUnclear(Refused):
    """The Bundle does not say which one patient to assess."""


class Gone(Refused):
    """It was here and was destroyed on purpose."""


class NotProven(Refused):
    """It is here, and it cannot be proven to be what it was (RFC 9110, 15.5.10: a conflict of states)."""


class Spent(Refused):
    """The privacy budget of the data asked about does not allow another answer."""


class Unsupported(Refused):
    """A part of the product that is not installed here."""


class Unavailable(Refused):
    """The server cannot answer safely now."""


class Unauthenticated(Refused):
    """Nobody we know, or no valid proof of it (RFC 6750, 3).

    `category` is for our log and metrics, one of a small closed set of words without anything a caller
    sent (``missing``, ``signature``, ``expired``); the answer says nothing of it.  `challenge` is the
    value of ``WWW-Authenticate``.
    """

    def __init__(self, category: str, *, challenge: str = "Bearer") -> None:
        super().__init__("authentication is required")
        self.category = category
        self.challenge = challenge


class NotPermitted(Refused):
    """The caller is known and may not do this."""

    def __init__(self) -> None:
        super().__init__("not permitted for this caller")


class ServerNotTheirs(Refused):
    """A client names a FHIR server that its entry in the file of trusted clients does not list."""

    def __init__(self) -> None:
        super().__init__(
            "this client may not speak of patients of that FHIR server; its own are in fhir_servers of the "
            "site's file of trusted clients",
            "fhirServer",
        )


class Misdirected(Refused):
    """Sent to a name that is not this server's (RFC 9110, 15.5.20)."""

    def __init__(self) -> None:
        super().__init__("call this server by its own name: localhost, or that of CDS_PUBLIC_BASE_URL")


class TooManyRequests(Refused):
    """The caller has used up its rate; `seconds` until it is worth trying again."""

    def __init__(self, seconds: int) -> None:
        super().__init__("more requests than this caller's rate allows; try again later")
        self.seconds = seconds


_STATUS: Mapping[type[Refused], tuple[int, str]] = {
    # The second column is of http://hl7.org/fhir/issue-type.
    RequestMalformed: (400, "invalid"),
    ServiceUnknown: (404, "not-found"),
    PathUnknown: (404, "not-found"),
    MethodWrong: (405, "not-supported"),
    ContentTypeWrong: (415, "not-supported"),
    BodyTooLarge: (413, "too-long"),
    BodyTooSlow: (408, "timeout"),
    PrefetchIncomplete: (412, "required"),
    PatientMismatch: (422, "business-rule"),
    PatientUnclear: (422, "business-rule"),
    Gone: (410, "deleted"),
    NotProven: (409, "conflict"),
    Spent: (403, "suppressed"),
    Unsupported: (501, "not-supported"),
    Unavailable: (503, "transient"),
    Unauthenticated: (401, "login"),
    NotPermitted: (403, "forbidden"),
    ServerNotTheirs: (403, "forbidden"),
    Misdirected: (421, "forbidden"),
    TooManyRequests: (429, "throttled"),
}
_encode = msgspec.json.Encoder().encode


def refusal_for(error: Exception) -> Refused | None:
    """The refusal an error of ours stands for, or `None` for an unexpected one."""
    refusal: Refused | None = None
    match error:
        case Refused():
            refusal = error
        case MalformedJSON():
            refusal = RequestMalformed(error.reason, expression_of(error.path))
        case PatientMissing() | SeveralPatients():
            refusal = PatientUnclear(str(error), "Bundle.entry.resource")
        case AuditUnavailable():
            refusal = Unavailable("the answer cannot be recorded now, so it is not given; try again")
        case HTTPException(status_code=404):
            refusal = PathUnknown("nothing here; start at /cds-services or /docs")
        case HTTPException(status_code=405):
            refusal = MethodWrong((error.headers or {}).get("Allow", "other methods"))
    return refusal


def answer_for(error: Exception) -> tuple[int, bytes, dict[str, str]]:
    """Status, OperationOutcome and extra headers for an error; an unexpected one tells nothing but 500."""
    refusal = refusal_for(error)
    if refusal is None:
        return 500, outcome("exception", "an unexpected error; it has been logged under the request id"), {}
    status, code = _STATUS[type(refusal)]
    headers = {}
    if isinstance(refusal, Unauthenticated):
        headers["WWW-Authenticate"] = refusal.challenge
    elif isinstance(refusal, TooManyRequests):
        headers["Retry-After"] = str(refusal.seconds)
    elif isinstance(refusal, MethodWrong):
        headers["Allow"] = refusal.allowed
    elif isinstance(refusal, Unavailable):
        headers["Retry-After"] = "1"
    elif isinstance(refusal, BodyTooLarge | BodyTooSlow):
        headers["Connection"] = "close"  # the rest of the body is not worth reading
    return status, outcome(code, refusal.reason, refusal.expression), headers


def status_of(error: Exception) -> int:
    """The HTTP status an error will be answered with."""
    refusal = refusal_for(error)
    return 500 if refusal is None else _STATUS[type(refusal)][0]


def outcome(code: str, diagnostics: str, expression: str | None = None) -> bytes:
    """A FHIR R4 OperationOutcome with one issue of severity ``error``."""
    issue: dict[str, Any] = {"severity": "error", "code": code, "diagnostics": diagnostics}
    if expression:
        issue["expression"] = [expression]
    return _encode({"resourceType": "OperationOutcome", "issue": [issue]})


def malformed(fault: Exception, where: str = "") -> RequestMalformed:
    """A decoder's complaint as a refusal: path and expected type, nothing of what was sent."""
    if isinstance(fault, RecursionError):
        return RequestMalformed("nested too deeply", where or None)
    if not isinstance(fault, msgspec.ValidationError):
        # The decoder's text of a syntax error ends with a position, which is all one needs to find it.
        text = str(fault) if isinstance(fault, msgspec.DecodeError) else "text is not valid UTF-8"
        return RequestMalformed(f"not valid JSON: {text.removeprefix('JSON is malformed: ')}", where or None)
    reason, _, path = str(fault).partition(" - at `")
    path = expression_of(path.rstrip("`")) or ""
    if reason.startswith("Object missing required field"):
        name = reason.split("`")[1]
        path = f"{path}.{name}" if path else name
        reason = "required and missing"
    elif not reason.startswith(("Expected", "Object")):
        reason = "not of the expected form"
    return RequestMalformed(reason, f"{where}.{path}" if where and path else where or path or None)


def expression_of(path: str) -> str | None:
    """A decoder's JSON path (``$.entry[0].resource``) as an expression (``entry[0].resource``)."""
    return path.removeprefix("$").removeprefix(".").removeprefix("[...]") or None
