"""`cds-server serve` with several worker processes: a token is good once, and a rate one, for all of them."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from audit_helpers import rows
from auth_helpers import BASE, Ehr, clients_file

WORKERS = 3
DISCOVERY = "/cds-services"


@contextmanager
def serving(database_url: str, directory: Path, clients: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env |= {
        "CDS_VAR_DIR": str(directory / "var"),
        "CDS_DATABASE_URL": database_url,
        "CDS_PORT": str(port),
        "CDS_WORKERS": str(WORKERS),
        "CDS_CLIENT_AUTH": "required",
        "CDS_TRUSTED_CLIENTS": str(clients),
        "CDS_PUBLIC_BASE_URL": BASE,
        "CDS_MODEL_BUNDLE": "none",
        "CDS_CLIENTS_RELOAD_SECONDS": "0.2",
    }
    command = [sys.executable, "-c", "from cds_server.cli import main; main()", "serve"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def test_a_token_is_good_once_for_all_workers_and_the_rate_is_one(database_url: str, tmp_path: Path) -> None:
    ehr = Ehr()
    (tmp_path / "keys.json").write_text(json.dumps(ehr.key_set()))
    entry = {"name": "ehr", "issuer": ehr.issuer, "jwks_file": "keys.json", "rate_per_minute": 20}
    with serving(database_url, tmp_path, clients_file(tmp_path, entry)) as url:
        statuses: list[list[int]] = []

        def present(headers: dict[str, str], found: list[int]) -> None:
            # A connection each: the kernel hands them to different workers.
            found.append(httpx.get(url + DISCOVERY, headers=headers, timeout=60).status_code)

        for _ in range(10):
            headers, found = ehr.headers(DISCOVERY), []
            threads = [threading.Thread(target=present, args=(headers, found)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            statuses.append(found)
        for found in statuses:
            assert sorted(found) == [200] + [401] * 7
        last = [
            httpx.get(url + DISCOVERY, headers=ehr.headers(DISCOVERY), timeout=60).status_code
            for _ in range(60)
        ]
        assert set(last) == {200, 429}
        assert last.index(429) < 60
    log = (tmp_path / "log").read_text()
    assert "replayed" in log
    assert ehr.token(DISCOVERY).split(".")[0] not in log


def test_all_workers_take_a_changed_list_and_one_records_it(sqlite_url: str, tmp_path: Path) -> None:
    stays, goes = Ehr("https://stays.example"), Ehr("https://goes.example")
    entries = []
    for name, ehr in (("stays", stays), ("goes", goes)):
        (tmp_path / f"{name}.json").write_text(json.dumps(ehr.key_set()))
        entries.append({"name": name, "issuer": ehr.issuer, "jwks_file": f"{name}.json"})
    clients = clients_file(tmp_path, *entries)

    def status(url: str, ehr: Ehr) -> int:
        # A connection each, so that the workers take turns.
        return httpx.get(url + DISCOVERY, headers=ehr.headers(DISCOVERY), timeout=60).status_code

    with serving(sqlite_url, tmp_path, clients) as url:
        assert {status(url, ehr) for ehr in (stays, goes) for _ in range(10)} == {200}
        clients_file(tmp_path, entries[0])
        until, refused = time.monotonic() + 120, 0
        while refused < 30:  # in a row: no worker is left that still knows it
            assert time.monotonic() < until, "a worker goes on with the former list"
            refused = refused + 1 if status(url, goes) == 401 else 0
        assert {status(url, stays) for _ in range(10)} == {200}
    query = "SELECT payload FROM events WHERE action = 'setting-changed'"
    [(recorded,)] = asyncio.run(rows(sqlite_url, query))
    assert '["removed","goes"]' in recorded and "stays" not in recorded


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_network_is_not_opened_without_the_settings_that_make_it_safe(
    tmp_path: Path, workers: str
) -> None:
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    env |= {"CDS_VAR_DIR": str(tmp_path), "CDS_HOST": "0.0.0.0", "CDS_WORKERS": workers}
    done = subprocess.run(
        [sys.executable, "-c", "from cds_server.cli import main; main()", "serve"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    for name in ("CDS_TRUSTED_CLIENTS", "CDS_PUBLIC_BASE_URL", "CDS_ALLOW_UNAUTHENTICATED"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr
