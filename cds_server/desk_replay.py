"""Replaying at the command line; `cds_server.cli_replay` names the options and shows what came of it."""

import asyncio

from rich.console import Console
from rich.progress import track

from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import Opener
from cds_server.decisions.past import PastKnowledge
from cds_server.decisions.replay import Replay, Replayer
from cds_server.decisions.shelf import Shelf
from cds_server.deployment.loading import with_bundle_of
from cds_server.deployment.source import BundleSource
from cds_server.operator import at_desk
from cds_server.privacy import Cipher
from cds_server.rare.in_use import EnrolledCases
from cds_server.rare.store import EnrolmentStore
from cds_server.settings import Settings
from cds_server.state import Knowledge


async def replay(
    settings: Settings, decision: str | None, last: int, *, current: bool, quiet: bool, show: bool
) -> list[Replay]:
    """Replay one decision, or the newest `last`; each replay is recorded."""

    async with at_desk(settings) as desk:
        shelf = Shelf(desk.engine)
        ids = [decision] if decision is not None else await shelf.latest(last)
        source = BundleSource.of(settings)
        archive = BundleArchive(settings.archive_dir, source)
        opener = Opener(shelf, DataKeys(desk.keys.master, now=desk.now))
        base = await asyncio.to_thread(Knowledge.load)
        cases = EnrolmentStore(settings.var_dir, Cipher(desk.keys.cipher))
        always = await asyncio.to_thread(_in_use, source, cases, base) if current else None
        replayer = Replayer(shelf, opener, PastKnowledge(archive, cases, base), always=always)
        found = []
        for one in track(ids, "Replaying", console=Console(stderr=True), disable=quiet or len(ids) == 1):
            result = await replayer.replay(one)
            await desk.record(
                "decision-replayed",
                patient=result.patient,
                entity=f"AuditEvent/{one}" if result.reason != "not-found" else None,
                status=404 if result.reason == "not-found" else 200,
                result=result.result,
                model="current" if current else None,
                reason=result.reason,
                values_shown=show,
            )
            found.append(result)
        return found


def _in_use(source: BundleSource, cases: EnrolmentStore, base: Knowledge) -> Knowledge:
    """What a server that starts now answers with: its bundle, and the cases that count."""
    knowledge, _ = EnrolledCases(cases).applied(with_bundle_of(source, base))
    return knowledge
