"""Counts for people without access to patients: noisy, bounded, and no more than the budget allows."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import decision, rows, trail
from server_helpers import Running, outcome

from cds_server.aggregates.answering import Answer, answer
from cds_server.aggregates.counting import MOST, counts
from cds_server.aggregates.ledger import BudgetSpent, Ledger
from cds_server.aggregates.noise import noisy
from cds_server.aggregates.questions import Question
from cds_server.audit import CardFeedback, ShownCard
from cds_server.db.engine import create_engine
from cds_server.errors import RequestMalformed

opendp = pytest.importorskip("opendp", reason="the extra `privacy` is not installed")

NOW = datetime(2026, 4, 10, 12, tzinfo=UTC)
MARCH = datetime(2026, 3, 5, 23, 30, tzinfo=UTC)


def question(
    by: str = "severity", epsilon: float = 1.0, first: str = "2026-03", last: str = "2026-03"
) -> Question:
    return Question.of(by, first, last, epsilon, NOW)


async def fill(url: str, spool: Path) -> None:
    """A patient with twenty decisions, nine with one each, three forms that name nobody, and a refusal."""
    card = ShownCard("0195-card", "news2", "critical")
    records: list[Any] = [
        decision(f"a{n:02}", recorded=MARCH, patient="p1-often", cards=(card,) if n == 0 else ())
        for n in range(20)
    ]
    records += [
        decision(f"b{n}", recorded=MARCH, patient=f"p1-{n}", severity="mild-disease", cards=())
        for n in range(9)
    ]
    records += [
        decision(f"c{n}", recorded=MARCH, patient=None, severity="no-disease", service="predict", cards=())
        for n in range(3)
    ]
    records.append(decision("d", recorded=MARCH, status=412, severity=None, cards=()))
    records.append(decision("e", recorded=datetime(2026, 4, 1, tzinfo=UTC), cards=()))
    records += [
        CardFeedback(feedback_id=f"f{n}", recorded=MARCH, service="s", card="0195-card", outcome="accepted")
        for n in range(7)
    ]
    async with trail(url, spool) as audit:
        await audit.record_all(records)


async def test_one_patient_weighs_at_most_a_few_decisions(database_url: str, tmp_path: Path) -> None:
    await fill(database_url, tmp_path / "spool")
    engine = create_engine(database_url)
    by = {name: await counts(engine, question(name)) for name in ("severity", "service", "day", "outcome")}
    await engine.dispose()
    assert dict(zip(question().cells, by["severity"], strict=True)) == {
        "no-disease": 3,
        "mild-discomfort": 0,
        "mild-disease": 9,
        "acute-disease": MOST,
        "chronic-disease": 0,
    }
    assert sum(by["service"]) == 12 + MOST
    days = dict(zip(question("day").cells, by["day"], strict=True))
    assert len(days) == 31 and days.pop("2026-03-05") == 12 + MOST and set(days.values()) == {0}
    assert dict(zip(question("outcome").cells, by["outcome"], strict=True)) == {
        "accepted": MOST,
        "overridden": 0,
    }


async def test_an_answer_has_noise_and_every_cell_and_is_given_again_for_nothing(
    database_url: str, tmp_path: Path
) -> None:
    await fill(database_url, tmp_path / "spool")
    engine = create_engine(database_url)
    first = await answer(engine, 4.0, question("day"), NOW)
    again = await answer(engine, 4.0, question("day"), NOW.replace(hour=20))
    assert first == again
    assert set(first.counts) == set(question("day").cells)
    # 31 cells with a scale of 4: that not one of them has noise is as good as impossible.
    assert list(first.counts.values()) != await counts(engine, question("day"))
    assert first.epsilon == pytest.approx(1.0) and first.left == {"2026-03": pytest.approx(3.0)}
    assert first.accuracy_95 == pytest.approx(12.45, abs=0.1)
    await engine.dispose()


def test_the_noise_has_the_scale_that_was_paid_for() -> None:
    exact = [1000] * 4000
    for epsilon in (0.5, 2.0):
        made = noisy(exact, sensitivity=MOST, epsilon=epsilon)
        spread = sum(abs(count - 1000) for count in made.counts) / len(exact)
        assert spread == pytest.approx(MOST / epsilon, rel=0.15)  # mean absolute deviation of Laplace = scale
        assert made.epsilon == pytest.approx(epsilon)


async def test_a_months_budget_is_never_passed_however_many_ask_at_once(
    database_url: str, tmp_path: Path
) -> None:
    await fill(database_url, tmp_path / "spool")
    engine = create_engine(database_url)
    asked = [question("severity", epsilon=0.9 + n / 1000) for n in range(12)]
    given = await asyncio.gather(*(answer(engine, 4.0, one, NOW) for one in asked), return_exceptions=True)
    answers = [one for one in given if isinstance(one, Answer)]
    refused = [one for one in given if isinstance(one, BudgetSpent)]
    assert len(answers) == 4 and len(refused) == 8
    assert refused[0].month == "2026-03"
    spent = (await Ledger(engine, 4.0).spent(("2026-03",)))["2026-03"]
    assert spent == pytest.approx(sum(one.epsilon for one in answers)) and spent <= 4.0
    # A question over two months is refused by the one that is spent; the other keeps what it has.
    with pytest.raises(BudgetSpent):
        await answer(engine, 4.0, question("service", last="2026-04"), NOW)
    assert (await Ledger(engine, 4.0).spent(("2026-04",)))["2026-04"] == 0
    # What was answered before the budget was spent is answered still.
    again = await answer(engine, 4.0, asked[given.index(answers[0])], NOW)
    assert again.counts == answers[0].counts
    await engine.dispose()


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"by": "patient"}, "by"),
        ({"first": "2026-3"}, "from"),
        ({"last": "march"}, "to"),
        ({"first": "2026-04", "last": "2026-03"}, "to"),
        ({"last": "2026-05"}, "to"),
        ({"first": "2025-03", "last": "2026-04"}, "to"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"epsilon": 5.0}, "epsilon"),
    ],
)
def test_a_question_that_makes_no_sense_names_its_parameter(changes: dict[str, Any], parameter: str) -> None:
    with pytest.raises(RequestMalformed) as refused:
        question(**changes)
    assert refused.value.expression == parameter


async def test_over_http_a_question_is_answered_audited_and_refused_when_the_budget_is_spent(
    start_server: Callable[..., Running], database_url: str
) -> None:
    server = start_server(database_url=database_url, model_bundle="none", aggregate_epsilon=1.5)
    path = "/api/v1/aggregates?by=escalation"
    found = server.client.get(path)
    assert found.status_code == 200, found.text
    assert set(found.json()["counts"]) == set(question("escalation").cells)
    assert server.client.get(path).json() == found.json()
    issue = outcome(server.client.get("/api/v1/aggregates?by=service"), 403)
    assert issue["code"] == "suppressed" and "0.5 left" in issue["diagnostics"]
    assert outcome(server.client.get("/api/v1/aggregates?by=name"), 400)["expression"] == ["by"]
    assert outcome(server.client.get(f"/api/v1/aggregates?{'a=1&' * 40}"), 400)
    [*audited] = await rows(database_url, "SELECT payload FROM events WHERE action = 'aggregates-read'")
    assert [dict(json.loads(one)["detail"])["by"] for (one,) in audited] == ["escalation"] * 2
