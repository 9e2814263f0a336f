"""How long a session lives, in which processes, and that only one of them renews its token."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from audit_helpers import rows
from smart_ehr import StandinEhr, running
from smart_helpers import MovingClock, Site, signed_in, smart_site
from sqlalchemy import text

from cds_server.db.engine import create_engine
from cds_server.privacy import Cipher, KeyRing
from cds_server.smart.grants import Tokens
from cds_server.smart.identity import Person
from cds_server.smart.stores import Launch, Session, Stores
from cds_server.state import Knowledge

CLOCK = MovingClock()
CIPHER = Cipher(KeyRing({1: b"k" * 32}))


def session(expires: datetime) -> Session:
    base = "https://ehr.example"
    person = Person("u-1", base, f"{base}/Practitioner/1", "Practitioner/1", None)
    tokens = Tokens("token", expires, expires, "patient/*.rs", refresh_token="again", patient="p")
    return Session("ehr", person, tokens, "patient/*.rs", csrf="form")


def stores(url: str, clock: Callable[[], datetime]) -> Stores:
    return Stores(url, CIPHER, now=clock, longest=8, idle=30)


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[tuple[Stores, MovingClock]]:
    clock = MovingClock()
    made = stores(database_url, clock)
    yield made, clock
    await made.close()


async def test_a_session_ends_without_use(store: tuple[Stores, MovingClock]) -> None:
    sessions, clock = store
    identity = await sessions.add_session(session(clock()))
    for _ in range(4):  # used every 20 minutes it lives on
        clock.ahead += timedelta(minutes=20)
        assert await sessions.session(identity) is not None
    clock.ahead += timedelta(minutes=31)
    assert await sessions.session(identity) is None


async def test_a_session_ends_after_its_longest_life_however_used(store: tuple[Stores, MovingClock]) -> None:
    sessions, clock = store
    identity = await sessions.add_session(session(clock()))
    for _ in range(23):
        clock.ahead += timedelta(minutes=20)
        assert await sessions.session(identity) is not None
    clock.ahead += timedelta(minutes=21)
    assert await sessions.session(identity) is None


async def test_what_has_expired_is_removed(store: tuple[Stores, MovingClock], database_url: str) -> None:
    sessions, clock = store
    for _ in range(3):
        await sessions.add_session(session(clock()))
        await sessions.add_launch(f"s{_}", "b", Launch("ehr", "n", "v", "scope"))
    clock.ahead += timedelta(hours=1)
    await sessions.add_session(session(clock()))
    await sessions.add_launch("s", "b", Launch("ehr", "n", "v", "scope"))
    for table in ("smart_sessions", "smart_launches"):
        assert await rows(database_url, f"SELECT count(*) FROM {table}") == [(1,)]


async def test_a_launch_is_taken_once_even_by_two_at_the_same_time(
    store: tuple[Stores, MovingClock], database_url: str
) -> None:
    first, clock = store
    second = stores(database_url, clock)  # as another process would have
    for number in range(10):
        state = f"state-{number}"
        await first.add_launch(state, "browser", Launch("ehr", "n", "v", "scope"))
        taken = await asyncio.gather(
            *(one.take_launch(state, "browser") for one in (first, second, first, second))
        )
        assert sum(launch is not None for launch in taken) == 1
    await second.close()


async def test_one_of_many_renews(store: tuple[Stores, MovingClock], database_url: str) -> None:
    first, clock = store
    second = stores(database_url, clock)
    identity = await first.add_session(session(clock()))
    found = await first.session(identity)
    assert found is not None
    claims = await asyncio.gather(*(one.claim_refresh(found.digest) for one in (first, second) * 4))
    assert sum(claims) == 1
    clock.ahead += timedelta(seconds=16)  # who claimed it died
    assert await second.claim_refresh(found.digest)
    await second.end_refresh(found.digest, None)
    assert await first.claim_refresh(found.digest)
    await second.close()


async def test_a_row_moved_to_another_id_does_not_open(
    store: tuple[Stores, MovingClock], database_url: str
) -> None:
    sessions, clock = store
    mine = await sessions.add_session(session(clock()))
    theirs = await sessions.add_session(session(clock()))
    rows_before = await rows(database_url, "SELECT session_digest, sealed FROM smart_sessions")
    engine = create_engine(database_url)
    async with engine.begin() as connection:
        for (digest, _), (_, sealed) in zip(rows_before, reversed(rows_before), strict=True):
            await connection.execute(
                text("UPDATE smart_sessions SET sealed = :sealed WHERE session_digest = :digest"),
                {"sealed": sealed, "digest": digest},
            )
    await engine.dispose()
    assert await sessions.session(mine) is None
    assert await sessions.session(theirs) is None


@pytest.fixture
def standin() -> Iterator[StandinEhr]:
    with running(StandinEhr()) as ehr:
        yield ehr


@pytest.fixture
def site(knowledge: Knowledge, tmp_path: Path, sqlite_url: str, standin: StandinEhr) -> Iterator[Site]:
    with smart_site(knowledge, tmp_path, sqlite_url, standin) as running_site:
        yield running_site


def test_the_browser_is_told_when_its_session_has_ended(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    assert "Ada" in browser.get("/app/").text
    site.clock.ahead = timedelta(minutes=31)
    page = browser.get("/app/")
    assert page.status_code == 200
    assert "Ada" not in page.text
    assert "Sign in at Hospital of the tests" in page.text


def test_pages_asked_for_at_the_same_time_renew_the_token_once(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str
) -> None:
    ehr = StandinEhr()
    ehr.expires_in = 30
    with running(ehr), smart_site(knowledge, tmp_path, sqlite_url, ehr) as site:
        _renews_once(site, ehr)


def _renews_once(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    asked = standin.told().count("/token")
    site.clock.ahead = timedelta(seconds=20)  # more than half of the token's life

    async def at_once() -> list[str]:
        cookies = {"cds-session": browser.cookies["cds-session"]}
        async with httpx.AsyncClient(base_url=site.url, cookies=cookies, timeout=60) as client:
            return [page.text for page in await asyncio.gather(*(client.get("/app/") for _ in range(4)))]

    assert all("Ada" in page for page in asyncio.run(at_once()))
    assert standin.told().count("/token") == asked + 1
