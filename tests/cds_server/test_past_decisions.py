"""`GET /fhir/RiskAssessment/{id}`: past decisions for who may read them, proven, or refused with the why."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from audit_helpers import rows, trail
from auth_helpers import Ehr, protected, published
from bundle_helpers import tiny_bundle, trusted_file
from decisions_helpers import ALL_EXAMPLES, ROOT, bundle_of_example, call, command
from fhir.resources.R4B import get_fhir_model_class
from rare_bundles import both
from server_helpers import ASSESSMENT, Running, empty_members, example, minimal, outcome, start
from sqlalchemy import text
from test_decision_replay import FORM, latest
from test_rare_enrolled_server import FAST, NAME, enroll, until, until_it_counts
from test_rare_enrolled_server import assess as assess_rare
from test_rare_enrolled_server import card as rare_card

from cds_server.audit import digest, new_id
from cds_server.auth.principal import Role
from cds_server.db.engine import create_engine
from cds_server.deployment.source import SHIPPED_BUNDLE
from cds_server.rare.record import FILE
from cds_server.state import Knowledge


async def newest(server: Running) -> str:
    found = await rows(
        server.house.settings.database_url,
        "SELECT event_id FROM events WHERE action IN ('hook-call', 'assess') ORDER BY seq DESC LIMIT 1",
    )
    event_id: str = found[0][0]
    return event_id


def read(server: Running, event_id: str, **options: Any) -> httpx.Response:
    return server.client.get(f"/fhir/RiskAssessment/{event_id}", **options)


async def reads(server: Running) -> list[tuple[int, str | None, str | None, list[str]]]:
    """Status, reason, patient and entities of each reading that is in the trail."""
    found = await rows(
        server.house.settings.database_url,
        "SELECT payload FROM events WHERE action = 'decision-read' ORDER BY seq",
    )
    events = [json.loads(payload) for (payload,) in found]
    return [
        (
            one.get("status", 200),
            one.get("reason"),
            one.get("patient"),
            [entity["what"] for entity in one.get("entities", [])],
        )
        for one in events
    ]


def valid(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    body: dict[str, Any] = answer.json()
    get_fhir_model_class("RiskAssessment").model_validate(body)
    assert empty_members(body) == []
    assert body["resourceType"] == "RiskAssessment" and body["status"] == "final"
    for inner in body.get("contained", []):
        # FHIR R4, dom-3: nothing refers to it, so it refers to what holds it; dom-2: it holds nothing.
        assert inner["parent"] == {"reference": "#"} and "contained" not in inner
    return body


def coded(body: dict[str, Any]) -> dict[str, Any]:
    return {one["url"]: one.get("valueCoding", one).get("code") for one in body["extension"]}


@pytest.fixture(scope="module")
def shipped(
    knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server with both engines of the shipped bundle."""
    directory = tmp_path_factory.mktemp("shipped")
    with start(knowledge, directory, _sqlite_template, model_bundle=str(SHIPPED_BUNDLE)) as server:
        yield server


async def test_an_assessment_is_given_as_it_was_answered_for_a_pseudonym(shipped: Running) -> None:
    sent = bundle_of_example("rare-disease")
    answer = shipped.post("/fhir/$assess", sent, headers={"Accept-Language": "es"})
    parts = {part["name"]: part for part in answer.json()["parameter"]}
    event_id = await newest(shipped)
    before = len(await reads(shipped))
    body = valid(read(shipped, event_id))
    common, rare = parts["common"]["resource"], parts["rare"]["resource"]
    [inner] = body["contained"]
    assert body["id"] == event_id and body["language"] == "es"
    assert body["prediction"] == common["prediction"] and inner["prediction"] == rare["prediction"]
    assert len(inner["prediction"]) >= 100
    assert body["note"] == common["note"] and body["occurrenceDateTime"] == common["occurrenceDateTime"]
    assert coded(body)["urn:cds-server:severity"] == parts["severity"]["valueCoding"]["code"]
    assert coded(body)["urn:cds-server:escalation"] == parts["escalation"]["valueCoding"]["code"]
    event = shipped.client.get(f"/fhir/AuditEvent/{event_id}").json()
    [patient] = [one["what"] for one in event["entity"] if one["what"].get("type") == "Patient"]
    assert body["subject"] == inner["subject"] == patient
    for resource in [entry["resource"] for entry in sent["entry"]]:
        assert f'"{resource["id"]}"' not in json.dumps(body)
    assert f"/{common['subject']['reference'].rpartition('/')[2]}" not in json.dumps(body)
    [recorded] = (await reads(shipped))[before:]
    pseudonym = patient["identifier"]["value"]
    assert recorded == (200, None, pseudonym, [f"RiskAssessment/{event_id}", f"AuditEvent/{event_id}"])
    asked = shipped.client.get(f"/fhir/AuditEvent?entity=RiskAssessment/{event_id}").json()
    [seen] = [entry["resource"] for entry in asked["entry"]]
    assert seen["subtype"][-1]["code"] == "decision-read" and seen["outcome"] == "0"
    head = shipped.client.head(f"/fhir/RiskAssessment/{event_id}")
    assert head.status_code == 200 and head.content == b""


async def test_of_a_hook_call_the_assessment_behind_its_cards_is_given(shipped: Running) -> None:
    for number, name in enumerate(ALL_EXAMPLES):
        language = "es" if number % 2 else "en"
        call(shipped, name, language)
        event_id = await newest(shipped)
        body = valid(read(shipped, event_id))
        [(severity, escalation, patient)] = await rows(
            shipped.database_url,
            "SELECT severity, escalation, patient_pseudonym FROM events WHERE event_id = :id",
            id=event_id,
        )
        assert body["subject"]["reference"] == f"Patient/{patient}"
        assert coded(body)["urn:cds-server:severity"] == severity
        assert coded(body)["urn:cds-server:escalation"] == escalation
        assert body["language"] == language
        told = body["note"][-1]["text"]
        assert told.startswith("Calculado de nuevo" if language == "es" else "Computed again")
        request = example(name)["context"]
        assert request["patientId"] not in json.dumps(body).replace(str(patient), "")
        assert body["prediction"] and "encounter" not in body
    # What an unaudited assessment of the same record ranks first is what it says.
    found = shipped.post("/fhir/$assess", bundle_of_example("sepsis")).json()["parameter"]
    [common] = [part["resource"] for part in found if part["name"] == "common"]
    call(shipped, "sepsis")
    ranked = valid(read(shipped, await newest(shipped)))["prediction"]
    assert [one["outcome"] for one in ranked[:3]] == [one["outcome"] for one in common["prediction"][:3]]


async def test_the_simple_form_speaks_of_nobody(shipped: Running) -> None:
    assert shipped.post("/api/v1/predict", FORM).status_code == 200
    body = valid(read(shipped, await newest(shipped)))
    assert body["subject"]["extension"][0]["valueCode"] == "unknown" and "reference" not in body["subject"]
    assert body["prediction"] and (await reads(shipped))[-1][2] is None


async def test_what_is_no_decision_is_not_found_and_nothing_of_its_id_is_kept(shipped: Running) -> None:
    call(shipped, "sepsis")
    event = await newest(shipped)
    read(shipped, event)
    found = await rows(
        shipped.database_url, "SELECT event_id FROM events WHERE action = 'decision-read' LIMIT 1"
    )
    for unknown in (new_id(), found[0][0], "zq-secret-id", "a" * 3000, "%00", "x%20y", "%F0%9F%A9%BA"):
        before = len(await reads(shipped))
        issue = outcome(read(shipped, unknown), 404)
        assert issue["code"] == "not-found"
        assert (await reads(shipped))[before:] == [(404, "not-found", None, [])]
    assert "zq-secret-id" not in str(await rows(shipped.database_url, "SELECT * FROM events"))
    request = minimal() | {"prefetch": {}, "fhirServer": "http://127.0.0.1:9/fhir"}
    assert shipped.post(ASSESSMENT, request).status_code == 412
    assert outcome(read(shipped, await newest(shipped)), 404)["diagnostics"].startswith("refused-call")


async def test_what_was_not_kept_or_is_destroyed_says_so(start_server: Callable[..., Running]) -> None:
    off = start_server(store_decisions=False)
    call(off, "sepsis")
    assert outcome(read(off, await newest(off)), 404)["diagnostics"].startswith("off: ")
    server = start_server()
    request = minimal()
    request["prefetch"]["consent"] = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "provision": {"type": "deny"},
    }
    assert server.post(ASSESSMENT, request).status_code == 200
    assert outcome(read(server, await newest(server)), 404)["diagnostics"].startswith("consent: ")
    call(server, "sepsis")
    event_id = await newest(server)
    valid(read(server, event_id))
    patient = example("sepsis")["context"]["patientId"]
    done = command(server.house.settings, "privacy", "erase", "--patient", patient, "--yes")
    assert done.returncode == 0, done.stderr
    issue = outcome(read(server, event_id), 410)
    assert issue["code"] == "deleted" and issue["diagnostics"].startswith("erased: ")
    statuses = [(status, reason, bool(patient)) for status, reason, patient, _ in await reads(server)]
    assert statuses == [(404, "consent", True), (200, None, True), (410, "erased", True)]


async def test_what_is_not_proven_is_not_given(start_server: Callable[..., Running]) -> None:
    server = start_server(model_bundle="none")
    call(server, "sepsis")
    event, stored = await latest(server)
    answer = json.loads(stored.answer)
    answer["cards"][0]["summary"] = "Nothing to worry about"
    told = msgspec.json.encode(answer)
    house = server.house
    # Kept, signed for and never answered by this software: only computing it again shows that.
    sealed = house.keeper.seal(
        house.keeper.body(stored.body, house.clock()),
        stored.circumstances,
        event_id=(other := new_id()),
        subject=event.patient or "",
        fetched=(),
        answer=told,
    )
    made = msgspec.structs.replace(
        event, event_id=other, output_digest=digest(told), stored_digest=sealed.digest
    )
    async with trail(server.database_url, house.settings.var_dir / "other-spool") as audit:
        await audit.record_all((made, *sealed.records))
    issue = outcome(read(server, other), 409)
    assert issue["code"] == "conflict" and issue["diagnostics"].startswith("differs: ")
    assert "worry" not in str(issue)
    engine = create_engine(server.database_url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TRIGGER stored_decisions_no_update"))
        await connection.execute(text("UPDATE stored_decisions SET sealed = x'00'"))
    await engine.dispose()
    assert outcome(read(server, event.event_id), 409)["diagnostics"].startswith("altered: ")
    assert [one[:2] for one in await reads(server)] == [(409, "differs"), (409, "altered")]


async def test_a_decision_is_read_with_the_bundle_of_its_day(
    start_server: Callable[..., Running], tmp_path: Path
) -> None:
    keys = trusted_file(tmp_path)
    first, second = tiny_bundle(tmp_path / "a", version="1.0.0"), tiny_bundle(tmp_path / "b", version="2.0.0")
    live = tmp_path / "live"
    shutil.copytree(tmp_path / "a", live)
    server = start_server(model_bundle=str(live), trusted_model_keys=keys, model_reload_seconds=0.05)
    call(server, "sepsis")
    event_id = await newest(server)
    kept = server.house.settings.archive_dir / f"{first.id}.zip"
    until(kept.exists, "the bundle was not archived")
    shutil.rmtree(live)
    shutil.copytree(tmp_path / "b", live)
    until(lambda: server.client.get("/health/ready").json()["bundle"] == second.id, "the bundle did not come")
    kept.rename(tmp_path / "kept.zip")
    assert outcome(read(server, event_id), 409)["diagnostics"].startswith("bundle-missing: ")
    (tmp_path / "kept.zip").rename(kept)
    body = valid(read(server, event_id))
    assert first.id in body["method"]["text"] and body["prediction"]
    assert server.house.knowledge.bundle == second.id


async def test_a_decision_is_read_with_the_cases_of_its_day(
    knowledge: Knowledge, tmp_path: Path, _sqlite_template: Path
) -> None:
    with start(knowledge.with_bundle(both()), tmp_path, _sqlite_template, **FAST) as server:
        enroll(tmp_path)
        until_it_counts(server.client, 1)
        assert NAME in rare_card(server)["summary"]
        with_one = await newest(server)
        assess_rare(server.client)
        kept_whole = await newest(server)
        enroll(tmp_path, "SITE:2", "The other one")
        until_it_counts(server.client, 2)
        [rare] = valid(read(server, with_one))["contained"]
        assert rare["prediction"][0]["outcome"]["text"] == NAME
        assert "The other one" not in json.dumps(rare)
        done = command(server.house.settings, "rare", "erase", "enrolled:000001", "--yes")
        assert done.returncode == 0, done.stderr
        assert outcome(read(server, with_one), 410)["diagnostics"].startswith("cases-erased: ")
        valid(read(server, kept_whole))  # the assessment itself was kept, under its patient's key


async def test_others_are_answered_while_a_decision_is_computed_again(
    knowledge: Knowledge, tmp_path: Path, _sqlite_template: Path
) -> None:
    enroll(tmp_path)
    slow = {"model_reload_seconds": 0}
    with start(knowledge.with_bundle(both()), tmp_path, _sqlite_template, **slow) as server:
        rare_card(server)
        event_id = await newest(server)
        record = tmp_path / FILE
        whole = record.read_bytes()
        record.unlink()
        os.mkfifo(record)  # who reads the record now waits until somebody has written it
        pipe: list[int] = []

        def is_read() -> bool:
            with contextlib.suppress(OSError):  # nobody reads yet
                pipe.append(os.open(record, os.O_WRONLY | os.O_NONBLOCK))
            return bool(pipe)

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(httpx.get, f"{server.url}/fhir/RiskAssessment/{event_id}", timeout=120)
            until(is_read, "the record was not read")
            call(server, "sepsis")
            assert server.client.get("/health/live").status_code == 200
            assert not reading.done()
            os.write(pipe[0], whole)
            os.close(pipe[0])
            [rare] = valid(reading.result())["contained"]
        assert rare["prediction"][0]["outcome"]["text"] == NAME


def test_only_who_may_read_decisions_gets_an_answer(
    start_server: Callable[..., Running], tmp_path: Path
) -> None:
    for role, status in ((Role.AUDITOR, 404), (Role.CLINICIAN, 404), (Role.DATA_SCIENTIST, 403)):
        directory = tmp_path / role.value
        directory.mkdir()
        with published(Ehr()) as ehr:
            server = start_server(**protected(ehr.file(directory, roles=[role])))
            path = f"/fhir/RiskAssessment/{new_id()}"
            assert outcome(server.client.get(path), 401)["code"] == "login"
            outcome(server.client.get(path, headers=ehr.headers(path)), status)


async def test_nobody_in_the_network_reads_without_credentials(start_server: Callable[..., Running]) -> None:
    server = start_server(
        host="0.0.0.0",
        client_auth="off",
        allow_unauthenticated=True,
        model_bundle="none",
        public_base_url="http://127.0.0.1:8000",
    )
    call(server, "sepsis")
    outcome(read(server, await newest(server)), 403)


async def test_both_databases_give_past_decisions(
    start_server: Callable[..., Running], database_url: str
) -> None:
    server = start_server(database_url=database_url, model_bundle="none")
    call(server, "sepsis")
    event_id = await newest(server)
    body = valid(read(server, event_id))
    assert coded(body)["urn:cds-server:severity"] == "acute-disease"
    assert "prediction" not in body and "contained" not in body  # published rules alone rank no disease
    outcome(read(server, new_id()), 404)
    assert [one[0] for one in await reads(server)] == [200, 404]


async def test_a_database_that_is_away_gives_nothing(start_server: Callable[..., Running]) -> None:
    server = start_server()
    call(server, "sepsis")
    event_id = await newest(server)
    engine = create_engine(server.database_url)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE stored_decisions RENAME TO elsewhere"))
    outcome(read(server, event_id), 503)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE elsewhere RENAME TO stored_decisions"))
    await engine.dispose()
    valid(read(server, event_id))


def test_a_worker_that_is_never_asked_loads_nothing_of_it() -> None:
    code = (
        "import sys, cds_server.app\n"
        "late = {'cds_server.fhir_api.past_decisions', 'cds_server.decisions.past',"
        " 'cds_server.decisions.recompute', 'cds_server.decisions.opening'}\n"
        "assert 'cds_server.fhir_api.past_routes' in sys.modules\n"
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
