"""From what a chart holds to the `Fact` of an assessment: one form for every kind of evidence.

Responsible for the wording-free form of a finding, problem, value, drug or allergy as grounds of a
statement; it judges nothing.
"""

from fhir_adapters.chart import Allergy, CodedValue, Finding, Measurement, Medication, Problem, State
from models.assessment import Fact
from models.rules.analytes import Analyte

Evidence = Finding | Problem | Measurement | CodedValue | Medication | Allergy


def fact_of(item: Evidence, analytes: dict[str, Analyte]) -> Fact:
    """The evidence as a `Fact` of the assessment."""
    # By position, the frequent kinds first: this runs for every fact of every statement.

    if isinstance(item, Finding):
        return Fact("finding", item.hpo, item.label, item.sources, None, None, None, item.state, item.time)
    if isinstance(item, Problem):
        state: State = "uncertain" if item.status == "uncertain" else "present"
        return Fact("problem", item.icd10cm, item.label, item.sources, None, None, None, state, item.time)
    if isinstance(item, Measurement):
        analyte = analytes.get(item.loinc)
        label = analyte.label if analyte is not None else item.loinc
        return Fact(
            "measurement",
            item.loinc,
            label,
            (item.source, *item.also),
            item.value,
            item.unit,
            None,
            "present",
            item.time,
        )
    if isinstance(item, CodedValue):
        return Fact(
            "coded", item.loinc, item.value, (item.source,), None, None, item.value, "present", item.time
        )
    if isinstance(item, Medication):
        return Fact("medication", item.atc[0] if item.atc else "", item.label, item.sources, time=item.time)
    return Fact("allergy", item.atc[0] if item.atc else "", item.label, item.sources)
