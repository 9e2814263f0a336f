"""The working state of one chart being built: what is collected, and the questions every reader asks.

`Build` lives for one call and is thrown away; the readers (`observations`, `conditions`,
`treatments`, `subject`) write into it and `chart_builder` turns it into the immutable chart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from fhir_adapters import resources as r
from fhir_adapters.chart import (
    CodedValue,
    FamilyCondition,
    Finding,
    Measurement,
    Problem,
    ProblemStatus,
    ReadIssue,
    Role,
    State,
    Unmapped,
)
from fhir_adapters.hpo import Ontology
from fhir_adapters.terminology.analytes import AnalyteTable
from fhir_adapters.terminology.concepts import Concept, ConceptTable
from fhir_adapters.terminology.drugs import DrugTable
from fhir_adapters.text import TextMatch, TextMatcher
from fhir_adapters.times import parse_datetime

HPO_SYSTEM = "http://human-phenotype-ontology.org"
STATUS_OF: dict[State, ProblemStatus] = {"present": "active", "absent": "absent", "uncertain": "uncertain"}
_ROLE_RANK: dict[Role, int] = {"complaint": 0, "encounter": 1, "derived": 2, "problem-list": 3}
_DEFINITE_RANK: dict[State, int] = {"present": 0, "absent": 1, "uncertain": 2}


@dataclass(frozen=True, slots=True)
class Tables:
    """The terminology a chart is read with, loaded once per process."""

    analytes: AnalyteTable
    concepts: ConceptTable
    drugs: DrugTable
    ontology: Ontology
    matcher: TextMatcher


@dataclass(slots=True)
class Resolved:
    """What a CodeableConcept means in the pivot vocabularies."""

    hpo: str | None = None
    icd10cm: str | None = None
    label: str = ""
    absent: bool = False
    ignored: bool = False


@dataclass(slots=True)
class Build:
    """Everything collected so far for one patient.

    `ours` holds the reference strings known to mean this patient; `times` remembers the dates
    already parsed (a chart repeats few dates many times).
    """

    tables: Tables
    at: datetime
    patient_reference: str
    ours: set[str | None]
    full_urls: dict[str, str]
    issues: list[ReadIssue] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)
    coded_total: int = 0
    findings: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    measurements: dict[str, tuple[Measurement, ...]] = field(default_factory=dict)
    coded: dict[str, tuple[CodedValue, ...]] = field(default_factory=dict)
    family: list[FamilyCondition] = field(default_factory=list)
    age_days: int | None = None
    times: dict[str, datetime | None] = field(default_factory=dict)

    def is_ours(self, reference: str, subject: r.Reference | None) -> bool:
        """Whether a resource is about this patient; another patient's is reported and left out."""
        if subject is None or subject.reference in self.ours:
            return True
        sent = subject.reference or ""
        if self.full_urls.get(sent) == self.patient_reference or _same_resource(sent, self.patient_reference):
            self.ours.add(sent)
            return True
        self.issues.append(ReadIssue("other-patient", reference, "subject"))
        return False

    def time(self, text: str | None, reference: str, path: str) -> datetime | None:
        """A FHIR dateTime as aware UTC; an unreadable one becomes an issue and `None`."""
        if text is None:
            return None
        try:
            return self.times[text]
        except KeyError:
            value = self.times[text] = parse_datetime(text)
            if value is None:
                self.issues.append(ReadIssue("invalid-date", reference, path))
            return value

    def resolve(self, concept: r.CodeableConcept, reference: str) -> Resolved | None:
        """Look a CodeableConcept up by its codings; `None` when no coding is known.

        An explicit HPO or ICD-10-CM coding beats what another coding is mapped to.  A concept none of
        whose codings is known is counted as unmapped once; its text may still be matched.
        """
        codings = concept.coding
        if not codings:
            return None
        self.coded_total += 1
        lookup = self.tables.concepts.lookup
        found: Resolved | None = None
        for coding in codings:
            code, system = coding.code, coding.system
            if not code or not system:
                continue
            known = lookup(system, code)
            if known is None:
                continue
            if found is None:
                found = Resolved(
                    known.hpo, known.icd10cm, known.label, known.state == "absent", known.kind == "ignored"
                )
                continue
            _add_coding(found, known, system)
        if found is None:
            first = next((c for c in codings if c.code), None)
            if first is not None:
                self.unmapped.append(Unmapped(reference, first.system or "", first.code or ""))
            else:
                self.issues.append(ReadIssue("missing-code", reference, "code.coding"))
        return found

    def match(self, text: str | None) -> tuple[TextMatch, ...]:
        """What a short clinical text says, by dictionary (see `fhir_adapters.text`)."""
        return self.tables.matcher.match(text) if text else ()

    def add_finding(
        self,
        hpo: str,
        state: State,
        role: Role,
        source: str,
        *,
        label: str | None = None,
        from_text: bool = False,
        time: datetime | None = None,
        onset_age_days: int | None = None,
    ) -> None:
        """Collect one mention of a finding; mentions are merged when the chart is finished."""
        self.findings.append(
            Finding(
                hpo,
                label or self.tables.ontology.label(hpo),
                state,
                role,
                (source,),
                from_text,
                time,
                onset_age_days,
            )
        )

    def add_problem(
        self,
        icd10cm: str,
        label: str,
        status: ProblemStatus,
        role: Role,
        source: str,
        *,
        from_text: bool = False,
        time: datetime | None = None,
        onset_age_days: int | None = None,
    ) -> None:
        """Collect one mention of a problem."""
        self.problems.append(
            Problem(icd10cm, label, status, role, (source,), from_text, time, onset_age_days)
        )


def _add_coding(found: Resolved, known: Concept, system: str) -> None:
    if known.hpo and (found.hpo is None or system == HPO_SYSTEM):
        found.hpo = known.hpo
    if known.icd10cm and (found.icd10cm is None or "icd-10" in system):
        found.icd10cm = known.icd10cm
    found.absent = found.absent or known.state == "absent"
    found.ignored = found.ignored and known.kind == "ignored"


def _same_resource(sent: str, reference: str) -> bool:
    """Absolute and versioned references to the same ``Type/id``, and ``urn:uuid:<id>``."""
    bare = sent.partition("/_history/")[0]
    return (
        bare.endswith("/" + reference)
        or bare == reference
        or bare == "urn:uuid:" + reference.partition("/")[2]
    )


def _newest(times: Iterable[datetime | None]) -> datetime | None:
    return max((t for t in times if t is not None), default=None)


def merge_findings(mentions: list[Finding]) -> tuple[Finding, ...]:
    """One entry per HPO term: every source kept, the newest definite statement decides the state.

    Of a present and an absent mention the newer wins; without times, or at the same time, presence
    wins (a false alarm is preferred to a miss).  An uncertain mention never overrules a definite one.
    """
    by_term: dict[str, list[Finding]] = {}
    for mention in mentions:
        by_term.setdefault(mention.hpo, []).append(mention)
    merged = []
    for hpo in sorted(by_term):
        group = by_term[hpo]
        if len(group) == 1:
            merged.append(group[0])
            continue
        state = _state(group)
        same = [m for m in group if m.state == state]
        first = min(same, key=lambda m: _ROLE_RANK[m.role])
        merged.append(
            Finding(
                hpo,
                first.label,
                state,
                first.role,
                tuple(dict.fromkeys(s for m in same for s in m.sources)),
                all(m.from_text for m in same),
                _newest(m.time for m in same),
                min((m.onset_age_days for m in same if m.onset_age_days is not None), default=None),
            )
        )
    return tuple(merged)


def _state(group: list[Finding]) -> State:
    states = {m.state for m in group}
    if states == {"present", "absent"} or len(states) == 3:
        present = _newest(m.time for m in group if m.state == "present")
        absent = _newest(m.time for m in group if m.state == "absent")
        return "absent" if present is not None and absent is not None and absent > present else "present"
    return min(states, key=_DEFINITE_RANK.__getitem__)


_STATUS_RANK: dict[ProblemStatus, int] = {
    "active": 0,
    "uncertain": 1,
    "inactive": 2,
    "resolved": 3,
    "absent": 4,
}


def merge_problems(mentions: list[Problem]) -> tuple[Problem, ...]:
    """One entry per ICD-10-CM code: every source kept; a dated newer statement decides the status.

    Without dates to tell by, the mention that calls for more attention stands (active first).
    """
    by_code: dict[str, list[Problem]] = {}
    for mention in mentions:
        by_code.setdefault(mention.icd10cm, []).append(mention)
    merged = []
    for code in sorted(by_code):
        group = by_code[code]
        if len(group) == 1:
            merged.append(group[0])
            continue
        timed = [m for m in group if m.time is not None]
        newest = _newest(m.time for m in timed)
        deciding = [m for m in timed if m.time == newest] if len(timed) == len(group) else group
        status: ProblemStatus = min((m.status for m in deciding), key=_STATUS_RANK.__getitem__)
        same = [m for m in group if m.status == status]
        first = min(same, key=lambda m: _ROLE_RANK[m.role])
        merged.append(
            Problem(
                code,
                first.label,
                status,
                first.role,
                tuple(dict.fromkeys(s for m in group for s in m.sources)),
                all(m.from_text for m in same),
                newest,
                min((m.onset_age_days for m in group if m.onset_age_days is not None), default=None),
            )
        )
    return tuple(merged)
