"""What the rare-disease engine adds to one call: the phenotype, the alarm, the ranking, the whole answer.

On the charts of the examples and on emergency charts of 100 and 1,000 resources, one core, the shipped
bundle; medians over rounds, microseconds of processor time, and the memory the engine adds.

    python -m benchmarks.rare
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import psutil

from benchmarks.ensemble import charts, microseconds
from cds_server.deployment.loading import at_start
from cds_server.deployment.source import BundleSource
from cds_server.settings import Settings
from fhir_adapters.chart import PatientChart
from fhir_adapters.phenotype import PhenotypeReader
from models.engine import Engine
from models.rare.engine import RareEngine
from models.rare_opinion import RareReader


def measure(engine: Engine, rare: RareReader, reader: PhenotypeReader, chart: PatientChart) -> list[float]:
    """Findings, then microseconds of each step."""
    threshold = engine.settings.rare_alarm_threshold
    return [
        len(reader.read(chart).present),
        microseconds(lambda: reader.read(chart)),
        microseconds(lambda: rare.hold(chart, (), threshold, thorough=False)),
        microseconds(lambda: rare.hold(chart, (), threshold, thorough=True)),
        microseconds(lambda: engine.assess(chart)),
    ]


def main() -> None:
    """Print the table."""
    knowledge = at_start(BundleSource.of(Settings()), None)
    bundle = BundleSource.of(Settings()).load(knowledge.builder.tables.ontology.version)
    engine, ontology = knowledge.engine, knowledge.builder.tables.ontology
    if engine.rare is None or bundle is None or bundle.rare is None:
        raise SystemExit("the bundle holds no rare-disease engine: nothing to measure")
    before = psutil.Process().memory_info().rss
    second = RareEngine.of(bundle.rare)
    added = psutil.Process().memory_info().rss - before
    reader = PhenotypeReader.load(ontology)
    rare = RareReader(second, reader, ontology)
    print(f"bundle {engine.model_id}, memory added by another engine {added / 2**20:.0f} MiB")
    print("| chart | findings | phenotype | with the alarm | with list and reasons | the whole assessment |")
    print("|---|---|---|---|---|---|")
    for name, chart in charts(knowledge.builder).items():
        print(f"| {name} |" + "".join(f" {value:.0f} |" for value in measure(engine, rare, reader, chart)))


if __name__ == "__main__":
    main()
