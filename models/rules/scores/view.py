"""What the scores read of a chart: each parameter's newest current value, oxygen, consciousness, population.

Responsible for picking values (through `currency`) and deriving the parameters that several facts
speak of; it gives no points.  A view has two layers: the current values, and the stale ones, which
are read only when a score has no current value at all.
"""

from collections.abc import Mapping
from datetime import timedelta

import msgspec

from fhir_adapters.chart import CodedValue, Measurement, PatientChart
from models.assessment import Fact
from models.rules.currency import Currency, Window, Windows
from models.rules.data_rows import read_rows
from models.rules.scores.evidence import TOPICS, Evidence, Found

FILE = "score_parameters.csv"
COLUMNS = ("parameter", "kind", "window", "loinc", "decimals", "unit", "label", "source")
LEVELS = TOPICS["consciousness"]
ROOM_AIR = 21.0  # FiO2 of room air in %


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
    """One parameter as read: a number or a key, and the fact behind it."""

    fact: Fact
    value: float = 0.0
    key: str = ""
    comparator: str | None = None


Layer = Mapping[str, Reading]


class View:
    """One chart as the scores see it."""

    __slots__ = ("age_days", "chart", "current", "evidence", "maternity", "stale")

    def __init__(
        self, chart: PatientChart, current: dict[str, Reading], stale: dict[str, Reading], evidence: Found
    ) -> None:
        self.chart = chart
        self.current: Layer = current
        self.stale: Layer = stale
        self.evidence = evidence
        subject = chart.subject
        self.age_days = subject.age_days
        # Pregnant, or within six weeks of birth.
        self.maternity = bool(subject.pregnant or subject.postpartum)

    def layer(self, parameters: tuple[str, ...]) -> tuple[Layer, bool] | None:
        """The layer that a score of these parameters reads, and whether it is stale; `None` without any."""
        for name in parameters:
            if name in self.current:
                return self.current, False
        for name in parameters:
            if name in self.stale:
                return self.stale, True
        return None


class Reader:
    """Reads charts into views; holds the parameter and evidence tables."""

    __slots__ = ("_by_loinc", "evidence", "parameters", "windows")

    def __init__(self, windows: Windows) -> None:
        """Load the packaged tables; raises `RulesInvalid`."""
        self.windows = windows
        self.evidence = Evidence.load()
        self.parameters = _load_parameters()
        self._by_loinc = tuple(
            (loinc, parameter) for parameter in self.parameters.values() for loinc in parameter.loincs
        )

    def decimals(self) -> dict[str, int]:
        """The published resolution of every numeric parameter."""
        return {
            name: parameter.decimals for name, parameter in self.parameters.items() if not parameter.coded
        }

    def read(self, chart: PatientChart, currency: Currency) -> View:
        """The view of one chart."""
        current: dict[str, Reading] = {}
        stale: dict[str, Reading] = {}
        measurements, coded = chart.measurements, chart.coded
        for loinc, parameter in self._by_loinc:
            if parameter.coded:
                answers = coded.get(loinc)
                picked = currency.newest_of(loinc, answers, parameter.window) if answers else None
                if picked is not None:
                    answer = picked[0]
                    layer = stale if picked[1] else current
                    reading = Reading(coded_fact(answer, parameter.label), 0.0, answer.value)
                    _keep_newer(layer, parameter.id, reading)
                continue
            series = measurements.get(loinc)
            newest = currency.newest_of(loinc, series, parameter.window) if series else None
            if newest is not None:
                value = newest[0]
                if value.unit != parameter.unit:
                    continue  # the chart promises canonical units; a points table must never guess
                layer = stale if newest[1] else current
                reading = Reading(measurement_fact(value, parameter.label), value.value, "", value.comparator)
                _keep_newer(layer, parameter.id, reading)
        evidence = self.evidence.collect(chart)
        for layer in (current, stale):
            if layer:
                self._drop_unpaired(layer)
            self._derive_oxygen(layer)
            self._derive_consciousness(layer)
        _merge_evidence(current, evidence)
        return View(chart, current, stale, evidence)

    def _drop_unpaired(self, layer: dict[str, Reading]) -> None:
        """Keep only values taken within the pairing window of the layer's newest dated one."""
        newest = oldest = None
        for reading in layer.values():
            time = reading.fact.time
            if time is not None:
                newest = time if newest is None or time > newest else newest
                oldest = time if oldest is None or time < oldest else oldest
        if newest is None or oldest is None or newest is oldest:
            return
        since = newest - timedelta(hours=self.windows.pairing_hours)
        if oldest >= since:
            return
        for name in [n for n, r in layer.items() if r.fact.time is not None and r.fact.time < since]:
            del layer[name]

    def _derive_oxygen(self, layer: dict[str, Reading]) -> None:
        """Add ``oxygen`` (air, oxygen) and ``oxygen-level`` (air, below-4, 4-or-more) of a layer."""
        flow, fio2, said = layer.get("oxygen-flow"), layer.get("fio2"), layer.get("oxygen-therapy")
        air: Reading | None = None
        for reading, ambient, much in ((flow, 0.0, 4.0), (fio2, ROOM_AIR, 50.0)):
            if reading is None:
                continue
            if reading.value > ambient and reading.comparator not in ("<", "<="):
                layer["oxygen"] = Reading(reading.fact, 0.0, "oxygen")
                level = "4-or-more" if reading.value >= much else "below-4"
                known = layer.get("oxygen-level")
                if known is None or level == "4-or-more":
                    layer["oxygen-level"] = Reading(reading.fact, 0.0, level)
            elif air is None:
                air = Reading(reading.fact, 0.0, "air")
        if "oxygen" in layer:
            return
        key = self.evidence.coded["oxygen"].get(said.key) if said is not None else None
        if said is not None and key == "oxygen":
            # A device without a flow is oxygen of unknown amount: the least that this can be.
            layer["oxygen"] = Reading(said.fact, 0.0, "oxygen")
            layer["oxygen-level"] = Reading(said.fact, 0.0, "below-4")
        elif air is not None or (said is not None and key == "air"):
            layer["oxygen"] = layer["oxygen-level"] = air or Reading(said.fact, 0.0, "air")  # type: ignore[union-attr]

    def _derive_consciousness(self, layer: dict[str, Reading]) -> None:
        """Add ``consciousness``: the worst of what a coded level and the Glasgow coma score say."""
        said, total = layer.get("consciousness-level"), layer.get("gcs")
        key = self.evidence.coded["consciousness"].get(said.key) if said is not None else None
        chosen = Reading(said.fact, 0.0, key) if said is not None and key is not None else None
        if total is not None and total.comparator is None:
            # NEWS2: below 15 is not alert; which ACVPU level is left open, confusion is the mildest.
            level = "alert" if total.value >= 15 else "confusion"
            if chosen is None or (level != "alert" and chosen.key == "alert"):
                chosen = Reading(total.fact, 0.0, level)
        if chosen is not None:
            layer["consciousness"] = chosen


def measurement_fact(value: Measurement, label: str) -> Fact:
    """The fact of a measurement, with every source of it."""
    return Fact(
        "measurement",
        value.loinc,
        label,
        (value.source, *value.also),
        value.value,
        value.unit,
        None,
        "present",
        value.time,
    )


def coded_fact(value: CodedValue, label: str) -> Fact:
    """The fact of a coded value."""
    return Fact("coded", value.loinc, label, (value.source,), None, None, value.value, "present", value.time)


def _merge_evidence(current: dict[str, Reading], evidence: Found) -> None:
    """Let findings and problems speak where nothing was measured, or where they are worse (precaution)."""
    found = evidence.get("consciousness")
    if found is not None:
        known = current.get("consciousness")
        if known is None or found[0] > LEVELS.index(known.key):
            current["consciousness"] = Reading(found[2], 0.0, found[1])
    found = evidence.get("respiratory-effort")
    if found is not None:
        current["respiratory-effort"] = Reading(found[2], 0.0, found[1])
    found = evidence.get("oxygen")
    if found is not None and found[1] == "oxygen" and "oxygen" not in current:
        # Long-term oxygen is supplemental oxygen unless a measurement says room air.
        current["oxygen"] = Reading(found[2], 0.0, "oxygen")


def _keep_newer(layer: dict[str, Reading], name: str, reading: Reading) -> None:
    """Of two codes of one parameter keep the newer value; a dated one goes before an undated one."""
    known = layer.get(name)
    if known is not None and known.fact.time is not None:
        time = reading.fact.time
        if time is None or time <= known.fact.time:
            return
    layer[name] = reading


def _load_parameters() -> dict[str, Parameter]:
    parameters: dict[str, Parameter] = {}
    loincs: set[str] = set()
    for row in read_rows(FILE, COLUMNS):
        name = row.text("parameter")
        codes = row.words("loinc")
        if name in parameters or not codes or loincs.intersection(codes):
            raise row.error("a parameter stands once and has LOINC codes of its own")
        loincs.update(codes)
        coded = row.one_of("kind", ("measurement", "coded")) == "coded"
        laboratory = row.one_of("window", ("vital", "laboratory")) == "laboratory"
        row.text("source")
        parameters[name] = Parameter(
            name,
            coded,
            "laboratory" if laboratory else "vital",
            codes,
            0 if coded else row.integer("decimals"),
            row.cells["unit"],
            row.text("label"),
        )
    return parameters
