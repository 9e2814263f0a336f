"""Simulated patients for people and other programs: FHIR on disk, and what a cohort is made of.

The patients of one seed and count are the same wherever they are written.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console

from models.assessment import SEVERITIES
from training.datasets.context import DatasetContext
from training.datasets.progress import bars
from training.datasets.simulated import export_simulated
from training.ensemble.cohort import Simulator

LINES = (".ndjson", ".jsonl")
_SHOWN = 10


def write_fhir(simulator: Simulator, count: int, seed: int, out: Path, console: Console | None) -> int:
    """Write `count` patients as FHIR R4; returns the number of resources.

    A file ending in ``.ndjson`` gets one Bundle a line (without the diagnosis, as a caller would send
    them), a folder a bulk export by resource type with diagnoses.  Raises `OSError`.
    """
    if out.suffix not in LINES:
        labels = DatasetContext(simulator.builder, simulator.knowledge).labels
        return sum(export_simulated(simulator, labels, count, seed, out).values())
    out.parent.mkdir(parents=True, exist_ok=True)
    total = 0
    with bars(console) as shown, out.open("wb") as file:
        bar = shown.start("Writing FHIR", count)
        done = 0
        for patients, recorded in simulator.batches(count, seed):
            for bundle in simulator.writer.bundles(patients, recorded, done):
                file.write(msgspec.json.encode(bundle) + b"\n")
                total += len(bundle["entry"])
                bar.advance()
            done += len(patients)
    return total


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
