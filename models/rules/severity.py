"""The severity class as the rules see it: which situation a chart is in, and its probabilities.

Responsible for ``data/severity.toml`` (situations) and ``data/chronic_conditions.csv`` (ICD-10-CM
prefixes that stand for a chronic condition).  The mapping is a documented estimate (grade C) that
learned engines will outvote; the rules' graver verdicts are settled in `models.policy`.
"""

from typing import Any, Literal, get_args

import msgspec

from fhir_adapters.chart import PatientChart
from models.assessment import SEVERITIES, Severity
from models.rules import tables
from models.rules.complaints import Complaint
from models.rules.errors import RulesInvalid

FILE = "severity.toml"
CHRONIC_FILE = "chronic_conditions.csv"
Situation = Literal[
    "immediate",
    "urgent",
    "chronic-symptomatic",
    "chronic-stable",
    "symptoms-disease",
    "symptoms-discomfort",
    "not-understood",
    "nothing",
]
_SAID_TO_BE_WRONG = ("Condition/", "Encounter/")
Probabilities = tuple[float, float, float, float, float]


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    id: Situation
    probabilities: Probabilities


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    schema: int
    source: str
    disease_level: int
    disease_findings: int
    situation: tuple[_Row, ...]


class SeverityRules:
    """The situations and the chronic conditions, loaded and checked; immutable."""

    def __init__(
        self,
        situations: dict[Situation, tuple[Severity, Probabilities]],
        disease_level: int,
        disease_findings: int,
        chronic: frozenset[str],
    ) -> None:
        self._situations = situations
        self._disease_level = disease_level
        self._disease_findings = disease_findings
        self._chronic = chronic

    @classmethod
    def load(cls) -> "SeverityRules":
        """Read and check the packaged tables; raises `RulesInvalid` naming the entry."""
        return cls.from_data(tables.read_toml(FILE), load_chronic())

    @classmethod
    def from_data(cls, raw: dict[str, Any], chronic: frozenset[str]) -> "SeverityRules":
        """The same from data already read."""
        try:
            table = msgspec.convert(raw, _Table)
        except msgspec.ValidationError as problem:
            raise RulesInvalid(FILE, "whole file", str(problem)) from problem
        situations: dict[Situation, tuple[Severity, Probabilities]] = {}
        for row in table.situation:
            if abs(sum(row.probabilities) - 1.0) > 1e-9 or min(row.probabilities) < 0:
                raise RulesInvalid(FILE, row.id, "probabilities must not be negative and must sum to 1")
            best = max(row.probabilities)
            if row.probabilities.count(best) != 1:
                raise RulesInvalid(FILE, row.id, "no single class is the most probable")
            situations[row.id] = (SEVERITIES[row.probabilities.index(best)], row.probabilities)
        missing = set(get_args(Situation)) - set(situations)
        if missing:
            raise RulesInvalid(FILE, ", ".join(sorted(missing)), "the situation is missing")
        for name in ("immediate", "urgent"):
            if situations[name][0] != "acute-disease":
                raise RulesInvalid(FILE, name, "this situation must make an acute disease most probable")
        return cls(situations, table.disease_level, table.disease_findings, chronic)

    def is_chronic(self, icd10cm: str) -> bool:
        """Whether an ICD-10-CM code stands for a chronic condition."""
        chronic = self._chronic
        return any(icd10cm[:length] in chronic for length in range(3, len(icd10cm) + 1))

    def situation(
        self, chart: PatientChart, complaints: list[Complaint], immediate: bool, urgent: bool
    ) -> Situation:
        """The situation a chart is in.

        `immediate` and `urgent` say whether the rules found something of that urgency; `complaints`
        is what the patient has now.
        """
        if immediate:
            return "immediate"
        if urgent:
            return "urgent"
        symptoms = [item for item in complaints if self._is_symptom(item)]
        chronic = any(
            problem.status == "active" and self.is_chronic(problem.icd10cm) for problem in chart.problems
        )
        if symptoms:
            grave = symptoms[0].level <= self._disease_level
            if chronic and not grave:
                return "chronic-symptomatic"
            many = len(symptoms) >= self._disease_findings
            return "symptoms-disease" if grave or many else "symptoms-discomfort"
        # Something is said to be wrong that no table knows: that is not health.
        if any(entry.reference.startswith(_SAID_TO_BE_WRONG) for entry in chart.unmapped):
            return "chronic-symptomatic" if chronic else "not-understood"
        return "chronic-stable" if chronic else "nothing"

    def probabilities(self, situation: Situation) -> tuple[Severity, Probabilities]:
        """The severity of a situation and the probabilities over `SEVERITIES`."""
        return self._situations[situation]

    def _is_symptom(self, complaint: Complaint) -> bool:
        """Whether a complaint speaks of being ill now: no chronic condition, no mere contact (Z codes)."""
        code = getattr(complaint.item, "icd10cm", None)
        return code is None or not (code.startswith("Z") or self.is_chronic(code))


def load_chronic() -> frozenset[str]:
    """The ICD-10-CM prefixes of chronic conditions; raises `RulesInvalid` naming the row."""
    prefixes: set[str] = set()
    for row, cells in tables.read_csv(CHRONIC_FILE, ("icd10cm", "label", "source")):
        code = cells["icd10cm"]
        if not tables.ICD10CM.match(code):
            raise RulesInvalid(CHRONIC_FILE, row, f"{code!r} is not spelt as an ICD-10-CM code")
        if code in prefixes:
            raise RulesInvalid(CHRONIC_FILE, row, f"{code} stands twice")
        if not cells["label"] or not cells["source"]:
            raise RulesInvalid(CHRONIC_FILE, row, "label and source must not be empty")
        prefixes.add(code)
    return frozenset(prefixes)
