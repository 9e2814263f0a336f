"""What surrounds every request: its id, its limits, browser access, safe headers, and refusals as answers.

Pure ASGI applications, outermost first in `cds_server.app`.  None of them reads a body or knows what is
in it.
"""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cds_server.errors import BodyTooLarge, BodyTooSlow, answer_for, refusal_for
from cds_server.http import FHIR_JSON, Answer, send_answer

_log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}\Z")
_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?\Z")
_METHODS = b"GET, POST, HEAD, OPTIONS"
_REQUEST_HEADERS = b"authorization, content-type, accept, accept-language, x-request-id"
_EXPOSED = b"X-Request-Id, Retry-After, Location"

_SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    # No answer loads anything, the documentation page included.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class RequestBoundary:
    """Outermost: gives each request an id, adds the safe headers, and answers every error there is.

    An id sent by the caller as ``X-Request-Id`` is kept when it is plain.  An unexpected error is logged
    with the id and the error's type and place, never with its text, which could quote a record.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["cds.request_id"] = request_id.decode()
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = message["headers"] = list(message.get("headers", ()))
                headers.append((b"x-request-id", request_id))
                own = {name for name, _ in headers}  # a page may say itself what it loads
                headers.extend(header for header in _SECURITY if header[0] not in own)
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:  # noqa: BLE001 the boundary: nothing may pass it
            if refusal_for(error) is None:
                _log_unexpected(error, request_id.decode())
            if started:
                return  # nothing can be said any more; the server closes the connection
            await send_refusal(with_headers, error, extra=scope.get("cds.cors", ()))


class Cors:
    """Browser access by origin; a preflight is answered here, without a token (Fetch standard)."""

    def __init__(self, app: ASGIApp, *, origins: Iterable[str], local: bool) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._local = local

    def _allows(self, origin: str) -> bool:
        return origin in self._origins or (self._local and bool(_LOCAL_ORIGIN.match(origin)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = asked = network = None
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"access-control-request-method":
                asked = value
            elif name == b"access-control-request-private-network":
                network = value
        if origin is None:
            await self._app(scope, receive, send)
            return
        allowed = self._allows(origin.decode("latin-1"))
        headers: list[tuple[bytes, bytes]] = [(b"vary", b"Origin")]
        if allowed:
            headers.append((b"access-control-allow-origin", origin))
            headers.append((b"access-control-expose-headers", _EXPOSED))
        if asked is not None and scope["method"] == "OPTIONS":
            if allowed:
                headers += [
                    (b"access-control-allow-methods", _METHODS),
                    (b"access-control-allow-headers", _REQUEST_HEADERS),
                    (b"access-control-max-age", b"600"),
                ]
                if network is not None:
                    # A page on the Internet (the Sandbox) that calls a server on this machine.
                    headers.append((b"access-control-allow-private-network", b"true"))
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        scope["cds.cors"] = tuple(headers)

        async def with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await self._app(scope, receive, with_cors)


LARGE_BODY = 262_144
"""Bytes from which a body counts against the budget: above it, waiting costs less than the memory."""


class Budget:
    """Bytes that may be held at one time; who asks for more than is left waits, first come first served.

    A request larger than the whole budget is let through when nothing else is held.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, amount: int) -> None:
        """Wait until `amount` bytes may be held."""
        if not self._waiting and self._fits(amount):
            self._held += amount
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(amount)
            raise

    def release(self, amount: int) -> None:
        """Give `amount` bytes back and let in who fits now."""
        self._held -= amount
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():  # its caller went away while waiting
                self._waiting.popleft()
            elif self._fits(wanted):
                self._waiting.popleft()
                self._held += wanted
                turn.set_result(None)
            else:
                return

    def _fits(self, amount: int) -> bool:
        return self._held == 0 or self._held + amount <= self._total


class BodyLimit:
    """Refuses bodies over the limit: at once when the length is declared, else while they stream in.

    All of a body must arrive within `seconds`, which begin when it is its turn to be read.

    A large body (over `large_bytes`) is not read before the budget has room for it: until then the
    network holds it back, so that many large charts at once do not fill the worker's memory.  Its room
    is free again when its answer begins: who sends or reads slowly keeps no one else waiting.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, large_bytes: int, budget: Budget, seconds: float
    ) -> None:
        self._app = app
        self._max = max_bytes
        self._large = large_bytes
        self._budget = budget
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = 0
        for name, value in scope["headers"]:
            # httptools has checked that it is a number; 18 digits are past any limit.
            if name == b"content-length":
                if len(value) > 18 or int(value) > self._max:
                    raise self._refusal()
                declared = int(value)
        taken = held = 0
        if declared > self._large:
            await self._budget.acquire(declared)
            held = declared
        now = asyncio.get_running_loop().time
        deadline: float | None = now() + self._seconds

        def let_go() -> None:
            nonlocal held
            if held:
                amount, held = held, 0
                self._budget.release(amount)

        async def counted() -> Message:
            nonlocal taken, held, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow("the body did not arrive in time") from None
            if message["type"] == "http.request":
                if not message.get("more_body", False):
                    deadline = None  # what is still received is only that the caller went away
                taken += len(message.get("body", b""))
                if taken > self._max:
                    raise self._refusal()
                if taken > self._large and not held:
                    # Its length was not declared: it may yet become as large as is allowed.
                    waited = now()
                    await self._budget.acquire(self._max)
                    held = self._max
                    if deadline is not None:
                        deadline += now() - waited
            return message

        async def letting_go(message: Message) -> None:
            if held:
                let_go()
            await send(message)

        try:
            await self._app(scope, counted, letting_go)
        finally:
            let_go()

    def _refusal(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body is larger than {self._max} bytes")


async def send_refusal(send: Send, error: Exception, *, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer an error with its OperationOutcome."""
    status, body, headers = answer_for(error)
    more = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    await send_answer(send, Answer(body, status=status, media_type=FHIR_JSON, headers=(*more, *extra)))


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            sent: bytes = value
            return sent
    return secrets.token_hex(16).encode()


def _log_unexpected(error: Exception, request_id: str) -> None:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace is not None else ""
    _log.error("request.failed", request_id=request_id, error=type(error).__name__, place=place)
