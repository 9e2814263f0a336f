"""Jobs that read an EHR (SMART Backend Services), the site's client keys, and the commands for both."""

import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir_standin import free_port
from smart_ehr import JOBS, StandinEhr, running
from smart_helpers import MovingClock, ehr_file, secret_file
from typer.testing import CliRunner

from cds_server.auth.outbound import Outbound, TokenRefused
from cds_server.cli import app
from cds_server.privacy import KeyMaterialInvalid
from cds_server.smart.backend import BackendAccess
from cds_server.smart.discovery import Discovery
from cds_server.smart.ehrs import Ehr, Ehrs, EhrsInvalid
from cds_server.smart.grants import ClientProof, Grants
from cds_server.smart.keys import ClientKeys
from fhir_adapters.client import FhirClient, FhirLimits, Query
from fhir_adapters.origin import AllowList

ANY = AllowList.parse("*")
cli = CliRunner()


@pytest.fixture
def standin() -> Iterator[StandinEhr]:
    with running(StandinEhr()) as ehr:
        yield ehr


@pytest.fixture
def keys(tmp_path: Path, standin: StandinEhr) -> ClientKeys:
    """The site's keys, whose public halves the EHR was given by hand."""
    made = ClientKeys(tmp_path / "keys")
    made.ensure(["ES384"])
    standin.register_jobs(made.published())
    return made


def registration(standin: StandinEhr, tmp_path: Path) -> Ehr:
    return Ehrs.load(ehr_file(tmp_path, standin), readable=ANY).entries[0]


async def test_a_job_reads_the_ehr_and_its_token_is_renewed(tmp_path: Path) -> None:
    ehr = StandinEhr()
    ehr.expires_in = 30
    with running(ehr):
        keys = ClientKeys(tmp_path / "keys")
        keys.ensure(["ES384"])
        ehr.register_jobs(keys.published())
        outbound, clock = Outbound(), MovingClock()
        grants = Grants(outbound, ClientProof(keys))
        backend = BackendAccess(registration(ehr, tmp_path), Discovery(outbound), grants, now=clock)
        query = Query("conditions", "Condition?patient=sepsis", ("Condition",))
        async with FhirClient(FhirLimits()) as fhir:
            for asked in (1, 1, 2):
                found = await fhir.fetch(await backend.access(), [query])
                assert found.answered == {"conditions"}
                assert ehr.told().count("/token") == asked
                clock.ahead += timedelta(seconds=8)  # after the second time past half of the token's life
        assert {(token.client_id, token.scope) for token in ehr.tokens} == {(JOBS, "system/*.rs")}
        for token in ehr.tokens:
            assert token.access_token not in repr(backend) + repr(await backend.tokens())
        await outbound.close()


async def test_a_key_the_ehr_does_not_know_gets_no_token(
    standin: StandinEhr, keys: ClientKeys, tmp_path: Path
) -> None:
    other = ClientKeys(tmp_path / "other")
    other.ensure(["ES384"])
    outbound = Outbound()
    backend = BackendAccess(
        registration(standin, tmp_path),
        Discovery(outbound),
        Grants(outbound, ClientProof(other)),
        now=MovingClock(),
    )
    with pytest.raises(TokenRefused, match="invalid_client"):
        await backend.access()
    await outbound.close()


# -- the commands


@pytest.fixture
def environment(tmp_path: Path, standin: StandinEhr) -> dict[str, str]:
    return {"CDS_SMART_EHRS": str(ehr_file(tmp_path, standin)), "CDS_VAR_DIR": str(tmp_path)}


def test_checking_an_ehr_shows_what_works(
    standin: StandinEhr, keys: ClientKeys, environment: dict[str, str]
) -> None:
    for name in (standin.iss, f"{standin.iss}/", "standin"):
        done = cli.invoke(app, ["ehr", "check", name], env=environment)
        assert done.exit_code == 0, done.output
    said = done.output
    assert "FHIR 4.0.1" in said
    assert "Patient: 1 in all" in said
    assert "granted system/*.rs" in said
    assert standin.tokens[0].access_token not in said
    assert "Ada" not in said


def test_checking_an_ehr_says_what_does_not_work(
    standin: StandinEhr, keys: ClientKeys, environment: dict[str, str]
) -> None:
    standin.clients.clear()
    done = cli.invoke(app, ["ehr", "check", "standin"], env=environment)
    assert done.exit_code == 1
    assert "does not work" in done.output
    standin.configuration = {"token_endpoint": "http://evil.example/token"}
    done = cli.invoke(app, ["ehr", "check", "standin"], env=environment)
    assert done.exit_code == 1
    assert "https is required" in done.output


def test_an_ehr_that_is_not_registered_is_not_asked(standin: StandinEhr, environment: dict[str, str]) -> None:
    done = cli.invoke(app, ["ehr", "check", f"http://127.0.0.1:{free_port()}/fhir"], env=environment)
    assert done.exit_code == 2
    assert standin.requests == []
    assert "standin" in cli.invoke(app, ["ehr", "list"], env=environment).output


def test_keys_are_made_rotated_and_retired_and_never_shown(tmp_path: Path) -> None:
    env = {"CDS_VAR_DIR": str(tmp_path)}
    for _ in range(2):
        assert cli.invoke(app, ["keys", "smart", "new"], env=env).exit_code == 0
    assert cli.invoke(app, ["keys", "smart", "new", "-a", "RS384"], env=env).exit_code == 0
    keys = ClientKeys(tmp_path / "keys")
    assert [(key.algorithm, key.number) for key in keys.all()] == [("ES384", 1), ("ES384", 2), ("RS384", 1)]
    assert keys.signing("ES384").number == 2
    listed = cli.invoke(app, ["keys", "smart", "list"], env=env).output
    for path in (tmp_path / "keys").glob("smart-*.jwk"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert json.loads(path.read_text())["d"] not in listed
    assert cli.invoke(app, ["keys", "smart", "retire", "2"], env=env).exit_code == 2  # in use
    assert cli.invoke(app, ["keys", "smart", "retire", "1"], env=env).exit_code == 0
    assert [key["kid"] for key in keys.published()["keys"]] == [key.kid for key in keys.all()]
    assert len(keys.all()) == 2
    assert cli.invoke(app, ["keys", "smart", "new", "-a", "HS256"], env=env).exit_code == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("smart-ES384-1.jwk", "{}"),
        ("smart-ES384-1.jwk", "not json"),
        ("smart-ES384-1.jwk", '{"kty":"oct","k":"AAAA"}'),
        ("smart-HS256-1.jwk", '{"kty":"oct","k":"AAAA"}'),
        ("smart-ES384-0.jwk", "{}"),
    ],
)
def test_a_file_that_is_no_key_stops_the_start(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(KeyMaterialInvalid, match=name):
        ClientKeys(tmp_path).all()


def test_a_public_key_does_not_sign(tmp_path: Path) -> None:
    keys = ClientKeys(tmp_path)
    keys.ensure(["ES384"])
    (tmp_path / "smart-ES384-2.jwk").write_text(json.dumps(keys.all()[0].public()))
    with pytest.raises(KeyMaterialInvalid, match="not a private JWK"):
        keys.all()


# -- the file of EHRs

GOOD: dict[str, Any] = {"name": "one", "iss": "https://ehr.example/fhir", "client_id": "app"}


def toml(*entries: dict[str, Any]) -> str:
    return "\n".join(
        "[[ehr]]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in entry.items())
        for entry in entries
    )


def test_the_least_entry_is_enough() -> None:
    (ehr,) = Ehrs.parse(toml(GOOD), readable=ANY).entries
    assert ehr.client_auth == "private_key_jwt"
    assert ehr.callback_path == "/smart/callback"
    assert {"openid", "fhirUser", "launch"} <= set(ehr.scope.split())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "A b"}, "name must be"),
        ({"name": "../x"}, "name must be"),
        ({"iss": "http://ehr.example/fhir"}, "https is required"),
        ({"iss": "https://user:pw@ehr.example/fhir"}, "not a plain absolute URL"),
        ({"iss": "https://ehr.example/fhir?x=1"}, "no query"),
        ({"client_id": ""}, "client_id is missing"),
        ({"client_id": "a b"}, "printable ASCII"),
        ({"client_auth": "none"}, "client_auth"),
        ({"client_auth": "client_secret_basic"}, "client_secret_file cannot be read"),
        ({"client_secret_file": "/x"}, "only for"),
        ({"algorithm": "HS256"}, "algorithm"),
        ({"scope": "launch patient/*.rs"}, "openid and fhirUser"),
        ({"scope": "openid fhirUser"}, "must hold launch"),
        ({"scope": "launch  openid fhirUser"}, "one space"),
        ({"standalone_scope": "openid"}, "standalone_scope"),
        ({"roles": ["auditor"]}, "roles must be of"),
        ({"roles": []}, "roles must be of"),
        ({"redirect": "https://evil.example"}, "redirect"),
    ],
)
def test_an_entry_that_does_not_hold_says_where(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EhrsInvalid, match=said):
        Ehrs.parse(toml({**GOOD, **changes}), readable=ANY)


def test_an_ehr_must_be_on_the_allow_list_of_fhir_servers() -> None:
    with pytest.raises(EhrsInvalid, match="CDS_FHIR_SERVER_ALLOWLIST"):
        Ehrs.parse(toml(GOOD), readable=AllowList.parse("https://other.example"))
    assert Ehrs.parse(toml(GOOD), readable=AllowList.parse("https://ehr.example")).by_iss(GOOD["iss"] + "/")


def test_ehrs_do_not_share_a_callback() -> None:
    other = {**GOOD, "name": "two", "iss": "https://two.example/fhir"}
    with pytest.raises(EhrsInvalid, match="own_callback"):
        Ehrs.parse(toml(GOOD, other), readable=ANY)
    entries = Ehrs.parse(toml(GOOD, {**other, "own_callback": True}), readable=ANY).entries
    assert [ehr.callback_path for ehr in entries] == ["/smart/callback", "/smart/callback/two"]
    with pytest.raises(EhrsInvalid, match="same iss"):
        Ehrs.parse(toml(GOOD, {**GOOD, "name": "two", "own_callback": True}), readable=ANY)


def test_a_secret_comes_from_its_file_and_shows_nowhere(tmp_path: Path) -> None:
    entry = {**GOOD, "client_auth": "client_secret_basic", "client_secret_file": secret_file(tmp_path)}
    (ehr,) = Ehrs.parse(toml(entry), readable=ANY).entries
    assert ehr.secret() == "s3cret-of:the client"
    assert ehr.secret() not in repr(ehr)
