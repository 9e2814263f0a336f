"""The limit: what uvicorn can do when the application only parses the body and answers a constant.

A bare ASGI application on the same uvicorn (uvloop, httptools) that parses the same request with
orjson.  No server that looks at its input with a general parser is faster than this.
"""

from typing import Any

import orjson

ANSWER = orjson.dumps({"cards": [{"summary": "limit", "indicator": "info", "source": {"label": "limit"}}]})
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the body, parse it, answer."""
    if scope["type"] != "http":
        return
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    orjson.loads(b"".join(chunks))
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
