"""Conditions, reasons for the encounter and family history into findings and problems.

`verificationStatus` decides the state (refuted is absence, entered-in-error is nothing), the clinical
status decides whether it is present or history, and dates decide whether a symptom belongs to now or
to the problem list.  Text without a code goes through the dictionary matcher and is marked as such.
Sources: https://hl7.org/fhir/R4/condition.html (status value sets), ARCHITECTURE.md "Values that travel".
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from fhir_adapters import resources as r
from fhir_adapters.building import STATUS_OF, Build, Resolved
from fhir_adapters.chart import FamilyCondition, ProblemStatus, ReadIssue, Role, State, Unmapped
from fhir_adapters.text import TextMatch

# https://hl7.org/fhir/R4/valueset-condition-ver-status.html; entered-in-error counts as nothing.
_STATES: dict[str, State | None] = {
    "confirmed": "present",
    "unconfirmed": "uncertain",
    "provisional": "uncertain",
    "differential": "uncertain",
    "refuted": "absent",
    "entered-in-error": None,
}
_HISTORY: dict[str, ProblemStatus] = {"inactive": "inactive", "remission": "inactive", "resolved": "resolved"}
# A symptom recorded longer ago than this, and not in the encounter at hand, is background.
# Grade C: estimate of this project (the month in which a complaint is usually still the same one).
RECENT = timedelta(days=30)
_OF_NOW = frozenset(STATUS_OF.values())
# Parts of the URIs and OIDs under which OMIM and Orphanet codes are sent.
REGISTRIES = ("omim", "orpha", "2.16.840.1.113883.6.174")
_AGE_UNITS = {"a": 365.25, "mo": 30.4375, "wk": 7.0, "d": 1.0, "h": 1 / 24, "min": 1 / 1440}


def codes_of(concept: r.Status | None) -> tuple[str, ...]:
    """The codes of a status; its text where it has none (sent by small systems)."""
    if concept is None:
        return ()
    codings = concept.coding
    if codings:
        # One coding is the rule, and this runs for every Condition of the chart.
        if len(codings) == 1 and (code := codings[0].code):
            return (code,)
        found = tuple([c.code for c in codings if c.code])
        if found:
            return found
    return (concept.text.lower(),) if concept.text else ()


def _state(verification: r.Status | None) -> State | None:
    """What a verificationStatus says; `None` for an entry made in error.  Of several codes the last known."""
    state: State | None = "present"
    for code in codes_of(verification):
        state = _STATES.get(code, state)
    return state


def read_conditions(  # noqa: PLR0912, PLR0915 hot loop
    build: Build, pairs: Iterable[tuple[str, r.Condition]], *, encounter_start: datetime | None
) -> None:
    """Read all Conditions of the patient.  `encounter_start` widens what counts as recent."""
    since = min(build.at, encounter_start or build.at) - RECENT
    soon = build.at + timedelta(days=1)
    ours, me, times = build.ours, build.patient_reference, build.times
    for reference, condition in pairs:
        subject = condition.subject
        if (
            subject is not None
            and (sent := subject.reference) != me
            and sent not in ours
            and not build.is_ours(reference, subject)
        ):
            continue
        # What most Conditions have is read here, without a call: one coding of each status.
        verification, clinical = condition.verificationStatus, condition.clinicalStatus
        if (
            verification is not None
            and (codings := verification.coding) is not None
            and len(codings) == 1
            and (code := codings[0].code)
        ):
            state = _STATES.get(code, "present")
        else:
            state = _state(verification)
        if state is None:
            continue
        history: ProblemStatus | None = None
        if clinical is None:
            if _abated(build, reference, condition):
                history = "resolved"
        elif (codings := clinical.coding) is not None and len(codings) == 1 and (code := codings[0].code):
            history = _HISTORY.get(code)
        else:
            for code in codes_of(clinical):
                history = _HISTORY.get(code, history)
        period = condition.onsetPeriod
        onset_text = condition.onsetDateTime or (period.start if period is not None else None)
        if onset_text is None:
            onset = None
        elif onset_text in times:
            onset = times[onset_text]
        else:
            onset = build.time(onset_text, reference, "onset")
        recorded = condition.recordedDate
        if recorded is None:
            time = onset
        elif recorded in times:
            time = times[recorded] or onset
        else:
            time = build.time(recorded, reference, "recordedDate") or onset
        if time is not None and time > soon:
            build.issues.append(ReadIssue("invalid-date", reference, "recordedDate", "in the future"))
        role: Role = "encounter"
        if time is not None and time < since:
            role = "problem-list"
        elif time is None and history is not None:
            # Over, and nobody says since when: background, as the problem list has it.
            role = "problem-list"
        onset_age = None
        if onset is not None or condition.onsetAge is not None:
            onset_age = _onset_age(build, condition, onset)
        concept = condition.code
        if concept is not None and (found := build.resolve(concept, reference)) is not None:
            if not found.ignored:
                _add(build, reference, found, state, history, role, time, onset_age)
        else:
            read_concept(build, reference, concept, state, history, role, time, onset_age, asked=True)


def _abated(build: Build, reference: str, condition: r.Condition) -> bool:
    """Whether it ended by the chart's moment.  Asked only where no clinicalStatus says it: con-4 of R4
    makes an abated Condition inactive, resolved or in remission."""
    period = condition.abatementPeriod
    text = condition.abatementDateTime or (period.end if period is not None else None)
    if text is not None:
        ended = build.time(text, reference, "abatement")
        return ended is not None and ended <= build.at
    age = condition.abatementAge
    days = _AGE_UNITS.get(age.code or age.unit or "") if age is not None else None
    if age is None or age.value is None or days is None or build.age_days is None:
        return False
    return age.value * days <= build.age_days


def _onset_age(build: Build, condition: r.Condition, onset: datetime | None) -> int | None:
    age = condition.onsetAge
    if age is not None and age.value is not None:
        days = _AGE_UNITS.get(age.code or age.unit or "")
        return None if days is None else int(age.value * days)
    if onset is None or build.age_days is None:
        return None
    return max(0, build.age_days - (build.at - onset).days)


def read_concept(
    build: Build,
    reference: str,
    code: r.CodeableConcept | None,
    state: State,
    history: ProblemStatus | None,
    role: Role,
    time: datetime | None,
    onset_age_days: int | None = None,
    *,
    asked: bool = False,
) -> None:
    """One concept by its codings, else by its text; what nobody knows is counted as unmapped.

    `asked` says that its codings were looked up and are not known.
    """
    if code is None:
        build.issues.append(ReadIssue("missing-code", reference, "code"))
        return
    found = None if asked else build.resolve(code, reference)
    if found is not None:
        if not found.ignored:
            _add(build, reference, found, state, history, role, time, onset_age_days)
        return
    text = code.text or next((c.display for c in code.coding or () if c.display), None)
    matches = build.match(text)
    for match in matches:
        _add_match(build, reference, match, state, history, role, time, onset_age_days)
    if not matches and not code.coding:
        build.unmapped.append(Unmapped(reference, "text", ""))


def _add(
    build: Build,
    reference: str,
    found: Resolved,
    state: State,
    history: ProblemStatus | None,
    role: Role,
    time: datetime | None,
    onset_age_days: int | None,
    from_text: bool = False,
) -> None:
    if found.absent:
        state = "absent" if state == "present" else "uncertain"
    status = history if history is not None and state != "absent" else STATUS_OF[state]
    mention = (status, role, reference, found.label, from_text, time, onset_age_days)
    # What is history is never a present finding.
    if found.hpo is not None and status in _OF_NOW:
        build.findings.setdefault(found.hpo, []).append(mention)
    elif found.hpo is not None:
        build.past.setdefault(found.hpo, []).append(mention)
    if found.icd10cm is not None:
        build.problems.setdefault(found.icd10cm, []).append(mention)


def _add_match(
    build: Build,
    reference: str,
    match: TextMatch,
    state: State,
    history: ProblemStatus | None,
    role: Role,
    time: datetime | None,
    onset_age_days: int | None,
) -> None:
    if match.experiencer == "family":
        if match.state == "present" and state != "absent":
            build.family.append(
                FamilyCondition("FAMMEMB", match.label, (reference,), match.hpo, match.icd10cm)
            )
        return
    if state == "absent":
        match_state: State = "absent" if match.state == "present" else "uncertain"
    else:
        match_state = (
            match.state if state == "present" else "uncertain" if match.state == "present" else match.state
        )
    past = history or ("resolved" if match.historical and match_state == "present" else None)
    found = Resolved(match.hpo, match.icd10cm, match.label)
    _add(build, reference, found, match_state, past, role, time, onset_age_days, from_text=True)


def read_reasons(build: Build, pairs: list[tuple[str, r.Encounter]], current: str | None) -> None:
    """`Encounter.reasonCode` of the encounter at hand: the presenting complaint."""
    for reference, encounter in pairs:
        if reference != current:
            continue
        start = encounter.period.start if encounter.period is not None else None
        time = build.time(start, reference, "period.start")
        for reason in encounter.reasonCode or ():
            read_concept(build, reference, reason, "present", None, "complaint", time)


def read_family_history(build: Build, pairs: list[tuple[str, r.FamilyMemberHistory]]) -> None:
    """Conditions of relatives."""
    for reference, history in pairs:
        if history.status == "entered-in-error" or not build.is_ours(reference, history.patient):
            continue
        relationship = _relationship(history.relationship)
        for condition in history.condition or ():
            if condition.code is None:
                build.issues.append(ReadIssue("missing-code", reference, "condition.code"))
                continue
            code = condition.code
            text = code.text or next((c.display for c in code.coding or () if c.display), None) or ""
            codes = tuple([f"{c.system or ''}|{c.code}" for c in code.coding or () if c.code])
            found = _resolve_of_relative(build, code, reference)
            if found is not None:
                if not found.ignored and not found.absent:
                    build.family.append(
                        FamilyCondition(
                            relationship, found.label, (reference,), found.hpo, found.icd10cm, text, codes
                        )
                    )
                continue
            matches = build.match(text)
            for match in matches:
                if match.state == "present":
                    build.family.append(
                        FamilyCondition(
                            relationship, match.label, (reference,), match.hpo, match.icd10cm, text, codes
                        )
                    )
            if not matches and (text or codes):
                build.family.append(
                    FamilyCondition(relationship, text, (reference,), None, None, text, codes)
                )
            if not matches and not code.coding:
                build.unmapped.append(Unmapped(reference, "text", ""))


def _relationship(sent: r.Status | None) -> str:
    """The v3-RoleCode of a relative; where none was sent the first other code, or the text."""
    codes = codes_of(sent)
    return next((code for code in codes if code.isalpha()), next(iter(codes), "FAMMEMB")).upper()


def _resolve_of_relative(build: Build, code: r.CodeableConcept, reference: str) -> Resolved | None:
    """As `Build.resolve`, but OMIM and Orphanet codes, which name diseases and are kept, are not unmapped."""
    codings = code.coding or []
    others = [coding for coding in codings if not _is_registry(coding.system)]
    if len(others) == len(codings):
        return build.resolve(code, reference)
    build.coded_total += not others
    return build.resolve(r.CodeableConcept(others, code.text), reference) if others else None


def _is_registry(system: str | None) -> bool:
    return system is not None and any(name in system.lower() for name in REGISTRIES)
