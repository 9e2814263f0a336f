"""Two EHRs that use one id for two people: whose data is found, given out, held and erased."""

import base64
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import rows
from auth_helpers import BASE, Ehr, protected, published
from decisions_helpers import bundle_of_example, call, command, replays
from server_helpers import ASSESSMENT, Running, example, minimal
from sqlalchemy import text

from cds_server import authorities, desk_privacy, desk_retention
from cds_server.auth.principal import ANONYMOUS, Principal, Role
from cds_server.authorities import UNNAMED, Authority, Identity
from cds_server.cli_desk import NotDone
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite
from cds_server.desk_patient import Whom
from cds_server.people import known_authorities
from cds_server.privacy import Cipher, DecryptionFailed
from cds_server.site_keys import site_keys
from cds_server.state import Knowledge

Start = Callable[..., Running]
NORTH, SOUTH = "http://127.0.0.1:9/north", "http://127.0.0.1:9/south"


@pytest.fixture
def site(start_server: Start, database_url: str) -> Running:
    """A server without a trained model, on either database, that two EHRs called about one id."""
    server = start_server(database_url=database_url, model_bundle="none")
    server.database_url = database_url
    for base in (NORTH, SOUTH):
        call(server, "sepsis", fhirServer=base)
    return server


def patient() -> str:
    found: str = example("sepsis")["context"]["patientId"]
    return found


async def names(server: Running) -> dict[str | None, str]:
    """The names of authorities by what events call them."""
    engine = create_engine(server.database_url)
    try:
        cipher = Cipher(site_keys(server.house.settings).cipher)
        return {None: UNNAMED} | {one.digest: one.name for one in await known_authorities(engine, cipher)}
    finally:
        await engine.dispose()


async def payloads(server: Running, action: str) -> list[dict[str, Any]]:
    """What is recorded of an activity, oldest first."""
    query = f"SELECT payload FROM events WHERE action = '{action}' ORDER BY seq"
    return [json.loads(payload) for (payload,) in await rows(server.database_url, query)]


async def decided(server: Running) -> dict[str, str]:
    """The pseudonym of the patient of each decision, by the authority's name."""
    named = await names(server)
    return {named[one["authority"]]: one["patient"] for one in await payloads(server, "hook-call")}


def requests_in(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        return [json.loads(archive.read(n)) for n in archive.namelist() if n.endswith("request.json")]


# -- what a call speaks of


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://ehr.example/fhir", "https://ehr.example/fhir"),
        ("HTTPS://EHR.Example:443/fhir/", "https://ehr.example/fhir"),
        ("http://ehr.example:8080", "http://ehr.example:8080"),
        ("https://ehr.example/fhir?x=1", None),
        ("https://u:p@ehr.example/fhir", None),
        ("ehr.example/fhir", None),
        ("", None),
        (None, None),
    ],
)
def test_a_server_has_one_name_however_it_is_written(url: str | None, base: str | None) -> None:
    assert authorities.base_of(url) == base


@pytest.mark.parametrize(
    ("reference", "identity"),
    [
        ("Practitioner/1", Identity(UNNAMED, "Practitioner/1")),
        ("https://EHR.example/fhir/Practitioner/1", Identity("https://ehr.example/fhir", "Practitioner/1")),
        ("1", Identity(UNNAMED, "1")),
        ("", Identity(UNNAMED, "")),
        ("//Practitioner/1", Identity(UNNAMED, "//Practitioner/1")),
        ("urn:uuid:1/2/3", Identity(UNNAMED, "urn:uuid:1/2/3")),
    ],
)
def test_a_reference_names_its_server_or_none(reference: str, identity: Identity) -> None:
    assert authorities.of_reference(reference) == identity


class Listed:
    """Clients of which one lists its servers."""

    def servers_of(self, issuer: str, tenant: str | None) -> tuple[str, ...]:
        return (NORTH, SOUTH) if issuer == "https://listed.example" else ()


def client(issuer: str, tenant: str | None = None) -> Principal:
    return Principal("client", issuer, issuer, frozenset({Role.CDS_CLIENT}), tenant=tenant)


def user(fhir_user: str | None) -> Principal:
    return Principal("user", "sub", "https://idp.example", frozenset({Role.CLINICIAN}), fhir_user=fhir_user)


@pytest.mark.parametrize(
    ("principal", "server", "expected"),
    [
        (ANONYMOUS, None, Authority(UNNAMED)),
        (ANONYMOUS, NORTH + "/", Authority(NORTH)),
        (ANONYMOUS, "not a server", Authority(UNNAMED)),
        (client("https://ehr.example"), None, Authority("https://ehr.example")),
        (client("https://ehr.example", "west"), None, Authority("https://ehr.example|west")),
        (client("https://ehr.example"), NORTH, Authority(NORTH)),
        (client("https://listed.example"), None, Authority(NORTH)),
        (client("https://listed.example"), SOUTH, Authority(SOUTH)),
        (client("https://listed.example"), "https://other.example", Authority(NORTH, theirs=False)),
        (user(None), None, Authority(UNNAMED)),
        (user(f"{NORTH}/Practitioner/1"), None, Authority(NORTH)),
        (user(f"{NORTH}/Practitioner/1"), SOUTH, Authority(SOUTH)),
    ],
)
def test_the_authority_of_a_call(principal: Principal, server: str | None, expected: Authority) -> None:
    assert authorities.of_call(principal, Listed(), server) == expected


# -- two people


async def test_one_id_at_two_servers_is_two_people(site: Running) -> None:
    of = await decided(site)
    assert set(of) == {NORTH, SOUTH}
    assert of[NORTH] != of[SOUTH]
    for table in ("patient_keys", "stored_decisions"):
        subjects = await rows(site.database_url, f"SELECT subject FROM {table}")
        assert {subject for (subject,) in subjects} == set(of.values())
    # A name comes from the caller and may hold anything: it is sealed.
    known = await rows(site.database_url, "SELECT * FROM assigning_authorities")
    assert len(known) == 2 and "127.0.0.1" not in str(known)


async def test_the_auditor_finds_both_by_the_bare_id_and_each_by_its_server(site: Running) -> None:
    of, named = await decided(site), await names(site)

    def found(query: str) -> set[str]:
        answer = site.client.get(f"/fhir/AuditEvent?subtype=hook-call&{query}").json()
        entities = [
            entity
            for entry in answer.get("entry", ())
            for entity in entry["resource"]["entity"]
            if entity["what"].get("type") == "Patient"
        ]
        for entity in entities:
            [authority] = [one["valueString"] for one in entity["detail"]]
            assert entity["what"]["identifier"]["value"] == of[named[authority]]
        return {entity["what"]["identifier"]["value"] for entity in entities}

    assert found(f"patient={patient()}") == set(of.values())
    assert found(f"patient=Patient/{patient()}") == set(of.values())
    assert found(f"patient={SOUTH}/Patient/{patient()}") == {of[SOUTH]}
    assert found(f"patient={NORTH}%7C{patient()}") == {of[NORTH]}
    assert found("patient=somebody-else") == set()
    # Who was asked about is recorded for each of them.
    asked = "SELECT patient_pseudonym FROM events WHERE action = 'audit-searched'"
    searched = {one for (one,) in await rows(site.database_url, asked)}
    assert set(of.values()) <= searched


async def test_users_of_two_servers_are_two_people(site: Running) -> None:
    query = "SELECT user_pseudonym FROM events WHERE action = 'hook-call'"
    assert len({one for (one,) in await rows(site.database_url, query)}) == 2


async def test_what_was_recorded_before_there_were_authorities_is_found_by_the_bare_id(site: Running) -> None:
    call(site, "sepsis")  # names no server, as everything did then
    answer = site.client.get(f"/fhir/AuditEvent?subtype=hook-call&patient={patient()}&_summary=count")
    assert answer.json()["total"] == 3


# -- the data protection officer


async def test_an_export_never_guesses_whose_data_is_meant(site: Running, tmp_path: Path) -> None:
    settings = site.house.settings
    out = tmp_path / "export.zip"
    with pytest.raises(NotDone) as refused:
        await desk_privacy.export(settings, Whom(patient()), out)
    assert NORTH in str(refused.value) and SOUTH in str(refused.value) and "--server" in str(refused.value)
    assert not out.exists()
    refusals = "SELECT count(*) FROM events WHERE action = 'patient-exported' AND status = 409"
    assert await rows(site.database_url, refusals) == [(1,)]
    await desk_privacy.export(settings, Whom(patient(), (NORTH + "/",)), out)
    assert [request["fhirServer"] for request in requests_in(out)] == [NORTH]
    out.unlink()
    await desk_privacy.export(settings, Whom(patient(), every=True), out)
    assert {request["fhirServer"] for request in requests_in(out)} == {NORTH, SOUTH}
    with pytest.raises(NotDone, match="Known are: unnamed, "):
        await desk_privacy.export(settings, Whom(patient(), ("https://nobody.example",)), tmp_path / "no.zip")


async def test_an_erasure_leaves_the_other_servers_patient(
    site: Running, knowledge: Knowledge, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site.house.settings
    with pytest.raises(NotDone, match="2 systems"):
        await desk_privacy.erase(settings, Whom(patient()), confirmed=True)
    assert [one.result for one in await replays(settings, knowledge)] == ["identical", "identical"]
    await desk_privacy.erase(settings, Whom(patient(), (NORTH,)), confirmed=True)
    assert "Destroyed: 1 data keys, 1 decisions" in capsys.readouterr().out
    south, north = await replays(settings, knowledge)
    assert (south.result, north.reason) == ("identical", "erased")
    # Keys are gone, events are not: both systems still hold something under the id.
    with pytest.raises(NotDone, match="2 systems"):
        await desk_privacy.erase(settings, Whom(patient()), confirmed=True)


async def test_one_server_alone_needs_no_naming(start_server: Start) -> None:
    server = start_server(model_bundle="none")
    call(server, "sepsis", fhirServer=NORTH)
    call(server, "dka", fhirServer=SOUTH)
    await desk_privacy.erase(server.house.settings, Whom(patient()), confirmed=True)
    left = await rows(server.database_url, "SELECT count(*) FROM stored_decisions")
    assert left == [(1,)]


async def test_a_hold_on_an_id_holds_every_servers_patient_and_one_on_a_server_its_own(
    site: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site.house.settings
    asked: dict[str, Any] = {"patient": patient(), "pseudonym": None, "reason": "claim", "by": "counsel"}
    every = await desk_retention.place(settings, server=None, **asked)
    for base in (NORTH, SOUTH):
        with pytest.raises(NotDone, match="legal hold"):
            await desk_privacy.erase(settings, Whom(patient(), (base,)), confirmed=True)
    await desk_retention.lift(settings, every, reason="settled", by="counsel")
    await desk_retention.place(settings, server=NORTH, **asked)
    await desk_retention.list_holds(settings)
    assert "north" in capsys.readouterr().out
    with pytest.raises(NotDone, match="legal hold"):
        await desk_privacy.erase(settings, Whom(patient(), (NORTH,)), confirmed=True)
    await desk_privacy.erase(settings, Whom(patient(), (SOUTH,)), confirmed=True)


# -- callers


async def test_a_client_speaks_of_its_own_servers_patients_only(start_server: Start, tmp_path: Path) -> None:
    with published(Ehr()) as ehr:
        listed = ehr.file(tmp_path, fhir_servers=[NORTH])
        server = start_server(model_bundle="none", **protected(listed))
        refused = server.post(ASSESSMENT, minimal(fhirServer=SOUTH), headers=ehr.headers(ASSESSMENT))
        assert refused.status_code == 403
        assert "fhir_servers" in refused.text and SOUTH not in refused.text
        for request in (minimal(fhirServer=NORTH + "/"), minimal()):
            assert server.post(ASSESSMENT, request, headers=ehr.headers(ASSESSMENT)).status_code == 200
        bundle = bundle_of_example("sepsis")
        for entry in bundle["entry"]:
            if entry["resource"]["resourceType"] == "Patient":
                entry["fullUrl"] = f"{SOUTH}/Patient/{entry['resource']['id']}"
        answer = server.post("/fhir/$assess", bundle, headers=ehr.headers("/fhir/$assess"))
        assert answer.status_code == 403
    named = await names(server)
    told = {(one["status"], named[one["authority"]]) for one in await payloads(server, "hook-call")}
    # What was refused is recorded, and not as of the server that it named.
    assert told == {(403, NORTH), (200, NORTH)}
    assert [one["reason"] for one in await payloads(server, "access-denied")] == ["fhir-server"]


async def test_two_clients_that_name_no_server_have_patients_of_their_own(
    start_server: Start, tmp_path: Path
) -> None:
    with published(Ehr()) as ehr:
        server = start_server(model_bundle="none", **protected(ehr.file(tmp_path, tenants=["a", "b"])))
        for tenant in ("a", "b"):
            answer = server.post(ASSESSMENT, minimal(), headers=ehr.headers(ASSESSMENT, tenant=tenant))
            assert answer.status_code == 200, answer.text
    assert set(await decided(server)) == {f"{ehr.issuer}|a", f"{ehr.issuer}|b"}
    assert BASE not in await decided(server)


async def test_an_assessed_bundle_is_of_the_server_its_patient_is_at(start_server: Start) -> None:
    server = start_server(model_bundle="none")
    bundle = bundle_of_example("sepsis")
    assert server.post("/fhir/$assess", bundle).status_code == 200
    for entry in bundle["entry"]:
        entry["fullUrl"] = f"{NORTH}/{entry['resource']['resourceType']}/{entry['resource']['id']}"
    assert server.post("/fhir/$assess", bundle).status_code == 200
    named = await names(server)
    assert [named[one["authority"]] for one in await payloads(server, "assess")] == [UNNAMED, NORTH]


async def test_the_names_of_systems_can_be_listed(site: Running) -> None:
    listed = command(site.house.settings, "audit", "authorities")
    assert listed.returncode == 0, listed.stderr
    assert NORTH in listed.stdout and SOUTH in listed.stdout


async def test_after_a_rotation_everybody_is_still_found(site: Running, tmp_path: Path) -> None:
    settings = site.house.settings
    key = base64.b64encode(b"r" * 32)
    for purpose in ("pseudonym", "cipher"):
        (settings.var_dir / "keys" / f"{purpose}-2.key").write_bytes(key)
    out = tmp_path / "export.zip"
    await desk_privacy.export(settings, Whom(patient(), (SOUTH,)), out)
    assert [request["fhirServer"] for request in requests_in(out)] == [SOUTH]


async def test_a_name_that_was_altered_stops_what_must_find_everybody(site: Running) -> None:
    engine = create_engine(site.database_url)
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO assigning_authorities VALUES ('p1-made-up', :now, 'c1.AAAA')"),
            {"now": "2026-11-26 00:00:00" if is_sqlite(site.database_url) else datetime.now(UTC)},
        )
    await engine.dispose()
    with pytest.raises(DecryptionFailed):
        await desk_privacy.erase(site.house.settings, Whom(patient(), (NORTH,)), confirmed=True)
    assert site.client.get(f"/fhir/AuditEvent?patient={patient()}").status_code == 503
