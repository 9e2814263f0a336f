"""The paths of the SMART app: launch, callback, logout, key set, and the page a launch leads to.

Addresses carry protocol parameters only: never a patient, a user or a token, and nothing that a caller
sends chooses where a browser is sent to (the targets are the registered EHR and our own page).
"""

from urllib.parse import urlencode, urlsplit

import msgspec
from starlette.routing import BaseRoute, Route

from cds_server.auth.addresses import caller_address, parse_networks
from cds_server.errors import RequestMalformed, TooManyRequests
from cds_server.http import Answer, Call, Endpoint
from cds_server.language import choose_language
from cds_server.own_page import from_own_page
from cds_server.smart import pages
from cds_server.smart.app import PatientView
from cds_server.smart.forms import FormEndpoint, single
from cds_server.smart.pages import Frame
from cds_server.smart.record import Recorder
from cds_server.smart.service import AccessEnded, LaunchRefused, Returned
from cds_server.smart.session_caller import same
from cds_server.smart.stores import Found, Session
from cds_server.smart.words import words
from cds_server.state import House
from hooks.texts import LANGUAGES

_HTML = b"text/html; charset=utf-8"
_CSS = b"text/css; charset=utf-8"
LAUNCHES_PER_MINUTE = 600
"""Launches and callbacks from one network address."""
_LONGEST = 2048
"""Characters of a parameter."""
_STATUS_OF = {"unknown": 400, "broken": 400, "denied": 403, "role": 403, "unreachable": 502, "form": 403}


def routes(house: House) -> list[BaseRoute]:
    """The routes of this slice; none but the key set and the page when no EHR is registered."""
    app = _App(house)
    found: list[BaseRoute] = [
        Route("/smart/launch", Endpoint(app.launch, "GET")),
        Route("/smart/callback", Endpoint(app.callback, "GET")),
        Route("/smart/callback/{ehr}", Endpoint(app.callback, "GET")),
        Route("/smart/logout", FormEndpoint(app.logout)),
        Route("/smart/jwks.json", Endpoint(app.key_set, "GET")),
        Route("/app", Endpoint(app.to_page, "GET")),
        Route("/app/", Endpoint(app.page, "GET")),
        Route(pages.STYLE_PATH, Endpoint(app.style, "GET")),
    ]
    return found


class _App:
    def __init__(self, house: House) -> None:
        self._house = house
        self._smart = house.smart.service
        self._cookies = house.smart.cookies
        self._caller = house.smart.caller
        self._view = PatientView(house)
        self._record = Recorder(house)
        self._proxies = parse_networks(house.settings.trusted_proxies)
        self._prefix = urlsplit(self._smart.base_url).path
        self._style = pages.stylesheet()

    async def launch(self, call: Call) -> Answer:
        """Begin: an EHR launch (`iss` and `launch`) or a standalone one (`iss` alone)."""
        self._count(call)
        try:
            query = _query(call)
            iss, launch = query.get("iss", ""), query.get("launch")
            if not all(_plain(value) for value in (iss, launch) if value is not None) or launch == "":
                raise LaunchRefused("parameters")
            begun = await self._smart.begin(iss, launch)
        except LaunchRefused as refusal:
            return await self._refused(call, refusal)
        return _redirect(begun.url, self._cookies.launch(begun.state, begun.browser))

    async def callback(self, call: Call) -> Answer:
        """Come back from the EHR's authorization server."""
        self._count(call)
        state = ""
        try:
            query = _query(call)
            state = query.get("state", "")
            browser = self._cookies.read(call.header(b"cookie"), self._cookies.launch_name(state))
            if not state or browser is None:
                raise LaunchRefused("browser")
            returned = Returned(
                state=state,
                code=query.get("code"),
                error="error" in query,
                issuer=query.get("iss"),
                path=call.scope["path"],
            )
            identity, session = await self._smart.finish(returned, browser)
        except LaunchRefused as refusal:
            return await self._refused(call, refusal, state)
        former = self._caller.identity(call.scope)
        if former is not None:
            await self._smart.stores.end_session(former)  # one browser, one session; no id lives on
        await self._record.login(call, session)
        lifetime = int(self._smart.stores.longest.total_seconds())
        return _redirect(
            f"{self._prefix}/app/", self._cookies.end_launch(state), self._cookies.session(identity, lifetime)
        )

    async def logout(self, call: Call, form: dict[str, str]) -> Answer:
        """End the session, at the request of our own page only."""
        found = await self._caller.session(call.scope)
        identity = self._caller.identity(call.scope)
        if found is None or identity is None:
            return _redirect(f"{self._prefix}/app/", self._cookies.end_session())
        if not from_own_page(call, self._smart.base_url) or not same(
            form.get("csrf", ""), found.session.csrf
        ):
            return await self._refused(call, LaunchRefused("csrf", "form"))
        await self._record.logout(call, found.session)
        await self._smart.logout(identity, found.session)
        return _redirect(f"{self._prefix}/app/?out=1", self._cookies.end_session())

    async def key_set(self, _: Call) -> Answer:
        """The public keys this site signs with (RFC 7517)."""
        return Answer(msgspec.json.encode(self._smart.keys.published()))

    async def to_page(self, _: Call) -> Answer:
        """The page's address has a slash at its end."""
        return _redirect(f"{self._prefix}/app/")

    async def page(self, call: Call) -> Answer:
        """Who is signed in, the patient, and what there is to say; or how to sign in."""
        query = single(call.scope.get("query_string", b"").decode("latin-1"))
        found = await self._caller.session(call.scope)
        ehr = self._smart.ehrs.by_name(found.session.ehr) if found is not None else None
        if found is None or ehr is None:
            frame = self._frame(call, query)
            said = pages.note(frame.words["logged_out"]) if query.get("out") == "1" else ""
            content = said + pages.choice(frame, self._launches())
            return _html(pages.page(frame, content, title=frame.words["choose_title"]), frame)
        frame = self._frame(call, query, found)
        call.scope["cds.principal"] = self._smart.principal(found.session)
        try:
            session = await self._smart.current(found)
        except AccessEnded:
            return _html(pages.page(frame, pages.note(frame.words["ended"])), frame, status=401)
        status, content = await self._view.content(call, frame, session, ehr)
        return _html(pages.page(frame, content), frame, status=status)

    async def style(self, _: Call) -> Answer:
        """The one stylesheet."""
        return Answer(self._style, media_type=_CSS)

    def _count(self, call: Call) -> None:
        """Bound what strangers can make us do: each launch asks an EHR or writes to the audit trail.

        Raises:
            TooManyRequests: from one address, which may be a whole hospital's, come more than people make.
        """
        address = caller_address(call.scope, self._proxies)
        seconds = self._house.rates.take(f"smart-door:{address}", LAUNCHES_PER_MINUTE)
        if seconds:
            raise TooManyRequests(seconds)

    def _launches(self) -> list[tuple[str, str]]:
        return [
            (f"{self._prefix}/smart/launch?{urlencode({'iss': ehr.iss})}", ehr.label)
            for ehr in self._smart.ehrs.entries
            if ehr.standalone and ehr.client_id
        ]

    def _frame(self, call: Call, query: dict[str, str], found: Found | None = None) -> Frame:
        default = self._house.settings.language
        language = query.get("lang", "")
        if language not in LANGUAGES:
            language = choose_language(call.header(b"accept-language"), default)
        if found is None:
            return Frame(language, words(language), self._prefix)
        session = found.session
        ehr = self._smart.ehrs.by_name(session.ehr)
        return Frame(
            language,
            words(language),
            self._prefix,
            who=_name(session),
            ehr=ehr.label if ehr is not None else session.ehr,
            csrf=session.csrf,
        )

    async def _refused(self, call: Call, refusal: LaunchRefused, state: str = "") -> Answer:
        await self._record.refused(call, refusal)
        frame = self._frame(call, {})
        ends = (self._cookies.end_launch(state),) if state and _plain(state) else ()
        status = _STATUS_OF[refusal.told]
        return _html(pages.refused(frame, refusal.told), frame, status=status, headers=ends)


def _query(call: Call) -> dict[str, str]:
    try:
        return single(call.scope.get("query_string", b"").decode("latin-1"))
    except RequestMalformed:
        raise LaunchRefused("parameters") from None


def _plain(value: str) -> bool:
    return len(value) <= _LONGEST and value.isascii() and value.isprintable()


def _name(session: Session) -> str:
    return session.person.name or session.person.reference


def _redirect(address: str, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(
        b"", status=303, media_type=_HTML, headers=((b"location", address.encode("ascii")), *headers)
    )


def _html(
    body: bytes, frame: Frame, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Answer:
    language = (b"content-language", frame.language.encode())
    return Answer(body, status=status, media_type=_HTML, headers=(language, *headers))
