"""Keys of issuers: found, cached, rotated, and never a way to make us fetch what and when others please."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from auth_helpers import Ehr, published
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, RSAKey

from cds_server.auth import jwks
from cds_server.auth.jwks import KeyUnknown, RemoteKeys, only_one, public_keys
from cds_server.auth.key_files import FileKeys
from cds_server.auth.outbound import Outbound, ServerUnreachable


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with published(Ehr()) as running:
        yield running


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def remote(ehr: Ehr, clock: Clock, seconds: float = 5.0) -> AsyncIterator[RemoteKeys]:
    async def locate() -> str:
        return ehr.jku

    outbound = Outbound(seconds=seconds)
    try:
        yield RemoteKeys(outbound, locate, monotonic=clock)
    finally:
        await outbound.close()


async def knows(keys: Any, kid: str, algorithm: str = "ES384") -> bool:
    try:
        await keys.key(kid, algorithm)
    except KeyUnknown:
        return False
    return True


async def test_a_set_is_fetched_once_while_it_is_fresh(ehr: Ehr) -> None:
    clock = Clock()
    async with remote(ehr, clock) as keys:
        for _ in range(20):
            assert await knows(keys, "ec")
            assert await knows(keys, "rsa", "RS384")
        assert ehr.asked == 1
        clock.now += jwks.FRESH_SECONDS + 1
        assert await knows(keys, "ec")
        assert ehr.asked == 2


async def test_a_new_key_is_found_and_a_withdrawn_one_lost(ehr: Ehr) -> None:
    clock = Clock()
    async with remote(ehr, clock) as keys:
        assert await knows(keys, "ec")
        ehr.keys["next"] = ECKey.generate_key("P-384")
        ehr.published = ["next"]
        clock.now += jwks.UNKNOWN_KEY_PAUSE + 1
        assert await knows(keys, "next")
        assert not await knows(keys, "ec")


async def test_made_up_ids_do_not_make_us_fetch(ehr: Ehr) -> None:
    clock = Clock()
    async with remote(ehr, clock) as keys:
        for number in range(100):
            assert not await knows(keys, f"made-up-{number}")
            clock.now += 0.3
        assert ehr.asked <= 2  # in 30 seconds


async def test_callers_at_the_same_time_share_one_fetch(ehr: Ehr) -> None:
    ehr.misbehave = "slow"
    async with remote(ehr, Clock()) as keys:
        assert all(await asyncio.gather(*(knows(keys, "ec") for _ in range(50))))
    assert ehr.asked == 1


@pytest.mark.parametrize("fault", ["down", "redirect", "large", "nonsense"])
async def test_a_set_that_cannot_be_had_is_no_set(ehr: Ehr, fault: str) -> None:
    ehr.misbehave = fault
    async with remote(ehr, Clock()) as keys:
        for _ in range(3):
            with pytest.raises(ServerUnreachable):
                await keys.key("ec", "ES384")
    assert ehr.asked == 1, "a failing issuer is not asked again for every call"
    assert ehr.followed == 0


async def test_a_slow_issuer_costs_its_time_and_no_more(ehr: Ehr) -> None:
    ehr.misbehave = "slow"
    async with remote(ehr, Clock(), seconds=0.05) as keys:
        with pytest.raises(ServerUnreachable):
            await keys.key("ec", "ES384")


async def test_keys_outlive_an_outage_but_not_for_ever(ehr: Ehr) -> None:
    clock = Clock()
    async with remote(ehr, clock) as keys:
        assert await knows(keys, "ec")
        ehr.misbehave = "down"
        clock.now += jwks.FRESH_SECONDS + 1
        asked = ehr.asked
        for _ in range(10):
            assert await knows(keys, "ec")
            clock.now += 1
        assert ehr.asked == asked + 1
        clock.now += jwks.STALE_SECONDS
        for _ in range(2):  # also when it is not asked because it was just now
            with pytest.raises(ServerUnreachable):
                await keys.key("ec", "ES384")
        ehr.misbehave = None
        clock.now += jwks.FAILURE_PAUSE + 1
        assert await knows(keys, "ec")


# -- what is a key


def key_set(*entries: Any) -> dict[str, Any]:
    return {"keys": list(entries)}


EC = ECKey.generate_key("P-384")
RSA = RSAKey.generate_key(2048)


def public(key: Any, **more: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "k", **more}


@pytest.mark.parametrize(
    "entry",
    [
        OctKey.generate_key(256).as_dict() | {"kid": "k"},
        EC.as_dict(private=True) | {"kid": "k"},
        RSA.as_dict(private=True) | {"kid": "k"},
        public(EC, use="enc"),
        public(EC, key_ops=["sign"]),
        public(EC, key_ops="verify"),
        public(RSAKey.generate_key(1024)),
        public(EC, crv="P-256"),
        public(EC, x="AAAA"),
        public(EC, x=7),
        {"kid": "k"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "k"},
        "k",
        7,
        None,
        [],
    ],
    ids=lambda entry: str(entry)[:40],
)
def test_what_is_no_public_signature_key_is_passed_over(entry: Any) -> None:
    keys = public_keys(key_set(entry, public(EC, kid="good")))
    assert only_one(keys, "good", "ES384") is not None
    for algorithm in ("ES384", "ES256", "RS384", "RS256"):
        assert only_one(keys, "k", algorithm) is None


def test_a_key_is_used_for_its_algorithm_only() -> None:
    keys = public_keys(key_set(public(EC, kid="e"), public(RSA, kid="r"), public(RSA, kid="d", alg="RS256")))
    fitting = {
        (kid, a) for kid in "erd" for a in ("ES384", "ES256", "RS384", "RS256") if only_one(keys, kid, a)
    }
    assert fitting == {("e", "ES384"), ("r", "RS384"), ("r", "RS256"), ("d", "RS256")}


def test_two_keys_under_one_id_are_none() -> None:
    twins = key_set(public(EC), public(ECKey.generate_key("P-384")), public(RSA))
    keys = public_keys(twins)
    assert only_one(keys, "k", "ES384") is None
    assert only_one(keys, "k", "RS384") is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
members = st.sampled_from(["kty", "kid", "use", "alg", "key_ops", "crv", "x", "y", "n", "e", "d", "k"])
scraps = st.dictionaries(
    members, st.sampled_from(["EC", "RSA", "P-384", "AQAB", "", "sig"]) | json_values, max_size=8
)


@given(
    st.dictionaries(
        st.just("keys") | st.text(max_size=5), json_values | st.lists(scraps, max_size=4), max_size=3
    )
)
def test_whatever_is_published_is_read_or_refused(document: dict[str, Any]) -> None:
    with suppress(ServerUnreachable):
        public_keys(document)


# -- keys in a file


def test_a_file_without_a_usable_key_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    for content in ("", "[]", "{", '{"keys": []}', json.dumps(key_set(EC.as_dict(private=True)))):
        path.write_text(content)
        with pytest.raises(ServerUnreachable, match=r"keys\.json"):
            FileKeys(path)
    with pytest.raises(ServerUnreachable, match=r"none\.json"):
        FileKeys(tmp_path / "none.json")


async def test_a_file_that_is_broken_later_leaves_the_former_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(key_set(public(EC))))
    keys = FileKeys(path)
    path.write_text("{ half a file")
    assert await knows(keys, "k")
    path.unlink()
    assert await knows(keys, "k")
    path.write_text(json.dumps(key_set(public(EC, kid="other"))))
    assert await knows(keys, "other") and not await knows(keys, "k")
