"""What the published rules say of simulated patients: a member of the pool for immediate attention.

Every patient is written as a FHIR Bundle and read back by the chart builder of serving, so that the
rules see what they would see of a real one.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from models.engine import Engine
from training.simulation.bundles import AT, Resource, Writer
from training.simulation.population import Patients
from training.simulation.recording import Recorded


class RulesReader:
    """Reads Bundles and asks the rules; a few milliseconds a patient."""

    def __init__(self, builder: ChartBuilder) -> None:
        """Raises what loading the packaged rules raises."""
        self._builder = builder
        self._engine = Engine.load(builder.tables.ontology)

    def logit(self, bundle: Resource) -> float:
        """The rules' logit of immediate attention for one Bundle, as serving hands it to the ensemble."""
        read = read_bundle(msgspec.json.encode(bundle))
        chart = self._builder.build(read, at=AT, patient_id=None, retrospective=True)
        return self._engine.rules_logit(chart)

    def logits(
        self, writer: Writer, patients: Patients, recorded: Recorded, rows: Sequence[int]
    ) -> NDArray[np.float64]:
        """The logits of some of the patients, in the order of `rows`."""
        bundles = (writer.bundle(patients, recorded, row, f"sim-{row:06d}") for row in rows)
        return np.array([self.logit(bundle) for bundle in bundles], dtype=np.float64)
