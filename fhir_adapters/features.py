"""The feature vector: a `PatientChart` as numbers, with the chart item that each number comes from.

Responsible for one thing that training and serving must do alike: reading a chart by a `FeatureSchema`.
The schema is data that travels in the model bundle; which findings, risks and analytes it names is
decided where knowledge lives.  Nothing here judges.  A feature that the chart says nothing about is
exactly 0, and no feature that it speaks about is.

Values: a finding is 1 present, 1.5 the presenting complaint, 0.5 uncertain or only on the problem list,
-1 denied; what is present makes everything it is a kind of present, what is denied denies every kind
of it.  A measurement is its distance from the age's normal in standard deviations.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from fhir_adapters.chart import (
    CodedValue,
    FamilyCondition,
    Finding,
    Measurement,
    Medication,
    PatientChart,
    Problem,
)
from fhir_adapters.hpo import Ontology

Item = Finding | Problem | Measurement | CodedValue | Medication | FamilyCondition | str
"""What a feature comes from; the strings are ``"age"``, ``"sex"`` and ``"pregnancy"``."""

PRESENT, COMPLAINT, UNSURE, ABSENT = 1.0, 1.5, 0.5, -1.0
LIMIT = 12.0
"""Standard deviations beyond which a measurement is no further from normal."""
TREND_GAP = timedelta(hours=4)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
_NOT_ZERO = 1e-4
_DEMOGRAPHIC = ("age", "sex", "pregnancy", "emergency", "duration", "complaint")


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
        normal, spread = self.normal(years, sex)
        if self.log:
            found = math.log(max(value, 1e-6) / normal) / math.log(spread)
        else:
            found = (value - normal) / spread
        found = max(-LIMIT, min(LIMIT, found))
        return found if abs(found) >= _NOT_ZERO else _NOT_ZERO

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
            *_DEMOGRAPHIC,
            *(f"age-band:{number}" for number in range(len(self.age_bands))),
        )


class Stated(msgspec.Struct, frozen=True, gc=False):
    """A finding as the chart states it: its number, value, and the number of the item that says so."""

    finding: int
    value: float
    item: int


class Features(msgspec.Struct, frozen=True):
    """A chart by a schema: ``values[i]`` of feature ``index[i]`` is from item ``owner[i]`` (-1: the visit).

    `stated` holds what is said of findings without what follows from it: of the present ones the most
    specific, of the denied ones those said.  Order is deterministic.
    """

    index: tuple[int, ...]
    values: tuple[float, ...]
    owner: tuple[int, ...]
    stated: tuple[Stated, ...]
    items: tuple[Item, ...]
    emergency: bool
    age_years: float | None
    sex: str


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
        self._below = tuple(tuple(numbers) for numbers in below)
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
        self._risk_number = {name: number for number, (name, _) in enumerate(schema.risks)}
        self._analytes = {analyte.loinc: number for number, analyte in enumerate(schema.analytes)}
        self._trend = {number: place for place, number in enumerate(schema.trends)}
        self._result = {code: place for place, code in enumerate(schema.results)}
        sizes = (
            len(schema.findings),
            len(schema.risks),
            len(schema.analytes),
            len(schema.analytes),
            len(schema.trends),
            len(schema.trends),
            len(schema.results),
            len(_DEMOGRAPHIC),
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
        reading = _Reading(self, chart)
        return reading.features()


class _Reading:
    """One chart being read: collects values by feature, then settles findings."""

    def __init__(self, reader: FeatureReader, chart: PatientChart) -> None:
        self.reader = reader
        self.chart = chart
        self.items: list[Item] = []
        self.present: dict[int, tuple[float, int]] = {}
        self.absent: dict[int, int] = {}
        self.values: dict[int, tuple[float, int]] = {}
        self.complaint: Finding | Problem | None = None
        self.complaint_item = -1

    def features(self) -> Features:
        chart = self.chart
        self._findings()
        self._problems()
        self._coded()
        self._drugs_and_family()
        self._measurements()
        self._person()
        stated = self._settle()
        order = sorted(self.values)
        encounter = chart.encounter
        return Features(
            tuple(order),
            tuple([self.values[i][0] for i in order]),
            tuple([self.values[i][1] for i in order]),
            stated,
            tuple(self.items),
            encounter is not None and encounter.setting in ("emergency", "inpatient"),
            chart.subject.age_years,
            chart.subject.sex,
        )

    def _item(self, item: Item) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def _say(self, numbers: Sequence[int], value: float, item: int) -> None:
        if value < 0:
            for number in numbers:
                self.absent.setdefault(number, item)
            return
        for number in numbers:
            held = self.present.get(number)
            if held is None or held[0] < value:
                self.present[number] = (value, item)

    def _risk(self, numbers: Sequence[int], value: float, item: int) -> None:
        for number in numbers:
            place = self.reader.at_risks + number
            held = self.values.get(place)
            if held is None or held[0] < value:
                self.values[place] = (value, item)

    def _findings(self) -> None:
        reader = self.reader
        for finding in self.chart.findings:
            numbers = reader.numbers_of(finding.hpo, denied=finding.state == "absent")
            risks = reader.risks_of("hp", finding.hpo)
            if not numbers and not risks:
                continue
            item = self._item(finding)
            value = _value(finding.state, finding.role)
            self._say(numbers, value, item)
            self._risk(risks, value, item)
            if value == COMPLAINT and self.complaint is None:
                self.complaint, self.complaint_item = finding, item

    def _problems(self) -> None:
        reader = self.reader
        for problem in self.chart.problems:
            status = problem.status
            numbers = reader.numbers_of("ICD:" + problem.icd10cm, denied=status == "absent")
            risks = reader.risks_of("icd", problem.icd10cm)
            if not numbers and not risks:
                continue
            item = self._item(problem)
            if status == "absent":
                self._say(numbers, ABSENT, item)
                self._risk(risks, ABSENT, item)
                continue
            # What is over is history: it stays a risk and is no present finding.
            self._risk(risks, UNSURE if status == "uncertain" else PRESENT, item)
            if status in ("active", "uncertain") and numbers:
                value = _value("uncertain" if status == "uncertain" else "present", problem.role)
                self._say(numbers, value, item)
                if value == COMPLAINT and self.complaint is None:
                    self.complaint, self.complaint_item = problem, item

    def _coded(self) -> None:
        reader = self.reader
        for loinc, series in self.chart.coded.items():
            newest = series[0]
            spelled = f"{loinc}={newest.value}"
            risks = reader.risks_of("coded", spelled)
            says = reader.schema.coded.get(spelled)
            place = reader._result.get(loinc)
            if not risks and says is None and place is None:
                continue
            item = self._item(newest)
            self._risk(risks, PRESENT, item)
            if says is not None:
                self._say(reader.numbers_of(says[0]), PRESENT if says[1] == "present" else ABSENT, item)
            if place is not None and newest.value in _RESULTS:
                self.values[reader.at_results + place] = (_RESULTS[newest.value], item)

    def _drugs_and_family(self) -> None:
        reader = self.reader
        for drug in self.chart.medications:
            numbers = tuple({n for code in drug.atc for n in reader.risks_of("atc", code)})
            if drug.active and numbers:
                self._risk(numbers, PRESENT, self._item(drug))
        for relative in self.chart.family_history:
            if relative.icd10cm is not None:
                numbers = reader.risks_of("fam", relative.icd10cm)
                if numbers:
                    self._risk(numbers, PRESENT, self._item(relative))

    def _measurements(self) -> None:
        reader, chart = self.reader, self.chart
        years, sex = chart.subject.age_years, chart.subject.sex
        start = chart.encounter.start if chart.encounter is not None else None
        for loinc, series in chart.measurements.items():
            number = reader._analytes.get(loinc)
            if number is None or not series:
                continue
            analyte = reader.schema.analytes[number]
            newest = series[0]
            since = chart.at - timedelta(hours=analyte.window_hours)
            if start is not None and start < since:
                since = start
            if newest.time is not None and newest.time < since:
                continue
            item = self._item(newest)
            value = analyte.distance(newest.value, years, sex)
            self.values[reader.at_values + number] = (value, item)
            self.values[reader.at_measured + number] = (1.0, item)
            place = reader._trend.get(number)
            if place is not None and newest.time is not None and len(series) > 1:
                self._trend(place, analyte, series, value, newest.time, item)

    def _trend(
        self,
        place: int,
        analyte: AnalyteFeature,
        series: Sequence[Measurement],
        value: float,
        time: datetime,
        item: int,
    ) -> None:
        """The change since the oldest value of the last 24 hours, and the newest before that in 7 days."""
        reader, subject = self.reader, self.chart.subject
        for older in reversed(series):
            if older.time is None:
                continue
            gap = time - older.time
            if TREND_GAP <= gap <= DAY:
                change = value - analyte.distance(older.value, subject.age_years, subject.sex)
                self.values[reader.at_trend_day + place] = (change or _NOT_ZERO, item)
                break
        for older in series[1:]:
            if older.time is None:
                break
            gap = time - older.time
            if DAY < gap <= WEEK:
                change = value - analyte.distance(older.value, subject.age_years, subject.sex)
                self.values[reader.at_trend_week + place] = (change or _NOT_ZERO, item)
                break

    def _person(self) -> None:
        reader, subject = self.reader, self.chart.subject
        years = subject.age_years
        if years is not None:
            item = self._item("age")
            self.values[reader.at_person] = (age_feature(years), item)
            band = next(
                (n for n, end in enumerate(reader.schema.age_bands) if years < end),
                len(reader.schema.age_bands) - 1,
            )
            self.values[reader.at_bands + band] = (1.0, item)
        if subject.sex in ("female", "male"):
            self.values[reader.at_person + 1] = (1.0 if subject.sex == "female" else -1.0, self._item("sex"))
        if subject.pregnant is not None or subject.postpartum:
            item = self._item("pregnancy")
            if subject.pregnant is not None:
                self.values[reader.at_person + 2] = (1.0 if subject.pregnant else -1.0, item)
                self._named_risk("pregnancy", PRESENT if subject.pregnant else ABSENT, item)
            if subject.postpartum:
                self._named_risk("postpartum", PRESENT, item)
        encounter = self.chart.encounter
        if encounter is not None and encounter.setting != "unknown":
            acute = encounter.setting in ("emergency", "inpatient")
            self.values[reader.at_person + 3] = (1.0 if acute else -1.0, -1)
        complaint = self.complaint
        if complaint is not None:
            self.values[reader.at_person + 5] = (1.0, self.complaint_item)
        if complaint is not None and complaint.onset_age_days is not None and subject.age_days is not None:
            days = max(subject.age_days - complaint.onset_age_days, 0)
            self.values[reader.at_person + 4] = (duration_feature(days), self.complaint_item)

    def _named_risk(self, name: str, value: float, item: int) -> None:
        number = self.reader._risk_number.get(name)
        if number is not None:
            self._risk((number,), value, item)

    def _settle(self) -> tuple[Stated, ...]:
        """Findings with what follows from them; returns what was stated, most specific."""
        above, below = self.reader.schema.above, self.reader._below
        present, values = self.present, self.values
        implied: dict[int, tuple[float, int]] = {}
        for number in sorted(present):
            value, item = present[number]
            for higher in above[number]:
                held = implied.get(higher)
                if held is None or held[0] < value:
                    implied[higher] = (value, item)
        settled = dict(implied)
        for number, own in present.items():
            held = implied.get(number)
            settled[number] = own if held is None or own[0] >= held[0] else held
        stated = [
            Stated(number, value, item)
            for number, (value, item) in sorted(present.items())
            if number not in implied
        ]
        denied: dict[int, int] = {}
        for number in sorted(self.absent):
            if number in settled:
                continue
            item = self.absent[number]
            denied.setdefault(number, item)
            stated.append(Stated(number, ABSENT, item))
            for lower in below[number]:
                if lower not in settled:
                    denied.setdefault(lower, item)
        for number, own in settled.items():
            values[number] = own
        for number, item in denied.items():
            values[number] = (ABSENT, item)
        return tuple(stated)


_RESULTS = {
    "positive": 1.0, "1+": 1.0, "2+": 1.0, "3+": 1.0, "4+": 1.0, "trace": 0.5, "abnormal": 1.0, "yes": 1.0,
    "pregnant": 1.0, "negative": -1.0, "normal": -1.0, "no": -1.0, "not-pregnant": -1.0,
}  # fmt: skip


def _value(state: str, role: str) -> float:
    if state == "absent":
        return ABSENT
    if state == "uncertain" or role == "problem-list":
        return UNSURE
    return COMPLAINT if role == "complaint" else PRESENT


def age_feature(years: float) -> float:
    """Age on a scale that spreads out childhood: the logarithm, 0 at about 26 years."""
    return math.log1p(years) - 3.3


def duration_feature(days: int) -> float:
    """How many whole days the complaint has lasted, as log10 (half a day for 0), never exactly 0."""
    found = math.log10(min(max(days, 0.5), 20000.0))
    return found if abs(found) >= _NOT_ZERO else _NOT_ZERO
