"""The ledger: what each month's data has given away, and the answers already given.

Sequential composition: the epsilons of all answers about one month add up, and their sum never passes the
site's budget.  An answer once given is given again for nothing.  Entries are append-only.
"""

from datetime import datetime

import msgspec
from sqlalchemy import ScalarSelect, func, insert, literal, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import new_id
from cds_server.db.models_decisions import NoisyAnswerRow

_LOCK_ID = 0x6364735F65707369  # "cds_epsi": PostgreSQL advisory lock of one entry
_ROUNDING = 1e-9


class BudgetSpent(Exception):
    """A month's data has given away all that the site allows; `month` and what is `left` of it."""

    def __init__(self, month: str, left: float) -> None:
        super().__init__(month)
        self.month = month
        self.left = left


class Entry(msgspec.Struct, frozen=True):
    """An answer as it was given: when, what it cost, and its JSON."""

    recorded: datetime
    epsilon: float
    answer: str


class Ledger:
    """The ledger of a site; `budget` is the epsilon that each month's data may give away, in all."""

    def __init__(self, engine: AsyncEngine, budget: float) -> None:
        self._engine = engine
        self.budget = budget

    async def given(self, question: str) -> Entry | None:
        """The answer that was given to this very question."""
        query = (
            select(NoisyAnswerRow.recorded, NoisyAnswerRow.epsilon, NoisyAnswerRow.answer)
            .where(NoisyAnswerRow.question == question)
            .order_by(NoisyAnswerRow.recorded)
            .limit(1)
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else Entry(*row)

    async def spent(self, months: tuple[str, ...]) -> dict[str, float]:
        """What each month's data has given away."""
        async with self._engine.connect() as connection:
            return {
                month: float((await connection.execute(select(_spent(month)))).scalar_one())
                for month in months
            }

    async def enter(
        self, question: str, months: tuple[str, ...], epsilon: float, answer: str, now: datetime
    ) -> None:
        """Enter an answer before anybody sees it.

        Raises:
            BudgetSpent: it would pass the budget of a month; nothing is entered and nothing may be shown.
        """
        row = select(
            literal(new_id()),
            literal(now, NoisyAnswerRow.recorded.type),
            literal(question),
            literal(months[0]),
            literal(months[-1]),
            literal(epsilon),
            literal(answer),
        ).where(*[_spent(month) + epsilon <= self.budget + _ROUNDING for month in months])
        columns = ["answer_id", "recorded", "question", "first_month", "last_month", "epsilon", "answer"]
        async with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            # One statement: on SQLite it holds the write lock while it reads the sums.
            done = await connection.execute(insert(NoisyAnswerRow).from_select(columns, row))
            entered = done.rowcount == 1
        if not entered:
            spent = await self.spent(months)
            month = max(spent, key=lambda month: spent[month])
            raise BudgetSpent(month, max(0.0, self.budget - spent[month]))


def _spent(month: str) -> ScalarSelect[float]:
    return (
        select(func.coalesce(func.sum(NoisyAnswerRow.epsilon), 0.0))
        .where(NoisyAnswerRow.first_month <= month, NoisyAnswerRow.last_month >= month)
        .scalar_subquery()
    )
