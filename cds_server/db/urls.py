"""Database addresses: one setting (`CDS_DATABASE_URL`), three spellings for those who open it.

The setting is a SQLAlchemy URL, ``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://...``.  Nothing
here connects.
"""

from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_SQLITE = ("sqlite", "sqlite+aiosqlite")
_POSTGRESQL = ("postgresql", "postgresql+asyncpg")


class DatabaseUrlInvalid(ValueError):
    """The URL names neither a SQLite file nor a PostgreSQL server.  Never quotes it (passwords)."""


def is_sqlite(database_url: str) -> bool:
    """Whether the URL is of a SQLite file.

    Raises:
        DatabaseUrlInvalid: neither SQLite nor PostgreSQL.
    """
    scheme = database_url.partition("://")[0]
    if scheme in _SQLITE:
        return True
    if scheme in _POSTGRESQL:
        return False
    raise DatabaseUrlInvalid(
        "database URL must start with sqlite+aiosqlite:/// or postgresql+asyncpg:// "
        f"(its scheme is {scheme[:30]!r})"
    )


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
