"""Patients of everyday diseases as HPO phenotypes, from the simulator of common diseases.

Responsible for what an alarm must not ring for, and for how often each finding is recorded of people who
come for something common.  The clinical facts behind both stand in `models/knowledge`.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from models.rare.phenotype import Phenotype
from training.ensemble.cohort import Simulator
from training.simulation.recording import COMPLAINT, DENIED_CODE, PRESENT

SECOND = 0.3
"""Share of everyday patients whose chart also holds the findings of another everyday disease (grade C)."""


WRITTEN = 0.5
"""Share of long-standing everyday findings that stand in a chart (grade C)."""
ONLY_STANDING = 0.25
"""Share of everyday patients who come with long-standing everyday findings only (grade C)."""
EVERYDAY = Path(__file__).parent / "data" / "everyday.csv"


def everyday_prevalence(path: Path = EVERYDAY) -> dict[str, float]:
    """Prevalence of long-standing everyday findings among adults and children, by HPO id."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["hpo"]: float(row["prevalence"]) for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Visitors:
    """Everyday patients, and the share of them who have each finding recorded (by HPO id)."""

    phenotypes: tuple[Phenotype, ...]
    share: dict[str, float]


def everyday_patients(count: int, seed: int, progress: Progress) -> Visitors:
    """`count` patients with at least one finding; the same seed gives the same."""
    simulator = Simulator.load()
    keys = [key if key.startswith("HP:") else "" for key in simulator.schema.findings]
    coded = np.array([bool(key) for key in keys])
    charts: list[tuple[frozenset[str], frozenset[str]]] = []
    totals = np.zeros(len(keys))
    seen = 0
    task = progress.add_task("everyday patients", total=count)
    for _, recorded in simulator.batches(2 * count, seed):
        present = (recorded.stated == PRESENT) | (recorded.stated == COMPLAINT)
        denied = recorded.stated == DENIED_CODE
        totals += present.sum(axis=0)
        seen += len(present)
        for row in range(len(present)):
            observed = np.flatnonzero(present[row] & coded)
            if len(observed):
                excluded = np.flatnonzero(denied[row] & coded)
                charts.append((frozenset(keys[n] for n in observed), frozenset(keys[n] for n in excluded)))
        progress.update(task, completed=min(len(charts), count))
    rng = np.random.default_rng(seed)
    prevalence = everyday_prevalence()
    standing, chance = list(prevalence), np.array(list(prevalence.values())) * WRITTEN
    found = []
    for chart in charts[:count]:
        present, absent = chart
        if rng.random() < SECOND:
            other, denied_too = charts[int(rng.integers(len(charts)))]
            present, absent = present | other, absent | denied_too
        known = frozenset(standing[n] for n in np.flatnonzero(rng.random(len(chance)) < chance))
        only = bool(known) and rng.random() < ONLY_STANDING
        present = known if only else present | known
        found.append(Phenotype(tuple(sorted(present)), tuple(sorted(absent - present))))
    share = {key: float(total / seen) for key, total in zip(keys, totals, strict=True) if key}
    for key, value in prevalence.items():
        share[key] = max(share.get(key, 0.0), value * WRITTEN)
    return Visitors(tuple(found), share)
