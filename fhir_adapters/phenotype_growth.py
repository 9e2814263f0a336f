"""Growth into HPO terms: the newest height, weight, body mass index and head circumference for age and sex.

Responsible for the limits (``phenotype_growth.csv``) and for the age that is compared with: corrected for
birth before 37 weeks until the second birthday.  Z-scores come from `fhir_adapters.growth`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from fhir_adapters.chart import Measurement, PatientChart
from fhir_adapters.growth import MONTH_DAYS, GrowthReference, Measure, measure_of
from fhir_adapters.hpo import Ontology
from fhir_adapters.phenotype_measured import Judged
from fhir_adapters.phenotype_profile import PhenotypeIssue
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows, real, required

FILE = "phenotype_growth.csv"
COLUMNS = (
    "measure", "direction", "from_months", "to_months", "z", "hpo", "label", "excluded_from_z", "source"
)  # fmt: skip
HEIGHT, WEIGHT, BMI, HEAD, GESTATION = "8302-2", "29463-7", "39156-5", "9843-4", "76516-4"
_DIRECT: tuple[tuple[Measure, str], ...] = (("stature", HEIGHT), ("weight", WEIGHT), ("head", HEAD))
_TERM_WEEKS, _CORRECTED_DAYS = 37.0, 731
# Further out is a slip of the pen or the unit.  Grade C: estimate of this project.
_IMPLAUSIBLE = 8.0
# A height and a weight make a body mass index when they were taken within so many days.  Grade C.
_TOGETHER = timedelta(days=30)


class GrowthLimit(NamedTuple):
    """One limit: beyond `z` in its direction the term is present, from `excluded_from` inwards excluded.

    Ages in months of 30.4375 days, from inclusive, to exclusive.
    """

    below: bool
    from_months: float
    to_months: float
    z: float
    hpo: str
    excluded_from: float | None


class GrowthReader:
    """Reads growth by one reference and one table of limits."""

    def __init__(self, reference: GrowthReference, limits: dict[Measure, tuple[GrowthLimit, ...]]) -> None:
        self._reference = reference
        self._limits = limits

    @classmethod
    def load(cls, ontology: Ontology) -> "GrowthReader":
        """Read and check the packaged tables; raises `TerminologyInvalid` naming file and row."""
        limits: dict[Measure, list[GrowthLimit]] = {}
        for number, cells in read_rows(FILE, COLUMNS):
            required(FILE, number, cells, *COLUMNS[:7], "source")
            measure = measure_of(cells["measure"])
            if measure is None or cells["direction"] not in ("below", "above"):
                raise TerminologyInvalid(FILE, number, "unknown measure or direction")
            if not ontology.is_phenotype(cells["hpo"]) or ontology.label(cells["hpo"]) != cells["label"]:
                raise TerminologyInvalid(FILE, number, f"{cells['hpo']!r} is not {cells['label']!r} in HPO")
            first, last, z = (real(FILE, number, cells, name) or 0.0 for name in COLUMNS[2:5])
            near, below = real(FILE, number, cells, "excluded_from_z"), cells["direction"] == "below"
            if first >= last or (z >= 0) == below or (near is not None and (near <= z) == below):
                raise TerminologyInvalid(FILE, number, "ages or z-scores are not in order")
            limits.setdefault(measure, []).append(GrowthLimit(below, first, last, z, cells["hpo"], near))
        return cls(GrowthReference.load(), {measure: tuple(rows) for measure, rows in limits.items()})

    def read(self, chart: PatientChart) -> tuple[list[Judged], list[PhenotypeIssue]]:
        """What the newest measurements say, and what could not be judged."""
        subject, series = chart.subject, chart.measurements
        issues: list[PhenotypeIssue] = []
        taken = list(_newest(chart))
        if not taken:
            return [], issues
        sources = tuple(sorted({source for _, _, _, names in taken for source in names}))
        if subject.sex not in ("female", "male"):
            return [], [PhenotypeIssue("sex-unknown", sources, "growth")]
        rough = subject.birth_date_precision not in ("day", "month")
        if subject.age_days is None or (rough and subject.age_days < 21 * 365):
            return [], [PhenotypeIssue("age-unknown", sources, "growth")]
        weeks = series[GESTATION][0].value if series.get(GESTATION) else None
        early = (40.0 - weeks) * 7 if weeks is not None and weeks < _TERM_WEEKS else 0.0
        judged: list[Judged] = []
        for measure, value, time, names in taken:
            age = subject.age_days - (0 if time is None else (chart.at - time).days)
            if measure in ("weight", "bmi") and _pregnant(chart, time):
                issues.append(PhenotypeIssue("pregnancy", names, "growth"))
                continue
            compared = age - early if age < _CORRECTED_DAYS else float(age)
            z = self._reference.z(measure, subject.sex, compared, value) if compared >= 0 else None
            if z is None:
                continue
            if abs(z) > _IMPLAUSIBLE:
                issues.append(PhenotypeIssue("implausible-growth", names, measure))
                continue
            judged.extend(self._judge(measure, z, compared / MONTH_DAYS, names, max(0, age)))
        return judged, issues

    def _judge(
        self, measure: Measure, z: float, months: float, sources: tuple[str, ...], age: int
    ) -> Iterator[Judged]:
        for limit in self._limits.get(measure, ()):
            if not limit.from_months <= months < limit.to_months:
                continue
            if z < limit.z if limit.below else z > limit.z:
                yield Judged(limit.hpo, "present", sources, age)
            elif limit.excluded_from is not None and (
                z >= limit.excluded_from if limit.below else z <= limit.excluded_from
            ):
                yield Judged(limit.hpo, "excluded", sources)


def _pregnant(chart: PatientChart, time: datetime | None) -> bool:
    subject = chart.subject
    if not (subject.pregnant or subject.postpartum):
        return False
    return time is None or chart.at - time < timedelta(weeks=46)


def _sources(value: Measurement) -> tuple[str, ...]:
    return tuple(sorted({value.source, *value.also}))


def _newest(chart: PatientChart) -> Iterator[tuple[Measure, float, datetime | None, tuple[str, ...]]]:
    """The newest value of each measure, none with a comparator; the index is worked out when not sent."""
    found: dict[str, Measurement] = {}
    for loinc in (HEIGHT, WEIGHT, BMI, HEAD):
        series = chart.measurements.get(loinc)
        if series and series[0].comparator is None:
            found[loinc] = series[0]
    for measure, loinc in _DIRECT:
        if loinc in found:
            value = found[loinc]
            yield measure, value.value, value.time, _sources(value)
    if BMI in found:
        value = found[BMI]
        yield "bmi", value.value, value.time, _sources(value)
    elif HEIGHT in found and WEIGHT in found:
        height, weight = found[HEIGHT], found[WEIGHT]
        if height.time is None or weight.time is None or abs(height.time - weight.time) <= _TOGETHER:
            sources = tuple(sorted({*_sources(height), *_sources(weight)}))
            yield "bmi", weight.value / (height.value / 100) ** 2, weight.time, sources
