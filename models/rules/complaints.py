"""How grave a presenting complaint is by itself: the triage level of findings and problems.

Responsible for ``data/complaint_risk.csv`` (levels 1 gravest to 5, by HPO term or ICD-10-CM prefix;
the most specific row holds) and for reading the levels of one chart.  What a level weighs is decided
in `models.rules.immediate`.
"""

from datetime import timedelta

import msgspec

from fhir_adapters.chart import Finding, PatientChart, Problem
from fhir_adapters.hpo import Ontology
from models.rules import tables
from models.rules.currency import ACUTE
from models.rules.errors import RulesInvalid

FILE = "complaint_risk.csv"
COLUMNS = ("kind", "code", "label", "level", "source")

# A problem-list entry speaks of this visit only when it was recorded this recently.
# grade C: estimate of this project.
RECENT_PROBLEM = timedelta(hours=48)
# Triage level of what the table does not grade. grade C: estimate of this project.
UNGRADED = 4


class Complaint(msgspec.Struct, frozen=True, gc=False):
    """One finding or problem that the patient has now, with its triage level (1 gravest, 5 lightest)."""

    level: int
    item: Finding | Problem


class ComplaintRisk:
    """The levels by code, expanded over the HPO hierarchy; immutable."""

    def __init__(self, by_hpo: dict[str, int], by_icd: dict[str, int]) -> None:
        self._by_hpo = by_hpo
        self._by_icd = by_icd

    @classmethod
    def load(cls, ontology: Ontology) -> "ComplaintRisk":
        """Read and check the packaged table; raises `RulesInvalid` naming the row."""
        rows: list[tuple[frozenset[str], str, int]] = []
        by_icd: dict[str, int] = {}
        seen: set[str] = set()
        for row, cells in tables.read_csv(FILE, COLUMNS):
            kind, code = cells["kind"], cells["code"]
            if code in seen:
                raise RulesInvalid(FILE, row, f"{code} stands twice")
            seen.add(code)
            if cells["level"] not in ("1", "2", "3", "4", "5"):
                raise RulesInvalid(FILE, row, f"level {cells['level']!r} is not 1 to 5")
            level = int(cells["level"])
            if not cells["source"] or not cells["label"]:
                raise RulesInvalid(FILE, row, "label and source must not be empty")
            if kind == "hpo":
                if not tables.HPO.match(code) or ontology.canonical(code) != code:
                    raise RulesInvalid(FILE, row, f"{code!r} is not a current HPO id")
                if ontology.label(code) != cells["label"]:
                    raise RulesInvalid(FILE, row, f"{code} is called {ontology.label(code)!r}")
                rows.append((frozenset({code, *ontology.descendants(code)}), code, level))
            elif kind == "icd10cm":
                if not tables.ICD10CM.match(code):
                    raise RulesInvalid(FILE, row, f"{code!r} is not spelt as an ICD-10-CM code")
                by_icd[code] = level
            else:
                raise RulesInvalid(FILE, row, f"kind {kind!r} is neither hpo nor icd10cm")
        by_hpo: dict[str, int] = {}
        # Broad terms first, so that the most specific row has the last word.
        for covered, _, level in sorted(rows, key=lambda item: (-len(item[0]), item[1])):
            for code in covered:
                by_hpo[code] = level
        return cls(by_hpo, by_icd)

    def of(self, chart: PatientChart) -> list[Complaint]:
        """What the patient has now, gravest first (order of the chart within a level).

        A finding counts when it is not older than a week; a problem when it was said as the complaint
        or in this encounter, or was recorded in the last two days.
        """
        at = chart.at
        since = at - ACUTE
        recent = at - RECENT_PROBLEM
        by_hpo, by_icd = self._by_hpo, self._by_icd
        found: list[Complaint] = []
        for finding in chart.findings:
            if finding.state == "absent" or (finding.time is not None and finding.time < since):
                continue
            found.append(Complaint(by_hpo.get(finding.hpo, UNGRADED), finding))
        for problem in chart.problems:
            if problem.status not in ("active", "uncertain"):
                continue
            time = problem.time
            if problem.role == "problem-list":
                if time is None or time < recent:
                    continue
            elif time is not None and time < since:
                continue
            code = problem.icd10cm
            for length in range(len(code), 2, -1):
                level = by_icd.get(code[:length])
                if level is not None:
                    found.append(Complaint(level, problem))
                    break
            else:
                # Nobody has graded it, but it is why the patient is here; a mere contact (Z) is not.
                if not code.startswith("Z"):
                    found.append(Complaint(UNGRADED, problem))
        found.sort(key=_level)
        return found


def _level(complaint: Complaint) -> int:
    return complaint.level
