"""A case enrolled by command is known to the running server: at once, by name, with every new bundle."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from audit_helpers import rows
from bundle_helpers import KEY, TRUSTED, tiny_bundle, trusted_file
from fhir.resources.R4B import get_fhir_model_class
from rare_bundles import ARRAYS, both
from server_helpers import ASSESSMENT, Running, minimal, start
from test_kill_server import log_of, server
from typer.testing import CliRunner

from cds_server.cli import app
from cds_server.rare.record import FILE
from cds_server.state import Knowledge
from models.bundle import add_rare

FINDINGS = ("HP:0000982", "HP:0000365", "HP:0001083", "HP:0100775", "HP:0000938")
"""No disease is known with these: hands, ears, lenses, dura and bones."""
NAME = "Our palm and lens syndrome"
FAST = {"model_reload_seconds": 0.1}


@pytest.fixture(scope="module")
def loaded(knowledge: Knowledge) -> Knowledge:
    return knowledge.with_bundle(both())


Begin = Callable[..., Running]


@pytest.fixture
def begin(loaded: Knowledge, tmp_path: Path, _sqlite_template: Path) -> Iterator[Begin]:
    """Starts servers in the state directory of the test, one after the other."""
    running: list[Any] = []

    def start_one(**changes: Any) -> Running:
        while running:
            running.pop().__exit__(None, None, None)
        running.append(start(loaded, tmp_path, _sqlite_template, **(FAST | changes)))
        found: Running = running[0].__enter__()
        return found

    yield start_one
    while running:
        running.pop().__exit__(None, None, None)


def command(var: Path, *words: str, **settings: str) -> str:
    environment = {"CDS_VAR_DIR": str(var), **settings}
    # In a thread: a command is a process of its own, and has no event loop around it.
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(CliRunner().invoke, app, ["rare", *words], env=environment).result()
    assert done.exit_code == 0, done.output
    return done.output


def enroll(var: Path, disease: str = "SITE:1", name: str = NAME, **settings: str) -> None:
    named = ("--name", name) if name else ()
    command(var, "enroll", disease, *[f"-o{one}" for one in FINDINGS], *named, **settings)


def conditions() -> list[dict[str, Any]]:
    return [
        {
            "resourceType": "Condition",
            "id": f"c{number}",
            "subject": {"reference": "Patient/p"},
            "code": {"coding": [{"system": "http://human-phenotype-ontology.org", "code": hpo}]},
        }
        for number, hpo in enumerate(FINDINGS)
    ]


PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1990-01-01"}
SENT = {
    "resourceType": "Bundle",
    "type": "collection",
    "timestamp": "2026-11-20T09:30:00Z",
    "entry": [{"resource": resource} for resource in (PATIENT, *conditions())],
}


def assess(client: httpx.Client) -> dict[str, Any]:
    answer = client.post("/fhir/$assess", json=SENT)
    assert answer.status_code == 200, answer.text
    get_fhir_model_class("Parameters").model_validate(answer.json())
    return {parameter["name"]: parameter for parameter in answer.json()["parameter"]}


def leading(found: dict[str, Any]) -> str:
    text: str = found["rare"]["resource"]["prediction"][0]["outcome"]["text"]
    return text


def knowledge_id(found: dict[str, Any]) -> str:
    (value,) = [part["valueString"] for part in found["model"]["part"] if part["name"] == "knowledge"]
    text: str = value
    return text


def ready(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/health/ready").json()
    return found


def metric(client: httpx.Client, name: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    assert lines, name
    return float(lines[0].rpartition(" ")[2])


def until_it_counts(client: httpx.Client, cases: int) -> None:
    until(lambda: ready(client)["enrolled"]["cases"] == cases, f"{cases} cases did not come to count")


def until(true: Callable[[], bool], why: str) -> None:
    end = time.monotonic() + 120  # only how long to wait before giving up
    while not true():
        assert time.monotonic() < end, why
        time.sleep(0.05)


def card(running: Running) -> dict[str, Any]:
    request = minimal()
    request["prefetch"]["conditions"] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": one} for one in conditions()],
    }
    answer = running.post(ASSESSMENT, request)
    assert answer.status_code == 200, answer.text
    (found,) = [one for one in answer.json()["cards"] if one["source"]["topic"]["code"] == "rare-disease"]
    assert isinstance(found, dict)
    return found


async def test_a_new_disease_is_ranked_first_from_one_case_and_forgotten_when_it_is_taken_back(
    begin: Begin, tmp_path: Path
) -> None:
    running = begin()
    engine = running.house.knowledge.engine
    before = assess(running.client)
    assert leading(before) != NAME and "enrolled" not in knowledge_id(before)
    assert NAME not in card(running)["summary"]

    enroll(tmp_path)
    until_it_counts(running.client, 1)
    found = assess(running.client)
    assert leading(found) == NAME
    assert knowledge_id(found).startswith(knowledge_id(before) + "+enrolled.1.")
    assert "coding" not in found["rare"]["resource"]["prediction"][0]["outcome"], "it has no code yet"
    shown = card(running)
    assert NAME in shown["summary"] and "enrolled:000001" in shown["detail"]
    assert f"{NAME}" in shown["detail"] and "1 confirmed case" in shown["detail"]
    assert ready(running.client)["knowledge"] == knowledge_id(found)
    assert metric(running.client, "cds_rare_enrolled_cases") == 1

    command(tmp_path, "undo", "enrolled:000001")
    until_it_counts(running.client, 0)
    assert assess(running.client) == before, "nothing of it stays"
    assert knowledge_id(before) == engine.knowledge_id
    answers = "SELECT payload FROM events WHERE action IN ('hook-call', 'assess') ORDER BY seq"
    events = await rows(running.database_url, answers)
    named = [json.loads(payload)["knowledge"].partition("+enrolled")[2] for (payload,) in events]
    states = command(tmp_path, "states")
    assert [bool(each) for each in named] == [False, False, True, True, False]
    assert f"enrolled{named[2]}" in states, "what an answer knew is found by its id"


def test_without_enrolled_cases_the_engine_is_the_loaded_one(begin: Begin, loaded: Knowledge) -> None:
    running = begin()
    assert running.house.knowledge is loaded
    assert ready(running.client)["enrolled"] == {"cases": 0}


def test_cases_count_from_the_first_answer_after_a_start(begin: Begin, tmp_path: Path) -> None:
    enroll(tmp_path, name="")
    running = begin(model_reload_seconds=0)
    assert leading(assess(running.client)) == "SITE:1"


def test_a_known_disease_keeps_the_name_of_the_registries(begin: Begin, tmp_path: Path) -> None:
    enroll(tmp_path, "OMIM:154700", "what we call it")
    found = assess(begin().client)["rare"]["resource"]["prediction"]
    assert "Marfan syndrome" in [one["outcome"]["text"] for one in found[:3]]


def test_a_new_bundle_keeps_the_cases(begin: Begin, tmp_path: Path) -> None:
    place = tmp_path / "live"
    tiny_bundle(tmp_path / "a")
    first = add_rare(tmp_path / "a", place, TRUSTED, ARRAYS.read_bytes(), {"HPO": "cite"}, KEY)
    running = begin(model_bundle=str(place), trusted_model_keys=trusted_file(tmp_path))
    enroll(tmp_path)
    until_it_counts(running.client, 1)
    named = knowledge_id(assess(running.client))
    tiny_bundle(tmp_path / "b", "2.0.0")
    second = add_rare(tmp_path / "b", tmp_path / "next", TRUSTED, ARRAYS.read_bytes(), {"HPO": "cite"}, KEY)
    shutil.copytree(tmp_path / "next", place, dirs_exist_ok=True)
    assert first.id != second.id
    until(lambda: bool(ready(running.client)["bundle"] == second.id), "the new bundle was not put in place")
    found = assess(running.client)
    assert leading(found) == NAME and knowledge_id(found) == named
    command(tmp_path, "undo", "enrolled:000001")
    until_it_counts(running.client, 0)
    assert leading(assess(running.client)) != NAME


def test_a_damaged_line_is_survived_and_told(
    begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enroll(tmp_path)
    enroll(tmp_path, "SITE:2", "The other one")
    running = begin()
    assert ready(running.client)["enrolled"]["cases"] == 2
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(lines[0] + lines[1][:90] + b"\n")
    until_it_counts(running.client, 1)
    told = ready(running.client)["enrolled"]
    assert told["damaged_lines"] == [2] and told["left_out"] == ["enrolled:000002"]
    assert "restore" in told["reason"] and str(tmp_path) not in json.dumps(told)
    assert metric(running.client, "cds_rare_enrolled_damaged") == 1
    assert ready(running.client)["status"] == "ready"
    assert leading(assess(running.client)) == NAME
    logged = capsys.readouterr().out
    assert "rare.enrolled_damaged" in logged and "HP:" not in logged and NAME not in logged
    (tmp_path / FILE).write_bytes(b"".join(lines))
    until_it_counts(running.client, 2)
    assert "reason" not in ready(running.client)["enrolled"]
    assert metric(running.client, "cds_rare_enrolled_damaged") == 0


def test_a_record_under_another_key_is_told_and_the_server_answers_without_it(
    begin: Begin, tmp_path: Path
) -> None:
    first, second = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    enroll(tmp_path, CDS_CIPHER_KEY=first)
    running = begin(cipher_key=second)
    told = ready(running.client)["enrolled"]
    assert told["cases"] == 0 and told["left_out"] == ["enrolled:000001"]
    assert "CDS_CIPHER_KEY" in told["reason"]
    assert "+enrolled" not in knowledge_id(assess(running.client))
    assert leading(assess(begin(cipher_key=first).client)) == NAME


def test_a_record_that_cannot_be_read_changes_nothing_in_use(begin: Begin, tmp_path: Path) -> None:
    enroll(tmp_path)
    running = begin()
    record = tmp_path / FILE
    kept = record.read_bytes()
    (tmp_path / "other").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "other").replace(record)  # at once: a record that is gone for a moment is one without cases
    until(lambda: "cannot be read" in ready(running.client)["enrolled"].get("reason", ""), "nothing was told")
    assert ready(running.client)["enrolled"]["cases"] == 1
    assert leading(assess(running.client)) == NAME
    record.unlink()
    record.write_bytes(kept)
    until(lambda: "reason" not in ready(running.client)["enrolled"], "it was not read again")


async def test_every_worker_of_a_real_server_counts_it(sqlite_url: str, tmp_path: Path) -> None:
    """Two processes, started as an operator does; enrolled by a command of its own process."""
    var = tmp_path / "var"
    var.mkdir()
    environment = os.environ | {"CDS_VAR_DIR": str(var)}

    async def run(*words: str) -> None:
        line = [sys.executable, "-c", "from cds_server.cli import main; main()", "rare", *words]
        done = await asyncio.to_thread(
            subprocess.run, line, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    settings = {"CDS_MODEL_RELOAD_SECONDS": "0.2", "CDS_LOG_LEVEL": "info"}
    async with server(sqlite_url, var, **settings) as (url, _), httpx.AsyncClient(base_url=url) as client:

        async def all_count(cases: int) -> None:
            end = time.monotonic() + 60
            while True:
                text = (await client.get("/metrics")).text
                found = [line for line in text.splitlines() if line.startswith("cds_rare_enrolled_cases ")]
                logged = log_of(var).count('"event":"rare.enrolled"')
                if found and float(found[0].rpartition(" ")[2]) == cases and logged >= 2:
                    return
                assert time.monotonic() < end, (found, log_of(var))
                await asyncio.sleep(0.1)

        await run("enroll", "SITE:1", *[f"-o{one}" for one in FINDINGS], "--name", NAME)
        await all_count(1)
        for _ in range(8):
            async with httpx.AsyncClient(base_url=url, timeout=30) as fresh:  # whichever worker takes it
                answer = await fresh.post("/fhir/$assess", json=SENT)
            assert NAME in answer.text and "+enrolled.1." in answer.text
        await run("undo", "enrolled:000001")
        await all_count(0)
