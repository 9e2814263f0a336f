"""What is sealed under a patient's data key opens with that key, in its place, and in no other way."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_server.audit import DataKey
from cds_server.decisions import keys as module
from cds_server.decisions.keys import LIFETIME, MOST_KEPT, DataKeys
from cds_server.privacy import DecryptionFailed, KeyRing

ONE, TWO = b"1" * 32, b"2" * 32
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Seconds:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def data_keys(*masters: bytes, seconds: Seconds | None = None) -> DataKeys:
    ring = KeyRing(dict(enumerate(masters or (ONE,), start=1)))
    return DataKeys(ring, now=lambda: NOON, monotonic=seconds or Seconds())


def made(
    keys: DataKeys, subject: str = "p1-a", plain: bytes = b"text", context: str = "c"
) -> tuple[DataKey, bytes]:
    _, sealed, key = keys.seal(subject, plain, context)
    assert key is not None
    return key, sealed


@given(st.binary(max_size=2000), st.text(max_size=20))
def test_whatever_is_sealed_opens_again_in_its_context_only(plain: bytes, context: str) -> None:
    keys = data_keys()
    key, sealed = made(keys, plain=plain, context=context)
    assert keys.open_sealed(key, sealed, context) == plain
    with pytest.raises(DecryptionFailed):
        keys.open_sealed(key, sealed, context + "x")


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_any_changed_bit_is_noticed(position: int, bit: int) -> None:
    keys = data_keys()
    key, sealed = made(keys)
    changed = bytearray(sealed)
    changed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(DecryptionFailed):
        keys.open_sealed(key, bytes(changed), "c")


def test_a_key_is_of_one_patient_and_opens_in_no_other_row() -> None:
    keys = data_keys()
    first, sealed = made(keys, "p1-a")
    second, _ = made(keys, "p1-b")
    assert first.key_id != second.key_id
    with pytest.raises(DecryptionFailed):
        keys.open_sealed(second, sealed, "c")
    for stolen in (
        msgspec.structs.replace(first, subject="p1-b"),
        msgspec.structs.replace(second, wrapped=first.wrapped),
        msgspec.structs.replace(first, wrapped="not base64 !"),
        msgspec.structs.replace(first, master=9),
    ):
        with pytest.raises(DecryptionFailed):
            keys.open_sealed(stolen, sealed, "c")


def test_a_key_is_brought_along_until_it_is_known_to_be_stored() -> None:
    keys = data_keys()
    key, _ = made(keys)
    assert keys.seal("p1-a", b"", "c")[2] == key
    keys.confirm([key])
    key_id, _, again = keys.seal("p1-a", b"", "c")
    assert key_id == key.key_id and again is None


def test_a_key_is_held_for_minutes_only() -> None:
    seconds = Seconds()
    keys = data_keys(seconds=seconds)
    first, sealed = made(keys)
    seconds.now = LIFETIME - 1
    assert keys.seal("p1-a", b"", "c")[0] == first.key_id
    seconds.now = LIFETIME
    assert keys.seal("p1-a", b"", "c")[0] != first.key_id
    assert keys.open_sealed(first, sealed, "c") == b"text"


def test_the_number_of_held_keys_is_bounded() -> None:
    keys = data_keys()
    for number in range(MOST_KEPT * 2):
        keys.seal(f"p1-{number}", b"", "c")
    assert len(keys._held) <= MOST_KEPT


def test_rotation_wraps_anew_and_changes_nothing_else() -> None:
    old = data_keys(ONE)
    key, sealed = made(old)
    rotated = data_keys(ONE, TWO)
    assert rotated.open_sealed(key, sealed, "c") == b"text"
    new = rotated.rewrap(key)
    assert new is not None and new.master == 2 and new.key_id == key.key_id
    assert rotated.rewrap(new) is None
    only_new = DataKeys(KeyRing({2: TWO}), now=lambda: NOON)
    assert only_new.open_sealed(new, sealed, "c") == b"text"
    with pytest.raises(DecryptionFailed):
        only_new.open_sealed(key, sealed, "c")
    with pytest.raises(DecryptionFailed):
        only_new.rewrap(key)


def test_nothing_shows_a_key() -> None:
    keys = data_keys()
    key, _ = made(keys)
    assert "1111" not in repr(keys)
    assert module.__doc__ and ONE not in msgspec.json.encode(key)
