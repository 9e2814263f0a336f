"""One schema history for both databases, and tables that only ever grow."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from audit_helpers import NOON, decision, rows, sealed, trail
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import AuthorityName, CardFeedback
from cds_server.db import HEAD, migrate, models_decisions
from cds_server.db.engine import create_engine
from cds_server.db.models import APPEND_ONLY
from cds_server.db.urls import DatabaseUrlInvalid, asyncpg_dsn, is_sqlite, sqlite_path


async def tables(engine: AsyncEngine) -> set[str]:
    """All tables; the partitions of a table are not tables of their own."""
    parts = await names_of_partitions(engine)
    async with engine.connect() as connection:
        return set(await connection.run_sync(lambda c: inspect(c).get_table_names())) - parts


async def names_of_partitions(engine: AsyncEngine) -> set[str]:
    if engine.dialect.name == "sqlite":
        return set()
    async with engine.connect() as connection:
        return set(
            (await connection.execute(text("SELECT relname FROM pg_class WHERE relispartition"))).scalars()
        )


async def test_up_down_and_up_again(empty_database_url: str) -> None:
    engine = create_engine(empty_database_url)
    assert await asyncio.to_thread(migrate.current, empty_database_url) is None
    if is_sqlite(empty_database_url):
        assert not sqlite_path(empty_database_url).exists()  # asking made no file
    with pytest.raises(migrate.SchemaOutdated):
        await migrate.check(engine)
    await asyncio.to_thread(migrate.upgrade, empty_database_url)
    await migrate.check(engine)
    assert await tables(engine) == {*models_decisions.Base.metadata.tables, "alembic_version"}
    await asyncio.to_thread(migrate.downgrade, empty_database_url, "base")
    assert await asyncio.to_thread(migrate.current, empty_database_url) is None
    assert await tables(engine) == {"alembic_version"}
    await asyncio.to_thread(migrate.upgrade, empty_database_url)
    await asyncio.to_thread(migrate.upgrade, empty_database_url)  # nothing to do is no error
    assert await asyncio.to_thread(migrate.current, empty_database_url) == HEAD
    await engine.dispose()


async def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, empty_database_url) for _ in range(4)))
    engine = create_engine(empty_database_url)
    await migrate.check(engine)
    await engine.dispose()


async def test_the_models_say_what_the_migrations_made(database_url: str) -> None:
    engine = create_engine(database_url)
    parts = await names_of_partitions(engine)
    options = {"compare_type": True, "include_name": lambda name, kind, _: name not in parts}
    async with engine.connect() as connection:
        difference = await connection.run_sync(
            lambda c: compare_metadata(
                MigrationContext.configure(c, opts=options), models_decisions.Base.metadata
            )
        )
    await engine.dispose()
    assert difference == []


def test_the_code_writes_to_the_head_of_the_history() -> None:
    assert ScriptDirectory.from_config(migrate.alembic_config()).get_heads() == [HEAD]


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_rows_cannot_be_changed_or_deleted(database_url: str, tmp_path: Path, table: str) -> None:
    feedback = CardFeedback(
        feedback_id="f", recorded=NOON, service="s", card="c", outcome="accepted", accepted_suggestions=("x",)
    )
    async with trail(database_url, tmp_path / "spool") as audit:
        name = AuthorityName(authority="p1-a", first_seen=NOON, sealed="c1.x")
        await audit.record_all([decision("a"), feedback, name])
        await sealed(database_url, tmp_path, audit)
    before = await rows(database_url, f"SELECT * FROM {table}")
    assert len(before) == (2 if table == "events" else 1)  # feedback is an event too
    columns = {
        "audit_checkpoints": "body",
        "feedback": "feedback_id",
        "feedback_suggestions": "feedback_id",
        "assigning_authorities": "authority",
    }
    column = columns.get(table, "event_id")
    commands = [f"UPDATE {table} SET {column} = 'z'", f"DELETE FROM {table}"]
    if not is_sqlite(database_url):
        commands.append(f"TRUNCATE {table}")
    engine = create_engine(database_url)
    for command in commands:
        with pytest.raises(DBAPIError, match="append-only"):
            async with engine.begin() as connection:
                await connection.execute(text(command))
    if is_sqlite(database_url):  # REPLACE deletes without firing delete triggers
        async with engine.begin() as connection:
            await connection.execute(text(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"))
            await connection.execute(text(f"REPLACE INTO {table} SELECT * FROM {table}"))
    await engine.dispose()
    assert await rows(database_url, f"SELECT * FROM {table}") == before


async def test_replace_with_other_content_changes_no_event_on_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    async with trail(sqlite_url, tmp_path / "spool") as audit:
        await audit.record(decision("a"))
    before = await rows(sqlite_url, "SELECT * FROM events")
    columns = "recorded, action, service, status, payload"
    values = "'2026-01-01 00:00:00', 'forged', 's', 200, '{}'"
    engine = create_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.execute(text(f"REPLACE INTO events (event_id, {columns}) VALUES ('a', {values})"))
        await connection.execute(
            text(f"REPLACE INTO events (seq, event_id, {columns}) VALUES (1, 'b', {values})")
        )
    await engine.dispose()
    assert await rows(sqlite_url, "SELECT * FROM events") == before


async def test_engines_are_durable_and_bounded(database_url: str) -> None:
    engine = create_engine(database_url, timeout=1.0)
    async with engine.connect() as connection:
        if is_sqlite(database_url):
            assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 2  # FULL
            assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
            assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar() == 1000
        else:
            assert (await connection.execute(text("SHOW synchronous_commit"))).scalar() == "on"
            with pytest.raises(DBAPIError, match="statement timeout"):
                await connection.execute(text("SELECT pg_sleep(5)"))
    await engine.dispose()


def test_a_worker_that_records_and_checks_loads_no_alembic() -> None:
    program = (
        "import sys, cds_server.audit, cds_server.feedback, cds_server.db.migrate;"
        "import cds_server.db.writer_postgresql, cds_server.db.writer_sqlite;"
        "sys.exit(any(name.partition('.')[0] == 'alembic' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "cds.db", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", ""]
)
def test_an_address_that_can_keep_nothing_is_refused(url: str) -> None:
    with pytest.raises(DatabaseUrlInvalid):
        if is_sqlite(url):
            sqlite_path(url)


def test_a_refused_address_is_not_quoted() -> None:
    with pytest.raises(DatabaseUrlInvalid) as refusal:
        is_sqlite("mysql://user:secret@host/db")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql+asyncpg://u:p%40@h:5432/d?ssl=require", "postgresql://u:p%40@h:5432/d?sslmode=require"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql+asyncpg:///d?host=/run/pg", "postgresql:///d?host=%2Frun%2Fpg"),
    ],
)
def test_one_address_serves_both_drivers(url: str, dsn: str) -> None:
    assert asyncpg_dsn(url) == dsn


def test_sqlite_addresses_name_files() -> None:
    assert sqlite_path("sqlite+aiosqlite:///var/cds.db") == Path("var/cds.db")
    assert sqlite_path("sqlite+aiosqlite:////srv/a%20b/cds.db?x=1") == Path("/srv/a b/cds.db")


def test_a_sqlite_database_is_for_its_owner_only(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        migrate.upgrade(f"sqlite+aiosqlite:///{tmp_path / 'cds.db'}")
    finally:
        os.umask(former)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("cds.db*")} == dict.fromkeys(
        (path.name for path in tmp_path.glob("cds.db*")), 0o600
    )
