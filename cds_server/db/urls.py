"""Database addresses: one setting (`CDS_DATABASE_URL`), three spellings for those who open it.

The setting is a SQLAlchemy URL, ``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://...``.  Nothing
here connects.
"""

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_SQLITE = ("sqlite", "sqlite+aiosqlite")
_POSTGRESQL = ("postgresql", "postgresql+asyncpg")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,29}\Z")


class DatabaseUrlInvalid(ValueError):
    """The URL names neither a SQLite file nor a PostgreSQL server.  Never quotes it (passwords)."""


def is_sqlite(database_url: str) -> bool:
    """Whether the URL is of a SQLite file.

    Raises:
        DatabaseUrlInvalid: neither SQLite nor PostgreSQL.
    """
    scheme, is_address, _ = database_url.partition("://")
    if scheme in _SQLITE and is_address:
        return True
    if scheme in _POSTGRESQL and is_address:
        return False
    # What has no scheme may be a secret in the wrong place.
    found = f"its scheme is {scheme!r}" if is_address and _SCHEME.match(scheme) else "it has no scheme"
    raise DatabaseUrlInvalid(
        f"database URL must start with sqlite+aiosqlite:/// or postgresql+asyncpg:// ({found})"
    )


def check_readable(database_url: str) -> None:
    """Raises `DatabaseUrlInvalid` for an address whose parts cannot be told apart.

    Those who would open it quote what they stumble over, and that may be part of a password with a
    character in it that should have been percent-encoded.
    """
    try:
        parts = urlsplit(database_url)
        _ = parts.port
    except ValueError:
        raise DatabaseUrlInvalid(
            "the database URL cannot be read: percent-encode all but letters and digits of user and password "
            "(or give the password alone, as it is, in CDS_DATABASE_PASSWORD), and write the port as a number"
        ) from None


def with_password(database_url: str, password: str) -> str:
    """A PostgreSQL address with the password of the user it names.

    Raises:
        DatabaseUrlInvalid: it is of SQLite, names no user, or has a password already.
    """
    if is_sqlite(database_url):
        raise DatabaseUrlInvalid("CDS_DATABASE_PASSWORD is for PostgreSQL, and CDS_DATABASE_URL is of SQLite")
    scheme, _, rest = database_url.partition("://")
    user, at, location = rest.partition("@")
    if not at or not user or "/" in user or "?" in user:
        raise DatabaseUrlInvalid(
            "CDS_DATABASE_PASSWORD needs the user in CDS_DATABASE_URL: postgresql+asyncpg://USER@HOST/NAME"
        )
    if ":" in user:
        raise DatabaseUrlInvalid(
            "CDS_DATABASE_URL has a password of its own: leave out CDS_DATABASE_PASSWORD"
        )
    return f"{scheme}://{user}:{quote(password, safe='')}@{location}"


def sqlite_path(database_url: str) -> Path:
    """The file of a SQLite URL.

    Raises:
        DatabaseUrlInvalid: an in-memory database, which could keep nothing.
    """
    rest = database_url.partition("://")[2]
    location = unquote(rest.partition("?")[0])
    if not location.startswith("/") or location in ("/", "/:memory:"):
        raise DatabaseUrlInvalid(
            "a SQLite URL must name a file: sqlite+aiosqlite:///relative or ////absolute"
        )
    return Path(location[1:])


def sqlalchemy_url(database_url: str) -> str:
    """The URL with its asynchronous driver spelled out."""
    rest = database_url.partition("://")[2]
    return f"{_SQLITE[1] if is_sqlite(database_url) else _POSTGRESQL[1]}://{rest}"


def asyncpg_dsn(database_url: str) -> str:
    """The PostgreSQL URL as asyncpg reads it; SQLAlchemy's ``ssl=`` becomes libpq's ``sslmode=``."""
    parts = urlsplit(database_url)
    query = [("sslmode" if name == "ssl" else name, value) for name, value in parse_qsl(parts.query)]
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(query), ""))
    # urlunsplit drops the empty authority of postgresql:///name?host=/run/postgresql
    return dsn if dsn.startswith("postgresql://") else dsn.replace("postgresql:", "postgresql://", 1)
