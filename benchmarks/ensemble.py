"""What the ensemble adds to one call: reading features, running the members, explaining, all of it.

On the charts of the examples and on emergency charts of 100 and 1,000 resources, one core, the shipped
bundle; medians over rounds, microseconds of processor time, and memory of the engine with and without
the bundle.

    python -m benchmarks.ensemble
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import psutil

from benchmarks.charts import hook_request
from cds_server.deployment.loading import at_start
from cds_server.deployment.source import BundleSource
from cds_server.settings import Settings
from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder, moment_of
from fhir_adapters.decode import read_bundle
from models.common.engine import EXPLAINED, CommonEngine, _regroup
from models.engine import Engine

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ROUNDS, REPEATS = 7, 40
NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def charts(builder: ChartBuilder) -> dict[str, PatientChart]:
    """The charts measured, by name."""
    requests: dict[str, dict[str, Any]] = {}
    for path in sorted(EXAMPLES.glob("*.json")):
        requests[path.stem] = json.loads(path.read_text(encoding="utf-8"))
    for size in (100, 1_000):
        requests[f"emergency, {size} resources"] = json.loads(hook_request(size, now=NOW))
    found: dict[str, PatientChart] = {}
    for name, request in requests.items():
        entries: list[dict[str, Any]] = []
        for value in request.get("prefetch", {}).values():
            if value and value.get("resourceType") == "Bundle":
                entries += value.get("entry", [])
            elif value:
                entries.append({"resource": value})
        if not entries:
            continue
        read = read_bundle(
            json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()
        )
        at = moment_of(read) or NOW
        found[name] = builder.build(read, at=at, patient_id=None, retrospective=True)
    return found


def microseconds(work: Callable[[], object]) -> float:
    """Median over rounds of the processor time of one call."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REPEATS):
            work()
        times.append((time.process_time() - began) / REPEATS * 1e6)
    return statistics.median(times)


def measure(engine: CommonEngine, chart: PatientChart) -> dict[str, float]:
    """Microseconds of each step."""
    features = engine.reader.read(chart)
    outcome = engine.ensemble.run(features, 0.0)
    facts, owner = engine._facts(features)
    grouped = _regroup(outcome, owner)
    shown = np.argsort(-outcome.disease)[:EXPLAINED]
    return {
        "read": microseconds(lambda: engine.reader.read(chart)),
        "run": microseconds(lambda: engine.ensemble.run(features, 0.0)),
        "explain": microseconds(lambda: engine.ensemble.explain(grouped, len(facts), shown, immediate=True)),
        "all": microseconds(lambda: engine.assess(chart, 0.0)),
        "facts": float(len(facts)),
    }


def main() -> None:
    """Print the table."""
    process = psutil.Process()
    builder = ChartBuilder.load()
    Engine.load(builder.tables.ontology)
    before = process.memory_info().rss
    knowledge = at_start(BundleSource.of(Settings()), None)
    after = process.memory_info().rss
    engine = knowledge.engine.common
    if engine is None:
        raise SystemExit("no bundle is shipped: nothing to measure")
    print(f"bundle {knowledge.engine.model_id}, memory added {(after - before) / 2**20:.0f} MiB")
    print("| chart | facts | read | run | explain | these three | with counterfactuals, next steps |")
    print("|---|---|---|---|---|---|---|")
    for name, chart in charts(builder).items():
        row = measure(engine, chart)
        both = row["read"] + row["run"] + row["explain"]
        print(
            f"| {name} | {row['facts']:.0f} | {row['read']:.0f} | {row['run']:.0f} | {row['explain']:.0f} "
            f"| {both:.0f} | {row['all']:.0f} |"
        )


if __name__ == "__main__":
    main()
