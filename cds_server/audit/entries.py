"""What the trail writes for a record: its bytes and its place, or what stands at that place instead."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

import msgspec

from cds_server.audit import events
from cds_server.audit.chain import Strand, strand_name, with_link, without_link
from cds_server.audit.events import Access, Durable, Withheld
from cds_server.audit.signing import Signer
from cds_server.db.writer import Entry


def entry_of(record: Durable) -> Entry:
    """A record and its bytes; it has no place in the chain yet."""
    try:
        return Entry(record, events.encode(record))
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; the record is kept, with U+FFFD in its place.
        record = msgspec.convert(_without_surrogates(msgspec.to_builtins(record)), Durable)
        return Entry(record, events.encode(record))


def chained(entries: list[Entry], strand: Strand, signer: Signer | None) -> tuple[list[Entry], Strand]:
    """The entries at their places in the strand, and the strand after them; opens a new strand."""
    if strand.count == 0 and signer is not None:
        entries = [entry_of(_opening(signer, strand)), *entries]
    links, strand = strand.extended([e.payload for e in entries if events.is_event(e.record)])
    following = iter(links)
    return [
        Entry(e.record, e.payload, next(following)) if events.is_event(e.record) else e for e in entries
    ], strand


def line_of(entry: Entry) -> bytes:
    """An entry as the spool keeps it."""
    return with_link(entry.link, entry.payload)


def of_lines(lines: Iterable[bytes]) -> tuple[list[Entry], list[bytes]]:
    """The entries of spool lines, and the lines that are none."""
    entries: list[Entry] = []
    damaged: list[bytes] = []
    for line in lines:
        try:
            link, payload = without_link(line)
            entries.append(Entry(events.decode_durable(payload), payload, link))
        except (ValueError, msgspec.DecodeError):
            damaged.append(line)
    return entries, damaged


def withheld(entry: Entry, cause: Literal["refused", "repeated"]) -> Entry:
    """What stands at the place of a record that is not stored there; its id follows from the place."""
    link, record = entry.link, entry.record
    if link is None or not events.is_event(record):
        raise TypeError("only a record with a place can be withheld")
    record_withheld = Withheld(
        event_id=f"{strand_name(link.strand)}-{link.place}",
        recorded=record.recorded,
        record_id=events.identity(record),
        payload_digest=events.digest(entry.payload),
        cause=cause,
    )
    return Entry(record_withheld, events.encode(record_withheld), link)


def _opening(signer: Signer, strand: Strand) -> Access:
    # The first record of a strand says, signed, that its writer has the site's key.
    return Access(
        event_id=events.new_id(),
        recorded=datetime.now(UTC),
        activity="audit-started",
        service="audit",
        detail=(
            ("strand", strand_name(strand.number)),
            ("key", signer.key_id),
            ("signature", signer.opening(strand.number)),
        ),
    )


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_surrogates(item) for key, item in value.items()}
    return value
