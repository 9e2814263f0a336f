"""Several processes, and dying ones: what one acknowledged is found once, whoever writes it in the end."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from audit_helpers import decision, stored_ids, trail, until

from cds_server.db.urls import sqlite_path

SCRIPT = Path(__file__).with_name("recording_process.py")


def start(url: str, spool: Path, prefix: str, *, callers: int, count: int = 0) -> subprocess.Popen[bytes]:
    """A recording process, see `recording_process.py`."""
    arguments = [sys.executable, str(SCRIPT), url, str(spool), prefix, str(callers), str(count)]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": root}
    )


def read_lines(process: subprocess.Popen[bytes], count: int) -> list[str]:
    """The first `count` acknowledged ids; blocks until they are there."""
    assert process.stdout is not None
    return [process.stdout.readline().decode().strip() for _ in range(count)]


def kill(process: subprocess.Popen[bytes]) -> list[str]:
    """SIGKILL; every id that was acknowledged before it."""
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    rest = process.stdout.read().decode()
    process.wait()
    # A line without its end was never read by anyone: not acknowledged.
    return [line for line in rest[: rest.rfind("\n") + 1].splitlines() if line]


async def test_a_killed_process_has_stored_every_event_it_acknowledged(
    database_url: str, tmp_path: Path
) -> None:
    process = start(database_url, tmp_path / "spool", "a", callers=16)
    acknowledged = await asyncio.to_thread(read_lines, process, 300)
    acknowledged += await asyncio.to_thread(kill, process)
    async with trail(database_url, tmp_path / "spool"):
        pass
    stored = await stored_ids(database_url)
    assert len(acknowledged) >= 300
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    # Beyond those only what was committed but not answered when the signal came: one batch.
    assert len(stored) - len(acknowledged) <= 2 * 16


async def test_a_process_killed_in_an_outage_leaves_its_spool_to_the_next(
    sqlite_url: str, tmp_path: Path
) -> None:
    path, spool = sqlite_path(sqlite_url), tmp_path / "spool"
    moved = path.with_name("moved.db")
    path.rename(moved)
    process = start(sqlite_url, spool, "a", callers=8)
    acknowledged = await asyncio.to_thread(read_lines, process, 200)
    acknowledged += await asyncio.to_thread(kill, process)
    assert list(spool.glob("*.spool"))
    moved.rename(path)
    async with trail(sqlite_url, spool) as audit:
        await audit.record(decision("new"))
        await until(lambda: audit.state().spool_depth == 0)
    stored = await stored_ids(sqlite_url)
    theirs = [event for event in stored if event != "new"]
    assert set(acknowledged) <= set(theirs)
    assert len(stored) == len(set(stored))
    assert theirs == sorted(theirs)
    assert not list(spool.glob("*.spool"))


async def test_the_spool_of_a_living_process_is_left_to_it(sqlite_url: str, tmp_path: Path) -> None:
    path, spool = sqlite_path(sqlite_url), tmp_path / "spool"
    moved = path.with_name("moved.db")
    path.rename(moved)
    process = start(sqlite_url, spool, "a", callers=2)
    try:
        acknowledged = await asyncio.to_thread(read_lines, process, 20)
        async with trail(sqlite_url, spool) as audit:
            assert audit.state().spool_depth == 0  # adopted nothing
            moved.rename(path)
            await until(lambda: audit.state().database_up)
            await asyncio.sleep(2.5)  # the other one retries at most every 2 s
            assert audit.state().committed == 0
    finally:
        acknowledged += await asyncio.to_thread(kill, process)
    async with trail(sqlite_url, spool) as audit:
        await until(lambda: audit.state().spool_depth == 0)
    stored = await stored_ids(sqlite_url)
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))


@pytest.mark.parametrize("processes", [3])
async def test_processes_share_one_database(database_url: str, tmp_path: Path, processes: int) -> None:
    spool = tmp_path / "spool"
    running = [start(database_url, spool, f"p{n}", callers=8, count=200) for n in range(processes)]
    outputs = await asyncio.gather(*(asyncio.to_thread(p.communicate, timeout=60) for p in running))
    assert [p.returncode for p in running] == [0] * processes
    acknowledged = [line for out, _ in outputs for line in out.decode().split()]
    stored = await stored_ids(database_url)
    assert len(acknowledged) == 200 * processes
    assert sorted(stored) == sorted(acknowledged)
    for n in range(processes):
        mine = [event for event in stored if event.startswith(f"p{n}-")]
        assert mine == sorted(mine)
