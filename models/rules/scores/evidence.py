"""Codes that stand for something a score asks: consciousness, oxygen, infection, effort of breathing, pain.

Responsible for ``data/score_evidence.csv`` and for collecting, in one pass over a chart's findings
and problems, which topics they speak of.  ICD-10-CM rows hold for the code and everything below it;
HPO rows for the term alone.  What a key is worth is in the points tables.
"""

from datetime import datetime, timedelta
from functools import lru_cache

from fhir_adapters.chart import Finding, PatientChart, Problem
from models.assessment import Fact
from models.rules.currency import acute_since
from models.rules.data_rows import read_rows

FILE = "score_evidence.csv"
COLUMNS = ("topic", "system", "code", "key", "source")

# Allowed keys per topic, from best to worst: the worst evidence of an encounter counts (precaution).
TOPICS: dict[str, tuple[str, ...]] = {
    "consciousness": ("alert", "confusion", "voice", "pain", "unresponsive"),
    "oxygen": ("air", "oxygen"),
    "hypercapnia": ("acute", "chronic"),
    "infection": ("infection",),
    "immunocompromise": ("immunocompromised",),
    "respiratory-effort": ("normal", "mild", "moderate", "severe"),
    "pain-location": ("central",),
    "hypertension-symptom": ("present",),
}
# These describe the person and not the moment: a problem list is the right place to know them from.
STANDING = frozenset({"oxygen", "hypercapnia", "immunocompromise"})
# A diagnosis speaks of the present illness for so long after it was recorded (an infection under treatment).
RECENT = timedelta(days=14)

Topics = tuple[tuple[str, int, str], ...]
Found = dict[str, tuple[int, str, Fact]]


class Evidence:
    """The evidence table by vocabulary."""

    __slots__ = ("_by_problem", "coded", "hpo")

    def __init__(
        self, coded: dict[str, dict[str, str]], hpo: dict[str, Topics], icd: dict[str, Topics]
    ) -> None:
        self.coded = coded
        self.hpo = hpo

        @lru_cache(maxsize=8192)
        def by_problem(code: str) -> Topics:
            """The topics of a code: of each topic the row with the longest prefix."""
            found: dict[str, tuple[str, int, str]] = {}
            for length in range(len(code), 2, -1):
                for topic in icd.get(code[:length], ()):
                    found.setdefault(topic[0], topic)
            return tuple(found.values())

        self._by_problem = by_problem

    @classmethod
    def load(cls) -> "Evidence":
        """Read and check the packaged table; raises `RulesInvalid`."""
        tables: dict[str, dict[str, dict[str, str]]] = {"coded": {}, "hpo": {}, "icd10cm": {}}
        for row in read_rows(FILE, COLUMNS):
            topic = row.one_of("topic", tuple(TOPICS))
            codes = tables[row.one_of("system", tuple(tables))].setdefault(topic, {})
            code = row.text("code")
            if code in codes:
                raise row.error(f"{code} occurs twice for {topic}")
            codes[code] = row.one_of("key", TOPICS[topic])
            row.text("source")
        return cls(tables["coded"], _by_code(tables["hpo"]), _by_code(tables["icd10cm"]))

    def collect(self, chart: PatientChart) -> Found:
        """The worst evidence per topic among the chart's present findings and active problems."""
        found: Found = {}
        hpo, at = self.hpo, chart.at
        since = acute_since(chart)
        recent = min(since, at - RECENT)
        for finding in chart.findings:
            topics = hpo.get(finding.hpo)
            if topics and finding.state == "present":
                now = _of_now(finding, since)
                for topic, rank, key in topics:
                    if (now or topic in STANDING) and (topic not in found or rank > found[topic][0]):
                        found[topic] = (rank, key, finding_fact(finding))
        for problem in chart.problems:
            status = problem.status
            if status in ("absent", "uncertain"):
                continue
            for topic, rank, key in self._by_problem(problem.icd10cm):
                # Chronic hypercapnic failure sets the oxygen target for good; an acute one (an overdose)
                # only while it lasts.
                if status != "active" and key != "chronic":
                    continue
                if (topic in STANDING or _of_now(problem, recent)) and (
                    topic not in found or rank > found[topic][0]
                ):
                    found[topic] = (rank, key, problem_fact(problem))
        return found


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


def _of_now(entry: Finding | Problem, since: datetime) -> bool:
    """Whether an entry speaks of the present illness: the complaint, or noted no longer ago than `since`."""
    if entry.role == "complaint":
        return True
    if entry.time is None:
        return entry.role != "problem-list"
    return entry.time >= since


def _by_code(tables: dict[str, dict[str, str]]) -> dict[str, Topics]:
    """From ``topic -> code -> key`` to ``code -> topics``."""
    codes: dict[str, list[tuple[str, int, str]]] = {}
    for topic, keys in tables.items():
        for code, key in keys.items():
            codes.setdefault(code, []).append((topic, TOPICS[topic].index(key), key))
    return {code: tuple(topics) for code, topics in codes.items()}
