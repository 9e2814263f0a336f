"""Callers without proof are limited by their address, and shut nobody out who has proof at the same one."""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from audit_helpers import rows
from auth_helpers import BASE, Ehr, protected, published
from server_helpers import ASSESSMENT, Running, minimal

from cds_server.auth.rates import Rates
from cds_server.auth.unproven import MOST_WAITING, MOST_WAITING_OF_ONE, Unproven
from cds_server.errors import TooManyRequests

DISCOVERY = "/cds-services"
FEW = 20


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with published(Ehr()) as found:
        yield found


@pytest.fixture
def guarded(start_server: Any, tmp_path: Path, ehr: Ehr) -> Callable[..., Running]:
    def begin(**changes: Any) -> Running:
        found: Running = start_server(
            **protected(
                ehr.file(tmp_path), **{"unproven_rate": FEW, "trusted_proxies": "127.0.0.1"} | changes
            )
        )
        return found

    return begin


def get(running: Running, path: str = DISCOVERY, *, address: str = "", **headers: str) -> httpx.Response:
    """A call over a connection of its own, from an address as the trusted proxy says."""
    via = {"X-Forwarded-For": address} if address else {}
    return httpx.get(running.url + path, headers=via | headers, timeout=60)


def forged(ehr: Ehr) -> dict[str, str]:
    """All a token must be, claims, key id and form, but signed by somebody else."""
    stranger = Ehr(ehr.issuer)
    stranger.keys["rsa"] = ehr.keys["rsa"]  # not used; saves making one
    return {"Authorization": f"Bearer {stranger.token(DISCOVERY)}"}


def test_an_address_that_fails_too_often_is_told_when_to_come_again(guarded: Any, ehr: Ehr) -> None:
    running = guarded()
    here, elsewhere = "192.0.2.1", "192.0.2.2"
    assert [get(running, address=here).status_code for _ in range(FEW)] == [401] * FEW
    refused = get(running, address=here)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["issue"][0]["code"] == "throttled"
    for headers in ({"Authorization": "Bearer a.b.c"}, forged(ehr)):
        assert get(running, address=here, **headers).status_code == 429
    assert get(running, address=elsewhere).status_code == 401
    # Who has a valid token gets in from there all the same, and public pages are public.
    for _ in range(3):
        assert get(running, address=here, **ehr.headers(DISCOVERY)).status_code == 200
    assert get(running, "/health/ready", address=here).status_code == 200


def test_it_is_in_the_trail_as_a_limit_and_names_nobody(guarded: Any) -> None:
    running = guarded(unproven_rate=1)
    for _ in range(2):
        get(running, address="192.0.2.1")
    query = (
        "SELECT payload FROM events WHERE action IN ('authentication-failed', 'access-denied') ORDER BY seq"
    )
    found = [json.loads(row[0]) for row in asyncio.run(rows(running.database_url, query))]
    assert [(one["status"], one["reason"], one["network"]) for one in found] == [
        (401, "missing", "192.0.2.1"),
        (429, "unproven", "192.0.2.1"),
    ]
    assert "client" not in found[1]


def test_a_flood_of_forged_tokens_does_not_keep_an_ehr_out(guarded: Any, ehr: Ehr) -> None:
    """One address; the forged ones are right in all but their signature."""
    running = guarded(client_rate=100_000)
    lies = [forged(ehr) for _ in range(4)]
    truths = [ehr.headers(DISCOVERY) for _ in range(40)]
    with ThreadPoolExecutor(12) as pool, httpx.Client(base_url=running.url, timeout=60) as kept:
        assert get(running, **truths.pop()).status_code == 200
        flood = [pool.submit(get, running, **lies[number % 4]) for number in range(300)]
        over_new = [get(running, **headers).status_code for headers in truths[:15]]
        over_kept = [kept.get(DISCOVERY, headers=headers).status_code for headers in truths[15:]]
        statuses = {call.result().status_code for call in flood}
    assert set(over_new) == {200}
    assert set(over_kept) == {200}
    assert statuses == {401, 429}


def test_what_cannot_hold_is_not_computed(guarded: Any, ehr: Ehr) -> None:
    """No key is fetched for it, without which there is no signature to compute."""
    running = guarded(unproven_rate=1000)
    for changes in ({"aud": f"{BASE}/elsewhere"}, {"exp": 1_000, "iat": 900}, {"jti": None}, {"exp": None}):
        assert get(running, **ehr.headers(DISCOVERY, **changes)).status_code == 401
    assert ehr.asked == 0
    assert get(running, **ehr.headers(DISCOVERY)).status_code == 200
    assert ehr.asked == 1


def test_the_neighbours_of_an_ipv6_address_count_as_one(guarded: Any) -> None:
    running = guarded()
    found = [get(running, address=f"2001:db8:1:2::{number:x}").status_code for number in range(FEW + 3)]
    assert found == [401] * FEW + [429] * 3
    assert get(running, address="2001:db8:1:3::1").status_code == 401


def test_what_a_stranger_writes_into_the_header_is_not_his_address(guarded: Any) -> None:
    running = guarded(trusted_proxies="")
    found = [get(running, address=f"192.0.2.{number}").status_code for number in range(FEW + 3)]
    assert found == [401] * FEW + [429] * 3


def test_our_own_trouble_with_keys_is_not_counted_against_the_caller(guarded: Any, ehr: Ehr) -> None:
    running = guarded(unproven_rate=1)
    ehr.misbehave = "down"
    assert [get(running, **ehr.headers(DISCOVERY)).status_code for _ in range(4)] == [401] * 4


def test_who_need_not_prove_anything_is_limited_as_a_client_is(guarded: Any) -> None:
    running = guarded(client_auth="optional", client_rate=5)

    def call(address: str) -> int:
        via = {"X-Forwarded-For": address, "Host": "cds.hospital.example"}
        return running.post(ASSESSMENT, minimal(), headers=via).status_code

    assert [call("192.0.2.1") for _ in range(6)] == [200] * 5 + [429]
    assert call("192.0.2.2") == 200
    # This machine is not counted: whoever tries the product out, or measures it, is not held up.
    assert [get(running).status_code for _ in range(8)] == [200] * 8


def test_a_launch_costs_much_and_is_limited(guarded: Any) -> None:
    running = guarded(unproven_rate=3)
    found = [get(running, "/smart/launch", address="192.0.2.1").status_code for _ in range(4)]
    assert found[3] == 429 and 429 not in found[:3]
    assert get(running, "/smart/launch", address="192.0.2.2").status_code != 429


# -- the limits themselves


def limits(directory: Path, **changes: int) -> Unproven:
    return Unproven(Rates(directory / "rates"), **{"per_minute": 1, "anonymous_per_minute": 1, **changes})


def test_memory_does_not_grow_with_addresses_and_connections(tmp_path: Path) -> None:
    unproven = limits(tmp_path)
    unproven.failed("192.0.2.1", ("192.0.2.1", 1))
    size = (tmp_path / "rates").stat().st_size
    for number in range(20_000):
        address = f"2001:db8:{number:x}::1"
        assert unproven.failed(address, (address, 1)) == 0
        unproven.proved((address, 2))
    assert (tmp_path / "rates").stat().st_size == size
    unproven.close()


async def test_the_lane_has_room_for_so_many_and_for_so_many_of_one_address(tmp_path: Path) -> None:
    unproven = limits(tmp_path)
    peers = [f"192.0.2.{number}" for number in range(MOST_WAITING // MOST_WAITING_OF_ONE + 1)]
    for peer in peers:
        assert unproven.failed(peer, None) == 0
    opened = asyncio.Event()

    async def held(peer: str) -> None:
        async with unproven.turn(peer, None):
            await opened.wait()

    async with asyncio.TaskGroup() as group:
        for peer in peers[:-1]:
            waiting = [group.create_task(held(peer)) for _ in range(MOST_WAITING_OF_ONE)]
            await asyncio.sleep(0)
            with pytest.raises(TooManyRequests):
                await held(peer)
            assert not any(task.done() for task in waiting)
        with pytest.raises(TooManyRequests):  # no room for anybody from such an address
            await held(peers[-1])
        async with unproven.turn("198.51.100.1", None):  # one that has not failed so much waits for nobody
            pass
        opened.set()
    # Everybody had his turn, and there is room again.
    await held(peers[-1])


async def test_a_connection_over_which_somebody_proved_himself_passes_the_lane_until_it_fails(
    tmp_path: Path,
) -> None:
    unproven = limits(tmp_path)
    address, connection = "192.0.2.1", ("192.0.2.1", 40_001)
    unproven.failed(address, None)
    unproven.proved(connection)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(unproven.turn(address, None))  # somebody is in the lane
        async with unproven.turn(address, connection):
            pass
        unproven.failed(address, connection)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), unproven.turn(address, connection):
                pass


async def test_a_failing_check_gives_the_lane_free(tmp_path: Path) -> None:
    unproven = limits(tmp_path)
    unproven.failed("192.0.2.1", None)
    for _ in range(MOST_WAITING_OF_ONE + 1):
        with pytest.raises(ZeroDivisionError):
            async with unproven.turn("192.0.2.1", None):
                _ = 1 / 0
