"""From what a chart holds to the `Fact` of an assessment: one form for every kind of evidence.

Responsible for the wording-free form of a finding, problem, value, drug or allergy as grounds of a
statement; it judges nothing.
"""

from datetime import datetime

from fhir_adapters.chart import Allergy, CodedValue, Finding, Measurement, Medication, Problem
from models.assessment import Fact
from models.rules.analytes import Analyte

Evidence = Finding | Problem | Measurement | CodedValue | Medication | Allergy


def fact_of(item: Evidence, analytes: dict[str, Analyte]) -> Fact:
    """The evidence as a `Fact` of the assessment."""
    if isinstance(item, Measurement):
        analyte = analytes.get(item.loinc)
        label = analyte.label if analyte is not None else item.loinc
        return Fact(
            "measurement", item.loinc, label, (item.source,), value=item.value, unit=item.unit, time=item.time
        )
    if isinstance(item, Finding):
        return Fact("finding", item.hpo, item.label, item.sources, state=item.state, time=item.time)
    if isinstance(item, Problem):
        state = "uncertain" if item.status == "uncertain" else "present"
        return Fact("problem", item.icd10cm, item.label, item.sources, state=state, time=item.time)  # type: ignore[arg-type]
    if isinstance(item, CodedValue):
        return Fact("coded", item.loinc, item.value, (item.source,), text_value=item.value, time=item.time)
    kind = "medication" if isinstance(item, Medication) else "allergy"
    time: datetime | None = item.time if isinstance(item, Medication) else None
    return Fact(kind, item.atc[0] if item.atc else "", item.label, item.sources, time=time)  # type: ignore[arg-type]
