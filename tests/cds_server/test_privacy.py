"""Site keys stay secret, pseudonyms stay stable, ciphertexts open only where they belong."""

import base64
import multiprocessing
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cds_server.privacy import (
    Cipher,
    DecryptionFailed,
    KeyMaterialInvalid,
    KeyRing,
    Pseudonymiser,
    SiteKeys,
)

ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def test_keys_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    first = SiteKeys.open(tmp_path / "keys")
    second = SiteKeys.open(tmp_path / "keys")
    assert Pseudonymiser(first.pseudonym).pseudonym("patient", "1", "") == Pseudonymiser(
        second.pseudonym
    ).pseudonym("patient", "1", "")
    files = sorted((tmp_path / "keys").iterdir())
    assert [f.name for f in files] == ["cipher-1.key", "master-1.key", "pseudonym-1.key"]
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def _open_keys(directory: Path, queue: "multiprocessing.Queue[str]", barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    queue.put(Pseudonymiser(SiteKeys.open(directory).pseudonym).pseudonym("patient", "1", ""))


def test_workers_that_start_together_agree_on_the_keys(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    barrier = context.Barrier(6)
    workers = [context.Process(target=_open_keys, args=(tmp_path / "keys", queue, barrier)) for _ in range(6)]
    for worker in workers:
        worker.start()
    seen = {queue.get(timeout=20) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(seen) == 1


def test_keys_can_be_given_as_text_or_file(tmp_path: Path) -> None:
    text = f"1:{base64.b64encode(ONE).decode()} 2:{base64.b64encode(TWO).decode()}"
    (tmp_path / "given").write_text(text + "\n")
    one = base64.b64encode(ONE).decode()
    by_text = SiteKeys.open(tmp_path / "keys", pseudonym=text, cipher=one, master=one)
    by_file = SiteKeys.open(tmp_path / "keys", pseudonym=f"@{tmp_path / 'given'}", cipher=text, master=text)
    assert not (tmp_path / "keys").exists()
    pseudonyms = {Pseudonymiser(k.pseudonym).pseudonym("user", "x", "") for k in (by_text, by_file)}
    assert len(pseudonyms) == 1
    assert pseudonyms.pop().startswith("p2-")


def test_no_representation_shows_a_key(tmp_path: Path) -> None:
    ring = KeyRing({1: ONE})
    keys = SiteKeys(ring, ring, ring)
    shown = " ".join(map(repr, (ring, keys, Pseudonymiser(ring), Cipher(ring)))) + f"{keys} {ring}"
    for form in (ONE.hex(), base64.b64encode(ONE).decode(), repr(ONE)[2:-1]):
        assert form not in shown
    with pytest.raises(TypeError):
        pickle.dumps(ring)


@pytest.mark.parametrize("content", [b"", b"not base64 !", base64.b64encode(b"short")])
def test_a_damaged_key_file_is_named_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cipher-1.key").write_bytes(content)
    with pytest.raises(KeyMaterialInvalid, match="cipher") as refusal:
        SiteKeys.open(tmp_path)
    assert not content or content.decode() not in str(refusal.value)


def test_a_pseudonym_is_the_published_construction() -> None:
    import hmac  # noqa: PLC0415

    mac = hmac.new(ONE, b"7:patient4711", "sha256").digest()[:16]
    expected = "p1-" + base64.b32encode(mac).decode().rstrip("=").lower()
    assert Pseudonymiser(KeyRing({1: ONE})).pseudonym("patient", "4711", "") == expected
    assert len(expected) == 29


_TEXT = st.text(alphabet="@:0123ab", max_size=6) | st.text()


@given(st.tuples(_TEXT, _TEXT, _TEXT), st.tuples(_TEXT, _TEXT, _TEXT))
@example(("patient", "@1:x7:patient1", ""), ("patient", "1", "x"))
@example(("patient", "2:x1", ""), ("patient", "1", "x"))
def test_pseudonyms_are_equal_only_for_the_same_kind_value_and_authority(
    a: tuple[str, str, str], b: tuple[str, str, str]
) -> None:
    pseudonymiser = Pseudonymiser(KeyRing({1: ONE}))
    assert (pseudonymiser.pseudonym(*a) == pseudonymiser.pseudonym(*b)) == (a == b)


def test_another_site_gives_other_pseudonyms() -> None:
    mine, theirs = Pseudonymiser(KeyRing({1: ONE})), Pseudonymiser(KeyRing({1: TWO}))
    assert mine.pseudonym("patient", "1", "") != theirs.pseudonym("patient", "1", "")


@given(st.text(), st.text())
def test_what_was_encrypted_opens_again(text: str, context: str) -> None:
    cipher = Cipher(KeyRing({1: ONE}))
    sealed = cipher.encrypt(text, context)
    assert cipher.decrypt(sealed, context) == text
    assert cipher.encrypt(text, context) != sealed  # a nonce of its own each time


def test_old_keys_still_open_and_new_texts_use_the_new_key() -> None:
    old = Cipher(KeyRing({1: ONE})).encrypt("text", "c")
    rotated = Cipher(KeyRing({1: ONE, 2: TWO}))
    assert rotated.decrypt(old, "c") == "text"
    assert rotated.encrypt("text", "c").startswith("c2.")
    with pytest.raises(DecryptionFailed):
        Cipher(KeyRing({2: TWO})).decrypt(old, "c")


@given(st.integers(0, 200), st.integers(1, 127))
def test_an_altered_ciphertext_does_not_open(place: int, change: int) -> None:
    cipher = Cipher(KeyRing({1: ONE}))
    sealed = cipher.encrypt("the text", "context")
    place %= len(sealed)
    altered = sealed[:place] + chr(ord(sealed[place]) ^ change) + sealed[place + 1 :]
    with pytest.raises(DecryptionFailed):
        cipher.decrypt(altered, "context")


@pytest.mark.parametrize("ciphertext", ["", "c1.", "c1", "plain", "c9.AAAA", "c1.%%%", "cx.AAAA"])
def test_what_is_no_ciphertext_does_not_open(ciphertext: str) -> None:
    with pytest.raises(DecryptionFailed):
        Cipher(KeyRing({1: ONE})).decrypt(ciphertext, "c")


def test_a_ciphertext_opens_only_in_its_place() -> None:
    cipher = Cipher(KeyRing({1: ONE}))
    with pytest.raises(DecryptionFailed):
        cipher.decrypt(cipher.encrypt("text", "feedback.comment/1"), "feedback.comment/2")
