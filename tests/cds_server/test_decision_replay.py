"""A past decision comes out the same, to the byte, or the replay says what is not as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from audit_helpers import rows, trail
from bundle_helpers import tiny_bundle, trusted_file
from decisions_helpers import ALL_EXAMPLES, bundle_of_example, call, command, replays
from fhir_standin import Standin, bundle, pages, slow, status
from server_helpers import ASSESSMENT, Running, example, minimal
from sqlalchemy import text

from cds_server.audit import Decision, digest, new_id
from cds_server.db.engine import create_engine
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import Opener
from cds_server.decisions.replay import Replay
from cds_server.decisions.shelf import Shelf
from cds_server.decisions.stored import Stored
from cds_server.deployment.source import SHIPPED_BUNDLE
from cds_server.site_keys import site_keys
from cds_server.state import Knowledge

FORM = {
    "age": 61,
    "sex": "male",
    "symptoms": [{"name": "chest pain", "intensity": 8}],
    "vitals": {"heart_rate": 118, "systolic_bp": 88},
    "language": "es",
}


def results(found: list[Replay]) -> list[tuple[str, str | None]]:
    return [(one.result, one.reason) for one in found]


async def test_every_example_in_both_languages_replays_identically_with_both_engines(
    start_server: Callable[..., Running], knowledge: Knowledge
) -> None:
    server = start_server(model_bundle=str(SHIPPED_BUNDLE))
    assert server.house.knowledge.bundle and server.house.knowledge.engine.rare
    for number, name in enumerate(ALL_EXAMPLES):
        call(server, name, "es" if number % 2 else "en")
    rare = server.post("/fhir/$assess", bundle_of_example("rare-disease"), headers={"Accept-Language": "es"})
    assert rare.status_code == 200
    assert server.post("/fhir/$assess", bundle_of_example("sepsis")).status_code == 200
    assert server.post("/api/v1/predict", FORM).status_code == 200
    found = await replays(server.house.settings, knowledge)
    assert len(found) == len(ALL_EXAMPLES) + 3
    assert set(results(found)) == {("identical", None)}
    assert {one.bundle for one in found} == {server.house.knowledge.bundle}
    assert not any(one.changed for one in found)


async def test_what_was_fetched_from_a_fhir_server_is_read_again_without_it(
    start_server: Callable[..., Running], ehr: Standin, knowledge: Knowledge
) -> None:
    vitals = [
        entry["resource"]
        for entry in bundle_of_example("sepsis")["entry"]
        if entry["resource"]["resourceType"] == "Observation"
    ]

    async def observations(_: Any) -> Any:
        return bundle(vitals)

    ehr.on("Observation", observations)
    ehr.on("Condition", pages([2, 3, 1], lambda: ehr.url))
    ehr.on("MedicationRequest", status(403))
    ehr.on("AllergyIntolerance", slow(5))
    server = start_server(fhir_time_budget_ms=600)
    request = example("sepsis")
    request["prefetch"] = {"patient": request["prefetch"]["patient"]}
    request |= {"fhirServer": f"{ehr.url}/fhir", "fhirAuthorization": {"access_token": "t"}}
    answer = server.post(ASSESSMENT, request)
    assert answer.json()["cards"][0]["indicator"] == "critical"
    asked = len(ehr.requests)
    assert asked > 4
    found = await replays(server.house.settings, knowledge)
    assert results(found) == [("identical", None)]
    assert len(ehr.requests) == asked  # nobody was asked again


async def test_a_fhir_server_that_was_not_allowed_then_is_not_read_in_a_replay(
    start_server: Callable[..., Running], ehr: Standin, knowledge: Knowledge
) -> None:
    server = start_server(fhir_server_allowlist="https://elsewhere.example/fhir")
    assert server.post(ASSESSMENT, minimal(fhirServer=f"{ehr.url}/fhir")).status_code == 200
    assert results(await replays(server.house.settings, knowledge)) == [("identical", None)]
    assert ehr.requests == []


async def test_each_decision_is_replayed_with_the_bundle_it_was_made_with(
    start_server: Callable[..., Running], knowledge: Knowledge, tmp_path: Path
) -> None:
    keys = trusted_file(tmp_path)
    first, second = tiny_bundle(tmp_path / "a", version="1.0.0"), tiny_bundle(tmp_path / "b", version="2.0.0")
    live = tmp_path / "live"
    shutil.copytree(tmp_path / "a", live)
    options = {"model_bundle": str(live), "trusted_model_keys": keys, "model_reload_seconds": 0.05}
    server = start_server(**options)
    call(server, "sepsis")
    shutil.rmtree(live)
    shutil.copytree(tmp_path / "b", live)
    for _ in range(2000):
        if server.client.get("/health/ready").json()["bundle"] == second.id:
            break
    call(server, "sepsis")
    settings = server.house.settings
    found = await replays(settings, knowledge)
    assert results(found) == [("identical", None)] * 2
    assert [one.bundle for one in found] == [second.id, first.id]
    kept = settings.archive_dir / f"{first.id}.zip"
    kept.rename(tmp_path / "gone.zip")
    assert results(await replays(settings, knowledge)) == [
        ("identical", None),
        ("unavailable", "bundle-missing"),
    ]
    kept.write_bytes(b"PK, but no bundle")
    assert results(await replays(settings, knowledge))[1] == ("unavailable", "bundle-missing")


async def test_what_differs_is_named_with_its_place_and_the_software_of_then(
    start_server: Callable[..., Running], knowledge: Knowledge
) -> None:
    server = start_server(model_bundle="none")
    call(server, "sepsis")
    house = server.house
    # The same inputs as another build would have answered them: other words on the first card.
    event, stored = await latest(server)
    answer = json.loads(stored.answer)
    answer["cards"][0]["summary"] = "Sepsis"
    told = msgspec.json.encode(answer)
    kept = house.keeper.body(stored.body, house.clock())
    sealed = house.keeper.seal(
        kept,
        msgspec.structs.replace(stored.circumstances, software="0.0.9+000000000000"),
        event_id=(other := new_id()),
        subject=event.patient or "",
        fetched=(),
        answer=told,
    )
    made = msgspec.structs.replace(
        event, event_id=other, output_digest=digest(told), stored_digest=sealed.digest
    )
    engine = create_engine(server.database_url)
    async with trail(server.database_url, house.settings.var_dir / "other-spool") as audit:
        await audit.record_all((made, *sealed.records))
    await engine.dispose()
    different, identical = await replays(house.settings, knowledge)
    assert identical.result == "identical" and not identical.changed
    assert different.result == "differs"
    assert different.changed == {"software": ("0.0.9+000000000000", house.software)}
    # Ids of cards follow the id of the event, so they differ as well.
    places = {one.path for one in different.differences}
    assert "cards[0].summary" in places
    assert {path.rpartition(".")[2] for path in places} <= {"summary", "uuid", "resource", "id", "reference"}


async def test_another_bundle_gives_another_answer_and_the_replay_shows_where(
    start_server: Callable[..., Running], knowledge: Knowledge
) -> None:
    server = start_server(model_bundle=str(SHIPPED_BUNDLE))
    assert server.post("/fhir/$assess", bundle_of_example("sepsis")).status_code == 200
    [then] = await replays(server.house.settings, knowledge)
    [today] = await replays(server.house.settings, knowledge, always=knowledge)
    assert then.result == "identical"
    assert today.result == "differs" and set(today.changed) >= {"model"}
    assert any(one.path.startswith("parameter[") for one in today.differences)


async def latest(server: Running) -> tuple[Decision, Stored]:
    engine = create_engine(server.database_url)
    shelf = Shelf(engine)
    event = await shelf.decision((await shelf.latest(1))[0])
    assert event is not None
    keys = DataKeys(site_keys(server.house.settings).master, now=server.house.clock)
    stored = await Opener(shelf, keys).stored(event)
    await engine.dispose()
    return event, stored


async def _tampered(url: str, sql: str) -> None:
    engine = create_engine(url)
    async with engine.begin() as connection:
        for line in sql.split(";"):
            await connection.execute(text(line))
    await engine.dispose()


async def test_what_was_altered_in_the_database_is_noticed(
    start_server: Callable[..., Running], knowledge: Knowledge
) -> None:
    server = start_server()
    call(server, "sepsis")
    call(server, "dka")
    # Two decisions trade places, below the triggers.
    await _tampered(
        server.database_url,
        "DROP TRIGGER stored_decisions_no_update; CREATE TABLE t AS SELECT * FROM stored_decisions;"
        "UPDATE stored_decisions SET sealed = (SELECT t.sealed FROM t WHERE t.event_id <> "
        "stored_decisions.event_id), key_id = (SELECT t.key_id FROM t WHERE t.event_id <> "
        "stored_decisions.event_id)",
    )
    found = await replays(server.house.settings, knowledge)
    assert results(found) == [("unavailable", "altered")] * 2
    await _tampered(
        server.database_url,
        "DROP TRIGGER stored_decisions_ordered_only; DELETE FROM stored_decisions",
    )
    assert results(await replays(server.house.settings, knowledge)) == [("unavailable", "lost")] * 2


async def test_what_was_not_kept_says_why(start_server: Callable[..., Running], knowledge: Knowledge) -> None:
    server = start_server(store_decisions=False)
    call(server, "sepsis")
    assert results(await replays(server.house.settings, knowledge)) == [("unavailable", "off")]


async def test_the_command_tells_and_records_and_shows_values_only_on_demand(
    start_server: Callable[..., Running],
) -> None:
    server = start_server(model_bundle="none")
    call(server, "sepsis")
    settings = server.house.settings
    done = command(settings, "replay", "--last", "3")
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout and "1 replayed: 1 identical" in done.stdout
    [(event_id, patient)] = await rows(
        server.database_url, "SELECT event_id, patient_pseudonym FROM events WHERE action = 'hook-call'"
    )
    done = command(settings, "replay", event_id, "--json")
    assert json.loads(done.stdout)["result"] == "identical"
    assert command(settings, "replay", "0197-unknown").returncode == 1
    assert command(settings, "replay").returncode == 2
    audited = await rows(
        server.database_url,
        "SELECT patient_pseudonym, status FROM events WHERE action = 'decision-replayed' ORDER BY seq",
    )
    assert audited == [(patient, 200), (patient, 200), (None, 404)]
    hidden = command(settings, "replay", event_id, "--current", CDS_MODEL_BUNDLE="")
    shown = command(settings, "replay", event_id, "--current", "--show", CDS_MODEL_BUNDLE="")
    assert hidden.returncode == shown.returncode == 1
    assert "changed cards[0].detail" in hidden.stdout and "mmol/L" not in hidden.stdout
    assert "mmol/L" in shown.stdout
    await _tampered(
        server.database_url,
        "DROP TRIGGER patient_keys_rewrap_only; UPDATE patient_keys SET wrapped = 'x'",
    )
    done = command(settings, "replay", event_id)
    assert done.returncode == 1 and "not what was kept" in done.stdout
