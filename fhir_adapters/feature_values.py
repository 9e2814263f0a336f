"""The values of the feature vector: which features there are, and a chart as such numbers.

Responsible for the `FeatureSchema` that travels in a model bundle, the `Features` of one chart and the
scales on which age, durations and measurements are put; reading a chart is `features`.
"""

import math

import msgspec

from fhir_adapters.chart import CodedValue, FamilyCondition, Finding, Measurement, Medication, Problem

Item = Finding | Problem | Measurement | CodedValue | Medication | FamilyCondition | str
"""What a feature comes from; the strings are ``"age"``, ``"sex"`` and ``"pregnancy"``."""

PRESENT, COMPLAINT, UNSURE, ABSENT = 1.0, 1.5, 0.5, -1.0
LIMIT = 12.0
"""Standard deviations beyond which a measurement is no further from normal."""
NOT_ZERO = 1e-4
DEMOGRAPHIC = ("age", "sex", "pregnancy", "emergency", "duration", "complaint")


class AnalyteFeature(msgspec.Struct, frozen=True):
    """A measurement as the schema reads it.

    `male`/`female` is the normal of adults, `spread` its standard deviation (factor, when `log`);
    `ages` holds ``(below this age in years, normal, spread)`` rising; `window_hours` how old a value
    may be and still speak of now.
    """

    key: str
    loinc: str
    log: bool
    male: float
    female: float
    spread: float
    window_hours: float
    ages: tuple[tuple[float, float, float], ...] = ()

    def distance(self, value: float, years: float | None, sex: str) -> float:
        """Standard deviations from normal, limited to ±`LIMIT`, never exactly 0."""
        return self.from_normal(value, *self.normal(years, sex))

    def from_normal(self, value: float, normal: float, spread: float) -> float:
        """The same by what `normal` gave, for one who asks for several values."""
        if self.log:
            found = math.log(max(value, 1e-6) / normal) / math.log(spread)
        else:
            found = (value - normal) / spread
        found = max(-LIMIT, min(LIMIT, found))
        return found if abs(found) >= NOT_ZERO else NOT_ZERO

    def normal(self, years: float | None, sex: str) -> tuple[float, float]:
        """Normal value and spread at an age (years, `None` as an adult) and sex."""
        if years is not None:
            for below, normal, spread in self.ages:
                if years < below:
                    return normal, spread
        middle = self.female if sex == "female" else self.male
        return middle, self.spread


class FeatureSchema(msgspec.Struct, frozen=True):
    """Which features there are and how a chart is read for them; part of a model bundle.

    `findings` are keys (HPO ids, or ``ICD:`` prefixes), `above` for each the numbers of those it is a
    kind of.  `risks` are ``(id, evidence)``, `coded` maps ``"LOINC=answer"`` to a finding key and state,
    `results` are LOINC codes of tests answered positive or negative, `trends` numbers of analytes.
    """

    ontology: str
    findings: tuple[str, ...]
    above: tuple[tuple[int, ...], ...]
    risks: tuple[tuple[str, tuple[str, ...]], ...]
    analytes: tuple[AnalyteFeature, ...]
    trends: tuple[int, ...]
    results: tuple[str, ...]
    coded: dict[str, tuple[str, str]]
    age_bands: tuple[float, ...]

    def names(self) -> tuple[str, ...]:
        """The name of every feature, in order: findings, risks, values, measured, trends, results, person."""
        keys = [analyte.key for analyte in self.analytes]
        moving = [keys[number] for number in self.trends]
        return (
            *self.findings,
            *(f"risk:{name}" for name, _ in self.risks),
            *(f"value:{key}" for key in keys),
            *(f"measured:{key}" for key in keys),
            *(f"trend-24h:{key}" for key in moving),
            *(f"trend-7d:{key}" for key in moving),
            *(f"result:{code}" for code in self.results),
            *DEMOGRAPHIC,
            *(f"age-band:{number}" for number in range(len(self.age_bands))),
        )


class Stated(msgspec.Struct, frozen=True, gc=False):
    """A finding as the chart states it: its number, value, and the number of the item that says so."""

    finding: int
    value: float
    item: int


class Features(msgspec.Struct, frozen=True):
    """A chart by a schema: ``values[i]`` of feature ``index[i]`` is from item ``owner[i]`` (-1: the visit).

    `named` holds the ICD-10-CM codes of diseases given as the reason for the visit, with their items.
    `stated` holds what is said of findings without what follows from it: of the present ones the most
    specific, of the denied ones those said.  Order is deterministic.
    """

    index: tuple[int, ...]
    values: tuple[float, ...]
    owner: tuple[int, ...]
    stated: tuple[Stated, ...]
    named: tuple[tuple[str, int], ...]
    items: tuple[Item, ...]
    emergency: bool
    age_years: float | None
    sex: str


def age_feature(years: float) -> float:
    """Age on a scale that spreads out childhood: the logarithm, 0 at about 26 years."""
    return math.log1p(years) - 3.3


def duration_feature(days: int) -> float:
    """How many whole days the complaint has lasted, as log10 (half a day for 0), never exactly 0."""
    found = math.log10(min(max(days, 0.5), 20000.0))
    return found if abs(found) >= NOT_ZERO else NOT_ZERO
