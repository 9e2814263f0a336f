"""`cds-server keys`: made, rotated, listed, and never shown."""

import asyncio
import base64
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import rows

from cds_server.audit import AuditTrail, DataKey
from cds_server.audit.signing import PublicKeys, Signer
from cds_server.cli_keys import PURPOSES
from cds_server.clock import utc_now
from cds_server.decisions.keys import DataKeys
from cds_server.privacy import Cipher, KeyMaterialInvalid, Pseudonymiser, SiteKeys, add_key, add_key_to_ring
from cds_server.settings import Settings


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def call(*words: str, **environment: str) -> str:
        env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        env |= {
            "HOME": str(tmp_path),
            "COLUMNS": "400",
            "PYTHONUTF8": "1",
            "CDS_VAR_DIR": str(tmp_path / "var"),
        }
        command = [sys.executable, "-c", "from cds_server.cli import main; main()", "keys", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=env | environment, timeout=300, check=False
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        for path in tmp_path.rglob("*key*"):
            for secret in re.findall(r"[A-Za-z0-9+/=]{40,}", path.read_text()) if path.is_file() else []:
                assert secret not in said
        return f"{done.returncode} {said}"

    return call


def opened(directory: Path, **given: str) -> SiteKeys:
    return SiteKeys.open(directory, **given)


def test_keys_are_made_once_rotated_and_listed(run: Any, tmp_path: Path) -> None:
    directory = tmp_path / "var" / "keys"
    first = run("new")
    for purpose in PURPOSES:
        assert f"{purpose.name}: made key 1" in first
        path = directory / f"{purpose.name}-1.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert "nothing was made" in run("new")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    secret = Cipher(opened(directory).cipher).encrypt("text", "here")
    old = Pseudonymiser(opened(directory).pseudonym).pseudonym("patient", "1", "")
    assert "made key 2" in run("rotate", "cipher") and "Restart" in run("rotate", "pseudonym")
    assert Cipher(opened(directory).cipher).decrypt(secret, "here") == "text"
    assert Cipher(opened(directory).cipher).encrypt("text", "here").startswith("c2.")
    new = Pseudonymiser(opened(directory).pseudonym).pseudonym("patient", "1", "")
    assert (old[:3], new[:3]) == ("p1-", "p2-")
    shown = run("list")
    assert shown.count("reads only") == 2
    (directory / "cipher-2.key").chmod(0o644)
    assert "others can read it" in run("list")


def test_the_signing_key_is_rotated_with_its_public_half(run: Any, tmp_path: Path) -> None:
    directory = tmp_path / "var" / "keys"
    assert "audit-signing: made key 1" in run("new", "audit-signing")
    first = Signer.open(directory)
    assert "audit public-key" in run("rotate", "audit-signing")
    # Whoever verifies can have the public half before the server signs with the new key.
    published = PublicKeys.of_directory(directory)
    second = Signer.open(directory)
    assert second.key_id != first.key_id
    assert set(published.ids) == {first.key_id, second.key_id}
    for signer in (first, second):
        assert published.holds(signer.key_id, b"body", signer.sign(b"body"))
    listed = run("list")
    assert "verifies only" in listed and "audit-signing" in listed


async def test_after_a_rotation_of_the_master_key_the_data_keys_are_wrapped_anew(
    run: Any, tmp_path: Path, sqlite_url: str
) -> None:
    directory = tmp_path / "var" / "keys"
    settings = {"CDS_DATABASE_URL": sqlite_url}
    for purpose in PURPOSES:
        run("new", purpose.name)
    trail = AuditTrail(sqlite_url, tmp_path / "spool", signer=Signer.open(directory))
    await trail.start()
    _, sealed, key = DataKeys(opened(directory).master, now=utc_now).seal("p1-x", b"text", "here")
    assert key is not None
    await trail.record(key)
    await trail.close()
    assert "keys rewrap" in await asyncio.to_thread(run, "rotate", "master", **settings)
    changed = "SELECT payload FROM events WHERE action = 'keys-changed'"
    [(recorded,)] = await rows(sqlite_url, changed)
    assert '["purpose","master"]' in recorded and '["to","2"]' in recorded
    said = await asyncio.to_thread(run, "rewrap", **settings)
    assert said.startswith("0 "), said
    [row] = await rows(sqlite_url, "SELECT key_id, created, subject, wrapped, master FROM patient_keys")
    assert row[4] == 2
    again = DataKey(key_id=row[0], created=key.created, subject=row[2], wrapped=row[3], master=row[4])
    assert DataKeys(opened(directory).master, now=utc_now).open_sealed(again, sealed, "here") == b"text"


def test_rings_for_secrets_of_a_container_platform(run: Any, tmp_path: Path) -> None:
    ring = tmp_path / "cipher.keys"
    assert "made key 1" in run("new", "cipher", "--file", str(ring))
    assert stat.S_IMODE(ring.stat().st_mode) == 0o600
    assert run("new", "cipher", "--file", str(ring)).startswith("2 ")
    first = opened(tmp_path / "k", cipher=f"@{ring}").cipher
    secret = Cipher(first).encrypt("text", "here")
    # Named by the setting, it is found without being named again.
    said = run("rotate", "cipher", CDS_CIPHER_KEY=f"@{ring}")
    assert "made key 2" in said
    second = opened(tmp_path / "k", cipher=f"@{ring}").cipher
    assert second.current == 2
    assert Cipher(second).decrypt(secret, "here") == "text"
    assert not (tmp_path / "var" / "keys").exists()
    assert f"@{ring}" in run("list", CDS_CIPHER_KEY=f"@{ring}")


def test_a_bare_key_becomes_the_first_of_a_ring(tmp_path: Path) -> None:
    ring = tmp_path / "bare.keys"
    ring.write_text(base64.b64encode(b"k" * 32).decode())
    assert add_key_to_ring(ring) == 2
    assert opened(tmp_path / "k", cipher=f"@{ring}").cipher.key(1) == b"k" * 32


def test_mistakes_are_answered_with_what_to_do(run: Any, tmp_path: Path) -> None:
    key = base64.b64encode(b"s" * 32).decode()
    assert "there are pseudonym, cipher" in run("rotate", "everything")
    assert "`cds-server keys new` makes the first" in run("rotate", "cipher")
    assert "keys new cipher --file" in run("rotate", "cipher", "--file", str(tmp_path / "none"))
    assert "name which one" in run("new", "--file", str(tmp_path / "x"))
    inline = run("rotate", "cipher", CDS_CIPHER_KEY=key)
    assert "as @FILE" in inline and key not in inline
    listed = run("list", CDS_CIPHER_KEY=key)
    assert "CDS_CIPHER_KEY" in listed and key not in listed
    broken = tmp_path / "broken.keys"
    broken.write_text("1:not-a-key")
    assert "Nothing was made" in run("rotate", "cipher", "--file", str(broken))
    assert broken.read_text() == "1:not-a-key"


def test_a_ring_that_is_none_is_left_alone(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("1:AAAA")
    with pytest.raises(KeyMaterialInvalid):
        add_key_to_ring(broken)
    assert broken.read_text() == "1:AAAA"
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_numbers_go_on_where_they_ended(tmp_path: Path) -> None:
    assert [add_key(tmp_path, "cipher") for _ in range(3)] == [1, 2, 3]
    assert add_key(tmp_path, "pseudonym") == 1


def test_every_purpose_can_be_given_by_a_setting() -> None:
    for purpose in PURPOSES:
        assert purpose.setting in Settings.model_fields
