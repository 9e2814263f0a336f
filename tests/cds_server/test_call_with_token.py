"""`cds-server call --url` proves who calls, so that an operator can try a protected server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from auth_helpers import BASE, Ehr, clients_file, protected
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from joserfc.jwk import RSAKey
from server_helpers import EXAMPLES, Running

ISSUER = "https://trial.hospital.example"
EXAMPLE = str(EXAMPLES / "healthy-checkup.json")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Command:
    def call(*words: str, **settings: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-c", "from cds_server.cli import main; main()", *words],
            env={
                **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                "HOME": str(tmp_path),
                "COLUMNS": "120",
                "CDS_VAR_DIR": str(tmp_path / "var"),
                **settings,
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        for path in tmp_path.glob("*.pem"):
            for line in path.read_text().splitlines()[1:-1]:
                assert line not in said
        return done.returncode, done.stdout, done.stderr

    return call


def key_file(directory: Path, key: Any = None, encryption: KeySerializationEncryption | None = None) -> Path:
    path = directory / "trial.pem"
    key = key or ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    return path


@pytest.fixture
def trial(run: Command, start_server: Any, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """A server that trusts the key of `trial.pem`, as the command line printed its public half."""

    def begin(key: Any = None, **changes: Any) -> Running:
        status, key_set, _ = run("clients", "key-set", str(key_file(tmp_path, key)))
        assert status == 0
        (tmp_path / "trial.json").write_text(key_set)
        entry = {"name": "trial", "issuer": ISSUER, "jwks_file": "trial.json"} | changes
        found: Running = start_server(**protected(clients_file(tmp_path, entry), client_algorithms="ES256"))
        return found

    yield begin


def proof(tmp_path: Path, running: Running, **changes: str) -> list[str]:
    options = {"url": running.url, "issuer": ISSUER, "key": str(tmp_path / "trial.pem"), "audience": BASE}
    return [word for name, value in (options | changes).items() for word in (f"--{name}", value)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-256", "RSA"],
)
def test_a_protected_server_answers_who_has_the_key(
    run: Command, trial: Any, tmp_path: Path, make: Callable[[], Any]
) -> None:
    running = trial(make())
    status, shown, said = run("call", EXAMPLE, "--url", running.url)
    assert status == 1 and "authentication is required" in shown + said
    assert "The server's log says why, under the request id" in said
    for words in (("call", EXAMPLE), ("services",)):
        for _ in range(2):  # a token is good once, so each call has its own
            status, shown, said = run(*words, *proof(tmp_path, running))
            assert status == 0, said
            assert shown


def test_a_bundle_is_assessed_there_too(run: Command, trial: Any, tmp_path: Path) -> None:
    running = trial()
    patient = {"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1960-01-01"}
    bundle = tmp_path / "bundle.json"
    bundle.write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient}]})
    )
    status, shown, said = run("assess", str(bundle), *proof(tmp_path, running))
    assert status == 0, said
    assert "severity" in shown


def test_tenant_jku_and_key_id_are_those_that_were_given(run: Command, trial: Any, tmp_path: Path) -> None:
    jku = "https://trial.hospital.example/jwks.json"
    running = trial(tenants=["north"], jku=jku)
    right = proof(tmp_path, running, tenant="north", jku=jku)
    assert run("services", *right)[0] == 0
    for wrong in ({"tenant": "south"}, {"jku": f"{jku}/other"}, {"kid": "another"}, {"issuer": "https://x"}):
        words = proof(tmp_path, running, **({"tenant": "north", "jku": jku} | wrong))
        assert run("services", *words)[0] == 1
    status, key_set, _ = run("clients", "key-set", str(tmp_path / "trial.pem"), "--kid", "another")
    assert status == 0
    (tmp_path / "trial.json").write_text(key_set)
    assert run("services", *right, "--kid", "another")[0] == 0


def test_the_audience_is_the_address_that_is_called_or_the_settings_one(
    run: Command, trial: Any, tmp_path: Path
) -> None:
    running = trial()
    key = str(tmp_path / "trial.pem")
    assert run("services", "--url", running.url, "--issuer", ISSUER, "--key", key)[0] == 1
    # On the server's own machine the settings say where it listens and what it is called.
    port = running.url.rpartition(":")[2]
    own = {"CDS_PORT": port, "CDS_PUBLIC_BASE_URL": BASE}
    status, _, said = run("services", "--issuer", ISSUER, "--key", key, **own)
    assert status == 0, said


def test_a_token_from_a_file_is_sent_as_it_is(run: Command, start_server: Any, tmp_path: Path) -> None:
    ehr = Ehr(ISSUER)
    (tmp_path / "ehr.json").write_text(json.dumps(ehr.key_set()))
    entry = {"name": "ehr", "issuer": ISSUER, "jwks_file": "ehr.json"}
    running = start_server(**protected(clients_file(tmp_path, entry)))
    token = tmp_path / "token"
    token.write_text(ehr.token("/cds-services") + "\n")
    words = ("services", "--url", running.url, "--token-file", str(token))
    assert run(*words)[0] == 0
    status, shown, said = run(*words)
    assert status == 1  # used up
    assert token.read_text().strip() not in shown + said


def wrong_key(directory: Path, kind: str) -> Path:
    match kind:
        case "missing":
            return directory / "none.pem"
        case "passphrase":
            return key_file(directory, None, BestAvailableEncryption(b"words"))
        case "curve":
            return key_file(directory, ec.generate_private_key(ec.SECP521R1()))
        case "kind":
            return key_file(directory, ed25519.Ed25519PrivateKey.generate())
        case "jwk":
            path = directory / "trial.pem"
            path.write_text(json.dumps(RSAKey.generate_key(2048).as_dict(private=True)))
            return path
    path = directory / "trial.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----\n")
    return path


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("missing", "No such file"),
        ("passphrase", "passphrase"),
        ("curve", "P-384, P-256"),
        ("kind", "P-384, P-256"),
        ("jwk", "not a private key in PEM"),
        ("rubbish", "not a private key in PEM"),
    ],
)
def test_a_key_that_is_none_is_named_and_not_shown(
    run: Command, tmp_path: Path, kind: str, fault: str
) -> None:
    path = wrong_key(tmp_path, kind)
    words = ("services", "--url", "http://127.0.0.1:1", "--issuer", ISSUER, "--key", str(path))
    status, shown, said = run(*words)
    assert status == 2 and not shown
    assert str(path) in said and fault in said
    if path.exists():
        for word in path.read_text().split():
            assert len(word) < 12 or word not in said


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--issuer", ISSUER], "--issuer and --key together"),
        (["--key", "x.pem"], "--issuer and --key together"),
        (["--tenant", "north"], "--issuer and --key together"),
        (["--token-file", "t", "--issuer", ISSUER], "leave out what would make a token"),
        (["--token-file", "none"], "--token-file names none: No such file"),
        (["--url", "http://cds.hospital.example", "--token-file", "none"], "is not https"),
        (["--offline", "--token-file", "none"], "nobody has to authenticate"),
    ],
    ids=" ".join,
)
def test_what_makes_no_proof_is_said_before_anything_is_sent(
    run: Command, words: list[str], fault: str
) -> None:
    before = [] if "--url" in words or "--offline" in words else ["--url", "http://127.0.0.1:1"]
    status, _, said = run("call", EXAMPLE, *before, *words)
    assert status == 2
    assert fault in said
