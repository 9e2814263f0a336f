"""Which FHIR server a token may be sent to: parsing and comparing base URLs, and nothing else.

Every decision is made on a parsed URL: scheme, host, port and path, compared segment by segment.
A URL that different parsers could read differently (user info, backslashes, encoded dots or slashes,
control characters, odd hosts) is refused instead of interpreted.  Does no I/O and resolves no names.
"""

import re
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import msgspec

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\Z")
# Nowhere in a URL.  "|" is not among them: search parameters in next links often carry it bare.
_NEVER = frozenset('\\ #"<>^`{}')
# RFC 3986 unreserved, sub-delims and the colon; "%" and "@" are left out on purpose.
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:-]*)*\Z")
_SCHEME_PORTS = {"https": 443, "http": 80}
_LONGEST = 2048


class ServerNotAllowed(ValueError):
    """A URL is not one a FHIR server may have here.  Says why, and never quotes the URL."""


class ServerBase(msgspec.Struct, frozen=True):
    """A FHIR server's base: `host` in lower case, `path` without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "ServerBase":
        """Read a base URL; raises `ServerNotAllowed` for one with a query, a fragment or anything odd."""
        base, query = _parse(url)
        if query:
            raise ServerNotAllowed("a FHIR base URL has no query")
        return base

    @property
    def url(self) -> str:
        """The base as text, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _SCHEME_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def holds(self, url: str) -> bool:
        """Whether an absolute URL is of this server: same origin, and at or under the base path."""
        try:
            other, _ = _parse(url)
        except ServerNotAllowed:
            return False
        same_origin = (other.scheme, other.host, other.port) == (self.scheme, self.host, self.port)
        return same_origin and (other.path == self.path or other.path.startswith(self.path + "/"))


class AllowList(msgspec.Struct, frozen=True):
    """The FHIR servers that may be asked; `anything` means every well-formed http(s) base."""

    bases: tuple[ServerBase, ...] = ()
    anything: bool = False

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """Read a comma-separated list of URL prefixes, or ``*``; raises `ServerNotAllowed`."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return cls(tuple(ServerBase.parse(part) for part in parts if part != "*"), "*" in parts)

    def admit(self, url: str) -> ServerBase:
        """The parsed base when it is allowed; raises `ServerNotAllowed` otherwise."""
        base = ServerBase.parse(url)
        if self.anything or any(allowed.holds(base.url) for allowed in self.bases):
            return base
        raise ServerNotAllowed("this FHIR server is not on the site's allow list")


def _parse(url: str) -> tuple[ServerBase, str]:
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or any(c in _NEVER for c in url):
        raise ServerNotAllowed("not a plain absolute URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ServerNotAllowed("not a plain absolute URL") from None
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in _SCHEME_PORTS or not host:
        raise ServerNotAllowed("expected an http or https URL with a host")
    if "@" in parts.netloc or port == 0 or parts.netloc.endswith(":"):
        raise ServerNotAllowed("a FHIR server's URL holds no user information and a plain port")
    host = host.lower()
    if ":" in host:
        try:
            host = str(IPv6Address(host))
        except ValueError:
            raise ServerNotAllowed("the host is not a name or an address") from None
    elif not _HOST.match(host) or _looks_like_odd_address(host):
        raise ServerNotAllowed("the host is not a name or an address")
    path = parts.path.rstrip("/")
    if not _PATH.match(path) or "//" in path or any(segment in (".", "..") for segment in path.split("/")):
        raise ServerNotAllowed("the path holds encoded or relative parts")
    return ServerBase(scheme, host, port or _SCHEME_PORTS[scheme], path), parts.query


def _looks_like_odd_address(host: str) -> bool:
    """``2130706433``, ``0x7f.1``, ``127.1``: numbers that some resolvers read as an address."""
    labels = host.split(".")
    last = labels[-1]
    if not (last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last)):
        return False
    return len(labels) != 4 or not all(
        label.isdigit() and str(int(label)) == label and int(label) < 256 for label in labels
    )
