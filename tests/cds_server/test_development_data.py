"""The development charts of ../shared/clinical all pass; nearly every coded finding in them is understood."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_helpers import Running

from cds_server.state import Knowledge
from fhir_adapters.chart_builder import moment_of
from fhir_adapters.decode import read_bundle

CLINICAL = Path(__file__).resolve().parents[3] / "shared" / "clinical"

pytestmark = pytest.mark.skipif(
    not CLINICAL.is_dir(), reason="the development data (../shared/clinical) is not beside this repository"
)


def bundles(name: str) -> Iterator[bytes]:
    if name == "synthea":
        for path in sorted((CLINICAL / "synthea").glob("*.json.gz")):
            yield gzip.decompress(path.read_bytes())
    else:
        with gzip.open(CLINICAL / f"{name}_bundles.ndjson.gz") as lines:
            yield from lines


@pytest.mark.parametrize("name", ["ktas", "ddxplus", "synthea"])
def test_every_bundle_is_assessed_over_http(server: Running, name: str) -> None:
    statuses = [server.post("/fhir/$assess", bundle).status_code for bundle in bundles(name)]
    assert len(statuses) >= 20
    assert set(statuses) == {200}


@pytest.mark.parametrize("name", ["ktas", "ddxplus", "synthea"])
def test_fewer_than_five_percent_of_coded_elements_are_unmapped(knowledge: Knowledge, name: str) -> None:
    coded = unmapped = issues = 0
    for bundle in bundles(name):
        found = read_bundle(bundle)
        at = moment_of(found)
        assert at is not None
        chart = knowledge.builder.build(found, at=at, patient_id=None, retrospective=True)
        coded += chart.coded_total
        unmapped += sum(entry.system != "text" for entry in chart.unmapped)
        issues += len(chart.issues)
    print(f"{name}: {unmapped} of {coded} coded elements unmapped, {issues} read issues")
    assert coded > 500
    assert unmapped < 0.05 * coded


def test_synthea_patients_get_no_critical_card_from_their_past(server: Running) -> None:
    alarmed = 0
    for bundle in bundles("synthea"):
        answer = {p["name"]: p for p in server.post("/fhir/$assess", bundle).json()["parameter"]}
        decision = next(part for part in answer["immediate-attention"]["part"] if part["name"] == "decision")
        alarmed += decision["valueBoolean"]
    assert alarmed <= 1, f"{alarmed} of 20 outpatients are said to need immediate attention"


def test_labels_and_bundles_stand_in_the_same_order() -> None:
    for name in ("ktas", "ddxplus"):
        labels = (CLINICAL / f"{name}_labels.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(label)["id"] for label in labels] == [json.loads(b)["id"] for b in bundles(name)]
