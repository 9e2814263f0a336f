"""A stand-in FHIR server: a small real application on a free loopback port, with the manners real ones have.

What it does is told by the resource type asked for, so that a test reads like the situation it is about.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

Behaviour = Callable[[Request], Awaitable[Response]]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def serving(app: Any, *, port: int | None = None) -> Iterator[str]:
    """Serve an ASGI application with uvicorn in a thread; yields its base URL."""
    port = port or free_port()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="auto",
        ws="none",
        proxy_headers=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server stopped while starting"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


class Standin:
    """Answers `/fhir/{type}` with the behaviour registered for the type; remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.behaviours: dict[str, Behaviour] = {}
        self.app = Starlette(
            routes=[Route("/fhir/{kind}", self._answer), Route("/fhir/{kind}/{id}", self._answer)]
        )
        self.url = ""

    async def _answer(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        self.requests.append((str(request.url), request.headers.get("authorization")))
        behaviour = self.behaviours.get(kind)
        return await behaviour(request) if behaviour is not None else bundle([])

    def on(self, kind: str, behaviour: Behaviour) -> None:
        """Register what happens when a type is asked for."""
        self.behaviours[kind] = behaviour


def bundle(resources: list[dict[str, Any]], next_url: str | None = None) -> JSONResponse:
    """A searchset page."""
    body: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": resource} for resource in resources],
    }
    if next_url:
        body["link"] = [{"relation": "next", "url": next_url}]
    return JSONResponse(body, media_type="application/fhir+json")


def condition(identity: str) -> dict[str, Any]:
    """A small Condition."""
    return {"resourceType": "Condition", "id": identity, "subject": {"reference": "Patient/p"}}


def pages(sizes: list[int], next_base: Callable[[], str]) -> Behaviour:
    """A search in pages; `next_base` gives the address the `next` links start with."""

    async def behave(request: Request) -> Response:
        number = int(request.query_params.get("page", "0"))
        found = [condition(f"c-{number}-{i}") for i in range(sizes[number])]
        more = number + 1 < len(sizes)
        link = f"{next_base()}{request.url.path}?page={number + 1}" if more else None
        return bundle(found, link)

    return behave


def busy(times: int, status: int, headers: dict[str, str]) -> Behaviour:
    """Refuses the first `times` requests."""
    left = [times]

    async def behave(_: Request) -> Response:
        if left[0]:
            left[0] -= 1
            return Response(status_code=status, headers=headers)
        return bundle([condition("at-last")])

    return behave


def slow(seconds: float) -> Behaviour:
    """Answers after a while."""

    async def behave(_: Request) -> Response:
        await asyncio.sleep(seconds)
        return bundle([condition("late")])

    return behave


def redirecting(target: Callable[[], str], status: int = 302) -> Behaviour:
    """Sends the client elsewhere."""

    async def behave(request: Request) -> Response:
        return RedirectResponse(target() + request.url.path, status)

    return behave


def status(code: int, body: dict[str, Any] | None = None) -> Behaviour:
    """Always the same status."""

    async def behave(_: Request) -> Response:
        return JSONResponse(body or {}, code)

    return behave


def endless() -> Behaviour:
    """A body that does not stop."""

    async def chunks() -> Any:
        yield b'{"resourceType":"Bundle","entry":['
        for _ in range(10_000):
            yield b" " * 65_536

    async def behave(_: Request) -> Response:
        return StreamingResponse(chunks(), media_type="application/fhir+json")

    return behave
