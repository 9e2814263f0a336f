"""Keys and passwords are shown nowhere: not in help, not in a complaint about them, not in metrics."""

import base64
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from server_helpers import ASSESSMENT, Running, minimal

from cds_server.audit.signing import Signer
from cds_server.privacy import KeyMaterialInvalid
from cds_server.settings import Settings
from cds_server.site_keys import site_keys

COMMAND = Path(sys.executable).with_name("cds-server")
KEY = base64.b64encode(b"S3cr3tS3cr3tS3cr3tS3cr3tS3cr3t!!").decode()
PASSWORD = "zq-password-7731"
RINGS = ("pseudonym_key", "cipher_key", "master_key", "audit_signing_key")
WRONG = {
    "too short": base64.b64encode(b"S3cr3tShort").decode(),
    "not base64": "S3cr3t-is-not-base64!",
    "number is a secret": f"S3cr3tNumber:{KEY}",
    "two of which one is none": f"1:{KEY} 2:S3cr3tOther",
    "zero": f"0:{KEY}",
}


def parts(text: str) -> tuple[str, ...]:
    """What of a key must not be seen: the words of it."""
    return tuple(word for item in text.split() for word in item.split(":") if len(word) > 3)


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command in an environment of its own."""
    return subprocess.run(
        [COMMAND, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "CDS_VAR_DIR": str(directory),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["keys", "--help"], ["db", "--help"]])
def test_help_shows_no_value_of_the_environment(tmp_path: Path, arguments: list[str]) -> None:
    done = run(
        tmp_path,
        *arguments,
        CDS_CIPHER_KEY=KEY,
        CDS_MASTER_KEY=KEY,
        CDS_DATABASE_URL=f"postgresql+asyncpg://cds:{PASSWORD}@127.0.0.1:1/cds",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    for secret in (KEY, PASSWORD):
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_not_even_a_traceback_quotes_a_wrong_key(tmp_path: Path, ring: str, wrong: str) -> None:
    (tmp_path / "ring").write_text(wrong)
    for setting in (wrong, f"@{tmp_path / 'ring'}"):
        settings = Settings(var_dir=tmp_path, **{ring: setting})  # type: ignore[arg-type]
        with pytest.raises(KeyMaterialInvalid) as refusal:
            if ring == "audit_signing_key":
                Signer.open(tmp_path, setting)
            else:
                site_keys(settings)
        shown = "".join(traceback.format_exception(refusal.value, chain=True))
        assert named(ring) in named(str(refusal.value))
        for secret in parts(wrong):
            assert secret not in str(refusal.value) + shown
            assert secret not in repr(settings)


def named(text: str) -> str:
    """A key's purpose, however it is written."""
    return text.removesuffix("_key").replace("_", "-").replace(" ", "-")


@pytest.mark.parametrize("ring", RINGS)
def test_serve_names_a_wrong_key_in_one_line(tmp_path: Path, ring: str) -> None:
    wrong = WRONG["number is a secret"]
    done = run(tmp_path, "serve", **{f"CDS_{ring.upper()}": wrong})
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert named(ring) in named(said)
    assert "Traceback" not in said
    for secret in parts(wrong):
        assert secret not in said


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (["serve"], "mysql://cds:{}@db/cds"),
        (["db", "current"], "mysql://cds:{}@db/cds"),
        (["db", "upgrade"], "postgresql+asyncpg://cds:{}@127.0.0.1:1/cds"),
        (["db", "upgrade"], "postgresql+asyncpg://cds:{}@127.0.0.1:notaport/cds"),
        (["audit", "verify"], "postgresql+asyncpg://cds:{}@127.0.0.1:1/cds"),
        (["replay", "x"], "postgresql+asyncpg://cds:{}@127.0.0.1:1/cds"),
    ],
)
def test_the_password_of_a_database_is_in_no_complaint(
    tmp_path: Path, arguments: list[str], url: str
) -> None:
    done = run(tmp_path, *arguments, CDS_DATABASE_URL=url.format(PASSWORD))
    assert done.returncode != 0
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stderr


def test_metrics_logs_and_settings_show_no_key(
    start_server: Callable[..., Running], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    running = start_server(pseudonym_key=KEY, cipher_key=KEY, master_key=KEY, audit_signing_key=KEY)
    assert running.post(ASSESSMENT, minimal()).status_code == 200
    assert running.post(ASSESSMENT, {}).status_code == 400
    shown = running.client.get("/metrics").text + running.client.get("/health/ready").text
    shown += repr(running.house) + str(running.house.settings) + repr(Settings(cipher_key=KEY))
    shown += b"".join(capfdbinary.readouterr()).decode()
    assert "cds_" in shown
    for form in (KEY, base64.b64decode(KEY).decode(), base64.b64decode(KEY).hex()):
        assert form not in shown
