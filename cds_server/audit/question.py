"""A question to the audit trail, as a value, and the SQL it is.

`Question` is what the FHIR search, the console and the command line have in common; every condition is
answered by an index of `events` (`docs/audit.md` lists them).  Pages are cut by key (time, id), so a page
stays the same page however much is recorded meanwhile.
"""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import ColumnElement, Select, and_, false, func, literal_column, or_, select, tuple_

from cds_server.audit.activities import ACTIVITIES
from cds_server.db.models import Event
from cds_server.db.writer import UNFILED

_FREQUENT = "hook-call"
_FILED_WITHIN = timedelta(days=1)  # cds_server.db.writer.filed

EVENT_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
"""What an event's id may be (FHIR R4, `id`); PostgreSQL fails at a text with NUL in it."""


class CursorInvalid(ValueError):
    """Not a cursor of ours."""


class Cursor(msgspec.Struct, frozen=True):
    """The last event of a page."""

    recorded: datetime
    event_id: str

    def encoded(self) -> str:
        """As it stands in a link."""
        data = f"{self.recorded.isoformat()} {self.event_id}".encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def decoded(cls, text: str) -> "Cursor":
        """The inverse of `encoded`.  Raises: CursorInvalid."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
            moment, _, event_id = data.partition(" ")
            recorded = datetime.fromisoformat(moment)
            if recorded.tzinfo is None or not EVENT_ID.match(event_id):
                raise CursorInvalid("not a cursor of this server")
            recorded = recorded.astimezone(UTC)
        except (ValueError, OverflowError, binascii.Error):
            # The last of the first year in a zone ahead of UTC is a time that no UTC clock shows.
            raise CursorInvalid("not a cursor of this server") from None
        return cls(recorded, event_id)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions, all of which must hold; of several values of one condition any.

    `since` is inclusive, `until` exclusive (UTC).  `patients` are pseudonyms.  `agents` are client ids
    and pseudonyms of users.  `activities` are codes of `activities.ACTIVITIES`.  `outcomes` are codes of
    audit-event-outcome (0, 4, 8).  `entities` are references, URIs, hook instances or request ids.
    `about` is no condition: the patients that are asked for, one pseudonym each, for the record of the
    asking.
    """

    since: datetime | None = None
    until: datetime | None = None
    patients: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    activities: frozenset[str] | None = None
    outcomes: frozenset[str] | None = None
    entities: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None
    newest_first: bool = True
    about: tuple[str, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(Event.recorded >= self.since)
        if self.until is not None:
            found.append(Event.recorded < self.until)
        if (self.since is not None or self.until is not None) and self.ids is None:
            found.append(self._filed())
        if self.patients is not None:
            found.append(Event.patient.in_(self.patients))
        if self.agents is not None:
            users = tuple(agent for agent in self.agents if is_pseudonym(agent))
            clients = tuple(agent for agent in self.agents if not is_pseudonym(agent))
            either = [Event.user.in_(users)] if users else []
            if clients:
                either.append(Event.client.in_(clients))
            found.append(or_(*either) if either else false())
        if self.activities is not None and self.activities != frozenset(ACTIVITIES):
            found.append(Event.action.in_(sorted(self.activities)) if self.activities else false())
            if _FREQUENT not in self.activities:
                found.append(Event.action != literal_column(f"'{_FREQUENT}'"))  # what the index is limited to
        if self.outcomes is not None:
            found.append(
                or_(*(_OUTCOMES[code] for code in sorted(self.outcomes))) if self.outcomes else false()
            )
        if self.entities is not None:
            traces = [entity.removeprefix("urn:uuid:") for entity in self.entities]
            about = and_(Event.entity.is_not(None), Event.entity.in_(self.entities))
            found.append(or_(about, Event.hook_instance.in_(traces)))
        if self.ids is not None:
            found.append(Event.event_id.in_(self.ids))
        return found

    def _filed(self) -> ColumnElement[bool]:
        """Leaves out the months in which nothing of that time can be filed."""
        within: list[ColumnElement[bool]] = []
        if self.since is not None and self.since - UNFILED > _FILED_WITHIN:
            within.append(Event.filed >= self.since - _FILED_WITHIN)
        if self.until is not None and self.until < datetime.max.replace(tzinfo=UTC) - _FILED_WITHIN:
            within.append(Event.filed < self.until + _FILED_WITHIN)
        return or_(Event.filed == UNFILED, and_(*within)) if within else Event.filed.is_not(None)


def is_pseudonym(value: str) -> bool:
    """Whether a value has the form of our pseudonyms (``p1-…``)."""
    number, dash, rest = value[1:].partition("-")
    return value[:1] == "p" and number.isascii() and number.isdigit() and bool(dash and rest)


def page(question: Question, size: int, after: Cursor | None) -> "Select[datetime, str, str]":
    """Time, id and payload of at most `size` events, in the order of the question, after a cursor."""
    key = tuple_(Event.recorded, Event.event_id)
    asked = question if after is None else _from(question, after)
    query = select(Event.recorded, Event.event_id, Event.payload).where(*asked.conditions())
    if after is not None:
        last = tuple_(after.recorded, after.event_id)
        query = query.where(key < last if question.newest_first else key > last)
    if question.newest_first:
        return query.order_by(Event.recorded.desc(), Event.event_id.desc()).limit(size)
    return query.order_by(Event.recorded, Event.event_id).limit(size)


def _from(question: Question, after: Cursor) -> Question:
    """The question with the page's edge as its end, so that there is one: of two, PostgreSQL begins reading
    the index at whichever it likes, and reads all that lies between."""
    if not question.newest_first:
        since = after.recorded if question.since is None else max(question.since, after.recorded)
        return msgspec.structs.replace(question, since=since)
    if after.recorded > datetime.max.replace(tzinfo=UTC) - _FILED_WITHIN:
        return question  # after everything that is: a cursor somebody made up
    until = after.recorded + timedelta(microseconds=1)  # the resolution of both databases
    return msgspec.structs.replace(
        question, until=until if question.until is None else min(question.until, until)
    )


def total(question: Question) -> "Select[int]":
    """How many events answer the question."""
    return select(func.count()).select_from(Event).where(*question.conditions())


_OUTCOMES: dict[str, ColumnElement[bool]] = {
    "0": Event.status < 400,
    "4": and_(Event.status >= 400, Event.status < 500),
    "8": Event.status >= 500,
    # Our software says of no event that it failed and took the whole system with it.
    "12": false(),
}
OUTCOMES = tuple(_OUTCOMES)
"""The codes of http://terminology.hl7.org/CodeSystem/audit-event-outcome."""


def outcome_of(status: int) -> str:
    """The outcome of an HTTP status: 0 success, 4 the caller's fault, 8 ours."""
    return "0" if status < 400 else "4" if status < 500 else "8"
