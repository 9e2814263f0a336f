"""A changed file of trusted clients is taken in use by a running server, checked, and recorded."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from audit_helpers import rows
from auth_helpers import BASE, Ehr, clients_file, protected, published
from server_helpers import Running, start

from cds_server.auth.clients import TrustedClients
from cds_server.state import Knowledge

DISCOVERY = "/cds-services"
EVERY = 0.05


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that a running server does by itself."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def status(running: Running, ehr: Ehr, **options: Any) -> int:
    return running.client.get(DISCOVERY, headers=ehr.headers(DISCOVERY, **options)).status_code


def refused(running: Running) -> Any:
    return running.client.get("/health/ready").json().get("clients_refused")


def recorded(url: str) -> list[dict[str, Any]]:
    """What the trail says of the file's content, oldest first."""
    found = asyncio.run(rows(url, "SELECT payload FROM events WHERE action = 'setting-changed' ORDER BY seq"))
    events = [json.loads(payload) for (payload,) in found]
    return [one for one in events if "content" in one["entities"][0]["name"]]


def told(event: dict[str, Any]) -> dict[str, str]:
    return dict(event["entities"][0]["detail"])


def entry(ehr: Ehr, name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "issuer": ehr.issuer, "jku": ehr.jku} | changes


@pytest.fixture
def ehrs() -> Iterator[tuple[Ehr, Ehr]]:
    with ExitStack() as stack:
        first = stack.enter_context(published(Ehr("https://first.example")))
        yield first, stack.enter_context(published(Ehr("https://second.example")))


@pytest.fixture
def guarded(start_server: Any, tmp_path: Path) -> Callable[..., Running]:
    def begin(*entries: dict[str, Any], **changes: Any) -> Running:
        found: Running = start_server(
            **protected(clients_file(tmp_path, *entries), clients_reload_seconds=EVERY, **changes)
        )
        return found

    return begin


def test_an_added_client_gets_in_and_a_removed_one_does_not(
    guarded: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr]
) -> None:
    first, second = ehrs
    running = guarded(entry(first, "first"))
    assert (status(running, first), status(running, second)) == (200, 401)
    clients_file(tmp_path, entry(first, "first"), entry(second, "second"))
    until(lambda: status(running, second) == 200)
    assert status(running, first) == 200
    clients_file(tmp_path, entry(second, "second", rate_per_minute=7777))
    until(lambda: status(running, first) == 401)
    assert status(running, second) == 200
    until(lambda: len(recorded(running.database_url)) == 2)
    added, changed = recorded(running.database_url)
    assert told(added) == {"added": "second"}
    assert told(changed) == {"removed": "first", "changed": "second"}
    assert added["entities"][0]["what"] == "urn:cds-server:setting:CDS_TRUSTED_CLIENTS"
    assert refused(running) is None


def test_what_was_fetched_for_an_unchanged_client_is_kept(
    guarded: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr]
) -> None:
    first, second = ehrs
    running = guarded(entry(first, "first"))
    assert status(running, first) == 200
    assert first.asked == 1
    # Its keys come from where they came from before, whatever else is said of it.
    clients_file(tmp_path, entry(first, "renamed", rate_per_minute=9999), entry(second, "second"))
    until(lambda: status(running, second) == 200)
    first.misbehave = "down"
    assert status(running, first) == 200
    assert first.asked == 1
    # Keys from elsewhere are asked for.
    clients_file(tmp_path, entry(first, "first", jku=second.jku), entry(second, "second"))
    until(lambda: status(running, first) == 401)


def test_a_file_that_does_not_hold_changes_nothing_and_is_told(
    guarded: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    first, second = ehrs
    running = guarded(entry(first, "first"))
    clients_file(tmp_path, entry(second, "second"), entry(first, "first", rate_per_minute=0))
    until(lambda: refused(running) is not None)
    found = refused(running)
    assert found["faults"] == 1 and set(found) == {"faults", "since"}
    assert (status(running, first), status(running, second)) == (200, 401)
    assert "cds_trusted_clients_refused 1.0" in running.house.metrics.text().decode()
    until(lambda: len(recorded(running.database_url)) == 1)
    time.sleep(4 * EVERY)  # it is looked at again and again, and told once
    [event] = recorded(running.database_url)
    assert (event["status"], event["reason"], told(event)) == (422, "clients-file-invalid", {"faults": "1"})
    log = b"".join(capfdbinary.readouterr()).decode()
    assert log.count("clients.refused") == 1
    assert "client first: rate_per_minute" in log
    clients_file(tmp_path, entry(first, "first"))
    until(lambda: refused(running) is None)
    assert "cds_trusted_clients_refused 0.0" in running.house.metrics.text().decode()
    assert len(recorded(running.database_url)) == 1  # the list is what it was
    (tmp_path / "clients.toml").unlink()
    until(lambda: refused(running) is not None)
    assert status(running, first) == 200


def test_a_file_that_lacked_another_one_holds_once_that_is_there(
    guarded: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr]
) -> None:
    first, second = ehrs
    running = guarded(entry(first, "first"))
    clients_file(tmp_path, entry(second, "second", jku=None, jwks_file="second.json"))
    until(lambda: refused(running) is not None)
    (tmp_path / "second.json").write_text(json.dumps(second.key_set()))
    until(lambda: status(running, second) == 200)
    assert refused(running) is None


def test_a_call_that_waits_while_its_client_is_removed_is_refused(
    guarded: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr]
) -> None:
    first, second = ehrs
    running = guarded(entry(first, "first"), entry(second, "second"))
    first.misbehave = "slow"
    former = running.house.clients

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(httpx.get, running.url + DISCOVERY, headers=first.headers(DISCOVERY), timeout=60)
        until(lambda: first.asked > 0)
        running.house.clients = TrustedClients(
            tuple(client for client in former.clients if client.name == "second"), former.outbounds
        )
        assert call.result().status_code == 401


def test_a_change_while_the_server_was_down_is_recorded_at_its_start(
    knowledge: Knowledge, tmp_path: Path, _sqlite_template: Path, ehrs: tuple[Ehr, Ehr]
) -> None:
    first, second = ehrs
    directory = tmp_path / "server"
    directory.mkdir()
    with start(
        knowledge, directory, _sqlite_template, **protected(clients_file(tmp_path, entry(first, "first")))
    ) as running:
        assert recorded(running.database_url) == []
    changed = clients_file(tmp_path, entry(second, "first"), entry(first, "new"))
    with start(knowledge, directory, _sqlite_template, **protected(changed)) as running:
        [event] = recorded(running.database_url)
        assert told(event) == {"added": "new", "changed": "first"}
    # `start` gives each server a new database, so what is in it was recorded by that one.
    with start(knowledge, directory, _sqlite_template, **protected(changed)) as running:
        assert recorded(running.database_url) == []


def test_a_site_may_look_at_the_start_only(start_server: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr]) -> None:
    first, second = ehrs
    running: Running = start_server(
        **protected(clients_file(tmp_path, entry(first, "first")), clients_reload_seconds=0)
    )
    clients_file(tmp_path, entry(second, "second"))
    time.sleep(0.3)
    assert (status(running, first), status(running, second)) == (200, 401)
    assert running.house.settings.base_url == BASE


def test_a_file_of_authorities_must_hold_one(guarded: Any, tmp_path: Path, ehrs: tuple[Ehr, Ehr]) -> None:
    first, _ = ehrs
    running = guarded(entry(first, "first"))
    (tmp_path / "ca.pem").write_text("not a certificate")
    clients_file(tmp_path, entry(first, "first", ca_file="ca.pem"))
    until(lambda: refused(running) is not None)
    assert status(running, first) == 200
