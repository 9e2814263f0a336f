"""From a `PatientChart` to the HPO phenotype of a patient: what is there for life, what is excluded, and why.

Responsible for putting together what codes, text, problems, measured values and growth say, and for
settling what contradicts.  Unlike the features of an acute visit, what is over still counts: who had seizures
as a child has them in the phenotype, marked `resolved`.  A refuted or denied finding is never present.  What
relatives have is kept apart.  It judges no disease and does no I/O once loaded.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from fhir_adapters.chart import Finding, PatientChart
from fhir_adapters.hpo import Ontology, load_ontology
from fhir_adapters.phenotype_growth import GrowthReader
from fhir_adapters.phenotype_limits import AnalyteLimits, load_limits
from fhir_adapters.phenotype_measured import Judged, judge_series
from fhir_adapters.phenotype_problems import ProblemTerms
from fhir_adapters.phenotype_profile import (
    Derivation,
    FamilyTerm,
    PhenotypeIssue,
    PhenotypeProfile,
    PhenotypeTerm,
)
from fhir_adapters.terminology.analytes import AnalyteTable

__all__ = ["PhenotypeProfile", "PhenotypeReader", "PhenotypeTerm"]

HPO_SYSTEMS = ("human-phenotype-ontology", "obolibrary.org/obo/hp", "hpo.jax.org")
CONSANGUINITY = "Z84.3"
_LASTING_DAYS = 90  # three months, the usual definition of chronic
_PREGNANCY = timedelta(weeks=46)  # a pregnancy and the six weeks after it
_RANK: dict[Derivation, int] = {"coded": 0, "text": 1, "problem": 2, "measurement": 3, "growth": 4}


class _Said(NamedTuple):
    """One statement about a term.  `explicit`: a person said so, it was not worked out."""

    present: bool
    derivation: Derivation
    sources: tuple[str, ...]
    explicit: bool
    basis: str = ""
    onset: int | None = None
    resolved: bool = False


class PhenotypeReader:
    """Reads phenotypes of charts; immutable, shared by all calls of a process."""

    def __init__(
        self,
        ontology: Ontology,
        limits: dict[str, AnalyteLimits],
        problems: ProblemTerms,
        growth: GrowthReader,
    ) -> None:
        self._ontology = ontology
        self._limits = limits
        self._problems = problems
        self._growth = growth

    @classmethod
    def load(
        cls, ontology: Ontology | None = None, analytes: AnalyteTable | None = None
    ) -> "PhenotypeReader":
        """Read and check the packaged tables; raises `TerminologyInvalid` naming file and row.

        `ontology` and `analytes` may be handed in when they are loaded already.
        """
        ontology = ontology or load_ontology()
        return cls(
            ontology,
            load_limits(analytes or AnalyteTable.load(), ontology),
            ProblemTerms.load(ontology),
            GrowthReader.load(ontology),
        )

    def read(self, chart: PatientChart) -> PhenotypeProfile:
        """The phenotype of a chart.  Pure; the order of what was sent does not matter."""
        reading = _Reading(self._ontology)
        reading.findings(chart.findings, over=False)
        reading.findings(chart.past_findings, over=True)
        malformed = self._problem_terms(chart, reading)
        self._measured(chart, reading)
        judged, issues = self._growth.read(chart)
        reading.judged(judged, "growth", "CDC 2000")
        reading.issues.extend(issues)
        for item in chart.unmapped:
            if any(name in item.system for name in HPO_SYSTEMS):
                reading.issues.append(PhenotypeIssue("unknown-hpo", (item.reference,), item.code[:20]))
        present, excluded = reading.settled(malformed)
        related = _consanguinity(chart)
        subject = chart.subject
        return PhenotypeProfile(
            present,
            excluded,
            subject.sex,
            subject.age_years,
            _onset_years(present, subject.age_days),
            self._family(chart),
            True if related else None,
            tuple(sorted(set(reading.issues), key=_issue_order)),
            related,
        )

    def _problem_terms(self, chart: PatientChart, reading: "_Reading") -> frozenset[str]:
        """Note the terms of ICD-10-CM problems; returns the sources that code a malformation."""
        malformed: set[str] = set()
        for problem in chart.problems:
            code, status = problem.icd10cm, problem.status
            if "Q00" <= code[:3] <= "Q89" and status not in ("absent", "uncertain"):
                malformed.update(problem.sources)
            term = self._problems.lookup(code)
            if term is None:
                continue
            basis = f"ICD-10-CM {code}"
            if status == "uncertain":
                reading.issue("uncertain", problem.sources, term.hpo)
            elif status == "absent":
                if term.exact:
                    reading.say(term.hpo, _Said(False, "problem", problem.sources, True, basis))
            else:
                over = status in ("inactive", "resolved")
                said = _Said(True, "problem", problem.sources, False, basis, problem.onset_age_days, over)
                reading.say(term.hpo, said)
        return frozenset(malformed)

    def _measured(self, chart: PatientChart, reading: "_Reading") -> None:
        subject = chart.subject
        since: datetime | None = None
        if subject.pregnant or subject.postpartum:
            since = chart.at - _PREGNANCY
        taken = [atc for drug in chart.medications if drug.active for atc in drug.atc]
        limits, left_out = self._limits, False
        for loinc, series in chart.measurements.items():
            table = limits.get(loinc)
            if table is None or not series:
                continue
            treated = table.unless_atc
            if treated and taken and any(atc.startswith(treated) for atc in taken):
                reading.issue("treated", (series[0].source,), f"LOINC {loinc}")
                continue
            left_out = since is not None
            judged = judge_series(
                table, series, at=chart.at, age_days=subject.age_days, sex=subject.sex, not_since=since
            )
            reading.judged(judged, "measurement", f"LOINC {loinc}")
        if left_out:
            reading.issue("pregnancy", (), "laboratory values and vital signs")

    def _family(self, chart: PatientChart) -> tuple[FamilyTerm, ...]:
        family = set()
        for relative in chart.family_history:
            hpo = None if relative.hpo is None else self._ontology.canonical(relative.hpo)
            if hpo is None and relative.icd10cm is not None:
                term = self._problems.lookup(relative.icd10cm)
                hpo = None if term is None else term.hpo
            sources = tuple(sorted(relative.sources))
            family.add(
                FamilyTerm(
                    relative.relationship,
                    relative.label,
                    sources,
                    hpo,
                    relative.icd10cm,
                    relative.text,
                    relative.codes,
                )
            )
        return tuple(
            sorted(family, key=lambda t: (t.relationship, t.label, t.sources, t.hpo or "", t.text, t.codes))
        )


class _Reading:
    """One chart being read: statements by term, then settled.  Works for one call and is thrown away."""

    __slots__ = ("_ontology", "_said", "issues")

    def __init__(self, ontology: Ontology) -> None:
        self._ontology = ontology
        self._said: dict[str, list[_Said]] = {}
        self.issues: list[PhenotypeIssue] = []

    def issue(self, code: str, sources: Iterable[str], detail: str) -> None:
        self.issues.append(PhenotypeIssue(code, tuple(sorted(sources)), detail))  # type: ignore[arg-type]

    def say(self, hpo: str, said: _Said) -> None:
        self._said.setdefault(hpo, []).append(said)

    def findings(self, findings: Iterable[Finding], *, over: bool) -> None:
        for finding in findings:
            hpo = self._ontology.canonical(finding.hpo)
            if hpo is None:
                self.issue("unknown-hpo", finding.sources, finding.hpo[:20])
            elif not self._ontology.is_phenotype(hpo):
                self.issue("not-a-phenotype", finding.sources, hpo)
            elif finding.state == "uncertain":
                self.issue("uncertain", finding.sources, hpo)
            else:
                derivation: Derivation = "text" if finding.from_text else "coded"
                present = finding.state == "present"
                onset = finding.onset_age_days
                self.say(hpo, _Said(present, derivation, finding.sources, not over, "", onset, over))

    def judged(self, judged: Iterable[Judged], derivation: Derivation, basis: str) -> None:
        for item in judged:
            if item.verdict == "unconfirmed":
                self.issue("unconfirmed", item.sources, item.hpo)
            else:
                present = item.verdict == "present"
                onset, over = item.onset_age_days, item.resolved
                self.say(item.hpo, _Said(present, derivation, item.sources, False, basis, onset, over))

    def settled(
        self, malformed: frozenset[str]
    ) -> tuple[tuple[PhenotypeTerm, ...], tuple[PhenotypeTerm, ...]]:
        """The terms present and those excluded.

        A refutation and anything that says present cancel out and become an issue, except where the
        newest explicit statement of the very term says present.  What is present otherwise stands before
        what values seem to exclude; a term above one that is present cannot be excluded.
        """
        present: list[PhenotypeTerm] = []
        absent: list[tuple[str, list[_Said]]] = []
        for hpo in sorted(self._said):
            said = self._said[hpo]
            yes = [one for one in said if one.present]
            no = [one for one in said if not one.present]
            if not yes:
                absent.append((hpo, no))
                continue
            if no:
                self.issue("contradiction", {source for one in said for source in one.sources}, hpo)
            stated = any(one.explicit for one in yes)
            if not stated and any(one.explicit for one in no):
                continue
            present.append(self._term(hpo, yes, malformed))
        above = [self._ontology.ancestors(term.hpo) for term in present] if absent else []
        excluded = []
        for hpo, no in absent:
            if any(hpo in terms for terms in above):
                self.issue("contradiction", {source for one in no for source in one.sources}, hpo)
            else:
                excluded.append(self._term(hpo, no, frozenset()))
        return tuple(present), tuple(excluded)

    def _term(self, hpo: str, said: list[_Said], malformed: frozenset[str]) -> PhenotypeTerm:
        first, sources, onset, over = said[0], set(said[0].sources), said[0].onset, said[0].resolved
        if len(said) > 1:
            first = min(said, key=lambda one: (_RANK[one.derivation], one.basis))
            sources = {source for one in said for source in one.sources}
            onset = min([one.onset for one in said if one.onset is not None], default=None)
            over = all(one.resolved for one in said)
        return PhenotypeTerm(
            hpo,
            self._ontology.label(hpo),
            "present" if first.present else "excluded",
            tuple(sorted(sources)),
            first.derivation,
            first.basis,
            onset if first.present else None,
            first.present and over,
            first.present and not malformed.isdisjoint(sources),
        )


def _onset_years(present: tuple[PhenotypeTerm, ...], age_days: int | None) -> float | None:
    onsets = []
    for term in present:
        if term.resolved:
            continue
        if term.congenital:
            return 0.0
        onset = term.onset_age_days
        if onset is not None and age_days is not None and age_days - onset >= _LASTING_DAYS:
            onsets.append(onset)
    return min(onsets) / 365.25 if onsets else None


def _consanguinity(chart: PatientChart) -> tuple[str, ...]:
    """The resources that say the parents are related by blood, sorted."""
    found = {
        source
        for problem in chart.problems
        if problem.icd10cm.startswith(CONSANGUINITY) and problem.status not in ("absent", "uncertain")
        for source in problem.sources
    }
    for relative in chart.family_history:
        if (relative.icd10cm or "").startswith(CONSANGUINITY):
            found.update(relative.sources)
    return tuple(sorted(found))


def _issue_order(issue: PhenotypeIssue) -> tuple[str, str, tuple[str, ...]]:
    return issue.code, issue.detail, issue.sources
