"""`GET /fhir/AuditEvent`, `POST /fhir/AuditEvent/_search`, `GET /fhir/AuditEvent/{id}`.

Read-only; each answer leaves only after the asking is recorded.
"""

from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import BaseRoute, Route

from cds_server.audit.asking import Asking
from cds_server.audit.fhir import audit_event
from cds_server.audit.reader import Page
from cds_server.errors import PathUnknown, RequestMalformed
from cds_server.fhir_api.audit_parameters import Search, read_search
from cds_server.http import FHIR_JSON, FORM_TYPES, Answer, Call, Endpoint
from cds_server.state import House

_PATH = "/fhir/AuditEvent"
_encode = msgspec.json.Encoder().encode


def routes(house: House) -> list[BaseRoute]:
    """The routes of this slice."""
    asking = house.asking
    base_url = house.settings.base_url

    async def search(call: Call) -> Answer:
        parameters = form(call.scope["query_string"])
        if call.scope["method"] == "POST":
            parameters += form(call.body)
        asked = await understood(asking, call, parameters)
        bundle = await _answer(asking, call, asked, base_url)
        return Answer(_encode(bundle), media_type=FHIR_JSON)

    async def read(call: Call) -> Answer:
        found = await asking.one(call, call.parameter("event_id"))
        if found is None:
            raise PathUnknown("there is no AuditEvent of that id")
        return Answer(_encode(audit_event(found, base_url=base_url)), media_type=FHIR_JSON)

    return [
        Route(_PATH, Endpoint(search, "GET")),
        Route(f"{_PATH}/_search", Endpoint(search, "POST", types=FORM_TYPES)),
        Route(f"{_PATH}/{{event_id}}", Endpoint(read, "GET")),
    ]


def form(data: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string or a form.

    Raises:
        RequestMalformed: not of that form.
    """
    try:
        return parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except (ValueError, UnicodeDecodeError):
        raise RequestMalformed("not a query string of at most 100 parameters in UTF-8") from None


async def understood(asking: Asking, call: Call, parameters: list[tuple[str, str]]) -> Search:
    """The search; one that is not understood is recorded too.  Raises: RequestMalformed."""
    try:
        return read_search(parameters, await asking.people())
    except RequestMalformed as fault:
        await asking.refused(call, "audit-searched", fault.reason)
        raise


async def _answer(asking: Asking, call: Call, asked: Search, base_url: str) -> dict[str, Any]:
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    query = asked.query()
    if asked.summary == "count":
        bundle["total"] = await asking.count(call, asked.question, query)
        bundle["link"] = [_link("self", base_url, query)]
        return bundle
    page = await asking.page(call, asked.question, query, asked.count, asked.after)
    if asked.total:
        bundle["total"] = await asking.total(asked.question)
    bundle["link"] = [_link("self", base_url, asked.query(asked.after))]
    if page.following is not None:
        bundle["link"].append(_link("next", base_url, asked.query(page.following)))
    entries = _entries(page, base_url)
    if entries:
        bundle["entry"] = entries
    return bundle


def _entries(page: Page, base_url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for record in page.records:
        resource = audit_event(record, base_url=base_url)
        found.append(
            {
                "fullUrl": f"{base_url}{_PATH}/{resource['id']}",
                "resource": resource,
                "search": {"mode": "match"},
            }
        )
    if page.unreadable:
        issues = [unreadable_issue(event_id) for event_id in page.unreadable]
        outcome = {"resourceType": "OperationOutcome", "issue": issues}
        found.append({"resource": outcome, "search": {"mode": "outcome"}})
    return found


def unreadable_issue(event_id: str) -> dict[str, Any]:
    """What is said of an event whose payload is no record any more."""
    return {
        "severity": "error",
        "code": "exception",
        "diagnostics": f"event {event_id} cannot be read: run `cds-server audit verify`",
    }


def _link(relation: str, base_url: str, query: str) -> dict[str, str]:
    return {"relation": relation, "url": f"{base_url}{_PATH}{'?' if query else ''}{query}"}
