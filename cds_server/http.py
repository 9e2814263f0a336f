"""The thin HTTP layer under every endpoint that takes or gives JSON: ASGI in, `Call`; `Answer`, ASGI out.

Endpoints are plain ASGI applications behind Starlette routes: no request object, no dependency
injection, no validation on the way, because the body is decoded from its bytes by whoever knows its
shape.  Knows methods, content types and the body's end; knows nothing of CDS Hooks or FHIR, and turns
no error into an answer (`cds_server.middleware` does, with `cds_server.errors`).
"""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from cds_server.auth.principal import Principal
from cds_server.errors import ContentTypeWrong, MethodWrong, RequestMalformed

JSON = b"application/json"
FHIR_JSON = b"application/fhir+json"
JSON_TYPES = frozenset({"application/json", "application/fhir+json", "application/json+fhir"})
FORM_TYPES = frozenset({"application/x-www-form-urlencoded"})


class Call:
    """One request with its whole body."""

    __slots__ = ("body", "headers", "request_id", "scope")

    def __init__(self, scope: Scope, body: bytes) -> None:
        self.scope = scope
        self.body = body
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id: str = scope.get("cds.request_id", "")

    @property
    def principal(self) -> Principal:
        """Who is calling, as `cds_server.auth.gate` found out; it lets nothing pass without one."""
        caller: Principal = self.scope["cds.principal"]
        return caller

    @property
    def network(self) -> str | None:
        """The IP address the call came from, as far as the gate could say; `None` when nobody can."""
        address: str | None = self.scope.get("cds.network")
        return address

    def take_body(self) -> bytes:
        """The body, which the call then holds no longer: a large one must not outlive its decoding."""
        body, self.body = self.body, b""
        return body

    def header(self, name: bytes) -> str:
        """A header's value (name in lower case), or an empty text."""
        return self.headers.get(name, b"").decode("latin-1")

    def parameter(self, name: str) -> str:
        """A path parameter of the route."""
        value: str = self.scope["path_params"][name]
        return value


class Answer:
    """Status, body and media type of what goes back."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        media_type: bytes = JSON,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.body = body
        self.status = status
        self.media_type = media_type
        self.headers = headers


Handler = Callable[[Call], Awaitable[Answer]]


class Endpoint:
    """An ASGI application that hands whole requests to a handler.

    A `POST` endpoint takes only JSON media types, or those it names; a missing Content-Type is taken as
    one of them, because some EHR integration engines do not send one and the body proves itself.
    """

    def __init__(self, handler: Handler, method: str, *, types: frozenset[str] = JSON_TYPES) -> None:
        self._handler = handler
        self.method = method
        self._types = types

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method != self.method and not (self.method == "GET" and method == "HEAD"):
            raise MethodWrong("GET, HEAD" if self.method == "GET" else self.method)
        if self.method == "POST":
            check_content_type(scope, self._types)
            call = Call(scope, await read_body(receive))
        else:
            call = Call(scope, b"")
        answer = await self._handler(call)
        await send_answer(send, answer, head=method == "HEAD")


def check_content_type(scope: Scope, types: frozenset[str] = JSON_TYPES) -> None:
    """Raises `ContentTypeWrong` unless the body is declared as one of `types` in UTF-8, or not declared.

    A browser must declare it: a page of another site can make it send a body without a type, and only a
    declared JSON type makes the browser ask first whether that page may (Fetch standard, CORS-preflight).
    """
    by_browser = declared = False
    for name, value in scope["headers"]:
        by_browser |= name == b"origin"
        if name == b"content-type":
            declared = True
            media_type, _, parameters = value.decode("latin-1").lower().partition(";")
            if media_type.strip() not in types:
                raise ContentTypeWrong(f"send {_wanted(types)}")
            for parameter in parameters.split(";"):
                key, _, charset = parameter.strip().partition("=")
                if key == "charset" and charset.strip('"') not in ("utf-8", "utf8", "us-ascii"):
                    raise ContentTypeWrong("send the body in UTF-8")
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise ContentTypeWrong("send the body without a content encoding")
    if by_browser and not declared:
        raise ContentTypeWrong(f"a browser must declare the body's type: {_wanted(types)}")


def _wanted(types: frozenset[str]) -> str:
    return "application/json or application/fhir+json" if types is JSON_TYPES else min(types)


async def read_body(receive: Receive) -> bytes:
    """All of the body.  The limit is kept by `cds_server.middleware.BodyLimit`, under everything."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise RequestMalformed("the connection closed before the body was complete")
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    chunks = [body]
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestMalformed("the connection closed before the body was complete")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


async def send_answer(send: Send, answer: Answer, *, head: bool = False) -> None:
    """Send an answer in one piece."""
    headers: list[Any] = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
