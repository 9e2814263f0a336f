"""Patients with marked values go through every route and every error of a real server; no mark comes out.

The marks are names, identifiers, free text, values with unusual digits, tokens, a FHIR server's address.
They are looked for in what the server logs at its most talkative, in its metrics, in every refusal, in
headers, and in every file it leaves on disk: database, spool, archive.  An answer may hold what it is for
(cards), a refusal never.

Routes are taken from the running application: a new one is pushed as well, or fails the test that lists them.
"""

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from audit_helpers import rows
from decisions_helpers import ROOT, everything_on_disk
from fhir_standin import Standin, endless, redirecting, serving, status
from server_helpers import start
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from cds_server.app import create_app
from cds_server.settings import Settings
from cds_server.state import Knowledge

SERVICE = "/cds-services/diagnostic-assessment"
MARKS = {
    "family name": "Xylomarkson",
    "given name": "Quodvultdea",
    "patient id": "zq-patient-7731904",
    "MRN": "MRN-8841729305",
    "user id": "zq-practitioner-55120",
    "encounter": "zq-encounter-90217",
    "free text": "grandmotherswhisperedsecret",
    "code": "zzcode991177",
    "value": "38.91734",
    "laboratory value": "317.82649",
    "token": "zqtoken.A1B2C3D4E5F6.sig",
    "authorization header": "zqbearer.9Z8Y7X.sig",
    "server path": "zq-tenant-4417",
    "comment": "commentaboutthefamily",
    "reason": "reasontypedbyhand",
    "path": "zq-path-element-3391",
    "query": "zq-query-value-2210",
    "member": "zqmember66123",
}
COVERED = {
    "/cds-services",
    "/cds-services/{service_id}",
    "/cds-services/{service_id}/feedback",
    "/fhir/$assess",
    "/fhir/metadata",
    "/fhir/OperationDefinition/assess",
    "/fhir/AuditEvent",
    "/fhir/AuditEvent/_search",
    "/fhir/AuditEvent/{event_id}",
    "/fhir/RiskAssessment/{id}",
    "/audit",
    "/audit/event/{event_id}",
    "/audit/export",
    "/audit/export.js",
    "/audit/style.css",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/api/v1/predict",
    "/api/v1/aggregates",
    "/app",
    "/app/",
    "/app/style.css",
    "/smart/launch",
    "/smart/callback",
    "/smart/callback/{ehr}",
    "/smart/jwks.json",
    "/smart/logout",
    "/docs",
    "/openapi.json",
}
"""Every route is pushed by its own tests below with marked bodies that it understands; add a route here only
together with a marked request in `deliberate`, unless it takes nothing of a patient."""


def patient() -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": MARKS["patient id"],
        "gender": "female",
        "birthDate": "1961-03-17",
        "name": [{"family": MARKS["family name"], "given": [MARKS["given name"]]}],
        "identifier": [{"system": "urn:oid:1.2.3", "value": MARKS["MRN"]}],
    }


def observation(code: str, value: str, unit: str, **more: Any) -> str:
    body = {
        "resourceType": "Observation",
        "id": MARKS["code"],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}], "text": MARKS["free text"]},
        "subject": {"reference": f"Patient/{MARKS['patient id']}"},
        "note": [{"text": MARKS["free text"]}],
        "valueQuantity": {"value": "@", "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
    }
    return json.dumps(body | more).replace('"@"', value)


def resources() -> list[str]:
    condition = {
        "resourceType": "Condition",
        "id": MARKS["member"],
        "subject": {"reference": f"Patient/{MARKS['patient id']}"},
        "code": {"coding": [{"system": "urn:local", "code": MARKS["code"]}], "text": MARKS["free text"]},
    }
    return [
        json.dumps(patient()),
        observation("8310-5", MARKS["value"], "Cel"),
        observation("2345-7", MARKS["laboratory value"], "mg/dL"),
        observation("2345-7", MARKS["laboratory value"], MARKS["code"]),
        observation("8310-5", "3707.31", "Cel", status=MARKS["code"]),
        json.dumps(condition),
        json.dumps({"resourceType": MARKS["member"], "id": MARKS["code"]}),
    ]


def collection(kind: str = "collection") -> str:
    entries = ", ".join(f'{{"resource": {one}}}' for one in resources())
    return f'{{"resourceType": "Bundle", "type": "{kind}", "entry": [{entries}]}}'


def hook(server: str = "", **changes: Any) -> str:
    request: dict[str, Any] = {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "context": {
            "userId": f"Practitioner/{MARKS['user id']}",
            "patientId": MARKS["patient id"],
            "encounterId": MARKS["encounter"],
        },
        "prefetch": {"patient": patient(), "observations": "@@"},
        MARKS["member"]: MARKS["free text"],
    }
    if server:
        request["fhirServer"] = server
        request["fhirAuthorization"] = {
            "access_token": MARKS["token"],
            "token_type": "Bearer",
            "scope": "patient/*.read",
            "subject": "x",
        }
    return json.dumps(request | changes).replace('"@@"', collection("searchset"))


def feedback(**changes: Any) -> str:
    item = {
        "card": str(uuid.uuid4()),
        "outcome": "overridden",
        "outcomeTimestamp": "2026-11-20T09:40:00Z",
        "overrideReason": {
            "reason": {"code": MARKS["reason"], "system": MARKS["reason"], "display": MARKS["reason"]},
            "userComment": MARKS["comment"],
        },
    }
    return json.dumps({"feedback": [item | changes]})


def form(**changes: Any) -> str:
    body = {
        "age": 61,
        "sex": "female",
        "symptoms": [{"name": MARKS["free text"], "intensity": 7}],
        "vitals": {"temperature_c": float(MARKS["value"])},
    }
    return json.dumps(body | changes)


def deliberate(fhir: str) -> Iterator[tuple[str, str, str]]:
    """Method, path and body of requests that reach deep into each route, and into each of its refusals."""
    for body in (
        hook(),
        hook(fhir),
        hook(f"{fhir}/{MARKS['server path']}"),
        hook("http://127.0.0.1:9/" + MARKS["server path"]),
        hook("not a url " + MARKS["server path"]),
        hook(prefetch={}),
        hook(prefetch={"patient": None}),
        hook(context={"patientId": MARKS["patient id"]}),
        hook(context={"userId": 7, "patientId": [MARKS["patient id"]]}),
        hook(hook=MARKS["free text"]),
        hook(hookInstance=MARKS["free text"]),
        hook(extension={"org.cds-server.as-of": {"instant": MARKS["free text"]}}),
        hook(prefetch={"patient": patient() | {"id": MARKS["code"]}}),
        hook(prefetch={"patient": patient() | {"birthDate": MARKS["free text"], "gender": [MARKS["code"]]}}),
        hook(prefetch={"patient": patient() | {"active": {"x": MARKS["free text"]}}}),
        hook()[:-40],
        f'"{MARKS["free text"]}"',
        f'{{"{MARKS["member"]}": 1}}',
        "[" * 5000 + MARKS["free text"],
    ):
        yield "POST", SERVICE, body
        yield "POST", f"/cds-services/{MARKS['path']}", body
    orders = hook(
        hook="order-select",
        context={
            "userId": MARKS["user id"],
            "patientId": MARKS["patient id"],
            "selections": [MARKS["code"]],
            "draftOrders": {
                "resourceType": "Bundle",
                "entry": [
                    {
                        "resource": {
                            "resourceType": "MedicationRequest",
                            "id": MARKS["code"],
                            "status": "draft",
                        }
                    }
                ],
            },
        },
    )
    yield "POST", "/cds-services/order-review", orders
    yield "POST", "/cds-services/order-review", orders.replace('"Bundle"', f'"{MARKS["code"]}"', 1)
    for body in (
        feedback(),
        feedback(card=MARKS["free text"]),
        feedback(outcome=MARKS["free text"]),
        feedback(outcomeTimestamp=MARKS["free text"]),
        feedback(acceptedSuggestions=[{"id": MARKS["free text"]}]),
        feedback(overrideReason={"reason": {"code": MARKS["reason"] * 60}}),
        feedback()[:-9],
    ):
        yield "POST", f"{SERVICE}/feedback", body
        yield "POST", f"/cds-services/{MARKS['path']}/feedback", body
    for body in (
        collection(),
        collection()[:-30],
        collection().replace('"Patient"', '"Person"', 1),
        collection().replace("[", f'[{{"resource": {json.dumps(patient() | {"id": "other"})}}}, ', 1),
        json.dumps(patient()),
        json.dumps([MARKS["free text"]]),
    ):
        yield "POST", "/fhir/$assess", body
    for body in (
        form(),
        form(age=MARKS["free text"]),
        form(**{MARKS["member"]: 1}),
        form(symptoms=[{"name": MARKS["free text"], "code": MARKS["code"]}]),
        form(symptoms=MARKS["free text"]),
        form(vitals={"consciousness": MARKS["free text"], MARKS["member"]: 3}),
        form()[:-12],
    ):
        yield "POST", "/api/v1/predict", body
    for query in ("by=severity&from=2026-01&to=2026-01", f"by={MARKS['query']}", f"from={MARKS['query']}"):
        yield "GET", f"/api/v1/aggregates?{query}", ""
    yield from launches(fhir)


def launches(fhir: str) -> Iterator[tuple[str, str, str]]:
    """The way in by a launch: begun at the registered EHR and at others, ended with all kinds of lies."""
    for iss in (fhir, f"{fhir}/{MARKS['server path']}", MARKS["free text"], ""):
        for launch in (MARKS["token"], MARKS["patient id"] * 200, "\x00" + MARKS["free text"]):
            yield "GET", f"/smart/launch?{urlencode({'iss': iss, 'launch': launch})}", ""
    yield "GET", f"/smart/launch?iss={MARKS['query']}&iss={MARKS['query']}", ""
    for path in ("/smart/callback", "/smart/callback/ehr", f"/smart/callback/{MARKS['path']}"):
        for query in (
            {"state": MARKS["query"], "code": MARKS["token"]},
            {"state": MARKS["query"], "code": MARKS["token"], "iss": f"{fhir}/{MARKS['server path']}"},
            {"state": MARKS["query"], "error": MARKS["free text"], "error_description": MARKS["comment"]},
            {"code": MARKS["token"]},
        ):
            yield "GET", f"{path}?{urlencode(query)}", ""
    for query in ({"lang": MARKS["query"]}, {"out": MARKS["query"]}, {"patient": MARKS["patient id"]}):
        yield "GET", f"/app/?{urlencode(query)}", ""
        yield "GET", f"/app?{urlencode(query)}", ""


def routes_of(app: Any) -> set[str]:
    """The path of every route that the application has."""
    found: set[str] = set()

    def visit(routes: list[BaseRoute], prefix: str = "") -> None:
        for route in routes:
            path = prefix + getattr(route, "path", "")
            included = getattr(route, "original_router", None)  # FastAPI's way of including a router
            if included is not None or isinstance(route, Mount):
                visit(list((included or route).routes), path)
                continue
            found.add(path)

    visit(list(app.router.routes))
    hooks = app.hook_calls
    while not hasattr(hooks, "routes"):
        hooks = hooks._app
    visit(list(hooks.routes))
    return found


@pytest.fixture(scope="module")
def application(knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory) -> Any:
    var = tmp_path_factory.mktemp("leaks")
    return create_app(
        Settings(var_dir=var, database_url=f"sqlite+aiosqlite:///{var}/x.db"), knowledge=knowledge
    )


def test_a_new_route_is_noticed(application: Any) -> None:
    assert routes_of(application) == COVERED, "push marked requests through the new route, then list it"


@dataclass
class Pushed:
    """What came back, without answers that are allowed to speak of the patient."""

    refusals: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    read: int = 0


@dataclass
class RealServer:
    """A server process with everything it wrote."""

    url: str
    var: Path
    log: Path
    process: subprocess.Popen[bytes]


def begin(var: Path, log: Path, **environment: str) -> RealServer:
    """Starts `cds-server serve` in a process of its own; returns when it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [clean.get("PYTHONPATH")])])
    settings = {
        "CDS_PORT": str(port),
        "CDS_VAR_DIR": str(var),
        "CDS_LOG_LEVEL": "debug",
        "CDS_FHIR_TIME_BUDGET_MS": "700",
        "CDS_FHIR_MAX_RESPONSE_BYTES": "60000",
        "CDS_MAX_BODY_BYTES": "200000",
        "PYTHONASYNCIODEBUG": "0",
        "PYTHONPATH": path,
    }
    environment = clean | settings | environment
    command = [sys.executable, "-c", "from cds_server.cli import main; main()"]
    subprocess.run([*command, "db", "upgrade"], env=environment, check=True, capture_output=True)
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "serve"], env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        try:
            httpx.get(f"{url}/health/live")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return RealServer(url, var, log, process)


def send(
    client: httpx.Client, pushed: Pushed, method: str, path: str, body: str | bytes, **headers: str
) -> None:
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {MARKS['authorization header']}",
    } | headers
    answer = client.request(method, path, content=body, headers=headers)
    pushed.statuses.add(answer.status_code)
    pushed.headers.append(str(answer.headers))
    if answer.status_code >= 400:
        pushed.refusals.append(answer.text)


def push(server: RealServer, application: Any, fhir: str) -> Pushed:
    """Everything through every route: what it is made for, and what it is not."""
    pushed = Pushed()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for method, path, body in deliberate(fhir):
            send(client, pushed, method, path, body)
        large = hook().encode() + b" " * 200_001
        bodies: list[str | bytes] = [
            hook(),
            collection(),
            form(),
            feedback(),
            "",
            "{",
            large,
            b"\xff\xfe" + hook().encode(),
        ]
        for template, method, body in itertools.product(
            sorted(routes_of(application)), ("GET", "POST"), bodies
        ):
            path = template.replace("{service_id}", "diagnostic-assessment")
            path = path.replace("{event_id}", MARKS["path"]).replace("{ehr}", MARKS["path"])
            path = path.replace("{id}", MARKS["path"])
            send(client, pushed, method, f"{path}?x={MARKS['query']}", body)
        for template, method in itertools.product(sorted(routes_of(application)), ("PUT", "DELETE", "PATCH")):
            send(client, pushed, method, template, hook())
        cookies = "; ".join(f"{name}={MARKS['token']}" for name in ("cds-session", "__Host-cds-session"))
        form_type = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies}
        for path in ("/smart/logout", "/audit", "/audit/export", "/fhir/AuditEvent/_search"):
            for fields in (
                {"csrf": MARKS["token"]},
                {"patient": MARKS["patient id"]},
                {MARKS["member"]: "1"},
            ):
                send(client, pushed, "POST", path, urlencode(fields), **form_type)
        for path in ("/app/", "/smart/callback?state=x"):
            send(client, pushed, "GET", path, "", **form_type)
        for kind in ("text/plain", f"application/{MARKS['member']}", "application/json; charset=utf-16"):
            send(client, pushed, "POST", SERVICE, hook(), **{"Content-Type": kind})
        send(client, pushed, "POST", SERVICE, hook(), **{"Content-Encoding": MARKS["member"]})
        send(
            client,
            pushed,
            "POST",
            SERVICE,
            hook(),
            **{"X-Request-Id": f"{MARKS['patient id']} x", "Origin": "https://" + MARKS["member"]},
        )
        send(client, pushed, "GET", f"/{MARKS['path']}/{MARKS['patient id']}?q={MARKS['query']}", "")
        send(client, pushed, "GET", f"/fhir/Patient/{MARKS['patient id']}", "")
        # What was decided may be read; of whom it was, and what else was sent, not even then.
        decided = client.get("/fhir/AuditEvent?action=E&_count=50").json()
        for entry in decided.get("entry", []):
            answer = client.get(f"/fhir/RiskAssessment/{entry['resource']['id']}")
            pushed.statuses.add(answer.status_code)
            pushed.refusals.append(answer.text)
            pushed.read += answer.status_code == 200
        for path in ("/metrics", "/health/ready"):
            pushed.refusals.append(client.get(path).text)  # these speak of nobody, at any status
    return pushed


@pytest.fixture
def troubled_ehr() -> Iterator[str]:
    """A FHIR server that knows marked patients and fails in many ways."""
    ehr = Standin()

    async def marked(_: Request) -> Response:
        return Response(collection("searchset"), media_type="application/fhir+json")

    async def torn(_: Request) -> Response:
        return Response(collection("searchset")[:-20], media_type="application/fhir+json")

    ehr.on("Observation", marked)
    ehr.on("Condition", status(500, {"text": MARKS["free text"]}))
    ehr.on("MedicationRequest", endless())
    ehr.on("AllergyIntolerance", torn)
    ehr.on("Procedure", redirecting(lambda: f"{ehr.url}/{MARKS['server path']}"))
    with serving(ehr.app) as url:
        ehr.url = url
        yield f"{url}/fhir"


def found_in(text: bytes | str) -> list[str]:
    """The names of the marks in a text, plain or as base64 or escaped JSON would show them."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    lower = data.lower()
    return sorted(name for name, mark in MARKS.items() if mark.lower().encode() in lower)


def check(server: RealServer, pushed: Pushed) -> None:
    log = server.log.read_bytes()
    assert found_in(log) == [], "in the log"
    assert b"Traceback" not in log
    for refusal in pushed.refusals:
        assert found_in(refusal) == [], refusal[:300]
    assert found_in("\n".join(pushed.headers)) == [], "in headers"
    assert found_in(everything_on_disk(server.var)) == [], "on disk"


def registered(directory: Path, fhir: str) -> dict[str, str]:
    """The troubled EHR as one that launches the app."""
    file = directory / "ehrs.toml"
    entry = {
        "name": "ehr",
        "title": "An EHR",
        "iss": fhir,
        "client_id": "app",
        "scope": "launch openid fhirUser",
    }
    file.write_text(
        "\n".join(["[[ehr]]", *(f"{name} = {json.dumps(value)}" for name, value in entry.items())])
    )
    return {"CDS_SMART_EHRS": str(file)}


async def test_no_mark_leaves_a_server_by_log_metric_refusal_header_or_file(
    tmp_path: Path, application: Any, troubled_ehr: str
) -> None:
    ehrs = registered(tmp_path, troubled_ehr)
    server = await asyncio.to_thread(begin, tmp_path / "var", tmp_path / "server.log", **ehrs)
    try:
        pushed = await asyncio.to_thread(push, server, application, troubled_ehr)
    finally:
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 30)
    check(server, pushed)
    assert {200, 400, 404, 405, 412, 413, 415, 422, 502} <= pushed.statuses
    assert 500 not in pushed.statuses
    assert pushed.read > 0
    url = f"sqlite+aiosqlite:///{server.var}/cds.db"
    assert (await rows(url, "SELECT count(*) FROM stored_decisions WHERE plain_bytes > 0"))[0][0] > 10
    assert (await rows(url, "SELECT count(*) FROM feedback WHERE comment IS NOT NULL"))[0][0] > 0


async def test_no_mark_leaves_a_server_whose_database_is_away(
    tmp_path: Path, application: Any, troubled_ehr: str
) -> None:
    ehrs = registered(tmp_path, troubled_ehr)
    server = await asyncio.to_thread(begin, tmp_path / "var", tmp_path / "server.log", **ehrs)
    try:
        (server.var / "cds.db").rename(server.var / "moved.db")
        pushed = await asyncio.to_thread(push, server, application, troubled_ehr)
        for path in (server.var / "spool").iterdir():
            path.chmod(0)
    finally:
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 30)
    for path in (server.var / "spool").iterdir():
        path.chmod(0o600)
    check(server, pushed)
    spool = everything_on_disk(server.var / "spool")
    assert b"sealed-decision" in spool and b'"kind":"feedback"' in spool


async def test_an_unexpected_error_tells_its_type_and_place_and_nothing_else(
    knowledge: Knowledge, tmp_path: Path, _sqlite_template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A defect in a handler, made by taking away what the handler needs."""
    with start(knowledge, tmp_path, _sqlite_template) as server:
        server.house.card_settings = None  # type: ignore[assignment]
        answer = server.post(SERVICE, hook().encode(), headers={"Authorization": MARKS["token"]})
        assert answer.status_code == 500
        assert found_in(answer.text) == [] and found_in(str(answer.headers)) == []
    out, err = capfd.readouterr()
    assert "request.failed" in out + err
    assert found_in(out + err) == []
    assert found_in(everything_on_disk(tmp_path)) == []
