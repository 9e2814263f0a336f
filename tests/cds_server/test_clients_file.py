"""The file of trusted clients: every mistake is named with its field and what to write instead."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from auth_helpers import Ehr, clients_file, protected, published
from hypothesis import given
from hypothesis import strategies as st

from cds_server.auth.clients import ClientsFileInvalid, load_clients, read_entries
from cds_server.auth.principal import Role

GOOD: dict[str, Any] = {
    "name": "ehr",
    "issuer": "https://ehr.example",
    "jku": "https://ehr.example/jwks.json",
}


def faults(path: Path) -> list[str]:
    with pytest.raises(ClientsFileInvalid) as caught:
        load_clients(path)
    return caught.value.faults


def test_a_good_file_is_read_and_nothing_is_fetched(tmp_path: Path) -> None:
    with published(Ehr()) as ehr:
        clients = load_clients(ehr.file(tmp_path, tenants=["a", "b"], rate_per_minute=7, roles=["operator"]))
        [client] = clients.clients
        assert ehr.asked == 0
    assert (client.name, client.issuer, client.rate) == ("main-ehr", ehr.issuer, 7)
    assert client.tenants == {"a", "b"} and client.roles == {Role.OPERATOR}
    assert clients.find(ehr.issuer, "a") is client
    for tenant in (None, "c", "", 7, ["a"]):
        assert clients.find(ehr.issuer, tenant) is None
    assert clients.find("https://other.example", "a") is None


def test_a_call_under_way_ends_under_the_entry_it_was_let_in_with(tmp_path: Path) -> None:
    server = "https://ehr.example/fhir"
    kept = GOOD | {"name": "kept", "issuer": "https://kept.example"}
    former = load_clients(clients_file(tmp_path, GOOD | {"fhir_servers": [server]}, kept))
    issuer = GOOD["issuer"]
    clients = load_clients(clients_file(tmp_path, kept), former)
    assert clients.find(issuer, None) is None and not clients.knows(issuer)
    assert clients.servers_of(issuer, None) == former.servers_of(issuer, None) != ()
    # Not for ever: the next change of the file forgets it.
    assert load_clients(clients_file(tmp_path, kept), clients).servers_of(issuer, None) is None


def test_one_issuer_may_have_several_tenants_with_keys_of_their_own(tmp_path: Path) -> None:
    north = GOOD | {"name": "north", "tenants": ["n"]}
    south = GOOD | {"name": "south", "tenants": ["s"], "jku": "https://south.example/jwks.json"}
    clients = load_clients(clients_file(tmp_path, north, south))
    found = clients.find(GOOD["issuer"], "s")
    assert found is not None and found.name == "south"


@pytest.mark.parametrize(
    ("change", "field", "fix"),
    [
        ({"name": None}, "client number 1: name", "required: add it"),
        ({"name": "a b"}, "name", "letters, digits"),
        ({"issuer": None}, "client ehr: issuer", "required: add it"),
        ({"issuer": ""}, "issuer", "at least 1 character"),
        ({"issuer": " https://ehr.example"}, "issuer", "exactly as"),
        ({"jku": None}, "client ehr: jku or jwks_file", "give the URL"),
        ({"jku": "http://ehr.example/jwks.json"}, "jku", "https is required"),
        ({"jku": "ftp://ehr.example/x"}, "jku", "https is required"),
        ({"jku": "https://user@ehr.example/x"}, "jku", "write a URL such as"),
        ({"jku": "jwks.json"}, "jku", "write a URL such as"),
        ({"jwks_file": "missing.json"}, "client ehr: jwks_file", "No such file"),
        ({"ca_file": "missing.pem"}, "client ehr: ca_file", "not a file"),
        ({"jwks_file": "x.json", "ca_file": "x.pem"}, "ca_file", "leave it out"),
        ({"tenants": ["a", "a"]}, "tenants", "each tenant once"),
        ({"tenants": "a"}, "tenants", "tuple"),
        ({"rate_per_minute": 0}, "rate_per_minute", "greater than or equal to 1"),
        ({"roles": []}, "roles", "at least one of"),
        ({"roles": ["admin"]}, "roles", "cds-client"),
        ({"roles": ["clinician-admin"]}, "roles", "at least one of"),
        ({"jwks_url": "https://x.example"}, "jwks_url", "not a field; known are name, issuer, jku"),
    ],
    ids=str,
)
def test_a_mistake_is_named_with_its_field_and_the_fix(
    tmp_path: Path, change: dict[str, Any], field: str, fix: str
) -> None:
    [fault] = faults(clients_file(tmp_path, GOOD | change))
    assert field in fault and fix in fault
    if "name" not in change:
        assert fault.startswith("client ehr: ")


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = faults(
        clients_file(tmp_path, GOOD | {"issuer": ""}, GOOD | {"name": "other", "rate_per_minute": 0})
    )
    assert len(found) == 2
    assert found[0].startswith("client ehr: issuer") and found[1].startswith("client other: rate_per_minute")


def test_clients_must_be_told_apart(tmp_path: Path) -> None:
    twice = faults(clients_file(tmp_path, GOOD, GOOD))
    assert any("used twice" in fault for fault in twice)
    assert any("the issuer without a tenant is already client ehr's" in fault for fault in twice)
    overlap = faults(
        clients_file(tmp_path, GOOD | {"tenants": ["a"]}, GOOD | {"name": "b", "tenants": ["b", "a"]})
    )
    assert overlap == ["client b: issuer: tenant 'a' is already client ehr's"]


@pytest.mark.parametrize(
    "content",
    ["", "clients = []", "[client]\nname = 'x'", "[[client]\n", "client = 7", "\xff", "x = " + "[" * 90_000],
    ids=lambda content: content[:10],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clients.toml"
    path.write_bytes(content.encode("latin-1"))
    assert faults(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == ["cannot be read: No such file or directory"]


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    import tempfile  # noqa: PLC0415 - hypothesis shares one tmp_path between examples

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clients.toml"
        path.write_bytes(b"[[client]]\n" + content)
        with pytest.raises(ClientsFileInvalid):
            read_entries(path)


def test_a_server_does_not_start_over_a_file_that_does_not_hold(start_server: Any, tmp_path: Path) -> None:
    with pytest.raises(ClientsFileInvalid, match="issuer"):
        start_server(**protected(clients_file(tmp_path, GOOD | {"issuer": None})))


# -- the commands


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        env |= {
            "HOME": str(tmp_path),
            "COLUMNS": "160",
            "PYTHONUTF8": "1",
            "CDS_VAR_DIR": str(tmp_path / "var"),
        }
        command = [sys.executable, "-c", "from cds_server.cli import main; main()", *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=env | environment, timeout=300, check=False
        )

    return call


def test_check_shows_the_clients_and_fetches_only_when_told(run: Any, tmp_path: Path) -> None:
    by_hand = tmp_path / "by-hand.json"
    by_hand.write_text(json.dumps(Ehr().key_set()))
    with published(Ehr()) as ehr:
        file = clients_file(
            tmp_path,
            {"name": "fetched", "issuer": ehr.issuer, "jku": ehr.jku, "tenants": ["north"]},
            {"name": "by-hand", "issuer": "https://by-hand.example", "jwks_file": "by-hand.json"},
        )
        shown = run("clients", "check", str(file))
        assert shown.returncode == 0, shown.stderr
        assert ehr.asked == 0
        for text in ("fetched", ehr.issuer, "north", "by-hand.json: 1 × P-384, 1 × RSA", "not asked"):
            assert text in shown.stdout
        asked = run("clients", "check", "--fetch", str(file))
        assert asked.returncode == 0 and ehr.asked == 1
        assert "from jku: 1 × P-384, 1 × RSA" in asked.stdout
        ehr.misbehave = "down"
        failing = run("clients", "check", "--fetch", str(file))
        assert failing.returncode == 1 and "http-503" in failing.stdout
        assert "cannot be had" in failing.stderr


def test_check_says_what_is_wrong(run: Any, tmp_path: Path) -> None:
    done = run("clients", "check", str(clients_file(tmp_path, GOOD | {"issuer": None})))
    assert done.returncode == 1
    assert "client ehr: issuer: required: add it" in done.stderr and "Traceback" not in done.stderr


def test_serve_says_what_is_wrong(run: Any, tmp_path: Path) -> None:
    file = clients_file(tmp_path, GOOD | {"jku": "http://ehr.example/keys"})
    for workers in ("1", "2"):
        done = run(
            "serve",
            CDS_CLIENT_AUTH="required",
            CDS_TRUSTED_CLIENTS=str(file),
            CDS_PUBLIC_BASE_URL="https://cds.example",
            CDS_WORKERS=workers,
            CDS_MODEL_BUNDLE="none",
        )
        assert done.returncode == 2
        assert "client ehr: jku" in done.stderr and "Traceback" not in done.stderr


def test_what_runs_in_this_process_needs_no_token(run: Any, tmp_path: Path) -> None:
    file = clients_file(tmp_path, GOOD)
    done = run(
        "services",
        "--offline",
        CDS_HOST="0.0.0.0",
        CDS_TRUSTED_CLIENTS=str(file),
        CDS_PUBLIC_BASE_URL="https://cds.example",
        CDS_MODEL_BUNDLE="none",
        CDS_IP_ALLOWLIST="192.0.2.1",
    )
    assert done.returncode == 0, done.stderr
    assert "diagnostic-assessment" in done.stdout


@pytest.mark.parametrize(
    "servers", [["ehr.example/fhir"], ["https://u@ehr.example"], ["https://e/f", "https://E/f/"]]
)
def test_fhir_servers_are_base_urls_each_once(tmp_path: Path, servers: list[str]) -> None:
    [fault] = faults(clients_file(tmp_path, GOOD | {"fhir_servers": servers}))
    assert fault.startswith("client ehr: fhir_servers: ")
    assert "https://ehr.example/fhir" in fault or "once" in fault
    assert "u@" not in fault


def test_fhir_servers_are_kept_in_one_form(tmp_path: Path) -> None:
    listed = GOOD | {"fhir_servers": ["HTTPS://EHR.example:443/fhir/"]}
    found = load_clients(clients_file(tmp_path, listed))
    assert found.servers_of(GOOD["issuer"], None) == ("https://ehr.example/fhir",)
    assert found.servers_of("https://nobody.example", None) is None
