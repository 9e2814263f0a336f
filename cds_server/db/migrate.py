"""Migrations from code: one Alembic history for SQLite and PostgreSQL, no alembic.ini, no working directory.

`upgrade` and `downgrade` are for the command line and tests and block; `current` and `check` are for
people and readiness and import no Alembic.  The history itself is the package `migrations`.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.db import HEAD
from cds_server.db.engine import create_plain_engine
from cds_server.db.urls import is_sqlite, sqlite_path

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK_ID = 0x6364735F6D696772  # "cds_migr": PostgreSQL advisory lock of a migration


class SchemaOutdated(Exception):
    """The database is not at the revision this code writes to."""


def upgrade(database_url: str, revision: str = "head") -> None:
    """Brings the database to `revision`; several processes may try at once.  Not from a running event loop.

    Raises:
        DatabaseUrlInvalid: neither SQLite nor PostgreSQL.
        sqlalchemy.exc.SQLAlchemyError, OSError: the database cannot be reached or refuses.
    """
    from alembic import command  # noqa: PLC0415 a worker that only checks must not load Alembic

    _migrate(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Takes the database back to `revision` (``base`` drops every table and what is in it)."""
    from alembic import command  # noqa: PLC0415 a worker that only checks must not load Alembic

    _migrate(database_url, lambda config: command.downgrade(config, revision))


def current(database_url: str) -> str | None:
    """The revision of the database, `None` for an empty one.  Blocks; not from a running event loop."""

    async def read() -> str | None:
        engine = create_plain_engine(database_url)
        try:
            return await revision_of(engine)
        finally:
            await engine.dispose()

    if is_sqlite(database_url) and not sqlite_path(database_url).exists():
        return None  # asking must not create the file
    return asyncio.run(read())


async def revision_of(engine: AsyncEngine) -> str | None:
    """The revision of an engine's database, `None` for an empty one."""
    async with engine.connect() as connection:
        if not await connection.run_sync(lambda c: inspect(c).has_table("alembic_version")):
            return None
        row = (await connection.execute(text("SELECT version_num FROM alembic_version"))).first()
        return None if row is None else str(row[0])


async def check(engine: AsyncEngine) -> None:
    """Raises `SchemaOutdated` unless the database is at `cds_server.db.HEAD`."""
    found = await revision_of(engine)
    if found != HEAD:
        raise SchemaOutdated(
            f"database schema is at {found or 'nothing'}, this version needs {HEAD}: cds-server db upgrade"
        )


def alembic_config() -> "Config":
    """Alembic's configuration, pointing at the installed history."""
    from alembic.config import Config  # noqa: PLC0415 see above

    # By name at run time: `migrations` lies above this package and must not be imported from here.
    spec = find_spec("migrations")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package 'migrations' is not installed")
    config = Config()
    config.set_main_option("script_location", str(Path(spec.origin).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrate(database_url: str, step: Callable[["Config"], None]) -> None:
    config = alembic_config()

    def on(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
        config.attributes["connection"] = connection
        step(config)

    async def run() -> None:
        engine = create_plain_engine(database_url)
        if is_sqlite(database_url):
            _transactional_ddl(engine)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(on)
        finally:
            await engine.dispose()

    with _alone(database_url):
        asyncio.run(run())


def _transactional_ddl(engine: AsyncEngine) -> None:
    """Lets SQLAlchemy, not the driver, begin SQLite transactions: DDL is rolled back with the rest."""

    @event.listens_for(engine.sync_engine, "connect")
    def _no_driver_transactions(connection: object, _entry: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextlib.contextmanager
def _alone(database_url: str) -> Iterator[None]:
    """One migration at a time on a SQLite file; creates its directory.  PostgreSQL has its advisory lock."""
    if not is_sqlite(database_url):
        yield
        return
    path = sqlite_path(database_url)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(path.name + ".migrate"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # For the owner only from its first moment on; SQLite gives the files beside it the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        yield
    finally:
        os.close(descriptor)
