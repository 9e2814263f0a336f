"""The two cookies of a launch: one that ties it to the browser, one that is the session.

HttpOnly, SameSite=Lax (the EHR's authorization server sends the browser back from another site, which
Strict would leave without its cookie), and, unless the server is this machine only, Secure with the
``__Host-`` prefix: no other host and no plain-http page can set or read them (RFC 6265bis, 4.1.3.2).
"""

from cds_server.smart.stores import LAUNCH_SECONDS, digest_of

Header = tuple[bytes, bytes]


class Cookies:
    """Names, writes and reads them."""

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure
        self._prefix = "__Host-" if secure else ""

    @property
    def session_name(self) -> str:
        """Of the session cookie."""
        return f"{self._prefix}cds-session"

    def launch_name(self, state: str) -> str:
        """Of a launch's cookie: one a launch, so that two tabs can launch at the same time."""
        return f"{self._prefix}cds-launch-{digest_of(state)[:16]}"

    def launch(self, state: str, browser: str) -> Header:
        """Ties a launch to this browser."""
        return self._set(self.launch_name(state), browser, LAUNCH_SECONDS)

    def end_launch(self, state: str) -> Header:
        """Removes a launch's cookie."""
        return self._set(self.launch_name(state), "", 0)

    def session(self, identity: str, seconds: int) -> Header:
        """The session."""
        return self._set(self.session_name, identity, seconds)

    def end_session(self) -> Header:
        """Removes the session's cookie."""
        return self._set(self.session_name, "", 0)

    def read(self, header: str, name: str) -> str | None:
        """A cookie's value; `None` without it, or when the header names it twice."""
        pairs = [part.strip().partition("=") for part in header.split(";")]
        values = [value for found, _, value in pairs if found == name]
        return values[0] if len(values) == 1 and values[0] else None

    def _set(self, name: str, value: str, seconds: int) -> Header:
        secure = "; Secure" if self._secure else ""
        text = f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
        return b"set-cookie", text.encode("ascii")
