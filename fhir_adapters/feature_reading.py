"""One chart being read for its features: what each section of it says, then the findings settled.

Responsible for the reading rules that `fhir_adapters.features` documents.  It works for one call and is
thrown away.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fhir_adapters.chart import CodedValue, Finding, Measurement, PatientChart, Problem
from fhir_adapters.feature_values import (
    ABSENT,
    COMPLAINT,
    NOT_ZERO,
    PRESENT,
    UNSURE,
    AnalyteFeature,
    Features,
    Item,
    Stated,
    age_feature,
    duration_feature,
)
from fhir_adapters.series import said

if TYPE_CHECKING:
    from fhir_adapters.features import FeatureReader

NO_DISEASE = frozenset("RSTVWXYZ")
"""Chapters of ICD-10-CM that hold symptoms, injuries, causes and contacts: a reason, but no diagnosis."""
TREND_GAP = timedelta(hours=4)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
SIGN_HOURS, RESULT_HOURS, INPATIENT_HOURS = 24.0, 72.0, 168.0
"""How old a coded sign or a coded result may be and still speak of now, and how far the window of an
inpatient reaches back at most: as `models/rules/data/currency.toml` has it."""


class Reading:
    """One chart being read: collects values by feature, then settles findings."""

    def __init__(self, reader: "FeatureReader", chart: PatientChart) -> None:
        self.reader = reader
        self.chart = chart
        self.items: list[Item] = []
        self.present: dict[int, tuple[float, int]] = {}
        self.absent: dict[int, int] = {}
        self.values: dict[int, tuple[float, int]] = {}
        self.complaint: Finding | Problem | None = None
        self.complaint_item = -1
        self.named: list[tuple[str, int]] = []

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
            tuple(self.named),
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
            reason = problem.role == "complaint" and status == "active" and not numbers
            named = reason and problem.icd10cm[0] not in NO_DISEASE
            if not (numbers or risks or named):
                continue
            item = self._item(problem)
            if named:
                self.named.append((problem.icd10cm, item))
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
            says = reader.schema.coded.get(spelled) if self._current(newest, SIGN_HOURS) else None
            place = reader.results.get(loinc) if self._current(newest, RESULT_HOURS) else None
            if not risks and says is None and place is None:
                continue
            item = self._item(newest)
            self._risk(risks, PRESENT, item)
            if says is not None:
                self._say(reader.numbers_of(says[0]), PRESENT if says[1] == "present" else ABSENT, item)
            if place is not None and newest.value in _RESULTS:
                self.values[reader.at_results + place] = (_RESULTS[newest.value], item)

    def _current(self, value: Measurement | CodedValue, hours: float) -> bool:
        """Whether a value is of the last hours or of the encounter at hand; an undated one is."""
        if value.time is None:
            return True
        encounter, age = self.chart.encounter, self.chart.at - value.time
        if age <= timedelta(hours=hours):
            return True
        if encounter is None or encounter.start is None or value.time < encounter.start:
            return False
        return encounter.setting != "inpatient" or age <= timedelta(hours=INPATIENT_HOURS)

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
        for loinc, series in chart.measurements.items():
            number = reader.analytes.get(loinc)
            if number is None or not series:
                continue
            analyte = reader.schema.analytes[number]
            newest = series[0]
            if not self._current(newest, analyte.window_hours):
                continue
            item = self._item(newest)
            usual = analyte.normal(years, sex)
            value = analyte.from_normal(newest.value, *usual)
            self.values[reader.at_values + number] = (value, item)
            self.values[reader.at_measured + number] = (1.0, item)
            place = reader.trends.get(number)
            if place is not None and newest.time is not None and len(series) > 1:
                self._trend(place, analyte, usual, series, value, newest.time, item)

    def _trend(
        self,
        place: int,
        analyte: AnalyteFeature,
        usual: tuple[float, float],
        series: Sequence[Measurement],
        value: float,
        time: datetime,
        item: int,
    ) -> None:
        """The change since the oldest value of the last 24 hours, and the newest before that in 7 days.

        Newest first, as a series is; one of years is looked through no further than that.
        """
        reader = self.reader

        def note(feature: int, older: float) -> None:
            change = value - analyte.from_normal(older, *usual)
            self.values[feature + place] = (change or NOT_ZERO, item)

        day: float | None = None
        for position in range(1, len(series)):
            then, older = said(series, position)
            if then is None:
                break
            gap = time - then
            if gap > DAY:
                if gap <= WEEK:
                    note(reader.at_trend_week, older)
                break
            if gap >= TREND_GAP:
                day = older
        if day is not None:
            note(reader.at_trend_day, day)

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
        number = self.reader.risk_numbers.get(name)
        if number is not None:
            self._risk((number,), value, item)

    def _settle(self) -> tuple[Stated, ...]:
        """Findings with what follows from them; returns what was stated, most specific."""
        above, below = self.reader.schema.above, self.reader.below
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
