"""The parameters of a search for `AuditEvent` (FHIR R4, 3.1.1 and the resource's own), as a `Question`.

A real patient or user id becomes its pseudonyms, under every key number there is, before anything else
sees it; what is repeated in links and in the trail is the canonical form, which holds pseudonyms only.
Faults name the parameter and never quote its value.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import urlencode

import msgspec

from cds_server.audit.activities import ACTIVITIES, Activity, Code
from cds_server.audit.fhir import CLIENT
from cds_server.audit.question import EVENT_ID, OUTCOMES, Cursor, CursorInvalid, Question, is_pseudonym
from cds_server.authorities import base_of
from cds_server.errors import RequestMalformed
from cds_server.people import People

DEFAULT_COUNT = 50
LARGEST_COUNT = 1_000
_MOST_VALUES = 50
_MOST_PSEUDONYMS = 1_000
_LONGEST = 512
_ACTION = "http://hl7.org/fhir/audit-event-action"
_OUTCOME = "http://terminology.hl7.org/CodeSystem/audit-event-outcome"
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})\d*)?)?(Z|[+ -]\d\d:\d\d)?)?)?)?\Z"
)
_PERSON = re.compile(r"/(Practitioner|PractitionerRole|Patient|RelatedPerson|Person)/")

SEARCHED = {
    "date": ("date", "When it was recorded; eq, ge, gt, le, lt; two make a range."),
    "patient": (
        "reference",
        "The patient: a pseudonym, or an id, which is turned into one first; a bare id means every FHIR "
        "server's patient of that id, an absolute reference that server's.",
    ),
    "agent": ("reference", "Client, or user (pseudonym or id), that took part."),
    "action": ("token", "C, R, U, D or E."),
    "outcome": ("token", "0 success, 4 minor, 8 serious failure, 12 major failure."),
    "type": ("token", "Type of event."),
    "subtype": ("token", "More specific type; urn:cds-server:activity names ours."),
    "entity": ("reference", "What it was about: a reference, a URI, a hook instance or a request id."),
    "_id": ("token", "The event's own id."),
}
"""The search parameters with their FHIR types, for the CapabilityStatement."""


class Search(msgspec.Struct, frozen=True):
    """A search as it was understood.  `canonical` are its parameters without the cursor."""

    question: Question
    count: int
    after: Cursor | None
    summary: Literal["count", "false"]
    total: bool
    canonical: tuple[tuple[str, str], ...]

    def query(self, after: Cursor | None = None) -> str:
        """The query string of a link to this search, from a cursor on."""
        more = (("_after", after.encoded()),) if after is not None else ()
        return urlencode((*self.canonical, *more))


class _Reader:
    """Collects what the parameters say."""

    def __init__(self, people: People) -> None:
        self._people = people
        self.values: dict[str, tuple[str, ...]] = {}
        self.activities: frozenset[str] | None = None
        self.outcomes: frozenset[str] | None = None
        self.since: datetime | None = None
        self.until: datetime | None = None
        self.newest_first = True
        self.count = DEFAULT_COUNT
        self.after: Cursor | None = None
        self.summary: Literal["count", "false"] = "false"
        self.total = False
        self.canonical: list[tuple[str, str]] = []
        self.about: dict[str, None] = {}

    def read(self, name: str, value: str) -> None:
        """Takes one parameter."""
        handler = _HANDLERS.get(name)
        if handler is None:
            base, _, modifier = name.partition(":")
            known = base in _HANDLERS and modifier
            raise _wrong(
                name, "this modifier is not supported" if known else "not a parameter of this search"
            )
        handler(self, name, value)

    # -- conditions

    def _dates(self, name: str, value: str) -> None:
        prefix = value[:2] if value[:2].isalpha() else "eq"
        text = value[2:] if value[:2].isalpha() else value
        if prefix not in ("eq", "ge", "gt", "le", "lt", "sa", "eb"):
            raise _wrong(name, "prefixes are eq, ge, gt, le, lt, sa and eb")
        low, high = _period(name, text)
        if prefix in ("eq", "ge"):
            self._at_least(low)
        elif prefix in ("gt", "sa"):
            self._at_least(high)
        if prefix in ("eq", "le"):
            self._before(high)
        elif prefix in ("lt", "eb"):
            self._before(low)
        self.canonical.append((name, f"{prefix}{text.replace(' ', '+')}"))

    def _at_least(self, moment: datetime) -> None:
        self.since = moment if self.since is None else max(self.since, moment)

    def _before(self, moment: datetime) -> None:
        self.until = moment if self.until is None else min(self.until, moment)

    def _patient(self, name: str, value: str) -> None:
        pseudonyms = [each for item in _items(name, value) for each in self._patients(item)]
        self._any_of("patients", name, pseudonyms, [f"Patient/{each}" for each in pseudonyms])

    def _agent(self, name: str, value: str) -> None:
        agents: list[str] = []
        for item in _items(name, value):
            system, _, who = item.rpartition("|")
            # A client's id is no secret and is stored in plain.  Whatever may name a person is not: it must
            # get neither into links nor into the trail.
            if _names_client(system, who) or is_pseudonym(who):
                agents.append(who)
            else:
                agents += self._people.user(who, system or None)
        self._any_of("agents", name, agents, agents)

    def _entity(self, name: str, value: str) -> None:
        items = _items(name, value)
        patients = [item for item in items if item.startswith("Patient/") or "/Patient/" in item]
        if patients and len(patients) < len(items):
            raise _wrong(name, "patients and others in one list: ask in two searches")
        if patients:
            self._patient("patient", value)
        else:
            self._any_of("entities", name, items, items)

    def _patients(self, item: str) -> tuple[str, ...]:
        """Of ``1`` and ``Patient/1`` whoever has that id; of ``https://ehr/fhir/Patient/1`` and
        ``https://ehr/fhir|1`` the patient of that server."""
        authority, _, patient = item.rpartition("|")
        if patient.startswith("Patient/") or "/Patient/" in patient:
            server, _, patient = patient.rpartition("Patient/")
            authority = server.rstrip("/") or authority
        if is_pseudonym(patient):
            self.about[patient] = None
            return (patient,)
        whose = (base_of(authority) or authority) if authority else None
        self.about.update(dict.fromkeys(self._people.current(patient, whose)))
        return self._people.patient(patient, whose)

    def _identifiers(self, name: str, value: str) -> None:
        items = _items(name, value)
        if not all(EVENT_ID.match(item) for item in items):
            raise _wrong(name, "an id has 1 to 64 letters, digits, dots and dashes")
        self._any_of("ids", name, items, items)

    def _any_of(self, field: str, name: str, values: list[str], shown: list[str]) -> None:
        before = self.values.get(field)
        # The same parameter twice means both: what fulfils one list and the other.
        self.values[field] = tuple(
            dict.fromkeys(value for value in values if before is None or value in before)
        )
        self.canonical.append((name, ",".join(shown)))

    def _coded(self, name: str, value: str) -> None:
        codes = _CODES[name]
        found: set[str] = set()
        known: list[str] = []
        for item in _items(name, value):
            matched = {
                code
                for code, activity in ACTIVITIES.items()
                if any(_matches(item, coding) for coding in codes(activity))
            }
            found |= matched
            # What no activity has may be anything: it finds nothing and is repeated nowhere.
            known.append(item if matched else "unknown")
        self.activities = frozenset(found) if self.activities is None else self.activities & found
        self.canonical.append((name, ",".join(known)))

    def _outcome(self, name: str, value: str) -> None:
        known = [Code(_OUTCOME, code, "") for code in OUTCOMES]
        found = {code.code for item in _items(name, value) for code in known if _matches(item, code)}
        self.outcomes = frozenset(found) if self.outcomes is None else self.outcomes & found
        self.canonical.append((name, ",".join(sorted(found)) or "unknown"))

    # -- how it is answered

    def _count(self, name: str, value: str) -> None:
        if not (value.isascii() and value.isdigit() and len(value) < 9):
            raise _wrong(name, f"a number from 0 to {LARGEST_COUNT}")
        self.count = min(int(value), LARGEST_COUNT)
        if self.count == 0:
            self.summary = "count"
        self.canonical.append((name, str(self.count)))

    def _sort(self, name: str, value: str) -> None:
        if value not in ("-date", "date"):
            raise _wrong(name, "sorts by date or -date")
        self.newest_first = value == "-date"
        self.canonical.append((name, value))

    def _summarised(self, name: str, value: str) -> None:
        if value not in ("count", "false"):
            raise _wrong(name, "count or false")
        self.summary = "count" if value == "count" else self.summary
        self.canonical.append((name, value))

    def _totalled(self, name: str, value: str) -> None:
        if value not in ("none", "accurate", "estimate"):
            raise _wrong(name, "none, estimate or accurate")
        self.total = value != "none"
        self.canonical.append((name, value))

    def _format(self, name: str, value: str) -> None:
        # A plus sign in a URL is a space to those who forgot to encode it.
        if value.replace(" ", "+") not in ("json", "application/json", "application/fhir+json"):
            raise _wrong(name, "this server speaks json")

    def _cursor(self, name: str, value: str) -> None:
        try:
            self.after = Cursor.decoded(value)
        except CursorInvalid as fault:
            raise _wrong(name, str(fault)) from None

    def _ignored(self, _name: str, _value: str) -> None:
        """Changes nothing of the answer's content."""


_Handler = Callable[[_Reader, str, str], None]
_HANDLERS: dict[str, _Handler] = {
    "date": _Reader._dates,
    "patient": _Reader._patient,
    "agent": _Reader._agent,
    "action": _Reader._coded,
    "outcome": _Reader._outcome,
    "type": _Reader._coded,
    "subtype": _Reader._coded,
    "entity": _Reader._entity,
    "_id": _Reader._identifiers,
    "_count": _Reader._count,
    "_sort": _Reader._sort,
    "_summary": _Reader._summarised,
    "_total": _Reader._totalled,
    "_format": _Reader._format,
    "_pretty": _Reader._ignored,
    "_after": _Reader._cursor,
}


def _type_of(activity: Activity) -> tuple[Code, ...]:
    return (activity.type,)


def _subtypes_of(activity: Activity) -> tuple[Code, ...]:
    return (*activity.subtypes, activity.own)


def _action_of(activity: Activity) -> tuple[Code, ...]:
    return (Code(_ACTION, activity.action, ""),)


_CODES: dict[str, Callable[[Activity], tuple[Code, ...]]] = {
    "type": _type_of,
    "subtype": _subtypes_of,
    "action": _action_of,
}


def read_search(parameters: Iterable[tuple[str, str]], people: People) -> Search:
    """The search that parameters ask for; empty values are passed over (FHIR R4, 3.1.1.2).

    Raises:
        RequestMalformed: names the parameter.
    """
    reader = _Reader(people)
    for name, value in parameters:
        if value:
            reader.read(name, value)
    question = Question(
        since=reader.since,
        until=reader.until,
        patients=reader.values.get("patients"),
        agents=reader.values.get("agents"),
        activities=reader.activities,
        outcomes=reader.outcomes,
        entities=reader.values.get("entities"),
        ids=reader.values.get("ids"),
        newest_first=reader.newest_first,
        about=tuple(reader.about),
    )
    return Search(question, reader.count, reader.after, reader.summary, reader.total, tuple(reader.canonical))


def _items(name: str, value: str) -> list[str]:
    items = [item for item in value.split(",") if item]
    # A link to the next page holds the pseudonyms of an id under every key and every authority.
    asked = sum(not is_pseudonym(item.removeprefix("Patient/")) for item in items)
    if not items or asked > _MOST_VALUES or len(items) > _MOST_PSEUDONYMS:
        raise _wrong(name, f"from 1 to {_MOST_VALUES} values")
    if any(len(item) > _LONGEST or "\x00" in item for item in items):
        raise _wrong(name, f"a value has at most {_LONGEST} characters, and no NUL")
    return items


def _names_client(system: str, who: str) -> bool:
    """A URI that is no reference to a person, or what the caller says is a client."""
    if system == CLIENT:
        return True
    return ("://" in who or who.startswith("urn:")) and not _PERSON.search(who)


def _matches(item: str, coding: Code) -> bool:
    system, bar, code = item.rpartition("|")
    if not bar:
        return code == coding.code
    return (not system or system == coding.system) and (not code or code == coding.code)


def _period(name: str, text: str) -> tuple[datetime, datetime]:
    """The first instant a date means, and the first after it (UTC where no zone is said)."""
    found = _DATE.match(text)
    if found is None:
        raise _wrong(name, "a date looks like 2026, 2026-11, 2026-11-26 or 2026-11-26T10:00:00Z")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        date = (int(year), int(month or 1), int(day or 1))
        clock = (int(hour or 0), int(minute or 0), int(second or 0), int((fraction or "0").ljust(6, "0")))
        moment = datetime(*date, *clock, tzinfo=UTC)
        if zone and zone != "Z":
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
            moment += offset if zone[0] == "-" else -offset
        if month is None:
            return moment, moment.replace(year=moment.year + 1)
        if day is None:
            return moment, (moment + timedelta(days=31)).replace(day=1)
        if hour is None:
            length = timedelta(days=1)
        elif second is None:
            length = timedelta(minutes=1)
        else:
            length = timedelta(microseconds=10 ** (6 - len(fraction or "")))
        return moment, moment + length
    except (ValueError, OverflowError):
        raise _wrong(name, "there is no such date") from None


def _wrong(name: str, reason: str) -> RequestMalformed:
    # A name we know is repeated, any other is the caller's and may hold anything.
    base = name.partition(":")[0]
    known = base if base in _HANDLERS else re.sub(r"[^A-Za-z_\-.]", "", name)[:32]
    return RequestMalformed(f"search parameter {known}: {reason}", known)
