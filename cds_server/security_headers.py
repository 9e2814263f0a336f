"""The headers that tell a browser what an answer may do: nothing, unless it is a page of ours.

A page (``text/html``) may load style, script and images from this server, send forms to it, and stand in
the frames a site names (an EHR that shows SMART apps inside its own window).  Everything else is data.
"""

from collections.abc import Iterable

Headers = tuple[tuple[bytes, bytes], ...]

_HSTS_SECONDS = 31_536_000  # a year, as browsers' preload lists ask for


class SecurityHeaders:
    """The headers of a server's answers.

    Args:
        https: callers reach the server over https, so browsers are told never to try anything else.
        frame_ancestors: origins whose pages may frame ours; none by default.
    """

    def __init__(self, *, https: bool, frame_ancestors: Iterable[str] = ()) -> None:
        ancestors = " ".join(sorted(frame_ancestors)) or "'none'"
        both: Headers = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
        if https:
            both += ((b"strict-transport-security", f"max-age={_HSTS_SECONDS}".encode()),)
        self._data: Headers = (
            *both,
            (b"referrer-policy", b"no-referrer"),
            (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        )
        self._page: Headers = (
            *both,
            # With no-referrer a browser would hide the origin of a form that a page sends to us.
            (b"referrer-policy", b"same-origin"),
            (
                b"content-security-policy",
                "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
                "connect-src 'self'; form-action 'self'; "
                f"base-uri 'none'; frame-ancestors {ancestors}".encode(),
            ),
        )

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Those to add to an answer, by the media type among its own; what it says itself stays."""
        own = {name.lower(): value for name, value in headers}
        found = self._page if own.get(b"content-type", b"").startswith(b"text/html") else self._data
        return tuple([header for header in found if header[0] not in own])
