"""A person with a session of a SMART launch, as a caller: the session cookie is the credential.

A cookie comes with every request, also with one that another site made a browser send.  So anything but
reading needs, besides, the session's token in the header ``X-CSRF-Token``; the app's own forms carry it
as a field and are checked by their handlers.
"""

import hmac

from starlette.types import Scope

from cds_server.auth.authenticator import turn_of
from cds_server.auth.principal import Principal
from cds_server.errors import NotPermitted
from cds_server.smart.cookies import Cookies
from cds_server.smart.service import Smart
from cds_server.smart.stores import Found

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_SESSION = "cds.smart_session"


class SessionCaller:
    """An authenticator (`cds_server.auth.authenticator`) for session cookies."""

    def __init__(self, smart: Smart, cookies: Cookies) -> None:
        self._smart = smart
        self._cookies = cookies

    async def authenticate(self, scope: Scope) -> Principal | None:
        """See `Authenticator.authenticate`.  A cookie of a session that has ended is no credential at all.

        Raises:
            NotPermitted: a change without the session's token.
            Unavailable: sessions cannot be read now.
        """
        if any(name == b"authorization" for name, _ in scope["headers"]):
            return None  # who says so in so many words is not asked for a cookie
        if self.identity(scope) is None:
            return None
        async with turn_of(scope):
            found = await self.session(scope)
        if found is None:
            return None
        if scope["method"] not in _READING and not same(_header(scope, b"x-csrf-token"), found.session.csrf):
            raise NotPermitted
        return self._smart.principal(found.session)

    async def session(self, scope: Scope) -> Found | None:
        """The session of a request, looked up once."""
        if _SESSION not in scope:
            identity = self.identity(scope)
            scope[_SESSION] = await self._smart.stores.session(identity) if identity else None
        found: Found | None = scope[_SESSION]
        return found

    def identity(self, scope: Scope) -> str | None:
        """The session id that a request carries; says nothing of whether there is such a session."""
        return self._cookies.read(_header(scope, b"cookie"), self._cookies.session_name)


def same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how far they agree."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _header(scope: Scope, name: bytes) -> str:
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""
