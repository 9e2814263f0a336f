"""Exact counts in which no patient weighs more than `MOST` decisions.

Differential privacy hides whether one patient is among the data, so what one patient can change must be
bounded: of each patient the first `MOST` decisions of the period count (by event id, which the patient's
other data does not move).  Where nobody is named (the simple form), each decision stands for itself.
"""

from sqlalchemy import ColumnElement, Integer, String, Subquery, cast, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.aggregates.questions import Question
from cds_server.db.models import Event, FeedbackRow, ShownCardRow
from cds_server.decisions.shelf import DECISIONS

MOST = 4
"""Decisions of one patient that count in one answer: the L1 sensitivity of the histogram."""


async def counts(engine: AsyncEngine, question: Question) -> list[int]:
    """The exact counts in the order of the question's cells; never shown without noise."""
    bounded = _feedback(question) if question.by == "outcome" else _decisions(question, engine)
    query = (
        select(bounded.c.cell, cast(func.count(), Integer))
        .where(bounded.c.place <= MOST)
        .group_by(bounded.c.cell)
    )
    async with engine.connect() as connection:
        found = {row[0]: row[1] for row in await connection.execute(query)}
    return [found.get(cell, 0) for cell in question.cells]


def _decisions(question: Question, engine: AsyncEngine) -> Subquery:
    patient = func.coalesce(Event.patient, Event.event_id)
    place = func.row_number().over(partition_by=patient, order_by=Event.event_id).label("place")
    cell = _day(engine) if question.by == "day" else getattr(Event, question.by)
    return (
        select(cell.label("cell"), place)
        .where(
            Event.action.in_(DECISIONS),
            Event.status == 200,
            Event.recorded >= question.begin,
            Event.recorded < question.end,
        )
        .subquery()
    )


def _feedback(question: Question) -> Subquery:
    whose = (
        select(ShownCardRow.uuid, func.min(Event.patient).label("patient"))
        .join(Event, Event.event_id == ShownCardRow.event_id)
        .group_by(ShownCardRow.uuid)
        .subquery()
    )
    patient = func.coalesce(whose.c.patient, FeedbackRow.feedback_id)
    place = func.row_number().over(partition_by=patient, order_by=FeedbackRow.feedback_id).label("place")
    return (
        select(FeedbackRow.outcome.label("cell"), place)
        .outerjoin(whose, whose.c.uuid == FeedbackRow.card)
        .where(FeedbackRow.recorded >= question.begin, FeedbackRow.recorded < question.end)
        .subquery()
    )


def _day(engine: AsyncEngine) -> ColumnElement[str]:
    if engine.dialect.name == "sqlite":
        return func.substr(cast(Event.recorded, String), 1, 10)
    return func.to_char(func.timezone("UTC", Event.recorded), "YYYY-MM-DD")
