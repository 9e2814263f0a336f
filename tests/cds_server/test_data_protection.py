"""Export, erasure, retention and legal holds, as the data protection officer does them, on both databases."""

import base64
import io
import json
import uuid
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import rows
from decisions_helpers import call, command, everything_on_disk, replays
from server_helpers import ASSESSMENT, Running, example, minimal
from sqlalchemy import text

from cds_server import desk_privacy, desk_retention
from cds_server.cli_desk import NotDone
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite
from cds_server.desk_patient import Whom
from cds_server.privacy import Pseudonymiser
from cds_server.settings import Settings
from cds_server.site_keys import site_keys
from cds_server.state import Knowledge

Capture = pytest.CaptureFixture[str]
COMMENT = "Pat Example told me so"


def patient_of(name: str) -> str:
    found: str = example(name)["context"]["patientId"]
    return found


def comment_on(server: Running, answer: dict[str, Any], words: str = COMMENT) -> str:
    card: str = answer["cards"][0]["uuid"]
    feedback = {
        "card": card,
        "outcome": "overridden",
        "outcomeTimestamp": "2026-11-20T09:40:00Z",
        "overrideReason": {"userComment": words},
    }
    sent = server.post("/cds-services/diagnostic-assessment/feedback", {"feedback": [feedback]})
    assert sent.status_code == 200, sent.text
    return card


async def counts(url: str) -> tuple[int, int]:
    [(keys,)] = await rows(url, "SELECT count(*) FROM patient_keys")
    [(decisions,)] = await rows(url, "SELECT count(*) FROM stored_decisions")
    return keys, decisions


async def activities(url: str) -> list[tuple[str, str, int]]:
    found = await rows(url, "SELECT action, payload, status FROM events WHERE service = 'cli' ORDER BY seq")
    return [
        (action, dict(json.loads(payload)["detail"]).get("result", ""), code)
        for action, payload, code in found
    ]


async def erased(settings: Settings, name: str, capsys: Capture) -> str:
    """What the erasure of an example's patient says."""
    await desk_privacy.erase(settings, Whom(patient_of(name)), confirmed=True)
    return capsys.readouterr().out


async def purged(settings: Settings, capsys: Capture, *, dry_run: bool = False) -> str:
    """What a retention run says."""
    await desk_retention.run_retention(settings, dry_run=dry_run)
    return capsys.readouterr().out


def rotate(settings: Settings, purpose: str) -> None:
    (settings.var_dir / "keys" / f"{purpose}-2.key").write_bytes(base64.b64encode(b"r" * 32))


@pytest.fixture
def site(start_server: Callable[..., Running], database_url: str) -> Running:
    """A server without a trained model, on either database."""
    server = start_server(database_url=database_url, model_bundle="none")
    server.database_url = database_url
    return server


async def test_an_erased_patient_is_gone_and_everybody_else_is_not(
    site: Running, knowledge: Knowledge, capsys: Capture
) -> None:
    settings = site.house.settings
    comment_on(site, call(site, "sepsis"))
    comment_on(site, call(site, "dka"), "another")
    call(site, "sepsis", "es")
    before = await rows(site.database_url, "SELECT * FROM events ORDER BY seq")
    told = await erased(settings, "sepsis", capsys)
    assert "Destroyed: 2 data keys, 2 decisions." in told
    assert patient_of("sepsis") not in told
    found = await replays(settings, knowledge)
    assert [(one.result, one.reason) for one in found] == [
        ("unavailable", "erased"),
        ("identical", None),
        ("unavailable", "erased"),
    ]
    assert await counts(site.database_url) == (2, 1)
    # The chain's matter stays as it was; two records say what was done.
    after = await rows(site.database_url, "SELECT * FROM events ORDER BY seq")
    assert after[: len(before)] == before
    assert await activities(site.database_url) == [
        ("patient-erased", "ordered", 200),
        ("patient-erased", "done", 200),
    ]
    engine = create_engine(site.database_url)
    site.house.feedback._engine = engine
    [gone], [there] = [
        await rows(site.database_url, f"SELECT card FROM feedback ORDER BY seq LIMIT 1 OFFSET {n}")
        for n in (0, 1)
    ]
    assert await site.house.feedback.comments(gone[0]) == []
    assert await site.house.feedback.comments(there[0]) == ["another"]
    await engine.dispose()
    # Coming back is no accident: the next visit is kept under a new key.
    assert "Destroyed: 0 data keys, 0 decisions." in await erased(settings, "sepsis", capsys)


async def test_erasure_reaches_what_was_stored_before_the_pseudonym_keys_were_rotated(
    start_server: Callable[..., Running], database_url: str, knowledge: Knowledge, capsys: Capture
) -> None:
    server = start_server(database_url=database_url, model_bundle="none")
    settings = server.house.settings
    call(server, "sepsis")
    rotate(settings, "pseudonym")
    later = start_server(database_url=database_url, model_bundle="none", var_dir=settings.var_dir)
    call(later, "sepsis")
    subjects = await rows(database_url, "SELECT DISTINCT subject FROM patient_keys ORDER BY subject")
    assert [row[0][:3] for row in subjects] == ["p1-", "p2-"]
    assert [one.result for one in await replays(settings, knowledge)] == ["identical"] * 2
    assert "2 data keys, 2 decisions" in await erased(settings, "sepsis", capsys)
    assert await counts(database_url) == (0, 0)


async def test_nothing_is_erased_without_a_yes(site: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    call(site, "sepsis")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(NotDone, match="Nothing was destroyed"):
        await desk_privacy.erase(site.house.settings, Whom(patient_of("sepsis")), confirmed=False)
    assert await counts(site.database_url) == (1, 1)
    assert await rows(site.database_url, "SELECT count(*) FROM destructions") == [(0,)]


async def test_an_erased_key_is_in_no_file_of_a_sqlite_database(
    start_server: Callable[..., Running], capsys: Capture
) -> None:
    server = start_server(model_bundle="none")
    for name in ("sepsis", "dka", "influenza"):
        call(server, name)
    [(subject,)] = await rows(
        server.database_url,
        "SELECT patient_pseudonym FROM events WHERE service = 'diagnostic-assessment' ORDER BY seq LIMIT 1",
    )
    [(wrapped, sealed)] = await rows(
        server.database_url,
        "SELECT k.wrapped, s.sealed FROM patient_keys k JOIN stored_decisions s ON s.key_id = k.key_id "
        "WHERE k.subject = :s",
        s=subject,
    )
    settings = server.house.settings
    assert wrapped.encode() in everything_on_disk(settings.var_dir)
    await erased(settings, "sepsis", capsys)
    disk = everything_on_disk(settings.var_dir)
    assert wrapped.encode() not in disk
    assert sealed[100:400] not in disk


async def test_a_restored_backup_is_erased_again(
    site: Running, tmp_path: Path, knowledge: Knowledge, capsys: Capture
) -> None:
    settings = site.house.settings
    call(site, "sepsis")
    call(site, "dka")
    keys = await rows(site.database_url, "SELECT * FROM patient_keys ORDER BY key_id")
    kept = await rows(site.database_url, "SELECT * FROM stored_decisions ORDER BY event_id")
    await erased(settings, "sepsis", capsys)
    # The backup knows the key and not the erasure.
    engine = create_engine(site.database_url)
    drop = (
        ("DROP TRIGGER destructions_no_delete", "DELETE FROM destructions")
        if is_sqlite(site.database_url)
        else ("ALTER TABLE destructions DISABLE TRIGGER ALL", "DELETE FROM destructions")
    )
    async with engine.begin() as connection:
        for line in drop:
            await connection.execute(text(line))
        for table, back in (("patient_keys", keys), ("stored_decisions", kept)):
            names = [f"v{n}" for n in range(len(back[0]))]
            statement = text(
                f"INSERT INTO {table} VALUES ({', '.join(':' + n for n in names)}) ON CONFLICT DO NOTHING"
            )
            for row in back:
                await connection.execute(statement, dict(zip(names, row, strict=True)))
    await engine.dispose()
    assert await counts(site.database_url) == (2, 2)
    await desk_privacy.reapply(settings)
    assert "destroyed again: 1 data keys, 1 decisions" in capsys.readouterr().out
    assert [one.reason for one in await replays(settings, knowledge)] == [None, "erased"]
    await desk_privacy.reapply(settings)
    assert "destroyed again: 0 data keys" in capsys.readouterr().out


async def test_a_legal_hold_stops_erasure_and_retention_until_it_is_lifted(
    start_server: Callable[..., Running], database_url: str, capsys: Capture
) -> None:
    settings = long_ago(start_server, database_url).house.settings
    identity = await desk_retention.place(
        settings,
        patient="p",
        server=None,
        pseudonym=None,
        reason="claim of Pat Example",
        by="Counsel Quince",
    )
    await desk_retention.list_holds(settings)
    listed = capsys.readouterr().out
    assert identity[:8] in listed and "Quince" in listed
    assert "Patient" not in listed
    for table in ("legal_holds", "events"):
        content = str(await rows(database_url, f"SELECT * FROM {table}"))
        assert "Quince" not in content and "Pat Example" not in content
    with pytest.raises(NotDone, match="legal hold"):
        await desk_privacy.erase(settings, Whom("p"), confirmed=True)
    # A rotation of the pseudonym key does not loosen the hold.
    rotate(settings, "pseudonym")
    assert "Destroyed: 1 decisions, 2 data keys." in await purged(settings, capsys)
    assert await counts(database_url) == (1, 1)
    await desk_retention.lift(settings, identity, reason="settled", by="Q")
    with pytest.raises(NotDone):
        await desk_retention.lift(settings, identity, reason="settled", by="Q")
    assert "Destroyed: 1 decisions, 1 data keys." in await purged(settings, capsys)
    assert await counts(database_url) == (0, 0)
    assert [one for one in await activities(database_url) if one[0].startswith("hold")] == [
        ("hold-placed", "", 200),
        ("hold-lifted", "", 200),
    ]
    assert ("patient-erased", "refused", 409) in await activities(database_url)


def long_ago(start_server: Callable[..., Running], database_url: str) -> Running:
    """A server of the summer of 2018, which answered for two patients and was told something of a card."""
    then = datetime(2018, 6, 1, 12, tzinfo=UTC)
    server = start_server(database_url=database_url, model_bundle="none", clock=lambda: then)
    for patient in ("p", "q"):
        request = minimal()
        request["context"]["patientId"] = request["prefetch"]["patient"]["id"] = patient
        assert server.post(ASSESSMENT, request).status_code == 200
    comment_on(server, {"cards": [{"uuid": str(uuid.uuid4())}]})
    return server


async def test_retention_destroys_what_is_too_old_in_batches_and_says_so_first(
    start_server: Callable[..., Running], database_url: str, knowledge: Knowledge, capsys: Capture
) -> None:
    settings = long_ago(start_server, database_url).house.settings
    site = start_server(database_url=database_url, model_bundle="none", var_dir=settings.var_dir)
    site.database_url = database_url
    call(site, "influenza")
    assert "decisions to destroy" in await purged(settings, capsys, dry_run=True)
    assert await counts(site.database_url) == (4, 3)
    assert await rows(site.database_url, "SELECT count(*) FROM destructions") == [(0,)]
    longer = settings.model_copy(update={"retention_years": 20})
    assert "Destroyed: 0 decisions" in await purged(longer, capsys)
    assert "Destroyed: 2 decisions, 3 data keys." in await purged(settings, capsys)
    assert await counts(site.database_url) == (1, 1)
    assert [one.reason for one in await replays(settings, knowledge)] == [None, "expired", "expired"]
    assert ("retention-purged", "done", 200) in await activities(site.database_url)
    assert "Destroyed: 0 decisions" in await purged(settings, capsys)


async def test_an_export_holds_everything_of_one_patient_and_nothing_of_another(
    site: Running, tmp_path: Path, capsys: Capture
) -> None:
    settings = site.house.settings
    answer = call(site, "sepsis")
    comment_on(site, answer)
    comment_on(site, call(site, "dka"), "about somebody else")
    out = tmp_path / "export.zip"
    await desk_privacy.export(settings, Whom(patient_of("sepsis")), out)
    assert out.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        content = {name: archive.read(name) for name in names}
    [request] = [name for name in names if name.endswith("request.json")]
    assert json.loads(content[request]) == example("sepsis")
    [told] = [name for name in names if name.endswith("answer.json")]
    assert json.loads(content[told]) == answer
    events = [json.loads(line) for line in content["events.ndjson"].splitlines()]
    assert {event["patient"] for event in events} == {
        Pseudonymiser(site_keys(settings).pseudonym).pseudonym("patient", patient_of("sepsis"), "")
    }
    assert [event.get("action") or event["activity"] for event in events] == ["hook-call", "patient-exported"]
    assert [json.loads(line)["comment"] for line in content["feedback.ndjson"].splitlines()] == [COMMENT]
    everything = b"".join(content.values())
    assert patient_of("dka").encode() not in everything and b"somebody else" not in everything
    readme = content["README.txt"].decode()
    assert "GDPR" in readme and "RGPD" in readme and "7 years" in readme
    with pytest.raises(FileExistsError):
        await desk_privacy.export(settings, Whom(patient_of("sepsis")), out)
    # After the erasure an export still names the events and says why the rest is not there.
    await erased(settings, "sepsis", capsys)
    out.unlink()
    await desk_privacy.export(settings, Whom(patient_of("sepsis")), out)
    with zipfile.ZipFile(out) as archive:
        [missing] = [json.loads(line) for line in archive.read("not-kept.ndjson").splitlines()]
        [comment] = [json.loads(line) for line in archive.read("feedback.ndjson").splitlines()]
        assert missing["reason"] == "erased" and comment["comment"] is None
        assert not any(name.startswith("decisions/") for name in archive.namelist())
        assert len(archive.read("erasures.ndjson").splitlines()) >= 1


async def test_a_rotated_master_key_wraps_all_keys_anew_and_the_old_one_can_go(
    site: Running, knowledge: Knowledge
) -> None:
    settings = site.house.settings
    comment_on(site, call(site, "sepsis"))
    call(site, "dka")
    rotate(settings, "master")
    await desk_retention.rewrap(settings)
    assert await rows(site.database_url, "SELECT DISTINCT master FROM patient_keys") == [(2,)]
    (settings.var_dir / "keys" / "master-1.key").unlink()
    assert [one.result for one in await replays(settings, knowledge)] == ["identical"] * 2
    assert ("keys-changed", "rewrapping", 200) in await activities(site.database_url)


async def test_the_commands_do_all_this(site: Running, tmp_path: Path) -> None:
    settings = site.house.settings
    call(site, "sepsis")
    one = ("--patient", patient_of("sepsis"))
    words = ("--reason", "r", "--by", "b")
    placed = command(settings, "retention", "hold", "place", *one, *words)
    assert placed.returncode == 0, placed.stderr
    hold = placed.stdout.split()[-1]
    assert hold in command(settings, "retention", "hold", "list").stdout
    assert command(settings, "privacy", "erase", *one, "--yes").returncode == 2
    assert command(settings, "retention", "hold", "lift", hold, *words).returncode == 0
    assert command(settings, "retention", "run").returncode == 0
    assert command(settings, "privacy", "export", *one, "--out", str(tmp_path / "x.zip")).returncode == 0
    assert command(settings, "privacy", "export", *one, "--out", str(tmp_path / "x.zip")).returncode == 2
    assert command(settings, "privacy", "erase", *one).returncode == 1  # no yes, no terminal
    assert await counts(site.database_url) == (1, 1)
    assert command(settings, "privacy", "erase", *one, "--yes").returncode == 0
    assert await counts(site.database_url) == (0, 0)
    assert command(settings, "privacy", "reapply").returncode == 0
