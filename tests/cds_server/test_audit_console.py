"""`/audit`: the page a compliance officer uses, over HTTP and in a real browser."""

import csv
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from server_helpers import Running, outcome
from test_audit_search import EHR, FORM, Start, asked, newest, record_all

from cds_server.audit import Access, new_id
from cds_server.clock import utc_now
from cds_server.console.texts import _TEXTS

__all__ = ["asked"]
CHROMIUM = shutil.which("chromium")


class Parsed(HTMLParser):
    """What matters of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_is_well_formed_accessible_and_without_anything_inline(asked: Running) -> None:
    for language, title in (("en", "Audit trail"), ("es", "Registro de auditoría")):
        answer = asked.client.get("/audit", headers={"Accept-Language": language})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = Parsed(answer.text)
        assert page.open == []
        assert page.all("html")[0]["lang"] == language
        assert f"<h1>{title}</h1>" in answer.text
        labelled = {label["for"] for label in page.all("label")}
        fields = [*page.all("input"), *page.all("select")]
        assert {field["id"] for field in fields if field.get("type") != "hidden"} == labelled
        assert all(column.get("scope") for column in page.all("th"))
        assert page.all("main")
        assert page.all("style") == []
        assert all(script.get("src") for script in page.all("script"))
        for _, attributes in page.elements:
            assert not any(name.startswith("on") or name == "style" for name in attributes)


def test_the_policy_is_strict_and_said_once(asked: Running) -> None:
    answer = asked.client.get("/audit")
    [policy] = answer.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    for path, kind in (("/audit/style.css", "text/css"), ("/audit/export.js", "text/javascript")):
        found = asked.client.get(path)
        assert found.status_code == 200
        assert found.headers["content-type"].startswith(kind)


def test_every_text_is_there_in_both_languages() -> None:
    for english, spanish in _TEXTS.values():
        assert english
        assert spanish
        assert english != spanish or english in ("Outcome",)
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", spanish))


def test_the_form_filters_and_gives_back_pseudonyms(asked: Running) -> None:
    name = asked.house.pseudonymiser.pseudonym
    pseudonyms = [name("patient", "patient-3", whose) for whose in ("", EHR)]
    answer = asked.client.post(
        "/audit", content="patient=patient-3&from=2026-03-01&to=2026-03-01&activity=hook-call", headers=FORM
    )
    assert answer.status_code == 200
    assert answer.text.count("/audit/event/") == 4
    assert "patient-3" not in answer.text
    shown = [field for field in Parsed(answer.text).all("input") if field["name"] == "patient"]
    assert shown[0]["value"] == ",".join(f"Patient/{pseudonym}" for pseudonym in pseudonyms)


@pytest.mark.parametrize("path", ["/audit", "/audit/export"])
def test_another_site_s_page_asks_nothing_in_the_auditor_s_name(asked: Running, path: str) -> None:
    """Whatever signs the auditor on (a proxy, this very machine) comes with a browser's every request."""
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": asked.house.settings.base_url},
    ):
        outcome(asked.client.post(path, content="activity=login", headers=FORM | headers), 403)
        denied = newest(asked)
        assert (denied["activity"], denied["status"], denied["reason"]) == (
            "access-denied",
            403,
            "other-page",
        )
    for headers in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": asked.house.settings.base_url}):
        answer = asked.client.post(path, content="activity=login", headers=FORM | headers)
        assert answer.status_code == 200
    found = asked.client.get("/fhir/AuditEvent?subtype=access-denied&outcome=4").json()
    assert {entry["resource"]["outcomeDesc"] for entry in found["entry"]} == {"other-page"}


def test_older_events_are_a_page_away(start_server: Start) -> None:
    running = start_server()
    record_all(
        running,
        [Access(event_id=new_id(), recorded=utc_now(), activity="login", service="auth") for _ in range(120)],
    )
    form = "activity=login"
    seen: list[str] = []
    for expected in (50, 50, 20):
        answer = running.client.post("/audit", content=form, headers=FORM)
        ids = re.findall(r'href="/audit/event/([^"]+)"', answer.text)
        assert len(ids) == expected
        seen += ids
        hidden = [f for f in Parsed(answer.text).all("input") if f.get("type") == "hidden"]
        form = "&".join(f"{field['name']}={field['value']}" for field in hidden)
    assert len(set(seen)) == 120


def test_a_question_that_makes_no_sense_is_told_so(asked: Running) -> None:
    for form in ("from=tomorrow-secret", "_id=secret", "after=secret"):
        answer = asked.client.post("/audit", content=form, headers=FORM)
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
        assert "secret" not in answer.text


def test_markup_in_an_event_is_text(start_server: Start) -> None:
    running = start_server()
    nasty = "<script>alert(1)</script>"
    record = Access(
        event_id=new_id(), recorded=utc_now(), activity="login", service=nasty, client=f'"{nasty}'
    )
    record_all(running, [record])
    for path in ("/audit", f"/audit/event/{record.event_id}"):
        page = running.client.get(path).text
        assert nasty not in page
        assert "&lt;script&gt;" in page


def test_one_event_is_shown_whole_and_an_unknown_one_is_404(asked: Running) -> None:
    found = re.findall(r'href="(/audit/event/[^"]+)"', asked.client.get("/audit").text)
    page = asked.client.get(found[0])
    assert page.status_code == 200
    assert "resourceType" in page.text
    assert Parsed(page.text).open == []
    assert newest(asked)["activity"] == "audit-read"
    assert asked.client.get("/audit/event/unknown").status_code == 404


def test_the_chain_is_shown_at_a_glance(start_server: Start) -> None:
    running = start_server(audit_checkpoint_seconds=1)
    for _ in range(200):
        page = running.client.get("/audit").text
        if "Newest signed checkpoint" in page:
            return
    pytest.fail("no checkpoint was made")


def test_an_export_is_the_same_events_as_the_search(asked: Running) -> None:
    form = "from=2026-03-01&to=2026-03-01&format="
    answer = asked.client.post("/audit/export", content=f"{form}ndjson", headers=FORM)
    assert answer.headers["x-total-count"] == "24"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.ndjson"'
    lines = answer.text.splitlines()
    searched = asked.client.get("/fhir/AuditEvent?date=2026-03-01&_count=100").json()["entry"]
    assert [json.loads(line) for line in lines] == [entry["resource"] for entry in searched]
    for line in lines:
        get_fhir_model_class("AuditEvent").model_validate_json(line)
    answer = asked.client.post("/audit/export", content=f"{form}csv", headers=FORM)
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in table] == [entry["resource"]["id"] for entry in searched]
    assert {row["outcome"] for row in table} == {"0", "4"}
    outcome(asked.client.post("/audit/export", content="format=xml", headers=FORM), 400)
    outcome(asked.client.post("/audit/export", content="nonsense=1", headers=FORM), 400)
    outcome(asked.client.get("/audit/export"), 405)


def test_a_cell_is_never_a_formula(start_server: Start) -> None:
    running = start_server()
    record_all(
        running,
        [Access(event_id=new_id(), recorded=utc_now(), activity="login", service="x", client="=1+1")],
    )
    answer = running.client.post("/audit/export", content="activity=login&format=csv", headers=FORM)
    [row] = csv.DictReader(io.StringIO(answer.text))
    assert row["client"] == "'=1+1"


def test_an_export_of_many_pages_is_streamed_in_pieces(start_server: Start) -> None:
    running = start_server()
    record_all(
        running,
        [
            Access(event_id=new_id(), recorded=utc_now(), activity="login", service="auth")
            for _ in range(1_700)
        ],
    )
    with running.client.stream(
        "POST", "/audit/export", content="activity=login&format=ndjson", headers=FORM
    ) as answer:
        assert "content-length" not in answer.headers
        pieces = list(answer.iter_raw())
    assert len(pieces) >= 3
    lines = b"".join(pieces).splitlines()
    assert len({json.loads(line)["id"] for line in lines}) == len(lines) == 1_700


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page_under_its_policy(asked: Running, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=3000",
            "--dump-dom",
            f"{asked.url}/audit",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert 'id="events"' in done.stdout
    complaints: list[Any] = re.findall(r"CONSOLE.*", done.stderr)
    assert complaints == []
