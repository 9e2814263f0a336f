"""What the scores read of a chart: each parameter's newest current value, oxygen, consciousness, population.

Responsible for picking values (through `currency`) and turning evidence codes into the keys the
points tables know; it gives no points.  A view has two layers: the current values, and the stale
ones that are read only when a score has no current value at all.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from fhir_adapters.chart import CodedValue, Finding, Measurement, PatientChart, Problem
from models.assessment import Fact
from models.rules.currency import Currency, Window, Windows
from models.rules.data_rows import read_rows

PARAMETERS = "score_parameters.csv"
PARAMETER_COLUMNS = ("parameter", "kind", "window", "loinc", "decimals", "unit", "label", "source")
EVIDENCE_COLUMNS = ("system", "code", "key", "source")

Layer = Mapping[str, "Reading"]


class Parameter(msgspec.Struct, frozen=True, gc=False):
    """One thing that scores read: the LOINC codes it comes under (canonical first) and its resolution."""

    id: str
    coded: bool
    window: Window
    loincs: tuple[str, ...]
    decimals: int
    unit: str
    label: str


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One parameter as read: a number or a key, with the fact behind it and the time it was taken."""

    fact: Fact
    value: float = 0.0
    key: str = ""
    comparator: str | None = None


class Evidence(msgspec.Struct, frozen=True):
    """Codes that stand for a key: of coded values, of findings (HPO) and of problems (ICD-10-CM)."""

    coded: dict[str, str]
    hpo: dict[str, str]
    icd10cm: dict[str, str]

    @classmethod
    def load(cls, file: str, keys: tuple[str, ...]) -> "Evidence":
        """Read and check ``data/<file>``; `keys` are the keys allowed.  Raises `RuleDataError`."""
        tables: dict[str, dict[str, str]] = {"coded": {}, "hpo": {}, "icd10cm": {}}
        for row in read_rows(file, EVIDENCE_COLUMNS):
            table = tables[row.one_of("system", tuple(tables))]
            code = row.text("code")
            if code in table:
                raise row.error(f"{code} occurs twice")
            table[code] = row.one_of("key", keys)
            row.text("source")
        return cls(**tables)


# From best to worst: the worst evidence of an encounter counts (precaution).
LEVELS = ("alert", "confusion", "voice", "pain", "unresponsive")
OXYGEN = ("air", "oxygen")


class Reader:
    """Reads charts into views; holds the parameter and evidence tables."""

    __slots__ = ("consciousness", "hypercapnia", "oxygen", "parameters", "windows")

    def __init__(self, windows: Windows) -> None:
        """Load the packaged tables; raises `RuleDataError`."""
        self.windows = windows
        self.parameters: dict[str, Parameter] = {}
        for row in read_rows(PARAMETERS, PARAMETER_COLUMNS):
            name = row.text("parameter")
            if name in self.parameters:
                raise row.error(f"{name} occurs twice")
            coded = row.one_of("kind", ("measurement", "coded")) == "coded"
            window: Literal["vital", "laboratory"] = (
                "vital" if row.one_of("window", ("vital", "laboratory")) == "vital" else "laboratory"
            )
            loincs = row.words("loinc")
            if not loincs:
                raise row.error("no LOINC code")
            row.text("source")
            self.parameters[name] = Parameter(
                name,
                coded,
                window,
                loincs,
                0 if coded else row.integer("decimals"),
                row.cells["unit"],
                row.text("label"),
            )
        self.consciousness = Evidence.load("consciousness_evidence.csv", LEVELS)
        self.oxygen = Evidence.load("oxygen_evidence.csv", OXYGEN)
        self.hypercapnia = frozenset(
            row.text("icd10cm")
            for row in read_rows("hypercapnia_evidence.csv", ("icd10cm", "source"))
            if row.text("source")
        )

    def decimals(self) -> dict[str, int]:
        """The published resolution of every numeric parameter."""
        return {
            name: parameter.decimals for name, parameter in self.parameters.items() if not parameter.coded
        }

    def read(self, chart: PatientChart, currency: Currency) -> "View":
        """The view of one chart."""
        current: dict[str, Reading] = {}
        stale: dict[str, Reading] = {}
        measurements, coded = chart.measurements, chart.coded
        for parameter in self.parameters.values():
            for loinc in parameter.loincs:
                if parameter.coded:
                    answers = coded.get(loinc)
                    if not answers:
                        continue
                    picked = currency.newest(answers, parameter.window)
                    if picked is not None:
                        answer, old = picked
                        layer = stale if old else current
                        if parameter.id not in layer:
                            layer[parameter.id] = Reading(
                                coded_fact(answer, parameter.label), key=answer.value
                            )
                    continue
                series = measurements.get(loinc)
                if not series:
                    continue
                newest = currency.newest(series, parameter.window)
                if newest is not None:
                    value, old = newest
                    layer = stale if old else current
                    if parameter.id not in layer:
                        layer[parameter.id] = Reading(
                            measurement_fact(value, parameter.label), value.value, "", value.comparator
                        )
        self._drop_unpaired(current)
        self._drop_unpaired(stale)
        self._oxygen(chart, current, stale)
        self._consciousness(chart, current, stale)
        return View(chart, current, stale, self._hypercapnic(chart))

    def _drop_unpaired(self, layer: dict[str, Reading]) -> None:
        """Keep only values taken within the pairing window of the layer's newest dated one."""
        times = [reading.fact.time for reading in layer.values() if reading.fact.time is not None]
        if len(times) < 2:
            return
        since = max(times) - timedelta(hours=self.windows.pairing_hours)
        if min(times) >= since:
            return
        for name in [n for n, r in layer.items() if r.fact.time is not None and r.fact.time < since]:
            del layer[name]

    def _oxygen(self, chart: PatientChart, current: dict[str, Reading], stale: dict[str, Reading]) -> None:
        """Add the derived parameter ``oxygen``: flow above 0, FiO2 above 21 %, or said in a code."""
        for layer in (current, stale):
            air: Reading | None = None
            for name, ambient in (("oxygen-flow", 0.0), ("fio2", 21.0)):
                reading = layer.get(name)
                if reading is None:
                    continue
                if reading.value > ambient and reading.comparator not in ("<", "<="):
                    layer["oxygen"] = Reading(reading.fact, key="oxygen")
                    break
                air = air or Reading(reading.fact, key="air")
            else:
                said = layer.get("oxygen-therapy")
                key = self.oxygen.coded.get(said.key) if said is not None else None
                if said is not None and key is not None and (key == "oxygen" or air is None):
                    air = Reading(said.fact, key=key)
                if air is not None:
                    layer["oxygen"] = air
        if current.get("oxygen") is None or current["oxygen"].key == "air":
            for problem in chart.problems:
                if problem.status == "active" and self.oxygen.icd10cm.get(problem.icd10cm) == "oxygen":
                    # Long-term oxygen is supplemental oxygen unless a measurement says room air.
                    current.setdefault("oxygen", Reading(problem_fact(problem), key="oxygen"))

    def _consciousness(
        self, chart: PatientChart, current: dict[str, Reading], stale: dict[str, Reading]
    ) -> None:
        """Add the derived parameter ``consciousness``: the worst level that current evidence names."""
        for layer in (current, stale):
            best = -1
            chosen: Reading | None = None
            said = layer.get("consciousness-level")
            if said is not None and (key := self.consciousness.coded.get(said.key)) is not None:
                best, chosen = LEVELS.index(key), Reading(said.fact, key=key)
            total = layer.get("gcs")
            if total is not None and total.comparator is None:
                # NEWS2: below 15 is not alert; which ACVPU level is left open, confusion is the mildest.
                level = 0 if total.value >= 15 else 1
                if level > best:
                    best, chosen = level, Reading(total.fact, key=LEVELS[level])
            if layer is current:
                for finding in chart.findings:
                    found = self.consciousness.hpo.get(finding.hpo)
                    # A problem list says what is known for long; NEWS2 counts what is new.
                    if found is not None and finding.state == "present" and finding.role != "problem-list":
                        level = LEVELS.index(found)
                        if level > best:
                            best, chosen = level, Reading(finding_fact(finding), key=found)
                for problem in chart.problems:
                    found = self.consciousness.icd10cm.get(problem.icd10cm)
                    if found is not None and problem.status == "active" and problem.role != "problem-list":
                        level = LEVELS.index(found)
                        if level > best:
                            best, chosen = level, Reading(problem_fact(problem), key=found)
            if chosen is not None:
                layer["consciousness"] = chosen

    def _hypercapnic(self, chart: PatientChart) -> Problem | None:
        """The documented hypercapnic respiratory failure that asks for SpO2 scale 2, if any."""
        for problem in chart.problems:
            if problem.icd10cm in self.hypercapnia and problem.status in ("active", "inactive", "resolved"):
                return problem
        return None


class View:
    """One chart as the scores see it."""

    __slots__ = ("age_days", "chart", "current", "hypercapnia", "maternity", "stale")

    def __init__(
        self,
        chart: PatientChart,
        current: dict[str, Reading],
        stale: dict[str, Reading],
        hypercapnia: Problem | None,
    ) -> None:
        self.chart = chart
        self.current: Layer = current
        self.stale: Layer = stale
        self.hypercapnia = hypercapnia
        subject = chart.subject
        self.age_days = subject.age_days
        # Pregnant, or within the puerperium.
        self.maternity = bool(subject.pregnant or subject.postpartum)

    def layer(self, parameters: tuple[str, ...]) -> tuple[Layer, bool] | None:
        """The layer a score of these parameters reads, whether it is stale; `None` if none is measured."""
        current, stale = self.current, self.stale
        for name in parameters:
            if name in current:
                return current, False
        for name in parameters:
            if name in stale:
                return stale, True
        return None

    def observed_at(self, facts: list[Fact]) -> datetime | None:
        """The time of the newest fact that has one."""
        times = [fact.time for fact in facts if fact.time is not None]
        return max(times) if times else None


def measurement_fact(value: Measurement, label: str) -> Fact:
    """The fact of a measurement."""
    return Fact(
        "measurement",
        value.loinc,
        label,
        (value.source,),
        value.value,
        value.unit,
        None,
        "present",
        value.time,
    )


def coded_fact(value: CodedValue, label: str) -> Fact:
    """The fact of a coded value."""
    return Fact("coded", value.loinc, label, (value.source,), None, None, value.value, "present", value.time)


def finding_fact(finding: Finding) -> Fact:
    """The fact of a finding."""
    return Fact(
        "finding", finding.hpo, finding.label, finding.sources, None, None, None, finding.state, finding.time
    )


def problem_fact(problem: Problem) -> Fact:
    """The fact of an active or past problem."""
    return Fact(
        "problem", problem.icd10cm, problem.label, problem.sources, None, None, None, "present", problem.time
    )
