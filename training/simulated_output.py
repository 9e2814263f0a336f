"""Simulated patients for people and other programs: FHIR on disk, and what a cohort is made of.

The patients of one seed and count are the same wherever they are written.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console

from models.assessment import SEVERITIES
from models.knowledge.schema import Disease
from training.datasets.context import DatasetContext
from training.datasets.export import export_ndjson
from training.datasets.progress import Bar, bars
from training.ensemble.cohort import Simulator
from training.simulation.bundles import Resource

LINES = (".ndjson", ".jsonl")
_SHOWN = 10


def write_fhir(simulator: Simulator, count: int, seed: int, out: Path, console: Console | None) -> int:
    """Write `count` patients as FHIR R4; returns the number of resources.

    A file ending in ``.ndjson`` gets one Bundle a line (without the diagnosis, as a caller would send
    them), a folder a bulk export by resource type with diagnoses.  Raises `OSError`.
    """
    with bars(console) as shown:
        visits = _visits(simulator, count, seed, shown.start("Writing FHIR", count))
        if out.suffix not in LINES:
            labels = DatasetContext(simulator.builder, simulator.knowledge).labels
            return sum(export_ndjson(visits, out, labels=labels).values())
        out.parent.mkdir(parents=True, exist_ok=True)
        total = 0
        with out.open("wb") as file:
            for bundle, _, _ in visits:
                file.write(msgspec.json.encode(bundle) + b"\n")
                total += len(bundle["entry"])
        return total


def _visits(
    simulator: Simulator, count: int, seed: int, bar: Bar
) -> Iterator[tuple[Resource, Disease, bool | None]]:
    done = 0
    for patients, recorded in simulator.batches(count, seed):
        bundles = simulator.writer.bundles(patients, recorded, done)
        for row, bundle in enumerate(bundles):
            yield bundle, simulator.knowledge.diseases[patients.disease[row]], bool(patients.immediate[row])
            bar.advance()
        done += len(patients)


def count_patients(simulator: Simulator, count: int, seed: int, console: Console | None) -> Iterator[str]:
    """Simulate `count` patients as rows and say what they are, line by line."""
    severity: Counter[str] = Counter()
    disease: Counter[str] = Counter()
    immediate = cells = 0
    with bars(console) as shown:
        bar = shown.start("Simulating", count)
        for patients, recorded in simulator.batches(count, seed):
            cells += simulator.rows(patients, recorded).features.nnz
            severity.update(SEVERITIES[number] for number in patients.severity)
            disease.update(simulator.tables.ids[number] for number in patients.disease)
            immediate += int(patients.immediate.sum())
            bar.advance(len(patients))
    yield f"{count:,} patients with {cells / count:.0f} known features each, {len(disease)} diseases"
    yield f"need attention within minutes: {immediate / count:.1%}"
    yield from (f"{name}: {severity[name] / count:.1%}" for name in SEVERITIES)
    often = ", ".join(f"{name} ({number:,})" for name, number in disease.most_common(_SHOWN))
    yield f"most often: {often}"
