"""Observations into measurements, coded values and findings.

This is the widest part of a chart (most of ten thousand resources are Observations), so each value goes
straight into the bucket of its analyte (`fhir_adapters.series`).  It never guesses: a unit that nobody
knows and a value that no living patient has are set aside as read issues.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from fhir_adapters import resources as r
from fhir_adapters.building import STATUS_OF, Build
from fhir_adapters.chart import CodedValue, ReadIssue, State, Unmapped
from fhir_adapters.conditions import read_concept
from fhir_adapters.series import LONG_AGO, Bucket, Carrier
from fhir_adapters.terminology.analytes import Analyte

LOINC = "http://loinc.org"
# https://hl7.org/fhir/R4/valueset-observation-status.html: these carry no result to act on.
# A result dated further ahead than this is a slip of the date (a day, as clocks and time zones differ).
_AHEAD = timedelta(days=1)
_WRITTEN = re.compile(
    r"\s*(<=|>=|<|>)?\s*(\d{1,9}(?:\.\d{1,9}|,\d{1,2}|,\d{4,9})?)\s*([^\W\d_%][^\s]{0,38}|[%/][^\s]{0,38})?\s*"
)
NO_RESULT = frozenset({"entered-in-error", "cancelled", "registered", "unknown"})


_YES, _NO = frozenset({"positive", "yes"}), frozenset({"negative", "no"})


class _Buckets:
    """The buckets of one chart: one per analyte, found by any of its codes."""

    def __init__(self, build: Build) -> None:
        self._build = build
        # By LOINC code as sent; `None` remembers that no table knows it.
        self.by_loinc: dict[str, Bucket | None] = {}
        self.canonical: dict[str, Bucket] = {}

    def of(self, system: str | None, code: str) -> Bucket | None:
        """The bucket of a code, made when it is new."""
        analytes = self._build.tables.analytes
        if system == LOINC:
            analyte = analytes.by_loinc.get(code)
        else:
            analyte = analytes.by_code.get((system or "", code))
        bucket = None
        if analyte is not None:
            bucket = self.canonical.get(analyte.loinc)
            if bucket is None:
                bucket = self.canonical[analyte.loinc] = Bucket(
                    analyte, analytes.unit_conversion, self._build.issues
                )
        if system == LOINC:
            self.by_loinc[code] = bucket
        return bucket


def read_observations(build: Build, pairs: Iterable[tuple[str, r.Observation]]) -> None:  # noqa: PLR0912 hot loop
    """Read all Observations of the patient into `build`."""
    ours, is_ours, me = build.ours, build.is_ours, build.patient_reference
    buckets = _Buckets(build)
    by_loinc, other = buckets.by_loinc, buckets.of
    known = 0
    last_sent: str | None = None
    last_time: datetime | None = None
    for reference, observation in pairs:
        # Comparing a fresh string with the expected one is cheaper than hashing it for a set.
        subject = observation.subject
        if (
            subject is not None
            and (sent := subject.reference) != me
            and sent not in ours
            and not is_ours(reference, subject)
        ):
            continue
        if (status := observation.status) != "final" and status in NO_RESULT:
            continue
        code = observation.code
        bucket = None
        for coding in (code.coding or ()) if code is not None else ():
            sent = coding.code
            if sent is None:
                continue
            if coding.system == LOINC and sent in by_loinc:
                bucket = by_loinc[sent]
            else:
                bucket = other(coding.system, sent)
            if bucket is not None:
                break
        if bucket is None:
            if code is not None:
                _read_symptom(build, reference, observation, code)
            else:
                build.issues.append(ReadIssue("missing-code", reference, "code"))
            if observation.component:
                # A panel under a local code: its parts have codes of their own.
                _take_components(build, buckets, reference, observation, None)
            continue
        known += 1
        if observation.component:
            _take_components(build, buckets, reference, observation, bucket.analyte)
        quantity = observation.valueQuantity
        if quantity is not None and bucket.quantity and quantity.value is not None:
            when = observation.effectiveDateTime
            if when is None or when != last_sent:
                last_time = _time(build, reference, observation)
                last_sent = when
            bucket.take(reference, observation, quantity, last_time)
        else:
            _take_other(build, bucket, reference, observation, observation)
    build.coded_total += known
    for loinc, bucket in buckets.canonical.items():
        if bucket.rows:
            series = bucket.series(build.at + _AHEAD)
            if series:
                build.measurements[loinc] = series
        if bucket.coded:
            _fill_coded(build, bucket.analyte, bucket.coded)


def _take_components(
    build: Build, buckets: _Buckets, reference: str, observation: r.Observation, panel: Analyte | None
) -> None:
    for component in observation.component or ():
        code = component.code
        bucket = None
        for coding in (code.coding or ()) if code is not None else ():
            if coding.code is not None:
                bucket = buckets.of(coding.system, coding.code)
                if bucket is not None:
                    break
        if bucket is None:
            # The items of a questionnaire that is known to carry nothing for us are not news.
            if (panel is None or panel.kind != "note") and code is not None:
                build.resolve(code, reference)
        elif bucket.quantity and component.valueQuantity is not None:
            bucket.take(reference, component, component.valueQuantity, _time(build, reference, observation))
        else:
            _take_other(build, bucket, reference, observation, component)


def _take_other(
    build: Build, bucket: Bucket, reference: str, observation: r.Observation, carrier: Carrier
) -> None:
    """A value that is not a quantity: a coded answer, an integer, or nothing at all."""
    if bucket.coded is not None:
        bucket.coded.append((reference, observation, carrier))
    elif bucket.quantity:
        if carrier.valueInteger is not None:
            quantity = r.Quantity(value=float(carrier.valueInteger))
            bucket.take(reference, carrier, quantity, _time(build, reference, observation))
        elif carrier.valueString and (written := _written_quantity(carrier.valueString)) is not None:
            # The carrier keeps it: a comparator is looked up there.
            carrier.valueQuantity = written
            bucket.take(reference, carrier, written, _time(build, reference, observation))
        elif carrier is not observation or not observation.component:
            _no_value(build, bucket.analyte, reference, carrier)
    elif bucket.analyte.kind == "complaint":
        said = carrier.valueCodeableConcept
        if said is None and carrier.valueString:
            said = r.CodeableConcept(text=carrier.valueString)
        if said is not None:
            time = _time(build, reference, observation)
            read_concept(build, reference, said, "present", None, "complaint", time)


def _written_quantity(text: str) -> r.Quantity | None:
    """``"<0.01 ng/mL"`` as laboratories send it in valueString; `None` when it is not one number and a
    unit, or when a comma might part thousands ("1,234")."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        return None
    comparator, number, unit = found.groups()
    return r.Quantity(float(number.replace(",", ".")), comparator, unit or None)


def _time(build: Build, reference: str, observation: r.Observation) -> datetime | None:
    sent = observation.effectiveDateTime
    if sent is None:
        period = observation.effectivePeriod
        sent = observation.effectiveInstant or (
            (period.end or period.start) if period is not None else observation.issued
        )
        if sent is None:
            return None
    try:
        return build.times[sent]
    except KeyError:
        return build.time(sent, reference, "effective")


def _no_value(build: Build, analyte: Analyte, reference: str, carrier: Carrier) -> None:
    if carrier.dataAbsentReason is None:
        build.issues.append(ReadIssue("missing-value", reference, f"LOINC {analyte.loinc}"))


def _fill_coded(build: Build, analyte: Analyte, rows: list[tuple[str, r.Observation, Carrier]]) -> None:
    values: list[CodedValue] = []
    for reference, observation, carrier in rows:
        key = _answer(build, analyte, carrier)
        if key is not None:
            values.append(CodedValue(analyte.loinc, key, _time(build, reference, observation), reference))
            continue
        answer = carrier.valueCodeableConcept
        coding = next((c for c in answer.coding or () if c.code), None) if answer is not None else None
        if coding is not None:
            build.unmapped.append(Unmapped(reference, coding.system or "", coding.code or ""))
        elif answer is not None or carrier.valueString is not None:
            build.unmapped.append(Unmapped(reference, "text", ""))
        elif not observation.component or carrier is not observation:
            _no_value(build, analyte, reference, carrier)
    if values:
        values.sort(key=lambda v: v.time or LONG_AGO, reverse=True)
        build.coded[analyte.loinc] = tuple(values)


def _answer(build: Build, analyte: Analyte, carrier: Carrier) -> str | None:
    table, answer = build.tables.analytes, carrier.valueCodeableConcept
    if answer is not None:
        for coding in answer.coding or ():
            if coding.code and coding.system:
                key = table.answer(analyte.loinc, coding.system, coding.code)
                if key is not None:
                    return key
        displays = [c.display for c in answer.coding or () if c.display]
        for text in (answer.text, *displays):
            if text:
                key = table.answer_text(analyte.loinc, text)
                if key is not None:
                    return key
        return None
    if carrier.valueBoolean is not None:
        return table.answer_text(analyte.loinc, "yes" if carrier.valueBoolean else "no")
    return table.answer_text(analyte.loinc, carrier.valueString) if carrier.valueString else None


def _read_symptom(build: Build, reference: str, observation: r.Observation, code: r.ObservationCode) -> None:
    """An Observation that is not of a known analyte: a sign or symptom stated as present or absent."""
    state = _stated(build, observation)
    answer = observation.valueCodeableConcept
    if code.coding:
        found = build.resolve(code, reference)
        if found is None or found.ignored:
            return
        if state is None:
            if answer is not None:
                coding = next((c for c in answer.coding or () if c.code), None)
                system, sent = (coding.system, coding.code) if coding is not None else ("text", "")
                build.unmapped.append(Unmapped(reference, system or "", sent or ""))
            elif observation.dataAbsentReason is None:
                build.issues.append(ReadIssue("missing-value", reference, "value[x]"))
            return
        if found.absent and state == "present":
            state = "absent"
        time = _time(build, reference, observation)
        if found.hpo is not None:
            build.add_finding(found.hpo, state, "encounter", reference, time)
        if found.icd10cm is not None:
            build.add_problem(found.icd10cm, found.label, STATUS_OF[state], "encounter", reference, time)
        return
    matches = build.match(code.text) if state is not None else ()
    used = False
    for match in matches:
        if match.hpo is None or match.experiencer != "patient" or match.historical:
            continue
        used = True
        flipped: State = (
            match.state if state == "present" else "absent" if match.state == "present" else "uncertain"
        )
        build.add_finding(
            match.hpo, flipped, "encounter", reference, _time(build, reference, observation), from_text=True
        )
    if not used:
        build.unmapped.append(Unmapped(reference, "text", ""))


def _stated(build: Build, observation: r.Observation) -> State | None:
    """Whether the Observation says its code is present; `None` when its value does not say."""
    if observation.valueBoolean is not None:
        return "present" if observation.valueBoolean else "absent"
    answer = observation.valueCodeableConcept
    if answer is not None:
        table = build.tables.analytes
        keys = {table.answer("*", c.system or "", c.code) for c in answer.coding or () if c.code}
        if answer.text:
            keys.add(table.answer_text("*", answer.text))
        if keys & _YES:
            return "present"
        return "absent" if keys & _NO else None
    if observation.valueString:
        said = build.tables.analytes.answer_text("*", observation.valueString)
        return "present" if said in _YES else "absent" if said in _NO else None
    if observation.valueQuantity is not None or observation.valueInteger is not None:
        return None
    return None if observation.dataAbsentReason is not None else "present"
