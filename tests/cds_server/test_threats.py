"""Attacks that no other file tries: what was found or doubted while docs/security.md was written."""

import asyncio
import base64
import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from auth_helpers import Ehr, clients_file, protected, published
from server_helpers import ASSESSMENT, Running, minimal, outcome
from smart_helpers import Site
from test_audit_search import FORM, record_all
from test_user_tokens import AUDIENCE, Provider, bearer, begin, provider

from cds_server.audit import Access, new_id
from cds_server.audit.reader import AuditReader
from cds_server.clock import utc_now
from cds_server.db.engine import create_engine
from cds_server.db.urls import asyncpg_dsn
from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.destruction import Destruction
from cds_server.deployment.source import BundleSource
from cds_server.settings import Settings

__all__ = ["begin", "provider"]
Start = Callable[..., Running]


@pytest.mark.parametrize(
    "name", ["rebound.attacker.example", "rebound.attacker.example:80", "127.0.0.1.nip.example"]
)
@pytest.mark.parametrize("path", ["/fhir/AuditEvent", "/audit", "/cds-services", "/metrics"])
def test_a_page_whose_name_was_rebound_to_this_machine_reads_nothing(
    server: Running, name: str, path: str
) -> None:
    refused = server.client.get(path, headers={"Host": name, "Origin": f"http://{name}"})
    assert outcome(refused, 421)["code"] == "forbidden"
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    "name", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "localhost.", "cds.example"]
)
def test_the_names_of_this_machine_and_the_public_one_are_its_own(start_server: Start, name: str) -> None:
    running = start_server(public_base_url="https://cds.example")
    assert running.client.get("/fhir/AuditEvent", headers={"Host": name}).status_code == 200


def test_who_proves_who_it_is_may_use_any_name(start_server: Start, tmp_path: Path) -> None:
    """A proxy may pass on what it likes: a token says what it is for (the audience), not the header."""
    with published(Ehr()) as ehr:
        running = start_server(**protected(ehr.file(tmp_path)))
        headers = ehr.headers(ASSESSMENT) | {"Host": "inside.example"}
        assert running.post(ASSESSMENT, minimal(), headers=headers).status_code == 200


@pytest.mark.parametrize("path", [ASSESSMENT, f"{ASSESSMENT}/feedback", "/fhir/$assess", "/api/v1/predict"])
@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_foreign_page_can_send_unasked_is_not_taken(
    server: Running, path: str, kind: str | None
) -> None:
    headers = {"Origin": "https://attacker.example"} | ({"Content-Type": kind} if kind else {})
    assert outcome(server.client.post(path, content=b"{}", headers=headers), 415)


def test_an_integration_engine_may_leave_the_type_out(server: Running) -> None:
    request = server.client.build_request("POST", ASSESSMENT, json=minimal())
    del request.headers["content-type"]
    assert server.client.send(request).status_code == 200


@pytest.mark.parametrize("beginning", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_of_an_export_begins_a_formula(start_server: Start, beginning: str) -> None:
    running = start_server()
    client = f"{beginning}cmd|' /C calc'!A0"
    record_all(
        running, [Access(event_id=new_id(), recorded=utc_now(), activity="login", service="x", client=client)]
    )
    answer = running.client.post("/audit/export", content="activity=login&format=csv", headers=FORM)
    [row] = csv.DictReader(io.StringIO(answer.content.decode(), newline=""))
    assert row["client"] == f"'{client}"


@pytest.mark.parametrize(
    "cursor",
    [
        "0001-01-01T00:00:00+14:00 x",
        "9999-12-31T23:59:59-14:00 x",
        "2026-01-01T00:00:00+00:00 a\x00b",
        "2026-01-01 x",
    ],
)
def test_a_cursor_that_was_made_up_is_400(server: Running, cursor: str) -> None:
    text = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
    refused = server.client.get("/fhir/AuditEvent", params={"_after": text})
    assert outcome(refused, 400)["expression"] == ["_after"]


async def test_an_id_that_no_column_holds_is_of_no_event(database_url: str) -> None:
    engine = create_engine(database_url)
    try:
        for event_id in ("a\x00b", "", "x" * 70, "ä", "a/b"):
            assert await AuditReader(engine).one(event_id) is None
    finally:
        await engine.dispose()


def test_one_issuer_for_ehr_and_people_does_not_mix_their_tokens(
    begin: Callable[..., Site], provider: Provider, tmp_path: Path
) -> None:
    """The same issuer and keys for CDS clients, access tokens and id tokens: each is good for its own use."""
    client = {"name": "both", "issuer": provider.url, "jku": f"{provider.url}/keys"}
    server = begin(trusted_clients=clients_file(tmp_path, client))
    path = "/fhir/$assess"
    body: dict[str, Any] = {"resourceType": "Bundle", "type": "collection"}
    body["entry"] = [{"resource": minimal()["prefetch"]["patient"]}]

    def status(token: str) -> int:
        with server.browser() as browser:
            return browser.post(path, json=body, headers=bearer(token)).status_code

    assert status(provider.token()) == 200
    # A CDS client's token for this endpoint, of the same issuer: the identity provider's tokens come first.
    assert status(provider.token({"typ": "JWT"}, aud=AUDIENCE + path, jti="one")) == 401
    assert status(provider.token(aud=AUDIENCE + path, jti="two")) == 401
    # An id token, of the app's client id or even of our audience.
    assert status(provider.token({"typ": "JWT"}, aud="console", nonce="n")) == 401
    assert status(provider.token({"typ": "JWT"}, nonce="n")) == 401


def test_a_line_break_in_a_forwarded_address_is_no_log_line(
    start_server: Start, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Nothing of a header gets into a log line but a request id of plain characters."""
    running = start_server(trusted_proxies="127.0.0.1", ip_allowlist="10.0.0.0/8")
    headers = {"X-Forwarded-For": "10.0.0.1 level=error forged", "X-Request-Id": "forged entry=1"}
    answer = running.client.get("/cds-services", headers=headers)
    assert answer.status_code == 403
    assert b"forged" not in b"".join(capfdbinary.readouterr())
    assert "forged" not in str(answer.headers) + answer.text


def test_a_forged_hop_does_not_get_past_the_list_of_networks(start_server: Start) -> None:
    running = start_server(trusted_proxies="", ip_allowlist="10.0.0.0/8")
    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
        assert running.client.get("/cds-services", headers={name: "10.0.0.1"}).status_code == 403
    behind = start_server(trusted_proxies="127.0.0.1", ip_allowlist="10.0.0.0/8")
    # The proxy appends whom it saw; what stands before was written by the caller.
    for hops, status in (("10.0.0.1, 203.0.113.9", 403), ("203.0.113.9, 10.0.0.1", 200)):
        answer: httpx.Response = behind.client.get("/cds-services", headers={"X-Forwarded-For": hops})
        assert answer.status_code == status


async def test_a_key_that_is_being_stored_does_not_survive_its_patients_erasure(postgresql_url: str) -> None:
    """The key's transaction is open while the erasure begins: neither sees the other's rows."""
    made = datetime(2026, 1, 1, tzinfo=UTC)
    storing = await asyncpg.connect(asyncpg_dsn(postgresql_url))
    engine = create_engine(postgresql_url)
    try:
        transaction = storing.transaction()
        await transaction.start()
        await storing.execute(
            "INSERT INTO patient_keys (key_id, created, subject, wrapped, master) VALUES ($1, $2, $3, $4, 1)",
            "k",
            made,
            "p1-someone",
            "w",
        )
        erasing = asyncio.create_task(Destruction(engine).erase(["p1-someone"], utc_now()))
        while not erasing.done() and not await storing.fetchval(  # noqa: ASYNC110 what is waited for is in the database
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'patient_keys'::regclass"
        ):
            await asyncio.sleep(0.01)
        await transaction.commit()
        await erasing
        assert await storing.fetchval("SELECT count(*) FROM patient_keys") == 0
    finally:
        await storing.close()
        await engine.dispose()


@pytest.mark.parametrize(
    "identity", ["../outside", "/etc/passwd", "..", "a/b", "a\x00b", "", ".hidden", "a\nb"]
)
def test_no_id_of_a_bundle_leads_out_of_the_archive(tmp_path: Path, identity: str) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    settings = Settings(var_dir=tmp_path)
    (tmp_path / "outside.zip").write_bytes(b"not looked at")
    kept = BundleArchive(archive, BundleSource.of(settings))
    before = sorted(tmp_path.rglob("*"))
    kept.keep(identity)
    assert kept.find(identity) is None
    assert sorted(tmp_path.rglob("*")) == before
