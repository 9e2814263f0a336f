"""The feature vector: a `PatientChart` as numbers, with the chart item that each number comes from.

Responsible for one thing that training and serving must do alike: reading a chart by a `FeatureSchema`.
The schema is data that travels in the model bundle; which findings, risks and analytes it names is
decided where knowledge lives.  Nothing here judges.  A feature that the chart says nothing about is
exactly 0, and no feature that it speaks about is.

Values: a finding is 1 present, 1.5 the presenting complaint, 0.5 uncertain or only on the problem list,
-1 denied; what is present makes everything it is a kind of present, what is denied denies every kind
of it.  A measurement is its distance from the age's normal in standard deviations.
"""

from fhir_adapters.chart import PatientChart
from fhir_adapters.feature_reading import Reading
from fhir_adapters.feature_values import (
    ABSENT,
    COMPLAINT,
    DEMOGRAPHIC,
    LIMIT,
    PRESENT,
    UNSURE,
    AnalyteFeature,
    Features,
    FeatureSchema,
    Item,
    Stated,
    age_feature,
    duration_feature,
)
from fhir_adapters.hpo import Ontology

__all__ = [
    "ABSENT", "COMPLAINT", "LIMIT", "PRESENT", "UNSURE", "AnalyteFeature", "FeatureReader", "FeatureSchema",
    "Features", "Item", "Stated", "age_feature", "duration_feature",
]  # fmt: skip


class FeatureReader:
    """Reads charts by one schema; immutable, shared by all calls of a process."""

    def __init__(self, schema: FeatureSchema, ontology: Ontology) -> None:
        self.schema = schema
        self._ontology = ontology
        self._number = {key: number for number, key in enumerate(schema.findings)}
        below: list[list[int]] = [[] for _ in schema.findings]
        for number, above in enumerate(schema.above):
            for higher in above:
                below[higher].append(number)
        self.below = tuple(tuple(numbers) for numbers in below)
        self._nearest: dict[str, tuple[int, ...]] = {}
        self._icd = {key[4:]: number for key, number in self._number.items() if key.startswith("ICD:")}
        evidence: dict[str, dict[str, list[int]]] = {
            "icd": {}, "hp": {}, "coded": {}, "atc": {}, "fam": {}
        }  # fmt: skip
        for number, (_, spellings) in enumerate(schema.risks):
            for spelling in spellings:
                kind, _, code = spelling.partition(":")
                evidence[kind].setdefault(code, []).append(number)
        self._evidence = evidence
        self.risk_numbers = {name: number for number, (name, _) in enumerate(schema.risks)}
        self.analytes = {analyte.loinc: number for number, analyte in enumerate(schema.analytes)}
        self.trends = {number: place for place, number in enumerate(schema.trends)}
        self.results = {code: place for place, code in enumerate(schema.results)}
        sizes = (
            len(schema.findings),
            len(schema.risks),
            len(schema.analytes),
            len(schema.analytes),
            len(schema.trends),
            len(schema.trends),
            len(schema.results),
            len(DEMOGRAPHIC),
            len(schema.age_bands),
        )
        starts = [0]
        for size in sizes:
            starts.append(starts[-1] + size)
        (
            _,
            self.at_risks,
            self.at_values,
            self.at_measured,
            self.at_trend_day,
            self.at_trend_week,
            self.at_results,
            self.at_person,
            self.at_bands,
            self.size,
        ) = starts

    def risks_of(self, kind: str, code: str) -> tuple[int, ...]:
        """The numbers of the risks that a code is evidence of (prefixes for ``icd``, ``atc``, ``fam``)."""
        table = self._evidence[kind]
        if kind in ("hp", "coded"):
            return tuple(table.get(code, ()))
        found: list[int] = []
        for length in range(1, len(code) + 1):
            found.extend(table.get(code[:length], ()))
        return tuple(found)

    def numbers_of(self, key: str, *, denied: bool = False) -> tuple[int, ...]:
        """The finding numbers of an HPO id or ``ICD:`` code: itself, or the nearest it is a kind of.

        Of something `denied` only itself: who has no barking cough may well have a cough.
        """
        number = self._number.get(key)
        if number is not None:
            return (number,)
        if denied:
            return ()
        known = self._nearest.get(key)
        if known is None:
            known = self._search(key)
            if len(self._nearest) < 4096:
                self._nearest[key] = known
        return known

    def _search(self, key: str) -> tuple[int, ...]:
        if key.startswith("ICD:"):
            code = key[4:]
            for length in range(len(code), 2, -1):
                number = self._icd.get(code[:length].rstrip("."))
                if number is not None:
                    return (number,)
            return ()
        if key not in self._ontology:
            return ()
        above = {self._number[term] for term in self._ontology.ancestors(key) if term in self._number}
        return tuple(sorted(n for n in above if not any(n in self.schema.above[m] for m in above)))

    def read(self, chart: PatientChart) -> Features:
        """The features of a chart.  Pure; deterministic."""
        reading = Reading(self, chart)
        return reading.features()
