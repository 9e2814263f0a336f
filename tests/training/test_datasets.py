"""Datasets on disk: export and back, the same digest twice, no patient to be found, faults that are named."""

import csv
import gzip
import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from datasets_support import (
    CREATED,
    KEY,
    appendicitis,
    context,
    diagnosis,
    encounter,
    patient,
    simulator,
    write_export,
)

from fhir_adapters.decode import read_bundle
from models.assessment import SEVERITIES
from training.datasets import buckets
from training.datasets.fhir import build_from_ndjson
from training.datasets.format import (
    SPLITS,
    DatasetExists,
    DatasetInfo,
    DatasetInvalid,
    InputUnreadable,
    split_of,
)
from training.datasets.load import Dataset, load_dataset
from training.datasets.pseudonym import Pseudonyms
from training.datasets.simulated import export_simulated, write_simulated
from training.simulation.bundles import AT

COUNT, SEED = 80, 11


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated patients as a compressed bulk export."""
    folder = tmp_path_factory.mktemp("export")
    export_simulated(simulator(), context().labels, COUNT, SEED, folder, compress=True)
    return folder


@pytest.fixture(scope="module")
def built(export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DatasetInfo]:
    """The dataset built back from the export."""
    path = tmp_path_factory.mktemp("built") / "dataset"
    return path, build_from_ndjson(export, path, context(), created=CREATED, key=KEY)


def by_patient(dataset: Dataset) -> list[int]:
    """Which simulated patient each row is."""
    pseudonyms = Pseudonyms(KEY)
    known = {pseudonyms.of(f"sim-{number:06d}"): number for number in range(COUNT)}
    return [known[name] for name in dataset.patient]


def test_an_export_built_back_gives_the_rows_that_reading_the_charts_gives(
    built: tuple[Path, DatasetInfo],
) -> None:
    dataset = load_dataset(built[0], schema=context().schema)
    patients, recorded = next(iter(simulator().batches(COUNT, SEED)))
    assert len(dataset) == COUNT - sum(built[1].rejects.values())
    assert set(built[1].rejects) <= {"nothing-recorded"}
    features = dataset.rows.features.toarray()
    said, denied = dataset.rows.said.toarray(), dataset.rows.denied.toarray()
    for place, number in enumerate(by_patient(dataset)):
        bundle = simulator().writer.bundle(patients, recorded, number, f"sim-{number:06d}")
        chart = context().builder.build(read_bundle(msgspec.json.encode(bundle)), at=AT, patient_id=None)
        read = context().reader.read(chart)
        expected = np.zeros(features.shape[1], dtype=np.float32)
        expected[list(read.index)] = read.values
        np.testing.assert_allclose(features[place], expected, atol=1e-6)
        stated = {stated.finding: stated.value for stated in read.stated}
        assert {int(n): said[place, n] for n in said[place].nonzero()[0]} == {
            n: value for n, value in stated.items() if value > 0
        }
        assert set(denied[place].nonzero()[0]) == {n for n, value in stated.items() if value < 0}


def test_the_rows_and_labels_of_an_export_are_those_of_the_simulator(
    built: tuple[Path, DatasetInfo],
) -> None:
    dataset = load_dataset(built[0])
    patients, recorded = next(iter(simulator().batches(COUNT, SEED)))
    rows = simulator().rows(patients, recorded)
    order = by_patient(dataset)
    assert (dataset.disease == patients.disease[order]).all()
    assert (dataset.immediate == patients.immediate[order]).all()
    assert dataset.diseases == simulator().tables.ids
    assert (dataset.rows.emergency == rows.emergency[order]).all()
    assert (dataset.rows.band == rows.band[order]).all()
    assert (dataset.rows.sex == rows.sex[order]).all()
    different = np.abs((dataset.rows.features - rows.features[order]).toarray()) > 1e-4
    # Where a chart says two things about pregnancy or smoking the simulator's rows are an approximation.
    assert different.any(axis=1).mean() < 0.06


def test_the_same_input_and_key_give_the_same_digest_whatever_the_files(
    export: Path, built: tuple[Path, DatasetInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "export"
    other.mkdir()
    for path in export.iterdir():
        kind = path.name.partition(".")[0]
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[::-1]
        for part in range(3):
            (other / f"{kind}.{part:03d}.ndjson").write_bytes(b"".join(lines[part::3]))
    monkeypatch.setattr(buckets, "PER_FILE", 100_000)  # many temporary files instead of one
    again = build_from_ndjson(other, tmp_path / "again", context(), created=CREATED, key=KEY)
    assert again.digest == built[1].digest
    assert again.rows == built[1].rows
    salted = build_from_ndjson(export, tmp_path / "salted", context(), created=CREATED)
    assert salted.digest != built[1].digest


def test_splits_are_by_patient_and_close_to_80_10_10() -> None:
    pseudonyms = Pseudonyms(KEY)
    counts = dict.fromkeys(SPLITS, 0)
    for number in range(5000):
        counts[split_of(pseudonyms.of(str(number)))] += 1
    assert abs(counts["train"] - 4000) < 150
    assert abs(counts["valid"] - 500) < 100


def test_no_patient_id_is_in_a_dataset(tmp_path: Path) -> None:
    secret = "MRN-4711-secret"
    resources = [
        json.loads(json.dumps(resource).replace("Patient/p", f"Patient/{secret}"))
        for resource in appendicitis()
    ]
    resources[0]["id"] = secret
    write_export(tmp_path / "in", [*resources, {"resourceType": "Condition", "id": "lost"}])
    info = build_from_ndjson(tmp_path / "in", tmp_path / "out", context(), created=CREATED)
    assert sum(info.rows.values()) == 1
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
    with pytest.raises(ValueError, match="key"):
        Pseudonyms(b"short")


def test_rejects_are_reported_with_a_reference_and_a_reason_only(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "in", [*appendicitis(), encounter("w", 24 * 90)])
    with (folder / "Condition.ndjson").open("ab") as lines:
        lines.write(b'{"resourceType": "Condition", "id": 5\n{"resourceType":"Condition","id":"x"}\n')
    (folder / "ExplanationOfBenefit.ndjson").write_text("not even JSON\n", encoding="utf-8")
    info = build_from_ndjson(folder, tmp_path / "out", context(), created=CREATED)
    with (tmp_path / "out" / "rejects.csv").open(encoding="utf-8") as lines:
        found = {row["reference"]: row["reason"] for row in csv.DictReader(lines)}
    assert found == {
        "Condition.ndjson:4": "unreadable-json",
        "Condition.ndjson:5": "no-patient",
        "Encounter/w": "no-confirmed-diagnosis",
    }
    assert info.rejects == {"unreadable-json": 1, "no-patient": 1, "no-confirmed-diagnosis": 1}
    assert info.left_out == {"after-decision": 1}


def test_a_patient_without_a_patient_resource_is_rejected(tmp_path: Path) -> None:
    write_export(tmp_path / "in", appendicitis()[1:])
    info = build_from_ndjson(tmp_path / "in", tmp_path / "out", context(), created=CREATED)
    assert info.rejects == {"patient-missing": 1}
    with pytest.raises(DatasetInvalid, match=r"no rows; see rejects\.csv"):
        load_dataset(tmp_path / "out")


def test_drugs_by_reference_and_intensive_care_by_place_are_read_from_their_own_files(tmp_path: Path) -> None:
    atc = {"coding": [{"system": "http://www.whocc.no/atc", "code": "H02AB06"}]}
    role = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
    moved = encounter(location=[{"location": {"reference": "Location/l"}}])
    drug = {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "active",
        "authoredOn": "2026-01-01",
        "subject": {"reference": "Patient/p"},
        "medicationReference": {"reference": "Medication/steroid"},
    }
    resources = [
        patient(),
        moved,
        *appendicitis()[2:],
        drug,
        {"resourceType": "Medication", "id": "steroid", "code": atc},
        {"resourceType": "Location", "id": "l", "type": [{"coding": [{"system": role, "code": "ICU"}]}]},
    ]
    write_export(tmp_path / "in", resources)
    build_from_ndjson(tmp_path / "in", tmp_path / "out", context(), created=CREATED)
    dataset = load_dataset(tmp_path / "out")
    column = dataset.info.features.index("risk:corticosteroid-use")
    assert dataset.rows.features[0, column] == 1.0
    assert dataset.immediate.tolist() == [1]


def test_simulated_patients_are_written_as_they_are_and_twice_alike(tmp_path: Path) -> None:
    info = write_simulated(simulator(), COUNT, SEED, tmp_path / "a", created=CREATED)
    again = write_simulated(simulator(), COUNT, SEED, tmp_path / "b", created=CREATED)
    other = write_simulated(simulator(), COUNT, SEED + 1, tmp_path / "c", created=CREATED)
    assert info.digest == again.digest != other.digest
    dataset = load_dataset(tmp_path / "a", schema=context().schema)
    patients, recorded = next(iter(simulator().batches(COUNT, SEED)))
    rows = simulator().rows(patients, recorded)
    names = [Pseudonyms(b"simulated patients are nobody").of(f"{SEED}/{n}") for n in range(COUNT)]
    order = [names.index(name) for name in dataset.patient]
    for part in ("features", "said", "denied"):
        assert (getattr(dataset.rows, part) != getattr(rows, part)[order]).nnz == 0
    assert (dataset.severity == patients.severity[order]).all()
    assert [SEVERITIES[number] for number in dataset.severity[:1]]
    known = dataset.rows.band >= 0
    np.testing.assert_allclose(dataset.age[known], patients.age[order][known], atol=0.01)
    assert sorted(np.concatenate([dataset.numbers(split) for split in SPLITS])) == list(range(COUNT))
    train = load_dataset(tmp_path / "a", splits=("train",))
    assert len(train) == info.rows["train"]


def test_a_dataset_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_simulated(simulator(), COUNT, SEED, path, created=CREATED)
    with pytest.raises(DatasetExists):
        write_simulated(simulator(), COUNT, SEED, path, created=CREATED)
    schema = msgspec.structs.replace(context().schema, results=())
    with pytest.raises(DatasetInvalid, match="another feature schema"):
        load_dataset(path, schema=schema)
    with pytest.raises(DatasetInvalid, match="labels that are not asked for"):
        load_dataset(path, diseases=("gout",))
    part = path / "train" / "part-00000.parquet"
    whole = part.read_bytes()
    frame = pl.read_parquet(part)
    frame.with_columns(age_band=pl.lit(40, dtype=pl.Int8)).write_parquet(part)
    with pytest.raises(DatasetInvalid, match="age_band") as fault:
        load_dataset(path)
    assert "40" not in str(fault.value)
    frame.with_columns(value=pl.col("value") * 2).write_parquet(part)
    with pytest.raises(DatasetInvalid, match="digest"):
        load_dataset(path)
    frame.head(1).write_parquet(part)
    with pytest.raises(DatasetInvalid, match="a part is missing"):
        load_dataset(path)
    part.write_bytes(whole)
    load_dataset(path)
    (path / "dataset.json").unlink()
    with pytest.raises(DatasetInvalid, match="not a dataset"):
        load_dataset(path)


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "in", appendicitis())
    (folder / "Observation.ndjson.gz").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(InputUnreadable, match="Observation"):
        build_from_ndjson(folder, tmp_path / "out", context(), created=CREATED, scratch=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    (tmp_path / "empty").mkdir()
    for name, fault in (("empty", "holds no"), ("nowhere", "not a folder")):
        with pytest.raises(InputUnreadable, match=fault):
            build_from_ndjson(tmp_path / name, tmp_path / "out", context(), created=CREATED)


def test_of_a_resource_sent_twice_the_newer_version_counts(tmp_path: Path) -> None:
    old = diagnosis("N20.1", meta={"lastUpdated": "2026-03-02T00:00:00Z"})
    new = diagnosis("K35.80", meta={"lastUpdated": "2026-03-05T00:00:00Z"})
    write_export(tmp_path / "in", [*appendicitis()[:-1], new, old])
    info = build_from_ndjson(tmp_path / "in", tmp_path / "out", context(), created=CREATED)
    assert info.by_disease == {"acute-appendicitis": 1}
