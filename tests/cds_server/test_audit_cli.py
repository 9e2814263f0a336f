"""`cds-server audit ...` and `cds-server db partitions`, as a person runs them."""

import asyncio
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from audit_helpers import decision, rows, trail
from click.testing import Result
from sqlalchemy import text
from typer.testing import CliRunner

from cds_server.audit import new_id
from cds_server.audit.signing import Signer
from cds_server.cli import app
from cds_server.clock import utc_now
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite
from cds_server.privacy import Pseudonymiser, SiteKeys


class Site:
    """A var directory with a database."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.var = directory
        self.pseudonymiser = Pseudonymiser(SiteKeys.open(directory / "keys").pseudonym)

    def run(self, *arguments: str) -> Result:
        """In this process (a process each would cost more than what it does)."""
        environment = {"CDS_VAR_DIR": str(self.var), "CDS_DATABASE_URL": self.url, "COLUMNS": "200"}
        return CliRunner().invoke(app, list(arguments), env=environment)

    def newest(self, activity: str) -> dict[str, Any]:
        query = "SELECT payload FROM events WHERE action = :a ORDER BY seq DESC LIMIT 1"
        [(payload,)] = asyncio.run(rows(self.url, query, a=activity))
        found: dict[str, Any] = json.loads(payload)
        return found


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Site:
    made = Site(database_url, tmp_path)

    async def fill() -> None:
        async with trail(database_url, tmp_path / "spool", signer=Signer.open(tmp_path / "keys")) as audit:
            for number in range(5):
                patient = made.pseudonymiser.pseudonym("patient", f"patient-{number}", "")
                await audit.record(decision(new_id(), recorded=utc_now(), patient=patient))

    asyncio.run(fill())
    return made


def test_the_trail_is_listed_shown_exported_verified_and_each_use_is_in_it(site: Site) -> None:
    listed = site.run("audit", "list", "patient=patient-3", "--count", "5")
    assert listed.exit_code == 0, listed.stderr
    assert "patient-3" not in listed.stdout
    pseudonym = site.pseudonymiser.pseudonym("patient", "patient-3", "")
    assert pseudonym in listed.stdout
    found = site.newest("audit-searched")
    assert pseudonym in found["query"]
    assert found["detail"][0][0] == "operator"

    [(event_id,)] = asyncio.run(
        rows(site.url, "SELECT event_id FROM events WHERE patient_pseudonym = :p", p=pseudonym)
    )
    shown = site.run("audit", "show", event_id)
    assert json.loads(shown.stdout)["id"] == event_id
    assert site.run("audit", "show", "unknown").exit_code == 1

    for kind in ("ndjson", "csv"):
        out = site.var / f"out.{kind}"
        exported = site.run("audit", "export", str(out), "subtype=assess")
        assert exported.stdout.startswith("5 events in "), exported.stderr
        assert "5/5" in exported.stderr
    assert len((site.var / "out.ndjson").read_text().splitlines()) == 5
    assert len(list(csv.DictReader((site.var / "out.csv").open(newline="")))) == 5
    assert (site.newest("audit-exported"))["detail"][1:] == [["events", "5"], ["format", "csv"]]

    verified = site.run("audit", "verify")
    assert verified.exit_code == 0, verified.stdout + verified.stderr
    assert "the trail holds" in verified.stdout
    assert (site.newest("audit-verified"))["detail"][2] == ["findings", "0"]


def test_a_broken_trail_is_exit_code_1_and_the_event_is_named(site: Site) -> None:
    pem = site.run("audit", "public-key").stdout
    (site.var / "site.pem").write_text(pem)
    site.run("audit", "checkpoint")
    [(event_id,)] = asyncio.run(
        rows(site.url, "SELECT event_id FROM events WHERE action = 'assess' ORDER BY seq LIMIT 1")
    )
    asyncio.run(tamper(site.url, event_id))
    verified = site.run("audit", "verify", "--public-key", str(site.var / "site.pem"))
    assert verified.exit_code == 1
    assert f"changed: event {event_id}" in verified.stdout


async def tamper(url: str, event_id: str) -> None:
    engine = create_engine(url)
    async with engine.begin() as connection:
        if is_sqlite(url):
            await connection.execute(text("DROP TRIGGER events_no_update"))
        else:
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
        await connection.execute(
            text("UPDATE events SET payload = replace(payload, 'red-flag', 'none') WHERE event_id = :id"),
            {"id": event_id},
        )
    await engine.dispose()


def test_what_cannot_be_done_is_exit_code_2_and_says_why(site: Site, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nonsense")
    assert site.run("audit", "verify", "--public-key", str(tmp_path / "no.pem")).exit_code == 2
    (tmp_path / "no.jsonl").write_text("nonsense\n")
    broken = site.run("audit", "verify", "--checkpoints", str(tmp_path / "no.jsonl"))
    assert broken.exit_code == 2
    assert "line 1: not a checkpoint" in broken.stderr
    wrong = site.run("audit", "list", "date=someday-secret")
    assert wrong.exit_code == 2
    assert "search parameter date" in wrong.stderr
    assert "secret" not in wrong.stderr
    assert site.run("audit", "list", "nonsense").exit_code == 2
    assert site.run("audit", "export", "out.xml").exit_code == 2


def test_the_partitions_are_listed(site: Site) -> None:
    done = site.run("db", "partitions")
    assert done.exit_code == 0, done.stderr
    if is_sqlite(site.url):
        assert "nothing to do" in done.stdout
    else:
        assert "events_unfiled" in done.stdout
        assert f"events_{utc_now():%Y_%m}" in done.stdout
