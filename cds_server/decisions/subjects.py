"""Subjects: whom kept data and orders are about, and the events of them.

A subject is a pseudonym as `privacy` makes it, of an id and a system (``p1-k3fw….7xq2…``) or of an id that no
system is named for (``p1-k3fw…``); or `everywhere`, ``p1-k3fw….*``: whoever has that id, at every system.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, and_, false, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.db.models import Event
from cds_server.privacy import parts

_EVERY = "*"
CARE = ("hook-call", "assess", "login", "logout")
"""What happens with a patient in care, unlike what people ask and do about one afterwards."""


def everywhere(person: str) -> str:
    """The subject of whoever has an id, from the first part of a pseudonym."""
    return f"{person}.{_EVERY}"


def covers(wide: str, subject: str) -> bool:
    """Whether `wide` is the subject, or is `everywhere` and the subject is of that id."""
    person, authority = parts(wide)
    return wide == subject or (authority == _EVERY and parts(subject)[0] == person)


def events_of(subjects: Iterable[str]) -> ColumnElement[bool]:
    """The condition that an event is about one of the subjects; the first part is what is indexed."""
    wanted = [parts(subject) for subject in subjects]
    if not wanted:
        return false()
    every = [person for person, authority in wanted if authority == _EVERY]
    unnamed = [person for person, authority in wanted if authority is None]
    exact = [
        and_(Event.patient == person, Event.patient_authority == authority)
        for person, authority in wanted
        if authority not in (None, _EVERY)
    ]
    return and_(
        Event.patient.in_([person for person, _ in wanted]),
        or_(
            Event.patient.in_(every),
            and_(Event.patient.in_(unnamed), Event.patient_authority.is_(None)),
            *exact,
        ),
    )


async def in_care(engine: AsyncEngine, persons: Sequence[str]) -> list[str]:
    """The subjects with these first parts that anything was ever recorded of in care."""
    query = (
        select(Event.patient, Event.patient_authority, func.min(Event.recorded).label("first"))
        .where(Event.patient.in_(persons), Event.action.in_(CARE))
        .group_by(Event.patient, Event.patient_authority)
        .order_by("first")
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    return [f"{row[0]}.{row[1]}" if row[1] is not None else str(row[0]) for row in rows]
