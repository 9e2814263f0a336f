"""SQLAlchemy engines for reading and for the slower writes; the audit writer has its own connections.

Pools are bounded and every statement has a time limit, so a slow database costs a query and never the
process.
"""

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from cds_server.db.tls import taken_out
from cds_server.db.urls import is_sqlite, sqlalchemy_url


def create_engine(database_url: str, *, pool_size: int = 4, timeout: float = 5.0) -> AsyncEngine:
    """An engine for `database_url`.

    Args:
        pool_size: connections per process, at most.
        timeout: seconds for a connection, a lock or a statement.

    Raises:
        DatabaseUrlInvalid: neither SQLite nor PostgreSQL.
        ValueError, OSError: see `tls.taken_out`.
    """
    if is_sqlite(database_url):
        url = sqlalchemy_url(database_url)
        engine = create_async_engine(
            url, pool_size=pool_size, max_overflow=0, pool_timeout=timeout, connect_args={"timeout": timeout}
        )
        event.listen(engine.sync_engine, "connect", _durable_sqlite)
        return engine
    url, tls = taken_out(sqlalchemy_url(database_url))
    milliseconds = str(max(1, int(timeout * 1000)))
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout,
        pool_pre_ping=True,
        connect_args={
            "timeout": timeout,
            "ssl": tls,
            "server_settings": {
                "application_name": "cds-server",
                "synchronous_commit": "on",
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
            },
        },
    )


def create_plain_engine(database_url: str) -> AsyncEngine:
    """An engine that opens a connection for each use, without limits of time: for migrations."""
    url, tls = taken_out(sqlalchemy_url(database_url))
    arguments = {} if is_sqlite(database_url) else {"ssl": tls}
    return create_async_engine(url, poolclass=NullPool, connect_args=arguments)


def _durable_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
