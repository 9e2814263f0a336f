"""The real server is killed in mid-load: every answer a caller holds has its audit event, exactly once.

Starts `cds-server serve` with two workers as an operator would, sends hook calls over HTTP from several
connections, sends SIGKILL to all its processes, starts it again (which adopts what was left in the
spool) and counts.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from audit_helpers import rows, until

from cds_server.db.urls import is_sqlite, sqlite_path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sepsis.json"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def server(
    database_url: str, var: Path, **settings: str
) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """A running server of two workers; its processes form a group of their own and all end here."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    environment |= {
        "CDS_PORT": str(port),
        "CDS_WORKERS": "2",
        "CDS_VAR_DIR": str(var),
        "CDS_DATABASE_URL": database_url,
        "CDS_LOG_LEVEL": "error",
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    command = [sys.executable, "-c", "from cds_server.cli import main; main()", "serve"]
    with (var.parent / "server.log").open("ab") as log:
        process = await asyncio.to_thread(_start, command, environment, log)
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient() as client:
            deadline = time.monotonic() + 30
            while True:
                assert process.poll() is None, log_of(var)
                assert time.monotonic() < deadline, f"not ready: {log_of(var)}"
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/health/ready")).status_code == 200:
                        break
                await asyncio.sleep(0.1)
        yield url, process
    finally:
        kill(process)


def log_of(var: Path) -> str:
    """The end of what the server wrote."""
    return (var.parent / "server.log").read_text()[-2000:]


def _start(command: list[str], environment: dict[str, str], log: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the server and its workers (its own process group, made by `server`)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def load(url: str, answered: list[str], stop: asyncio.Event) -> None:
    """Calls the hook until the server is gone; notes the hookInstance of each whole answer."""
    request = json.loads(EXAMPLE.read_bytes())
    async with httpx.AsyncClient(timeout=10) as client:
        while not stop.is_set():
            instance = str(uuid.uuid4())
            try:
                answer = await client.post(
                    f"{url}/cds-services/diagnostic-assessment", json=request | {"hookInstance": instance}
                )
            except httpx.TransportError:
                return
            assert answer.status_code == 200, answer.text
            assert answer.json()["cards"]
            answered.append(instance)


async def audited(database_url: str) -> Counter[str]:
    found = await rows(
        database_url, "SELECT hook_instance FROM events WHERE status = 200 AND action = 'hook-call'"
    )
    return Counter(row[0] for row in found)


async def test_a_killed_server_has_audited_every_answer_it_gave(database_url: str, tmp_path: Path) -> None:
    answered: list[str] = []
    async with server(database_url, tmp_path / "var") as (url, process):
        calls = [asyncio.create_task(load(url, answered, asyncio.Event())) for _ in range(12)]
        await until(lambda: len(answered) >= 150)
        kill(process)
        await asyncio.gather(*calls)
    events = await audited(database_url)
    assert set(answered) <= set(events)
    assert set(events.values()) == {1}
    assert len(events) <= len(answered) + len(calls)  # at most the call in flight of each caller


async def test_a_server_killed_while_its_database_is_away_has_its_answers_in_the_spool(
    sqlite_url: str, tmp_path: Path
) -> None:
    assert is_sqlite(sqlite_url)
    path = sqlite_path(sqlite_url)
    moved = path.with_name("moved.db")
    answered: list[str] = []
    var = tmp_path / "var"
    async with server(sqlite_url, var) as (url, process):
        calls = [asyncio.create_task(load(url, answered, asyncio.Event())) for _ in range(4)]
        await until(lambda: len(answered) >= 20)
        path.rename(moved)
        before = len(answered)
        await until(lambda: len(answered) >= before + 60)  # answers go on
        kill(process)
        await asyncio.gather(*calls)
    assert list((var / "spool").glob("*.spool"))
    # Without its database file SQLite starts no new one over it: put back, with its log.
    moved.rename(path)
    async with server(sqlite_url, var) as (url, _):
        await until(lambda: not list((var / "spool").glob("*.spool")))
    events = await audited(sqlite_url)
    assert set(answered) <= set(events)
    assert set(events.values()) == {1}


@pytest.mark.parametrize("count", [40])
async def test_a_server_that_is_asked_to_stop_loses_nothing(
    sqlite_url: str, tmp_path: Path, count: int
) -> None:
    answered: list[str] = []
    stop = asyncio.Event()
    async with server(sqlite_url, tmp_path / "var") as (url, process):
        calls = [asyncio.create_task(load(url, answered, stop)) for _ in range(4)]
        await until(lambda: len(answered) >= count)
        stop.set()
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*calls)
        assert await asyncio.to_thread(process.wait, 20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    events = await audited(sqlite_url)
    assert set(answered) <= set(events)
    assert set(events.values()) == {1}
