"""Backup and restore with the databases' own tools, as docs/postgresql.md says, and what holds afterwards."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from audit_helpers import rows
from decisions_helpers import call, command
from server_helpers import Running, example

from cds_server.db.urls import is_sqlite, sqlite_path
from cds_server.settings import Settings


def saved(url: str, postgres: Any, directory: Path) -> Path:
    """A backup of the running database."""
    if is_sqlite(url):
        path = directory / "backup.db"
        source, copy = sqlite3.connect(sqlite_path(url)), sqlite3.connect(path)
        source.backup(copy)
        source.close()
        copy.close()
        return path
    path = directory / "cds.dump"
    postgres.tool("pg_dump", "-Fc", "--file", str(path), "--dbname", postgres.uri(url))
    return path


def restored(backup: Path, url: str, postgres: Any, directory: Path) -> str:
    """The address of a new database with what is in the backup."""
    if is_sqlite(url):
        path = directory / "cds.db"
        shutil.copy(backup, path)
        return f"sqlite+aiosqlite:///{path}"
    new: str = postgres.new_database(migrated=False)
    postgres.tool("pg_restore", "--exit-on-error", "-1", "--dbname", postgres.uri(new), str(backup))
    return new


def replayed(settings: Settings) -> list[tuple[str, str | None]]:
    done = command(settings, "replay", "--last", "10", "--json")
    found = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    return [(one["result"], one.get("reason")) for one in reversed(found)]


async def test_a_restored_backup_verifies_replays_and_forgets_who_was_erased(
    start_server: Callable[..., Running], database_url: str, postgres: Any, tmp_path: Path
) -> None:
    server = start_server(database_url=database_url, model_bundle="none")
    settings = server.house.settings
    call(server, "sepsis")
    call(server, "dka")
    sealed = await asyncio.to_thread(command, settings, "audit", "verify")
    assert sealed.returncode == 0, sealed.stdout + sealed.stderr

    kept = tmp_path / "kept"
    kept.mkdir()
    backup = await asyncio.to_thread(saved, database_url, postgres, kept)
    shutil.copytree(settings.var_dir / "audit", kept / "audit")
    # Afterwards: an erasure, and a decision that the backup does not have.
    patient = example("sepsis")["context"]["patientId"]
    erased = await asyncio.to_thread(command, settings, "privacy", "erase", "--patient", patient, "--yes")
    assert erased.returncode == 0, erased.stderr
    call(server, "influenza")

    place = tmp_path / "restored"
    place.mkdir()
    url = await asyncio.to_thread(restored, backup, database_url, postgres, place)
    shutil.copytree(kept / "audit", place / "audit")
    for name in ("keys", "privacy"):  # of these the newest there are: keys, and the note of erasures
        shutil.copytree(settings.var_dir / name, place / name)
    after = Settings(var_dir=place, database_url=url, model_bundle="none")

    assert (await asyncio.to_thread(command, after, "audit", "verify")).returncode == 0
    assert await asyncio.to_thread(replayed, after) == [("identical", None), ("identical", None)]
    again = await asyncio.to_thread(command, after, "privacy", "reapply")
    assert "destroyed again: 1 data keys, 1 decisions" in again.stdout, again.stdout + again.stderr
    assert await asyncio.to_thread(replayed, after) == [("unavailable", "erased"), ("identical", None)]
    held = await asyncio.to_thread(command, after, "audit", "verify")
    assert held.returncode == 0, held.stdout + held.stderr
    [(version,)] = await rows(url, "SELECT version_num FROM alembic_version")
    assert version == (await rows(database_url, "SELECT version_num FROM alembic_version"))[0][0]

    # A trail that lost its tail shows it: the newer checkpoints of the machine say what was there.
    newer = settings.var_dir / "audit" / "checkpoints.jsonl"
    assert (await asyncio.to_thread(command, settings, "audit", "verify")).returncode == 0  # makes one more
    lost = await asyncio.to_thread(command, after, "audit", "verify", "--checkpoints", str(newer))
    assert lost.returncode == 1
