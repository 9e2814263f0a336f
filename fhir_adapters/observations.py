"""Observations and DiagnosticReports into measurements, coded values and findings.

This is the widest part of a chart (most of ten thousand resources are Observations), so it works in
two passes: sort every value into its analyte's bucket, then convert, check and order one bucket
after the other with the analyte's numbers in hand.  It never guesses: a unit that nobody knows and a
value that no living patient has are set aside as read issues.
"""

from datetime import UTC, datetime
from itertools import pairwise

from fhir_adapters import resources as r
from fhir_adapters.building import STATUS_OF, Build
from fhir_adapters.chart import CodedValue, Measurement, ProblemStatus, ReadIssue, State, Unmapped
from fhir_adapters.terminology.analytes import Analyte
from fhir_adapters.units import Conversion

LOINC = "http://loinc.org"
# https://hl7.org/fhir/R4/valueset-observation-status.html: these carry no result to act on.
_NO_RESULT = frozenset({"entered-in-error", "cancelled", "registered", "unknown"})
_READ_KINDS = frozenset({"quantity", "coded"})
_COMPARATORS = frozenset({"<", "<=", ">=", ">"})
_SAME = Conversion(1.0, 0.0)
_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)

# One value on its way into a bucket: reference, the Observation (for its time), what carries the value.
_Row = tuple[str, r.Observation, r.Observation | r.ObservationComponent]


def read_observations(build: Build, pairs: list[tuple[str, r.Observation]]) -> None:  # noqa: PLR0912 hot loop
    """Read all Observations of the patient into `build`."""
    by_loinc, by_code = build.tables.analytes.by_loinc, build.tables.analytes.by_code
    ours, is_ours = build.ours, build.is_ours
    buckets: dict[str, tuple[Analyte, list[_Row]]] = {}
    for reference, observation in pairs:
        subject = observation.subject
        if subject is not None and subject.reference not in ours and not is_ours(reference, subject):
            continue
        if observation.status in _NO_RESULT:
            continue
        code = observation.code
        codings = code.coding if code is not None else None
        analyte = None
        for coding in codings or ():
            sent = coding.code
            if sent is None:
                continue
            if coding.system == LOINC:
                analyte = by_loinc.get(sent)
            elif coding.system is not None:
                analyte = by_code.get((coding.system, sent))
            if analyte is not None:
                break
        if analyte is None:
            if code is not None:
                _read_symptom(build, reference, observation, code)
            else:
                build.issues.append(ReadIssue("missing-code", reference, "code"))
        else:
            build.coded_total += 1
            if observation.component:
                _sort_components(build, buckets, reference, observation, analyte)
            if analyte.kind in _READ_KINDS:
                bucket = buckets.get(analyte.loinc)
                if bucket is None:
                    buckets[analyte.loinc] = bucket = (analyte, [])
                bucket[1].append((reference, observation, observation))
    for analyte, rows in buckets.values():
        if analyte.kind == "coded":
            _fill_coded(build, analyte, rows)
        else:
            _fill_measurements(build, analyte, rows)


def _sort_components(
    build: Build,
    buckets: dict[str, tuple[Analyte, list[_Row]]],
    reference: str,
    observation: r.Observation,
    panel: Analyte,
) -> None:
    by_loinc, by_code = build.tables.analytes.by_loinc, build.tables.analytes.by_code
    for component in observation.component or ():
        code = component.code
        found = None
        for coding in code.coding or () if code is not None else ():
            if coding.code is not None:
                found = (
                    by_loinc.get(coding.code)
                    if coding.system == LOINC
                    else by_code.get((coding.system or "", coding.code))
                )
                if found is not None:
                    break
        if found is None:
            # The items of a questionnaire that is known to carry nothing for us are not news.
            if panel.kind != "note" and code is not None:
                build.resolve(code, reference)
        elif found.kind in _READ_KINDS:
            buckets.setdefault(found.loinc, (found, []))[1].append((reference, observation, component))


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


def _fill_measurements(build: Build, analyte: Analyte, rows: list[_Row]) -> None:
    values: list[Measurement] = []
    low, high, loinc, unit = analyte.low, analyte.high, analyte.loinc, analyte.unit
    last_unit: str | None = None
    conversion: Conversion | None = _SAME
    known_unit = False
    for reference, observation, carrier in rows:
        quantity = carrier.valueQuantity
        if quantity is None or quantity.value is None:
            quantity = _integer_quantity(carrier)
            if quantity is None:
                if not observation.component or carrier is not observation:
                    _no_value(build, analyte, reference, carrier)
                continue
        sent_unit = quantity.code or quantity.unit
        if sent_unit != last_unit or not known_unit:
            conversion = _conversion(build, analyte, quantity)
            last_unit, known_unit = sent_unit, True
        if conversion is None:
            build.issues.append(
                ReadIssue("unknown-unit", reference, f"LOINC {loinc}", (sent_unit or "no unit")[:40])
            )
            continue
        value = quantity.value
        if value is None:
            continue
        if conversion is not _SAME:
            value = float(f"{value * conversion.factor + conversion.offset:.7g}")
        if not low <= value <= high:
            build.issues.append(ReadIssue("impossible-value", reference, f"LOINC {loinc}", unit))
            continue
        interpretation, ref_low, ref_high = None, None, None
        if carrier.interpretation:
            interpretation = _interpretation(carrier.interpretation)
        if carrier.referenceRange:
            ref_low, ref_high = _range(build, analyte, carrier.referenceRange, conversion)
        comparator = quantity.comparator if quantity.comparator in _COMPARATORS else None
        values.append(
            Measurement(
                loinc,
                value,
                unit,
                _time(build, reference, observation),
                reference,
                interpretation,
                ref_low,
                ref_high,
                comparator,
            )
        )
    if values:
        build.measurements[loinc] = tuple(_newest_first(values))


def _conversion(build: Build, analyte: Analyte, quantity: r.Quantity) -> Conversion | None:
    """By the UCUM code, then by the unit as written; without either only if the analyte allows it."""
    if quantity.code is None and quantity.unit is None:
        return _SAME if analyte.unitless_ok else None
    for sent in (quantity.code, quantity.unit):
        if sent is not None:
            if sent == analyte.unit:
                return _SAME
            found = build.tables.analytes.unit_conversion(analyte, sent)
            if found is not None:
                return _SAME if found == _SAME else found
    return None


def _integer_quantity(carrier: r.Observation | r.ObservationComponent) -> r.Quantity | None:
    return None if carrier.valueInteger is None else r.Quantity(value=float(carrier.valueInteger))


def _no_value(
    build: Build, analyte: Analyte, reference: str, carrier: r.Observation | r.ObservationComponent
) -> None:
    if carrier.dataAbsentReason is None:
        build.issues.append(ReadIssue("missing-value", reference, f"LOINC {analyte.loinc}"))


def _interpretation(sent: list[r.CodeableConcept]) -> str | None:
    return next((coding.code for concept in sent for coding in concept.coding or () if coding.code), None)


def _range(
    build: Build, analyte: Analyte, sent: list[r.ReferenceRange], conversion: Conversion
) -> tuple[float | None, float | None]:
    """The normal range among those sent, in the canonical unit (`None` where a bound is not stated)."""
    for candidate in sent:
        kinds = {c.code for c in (candidate.type.coding or ())} if candidate.type is not None else set()
        if kinds and "normal" not in kinds:
            continue
        bounds: list[float | None] = []
        for quantity in (candidate.low, candidate.high):
            if quantity is None or quantity.value is None:
                bounds.append(None)
                continue
            stated = quantity.code is not None or quantity.unit is not None
            used = _conversion(build, analyte, quantity) if stated else conversion
            bounds.append(None if used is None else quantity.value * used.factor + used.offset)
        return bounds[0], bounds[1]
    return None, None


def _newest_first(values: list[Measurement]) -> list[Measurement]:
    """Newest first, undated last; the same value at the same time is one, with all its sources."""
    if len(values) == 1:
        return values
    values.sort(key=lambda m: m.time or _LONG_AGO, reverse=True)
    if all(a.time != b.time or a.value != b.value for a, b in pairwise(values)):
        return values
    merged: dict[tuple[datetime | None, float, str | None], Measurement] = {}
    for measurement in values:
        key = (measurement.time, measurement.value, measurement.comparator)
        kept = merged.get(key)
        if kept is None:
            merged[key] = measurement
        elif measurement.source != kept.source and measurement.source not in kept.also:
            merged[key] = Measurement(
                kept.loinc,
                kept.value,
                kept.unit,
                kept.time,
                kept.source,
                kept.interpretation or measurement.interpretation,
                kept.low if kept.low is not None else measurement.low,
                kept.high if kept.high is not None else measurement.high,
                kept.comparator,
                (*kept.also, measurement.source),
            )
    return list(merged.values())


def _fill_coded(build: Build, analyte: Analyte, rows: list[_Row]) -> None:
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
        values.sort(key=lambda v: v.time or _LONG_AGO, reverse=True)
        build.coded[analyte.loinc] = tuple(values)


def _answer(build: Build, analyte: Analyte, carrier: r.Observation | r.ObservationComponent) -> str | None:
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


def _read_symptom(build: Build, reference: str, observation: r.Observation, code: r.CodeableConcept) -> None:
    """An Observation that is not of a known analyte: a sign or symptom stated as present or absent."""
    state = _stated(build, observation)
    if code.coding:
        found = build.resolve(code, reference)
        if found is None or found.ignored or state is None:
            return
        if found.absent and state == "present":
            state = "absent"
        time = _time(build, reference, observation)
        if found.hpo is not None:
            build.add_finding(found.hpo, state, "encounter", reference, time=time)
        if found.icd10cm is not None:
            build.add_problem(found.icd10cm, found.label, STATUS_OF[state], "encounter", reference, time=time)
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
            match.hpo,
            flipped,
            "encounter",
            reference,
            from_text=True,
            time=_time(build, reference, observation),
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
        if keys & {"positive", "yes"}:
            return "present"
        return "absent" if keys & {"negative", "no"} else None
    if (
        observation.valueQuantity is not None
        or observation.valueInteger is not None
        or observation.valueString
    ):
        return None
    return None if observation.dataAbsentReason is not None else "present"


def read_reports(build: Build, pairs: list[tuple[str, r.DiagnosticReport]]) -> None:
    """The coded conclusions of DiagnosticReports, as findings and problems of the encounter."""
    for reference, report in pairs:
        if (
            report.status in _NO_RESULT
            or not report.conclusionCode
            or not build.is_ours(reference, report.subject)
        ):
            continue
        period = report.effectivePeriod
        sent = report.effectiveDateTime or (period.end if period is not None else None) or report.issued
        time = build.time(sent, reference, "effective")
        for conclusion in report.conclusionCode:
            found = build.resolve(conclusion, reference)
            if found is None or found.ignored:
                continue
            if found.hpo is not None:
                build.add_finding(
                    found.hpo, "absent" if found.absent else "present", "encounter", reference, time=time
                )
            if found.icd10cm is not None:
                status: ProblemStatus = "absent" if found.absent else "active"
                build.add_problem(found.icd10cm, found.label, status, "encounter", reference, time=time)
