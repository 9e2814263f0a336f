"""The terms of the rules: what a rule file may ask of a chart, and which of it one chart fulfils.

A term is one string such as ``finding:HP:0100749``; `TermTable` gives each distinct term a number at
load and prepares lookups (HPO terms with all their descendants, ICD and ATC by prefix, measurements
by LOINC), so that `match` touches only what the chart holds.  It knows no rule, no urgency and no
action.

=====================================  ==========================================================
``finding:HP:… Label``                 present now, the term or a descendant of it
``known:HP:… Label``                   present at any time in the record
``absent:HP:… Label``                  said to be absent, the term or an ancestor of it
``problem:D70``                        an active problem of this ICD-10-CM prefix
``history:…``                          the same with any status but absent
``measurement:8480-6 < 90 mm[Hg]``     the current value, in the unit of ``measurements.csv``
``coded:LOINC=key``                    the current coded value
``medication:ATC``, ``allergy:ATC``    an active drug or a recorded allergy of this class prefix
``group:name``                         at least one (or n) of the terms of a named group
=====================================  ==========================================================
"""

import re
from datetime import datetime, timedelta

import msgspec

from fhir_adapters.chart import (
    Allergy,
    CodedValue,
    Finding,
    Measurement,
    Medication,
    PatientChart,
    Problem,
)
from fhir_adapters.hpo import Ontology
from models.assessment import Fact
from models.rules import tables
from models.rules.currency import Currency, Window
from models.rules.errors import RulesInvalid

Evidence = Finding | Problem | Measurement | CodedValue | Medication | Allergy

# A sign or symptom recorded longer ago than this (and before this encounter) is not an acute one.
# grade C: estimate of this project.
ACUTE_FINDING = timedelta(days=7)
STALE_FINDING = timedelta(days=90)

_MEASUREMENT = re.compile(r"(?P<loinc>\d+-\d) (?P<op><=|>=|<|>) (?P<value>-?\d+(\.\d+)?) (?P<unit>\S+)\Z")
_CODED = re.compile(r"(?P<loinc>\d+-\d)=(?P<value>[a-z0-9]+(-[a-z0-9]+)*)\Z")


class Analyte(msgspec.Struct, frozen=True, gc=False):
    """One row of ``measurements.csv``: an analyte that a rule may read, with the unit rules are written in.

    `factors` turns a value in a unit that a chart may carry into `unit`.
    """

    loinc: str
    also: tuple[str, ...]
    unit: str
    factors: dict[str, float]
    window: Window
    label: str


def load_analytes() -> dict[str, Analyte]:
    """The analytes by canonical LOINC, each also under its other codes; raises `RulesInvalid`."""
    file = "measurements.csv"
    analytes: dict[str, Analyte] = {}
    for row, cells in tables.read_csv(file, ("loinc", "also", "units", "window", "label", "source")):
        also = tuple(cells["also"].split())
        for code in (cells["loinc"], *also):
            if not tables.loinc_valid(code):
                raise RulesInvalid(file, row, f"{code!r} is not a LOINC code")
            if code in analytes:
                raise RulesInvalid(file, row, f"{code} stands twice")
        if not all(cells[name] for name in ("units", "label", "source")):
            raise RulesInvalid(file, row, "units, label and source must not be empty")
        window = cells["window"]
        if window not in ("vital", "laboratory"):
            raise RulesInvalid(file, row, f"window {window!r} is neither vital nor laboratory")
        factors = _factors(cells["units"], file, row)
        analyte = Analyte(
            loinc=cells["loinc"],
            also=also,
            unit=next(iter(factors)),
            factors=factors,
            window="vital" if window == "vital" else "laboratory",
            label=cells["label"],
        )
        for code in (analyte.loinc, *also):
            analytes[code] = analyte
    return analytes


def _factors(units: str, file: str, row: str) -> dict[str, float]:
    """``mg/dL mmol/L=18.016`` as factors to the first unit, which is the one rules are written in."""
    factors: dict[str, float] = {}
    for position, item in enumerate(units.split()):
        unit, _, factor = item.partition("=")
        try:
            factors[unit] = float(factor) if position or factor else 1.0
        except ValueError:
            raise RulesInvalid(file, row, f"units: {item!r} has no factor") from None
        if factors[unit] <= 0 or (position == 0 and factors[unit] != 1.0):
            raise RulesInvalid(file, row, f"units: {item!r}")
    return factors


class Group(msgspec.Struct, frozen=True, gc=False):
    """A named set of terms, met when at least `least` of them are."""

    index: int
    least: int
    members: tuple[int, ...]


class Hits(msgspec.Struct, gc=False):
    """Which terms one chart meets, by term number.

    `now` holds the evidence that speaks of the present, `before` what is too old to.  `strong` are the
    terms met now by at least one statement that is neither uncertain nor read from free text.
    """

    now: dict[int, list[Evidence]]
    before: dict[int, list[Evidence]]
    strong: set[int]


class TermTable:
    """All terms of all rule files, numbered, with the lookups `match` needs.  Filled at load only."""

    def __init__(self, ontology: Ontology, analytes: dict[str, Analyte]) -> None:
        self._ontology = ontology
        self.analytes = analytes
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._present: dict[str, list[int]] = {}
        self._known: dict[str, list[int]] = {}
        self._absent: dict[str, list[int]] = {}
        self._problem: dict[str, list[int]] = {}
        self._history: dict[str, list[int]] = {}
        self._medication: dict[str, list[int]] = {}
        self._allergy: dict[str, list[int]] = {}
        self._coded: dict[str, list[tuple[str, int]]] = {}
        self._measured: dict[str, list[tuple[str, float, int]]] = {}
        self._groups: list[Group] = []
        self._group_names: dict[str, int] = {}

    def number(self, term: str, file: str, entry: str) -> int:
        """The number of a term, which is checked and prepared when it is new; raises `RulesInvalid`."""
        known = self._numbers.get(term)
        if known is not None:
            return known
        kind, _, body = term.partition(":")
        index = len(self.names)
        if kind == "group":
            if body not in self._group_names:
                raise RulesInvalid(file, entry, f"there is no group {body!r}")
            return self._group_names[body]
        if kind in ("finding", "known", "absent"):
            self._finding(kind, body, index, file, entry)
        elif kind in ("problem", "history"):
            if not tables.ICD10CM_PREFIX.match(body):
                raise RulesInvalid(file, entry, f"{body!r} is not spelt as an ICD-10-CM code")
            (self._problem if kind == "problem" else self._history).setdefault(body, []).append(index)
        elif kind in ("medication", "allergy"):
            if not tables.ATC.match(body):
                raise RulesInvalid(file, entry, f"{body!r} is not spelt as an ATC code")
            (self._medication if kind == "medication" else self._allergy).setdefault(body, []).append(index)
        elif kind == "measurement":
            self._measurement(body, index, file, entry)
        elif kind == "coded":
            match = _CODED.match(body)
            if match is None or not tables.loinc_valid(match["loinc"]):
                raise RulesInvalid(file, entry, f"{term!r} is not spelt coded:LOINC=key")
            self._coded.setdefault(match["loinc"], []).append((match["value"], index))
        else:
            raise RulesInvalid(file, entry, f"unknown kind of term {kind!r}")
        self.names.append(term)
        self._numbers[term] = index
        return index

    def group(self, name: str, least: int, members: tuple[str, ...], file: str) -> None:
        """Define ``group:<name>``; its members are terms or groups defined before.  Raises `RulesInvalid`."""
        entry = f"group {name}"
        if not tables.KEBAB.match(name) or name in self._group_names:
            raise RulesInvalid(file, entry, "the name is not kebab-case or stands twice")
        numbers = tuple(self.number(term, file, entry) for term in members)
        if not 1 <= least <= len(numbers):
            raise RulesInvalid(file, entry, f"at least {least} of {len(numbers)} terms cannot be asked")
        index = len(self.names)
        self.names.append(f"group:{name}")
        self._group_names[name] = index
        self._groups.append(Group(index, least, numbers))

    def groups(self) -> tuple[Group, ...]:
        """The groups, in the order of their definition."""
        return tuple(self._groups)

    def _finding(self, kind: str, body: str, index: int, file: str, entry: str) -> None:
        body, _, label = body.partition(" ")
        if not tables.HPO.match(body) or self._ontology.canonical(body) != body:
            raise RulesInvalid(file, entry, f"{body!r} is not a current HPO id")
        # The name beside the id keeps the files readable and a mistyped id from passing.
        if label != self._ontology.label(body):
            raise RulesInvalid(file, entry, f"{body} is called {self._ontology.label(body)!r}, not {label!r}")
        if kind == "absent":
            # "No skin finding at all" denies the rash; a denied child says nothing of its parent.
            for covered in {body, *self._ontology.ancestors(body)}:
                self._absent.setdefault(covered, []).append(index)
            return
        lookup = self._present if kind == "finding" else self._known
        for covered in {body, *self._ontology.descendants(body)}:
            lookup.setdefault(covered, []).append(index)

    def _measurement(self, body: str, index: int, file: str, entry: str) -> None:
        match = _MEASUREMENT.match(body)
        if match is None:
            raise RulesInvalid(file, entry, f"{body!r} is not spelt as LOINC op value unit")
        analyte = self.analytes.get(match["loinc"])
        if analyte is None or analyte.loinc != match["loinc"]:
            raise RulesInvalid(file, entry, f"{match['loinc']} has no row in measurements.csv")
        if analyte.unit != match["unit"]:
            raise RulesInvalid(file, entry, f"{match['loinc']} is in {analyte.unit}, not {match['unit']}")
        self._measured.setdefault(analyte.loinc, []).append((match["op"], float(match["value"]), index))

    def match(self, chart: PatientChart, currency: Currency) -> Hits:
        """Which terms the chart meets.  Cost grows with the chart, not with the number of rules."""
        hits = Hits({}, {}, set())
        self._match_findings(chart, hits)
        self._match_problems(chart, hits)
        self._match_drugs(chart, hits)
        self._match_values(chart, currency, hits)
        self._match_groups(hits)
        return hits

    def _match_findings(self, chart: PatientChart, hits: Hits) -> None:
        at = chart.at
        acute_since = at - ACUTE_FINDING
        encounter = chart.encounter
        if encounter is not None and encounter.start is not None and encounter.start < acute_since:
            acute_since = max(encounter.start, at - STALE_FINDING)
        stale_since = at - STALE_FINDING
        present, known, absent = self._present, self._known, self._absent
        now, before, strong = hits.now, hits.before, hits.strong
        for finding in chart.findings:
            hpo, state = finding.hpo, finding.state
            if state == "absent":
                for index in absent.get(hpo, ()):
                    now.setdefault(index, []).append(finding)
                    strong.add(index)
                continue
            sure = state == "present" and not finding.from_text
            for index in known.get(hpo, ()):
                now.setdefault(index, []).append(finding)
                if sure:
                    strong.add(index)
            indices = present.get(hpo)
            if indices is None:
                continue
            time = finding.time
            if time is None or time >= acute_since:
                for index in indices:
                    now.setdefault(index, []).append(finding)
                    if sure:
                        strong.add(index)
            elif time >= stale_since:
                for index in indices:
                    before.setdefault(index, []).append(finding)

    def _match_problems(self, chart: PatientChart, hits: Hits) -> None:
        now, strong = hits.now, hits.strong
        active, history = self._problem, self._history
        for problem in chart.problems:
            status = problem.status
            if status == "absent":
                continue
            code = problem.icd10cm
            sure = status != "uncertain" and not problem.from_text
            current = status in ("active", "uncertain")
            for length in range(1, len(code) + 1):
                prefix = code[:length]
                for index in history.get(prefix, ()):
                    now.setdefault(index, []).append(problem)
                    if sure:
                        strong.add(index)
                if current:
                    for index in active.get(prefix, ()):
                        now.setdefault(index, []).append(problem)
                        if sure:
                            strong.add(index)

    def _match_drugs(self, chart: PatientChart, hits: Hits) -> None:
        for drug in chart.medications:
            if drug.active:
                _match_atc(drug, drug.atc, self._medication, hits)
        for allergy in chart.allergies:
            if not allergy.absent:
                _match_atc(allergy, allergy.atc, self._allergy, hits)

    def _match_values(self, chart: PatientChart, currency: Currency, hits: Hits) -> None:
        now, strong, analytes = hits.now, hits.strong, self.analytes
        for loinc, series in chart.measurements.items():
            analyte = analytes.get(loinc)
            if analyte is None:
                continue
            limits = self._measured.get(analyte.loinc)
            if limits is None:
                continue
            newest = currency.newest(series, analyte.window)
            if newest is None or newest[1]:
                continue
            measurement = newest[0]
            factor = analyte.factors.get(measurement.unit)
            if factor is None:
                continue
            value, comparator = measurement.value * factor, measurement.comparator
            for operator, limit, index in limits:
                if meets(value, comparator, operator, limit):
                    now.setdefault(index, []).append(measurement)
                    strong.add(index)
        for loinc, keys in self._coded.items():
            coded = chart.coded.get(loinc)
            if not coded:
                continue
            current = currency.newest(coded, "vital")
            if current is None or current[1]:
                continue
            for key, index in keys:
                if current[0].value == key:
                    now.setdefault(index, []).append(current[0])
                    strong.add(index)

    def _match_groups(self, hits: Hits) -> None:
        now, before, strong = hits.now, hits.before, hits.strong
        for group in self._groups:
            met = [index for index in group.members if index in now]
            if len(met) >= group.least:
                now[group.index] = [item for index in met for item in now[index]]
                # As many sure members as the group asks for make the group sure.
                if sum(1 for index in met if index in strong) >= group.least:
                    strong.add(group.index)
            elif before:
                older = [index for index in group.members if index in before]
                if older and len({*met, *older}) >= group.least:
                    before[group.index] = [item for index in met for item in now[index]] + [
                        item for index in older for item in before[index]
                    ]


def _match_atc(
    item: Medication | Allergy, codes: tuple[str, ...], lookup: dict[str, list[int]], hits: Hits
) -> None:
    for code in codes:
        for length in range(1, len(code) + 1):
            for index in lookup.get(code[:length], ()):
                held = hits.now.setdefault(index, [])
                if item not in held:
                    held.append(item)
                hits.strong.add(index)


def meets(value: float, comparator: str | None, operator: str, limit: float) -> bool:
    """Whether a value, with its comparator, surely lies on the asked side of a limit.

    A value reported as "less than 5" meets "< 10" but never "> 3": what is not known is not met.
    """
    if operator in ("<", "<="):
        if comparator in (">", ">="):
            return False
        return (
            value < limit or (operator == "<=" and value == limit) or (comparator == "<" and value == limit)
        )
    if comparator in ("<", "<="):
        return False
    return value > limit or (operator == ">=" and value == limit) or (comparator == ">" and value == limit)


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
