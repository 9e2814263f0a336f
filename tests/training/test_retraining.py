"""A site trains the ensemble again on its own records, and the running server takes it up."""

import os
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from bundle_helpers import tiny_bundle
from fhir_standin import serving
from retraining_support import KEY, NOW, TINY, TRUSTED, key_files, small_context, small_simulator

from cds_server.app import create_app
from cds_server.settings import Settings
from cds_server.state import Knowledge
from models.bundle import BundleSignatureInvalid, load_bundle
from models.engine import Engine
from training.datasets.export import export_ndjson
from training.datasets.fhir import build_from_ndjson
from training.datasets.format import DatasetInvalid
from training.datasets.progress import bars
from training.datasets.simulated import export_simulated, write_simulated
from training.ensemble.assemble import TrainingDataInvalid, assemble
from training.evaluation.predictions import load_heldout
from training.evaluation.run import Plan as EvaluationPlan
from training.evaluation.run import evaluate
from training.pipeline import Outcome, Plan, run_training
from training.registry.log import log_files
from training.registry.store import RegistryUnavailable, Store
from training.registry.versions import (
    BUNDLE,
    Version,
    VersionUnknown,
    find,
    next_version,
    promote,
    register,
    versions,
)

DATASET_KEY = b"a key of the tests, long enough"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An embedded MLflow store of the test's own."""
    return Store.open(directory=tmp_path / "mlflow")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome]:
    """A store and a finished run in it, for tests that only look."""
    directory = tmp_path_factory.mktemp("done")
    found = Store.open(directory=directory / "mlflow")
    return found, run_training(plan(directory / "bundle"), small_simulator(), found)


def plan(out: Path, **changes: Any) -> Plan:
    fields = {"config": TINY, "out": out, "key": KEY, "now": NOW, "revision": "test"}
    return Plan(**(fields | changes))


def records(folder: Path, count: int, *, triaged: bool = True) -> Path:
    """A hospital's records: a bulk export of simulated patients, built into a dataset."""
    simulator, context = small_simulator(), small_context()
    export = folder / "export"
    if triaged:
        export_simulated(simulator, context.labels, count, 99, export, compress=True)
    else:
        [(patients, recorded)] = simulator.batches(count, 99)
        diseases = [simulator.knowledge.diseases[number] for number in patients.disease]
        visits = zip(simulator.writer.bundles(patients, recorded), diseases, repeat(None), strict=False)
        export_ndjson(visits, export, labels=context.labels)
    target = folder / "dataset"
    build_from_ndjson(export, target, context, created=NOW, key=DATASET_KEY)
    return target


def test_a_retraining_from_exported_records_goes_live_without_a_restart(
    store: Store, sqlite_url: str, tmp_path: Path
) -> None:
    live, (_, trusted) = tmp_path / "srv" / "live", key_files(tmp_path)
    first = run_training(plan(tmp_path / "first"), small_simulator(), store)
    assert first.version.aliases == ("challenger", "champion")
    promote(store, first.version, live, TRUSTED, now=NOW)

    builder = small_simulator().builder
    settings = Settings(
        var_dir=tmp_path / "var",
        database_url=sqlite_url,
        model_bundle=str(live),
        trusted_model_keys=trusted,
        model_reload_seconds=0.1,
    )
    app = create_app(settings, knowledge=Knowledge(builder, Engine.load(builder.tables.ontology)))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert ready(client) == first.bundle.id
        assert answered_by(client) == first.bundle.id
        house = app.state.house

        dataset = records(tmp_path, 700)
        config = msgspec.structs.replace(TINY, patients=900)
        second = run_training(
            plan(tmp_path / "second", config=config, datasets=(dataset,)), small_simulator(), store
        )
        assert second.version.aliases == ("challenger",)
        assert find(store, "champion").number == first.version.number
        assert ready(client) == first.bundle.id

        promote(store, find(store, "challenger"), live, TRUSTED, now=NOW)
        until = time.monotonic() + 30
        while ready(client) != second.bundle.id:
            assert time.monotonic() < until, "the new bundle was not taken up"
            time.sleep(0.05)
        assert answered_by(client) == second.bundle.id
        assert app.state.house is house

    assert find(store, "champion").number == second.version.number
    with pytest.raises(VersionUnknown, match="no version 'challenger'"):
        find(store, "challenger")
    # The records were learned from, and the figures on them are kept apart from the simulated ones.
    assert second.figures["top1"] > 0.6
    assert second.figures["real.top1"] > 0.6
    assert (
        "900 SIMULATED PATIENTS and 700 patients of a dataset (fhir-bulk-export)" in second.bundle.model_card
    )


def ready(client: httpx.Client) -> str:
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    return str(answer.json()["bundle"])


def answered_by(client: httpx.Client) -> str:
    """The model that answers for a simulated patient, whose differential it must give."""
    [(patients, recorded)] = small_simulator().batches(1, 5)
    [bundle] = small_simulator().writer.bundles(patients, recorded)
    answer = client.post("/fhir/$assess", json=bundle)
    assert answer.status_code == 200, answer.text
    parts = {part["name"]: part for part in answer.json()["parameter"]}
    common = parts["common"]["resource"]["prediction"]
    assert sum(row["probabilityDecimal"] for row in common) == pytest.approx(1, abs=0.01)
    told = {part["name"]: part.get("valueString") for part in parts["model"]["part"]}
    return str(next(value for value in told.values() if value and value.startswith("common-")))


def test_the_same_run_twice_gives_the_same_bundle(done: tuple[Store, Outcome], tmp_path: Path) -> None:
    store, first = done
    second = run_training(plan(tmp_path / "b", version="1.0.0"), small_simulator(), store)
    assert second.figures == first.figures
    assert second.bundle.manifest.files == first.bundle.manifest.files
    assert second.bundle.id == first.bundle.id


def test_everything_about_a_run_is_kept(done: tuple[Store, Outcome], tmp_path: Path) -> None:
    store, outcome = done
    run = store.client.get_run(outcome.version.run)
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert params["boosted.rounds"] == "2" and params["revision"] == "test"
    assert params["knowledge"] == small_simulator().knowledge.digest
    assert params["data.digest"] == outcome.bundle.manifest.training_data_digest
    assert (params["rows.train"], params["rows.test"]) == ("1200", "150")
    assert run.data.metrics["top5"] == pytest.approx(outcome.figures["top5"])
    assert run.data.metrics["internal.figures.top5"] == run.data.metrics["top5"]
    folder = Path(store.client.download_artifacts(run.info.run_id, "", str(tmp_path)))
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept >= {
        "config.toml",
        "data.json",
        "training.log",
        "heldout.npz",
        "evaluation/evaluation.html",
        "plots/calibration.svg",
        "plots/severity-confusion.svg",
        "bundle/manifest.json",
    }
    assert load_bundle(folder / "bundle", TRUSTED).id == outcome.bundle.id
    # The held-out predictions can be judged again without training, by the evaluation command's own way.
    heldout = load_heldout(folder / "heldout.npz")
    assert len(heldout.truth) == 150
    assert {model.name for model in heldout.ablations} >= {"without the boosted", "the likelihood alone"}
    again = evaluate(
        EvaluationPlan(
            out=tmp_path / "again",
            now=NOW,
            bundle=None,
            predictions=folder / "heldout.npz",
            clinical=None,
            bootstraps=5,
        )
    )
    assert again["internal"]["figures"] == outcome.report["internal"]["figures"]


def test_the_card_says_what_a_clinician_must_know(done: tuple[Store, Outcome]) -> None:
    _, outcome = done
    card = outcome.bundle.model_card
    assert "1,500 SIMULATED PATIENTS" in card
    assert "$" not in card.replace("$assess", "")
    for heading in (
        "Details and output",
        "Purpose",
        "Out-of-scope",
        "Fairness",
        "External validation",
        "Updates",
    ):
        assert heading in card
    assert f"{outcome.report['internal']['figures']['disease_top1_ece']:.3f}" in card
    assert "Not measured in this run." in card
    assert outcome.bundle.manifest.metrics["internal.figures.top1"] == outcome.figures["top1"]


def test_records_that_tell_no_triage_level_still_train(store: Store, tmp_path: Path) -> None:
    dataset = records(tmp_path, 1000, triaged=False)
    config = msgspec.structs.replace(TINY, patients=0)
    outcome = run_training(plan(tmp_path / "b", config=config, datasets=(dataset,)), small_simulator(), store)
    # The rules have read none of them, so they have no say in the pool.
    assert outcome.bundle.stack["immediate"][0] == 0
    assert outcome.figures["top1"] > 0.6
    # Who needed attention is not recorded: nothing pretends to have measured it.
    assert "critical_recall" not in outcome.figures and "ece_immediate" not in outcome.figures
    assert not [
        name for name in outcome.bundle.manifest.metrics if "immediate" in name or "subgroups" in name
    ]
    assert "SIMULATED" not in outcome.bundle.model_card.partition("## 4")[2].partition("## 5")[0]


def test_drawn_labels_follow_the_knowledge_and_nothing_is_guessed_where_it_is_told(tmp_path: Path) -> None:
    simulator = small_simulator()
    dataset = records(tmp_path, 1000, triaged=False)
    config = msgspec.structs.replace(TINY, patients=0)
    with bars(None) as shown:
        drawn = assemble(simulator, config, (dataset,), shown)
        again = assemble(simulator, config, (dataset,), shown)
    assert not drawn.need_is_known and drawn.simulated_test == 0
    assert drawn.digest == again.digest
    truth = simulator.cohort(1000, 99).labels
    found = np.concatenate([part.labels.immediate for part in (drawn.data.train, drawn.data.calibrate)])
    assert found.mean() == pytest.approx(truth.immediate.mean(), abs=0.05)

    write_simulated(simulator, 400, 3, tmp_path / "told", created=NOW)
    with bars(None) as shown:
        told = assemble(simulator, config, (tmp_path / "told",), shown)
    parts = (told.data.train, told.data.calibrate, told.data.test)
    labels = [part.labels for part in parts]
    original = simulator.cohort(400, 3).labels
    assert sum(int(part.immediate.sum()) for part in labels) == int(original.immediate.sum())
    assert told.known.all() and np.isnan(told.data.rules_test).all()


def test_a_part_without_patients_is_named(tmp_path: Path, store: Store) -> None:
    config = msgspec.structs.replace(TINY, patients=0)
    with pytest.raises(TrainingDataInvalid, match="the training part has no patients: raise --patients"):
        run_training(plan(tmp_path / "b", config=config), small_simulator(), store)
    assert not (tmp_path / "b").exists()
    assert versions(store) == ()
    [run] = store.client.search_runs([store.experiment])
    assert run.info.status == "FAILED"
    with pytest.raises(DatasetInvalid, match="not a dataset directory"):
        run_training(plan(tmp_path / "b", datasets=(tmp_path,)), small_simulator(), store)


def test_a_bundle_of_another_signer_is_not_promoted(store: Store, tmp_path: Path) -> None:
    assert next_version(store) == "1.0.0"
    made = [tiny(store, tmp_path / name, version) for name, version in (("a", "1.0.0"), ("b", "1.1.0"))]
    (first, first_id), (newer, newer_id) = made
    assert next_version(store) == "1.2.0"
    assert (first.aliases, newer.aliases) == (("challenger", "champion"), ("challenger",))
    with pytest.raises(BundleSignatureInvalid, match="not trusted here"):
        promote(store, newer, tmp_path / "live", (), now=NOW)
    assert not (tmp_path / "live").exists()
    assert find(store, "champion").bundle == first_id
    # An archive, for a server that is given one.
    live = tmp_path / "live.zip"
    promote(store, newer, live, TRUSTED, now=NOW)
    assert load_bundle(live, TRUSTED).id == newer_id
    assert find(store, "champion").tags["promoted"] == NOW.isoformat()
    # The way back.
    promote(store, find(store, "1"), live, TRUSTED, now=NOW)
    assert find(store, "champion").bundle == load_bundle(live, TRUSTED).id == first_id


def tiny(store: Store, path: Path, version: str) -> tuple[Version, str]:
    """Registers a bundle that no training has made."""
    bundle = tiny_bundle(path, version, private_key=KEY)
    with store.run(version, {}) as run:
        log_files(store, run, path, BUNDLE)
    return register(store, run, bundle, {}), bundle.id


def test_a_store_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RegistryUnavailable, match="check CDS_MLFLOW_URI"):
        Store.open(f"sqlite:///{blocked}/x.db")


def test_mlflow_sends_nothing_to_anybody() -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
