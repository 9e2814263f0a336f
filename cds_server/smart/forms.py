"""An endpoint for a form of one of our pages: small and URL-encoded.

Knows the body's form; whether our page sent it (`cds_server.own_page`) and the form's token is the
session's is its handler's business.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from cds_server.errors import BodyTooLarge, ContentTypeWrong, MethodWrong, RequestMalformed
from cds_server.http import Answer, Call, read_body, send_answer

_LARGEST = 8_192
FormHandler = Callable[[Call, dict[str, str]], Awaitable[Answer]]


def single(text: str) -> dict[str, str]:
    """The parameters of a query or form, each at most once.

    Raises:
        RequestMalformed: one comes twice (readers could differ on which counts), or there are too many.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=40, errors="strict")
    except ValueError:
        raise RequestMalformed("the parameters cannot be read") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestMalformed("a parameter comes twice")
    return found


class FormEndpoint:
    """Hands a form to its handler."""

    method = "POST"

    def __init__(self, handler: FormHandler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != self.method:
            raise MethodWrong(self.method)
        call = Call(scope, b"")
        if (
            call.header(b"content-type").partition(";")[0].strip().lower()
            != "application/x-www-form-urlencoded"
        ):
            raise ContentTypeWrong("send application/x-www-form-urlencoded")
        body = await read_body(receive)
        if len(body) > _LARGEST:
            raise BodyTooLarge(f"a form has at most {_LARGEST} bytes")
        await send_answer(send, await self._handler(call, single(body.decode("latin-1"))))
