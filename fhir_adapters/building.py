"""The working state of one chart being built: what is collected, and the questions every reader asks.

`Build` lives for one call and is thrown away; the readers (`observations`, `conditions`,
`treatments`, `subject`) write into it and `chart_builder` turns it into the immutable chart.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

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

# One statement of a finding or problem: status, role, source, label, from text, time, age at onset in days.
Mention = tuple[ProblemStatus, Role, str, str, bool, datetime | None, int | None]

_R = TypeVar("_R", bound=r.Resource)

HPO_SYSTEM = "http://human-phenotype-ontology.org"
STATUS_OF: dict[State, ProblemStatus] = {"present": "active", "absent": "absent", "uncertain": "uncertain"}
_ROLE_RANK: dict[Role, int] = {"complaint": 0, "encounter": 1, "derived": 2, "problem-list": 3}
_STATUS_RANK: dict[ProblemStatus, int] = {
    "active": 0,
    "uncertain": 1,
    "inactive": 2,
    "resolved": 3,
    "absent": 4,
}


def drain(pairs: list[tuple[str, _R]]) -> Iterator[tuple[str, _R]]:
    """Hand the pairs over in order and let go of each: it is freed while it is still in the cache."""
    pairs.reverse()
    while pairs:
        yield pairs.pop()


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

    `ours` holds the reference strings known to mean this patient; `times` and `resolved` remember the
    dates already parsed and the codings already looked up (a chart repeats few of each many times).
    """

    tables: Tables
    at: datetime
    patient_reference: str
    ours: set[str | None]
    full_urls: dict[str, str]
    issues: list[ReadIssue] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)
    coded_total: int = 0
    findings: dict[str, list[Mention]] = field(default_factory=dict)
    past: dict[str, list[Mention]] = field(default_factory=dict)
    problems: dict[str, list[Mention]] = field(default_factory=dict)
    measurements: dict[str, Sequence[Measurement]] = field(default_factory=dict)
    coded: dict[str, tuple[CodedValue, ...]] = field(default_factory=dict)
    family: list[FamilyCondition] = field(default_factory=list)
    age_days: int | None = None
    resolved: dict[tuple[str | None, ...], Resolved | None] = field(default_factory=dict)
    times: dict[str, datetime | None] = field(default_factory=dict)

    def is_ours(self, reference: str, subject: r.Reference | None) -> bool:
        """Whether a resource is about this patient; another patient's is reported and left out."""
        if subject is None or subject.reference in self.ours:
            return True
        sent = subject.reference or ""
        if self.full_urls.get(sent) == self.patient_reference or (
            _same_resource(sent, self.patient_reference)
            # A Patient without an id goes by its fullUrl, of which "Patient/p" is the end.
            or (sent.startswith("Patient/") and _same_resource(self.patient_reference, sent))
        ):
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

    def resolve(self, concept: r.CodeableConcept | r.ObservationCode, reference: str) -> Resolved | None:
        """Look a CodeableConcept up by its codings; `None` when no coding is known.

        An explicit HPO or ICD-10-CM coding beats what another coding is mapped to.  A concept none of
        whose codings is known is counted as unmapped once; its text may still be matched.
        """
        codings = concept.coding
        if not codings:
            return None
        self.coded_total += 1
        # A chart says the same thing many times: what a set of codings means is worked out once.
        key: tuple[str | None, ...]
        if len(codings) == 1:
            first = codings[0]
            key = (first.system, first.code)
        elif len(codings) == 2:
            first, second = codings
            key = (first.system, first.code, second.system, second.code)
        else:
            key = tuple([part for coding in codings for part in (coding.system, coding.code)])
        try:
            found = self.resolved[key]
        except KeyError:
            found = self.resolved[key] = self._resolve(codings)
        if found is None:
            named = next((c for c in codings if c.code), None)
            if named is not None:
                self.unmapped.append(Unmapped(reference, named.system or "", named.code or ""))
            else:
                self.issues.append(ReadIssue("missing-code", reference, "code.coding"))
        return found

    def _resolve(self, codings: Sequence[r.Coding | r.PlainCoding]) -> Resolved | None:
        lookup = self.tables.concepts.lookup
        found: Resolved | None = None
        for coding in codings:
            code, system = coding.code, coding.system
            known = lookup(system, code) if code and system else None
            if known is None or system is None:
                continue
            if found is None:
                absent, ignored = known.state == "absent", known.kind == "ignored"
                found = Resolved(known.hpo, known.icd10cm, known.label, absent, ignored)
            else:
                _add_coding(found, known, system)
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
        time: datetime | None,
        *,
        from_text: bool = False,
    ) -> None:
        """Collect one mention of a finding; mentions are merged when the chart is finished."""
        mention = (STATUS_OF[state], role, source, "", from_text, time, None)
        self.findings.setdefault(hpo, []).append(mention)

    def add_problem(
        self, icd10cm: str, label: str, status: ProblemStatus, role: Role, source: str, time: datetime | None
    ) -> None:
        """Collect one mention of a problem."""
        self.problems.setdefault(icd10cm, []).append((status, role, source, label, False, time, None))


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


def _newest(mentions: Iterable[Mention]) -> datetime | None:
    newest: datetime | None = None
    for mention in mentions:
        time = mention[5]
        if time is not None and (newest is None or time > newest):
            newest = time
    return newest


def _gather(group: list[Mention]) -> tuple[Mention, tuple[str, ...], bool, datetime | None, int | None]:
    """What mentions of one state share: the leading one, all sources, text only, newest, first onset."""
    first = group[0]
    if len(group) == 1:
        return first, (first[2],), first[4], first[5], first[6]
    rank = _ROLE_RANK[first[1]]
    from_text, onset = True, None
    sources: dict[str, None] = {}
    for mention in group:
        if _ROLE_RANK[mention[1]] < rank:
            first, rank = mention, _ROLE_RANK[mention[1]]
        sources[mention[2]] = None
        from_text = from_text and mention[4]
        if mention[6] is not None and (onset is None or mention[6] < onset):
            onset = mention[6]
    return first, tuple(sources), from_text, _newest(group), onset


def merge_findings(mentions: dict[str, list[Mention]], ontology: Ontology) -> tuple[Finding, ...]:
    """One entry per HPO term: every source kept, the newest definite statement decides the state.

    Of a present and an absent mention the newer wins; without times, or at the same time, presence
    wins (a false alarm is preferred to a miss).  An uncertain mention never overrules a definite one.
    """
    merged = []
    for hpo in sorted(mentions):
        group = mentions[hpo]
        status = _finding_status(group)
        first, sources, from_text, time, onset = _gather([m for m in group if m[0] == status])
        merged.append(
            Finding(
                hpo,
                ontology.label(hpo),
                _STATE_OF[status],
                first[1],
                sources,
                from_text,
                time,
                onset,
            )
        )
    return tuple(merged)


_STATE_OF: dict[ProblemStatus, State] = {status: state for state, status in STATUS_OF.items()}


def merge_past(mentions: dict[str, list[Mention]], ontology: Ontology) -> tuple[Finding, ...]:
    """Findings that are over: one entry per HPO term, every source kept."""
    merged = []
    for hpo in sorted(mentions):
        first, sources, from_text, time, onset = _gather(mentions[hpo])
        merged.append(Finding(hpo, ontology.label(hpo), "present", first[1], sources, from_text, time, onset))
    return tuple(merged)


def _finding_status(group: list[Mention]) -> ProblemStatus:
    first = group[0][0]
    if all(mention[0] == first for mention in group):
        return first
    present = [m for m in group if m[0] == "active"]
    absent = [m for m in group if m[0] == "absent"]
    if present and absent:
        last_present, last_absent = _newest(present), _newest(absent)
        gone = last_present is not None and last_absent is not None and last_absent > last_present
        return "absent" if gone else "active"
    return "active" if present else "absent"


def merge_problems(mentions: dict[str, list[Mention]]) -> tuple[Problem, ...]:
    """One entry per ICD-10-CM code: every source kept; a dated newer statement decides the status.

    Without dates to tell by, the mention that calls for more attention stands (active first).
    """
    merged = []
    for code in sorted(mentions):
        group = mentions[code]
        newest = _newest(group)
        dated = newest is not None and all(m[5] is not None for m in group)
        deciding = [m for m in group if m[5] == newest] if dated else group
        status = min((m[0] for m in deciding), key=_STATUS_RANK.__getitem__)
        first, _, from_text, _, _ = _gather([m for m in group if m[0] == status])
        _, sources, _, _, onset = _gather(group)
        merged.append(Problem(code, first[3] or code, status, first[1], sources, from_text, newest, onset))
    return tuple(merged)
