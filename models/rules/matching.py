"""Which of the numbered terms one chart fulfils: the hot half of `models.rules.terms`.

Responsible for going once over a chart's findings, problems, drugs and values and noting the terms
they meet, now or before; the lookups are prepared by `TermTable`.  It knows no rule and spells no term.
"""

from datetime import datetime

import msgspec

from fhir_adapters.chart import Allergy, Medication, PatientChart, Problem
from models.rules.currency import STALE, Currency, acute_since
from models.rules.facts import Evidence
from models.rules.lookups import Limit, Lookups, Measured


class Hits(msgspec.Struct, gc=False):
    """Which terms one chart meets, by term number.

    `now` holds the evidence that speaks of the present, `before` what is too old to.  `strong` are the
    terms met now by at least one statement that is neither uncertain nor read from free text.
    """

    now: dict[int, list[Evidence]]
    before: dict[int, list[Evidence]]
    strong: set[int]


def match(lookups: Lookups, chart: PatientChart, currency: Currency) -> Hits:
    """Which terms the chart meets.  Cost grows with the chart, not with the number of rules."""
    hits = Hits({}, {}, set())
    since = acute_since(chart)
    _match_findings(lookups, chart, hits, since, chart.at - STALE)
    _match_problems(lookups, chart, hits, since)
    _match_drugs(lookups, chart, hits)
    _match_values(lookups, chart, currency, hits)
    _match_groups(lookups, hits)
    return hits


def _match_findings(
    lookups: Lookups, chart: PatientChart, hits: Hits, since: datetime, stale_since: datetime
) -> None:
    present, known, absent = lookups.present, lookups.known, lookups.absent
    now, before, strong = hits.now, hits.before, hits.strong
    for finding in chart.findings:
        hpo, state = finding.hpo, finding.state
        if state == "absent":
            for index in absent.get(hpo, ()):
                now.setdefault(index, []).append(finding)
                strong.add(index)
            continue
        sure = state == "present" and not finding.from_text
        for index in known.get(hpo, ()):
            now.setdefault(index, []).append(finding)
            if sure:
                strong.add(index)
        indices = present.get(hpo)
        if indices is None:
            continue
        time = finding.time
        if time is None or time >= since:
            for index in indices:
                now.setdefault(index, []).append(finding)
                if sure:
                    strong.add(index)
        elif time >= stale_since:
            for index in indices:
                before.setdefault(index, []).append(finding)


def _match_problems(lookups: Lookups, chart: PatientChart, hits: Hits, since: datetime) -> None:
    now, strong = hits.now, hits.strong
    for problem in chart.problems:
        status = problem.status
        if status == "absent":
            continue
        acute, active, history = lookups.terms_of_problem(problem.icd10cm)
        if not (acute or active or history):
            continue
        met = history
        if status in ("active", "uncertain"):
            met = history + active
            if acute and _is_acute(problem, since):
                met += acute
        sure = status != "uncertain" and not problem.from_text
        for index in met:
            now.setdefault(index, []).append(problem)
            if sure:
                strong.add(index)


def _is_acute(problem: Problem, since: datetime) -> bool:
    """Whether a problem speaks of the present illness.

    A problem list keeps "appendicitis" or "stroke" active for years: its entries count while they are
    new, and not when nobody says since when.  The reason for this contact always counts.
    """
    if problem.role == "complaint":
        return True
    time = problem.time
    if time is None:
        return problem.role != "problem-list"
    return time >= since


def _match_drugs(lookups: Lookups, chart: PatientChart, hits: Hits) -> None:
    for drug in chart.medications:
        if drug.active:
            for code in drug.atc:
                _note(lookups.terms_of_drug(code), drug, hits)
    for allergy in chart.allergies:
        if not allergy.absent:
            for code in allergy.atc:
                _note(lookups.terms_of_allergy(code), allergy, hits)


def _note(indices: tuple[int, ...], item: Medication | Allergy, hits: Hits) -> None:
    for index in indices:
        held = hits.now.setdefault(index, [])
        if item not in held:
            held.append(item)
        hits.strong.add(index)


def _match_values(lookups: Lookups, chart: PatientChart, currency: Currency, hits: Hits) -> None:
    now, strong = hits.now, hits.strong
    table = lookups.measured
    for loinc, series in chart.measurements.items():
        measured = table.get(loinc)
        if measured is None:
            continue
        newest = currency.newest_of(loinc, series, measured.window)
        if newest is None or newest[1]:
            continue
        measurement = newest[0]
        factor = measured.factors.get(measurement.unit)
        if factor is None:
            continue
        value, comparator = measurement.value * factor, measurement.comparator
        for limit in _limits_met(measured, value, comparator):
            held = now.get(limit.term)
            if held is None:
                now[limit.term] = [measurement]
            else:
                held.append(measurement)
            strong.add(limit.term)
    answers = lookups.coded
    for loinc, coded in chart.coded.items():
        keys = answers.get(loinc)
        if keys is None:
            continue
        current = currency.newest_of(loinc, coded, "vital")
        if current is None or current[1]:
            continue
        for index in keys.get(current[0].value, ()):
            now.setdefault(index, []).append(current[0])
            strong.add(index)


def _limits_met(measured: Measured, value: float, comparator: str | None) -> list[Limit]:
    """The limits that a value lies beyond; the first one not reached ends a side."""
    if comparator is not None:
        return [limit for limit in measured.limits if proves(value, comparator, limit)]
    met: list[Limit] = []
    for limit in measured.below:
        if value > limit.limit or (value == limit.limit and not limit.inclusive):
            break
        met.append(limit)
    for limit in measured.above:
        if value < limit.limit or (value == limit.limit and not limit.inclusive):
            break
        met.append(limit)
    return met


def proves(value: float, comparator: str, limit: Limit) -> bool:
    """Whether a value with a comparator surely lies on the asked side of a limit.

    A value reported as "less than 5" meets "< 10" but never "> 3": what is not known is not met.
    """
    if comparator.startswith("<") != limit.below:
        return False
    past = value < limit.limit if limit.below else value > limit.limit
    return past or (value == limit.limit and (limit.inclusive or comparator in ("<", ">")))


def _match_groups(lookups: Lookups, hits: Hits) -> None:
    now, before, strong = hits.now, hits.before, hits.strong
    parents, groups = lookups.parents, lookups.groups
    touched: set[int] = set()
    for index in (*now, *before) if before else now:
        above = parents.get(index)
        if above is not None:
            touched.update(above)
    # A group stands after the groups it is made of.
    for place in sorted(touched):
        group = groups[place]
        met = [index for index in group.members if index in now]
        if len(met) >= group.least:
            now[place] = now[met[0]] if len(met) == 1 else [item for index in met for item in now[index]]
            # As many sure members as the group asks for make the group sure.
            if len([index for index in met if index in strong]) >= group.least:
                strong.add(place)
        elif before:
            older = [index for index in group.members if index in before]
            if older and len({*met, *older}) >= group.least:
                before[place] = [item for index in met for item in now[index]] + [
                    item for index in older for item in before[index]
                ]
