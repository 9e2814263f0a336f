"""The database goes away, in mid-load and the hard way: answers go on, then every event is there once."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from audit_helpers import decision, stored_ids, trail, until

from cds_server.audit import AuditTrail, AuditUnavailable
from cds_server.db.urls import sqlite_path


class Load:
    """Concurrent callers that record numbered events; `acknowledged` in the order of acknowledgement."""

    def __init__(self, audit: AuditTrail, callers: int, pause: float = 0.002) -> None:
        self.audit = audit
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._going = True
        self._pause = pause
        self._next = 0
        self._tasks = [asyncio.create_task(self._caller()) for _ in range(callers)]

    async def _caller(self) -> None:
        while self._going:
            self._next += 1
            event_id = f"{self._next:07d}"
            try:
                await self.audit.record(decision(event_id))
            except AuditUnavailable:
                self.refused.append(event_id)
            else:
                self.acknowledged.append(event_id)
            await asyncio.sleep(self._pause)

    async def stop(self) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)


async def test_postgresql_killed_in_mid_load_loses_no_event_and_doubles_none(
    postgres, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    url = postgres.new_database()
    async with trail(url, tmp_path / "spool") as audit:
        load = Load(audit, callers=32)
        await until(lambda: len(load.acknowledged) > 500)
        await asyncio.to_thread(postgres.kill)
        before = len(load.acknowledged)
        await until(lambda: not audit.state().database_up)
        await until(lambda: len(load.acknowledged) > before + 1000)
        assert audit.state().spool_depth > 900
        await asyncio.to_thread(postgres.start)
        await until(lambda: audit.state().database_up)
        back = len(load.acknowledged)
        await until(lambda: len(load.acknowledged) > back + 500)
        await load.stop()
        state = audit.state()
    assert load.refused == []
    assert state.spool_depth == 0
    assert list((tmp_path / "spool").iterdir()) == []
    stored = await stored_ids(url)
    assert len(stored) == len(set(stored))
    assert sorted(stored) == sorted(load.acknowledged)  # every one, once, and nothing else
    assert stored == sorted(stored)  # numbered in the order of recording: the outage did not change it
    # A batch whose COMMIT was done but not answered when the kill came is found stored at its replay.
    assert 0 <= len(stored) - state.committed <= 32


async def test_several_outages_in_a_row_under_load(postgres, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    url = postgres.new_database()
    async with trail(url, tmp_path / "spool") as audit:
        load = Load(audit, callers=8, pause=0.01)
        for _ in range(2):
            await until(lambda: audit.state().database_up)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(postgres.start)
        await until(lambda: audit.state().database_up)
        await load.stop()
    assert load.refused == []
    assert await stored_ids(url) == sorted(load.acknowledged)


async def test_a_start_without_the_database_spools_and_catches_up(postgres, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    url = postgres.new_database()
    await asyncio.to_thread(postgres.kill)
    async with trail(url, tmp_path / "spool") as audit:
        assert not audit.state().database_up
        await audit.record(decision("a"))
        await audit.record(decision("b"))
        assert audit.state().spool_depth == 2
        await asyncio.to_thread(postgres.start)
        await until(lambda: audit.state().database_up)
        await audit.record(decision("c"))
    assert await stored_ids(url) == ["a", "b", "c"]


async def test_sqlite_locked_by_another_program_spools_and_catches_up(
    sqlite_url: str, tmp_path: Path
) -> None:
    other = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    async with trail(sqlite_url, tmp_path / "spool", commit_timeout=0.2) as audit:
        await audit.record(decision("a"))
        other.execute("BEGIN EXCLUSIVE")
        await asyncio.gather(*(audit.record(decision(f"b{n}")) for n in range(5)))
        assert audit.state().spool_depth == 5
        assert not audit.state().database_up
        other.execute("ROLLBACK")
        await until(lambda: audit.state().database_up)
        await audit.record(decision("c"))
    other.close()
    assert await stored_ids(sqlite_url) == ["a", "b0", "b1", "b2", "b3", "b4", "c"]


async def test_a_sqlite_file_that_was_moved_away_gets_no_commit_nobody_could_read(
    sqlite_url: str, tmp_path: Path
) -> None:
    path = sqlite_path(sqlite_url)
    async with trail(sqlite_url, tmp_path / "spool") as audit:
        await audit.record(decision("a"))
        moved = path.with_name("moved.db")
        path.rename(moved)
        await audit.record(decision("b"))
        assert audit.state().spool_depth == 1
        assert not path.exists()  # never a new empty database in its place
        moved.rename(path)
        await until(lambda: audit.state().database_up)
    assert await stored_ids(sqlite_url) == ["a", "b"]


async def test_an_unmigrated_database_counts_as_away_and_loses_nothing(
    empty_database_url: str, tmp_path: Path
) -> None:
    from cds_server.db import migrate  # noqa: PLC0415

    async with trail(empty_database_url, tmp_path / "spool") as audit:
        await audit.record(decision("a"))
        assert not audit.state().database_up
        await asyncio.to_thread(migrate.upgrade, empty_database_url)
        await until(lambda: audit.state().database_up)
    assert await stored_ids(empty_database_url) == ["a"]


async def test_no_database_and_no_disk_means_audit_unavailable_until_one_is_back(
    sqlite_url: str, tmp_path: Path
) -> None:
    path, spool = sqlite_path(sqlite_url), tmp_path / "spool"
    async with trail(sqlite_url, spool) as audit:
        assert audit.state().spool_writable
        moved = path.with_name("moved.db")
        path.rename(moved)
        shutil.rmtree(spool)
        spool.write_text("a file where the spool directory should be")  # holds for root too, unlike a mode
        with pytest.raises(AuditUnavailable):
            await audit.record(decision("lost"))
        assert not audit.state().spool_writable
        assert audit.state().unavailable == 1
        spool.unlink()
        await audit.record(decision("spooled"))
        assert audit.state().spool_writable
        moved.rename(path)
        await until(lambda: audit.state().database_up)
        await audit.record(decision("stored"))
    assert await stored_ids(sqlite_url) == ["spooled", "stored"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full to have a full disk")  # noqa: PTH110
async def test_a_full_disk_is_refused_and_the_spool_stays_whole(sqlite_url: str, tmp_path: Path) -> None:
    import resource  # noqa: PLC0415

    path, spool = sqlite_path(sqlite_url), tmp_path / "spool"
    async with trail(sqlite_url, spool) as audit:
        moved = path.with_name("moved.db")
        path.rename(moved)
        await audit.record(decision("first"))
        [segment] = spool.glob("*.spool")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # A write beyond this size comes back short, then fails, like on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, hard))
        try:
            with pytest.raises(AuditUnavailable):
                await audit.record(decision("second"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await audit.record(decision("third"))
        moved.rename(path)
        await until(lambda: audit.state().database_up)
        assert audit.state().damaged == 0
    assert await stored_ids(sqlite_url) == ["first", "third"]
