"""PostgreSQL: three roles, what each is refused, and the whole audited path as the application."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from audit_helpers import decision, rows, trail
from fhir_standin import serving
from server_helpers import ASSESSMENT, example
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from cds_server.app import create_app
from cds_server.db import models_decisions
from cds_server.db.engine import create_engine
from cds_server.db.partitions import make_ahead
from cds_server.db.roles import APPLICATION, RoleNameInvalid, Roles, identifier, statements
from cds_server.decisions.destruction import Destruction
from cds_server.settings import Settings

_numbers = itertools.count(1)
AWKWARD = ('cds "owner"; DROP TABLE events; --', "it's 100%s :app $cds$", 'Söphie\\"')


@dataclass
class Database:
    """A database with its three roles."""

    url: str
    roles: Roles

    @property
    def name(self) -> str:
        return urlsplit(self.url).path[1:]

    def as_(self, role: str) -> str:
        """The URL for logging in as a role."""
        parts = urlsplit(self.url)
        location = parts.netloc.rpartition("@")[2]
        quoted = "".join(f"%{byte:02X}" for byte in role.encode())
        return urlunsplit((parts.scheme, f"{quoted}@{location}", parts.path, parts.query, ""))


def make(postgres: Any, names: tuple[str, str, str]) -> Database:
    url = postgres.new_database()
    found = Database(url, Roles(*names))
    for name in names:
        postgres.sql(f"CREATE ROLE {identifier(name)} LOGIN")
    return found


@pytest.fixture
def site(postgres: Any) -> Iterator[Database]:
    """Roles of plain names, their rights applied through psql, as printed."""
    number = next(_numbers)
    database = make(postgres, (f"owner{number}", f"application{number}", f"auditor{number}"))
    for _ in range(2):  # safe to repeat
        for statement in statements(database.roles):
            postgres.sql(statement, database.name)
    yield database


async def refused(url: str, command: str) -> str:
    engine = create_engine(url)
    try:
        with pytest.raises(DBAPIError) as caught:
            async with engine.begin() as connection:
                await connection.execute(text(command))
    finally:
        await engine.dispose()
    return str(caught.value.orig)


def test_every_table_has_its_line() -> None:
    assert set(APPLICATION) == {*models_decisions.Base.metadata.tables, "alembic_version"}


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a", "b"),
        ("", "b", "c"),
        ("a\nb", "b", "c"),
        ("x" * 64, "b", "c"),
        ("public", "b", "c"),
        ("a", "pg_monitor", "c"),
    ],
)
def test_names_that_cannot_be_are_refused(names: tuple[str, str, str]) -> None:
    with pytest.raises(RoleNameInvalid):
        Roles(*names)


@pytest.mark.parametrize(
    "command",
    [
        "UPDATE events SET status = 1",
        "DELETE FROM events",
        "TRUNCATE events",
        "DELETE FROM shown_cards",
        "UPDATE feedback SET outcome = 'x'",
        "DELETE FROM audit_checkpoints",
        "UPDATE destructions SET reason = 'x'",
        "DELETE FROM legal_holds",
        "DELETE FROM noisy_answers",
        "UPDATE patient_keys SET subject = 'x'",
        "UPDATE stored_decisions SET subject = 'x'",
        "DELETE FROM events_unfiled",
        "INSERT INTO events_unfiled SELECT * FROM events",
        "UPDATE alembic_version SET version_num = 'x'",
        "CREATE TABLE mine (x int)",
        "CREATE TEMP TABLE destructions (subject text, up_to timestamptz)",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_unfiled_append_only ON events_unfiled",
        "DROP TABLE events",
        "SET ROLE postgres",
        "SELECT setval('events_seq_seq', 1)",
    ],
)
async def test_the_application_is_refused(site: Database, command: str) -> None:
    said = await refused(site.as_(site.roles.application), command)
    assert "permission denied" in said or "must be owner" in said, said


@pytest.mark.parametrize(
    "command",
    [
        "INSERT INTO events (event_id, filed, recorded, action, service, status, payload) "
        "VALUES ('x', now(), now(), 'a', 's', 200, '{}')",
        "UPDATE events SET status = 1",
        "DELETE FROM events",
        "SELECT * FROM patient_keys",
        "SELECT * FROM stored_decisions",
        "SELECT * FROM smart_sessions",
        "SELECT * FROM used_tokens",
        "SELECT * FROM legal_holds",
        "SELECT cds_add_event_month('2040-01-01')",
        "SELECT nextval('events_seq_seq')",
        "CREATE TEMP TABLE mine (x int)",
    ],
)
async def test_the_auditor_is_refused(site: Database, command: str) -> None:
    said = await refused(site.as_(site.roles.auditor), command)
    assert "permission denied" in said, said


async def test_what_the_auditor_may_read(site: Database, tmp_path: Path) -> None:
    async with trail(site.as_(site.roles.application), tmp_path / "spool") as audit:
        await audit.record(decision())
    for table, count in (("events", 1), ("shown_cards", 1), ("feedback", 0), ("audit_checkpoints", 0)):
        [(found,)] = await rows(site.as_(site.roles.auditor), f"SELECT count(*) FROM {table}")
        assert found == count


async def test_the_owner_owns_and_its_triggers_still_hold(site: Database, tmp_path: Path) -> None:
    async with trail(site.as_(site.roles.application), tmp_path / "spool") as audit:
        await audit.record(decision())
    assert "append-only" in await refused(site.as_(site.roles.owner), "DELETE FROM events")
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert await rows(site.url, owners) == [(site.roles.owner,)]
    from cds_server.db import migrate  # noqa: PLC0415

    await asyncio.to_thread(migrate.downgrade, site.as_(site.roles.owner), "0005")
    await asyncio.to_thread(migrate.upgrade, site.as_(site.roles.owner))


async def test_the_application_adds_months_without_the_right_to_create(site: Database) -> None:
    engine = create_engine(site.as_(site.roles.application))
    made = await make_ahead(engine, datetime.now(UTC) + timedelta(days=900))
    await engine.dispose()
    assert set(made.values()) == {"added"}
    [(owner,)] = await rows(
        site.url, "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE 'events%'"
    )
    assert owner == site.roles.owner


async def test_a_table_of_the_callers_own_is_not_what_a_guard_asks(site: Database) -> None:
    """Even where temporary tables are allowed, they do not stand before the guards' own tables."""
    await rows_as_owner(site, f'GRANT TEMPORARY ON DATABASE "{site.name}" TO "{site.roles.application}"')
    await rows_as_owner(site, "INSERT INTO patient_keys VALUES ('k', now(), 'somebody', 'wrapped', 1)")
    engine = create_engine(site.as_(site.roles.application))
    with pytest.raises(DBAPIError, match="no destruction is ordered"):
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TEMP TABLE destructions (subject text, up_to timestamptz)"))
            await connection.execute(text("INSERT INTO pg_temp.destructions VALUES (NULL, 'infinity')"))
            await connection.execute(text("DELETE FROM patient_keys"))
    async with engine.begin() as connection:  # nor where a month is made
        await connection.execute(text("CREATE TEMP TABLE events_2041_01 (x int)"))
        added = await connection.execute(text("SELECT cds_add_event_month('2041-01-01')"))
        assert added.scalar_one() == "added"
    await engine.dispose()


async def rows_as_owner(site: Database, command: str) -> None:
    engine = create_engine(site.url)
    async with engine.begin() as connection:
        await connection.execute(text(command))
    await engine.dispose()


async def test_erasing_as_the_application(site: Database, postgres: Any) -> None:
    await rows_as_owner(site, "INSERT INTO patient_keys VALUES ('k', now(), 'somebody', 'wrapped', 1)")
    engine = create_engine(site.as_(site.roles.application))
    gone = await Destruction(engine).erase(["somebody"], datetime.now(UTC))
    assert gone.keys == 1
    assert await Destruction(engine).scrub() is None  # MAINTAIN: PostgreSQL 17 and later
    await rows_as_owner(
        site, f'REVOKE MAINTAIN ON patient_keys, stored_decisions FROM "{site.roles.application}"'
    )
    assert "owner" in str(await Destruction(engine).scrub())
    await engine.dispose()


async def test_the_server_answers_and_audits_as_the_application(
    site: Database, tmp_path: Path, knowledge: Any
) -> None:
    url = site.as_(site.roles.application)
    settings = Settings(var_dir=tmp_path, database_url=url)
    app = create_app(settings, knowledge=knowledge)

    def use() -> None:
        with serving(app) as base, httpx.Client(base_url=base, timeout=30) as client:
            answer = client.post(ASSESSMENT, json=example("sepsis"))
            assert answer.status_code == 200, answer.text
            card = answer.json()["cards"][0]["uuid"]
            given = {
                "feedback": [
                    {
                        "card": card,
                        "outcome": "accepted",
                        "acceptedSuggestions": [],
                        "outcomeTimestamp": "2026-11-01T10:00:00Z",
                    }
                ]
            }
            assert client.post(f"{ASSESSMENT}/feedback", json=given).status_code == 200
            assert client.get("/fhir/AuditEvent").status_code == 200
            ready = client.get("/health/ready")
            assert ready.status_code == 200, ready.text

    await asyncio.to_thread(use)
    found = {row[0] for row in await rows(site.url, "SELECT action FROM events")}
    assert {"audit-started", "hook-call", "feedback", "audit-searched"} <= found, found
    for table in ("shown_cards", "stored_decisions", "patient_keys", "feedback", "audit_checkpoints"):
        [(count,)] = await rows(site.url, f"SELECT count(*) FROM {table}")
        assert count, table
    assert not list((tmp_path / "spool").glob("*.spool"))  # nothing had to wait


def cli(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from cds_server.cli import main; main()", "db", "roles", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)


def arguments(roles: Roles) -> list[str]:
    return ["--owner", roles.owner, "--application", roles.application, "--auditor", roles.auditor]


async def test_names_that_need_quoting_through_psql_and_by_the_command(postgres: Any, tmp_path: Path) -> None:
    """Quotes, spaces, semicolons, psql's colons, dollar quotes: names stay names."""
    database = make(postgres, AWKWARD)
    printed = await asyncio.to_thread(cli, *arguments(database.roles), CDS_VAR_DIR=str(tmp_path))
    assert printed.returncode == 0, printed.stderr
    script = tmp_path / "roles.sql"
    script.write_text(printed.stdout, encoding="utf-8")
    postgres.script(script, database.name)
    env = {"CDS_DATABASE_URL": database.url, "CDS_VAR_DIR": str(tmp_path)}
    applied = await asyncio.to_thread(cli, *arguments(database.roles), "--apply", **env)
    assert applied.returncode == 0, applied.stderr
    async with trail(database.as_(database.roles.application), tmp_path / "spool") as audit:
        assert audit.state().database_up
        await audit.record(decision())
    [(count,)] = await rows(database.as_(database.roles.auditor), "SELECT count(*) FROM events")
    assert count == 1
    said = await refused(database.as_(database.roles.application), "DELETE FROM events")
    assert "permission denied" in said


async def test_the_command_says_what_is_wrong_and_changes_nothing(postgres: Any, tmp_path: Path) -> None:
    url = postgres.new_database()
    env = {"CDS_DATABASE_URL": url, "CDS_VAR_DIR": str(tmp_path)}
    none = await asyncio.to_thread(cli, *arguments(Roles("no_o", "no_a", "no_u")), "--apply", **env)
    assert none.returncode == 2
    assert "no_o" in none.stderr
    assert "Traceback" not in none.stderr
    sqlite = {"CDS_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/x.db", "CDS_VAR_DIR": str(tmp_path)}
    assert (
        await asyncio.to_thread(cli, *arguments(Roles("a", "b", "c")), "--apply", **sqlite)
    ).returncode == 2
