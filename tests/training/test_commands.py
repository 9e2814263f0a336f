"""The commands of training: what a person types, what comes back, and what is said when it cannot be."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from retraining_support import NOW, TINY, key_files, small_context, small_simulator
from typer.testing import CliRunner

from cds_server.cli import app
from fhir_adapters.decode import read_bundle
from models.bundle import load_bundle
from models.bundle_seal import read_trusted_keys
from training.datasets.fhir import build_from_ndjson
from training.datasets.load import load_dataset
from training.ensemble.cohort import Simulator
from training.ensemble.config import EnsembleConfig
from training.ensemble.config_file import RANGES, ConfigInvalid, config_toml, flat_config, read_config
from training.revision import UNKNOWN, code_revision


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Twelve diseases, and nothing of the machine's own settings; relative paths are the test's."""
    for name in [name for name in os.environ if name.startswith(("CDS_", "MLFLOW_TRACKING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(Simulator, "load", small_simulator)
    monkeypatch.chdir(tmp_path)
    yield


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_patients_are_simulated_for_a_look() -> None:
    done = run("simulate", "--patients", 300, "--seed", 5)
    assert done.exit_code == 0, done.output
    assert "300 patients with" in done.stdout and "need attention within minutes" in done.stdout
    assert "acute-disease: " in done.stdout
    assert run("simulate", "--patients", 300, "--seed", 5).stdout == done.stdout


def test_the_same_patients_as_bundles_as_an_export_and_as_a_dataset(tmp_path: Path) -> None:
    assert run("simulate", "--fhir", 60, "--seed", 8, "--out", "b/one.ndjson").exit_code == 0
    lines = (tmp_path / "b" / "one.ndjson").read_bytes().splitlines()
    assert len(lines) == 60
    assert json.loads(lines[0])["type"] == "collection"
    assert all(read_bundle(line) for line in lines)

    done = run("simulate", "-n", 60, "--seed", 8, "--fhir", 60, "--out", "export", "--parquet", "rows")
    assert done.exit_code == 0, done.output
    assert "rows: 60 rows" in done.stdout and "export: 60 patients" in done.stdout
    build_from_ndjson(Path("export"), Path("built"), small_context(), created=NOW, key=b"0123456789abcdef")
    one, other = (load_dataset(Path(name), schema=small_context().schema) for name in ("rows", "built"))
    assert len(one) == len(other) == 60
    assert sorted(one.disease.tolist()) == sorted(other.disease.tolist())
    # Every statement is there; a value that no body can have is set aside by the reader alone.
    for block in ("said", "denied"):
        assert getattr(one.rows, block).sum() == getattr(other.rows, block).sum()

    again = run("simulate", "-n", 10, "--parquet", "rows")
    assert again.exit_code == 1 and "is not empty" in again.output and "--replace" in again.output
    assert run("simulate", "-n", 10, "--parquet", "rows", "--replace").exit_code == 0


def test_half_an_order_is_asked_back() -> None:
    for words in (("--fhir", "5"), ("--out", "x.ndjson")):
        done = run("simulate", *words)
        assert done.exit_code == 2 and "go together" in done.output
    done = run("train", "--out", "x")
    assert done.exit_code == 2 and "--key FILE" in done.output
    done = run("models", "promote", "1")
    assert done.exit_code == 2 and "CDS_MODEL_BUNDLE" in done.output


def test_trained_looked_at_and_put_in_use_from_the_command_line(tmp_path: Path) -> None:
    private, trusted = key_files(tmp_path)
    Path("tiny.toml").write_text(config_toml(TINY))
    assert "No version is registered yet" in run("models", "list").output
    for out in ("one", "two"):
        done = run("train", "-n", 500, "--config", "tiny.toml", "--seed", 4, "--out", out, "--key", private)
        assert done.exit_code == 0, done.output
        assert "top1" in done.stdout
    assert "version 2 in the registry (challenger)" in done.stdout
    assert (tmp_path / "var" / "mlflow" / "mlflow.db").is_file()
    bundles = [load_bundle(Path(out), read_trusted_keys(trusted)) for out in ("one", "two")]
    assert [bundle.manifest.version for bundle in bundles] == ["1.0.0", "1.1.0"]

    listed = run("models", "list").stdout
    assert "champion" in listed and "challenger" in listed
    shown = run("models", "show", "challenger").stdout
    assert bundles[1].id in shown and "patients = 500" in shown and "seed = 4" in shown
    assert "SIMULATED PATIENTS" in run("models", "show", "--card").stdout
    assert "there are 1, 2" in run("models", "show", "9").output

    refused = run("models", "promote", "challenger", "--to", "live")
    assert refused.exit_code == 1 and "Nothing was promoted" in refused.output
    done = run("models", "promote", "challenger", "--to", "live", "--keys", trusted)
    assert done.exit_code == 0, done.output
    assert load_bundle(Path("live"), read_trusted_keys(trusted)).id == bundles[1].id
    assert "champion" in run("models", "show", "2").stdout


def test_the_path_and_keys_of_the_server_are_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CDS_MODEL_BUNDLE", "none")
    done = run("models", "promote", "1")
    assert done.exit_code == 2 and "CDS_MODEL_BUNDLE" in done.output
    monkeypatch.setenv("CDS_MODEL_BUNDLE", str(tmp_path / "live"))
    monkeypatch.setenv("CDS_TRUSTED_MODEL_KEYS", str(tmp_path / "absent.json"))
    done = run("models", "promote", "1")
    assert done.exit_code == 1 and "trusted keys cannot be read" in done.output


def test_what_cannot_be_trained_is_said_before_anything_is_done(tmp_path: Path) -> None:
    private, _ = key_files(tmp_path)
    order = ("train", "--out", "x", "--key")
    assert "signing key cannot be read" in run(*order, "absent.pem").output
    Path("bad.toml").write_text("folds = 1\n")
    wrong = run(*order, private, "--config", "bad.toml")
    assert wrong.exit_code == 1 and "folds is 1; it may be 2 to 20" in wrong.output
    Path("bad.toml").write_text("fold = 3\n")
    assert "unknown field `fold`" in run(*order, private, "--config", "bad.toml").output
    Path("bad.toml").write_text("folds = [\n")
    assert run(*order, private, "--config", "bad.toml").exit_code == 1
    assert "cannot be read" in run(*order, private, "--config", "absent.toml").output
    assert not Path("var").exists()
    unreached = run(*order, private, "--mlflow", "sqlite:////proc/nowhere/x.db")
    assert unreached.exit_code == 1 and "CDS_MLFLOW_URI" in unreached.output
    nothing = run(*order, private, "--dataset", ".", "-n", 0)
    assert nothing.exit_code == 1 and "not a dataset directory" in nothing.output
    assert not Path("x").exists()


def test_imbalance_strategies_are_compared_after_calibration() -> None:
    Path("tiny.toml").write_text(config_toml(TINY))
    done = run("train", "imbalance-study", "--patients", 1500, "--config", "tiny.toml")
    assert done.exit_code == 0, done.output
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["strategy", "plain", "cost weights", "oversampling", "oversampling to balance"]


def test_a_configuration_file_reads_back_to_the_same(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    for config in (EnsembleConfig(), TINY):
        path.write_text(config_toml(config, "two\nlines"))
        assert read_config(path) == config
    # Every field has a range, or a typing error would train for hours.
    assert set(RANGES) == set(flat_config(EnsembleConfig()))
    path.write_text("[network]\nrate = 5.0\n")
    with pytest.raises(ConfigInvalid, match=r"network\.rate is 5; it may be 1e-06 to 1"):
        read_config(path)


def test_code_outside_of_a_repository_has_no_revision(tmp_path: Path) -> None:
    assert code_revision(tmp_path) == UNKNOWN
    assert code_revision(tmp_path / "absent") == UNKNOWN
    assert code_revision()
