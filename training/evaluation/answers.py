"""What the product answers for a FHIR Bundle, as a caller of ``/fhir/$assess`` would read it.

Responsible for running an engine over Bundles exactly as the server does (same reader, same moment, six
decimals on the wire, ICD-10 codes of the predictions) without a socket in between.  A Bundle on which
the engine fails counts as answered wrongly; only the kind of error is kept, never a value.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder, moment_of
from fhir_adapters.decode import read_bundle
from models.assessment import Assessment, Prediction, Severity

Assess = Callable[[PatientChart], Assessment]
Ranking = tuple[tuple[str, float], ...]
EARLIEST_YEAR = 1900
"""A record's moment before this is an error of writing, as in the server."""
AHEAD = timedelta(days=366)
"""Planned encounters lie ahead; a date further on is an error of writing, as in the server."""
_DECIMALS = 6
_ICD10 = re.compile(r"[A-Z][0-9][0-9A-Z]")


@dataclass(frozen=True)
class Answer:
    """One answer: `differential` is ``(ICD-10 code, probability)``, best first.

    `conformal` holds the three-character groups of the conformal set (`None` without a learned engine),
    `atypical` whether the chart was called one that resembles nothing known.
    """

    severity: Severity | None
    immediate: bool
    probability: float
    differential: Ranking
    conformal: frozenset[str] | None = None
    set_size: int | None = None
    atypical: bool = False
    failed: bool = False


FAILED = Answer(severity=None, immediate=False, probability=0.0, differential=(), failed=True)


def answer_of(assessment: Assessment) -> Answer:
    """An assessment as it is sent."""
    coded = [
        (code, round(prediction.probability, _DECIMALS))
        for prediction in assessment.common
        for code in _codes(prediction)
    ]
    held = None
    if assessment.coverage is not None:
        members = [prediction for prediction in assessment.common if prediction.in_set]
        held = frozenset(group_of(code) for prediction in members for code in _codes(prediction))
    return Answer(
        severity=assessment.severity,
        immediate=assessment.immediate,
        probability=round(assessment.immediate_probability, _DECIMALS),
        differential=ranked(coded),
        conformal=held,
        set_size=assessment.set_size,
        atypical=assessment.escalation.code == "atypical-case",
    )


def _codes(prediction: Prediction) -> list[str]:
    return [
        code for system, code, _ in prediction.codings if "icd-10" in system.lower() and _ICD10.match(code)
    ]


def group_of(code: str) -> str:
    """The three-character group of an ICD-10 code."""
    return code.replace(".", "")[:3].upper()


def ranked(coded: Iterable[tuple[str, float]]) -> Ranking:
    """Best first, every code once with its highest probability; ties stay in the order given."""
    best: dict[str, float] = {}
    for code, probability in coded:
        best[code] = max(best.get(code, 0.0), probability)
    return tuple(sorted(best.items(), key=lambda row: -row[1]))


def groups_of(differential: Ranking) -> Ranking:
    """A differential by three-character groups."""
    return ranked((group_of(code), probability) for code, probability in differential)


def moment(stated: datetime | None, now: datetime) -> datetime:
    """The moment a record speaks of, or `now` when it names none that can be true (as the server does)."""
    if stated is None or stated.year < EARLIEST_YEAR or stated > now + AHEAD:
        return now
    return stated


class Runner:
    """Answers Bundles with one engine; counts what failed by the name of the error."""

    def __init__(self, builder: ChartBuilder, assess: Assess, now: datetime) -> None:
        self._builder = builder
        self._assess = assess
        self._now = now

    def answers(self, bundles: Iterable[bytes]) -> tuple[list[Answer], dict[str, int]]:
        """The answers in order, and how often which kind of error stood in the way of one."""
        reasons: Counter[str] = Counter()
        found = [self._answer(body, reasons) for body in bundles]
        return found, dict(sorted(reasons.items()))

    def _answer(self, body: bytes, reasons: Counter[str]) -> Answer:
        try:
            read = read_bundle(body)
            at = moment(moment_of(read), self._now)
            chart = self._builder.build(read, at=at, patient_id=None, retrospective=True)
            return answer_of(self._assess(chart))
        except Exception as fault:  # noqa: BLE001 whatever it is, the server would answer with an error
            reasons[type(fault).__name__] += 1
            return FAILED
