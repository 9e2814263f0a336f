"""An export from `/audit` in a real browser: the progress a person sees, the file, what the trail says."""

import asyncio
import csv
import io
import json
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import chromium
import pytest
from audit_helpers import NOON, rows
from server_helpers import Running
from test_audit_search import Start, record_all

from cds_server.audit import Access, new_id

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium on this machine (apt: chromium)")

EVENTS = 1_700  # several pages of the server's reading, many pieces of the browser's

# What the progress element and the words beside it were, each time that either changed.
WATCH = """
window.seen = [];
window.look = () => {
  const all = document.getElementById("export-progress");
  const [bar, words] = [all.querySelector("progress"), all.querySelector("output")];
  window.seen.push([!all.hidden, bar.value, bar.max, words.value]);
};
new MutationObserver(window.look).observe(
  document.getElementById("export-progress"), { attributes: true, childList: true, subtree: true });
"""


@pytest.fixture
def filled(start_server: Start) -> Iterator[Running]:
    """A server with so many logins, and something else that the filter leaves out."""
    running = start_server()
    logins: list[Any] = [
        Access(
            event_id=new_id(),
            recorded=NOON + timedelta(seconds=number),
            activity="login",
            service="auth",
            client="https://ehr.example/clinical, central",
        )
        for number in range(EVENTS)
    ]
    record_all(running, logins)
    record_all(running, [Access(event_id=new_id(), recorded=NOON, activity="logout", service="auth")])
    yield running


def finished(path: Path) -> str:
    """The text of a file the browser has written whole: until then it has another name."""
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, [file.name for file in path.parent.iterdir()]
        time.sleep(0.05)
    return path.read_bytes().decode()


def exports(running: Running) -> list[dict[str, Any]]:
    """What the trail says of exports, oldest first."""
    found = asyncio.run(rows(running.database_url, "SELECT payload FROM events ORDER BY seq"))
    decoded = [json.loads(payload) for (payload,) in found]
    return [record for record in decoded if record.get("activity") == "audit-exported"]


def logins(running: Running) -> list[str]:
    """The ids of the events, newest first, past the server's own reading."""
    query = "SELECT event_id FROM events WHERE payload LIKE '%\"login\"%' ORDER BY seq DESC"
    return [event_id for (event_id,) in asyncio.run(rows(running.database_url, query))]


@pytest.mark.parametrize(
    ("language", "kind", "label", "progress", "begun", "done"),
    [
        (
            "en",
            "ndjson",
            "Export NDJSON",
            "Progress of the export",
            "The export begins …",
            "The export is complete.",
        ),
        (
            "es",
            "csv",
            "Exportar CSV",
            "Progreso de la exportación",
            "Comienza la exportación …",
            "La exportación está completa.",
        ),
    ],
)
def test_a_person_sees_the_progress_and_gets_the_whole_file(
    filled: Running,
    tmp_path: Path,
    language: str,
    kind: str,
    label: str,
    progress: str,
    begun: str,
    done: str,
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    button = f"button[data-export='audit.{kind}']"
    with chromium.browser(languages=language) as browser:
        browser.downloads(files)
        browser.open(f"{filled.url}/audit")
        assert browser.run(f"document.querySelector({json.dumps(button)}).textContent") == label
        assert browser.run("document.querySelector('#export-progress').hidden")
        named = browser.run("document.querySelector('#export-progress progress').getAttribute('aria-label')")
        assert named == progress
        browser.run("document.querySelector('#activity').value = 'login'")
        browser.run(WATCH)
        browser.press(button)
        browser.wait(f"window.seen.some((look) => look[3] === {json.dumps(done)})", "no end of the export")
        seen = browser.run("window.seen")
        text = finished(files / f"audit.{kind}")
        # The page is still there, the button can be pressed again, and nothing was refused on the way.
        assert browser.url == f"{filled.url}/audit"
        assert not browser.run(f"document.querySelector({json.dumps(button)}).disabled")
        assert browser.violations == []

    assert all(visible for visible, *_ in seen)
    assert seen[0][3] == begun
    counted = [re.fullmatch(rf"(\d+) / {EVENTS}", words) for *_, words in seen]
    steps = [int(match[1]) for match in counted if match]
    assert len(set(steps)) >= 3
    assert steps == sorted(steps)
    assert steps[-1] == EVENTS
    values = [value for _, value, most, _ in seen if most == EVENTS]
    assert values == sorted(values)
    assert any(0 < value < EVENTS for value in values)
    assert seen[-1] == [True, EVENTS, EVENTS, done]

    if kind == "ndjson":
        ids = [json.loads(line)["id"] for line in text.splitlines()]
    else:
        ids = [row["id"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert ids == logins(filled)
    [recorded] = exports(filled)
    assert dict(recorded["detail"]) == {"events": str(EVENTS), "format": kind}
    assert unquote(recorded["query"]) == "subtype=urn:cds-server:activity|login"


def test_an_export_of_nothing_is_complete_too(start_server: Start, tmp_path: Path) -> None:
    running = start_server()
    with chromium.browser() as browser:
        browser.downloads(tmp_path)
        browser.open(f"{running.url}/audit")
        browser.run("document.querySelector('#activity').value = 'login'")
        browser.press("button[data-export='audit.ndjson']")
        browser.wait("document.querySelector('output').value === 'The export is complete.'", "no end")
        assert finished(tmp_path / "audit.ndjson") == ""
        assert browser.run("document.querySelector('progress').position") == 1


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("en", "The export failed; please try again."),
        ("es", "La exportación falló; inténtelo de nuevo."),
    ],
)
def test_an_export_that_is_refused_says_so_and_gives_no_file(
    filled: Running, tmp_path: Path, language: str, says: str
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    with chromium.browser(languages=language) as browser:
        browser.downloads(files)
        browser.open(f"{filled.url}/audit")
        # The form lets nobody choose this; the server, which must not rely on it, answers with 400.
        browser.run("document.querySelector('#agent').name = 'unknown'")
        browser.press("button[data-export='audit.csv']")
        browser.wait(f"document.querySelector('output').value === {json.dumps(says)}", "no failure shown")
        assert not browser.run("document.querySelector('button[data-export]').disabled")
    assert list(files.iterdir()) == []
    assert exports(filled) == []
