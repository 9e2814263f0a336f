"""One patient's data as a zip archive (GDPR Art. 15): events, requests, fetched pages, answers, feedback.

Decisions are written one by one; only the short lines about them wait in memory.  The archive holds the
patient's record in the clear: it is readable by its maker only (mode 0600), and named after nobody.
"""

import os
import zipfile
from importlib import resources
from pathlib import Path

import msgspec

from cds_server.audit import Decision
from cds_server.audit.events import Record, patient_of
from cds_server.authorities import base_of
from cds_server.decisions.opening import NoReplay, Opener
from cds_server.decisions.person import Person
from cds_server.decisions.stored import Stored
from cds_server.feedback.store import FeedbackStore
from cds_server.privacy import parts


class Exported(msgspec.Struct, frozen=True):
    """How much went into the archive; `unclear` events were left out that name no system."""

    events: int
    decisions: int
    not_kept: int
    feedback: int
    unclear: int


async def export_person(
    path: Path,
    person: Person,
    opener: Opener,
    comments: FeedbackStore,
    *,
    servers: frozenset[str] | None,
    years: int,
) -> Exported:
    """Write the archive at `path`, which must not exist.

    Args:
        servers: of what is kept under the id without a system (of before pseudonyms told systems apart), only
            decisions whose request names one of these FHIR servers; `None`: all of it.
        years: of retention, for the readme.

    Raises:
        OSError: the archive cannot be written; what was written of it is removed.
        DecryptionFailed: a comment does not open.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README.txt", _readme(years))
            return await _write(archive, person, opener, comments, servers)
    except BaseException:  # whatever ends it, Ctrl-C too, leaves no half of a record in the clear
        path.unlink(missing_ok=True)  # noqa: ASYNC240 a command's own file, and nobody else waits
        raise


async def _write(
    archive: zipfile.ZipFile,
    person: Person,
    opener: Opener,
    comments: FeedbackStore,
    servers: frozenset[str] | None,
) -> Exported:
    events: list[str] = []
    left_out: list[bytes] = []
    decisions = unclear = 0
    shown: set[str] = set()
    async for payload, record in person.events():
        stored = await _stored(opener, record)
        if servers is not None and not _is_of(servers, record, stored):
            unclear += 1
            continue
        if isinstance(record, Decision):
            if isinstance(stored, Stored):
                decisions += 1
                _add(archive, record, stored)
            elif stored is not None:
                left_out.append(_reason(record, stored))
            shown.update(card.uuid for card in record.cards)
        events.append(payload)
    feedback: list[bytes] = []
    async for one in person.feedback():
        if one.card in shown:
            opened = await comments.opened(one)
            feedback.append(msgspec.json.encode(opened))
    for name, lines in (
        ("events.ndjson", [event.encode() for event in events]),
        ("not-kept.ndjson", left_out),
        ("feedback.ndjson", feedback),
        ("erasures.ndjson", await person.destructions()),
    ):
        archive.writestr(name, b"".join(line + b"\n" for line in lines))
    return Exported(len(events), decisions, len(left_out), len(feedback), unclear)


async def _stored(opener: Opener, record: Record) -> Stored | NoReplay | None:
    """What is kept of a decision, or why it is not to be had; `None` for what is no decision."""
    if not isinstance(record, Decision):
        return None
    try:
        return await opener.stored(record)
    except NoReplay as fault:
        return fault


def _is_of(servers: frozenset[str], record: Record, stored: Stored | NoReplay | None) -> bool:
    """Whether an event is of one of the servers: by its pseudonym, or else by the request that is kept."""
    if parts(patient_of(record) or "")[1] is not None:
        return True
    return isinstance(stored, Stored) and server_of(stored) in servers


def _add(archive: zipfile.ZipFile, decision: Decision, stored: Stored) -> None:
    folder = f"decisions/{decision.event_id}"
    archive.writestr(f"{folder}/request.json", stored.body)
    archive.writestr(f"{folder}/answer.json", stored.answer)
    archive.writestr(f"{folder}/circumstances.json", msgspec.json.encode(stored.circumstances))
    pages = [page.body for page in stored.fetched if page.body is not None]
    for number, page in enumerate(pages, start=1):
        archive.writestr(f"{folder}/fetched-{number}.json", page)


def _reason(decision: Decision, fault: NoReplay) -> bytes:
    facts = {"decision": decision.event_id, "recorded": decision.recorded, "reason": fault.reason}
    return msgspec.json.encode(facts | ({"detail": fault.detail} if fault.detail else {}))


def _readme(years: int) -> str:
    text = resources.files("cds_server.decisions").joinpath("export_readme.txt").read_text(encoding="utf-8")
    return text.format(years=years)


class _Server(msgspec.Struct):
    fhirServer: str | None = None


def server_of(stored: Stored) -> str | None:
    """The FHIR server that the request of a decision names, in the form it is kept in."""
    if stored.circumstances.kind != "hook-call":
        return None
    return base_of(msgspec.json.decode(stored.body, type=_Server).fhirServer)
