"""A new model goes live while the server answers, and a bad one never does."""

import asyncio
import copy
import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from audit_helpers import rows
from bundle_helpers import STRANGER, TRUSTED, tiny_arrays, tiny_bundle, tiny_schema, trusted_file
from fhir_standin import Standin, slow
from server_helpers import ASSESSMENT, Running, example, minimal
from typer.testing import CliRunner

from cds_server import cli_bundle, cli_extra
from cds_server.app import create_app
from cds_server.cli import app as command_line
from cds_server.deployment import loading, source
from cds_server.deployment.source import BundleSource, ModelRefused
from cds_server.settings import Settings
from cds_server.state import Knowledge
from models.bundle import load_bundle, pack_bundle
from models.bundle_seal import read_private_key, read_trusted_keys
from models.common.engine import CommonEngine
from models.rules.analytes import load_analytes

Start = Callable[..., Running]
COMMAND = str(Path(sys.executable).with_name("cds-server"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the server of a test finds its bundle."""
    return tmp_path / "models" / "live"


@pytest.fixture
def serve(start_server: Start, place: Path, tmp_path: Path) -> Start:
    """Starts a server that looks at `place` ten times a second."""

    def begin(**changes: Any) -> Running:
        keys = trusted_file(tmp_path)
        settings = {
            "model_bundle": str(place),
            "trusted_model_keys": keys,
            "model_reload_seconds": 0.1,
        }
        return start_server(**(settings | changes))

    return begin


def health(running: Running) -> dict[str, Any]:
    answer = running.client.get("/health/ready")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def wait_for(what: Callable[[], bool], why: str) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until, why
        time.sleep(0.05)


def swapped(running: Running, identity: str) -> None:
    wait_for(lambda: health(running)["bundle"] == identity, "the new bundle was not put in place")


def refused(running: Running, fault: str) -> dict[str, Any]:
    wait_for(
        lambda: health(running).get("bundle_refused", {}).get("fault") == fault, f"{fault} was not reported"
    )
    found: dict[str, Any] = health(running)["bundle_refused"]
    return found


def refusals(url: str) -> list[dict[str, Any]]:
    """What the audit trail says of refused bundles."""
    query = "SELECT payload FROM events WHERE action = 'model-refused' ORDER BY seq"
    return [json.loads(row[0]) for row in asyncio.run(rows(url, query))]


def metric(running: Running, line: str) -> float:
    for found in running.client.get("/metrics").text.splitlines():
        if found.startswith(line + " "):
            return float(found.rpartition(" ")[2])
    raise AssertionError(f"no metric {line}")


def test_the_bundle_in_use_is_shown(serve: Start, place: Path) -> None:
    bundle = tiny_bundle(place)
    running = serve()
    assert health(running)["bundle"] == bundle.id
    assert "bundle_refused" not in health(running)
    assert metric(running, f'cds_model_bundle{{bundle="{bundle.id}"}}') == 1
    assert running.post(ASSESSMENT, example("sepsis")).status_code == 200


def test_the_rules_answer_alone_when_told_so_or_when_nothing_is_shipped(
    serve: Start, start_server: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert health(serve(model_bundle="none"))["bundle"] == "none"
    monkeypatch.setattr(source, "SHIPPED_BUNDLE", tmp_path / "nothing-shipped")
    assert BundleSource.of(Settings()).path is None
    shared = start_server()
    assert health(shared)["bundle"] == (shared.house.knowledge.bundle or "none")


def test_the_shipped_bundle_is_the_default(
    knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tiny_bundle(tmp_path / "shipped")
    monkeypatch.setattr(source, "SHIPPED_BUNDLE", tmp_path / "shipped")
    monkeypatch.setattr(source, "SHIPPED_KEYS", trusted_file(tmp_path))
    found = loading.at_start(BundleSource.of(Settings()), knowledge)
    assert found.bundle == bundle.id
    assert found.builder is knowledge.builder
    assert loading.at_start(BundleSource.of(Settings()), found) is found


def test_a_new_bundle_answers_without_a_restart_and_no_call_is_lost(serve: Start, place: Path) -> None:
    first = tiny_bundle(place)
    running = serve()
    body = json.dumps(example("chest-pain")).encode()
    statuses: list[int] = []
    done = threading.Event()

    def call() -> None:
        with httpx.Client(base_url=running.url, timeout=30) as client:
            while not done.is_set():
                answer = client.post(ASSESSMENT, content=body, headers={"Content-Type": "application/json"})
                statuses.append(answer.status_code)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        before = running.house.knowledge
        for version in ("2.0.0", "3.0.0"):
            bundle = tiny_bundle(place, version)
            swapped(running, bundle.id)
        assert running.house.knowledge.engine is not before.engine
        assert running.house.knowledge.builder is before.builder
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert len(statuses) > 10
    assert set(statuses) == {200}
    assert metric(running, f'cds_model_bundle{{bundle="{first.id}"}}') == 0
    assert metric(running, f'cds_model_bundle{{bundle="{bundle.id}"}}') == 1
    assert metric(running, 'cds_model_reloads_total{result="loaded"}') == 2


async def test_a_call_in_flight_ends_with_the_model_it_began_with(start_server: Start, ehr: Standin) -> None:
    running = start_server()
    house = running.house
    engine = copy.copy(house.knowledge.engine)
    engine.model_id = "another-model"
    before, other = house.knowledge, dataclasses.replace(house.knowledge, engine=engine)
    request = minimal(fhirServer=f"{ehr.url}/fhir", hookInstance=str(uuid.uuid4()))
    ehr.on("Observation", slow(1))
    answers: list[int] = []
    calling = threading.Thread(target=lambda: answers.append(running.post(ASSESSMENT, request).status_code))
    calling.start()
    wait_for(lambda: bool(ehr.requests), "the server did not fetch what was missing")
    house.knowledge = other
    calling.join()
    assert running.post(ASSESSMENT, minimal()).status_code == 200
    assert answers == [200]
    query = "SELECT payload FROM events WHERE action = 'hook-call' ORDER BY seq"
    events = await rows(running.database_url, query)
    assert [json.loads(payload)["model"] for (payload,) in events] == [
        before.engine.model_id,
        "another-model",
    ]


def test_an_archive_is_watched_as_well_as_a_directory(serve: Start, place: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    archive = tmp_path / "live.zip"
    first = tiny_bundle(work)
    pack_bundle(work, archive, TRUSTED)
    running = serve(model_bundle=str(archive))
    assert health(running)["bundle"] == first.id
    second = tiny_bundle(work, "2.0.0")
    pack_bundle(work, archive, TRUSTED)
    swapped(running, second.id)


def _unsigned(place: Path) -> None:
    tiny_bundle(place, "6.6.6", private_key=STRANGER)


def _tampered(place: Path) -> None:
    path = place / "stack.json"
    path.write_bytes(path.read_bytes().replace(b"0.9", b"0.1"))


def _other_release(place: Path) -> None:
    tiny_bundle(place, schema=tiny_schema(ontology="1999-01-01"))


def _gone(place: Path) -> None:
    shutil.rmtree(place)


def _half_copied(place: Path) -> None:
    (place / "arrays.npz").unlink()


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_unsigned, "BundleSignatureInvalid"),
        (_tampered, "BundleDigestMismatch"),
        (_other_release, "BundleSchemaMismatch"),
        (_gone, "BundleUnreadable"),
        (_half_copied, "BundleDigestMismatch"),
    ],
)
def test_a_bad_bundle_is_refused_and_the_old_one_goes_on_answering(
    serve: Start, place: Path, spoil: Callable[[Path], None], fault: str
) -> None:
    first = tiny_bundle(place)
    running = serve()
    engine = running.house.knowledge.engine
    spoil(place)
    told = refused(running, fault)
    assert told["reason"]
    assert str(place) not in json.dumps(told)
    assert datetime.fromisoformat(told["since"]).tzinfo is not None
    assert health(running)["status"] == "ready"
    assert health(running)["bundle"] == first.id
    assert running.house.knowledge.engine is engine
    assert metric(running, "cds_model_bundle_refused") == 1
    wait_for(lambda: bool(refusals(running.database_url)), "the refusal was not recorded")
    assert [(one["reason"], one["status"]) for one in refusals(running.database_url)] == [(fault, 422)]
    assert str(place) not in str(refusals(running.database_url))
    assert running.post(ASSESSMENT, example("sepsis")).json()["cards"]
    # What is repaired is taken, and nothing is complained of any more.
    repaired = tiny_bundle(place, "2.0.0")
    swapped(running, repaired.id)
    assert "bundle_refused" not in health(running)
    assert metric(running, "cds_model_bundle_refused") == 0


def test_a_key_trusted_later_lets_the_waiting_bundle_in(serve: Start, place: Path, tmp_path: Path) -> None:
    tiny_bundle(place)
    (tmp_path / "other").mkdir()
    running = serve()
    second = tiny_bundle(place, "2.0.0", private_key=STRANGER)
    refused(running, "BundleSignatureInvalid")
    shown = cli_bundle.trusted_keys_json([(STRANGER.public_key(), "the other trainer")])
    (tmp_path / "trusted.json").write_bytes(shown)
    swapped(running, second.id)


def test_a_touched_bundle_of_the_same_content_changes_nothing(serve: Start, place: Path) -> None:
    first = tiny_bundle(place)
    running = serve()
    engine = running.house.knowledge.engine
    tiny_bundle(place)
    time.sleep(0.6)
    assert health(running)["bundle"] == first.id
    assert running.house.knowledge.engine is engine


def test_nothing_is_looked_for_when_told_so(serve: Start, place: Path) -> None:
    first = tiny_bundle(place)
    running = serve(model_reload_seconds=0)
    tiny_bundle(place, "2.0.0")
    time.sleep(0.5)
    assert health(running)["bundle"] == first.id


def test_a_model_that_was_replaced_is_let_go(serve: Start, place: Path) -> None:
    tiny_bundle(place)
    running = serve()
    second = tiny_bundle(place, "2.0.0")
    swapped(running, second.id)
    old = weakref.ref(running.house.knowledge.engine)
    third = tiny_bundle(place, "3.0.0")
    gc.disable()  # the collector walks past what was frozen at start: references alone must do it
    try:
        swapped(running, third.id)
        wait_for(lambda: old() is None, "the replaced engine stays in memory")
    finally:
        gc.enable()


def test_the_server_does_not_start_with_another_model_than_it_was_told(
    knowledge: Knowledge, place: Path, tmp_path: Path
) -> None:
    settings = Settings(var_dir=tmp_path, model_bundle=str(place), trusted_model_keys=trusted_file(tmp_path))
    with pytest.raises(ModelRefused, match="no model bundle at this path"):
        create_app(settings, knowledge=knowledge)
    _unsigned(place)
    with pytest.raises(ModelRefused, match="not trusted here"):
        create_app(settings, knowledge=knowledge)
    with pytest.raises(ModelRefused, match="not trusted here"):
        BundleSource.of(settings).verify()
    nowhere = Settings(var_dir=tmp_path, model_bundle=str(place), trusted_model_keys=tmp_path / "none.json")
    with pytest.raises(ModelRefused, match="trusted keys cannot be read"):
        create_app(nowhere, knowledge=knowledge)


def test_a_start_that_a_bundle_prevented_is_in_the_audit_trail(
    place: Path, tmp_path: Path, sqlite_url: str
) -> None:
    _unsigned(place)
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {
        "CDS_VAR_DIR": str(tmp_path / "var"),
        "CDS_DATABASE_URL": sqlite_url,
        "CDS_MODEL_BUNDLE": str(place),
        "CDS_TRUSTED_MODEL_KEYS": str(trusted_file(tmp_path)),
    }
    # -P: a folder of bundles named "models" where one stands is no part of the product.
    command = [sys.executable, "-P", "-c", "from cds_server.cli import main; main()", "serve"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert done.returncode == 2, done.stderr
    assert [one["reason"] for one in refusals(sqlite_url)] == ["BundleSignatureInvalid"]


def test_a_signed_bundle_that_does_not_work_is_found_out_before_a_patient_is(
    knowledge: Knowledge, tmp_path: Path
) -> None:
    engine = copy.copy(knowledge.engine)
    vars(engine).clear()
    with pytest.raises(AttributeError):
        loading.try_out(dataclasses.replace(knowledge, engine=engine))
    loading.try_out(knowledge)
    # The same by way of a bundle that lacks an array.
    arrays = tiny_arrays(tiny_schema())
    del arrays["network.w1"]
    tiny_bundle(tmp_path / "b", arrays=arrays)
    if knowledge.with_bundle(None).engine.model_id == _model_of_tiny(knowledge, tmp_path / "whole"):
        pytest.skip("the engine takes no model from a bundle yet")
    lacking = BundleSource(tmp_path / "b", trusted_file(tmp_path))
    with pytest.raises(ModelRefused, match="the engine cannot use it") as told:
        loading.with_bundle_of(lacking, knowledge)
    assert told.value.fault == "ModelUnusable"


def _model_of_tiny(knowledge: Knowledge, path: Path) -> str:
    return knowledge.with_bundle(tiny_bundle(path)).engine.model_id


def test_the_tiny_bundle_is_one_the_ensemble_reads(knowledge: Knowledge, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "b")
    ontology = knowledge.builder.tables.ontology
    engine = CommonEngine(
        schema=bundle.schema,
        ontology=ontology,
        diseases=bundle.diseases,
        arrays=bundle.arrays,
        stack=bundle.stack,
        analytes=load_analytes(),
    )
    chart = loading.trial_chart(knowledge.builder)
    assert len(chart.problems) + len(chart.findings) >= 1
    found = engine.assess(chart, 0.0)
    assert {prediction.id for prediction in found.predictions} == {"common-cold", "influenza", "sepsis"}
    assert sum(prediction.probability for prediction in found.predictions) == pytest.approx(1)


def run(*words: str) -> Any:
    return CliRunner().invoke(command_line, list(words))


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of a site's own, made with keys from the command line."""
    for name in [name for name in os.environ if name.startswith("CDS_")]:
        monkeypatch.delenv(name)
    done = run("bundle", "keys", "new", str(tmp_path / "keys"), "--note", "our site")
    assert done.exit_code == 0, done.output
    tiny_bundle(tmp_path / "b", private_key=read_private_key(tmp_path / "keys" / "signing_key.pem"))
    monkeypatch.setenv("CDS_TRUSTED_MODEL_KEYS", str(tmp_path / "keys" / "trusted_keys.json"))
    return tmp_path / "b"


def test_keys_are_made_once_and_the_secret_is_for_its_owner_only(signed: Path) -> None:
    keys = signed.parent / "keys"
    assert (keys / "signing_key.pem").stat().st_mode & 0o777 == 0o600
    [public] = read_trusted_keys(keys / "trusted_keys.json")
    assert public == read_private_key(keys / "signing_key.pem").public_key()
    before = (keys / "signing_key.pem").read_bytes()
    again = run("bundle", "keys", "new", str(keys))
    assert again.exit_code == 2 and "exists already" in again.output
    assert (keys / "signing_key.pem").read_bytes() == before


def test_a_bundle_is_verified_shown_and_packed_from_the_command_line(signed: Path) -> None:
    archive = signed.with_suffix(".zip")
    packed = run("bundle", "pack", str(signed), str(archive))
    assert packed.exit_code == 0, packed.output
    trusted = read_trusted_keys(signed.parent / "keys" / "trusted_keys.json")
    identity = load_bundle(archive, trusted).id
    for path in (signed, archive):
        verified = run("bundle", "verify", str(path))
        assert verified.exit_code == 0, verified.output
        assert identity in verified.output
    shown = run("bundle", "show", str(archive))
    assert identity in shown.output and '"macro_f1": 0.5' in shown.output
    assert run("bundle", "show", str(archive), "--card").output.startswith("# Tiny")


def test_a_bad_bundle_is_named_with_its_fault_on_the_command_line(signed: Path) -> None:
    (signed / "model_card.md").write_text("better than it is")
    for words in (
        ("verify", str(signed)),
        ("show", str(signed)),
        ("pack", str(signed), str(signed) + ".zip"),
    ):
        done = run("bundle", *words)
        assert done.exit_code == 1
        assert "BundleDigestMismatch" in done.output and "model_card.md" in done.output


def test_serve_says_in_one_line_why_a_bundle_cannot_be_used(signed: Path, tmp_path: Path) -> None:
    (signed / "model_card.md").write_text("better than it is")
    environment = {
        "PATH": os.environ["PATH"],
        "CDS_VAR_DIR": str(tmp_path / "var"),
        "CDS_PORT": "18998",
        "CDS_MODEL_BUNDLE": str(signed),
        "CDS_TRUSTED_MODEL_KEYS": str(tmp_path / "keys" / "trusted_keys.json"),
    }
    for workers in ("1", "2"):
        done = subprocess.run(
            [COMMAND, "serve"],
            env=environment | {"CDS_WORKERS": workers},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "model_card.md is not the file that was signed" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_commands_of_other_parts_hang_below_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        name: EntryPoint(name, f"test_deployment:{target}", cli_extra.GROUP)
        for name, target in (("several", "several"), ("single", "single"), ("serve", "single"))
    }
    entries["absent"] = EntryPoint("absent", "no_such_module_here:app", cli_extra.GROUP)
    monkeypatch.setattr(cli_extra, "_extras", lambda: entries)
    shown = run("--help").output
    assert "several" in shown and "single" in shown
    assert shown.count("serve ") == 1 and "Start the server" in shown
    assert run("several", "one").output == "one\n"
    assert run("single", "--times", "2").output == "single\nsingle\n"
    done = run("absent", "--any", "thing")
    assert done.exit_code == 2
    assert "cds-server[train]" in done.output and "no_such_module_here" in done.output


several = typer.Typer()
single = typer.Typer()


@several.command()
def one() -> None:
    """Say one."""
    typer.echo("one")


@several.command()
def two() -> None:
    """Say two."""
    typer.echo("two")


@single.command()
def alone(times: int = 1) -> None:
    """Say so."""
    for _ in range(times):
        typer.echo("single")
