"""Whether a patient needed attention within minutes, as the record tells it afterwards.

Intensive care or death within a day of the start says yes; else the first triage level of the visit
(levels 1 and 2 of a five-level scale are yes); else it is not known.  Codes are data
(``data/attention_codes.csv``, ``data/triage_levels.csv``).
"""

import csv
import re
from collections.abc import Iterable
from datetime import timedelta
from importlib.resources import files

from training.datasets.moments import (
    Resource,
    at,
    codings_of,
    earliest,
    last_part,
    rows_at,
    text_at,
    words_of,
)
from training.datasets.visits import Record, Visit

WITHIN = timedelta(hours=24)
BEFORE = timedelta(hours=2)
"""Triage may be written before the visit is opened."""
URGENT = 2
_LEVEL = re.compile(r"(?<![\d.])([1-5])(?![\d.])")
_NO_RESULT = frozenset({"entered-in-error", "cancelled", "registered", "unknown"})


class AttentionCodes:
    """The codes by which a record tells triage levels and intensive care."""

    def __init__(
        self,
        triage: frozenset[tuple[str, str]],
        intensive: frozenset[tuple[str, str]],
        levels: dict[tuple[str, str], int],
    ) -> None:
        self._triage = triage
        self._names = tuple(re.compile(rf"\b{re.escape(code)}\b") for kind, code in triage if kind == "text")
        self._intensive = intensive
        self._levels = levels

    @classmethod
    def load(cls) -> "AttentionCodes":
        """Read the packaged tables; raises `ValueError` naming file and row of what is wrong."""
        codes: dict[str, set[tuple[str, str]]] = {"triage": set(), "intensive-care": set()}
        for number, row in _rows("attention_codes.csv"):
            if row["kind"] not in codes or not row["source"]:
                raise ValueError(f"attention_codes.csv row {number}: unknown kind, or no source")
            codes[row["kind"]].add((row["system"], row["code"]))
        levels: dict[tuple[str, str], int] = {}
        for number, row in _rows("triage_levels.csv"):
            if row["level"] not in "12345" or not row["source"]:
                raise ValueError(f"triage_levels.csv row {number}: level is not 1 to 5, or no source")
            levels[row["system"], row["answer"]] = int(row["level"])
        return cls(frozenset(codes["triage"]), frozenset(codes["intensive-care"]), levels)

    def is_triage(self, observation: Resource) -> bool:
        """Whether an Observation is a triage level."""
        code = observation.get("code")
        if any(pair in self._triage for pair in codings_of(code)):
            return True
        texts = [text_at(code, "text"), *(text_at(row, "display") for row in rows_at(code, "coding"))]
        return any(name.search(text.lower()) for text in texts if text for name in self._names)

    def is_intensive(self, pairs: Iterable[tuple[str, str]]) -> bool:
        """Whether a code of a place, a visit or a procedure means intensive care."""
        return any(pair in self._intensive for pair in pairs)

    def level(self, observation: Resource) -> int | None:
        """The level that a triage Observation states, `None` when it states none that is understood."""
        for path in ("valueInteger", "valueQuantity.value"):
            value = at(observation, path)
            if isinstance(value, int | float):
                return int(value) if value in (1, 2, 3, 4, 5) else None
        answer = observation.get("valueCodeableConcept")
        for pair in codings_of(answer):
            if pair in self._levels:
                return self._levels[pair]
        codes = [code for _, code in codings_of(answer) if len(code) <= 2]
        for text in (text_at(observation, "valueString"), words_of(answer), *codes):
            if text:
                level = self._written(text)
                if level is not None:
                    return level
        return None

    def _written(self, text: str) -> int | None:
        numbers = set(_LEVEL.findall(text))
        if len(numbers) == 1:
            return int(numbers.pop())
        return self._levels.get(("text", text.strip().lower()))

    def immediate(self, record: Record, visit: Visit, intensive_places: frozenset[str]) -> bool | None:
        """Whether the visit's patient needed attention within minutes; `None` when nothing tells.

        `intensive_places` are ids of Locations that are intensive care units.
        """
        if _died(record, visit) or self._intensive_care(record, visit, intensive_places):
            return True
        first = None
        for item in record.items:
            if item.kind != "Observation" or item.known is None or item.resource.get("status") in _NO_RESULT:
                continue
            if not visit.start - BEFORE <= item.known <= visit.start + WITHIN:
                continue
            if item.visit in (None, visit.id) and self.is_triage(item.resource):
                level = self.level(item.resource)
                if level is not None and (first is None or (item.known, level) < first):
                    first = item.known, level
        return None if first is None else first[1] <= URGENT

    def _intensive_care(self, record: Record, visit: Visit, places: frozenset[str]) -> bool:
        end = visit.start + WITHIN
        for other in record.visits:
            if not visit.start <= other.start <= end:
                continue
            kinds = [pair for row in rows_at(other.encounter, "type") for pair in codings_of(row)]
            if self.is_intensive(kinds):
                return True
            for row in rows_at(other.encounter, "location"):
                since = earliest(text_at(row, "period.start")) or other.start
                reference = text_at(row, "location.reference")
                if reference is not None and last_part(reference) in places and since <= end:
                    return True
        return any(
            item.kind == "Procedure"
            and item.known is not None
            and visit.start <= item.known <= end
            and item.resource.get("status") != "not-done"
            and self.is_intensive(codings_of(item.resource.get("code")))
            for item in record.items
        )


def _died(record: Record, visit: Visit) -> bool:
    """Dead within a day: by the Patient's date, or because the visit ended so."""
    died = earliest(text_at(record.patient, "deceasedDateTime"))
    if died is not None and visit.start.date() <= died.date() and died <= visit.start + WITHIN:
        return True
    disposition = codings_of(at(visit.encounter, "hospitalization.dischargeDisposition"))
    # https://terminology.hl7.org/CodeSystem-discharge-disposition.html: exp, expired.
    return any(code == "exp" for _, code in disposition) and visit.last <= visit.start + WITHIN


def _rows(name: str) -> Iterable[tuple[int, dict[str, str]]]:
    text = files("training.datasets").joinpath("data", name).read_text(encoding="utf-8")
    return enumerate(csv.DictReader(text.splitlines()), start=2)
