"""The actions the rules may ask for (``data/actions.toml``) and whether the chart already answers one.

Responsible for loading and checking the actions, and for finding the recent result, order or procedure
that makes one needless.  Why an action is asked for, and how it reads to people, is decided elsewhere.
"""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from fhir_adapters.chart import Order, PatientChart
from models.rules import tables
from models.rules.errors import RulesInvalid

FILE = "actions.toml"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
ActionKind = Literal["order-lab", "order-imaging", "order-procedure", "referral", "measure", "advice"]
Priority = Literal["routine", "urgent", "asap", "stat"]
PRIORITY_RANK: dict[str, int] = {"stat": 0, "asap": 1, "urgent": 2, "routine": 3}

# An order whose age is unknown, or of an action that no result answers, is held open this long.
# grade C: estimate of this project.
OPEN_ORDER = timedelta(hours=24)


class Action(msgspec.Struct, frozen=True, gc=False):
    """One action: its draft ServiceRequest codings and what already answers it.

    `codings` are ``(system, code, display)``; `answered_by` canonical LOINC codes of which one result,
    at most `within_hours` old, answers it.
    """

    id: str
    kind: ActionKind
    priority: Priority
    codings: tuple[tuple[str, str, str], ...]
    source: str
    answered_by: tuple[str, ...] = ()
    within_hours: float = 0.0
    also_ordered_as: tuple[str, ...] = ()

    @property
    def order_keys(self) -> frozenset[str]:
        """The ``"system|code"`` pairs of an order for this action."""
        own = [f"{system}|{code}" for system, code, _ in self.codings]
        return frozenset([*own, *self.also_ordered_as])


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    kind: ActionKind
    priority: Priority
    codings: tuple[tuple[str, str, str], ...]
    source: str
    answered_by: tuple[str, ...] = ()
    within_hours: float = 0.0
    also_ordered_as: tuple[str, ...] = ()


class Actions:
    """All actions by id, in the order of the file; immutable."""

    def __init__(self, actions: dict[str, Action]) -> None:
        self.by_id = actions
        self._keys = {action.id: action.order_keys for action in actions.values()}
        self._spans = {action.id: timedelta(hours=action.within_hours) for action in actions.values()}
        by_key: dict[str, dict[int, Action]] = {}
        by_result: dict[str, dict[int, Action]] = {}
        for place, action in enumerate(actions.values()):
            for key in action.order_keys:
                by_key.setdefault(key, {})[place] = action
            for loinc in action.answered_by:
                by_result.setdefault(loinc, {})[place] = action
        self._by_key = by_key
        self._by_result = by_result

    @classmethod
    def load(cls) -> "Actions":
        """Read and check the packaged actions; raises `RulesInvalid` naming the entry."""
        actions: dict[str, Action] = {}
        for position, raw in enumerate(tables.read_toml(FILE).get("action", ()), start=1):
            name = str(raw.get("id", f"entry {position}"))
            try:
                entry = msgspec.convert(raw, _Entry)
            except msgspec.ValidationError as problem:
                raise RulesInvalid(FILE, name, str(problem)) from problem
            _check(entry, name in actions)
            actions[name] = Action(
                entry.id,
                entry.kind,
                entry.priority,
                entry.codings,
                entry.source,
                entry.answered_by,
                entry.within_hours,
                entry.also_ordered_as,
            )
        return cls(actions)

    def require(self, ids: tuple[str, ...], file: str, entry: str) -> None:
        """Raise `RulesInvalid` when one of `ids` is not an action."""
        for name in ids:
            if name not in self.by_id:
                raise RulesInvalid(file, entry, f"there is no action {name!r} in {FILE}")

    def already(self, name: str, chart: PatientChart, at: datetime) -> str | None:
        """The reference of the recent result, procedure or open order that answers an action, or `None`."""
        action = self.by_id[name]
        if action.within_hours > 0:
            since = at - self._spans[name]
            measurements, coded = chart.measurements, chart.coded
            for loinc in action.answered_by:
                for series in (measurements.get(loinc), coded.get(loinc)):
                    if series and series[0].time is not None and since <= series[0].time <= at:
                        return series[0].source
        if not chart.orders and not chart.procedures:
            return None
        keys = self._keys[name]
        if not keys:
            return None
        window = max(self._spans[name], OPEN_ORDER)
        for order in chart.orders:
            if not order.draft and self._asks_for(order, action) and _within(order.time, at, window):
                return order.reference
        if action.within_hours > 0:
            window = self._spans[name]
            for procedure in chart.procedures:
                if (
                    procedure.time is not None
                    and _within(procedure.time, at, window)
                    and not keys.isdisjoint(procedure.codes)
                ):
                    return procedure.sources[0] if procedure.sources else None
        return None

    def matching(self, order: Order) -> tuple[Action, ...]:
        """The actions an order stands for (by its codes or its canonical LOINC), in the order of the file."""
        found = self._ordered(order)
        if order.loinc is not None:
            found.update(self._by_result.get(order.loinc, ()))
        return tuple([found[place] for place in sorted(found)])

    def ordered_by(self, order: Order) -> tuple[Action, ...]:
        """The actions an order asks for as a whole: the test itself, and the panels sent under its code."""
        found = self._ordered(order)
        return tuple([found[place] for place in sorted(found)])

    def holding(self, loinc: str) -> tuple[Action, ...]:
        """The actions of which a result (canonical LOINC) is a part, in the order of the file."""
        return tuple(self._by_result.get(loinc, {}).values())

    def _ordered(self, order: Order) -> dict[int, Action]:
        found: dict[int, Action] = {}
        for key in order.codes:
            found.update(self._by_key.get(key, ()))
        if order.loinc is not None:
            found.update(self._by_key.get(f"{LOINC}|{order.loinc}", ()))
        return found

    def _asks_for(self, order: Order, action: Action) -> bool:
        keys = self._keys[action.id]
        if not keys.isdisjoint(order.codes):
            return True
        return order.loinc is not None and (
            order.loinc in action.answered_by or f"{LOINC}|{order.loinc}" in keys
        )


def _within(time: datetime | None, at: datetime, window: timedelta) -> bool:
    return time is None or at - window <= time <= at + timedelta(minutes=5)


def _check(entry: _Entry, twice: bool) -> None:
    if twice:
        raise RulesInvalid(FILE, entry.id, "the id stands twice")
    if not tables.KEBAB.match(entry.id):
        raise RulesInvalid(FILE, entry.id, "the id is not kebab-case")
    if not entry.source:
        raise RulesInvalid(FILE, entry.id, "source is empty")
    if not entry.codings and entry.kind not in ("advice", "measure"):
        raise RulesInvalid(FILE, entry.id, f"an {entry.kind} needs a coding")
    for system, code, display in entry.codings:
        valid = {LOINC: tables.loinc_valid, SNOMED: tables.sctid_valid}.get(system)
        if valid is None or not valid(code):
            raise RulesInvalid(FILE, entry.id, f"{code!r} is not a code of {system}")
        if not display:
            raise RulesInvalid(FILE, entry.id, f"{code} has no display")
    for pair in entry.also_ordered_as:
        system, _, code = pair.partition("|")
        valid = {LOINC: tables.loinc_valid, SNOMED: tables.sctid_valid}.get(system)
        if valid is None or not valid(code):
            raise RulesInvalid(FILE, entry.id, f"also_ordered_as: {pair!r} is not a valid code")
    for code in entry.answered_by:
        if not tables.loinc_valid(code):
            raise RulesInvalid(FILE, entry.id, f"{code!r} is not a LOINC code")
    if bool(entry.answered_by) and entry.within_hours <= 0:
        raise RulesInvalid(FILE, entry.id, "answered_by needs within_hours")
