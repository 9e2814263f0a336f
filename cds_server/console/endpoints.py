"""`/audit`: the console of the compliance officer.  Every use of it is recorded before its answer leaves."""

import csv
import io
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from cds_server.audit.access import of_call
from cds_server.audit.fhir import audit_event
from cds_server.audit.reader import Page
from cds_server.console.audit_page import Line, event_page, line_of, search_page
from cds_server.errors import MethodWrong, NotPermitted, RequestMalformed
from cds_server.fhir_api.audit_parameters import Search, read_search
from cds_server.fhir_api.audit_search import form, understood, unreadable_issue
from cds_server.http import FORM_TYPES, Answer, Call, Endpoint, check_content_type, read_body
from cds_server.language import choose_language
from cds_server.own_page import from_own_page
from cds_server.state import House

_HTML = b"text/html; charset=utf-8"
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    b"base-uri 'none'; frame-ancestors 'none'",
)
_FORMATS = {"ndjson": b"application/fhir+ndjson", "csv": b"text/csv; charset=utf-8"}
_encode = msgspec.json.Encoder().encode


def routes(house: House) -> list[BaseRoute]:
    """The routes of this slice."""
    asking = house.asking
    base_url = house.settings.base_url
    static = files("cds_server.console") / "static"
    style, script = (static / "style.css").read_bytes(), (static / "export.js").read_bytes()

    async def show(call: Call) -> Answer:
        await check_sender(house, call)
        language = _language(house, call)
        fields = _fields(call)
        try:
            asked = read_search(_parameters(fields), await asking.people())
        except RequestMalformed as fault:
            await asking.refused(call, "audit-searched", fault.reason)
            html = search_page(language, {}, None, await asking.chain_status(), fault=fault.reason)
            return _page(html, language, status=400)
        page = await asking.page(call, asked.question, asked.query(), asked.count, asked.after)
        following = page.following.encoded() if page.following is not None else None
        chain = await asking.chain_status()
        html = search_page(language, _shown(fields, asked), page, chain, cursor=following)
        return _page(html, language)

    async def read(call: Call) -> Answer:
        language = _language(house, call)
        record = await asking.one(call, call.parameter("event_id"))
        resource = None if record is None else audit_event(record, base_url=base_url)
        return _page(event_page(language, record, resource), language, status=404 if record is None else 200)

    async def styled(_: Call) -> Answer:
        return Answer(style, media_type=b"text/css; charset=utf-8")

    async def scripted(_: Call) -> Answer:
        return Answer(script, media_type=b"text/javascript; charset=utf-8")

    return [
        Route("/audit", Endpoint(show, "GET"), methods=["GET"]),
        Route("/audit", Endpoint(show, "POST", types=FORM_TYPES), methods=["POST"]),
        Route("/audit/event/{event_id}", Endpoint(read, "GET")),
        Route("/audit/export", Export(house)),
        Route("/audit/style.css", Endpoint(styled, "GET")),
        Route("/audit/export.js", Endpoint(scripted, "GET")),
    ]


class Export:
    """`POST /audit/export`: all events of a question as NDJSON or CSV, a page of them in memory at a time.

    ``X-Total-Count`` says how many there were when it began, so that progress can be shown.
    """

    method = "POST"

    def __init__(self, house: House) -> None:
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != self.method:
            raise MethodWrong(self.method)
        check_content_type(scope, FORM_TYPES)
        call = Call(scope, await read_body(receive))
        await check_sender(self._house, call)
        asking = self._house.asking
        fields = dict(form(call.body))
        kind = fields.pop("format", "ndjson")
        if kind not in _FORMATS:
            raise RequestMalformed("format is ndjson or csv", "format")
        asked = await understood(asking, call, _parameters(fields))
        count, pages = await asking.export(call, asked.question, asked.query(), kind)
        headers = [
            (b"content-type", _FORMATS[kind]),
            (b"content-disposition", f'attachment; filename="audit.{kind}"'.encode()),
            (b"x-total-count", str(count).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        lines = ndjson(pages, self._house.settings.base_url) if kind == "ndjson" else csv_lines(pages)
        async for chunk in lines:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def check_sender(house: House, call: Call) -> None:
    """What is sent to the console must come from its own page, when a browser sends it.

    Otherwise another site's page could search and export in the auditor's name, with the sign-on that the
    auditor's browser carries along: the trail would say that the auditor did.

    Raises:
        NotPermitted: it comes from another page; that is recorded.
    """
    if call.scope["method"] == "POST" and not from_own_page(call, house.settings.base_url):
        denied = of_call(house, call, "access-denied", service="audit", status=403, reason="other-page")
        await house.refusals.record(denied)
        raise NotPermitted


async def ndjson(pages: AsyncIterator[Page], base_url: str) -> AsyncIterator[bytes]:
    """FHIR AuditEvents, one a line; an event that cannot be read is an OperationOutcome in its place."""
    async for page in pages:
        lines = [_encode(audit_event(record, base_url=base_url)) for record in page.records]
        lines += [
            _encode({"resourceType": "OperationOutcome", "issue": [unreadable_issue(event_id)]})
            for event_id in page.unreadable
        ]
        yield b"\n".join(lines) + b"\n"


async def csv_lines(pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    """RFC 4180 with a header line; a cell that a spreadsheet would compute begins with an apostrophe."""
    yield (",".join(Line.__struct_fields__) + "\r\n").encode()
    async for page in pages:
        out = io.StringIO()
        writer = csv.writer(out)
        for record in page.records:
            writer.writerow([_harmless(str(value)) for value in msgspec.structs.astuple(line_of(record))])
        for event_id in page.unreadable:
            writer.writerow(["", _harmless(event_id), "unreadable"])
        yield out.getvalue().encode()


_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")
"""What a spreadsheet takes for the beginning of a formula, or skips before it (OWASP, CSV Injection)."""


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in _FORMULA else cell


def _fields(call: Call) -> dict[str, str]:
    """What the form says; an address carries nothing but the language."""
    return {name: value.strip() for name, value in form(call.body)} if call.body else {}


def _parameters(fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """The form as search parameters."""
    names = {
        "from": ("date", "ge"),
        "to": ("date", "le"),
        "patient": ("patient", ""),
        "agent": ("agent", ""),
        "entity": ("entity", ""),
        "activity": ("subtype", "urn:cds-server:activity|"),
        "outcome": ("outcome", ""),
        "after": ("_after", ""),
    }
    unknown = fields.keys() - names.keys()
    if unknown:
        raise RequestMalformed("a field this form does not have")
    return [(name, prefix + fields[field]) for field, (name, prefix) in names.items() if fields.get(field)]


def _shown(fields: Mapping[str, str], asked: Search) -> dict[str, str]:
    """The form as it comes back: persons as the pseudonyms they were searched by."""
    shown = {name: value for name, value in fields.items() if name != "after"}
    canonical = dict(asked.canonical)
    for name in ("patient", "agent", "entity"):
        if name in shown:
            shown[name] = canonical.get(name, canonical.get("patient", ""))
    return shown


def _language(house: House, call: Call) -> str:
    return choose_language(call.header(b"accept-language"), house.settings.language)


def _page(html: str, language: str, *, status: int = 200) -> Answer:
    headers = ((b"content-language", language.encode()), (b"vary", b"Accept-Language"), _POLICY)
    return Answer(html.encode(), status=status, media_type=_HTML, headers=headers)
