"""From a bundle to knowledge that answers: loaded, tried on a patient, and only then anybody's.

A bundle may be signed, whole and still not work (arrays of other shapes, a member missing).  That must
show here and not at the first patient, so every engine assesses a made-up chart before it is used.
"""

import gc
from datetime import UTC, datetime

from cds_server.deployment.memory import settle
from cds_server.deployment.source import BundleSource, ModelRefused
from cds_server.state import Knowledge
from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle

_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
_TRIAL = b"""{"resourceType": "Bundle", "type": "collection", "entry": [
 {"resource": {"resourceType": "Patient", "id": "trial", "gender": "female", "birthDate": "1980-01-01"}},
 {"resource": {"resourceType": "Observation", "id": "t", "status": "final",
  "subject": {"reference": "Patient/trial"},
  "code": {"coding": [{"system": "http://loinc.org", "code": "8310-5"}]},
  "effectiveDateTime": "2026-01-01T11:30:00Z",
  "valueQuantity": {"value": 39.2, "system": "http://unitsofmeasure.org", "code": "Cel"}}},
 {"resource": {"resourceType": "Condition", "id": "c",
  "subject": {"reference": "Patient/trial"},
  "clinicalStatus": {"coding": [
   {"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
  "code": {"coding": [{"system": "http://snomed.info/sct", "code": "49727002"}]}}}]}"""


def at_start(source: BundleSource, shared: Knowledge | None) -> Knowledge:
    """The knowledge a server starts with; `shared` gives the terminology when it is loaded already.

    Raises `ModelRefused`: a server that was told which model to use does not start with another.
    """
    base = shared if shared is not None else Knowledge.load()
    return with_bundle_of(source, base)


def with_bundle_of(source: BundleSource, base: Knowledge) -> Knowledge:
    """Knowledge with the bundle at the source, tried; `base` itself when it has that very bundle.

    Takes about a second; pure but for reading, so it may run in a thread.  Raises `ModelRefused`.
    """
    bundle = source.load(base.builder.tables.ontology.version)
    if (bundle.id if bundle is not None else None) == base.bundle:
        return base
    try:
        knowledge = base.with_bundle(bundle)
        try_out(knowledge)
    except Exception as fault:
        # Whatever it is, it is the bundle's: the same code and chart work with the one in use.
        raise ModelRefused("ModelUnusable", f"the engine cannot use it: {_told(fault)}") from fault
    if gc.get_freeze_count():
        # As at start (`cds_server.serve`): what was loaded stays, so no later collection walks through it.
        settle()
    return knowledge


def trial_chart(builder: ChartBuilder) -> PatientChart:
    """A made-up woman with fever and cough."""
    return builder.build(read_bundle(_TRIAL), at=_AT, patient_id=None)


def try_out(knowledge: Knowledge) -> None:
    """Assess the made-up patient; raises what goes wrong, and `ValueError` for an impossible probability."""
    assessment = knowledge.engine.assess(trial_chart(knowledge.builder), thorough=True)
    shares = [*assessment.severity_probabilities, assessment.immediate_probability]
    shares += [prediction.probability for prediction in (*assessment.common, *assessment.rare)]
    shares.append(assessment.rare_alarm_probability)
    if not all(0 <= share <= 1 for share in shares):  # also false for NaN
        raise ValueError("a probability is not between 0 and 1")


def _told(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"[:200]
