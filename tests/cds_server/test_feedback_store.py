"""Feedback is kept with what it is about; comments are never in clear, in database or spool."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import NOON, decision, rows, trail

from cds_server.audit import AuditTrail, AuditUnavailable, ShownCard
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite, sqlite_path
from cds_server.decisions.keys import DataKeys
from cds_server.feedback import FeedbackItem, FeedbackStore, OutcomeCount, OverrideReason
from cds_server.privacy import Cipher, SiteKeys

SECRET = "Mrs Example says the pain is gone"


@dataclass
class Site:
    url: str
    audit: AuditTrail
    store: FeedbackStore
    var: Path


def store_of(audit: AuditTrail, keys: SiteKeys, **options: Any) -> FeedbackStore:
    return FeedbackStore(audit, Cipher(keys.cipher), DataKeys(keys.master, now=lambda: NOON), **options)


@pytest.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    engine = create_engine(database_url)
    keys = SiteKeys.open(tmp_path / "keys")
    async with trail(database_url, tmp_path / "spool") as audit:
        yield Site(database_url, audit, store_of(audit, keys, engine=engine, now=lambda: NOON), tmp_path)
    await engine.dispose()


async def test_an_accepted_card_is_stored_with_its_suggestions(site: Site) -> None:
    item = FeedbackItem(
        card="u1", outcome="accepted", outcome_timestamp=NOON, accepted_suggestions=("s1", "s2")
    )
    await site.store.record("diagnostic-assessment", "ehr", [item])
    assert await rows(site.url, "SELECT service, client, card, outcome, comment FROM feedback") == [
        ("diagnostic-assessment", "ehr", "u1", "accepted", None)
    ]
    suggestions = await rows(site.url, "SELECT suggestion FROM feedback_suggestions ORDER BY position")
    assert suggestions == [("s1",), ("s2",)]


async def test_an_override_keeps_its_reason_and_hides_its_comment(site: Site) -> None:
    reason = OverrideReason("not-relevant", "urn:cds-server:override", "Not relevant")
    item = FeedbackItem(card="u1", outcome="overridden", override_reason=reason, user_comment=SECRET)
    await site.store.record("s", None, [item])
    [(code, system, display, comment, payload)] = await rows(
        site.url, "SELECT reason_code, reason_system, reason_display, comment, payload FROM feedback"
    )
    assert (code, system, display) == ("not-relevant", "urn:cds-server:override", "Not relevant")
    assert SECRET not in comment + payload
    assert "Example" not in payload
    assert await site.store.comments("u1") == [SECRET]


async def test_repeated_feedback_on_a_card_is_kept_each_time(site: Site) -> None:
    item = FeedbackItem(card="u1", outcome="overridden", user_comment="a")
    await site.store.record("s", None, [item, item])
    await site.store.record("s", None, [item])
    assert await rows(site.url, "SELECT count(*) FROM feedback") == [(3,)]
    assert await site.store.comments("u1") == ["a", "a", "a"]


async def test_feedback_on_a_card_never_shown_is_kept_and_known_as_such(site: Site) -> None:
    shown = decision(cards=(ShownCard("u1", "news2", "critical"),))
    # The feedback comes first: its event may still be in another process's spool.
    await site.store.record("s", None, [FeedbackItem(card="u1", outcome="accepted")])
    await site.store.record("s", None, [FeedbackItem(card="u2", outcome="overridden")])
    assert await site.store.known(["u1", "u2"]) == frozenset()
    await site.audit.record(shown)
    assert await site.store.known(["u1", "u2"]) == {"u1"}
    assert await site.store.outcomes() == [
        OutcomeCount("s", None, "overridden", 1),
        OutcomeCount("s", "news2", "accepted", 1),
    ]


async def test_outcomes_count_a_feedback_once_though_its_card_was_shown_twice(site: Site) -> None:
    card = ShownCard("u1", "news2", "critical")
    await site.audit.record_all([decision(cards=(card,)), decision(cards=(card,))])
    await site.store.record("s", None, [FeedbackItem(card="u1", outcome="accepted")] * 2)
    assert await site.store.outcomes(since=NOON) == [OutcomeCount("s", "news2", "accepted", 2)]
    assert await site.store.outcomes(since=NOON + timedelta(seconds=1)) == []


async def test_feedback_outlives_an_outage_and_its_comment_is_hidden_in_the_spool(
    sqlite_url: str, tmp_path: Path
) -> None:
    assert is_sqlite(sqlite_url)
    path = sqlite_path(sqlite_url)
    moved = path.with_name("moved.db")
    keys = SiteKeys.open(tmp_path / "keys")
    item = FeedbackItem(card="u1", outcome="overridden", user_comment=SECRET)
    async with trail(sqlite_url, tmp_path / "spool") as audit:
        path.rename(moved)
        await store_of(audit, keys).record("s", None, [item])
        [segment] = (tmp_path / "spool").glob("*.spool")
        assert b"Example" not in segment.read_bytes()
        moved.rename(path)
    engine = create_engine(sqlite_url)
    async with trail(sqlite_url, tmp_path / "spool") as audit:
        while audit.state().spool_depth:  # noqa: ASYNC110 polling is what an operator does, too
            await asyncio.sleep(0.01)
        store = store_of(audit, keys, engine=engine)
        assert await store.comments("u1") == [SECRET]
    await engine.dispose()


async def test_feedback_that_cannot_be_kept_is_refused(site: Site) -> None:
    await site.audit.close()
    with pytest.raises(AuditUnavailable):
        await site.store.record("s", None, [FeedbackItem(card="u1", outcome="accepted")])
