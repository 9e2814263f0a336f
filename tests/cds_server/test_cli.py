"""The command line, as a newcomer meets it: real processes, with nothing but the repository."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from server_helpers import EXAMPLES

COMMAND = str(Path(sys.executable).with_name("cds-server"))


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    def call(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        env |= {"HOME": str(tmp_path), "COLUMNS": "120", "PYTHONUTF8": "1"}
        env |= {"CDS_VAR_DIR": str(tmp_path / "var"), **environment}
        return subprocess.run(
            [COMMAND, *words], capture_output=True, text=True, env=env, timeout=60, check=False
        )

    return call


def test_help_says_where_to_start(run) -> None:  # type: ignore[no-untyped-def]
    shown = run("--help").stdout
    assert "cds-server call examples/sepsis.json" in shown
    for command in ("serve", "call", "assess", "services", "db"):
        assert command in shown


def test_an_example_is_shown_offline_with_nothing_running(run) -> None:  # type: ignore[no-untyped-def]
    done = run("call", "--offline", str(EXAMPLES / "sepsis.json"), "--language", "es")
    assert done.returncode == 0, done.stderr
    assert "CRITICAL" in done.stdout and "NEWS2" in done.stdout and "Solicitar" in done.stdout
    assert "No cards" in run("call", "--offline", str(EXAMPLES / "healthy-checkup.json")).stdout


def test_raw_json_is_the_answer_itself(run) -> None:  # type: ignore[no-untyped-def]
    done = run("call", "--offline", "--json", str(EXAMPLES / "order-select-drugs.json"))
    assert {"summary", "indicator", "source"} <= json.loads(done.stdout)["cards"][0].keys()


def test_a_bundle_is_assessed_in_process(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    patient = {"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1960-01-01"}
    path = tmp_path / "bundle.json"
    path.write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient}]})
    )
    done = run("assess", str(path))
    assert done.returncode == 0, done.stderr
    assert "severity" in done.stdout and "immediate-attention" in done.stdout


def test_services_are_listed_with_their_prefetch(run) -> None:  # type: ignore[no-untyped-def]
    shown = run("services", "--offline").stdout
    assert "diagnostic-assessment" in shown and "order-select" in shown and "observations-vitals" in shown


def test_the_database_is_made_and_may_be_upgraded_again(run) -> None:  # type: ignore[no-untyped-def]
    assert run("db", "upgrade").returncode == 0
    assert run("db", "upgrade").returncode == 0
    assert len(run("db", "version").stdout.strip()) >= 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("call", "nowhere.json"), "Cannot read nowhere.json"),
        (("call", "README.md"), "not a CDS Hooks request"),
        (("call", "--url", "http://127.0.0.1:9", "examples/sepsis.json"), "Is it running?"),
        (("call", "--offline", "--language", "fr", "examples/sepsis.json"), "en and es"),
    ],
)
def test_a_mistake_is_answered_with_what_to_do(run, words: tuple[str, ...], says: str) -> None:  # type: ignore[no-untyped-def]
    root = EXAMPLES.parent
    done = run(*(str(root / w) if (root / w).exists() and "." in w else w for w in words))
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr


def test_a_setting_that_does_not_hold_is_named(run) -> None:  # type: ignore[no-untyped-def]
    done = run("db", "upgrade", CDS_PORT="a lot")
    assert done.returncode == 2 and "port" in done.stderr and "Traceback" not in done.stderr


def test_a_refused_request_shows_the_field(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    request = json.loads((EXAMPLES / "sepsis.json").read_text(encoding="utf-8"))
    del request["context"]["patientId"]
    path = tmp_path / "request.json"
    path.write_text(json.dumps(request))
    done = run("call", "--offline", str(path))
    assert done.returncode == 1 and "context.patientId" in done.stdout


def test_serving_without_a_database_says_what_to_type_and_shows_no_traceback(run) -> None:  # type: ignore[no-untyped-def]
    done = run("serve", CDS_PORT="18999")
    assert done.returncode != 0
    assert "cds-server db upgrade" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
