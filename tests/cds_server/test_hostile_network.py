"""Hostile timing, hostile times, and secrets in messages: what an attacker or a slip would try first."""

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from server_helpers import ASSESSMENT, Running, minimal, outcome

COMMAND = str(Path(sys.executable).with_name("cds-server"))


def opened(running: Running, head: str, body: bytes = b"") -> socket.socket:
    address = urlsplit(running.url)
    connection = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10)
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return connection


def large_head(length: int) -> str:
    host = "Host: localhost"
    return f"POST {ASSESSMENT} HTTP/1.1\n{host}\nContent-Type: application/json\nContent-Length: {length}"


def test_a_body_that_does_not_come_is_408_and_gives_its_place_to_others(
    start_server: Callable[..., Running],
) -> None:
    running = start_server(in_flight_bytes=1_000_000, inline_body_bytes=10_000, body_timeout_ms=500)
    with opened(running, large_head(1_000_000), b'{"hook":') as slow:
        began = time.perf_counter()
        answer = running.post(ASSESSMENT, minimal(padding="x" * 20_000), timeout=10)
        assert answer.status_code == 200
        assert time.perf_counter() - began < 5
        refused = slow.recv(65_536).decode()
    assert refused.startswith("HTTP/1.1 408 ")
    assert '"resourceType":"OperationOutcome"' in refused
    assert "connection: close" in refused.lower()


def test_a_body_that_drips_does_not_live_on_each_drop(start_server: Callable[..., Running]) -> None:
    running = start_server(body_timeout_ms=400)
    with opened(running, large_head(1_000)) as slow:
        began = time.perf_counter()
        slow.settimeout(0.1)
        received = b""
        while not received and time.perf_counter() - began < 5:
            slow.sendall(b" ")
            try:
                received = slow.recv(65_536)
            except TimeoutError:
                continue
    assert received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_utc_clock_shows_is_refused(server: Running, moment: str) -> None:
    item = {"card": str(uuid.uuid4()), "outcome": "accepted", "outcomeTimestamp": moment}
    outcome(server.post(f"{ASSESSMENT}/feedback", {"feedback": [item]}), 400)
    body = minimal(extension={"org.cds-server.as-of": {"instant": moment}})
    outcome(server.post(ASSESSMENT, body), 400)


def test_a_refused_setting_shows_no_secret(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "CDS_VAR_DIR": str(tmp_path),
        "CDS_CLIENT_AUTH": "required",
        "CDS_CIPHER_KEY": "SECRET-key",
        "CDS_DATABASE_URL": "postgresql+asyncpg://u:SECRET-pw@h/d",
    }
    done = subprocess.run(
        [COMMAND, "services"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "CDS_CLIENT_AUTH" in done.stderr
    assert "SECRET" not in done.stdout + done.stderr


def test_the_documentation_page_needs_no_other_host_and_no_script(server: Running) -> None:
    page = server.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "<script" not in page.text
    described = json.loads(server.client.get("/openapi.json").content)
    for path in [*described["paths"], "/cds-services", "/fhir/$assess", "/openapi.json", "/health/ready"]:
        assert path in page.text
    for field in ("symptoms", "vitals", "Accept-Language"):
        assert field in page.text
    assert server.client.get("/redoc").status_code == 404


def test_help_of_serve_lists_every_setting_with_its_default() -> None:
    from cds_server.settings import Settings  # noqa: PLC0415 - only here

    # The command must show these settings, not those of another checkout that the environment may hold.
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment["COLUMNS"] = "120"
    done = subprocess.run(
        [COMMAND, "serve", "--help"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    for name, field in Settings.model_fields.items():
        assert f"CDS_{name.upper()}" in done.stdout
        if field.default not in (None, ""):
            assert str(field.default) in done.stdout
    assert "PEM file with the CAs" in done.stdout
