"""What an authenticator is: the one hook through which each kind of caller is recognised.

The gate (`cds_server.auth.gate`) asks all authenticators in turn; `cds_server.auth.callers` lists them.
None of them decides what a caller may do (`cds_server.auth.permissions`).
"""

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Protocol

from starlette.types import Scope

from cds_server.auth.principal import Principal

BEARER = "bearer"


class Authenticator(Protocol):
    """Recognises one kind of credentials."""

    async def authenticate(self, scope: Scope) -> Principal | None:
        """The caller behind a request.

        Args:
            scope: the ASGI scope of an HTTP request (path, method, headers as sent).  The body is not
                to be read here.

        Returns: the caller, or `None` when the request carries no credentials of this kind (no such
        cookie, no bearer token, or the token of an issuer that is not this authenticator's): then the
        next one is asked.

        Raises:
            Unauthenticated: credentials of this kind, which do not hold.  Nobody else is asked.
            TooManyRequests: there is no turn for it (`turn_of`).
        """


def turn_of(scope: Scope) -> AbstractAsyncContextManager[None]:
    """To be entered around what an authenticator computes or looks up, and nothing that waits for others.

    The gate gives it (``cds.turn``): callers from an address that has failed much wait their turn in it.

    Raises: (when entered) TooManyRequests.
    """
    turn: AbstractAsyncContextManager[None] = scope["cds.turn"]() if "cds.turn" in scope else nullcontext()
    return turn


def bearer_token(scope: Scope) -> str | None:
    """The token of ``Authorization: Bearer`` (RFC 6750, 2.1), or `None` without that header or scheme.

    Several Authorization headers are nobody's way to say who they are: `None` as well.
    """
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == BEARER else None
