"""A token is good once: in one process, between processes, and as far as possible without the database."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from audit_helpers import rows
from hypothesis import given
from hypothesis import strategies as st

from cds_server.auth import replay
from cds_server.auth.replay import ReplayGuard, token_digest
from cds_server.db.urls import sqlite_path

LATER = int(time.time()) + 86_400  # after the last test of the longest run


@asynccontextmanager
async def guard(
    url: str, now: Callable[[], float] = time.time, counts: list[int] | None = None
) -> AsyncIterator[ReplayGuard]:
    running = ReplayGuard(url, now=now, on_unshared=(counts if counts is not None else []).append)
    try:
        yield running
    finally:
        await running.close()


async def test_the_second_use_is_refused(database_url: str) -> None:
    async with guard(database_url) as one:
        assert await one.first_use("iss", "a", LATER)
        assert not await one.first_use("iss", "a", LATER)
        assert await one.first_use("iss", "b", LATER)
        assert await one.first_use("other", "a", LATER), "jti is unique within its issuer"


async def test_another_machine_knows_it_too(database_url: str) -> None:
    async with guard(database_url) as one, guard(database_url) as two:
        assert await one.first_use("iss", "a", LATER)
        assert not await two.first_use("iss", "a", LATER)
    async with guard(database_url) as restarted:
        assert not await restarted.first_use("iss", "a", LATER)


async def test_of_many_at_the_same_time_one_wins(database_url: str) -> None:
    async with guard(database_url) as one, guard(database_url) as two:
        for _ in range(5):
            name = str(time.perf_counter_ns())
            answers = await asyncio.gather(*(g.first_use("iss", name, LATER) for g in (one, two) * 25))
            assert answers.count(True) == 1
        many = await asyncio.gather(*(one.first_use("iss", f"x{n}", LATER) for n in range(500)))
        assert all(many)
    assert len(await rows(database_url, "SELECT * FROM used_tokens")) == 505


def _use(url: str, names: list[str], results: "multiprocessing.Queue[list[bool]]") -> None:
    async def use() -> list[bool]:
        async with guard(url) as mine:
            return list(await asyncio.gather(*(mine.first_use("iss", name, LATER) for name in names)))

    results.put(asyncio.run(use()))


def test_worker_processes_share_what_was_used(database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    names = [f"jti-{number}" for number in range(100)]
    results = context.Queue()
    workers = [context.Process(target=_use, args=(database_url, names, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    for number in range(len(names)):
        assert [answer[number] for answer in answers].count(True) == 1


async def test_expired_tokens_are_forgotten(database_url: str) -> None:
    moment = [1_000_000.0]
    async with guard(database_url, now=lambda: moment[0]) as one:
        assert await one.first_use("iss", "old", 1_000_300)
        moment[0] += 300 + replay.KEPT_SECONDS + 1
        assert await one.first_use("iss", "new", 1_001_200)
    assert await rows(database_url, "SELECT expires FROM used_tokens") == [(1_001_200,)]


async def test_without_the_database_this_process_still_knows_and_tells_it_later(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "RETRY_SECONDS", 0.05)
    path = sqlite_path(sqlite_url)
    away = path.with_name("unmounted.db")
    counts: list[int] = []
    path.rename(away)
    path.mkdir()  # nothing can be opened or made there
    async with guard(sqlite_url, counts=counts) as one:
        assert await one.first_use("iss", "a", LATER)
        assert not await one.first_use("iss", "a", LATER)
        assert sum(counts) == 1
        path.rmdir()
        away.rename(path)
        await asyncio.sleep(0.1)
        assert await one.first_use("iss", "b", LATER)
        assert sum(counts) == 1
        async with guard(sqlite_url) as two:
            assert not await two.first_use("iss", "a", LATER)
            assert not await two.first_use("iss", "b", LATER)


async def test_a_killed_postgresql_costs_a_moment_and_no_call(
    postgresql_url: str, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "RETRY_SECONDS", 0.05)
    counts: list[int] = []
    async with guard(postgresql_url, counts=counts) as one:
        assert await one.first_use("iss", "before", LATER)
        await asyncio.to_thread(postgres.kill)
        assert await one.first_use("iss", "during", LATER)
        assert not await one.first_use("iss", "during", LATER)
        assert not await one.first_use("iss", "before", LATER)
        assert sum(counts) == 1
        await asyncio.to_thread(postgres.start)
        await asyncio.sleep(0.1)
        assert await one.first_use("iss", "after", LATER)
        async with guard(postgresql_url) as two:
            for name in ("before", "during", "after"):
                assert not await two.first_use("iss", name, LATER)


async def test_a_caller_that_goes_away_has_used_its_token(sqlite_url: str) -> None:
    async with guard(sqlite_url) as one:
        gone = asyncio.ensure_future(one.first_use("iss", "a", LATER))
        await asyncio.sleep(0)
        gone.cancel()
        assert await one.first_use("iss", "b", LATER)
        assert not await one.first_use("iss", "a", LATER)


@given(st.sets(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=20))
def test_different_issuer_and_jti_are_different_tokens(pairs: set[tuple[str, str]]) -> None:
    assert len({token_digest(issuer, jti) for issuer, jti in pairs}) == len(pairs)
