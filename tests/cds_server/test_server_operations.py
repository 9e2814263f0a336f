"""What operators rely on: audit before answer, health, metrics, a responsive event loop, quiet logs."""

import json
import shutil
import threading
import time
from typing import Any

import httpx
import pytest
from audit_helpers import rows
from server_helpers import ASSESSMENT, Running, example, minimal, outcome, without

from cds_server.db.urls import sqlite_path


def big(entries: int) -> dict[str, Any]:
    """A request of many readable resources."""
    request = example("sepsis")
    vitals = request["prefetch"]["observations-vitals"]["entry"]
    template = json.dumps(vitals[0]["resource"])
    for number in range(entries):
        resource = json.loads(template) | {
            "id": f"copy-{number}",
            "effectiveDateTime": "2026-10-01T08:00:00Z",
        }
        vitals.append({"resource": resource})
    return request


async def test_an_answer_is_in_the_audit_trail_before_it_arrives(server: Running) -> None:
    [(before,)] = await rows(server.database_url, "SELECT count(*) FROM events")
    for count in range(1, 4):
        cards = server.post(ASSESSMENT, example("sepsis")).json()["cards"]
        [(after,)] = await rows(server.database_url, "SELECT count(*) FROM events")
        assert after == before + count
        shown = await rows(server.database_url, "SELECT uuid FROM shown_cards")
        assert {card["uuid"] for card in cards} <= {uuid for (uuid,) in shown}


async def test_a_refusal_of_a_readable_call_is_audited_too(start_server: Any) -> None:
    running = start_server()
    outcome(running.post(ASSESSMENT, minimal(prefetch={})), 412)
    [(status, severity, payload)] = await rows(
        running.database_url, "SELECT status, severity, payload FROM events WHERE action = 'hook-call'"
    )
    assert (status, severity) == (412, None)
    assert json.loads(payload)["rule"] == "refused: PrefetchIncomplete"


async def test_persons_are_pseudonyms_in_the_database(start_server: Any) -> None:
    running = start_server()
    request = minimal(context={"userId": "Practitioner/dr-house-42", "patientId": "patient-4711"})
    request["prefetch"]["patient"]["id"] = "patient-4711"
    assert running.post(ASSESSMENT, request).status_code == 200
    text = json.dumps(await rows(running.database_url, "SELECT * FROM events"), default=str)
    assert "dr-house-42" not in text
    assert "patient-4711" not in text


def test_logs_hold_no_patient(server: Running, capfd: pytest.CaptureFixture[str]) -> None:
    request = example("sepsis")
    server.post(ASSESSMENT, request)
    server.post(ASSESSMENT, without(request, "prefetch", "patient"))
    server.post(ASSESSMENT, b'{"hook": "Elena"')
    out, err = capfd.readouterr()
    for private in ("Elena", "1959", "Practitioner/example", "Patient/sepsis"):
        assert private not in out + err


def test_no_place_for_the_audit_event_means_503_and_no_cards(start_server: Any) -> None:
    running = start_server()
    assert running.post(ASSESSMENT, minimal()).status_code == 200
    spool = running.house.settings.var_dir / "spool"
    shutil.rmtree(spool)
    spool.write_text("a file where the directory was")
    # The database is gone, as on a volume that was unmounted; a lock would let the readiness flicker.
    database = sqlite_path(running.database_url)
    elsewhere = database.with_name("unmounted.db")
    database.rename(elsewhere)
    answer = running.post(ASSESSMENT, example("sepsis"))
    outcome(answer, 503)
    assert "cards" not in answer.json()
    assert answer.headers["retry-after"]
    outcome(running.client.get("/health/ready"), 503)
    elsewhere.rename(database)
    until = time.monotonic() + 20
    while running.post(ASSESSMENT, minimal()).status_code != 200:
        assert time.monotonic() < until, "the server did not recover when the database was back"
        time.sleep(0.2)


def test_live_and_ready(server: Running) -> None:
    assert server.client.get("/health/live").json() == {"status": "live"}
    ready = server.client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["audit"] == "database"
    assert ready.json()["knowledge"].startswith("rules-")


def test_metrics_count_calls_cards_and_issues_without_patients(server: Running) -> None:
    server.post(ASSESSMENT, example("sepsis"))
    text = server.client.get("/metrics").text
    for name in ("cds_call_seconds_bucket", "cds_calls_total", "cds_cards_total", "cds_audit_spool_depth"):
        assert name in text
    assert 'service="diagnostic-assessment"' in text
    assert "sepsis" not in text


def test_a_large_chart_does_not_hold_up_the_others(server: Running) -> None:
    body = json.dumps(big(8_000)).encode()
    assert 1_000_000 < len(body) < 10_000_000
    server.post(ASSESSMENT, body)
    waits: list[float] = []
    done = threading.Event()

    def ping() -> None:
        with httpx.Client(base_url=server.url) as client:
            while not done.is_set():
                began = time.perf_counter()
                client.get("/health/live")
                waits.append(time.perf_counter() - began)

    pinging = threading.Thread(target=ping)
    pinging.start()
    for _ in range(5):
        assert server.post(ASSESSMENT, body, timeout=60).status_code == 200
    done.set()
    pinging.join()
    waits.sort()
    assert len(waits) > 20
    assert waits[len(waits) // 2] < 0.05


def test_a_body_just_under_the_limit_is_answered(server: Running) -> None:
    request = minimal(padding="x" * 9_900_000)
    assert server.post(ASSESSMENT, request).status_code == 200
    outcome(server.post(ASSESSMENT, minimal(padding="x" * 10_000_000)), 413)


def test_concurrent_calls_are_all_answered_and_audited(server: Running) -> None:
    body = json.dumps(example("chest-pain")).encode()
    statuses: list[int] = []

    def call() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(10):
                answer = client.post(ASSESSMENT, content=body, headers={"Content-Type": "application/json"})
                statuses.append(answer.status_code)

    before = server.house.trail.state().committed
    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 80
    assert server.house.trail.state().committed == before + 80


def test_the_documentation_is_served(server: Running) -> None:
    assert server.client.get("/docs").status_code == 200
    assert server.client.get("/openapi.json").json()["info"]["title"] == "cds-server"
