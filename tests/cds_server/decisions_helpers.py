"""What the tests of kept decisions share: a replayer on a server's own state, commands, and its raw files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from server_helpers import ASSESSMENT, EXAMPLES, REVIEW, Running, example

from cds_server.clock import utc_now
from cds_server.db.engine import create_engine
from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import Opener
from cds_server.decisions.past import PastKnowledge
from cds_server.decisions.replay import Replay, Replayer
from cds_server.decisions.shelf import Shelf
from cds_server.deployment.source import BundleSource
from cds_server.privacy import Cipher
from cds_server.rare.store import EnrolmentStore
from cds_server.settings import Settings
from cds_server.site_keys import site_keys
from cds_server.state import Knowledge

ROOT = Path(__file__).parents[2]


def call(server: Running, name: str, language: str = "en", **changes: Any) -> dict[str, Any]:
    """The answer of an example."""
    request = example(name) | changes
    path = REVIEW if request["hook"] == "order-select" else ASSESSMENT
    answer = server.post(path, request, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bundle_of_example(name: str) -> dict[str, Any]:
    """An example's resources as one Bundle."""
    entries: list[dict[str, Any]] = []
    for value in example(name)["prefetch"].values():
        if value:
            entries += value.get("entry", []) if value["resourceType"] == "Bundle" else [{"resource": value}]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


async def replays(
    settings: Settings, knowledge: Knowledge, count: int = 100, always: Knowledge | None = None
) -> list[Replay]:
    """Replays of the newest decisions, newest first."""
    engine = create_engine(settings.database_url)
    try:
        shelf = Shelf(engine)
        opener = Opener(shelf, DataKeys(site_keys(settings).master, now=utc_now))
        archive = BundleArchive(settings.archive_dir, BundleSource.of(settings))
        cases = EnrolmentStore(settings.var_dir, Cipher(site_keys(settings).cipher))
        replayer = Replayer(shelf, opener, PastKnowledge(archive, cases, knowledge), always=always)
        return [await replayer.replay(one) for one in await shelf.latest(count)]
    finally:
        await engine.dispose()


def command(settings: Settings, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `cds-server` on a server's state, as an operator would."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    environment |= {
        "CDS_VAR_DIR": str(settings.var_dir),
        "CDS_DATABASE_URL": settings.database_url,
        "CDS_MODEL_BUNDLE": settings.model_bundle,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]),
        "COLUMNS": "200",
    } | more
    return subprocess.run(
        [sys.executable, "-c", "from cds_server.cli import main; main()", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def everything_on_disk(directory: Path) -> bytes:
    """All bytes of all files under a directory."""
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


ALL_EXAMPLES = sorted(path.stem for path in EXAMPLES.glob("*.json"))
