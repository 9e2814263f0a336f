"""What the server's tests share: a running server, requests of made-up patients, reading answers."""

import copy
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fhir_standin import serving

from cds_server.app import Application, create_app
from cds_server.clock import utc_now
from cds_server.settings import Settings
from cds_server.state import House, Knowledge

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ASSESSMENT = "/cds-services/diagnostic-assessment"
REVIEW = "/cds-services/order-review"


@dataclass
class Running:
    """A server under test: its address, its inside, a client."""

    url: str
    house: House
    client: httpx.Client
    database_url: str
    app: Application

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """POST a value as JSON, or bytes as they are."""
        if isinstance(body, bytes):
            headers = {"Content-Type": "application/json"} | options.pop("headers", {})
            return self.client.post(path, content=body, headers=headers, **options)
        return self.client.post(path, json=body, **options)


@contextmanager
def start(knowledge: Knowledge, directory: Path, template: Path, **changes: Any) -> Iterator[Running]:
    """A server with a database of its own; `changes` are settings, and `clock` its time."""
    clock = changes.pop("clock", utc_now)
    database = directory / "cds.db"
    shutil.copy(template, database)
    url = f"sqlite+aiosqlite:///{database}"
    settings = Settings(**{"var_dir": directory, "database_url": url, **changes})
    app = create_app(settings, knowledge=knowledge, clock=clock)
    with serving(app) as base, httpx.Client(base_url=base, timeout=30) as client:
        yield Running(base, app.state.house, client, url, app)


def example(name: str) -> dict[str, Any]:
    """One of the shipped example requests."""
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def cards(server: Running, name: str, language: str = "en") -> list[dict[str, Any]]:
    """The cards that a server answers an example with."""
    request = example(name)
    path = REVIEW if request["hook"] == "order-select" else ASSESSMENT
    answer = server.post(path, request, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["cards"]
    return found


def minimal(**changes: Any) -> dict[str, Any]:
    """The least request that is answered with 200."""
    request: dict[str, Any] = {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "context": {"userId": "Practitioner/1", "patientId": "p"},
        "prefetch": {
            "patient": {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-05-01"}
        },
    }
    return request | changes


def without(request: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy without the member at `path`."""
    changed = copy.deepcopy(request)
    target = changed
    for step in path[:-1]:
        target = target[step]
    del target[path[-1]]
    return changed


def with_member(request: dict[str, Any], value: Any, *path: str) -> dict[str, Any]:
    """A copy with `value` at `path`."""
    changed = copy.deepcopy(request)
    target = changed
    for step in path[:-1]:
        target = target.setdefault(step, {})
    target[path[-1]] = value
    return changed


def outcome(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The one issue of a refusal; checks that it is one of the expected status."""
    assert answer.status_code == status, (answer.status_code, answer.text[:400])
    assert answer.headers["content-type"] == "application/fhir+json"
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome"
    [issue] = body["issue"]
    assert issue["severity"] == "error"
    assert issue["code"]
    assert issue["diagnostics"]
    assert "Traceback" not in answer.text
    found: dict[str, Any] = issue
    return found


def empty_members(value: Any, path: str = "$") -> list[str]:
    """Where a body holds null, an empty text, array or object (CDS Hooks A3, A4)."""
    if value is None or value in ("", [], {}):
        return [path]
    found: list[str] = []
    if isinstance(value, dict):
        for name, inner in value.items():
            found += empty_members(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += empty_members(inner, f"{path}[{number}]")
    return found
