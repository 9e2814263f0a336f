"""A question answered: counted, made noisy, entered in the ledger, and only then shown."""

from datetime import datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.aggregates.counting import MOST, counts
from cds_server.aggregates.ledger import Ledger
from cds_server.aggregates.noise import noisy
from cds_server.aggregates.questions import Question


class Answer(msgspec.Struct, frozen=True):
    """Noisy counts by cell.

    `accuracy_95`: with 95 % probability a count is no further from the true one (bounded to
    `most_per_patient` decisions a patient).  `epsilon` is what it cost, once; `left` what months have left.
    """

    by: str
    first: str
    last: str
    until: str
    recorded: datetime
    counts: dict[str, int]
    accuracy_95: float
    epsilon: float
    most_per_patient: int
    left: dict[str, float]


class _Content(msgspec.Struct, frozen=True):
    counts: dict[str, int]
    accuracy: float


async def answer(engine: AsyncEngine, budget: float, question: Question, now: datetime) -> Answer:
    """Answer a question, or give again the answer that was given.

    Raises:
        BudgetSpent: no more about one of these months.
        NoiseMissing: OpenDP is not installed.
    """
    ledger = Ledger(engine, budget)
    known = await ledger.given(question.text)
    if known is not None:
        content = msgspec.json.decode(known.answer, type=_Content)
        recorded, epsilon = known.recorded, known.epsilon
    else:
        made = noisy(await counts(engine, question), sensitivity=MOST, epsilon=question.epsilon)
        content = _Content(dict(zip(question.cells, made.counts, strict=True)), made.accuracy)
        recorded, epsilon = now, made.epsilon
        text = msgspec.json.encode(content).decode()
        await ledger.enter(question.text, question.months, epsilon, text, now)
    spent = await ledger.spent(question.months)
    return Answer(
        by=question.by,
        first=question.first,
        last=question.last,
        until=question.until.isoformat(),
        recorded=recorded,
        counts=content.counts,
        accuracy_95=content.accuracy,
        epsilon=epsilon,
        most_per_patient=MOST,
        left={month: round(max(0.0, budget - used), 6) for month, used in spent.items()},
    )
