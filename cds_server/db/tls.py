"""TLS to PostgreSQL: how the address says it, the contexts it means, and which hosts need none.

`Settings` writes the choice into the database's address (`with_tls`), so that whoever is given the address
has the choice with it; `taken_out` is how those who open connections read it.  SQLite and unix sockets have
no TLS.
"""

import ssl
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from cds_server.auth.addresses import is_loopback

Tls = Literal["off", "required", "verify"]

_MODES: dict[Tls, str] = {"off": "disable", "required": "require", "verify": "verify-full"}
_ROOTS = "sslrootcert"
_NAMES = ("ssl", "sslmode", _ROOTS, "sslcert", "sslkey", "sslcrl")


def stays_here(database_url: str) -> bool:
    """Whether every host of a PostgreSQL address is this machine (loopback, or a unix socket)."""
    parts = urlsplit(database_url)
    hosts = [location.rpartition("@")[2] for location in parts.netloc.split(",")]
    bare = [host.rpartition("]")[0].lstrip("[") if "]" in host else host.partition(":")[0] for host in hosts]
    named = [host for name, value in parse_qsl(parts.query) if name == "host" for host in value.split(",")]
    named = [host.rpartition("]")[0].lstrip("[") if "]" in host else host.partition(":")[0] for host in named]
    return all(host.startswith(("/", "@")) or is_loopback(host) for host in [*bare, *named] if host)


def speaks_of_tls(database_url: str) -> bool:
    """Whether an address has parameters of TLS of its own."""
    return any(name in _NAMES for name, _ in parse_qsl(urlsplit(database_url).query, keep_blank_values=True))


def with_tls(database_url: str, tls: Tls, ca_file: Path | None = None) -> str:
    """The address that says so; `ca_file` has the CAs for `verify` (PEM), default: the system's."""
    said = {"ssl": _MODES[tls]}
    if ca_file is not None:
        said[_ROOTS] = str(ca_file)
    return database_url + ("&" if "?" in database_url else "?") + urlencode(said)


def taken_out(database_url: str) -> tuple[str, ssl.SSLContext | str | None]:
    """The address without what it says of TLS, and what the driver is given as ``ssl``.

    `None` when it says nothing: the driver then tries TLS over TCP and is content without.

    Raises:
        ValueError: a mode of TLS this product does not know.
        OSError: the file of CAs cannot be read.
    """
    head, mark, query = database_url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    said = {name: value for name, value in pairs if name in _NAMES}
    if not said:
        return database_url, None
    kept = urlencode([(name, value) for name, value in pairs if name not in _NAMES], safe="/")
    plain = f"{head}{mark}{kept}" if kept else head
    mode = said.get("ssl") or said.get("sslmode")
    unknown = set(said) - {"ssl", "sslmode", _ROOTS}
    if unknown:
        raise ValueError(f"the database's address: {', '.join(sorted(unknown))} is not supported")
    if mode in ("disable", "allow", "prefer"):
        return plain, mode
    if mode == "require" and _ROOTS not in said:
        return plain, _encrypted()
    if mode in ("require", "verify-ca", "verify-full"):
        context = ssl.create_default_context(cafile=said.get(_ROOTS))
        context.check_hostname = mode == "verify-full"
        return plain, context
    raise ValueError("the database's address: not a mode of TLS")


def _encrypted() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
