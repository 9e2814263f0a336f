"""Two EHRs that use one id for two people: whose data is found, given out, held and erased."""

import asyncio
import base64
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from audit_helpers import NOON, decision, rows
from auth_helpers import Ehr, protected, published
from decisions_helpers import bundle_of_example, call, replays
from server_helpers import ASSESSMENT, Running, example, minimal
from test_audit_search import record_all

from cds_server import authorities, desk_privacy, desk_retention
from cds_server.audit import digest, new_id
from cds_server.auth.principal import ANONYMOUS, Principal, Role
from cds_server.authorities import UNNAMED, Authority, Identity
from cds_server.cli_desk import NotDone
from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.decisions.destruction import Destruction
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.stored import Circumstances
from cds_server.desk_patient import Whom
from cds_server.site_keys import site_keys
from cds_server.state import Knowledge

Start = Callable[..., Running]
NORTH, SOUTH = "http://127.0.0.1:9/north", "http://127.0.0.1:9/south"
EAST, WEST = "http://127.0.0.1:9/east", "http://127.0.0.1:9/west"


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


async def payloads(server: Running, action: str) -> list[dict[str, Any]]:
    """What is recorded of an activity, oldest first."""
    query = f"SELECT payload FROM events WHERE action = '{action}' ORDER BY seq"
    return [json.loads(payload) for (payload,) in await rows(server.database_url, query)]


def of(server: Running, *names: str, kind: str = "patient", value: str = "") -> list[str]:
    """The pseudonyms of the patient by authority."""
    make = server.house.pseudonymiser.pseudonym
    return [make(kind, value or patient(), name) for name in names]


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
    """Clients of which two list their servers."""

    servers: ClassVar[dict[str, tuple[str, ...]]] = {
        "https://listed.example": (NORTH, SOUTH),
        "https://single.example": (WEST,),
        "https://ehr.example": (),
    }

    def servers_of(self, issuer: str, tenant: str | None) -> tuple[str, ...] | None:
        return self.servers.get(issuer)

    def listed(self, server: str) -> bool:
        return any(server in servers for servers in self.servers.values())


def client(issuer: str, tenant: str | None = None) -> Principal:
    return Principal("client", issuer, issuer, frozenset({Role.CDS_CLIENT}), tenant=tenant)


def user(fhir_user: str | None) -> Principal:
    return Principal("user", "sub", "https://idp.example", frozenset({Role.CLINICIAN}), fhir_user=fhir_user)


@pytest.mark.parametrize(
    ("principal", "server", "expected"),
    [
        (ANONYMOUS, None, Authority(UNNAMED)),
        (ANONYMOUS, EAST + "/", Authority(EAST)),
        (ANONYMOUS, "not a server", Authority("other:not a server")),
        (ANONYMOUS, NORTH, Authority(NORTH, theirs=False)),
        (client("https://ehr.example"), None, Authority("client:https://ehr.example")),
        (client("https://ehr.example", "west"), None, Authority("client:https://ehr.example|west")),
        (client("https://ehr.example"), EAST, Authority(EAST)),
        (client("https://ehr.example"), NORTH, Authority(NORTH, theirs=False)),
        (client("https://single.example"), None, Authority(WEST)),
        (client("https://single.example"), WEST + "/", Authority(WEST)),
        (client("https://single.example"), "nonsense", Authority("other:nonsense", theirs=False)),
        (
            client("https://ehr.example"),
            "client:https://x.example",
            Authority("other:client:https://x.example"),
        ),
        (client("https://gone.example"), NORTH, Authority("client:https://gone.example", theirs=False)),
        (client("https://listed.example"), None, Authority("client:https://listed.example")),
        (client("https://listed.example"), SOUTH, Authority(SOUTH)),
        (client("https://listed.example"), WEST, Authority(WEST, theirs=False)),
        (user(None), None, Authority(UNNAMED)),
        (user(f"{NORTH}/Practitioner/1"), None, Authority(NORTH)),
        (user(f"{NORTH}/Practitioner/1"), SOUTH, Authority(SOUTH)),
    ],
)
def test_the_authority_of_a_call(principal: Principal, server: str | None, expected: Authority) -> None:
    assert authorities.of_call(principal, Listed(), server) == expected


# -- two people


async def test_one_id_at_two_servers_is_two_people(site: Running) -> None:
    north, south = of(site, NORTH, SOUTH)
    assert [one["patient"] for one in await payloads(site, "hook-call")] == [north, south]
    for table in ("patient_keys", "stored_decisions"):
        subjects = await rows(site.database_url, f"SELECT subject FROM {table}")
        assert {subject for (subject,) in subjects} == {north, south}


async def test_the_auditor_finds_both_by_the_bare_id_and_each_by_its_server(site: Running) -> None:
    north, south = of(site, NORTH, SOUTH)

    def found(query: str) -> set[str]:
        answer = site.client.get(f"/fhir/AuditEvent?subtype=hook-call&{query}").json()
        entities = [entity for entry in answer.get("entry", ()) for entity in entry["resource"]["entity"]]
        return {
            one["what"]["identifier"]["value"] for one in entities if one["what"].get("type") == "Patient"
        }

    assert found(f"patient={patient()}") == {north, south}
    assert found(f"patient=Patient/{patient()}") == {north, south}
    assert found(f"patient={SOUTH}/Patient/{patient()}") == {south}
    assert found(f"patient={NORTH}%7C{patient()}") == {north}
    assert found(f"patient={north}") == {north}
    assert found(f"patient={NORTH}/Patient/{patient()},{south}") == {north, south}
    assert found("patient=somebody-else") == set()
    # What says of no system whose it is, is shown to whoever asks for one of them.
    call(site, "sepsis")
    [unnamed] = of(site, "")
    assert found(f"patient={NORTH}%7C{patient()}") == {north, unnamed}
    assert found(f"patient={patient()}") == {north, south, unnamed}


async def test_users_of_two_servers_are_two_people(site: Running) -> None:
    user: str = example("sepsis")["context"]["userId"]
    assert [one["user"] for one in await payloads(site, "hook-call")] == of(
        site, NORTH, SOUTH, kind="user", value=user
    )

    def count(agent: str) -> int:
        answer = site.client.get(f"/fhir/AuditEvent?subtype=hook-call&agent={agent}&_summary=count")
        total: int = answer.json()["total"]
        return total

    assert (count(user), count(f"{NORTH}/{user}"), count(f"{NORTH}%7C{user}")) == (2, 1, 1)
    assert count(f"http://127.0.0.1:9/west/{user}") == 0


async def test_a_search_costs_the_same_however_many_systems_there_are(site: Running) -> None:
    for number in range(8):
        call(site, "sepsis", fhirServer=f"http://127.0.0.1:9/more-{number}")
    answer = site.client.get(f"/fhir/AuditEvent?patient={patient()}&_count=1").json()
    assert len(answer["link"][0]["url"]) < 200
    assert len(await payloads(site, "audit-searched")) == 1


# -- the data protection officer


async def test_an_export_never_guesses_whose_data_is_meant(site: Running, tmp_path: Path) -> None:
    settings = site.house.settings
    out = tmp_path / "export.zip"
    with pytest.raises(NotDone) as refused:
        await desk_privacy.export(settings, Whom(patient()), out)
    assert f"--server {NORTH}\n" in str(refused.value) and str(refused.value).endswith(f"--server {SOUTH}")
    assert not out.exists()
    assert [one["status"] for one in await payloads(site, "patient-exported")] == [409]
    await desk_privacy.export(settings, Whom(patient(), (NORTH + "/",)), out)
    assert [request["fhirServer"] for request in requests_in(out)] == [NORTH]
    out.unlink()
    await desk_privacy.export(settings, Whom(patient(), (of(site, SOUTH)[0],)), out)
    assert [request["fhirServer"] for request in requests_in(out)] == [SOUTH]
    out.unlink()
    await desk_privacy.export(settings, Whom(patient(), every=True), out)
    assert {request["fhirServer"] for request in requests_in(out)} == {NORTH, SOUTH}
    with pytest.raises(NotDone, match="holds nothing under this id"):
        await desk_privacy.export(settings, Whom(patient(), ("https://nobody.example",)), tmp_path / "no.zip")
    # Each person's record shows what was given out of it.
    told = [
        one["patient"] for one in await payloads(site, "patient-exported") if one.get("status", 200) == 200
    ]
    assert told == of(site, NORTH, SOUTH, NORTH, SOUTH)


async def test_asking_and_holding_make_nobody_a_patient(site: Running, tmp_path: Path) -> None:
    settings = site.house.settings
    call(site, "dka", fhirServer=NORTH)
    only: str = example("dka")["context"]["patientId"]
    site.client.get(f"/fhir/AuditEvent?patient={only}")
    site.client.get(f"/fhir/AuditEvent?patient={SOUTH}/Patient/{only}")
    held = await desk_retention.place(
        settings, patient=only, server=None, pseudonym=None, reason="claim", by="counsel"
    )
    await desk_retention.lift(settings, held, reason="settled", by="counsel")
    await desk_privacy.export(settings, Whom(only), tmp_path / "export.zip")
    assert len(requests_in(tmp_path / "export.zip")) == 1


def kept_before(server: Running, base: str) -> None:
    """A decision as it was recorded before pseudonyms told systems apart."""
    house = server.house
    [unnamed] = of(server, UNNAMED)
    body, answer, event_id, now = (
        json.dumps(example("sepsis") | {"fhirServer": base}).encode(),
        b"{}",
        new_id(),
        NOON,
    )
    then = Circumstances(
        kind="hook-call",
        service="diagnostic-assessment",
        language="en",
        now=now,
        software="",
        bundle=None,
        model="rules",
        knowledge="1",
    )
    sealed = house.keeper.seal(
        house.keeper.body(body, now), then, event_id=event_id, subject=unnamed, fetched=(), answer=answer
    )
    event = decision(
        event_id,
        recorded=now,
        action="hook-call",
        patient=unnamed,
        status=200,
        stored=sealed.outcome,
        stored_digest=sealed.digest,
        input_digest=digest(body),
        output_digest=digest(answer),
    )
    record_all(server, [event, *sealed.records])


async def test_what_was_kept_before_is_given_out_by_the_server_its_request_names(
    start_server: Start, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(database_url=database_url, model_bundle="none")
    settings, out = server.house.settings, tmp_path / "export.zip"
    for base in (NORTH, SOUTH):
        kept_before(server, base)
    with pytest.raises(NotDone, match="holds nothing under this id"):
        await desk_privacy.export(settings, Whom(patient(), (NORTH,)), out)
    call(server, "sepsis", fhirServer=NORTH)
    await desk_privacy.export(settings, Whom(patient(), (NORTH,)), out)
    assert [request["fhirServer"] for request in requests_in(out)] == [NORTH, NORTH]
    said = capsys.readouterr().out
    assert "Not touched: what is kept under this id of unnamed" in said
    assert "Left out: 1 events under this id" in said
    out.unlink()
    await desk_privacy.export(settings, Whom(patient(), ("unnamed",)), out)
    assert [request["fhirServer"] for request in requests_in(out)] == [NORTH, SOUTH]
    # A hold on a system's patient holds what may be theirs.
    asked: dict[str, Any] = {"patient": patient(), "pseudonym": None, "reason": "claim", "by": "counsel"}
    await desk_retention.place(settings, server=NORTH, **asked)
    with pytest.raises(NotDone, match="legal hold"):
        await desk_privacy.erase(settings, Whom(patient(), ("unnamed",)), confirmed=True)


async def test_an_erasure_leaves_the_other_servers_patient(
    site: Running, knowledge: Knowledge, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site.house.settings
    with pytest.raises(NotDone, match="2 systems"):
        await desk_privacy.erase(settings, Whom(patient()), confirmed=True)
    assert [one.result for one in await replays(settings, knowledge)] == ["identical", "identical"]
    await desk_privacy.erase(settings, Whom(patient(), (NORTH,)), confirmed=True)
    said = capsys.readouterr().out
    assert "Destroyed: 1 data keys, 1 decisions" in said
    assert f"Not touched: what is kept under this id of {SOUTH}." in said
    south, north = await replays(settings, knowledge)
    assert (south.result, north.reason) == ("identical", "erased")


async def test_an_erasure_of_every_system_holds_for_keys_that_come_later(
    site: Running, knowledge: Knowledge, capsys: pytest.CaptureFixture[str]
) -> None:
    """A spool may still hold a system's first call when the erasure is done."""
    settings = site.house.settings
    late, _ = of(site, "http://127.0.0.1:9/late", SOUTH)
    other = site.house.pseudonymiser.pseudonym("patient", "somebody-else", "http://127.0.0.1:9/late")
    keys = DataKeys(site_keys(settings).master, now=lambda: NOON)
    records = [keys.seal(subject, b"x", "y")[2] for subject in (late, other)]
    await desk_privacy.erase(settings, Whom(patient(), every=True), confirmed=True)
    assert "Destroyed: 2 data keys, 2 decisions" in capsys.readouterr().out
    assert [one.reason for one in await replays(settings, knowledge)] == ["erased", "erased"]
    record_all(site, records)
    assert await rows(site.database_url, "SELECT subject FROM patient_keys") == [(other,)]
    # A restored backup is erased again, systems included that the noted erasure did not know by name.
    await desk_privacy.reapply(settings)
    assert "1 erasures known" in capsys.readouterr().out


async def test_one_server_alone_needs_no_naming(start_server: Start) -> None:
    server = start_server(model_bundle="none")
    call(server, "sepsis", fhirServer=NORTH)
    call(server, "dka", fhirServer=SOUTH)
    await desk_privacy.erase(server.house.settings, Whom(patient()), confirmed=True)
    assert await rows(server.database_url, "SELECT count(*) FROM stored_decisions") == [(1,)]


async def test_a_hold_on_an_id_holds_every_servers_patient_and_one_on_a_server_its_own(
    site: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site.house.settings
    asked: dict[str, Any] = {"patient": patient(), "pseudonym": None, "reason": "claim", "by": "counsel"}
    every = await desk_retention.place(settings, server=None, **asked)
    for whom in (Whom(patient(), (NORTH,)), Whom(patient(), (SOUTH,)), Whom(patient(), every=True)):
        with pytest.raises(NotDone, match="legal hold"):
            await desk_privacy.erase(settings, whom, confirmed=True)
    await desk_retention.lift(settings, every, reason="settled", by="counsel")
    await desk_retention.place(settings, server=NORTH, **asked)
    await desk_retention.list_holds(settings)
    assert "north" in capsys.readouterr().out
    for whom in (Whom(patient(), (NORTH,)), Whom(patient(), every=True)):
        with pytest.raises(NotDone, match="legal hold"):
            await desk_privacy.erase(settings, whom, confirmed=True)
    await desk_privacy.erase(settings, Whom(patient(), (SOUTH,)), confirmed=True)


async def test_a_hold_takes_the_names_that_an_erasure_takes_and_no_other(
    site: Running, start_server: Start, tmp_path: Path
) -> None:
    settings = site.house.settings
    asked: dict[str, Any] = {"patient": patient(), "pseudonym": None, "reason": "claim", "by": "counsel"}
    with pytest.raises(NotDone, match="holds nothing under this id"):
        await desk_retention.place(settings, server="http://127.0.0.1:9/nroth", **asked)
    [south] = of(site, SOUTH)
    await desk_retention.place(settings, server=south, **asked)
    for server in (SOUTH, south):
        with pytest.raises(NotDone, match="legal hold"):
            await desk_privacy.erase(settings, Whom(patient(), (server,)), confirmed=True)
    # A system that the site's settings name may be held before anything is recorded of it.
    other = start_server(model_bundle="none", fhir_server_allowlist=WEST).house.settings
    await desk_retention.place(other, server=WEST + "/", **asked)


async def test_an_erasure_of_somebody_nobody_has_seen_holds_for_what_comes_later(
    site: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site.house.settings
    keys = DataKeys(site_keys(settings).master, now=lambda: NOON)
    records = [keys.seal(subject, b"x", "y")[2] for subject in of(site, NORTH, UNNAMED, value="later")]
    await desk_privacy.erase(settings, Whom("later"), confirmed=True)
    assert "Destroyed: 0 data keys" in capsys.readouterr().out
    record_all(site, records)
    kept = {one for (one,) in await rows(site.database_url, "SELECT subject FROM patient_keys")}
    assert kept == set(of(site, NORTH, SOUTH))


async def test_the_schema_is_not_taken_back_once_systems_are_told_apart(site: Running) -> None:
    with pytest.raises(RuntimeError, match="cannot be taken back"):
        await asyncio.to_thread(migrate.downgrade, site.database_url, "0006")


async def test_retention_keeps_what_is_held_of_one_system_and_destroys_the_others(
    site: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = site.house.settings
    await desk_retention.place(
        settings, patient=patient(), server=NORTH, pseudonym=None, reason="claim", by="counsel"
    )
    engine = create_engine(site.database_url)
    destruction = Destruction(engine)
    held = await destruction.subjects_of(of(site, NORTH))
    later = NOON.replace(year=2200)
    assert await destruction.expired(later, held) == (1, 1, 2)
    gone = [part async for part in destruction.expire(later, held, later)]
    assert sum(part.decisions for part in gone) == 1 and sum(part.keys for part in gone) == 1
    await engine.dispose()
    assert await rows(site.database_url, "SELECT subject FROM stored_decisions") == [(of(site, NORTH)[0],)]


async def test_after_a_rotation_everybody_is_still_found(
    start_server: Start, database_url: str, tmp_path: Path
) -> None:
    server = start_server(database_url=database_url, model_bundle="none")
    for base in (NORTH, SOUTH):
        call(server, "sepsis", fhirServer=base)
    settings = server.house.settings
    (settings.var_dir / "keys" / "pseudonym-2.key").write_bytes(base64.b64encode(b"r" * 32))
    out = tmp_path / "export.zip"
    for whom, expected in (
        (Whom(patient(), (SOUTH,)), [SOUTH]),
        (Whom(patient(), every=True), [NORTH, SOUTH]),
    ):
        await desk_privacy.export(settings, whom, out)
        assert [request["fhirServer"] for request in requests_in(out)] == expected
        out.unlink()


# -- callers


async def test_a_client_speaks_of_its_own_servers_patients_only(start_server: Start, tmp_path: Path) -> None:
    with published(Ehr()) as ehr:
        listed = ehr.file(tmp_path, fhir_servers=[NORTH])
        server = start_server(model_bundle="none", **protected(listed))
        for other in (SOUTH, "http://127.0.0.1:9/south wing", f"{NORTH}/Patient/1?x"):
            refused = server.post(ASSESSMENT, minimal(fhirServer=other), headers=ehr.headers(ASSESSMENT))
            assert refused.status_code == 403
            assert "fhir_servers" in refused.text and other not in refused.text
        for request in (minimal(fhirServer=NORTH + "/"), minimal()):
            assert server.post(ASSESSMENT, request, headers=ehr.headers(ASSESSMENT)).status_code == 200
        bundle = bundle_of_example("sepsis")
        for entry in bundle["entry"]:
            if entry["resource"]["resourceType"] == "Patient":
                entry["fullUrl"] = f"{SOUTH}/Patient/{entry['resource']['id']}"
        answer = server.post("/fhir/$assess", bundle, headers=ehr.headers("/fhir/$assess"))
        assert answer.status_code == 403
    told = [(one["status"], one["patient"], one["user"]) for one in await payloads(server, "hook-call")]
    # What was refused is recorded, and is in nobody's record.
    person = of(server, NORTH, value="p")[0]
    somebody = of(server, NORTH, kind="user", value="Practitioner/1")[0]
    assert told == [(403, None, None)] * 3 + [(200, person, somebody)] * 2
    assert [one["reason"] for one in await payloads(server, "access-denied")] == ["fhir-server"]


async def test_two_clients_that_name_no_server_have_patients_of_their_own(
    start_server: Start, tmp_path: Path
) -> None:
    with published(Ehr()) as ehr:
        server = start_server(model_bundle="none", **protected(ehr.file(tmp_path, tenants=["a", "b"])))
        for tenant in ("a", "b"):
            answer = server.post(ASSESSMENT, minimal(), headers=ehr.headers(ASSESSMENT, tenant=tenant))
            assert answer.status_code == 200, answer.text
    found = [one["patient"] for one in await payloads(server, "hook-call")]
    assert found == of(server, f"client:{ehr.issuer}|a", f"client:{ehr.issuer}|b", value="p")
    with pytest.raises(NotDone) as refused:
        await desk_privacy.erase(server.house.settings, Whom("p"), confirmed=True)
    assert f"--server client:{ehr.issuer}|a" in str(refused.value)
    await desk_privacy.erase(server.house.settings, Whom("p", (f"{ehr.issuer}|a",)), confirmed=True)
    left = await rows(server.database_url, "SELECT subject FROM stored_decisions")
    assert left == [(found[1],)]


@pytest.mark.parametrize(
    ("principal", "decided_by", "allowed"),
    [
        (client("https://ehr.example"), "https://ehr.example", True),
        (client("https://ehr.example", "a"), "https://ehr.example|b", False),
        (client("https://ehr.example"), None, False),
        (user(f"{NORTH}/Practitioner/1"), None, True),
        (user(f"{SOUTH}/Practitioner/1"), "https://ehr.example", False),
        (user(None), None, True),
    ],
)
def test_who_is_no_auditor_reads_what_is_theirs(
    principal: Principal, decided_by: str | None, allowed: bool
) -> None:
    assert authorities.may_read(principal, decided_by, lambda system: system == NORTH) is allowed


async def test_a_past_decision_is_read_by_the_ehr_that_asked_for_it(
    start_server: Start, tmp_path: Path
) -> None:
    with published(Ehr()) as ehr:
        roles = {"tenants": ["a", "b"], "roles": ["cds-client", "clinician"]}
        server = start_server(model_bundle="none", **protected(ehr.file(tmp_path, **roles)))
        answer = server.post(ASSESSMENT, minimal(), headers=ehr.headers(ASSESSMENT, tenant="a"))
        assert answer.status_code == 200
        [decided] = await payloads(server, "hook-call")
        path = f"/fhir/RiskAssessment/{decided['event_id']}"
        found = {t: server.client.get(path, headers=ehr.headers(path, tenant=t)).status_code for t in "ab"}
    assert found == {"a": 200, "b": 404}
    told = [(one.get("status", 200), one["patient"]) for one in await payloads(server, "decision-read")]
    assert told == [(200, decided["patient"]), (403, decided["patient"])]


async def test_an_assessed_bundle_is_of_the_server_its_patient_is_at(start_server: Start) -> None:
    server = start_server(model_bundle="none")
    bundle = bundle_of_example("sepsis")
    assert server.post("/fhir/$assess", bundle).status_code == 200
    for entry in bundle["entry"]:
        entry["fullUrl"] = f"{NORTH}/{entry['resource']['resourceType']}/{entry['resource']['id']}"
    assert server.post("/fhir/$assess", bundle).status_code == 200
    assert [one["patient"] for one in await payloads(server, "assess")] == of(server, UNNAMED, NORTH)
