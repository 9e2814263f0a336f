"""The lines of the record of enrolled cases, and what of a record that is damaged can still be trusted.

Responsible for reading lines without keys: which enrolments were made, which were taken back, and which a
damaged line puts in doubt.  Nothing is opened here, and nothing is written.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FILE = "rare/enrolled.jsonl"
# Only with what stands around it: of "enrolled:000002" and a date a cut can make "enrolled:002026".
_NAMED = re.compile(rb'"id":"(enrolled:\d{6,})","at":"')


class EnrolmentInvalid(Exception):
    """The record cannot be used or the request makes no sense; the text holds no clinical value."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: `id` of the enrolment, when (ISO 8601, UTC), and the sealed case of an ``enroll``."""

    id: Annotated[str, msgspec.Meta(pattern=r"^enrolled:\d{6,}$")]
    at: str
    action: Literal["enroll", "undo"]
    sealed: str = ""


class Record(msgspec.Struct, frozen=True):
    """The lines that can be read, in order; numbers (from 1) of those that cannot; and the enrolments that
    do not count because of these.

    A damaged line (or one that takes back what was never made) may have taken an enrolment back.  If it
    names enrolments, these are in doubt; if it names none, all that were made before it are.  Only a last
    line that was never finished, so that nobody was told it was done, puts nothing in doubt that it does
    not name.
    """

    entries: tuple[Entry, ...]
    damaged: tuple[int, ...] = ()
    doubtful: frozenset[str] = frozenset()

    def active(self) -> list[Entry]:
        """The enrolments that were not taken back and are not in doubt."""
        gone = {entry.id for entry in self.entries if entry.action == "undo"} | self.doubtful
        return [entry for entry in self.entries if entry.action == "enroll" and entry.id not in gone]


def read_record(path: Path) -> Record:
    """The record at a path, whatever its state; empty without a file.

    Raises `EnrolmentInvalid` when the file is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Record(())
    except OSError as fault:
        raise EnrolmentInvalid(f"the record cannot be read: {fault.strerror}") from None
    lines = data.split(b"\n")
    entries: list[Entry] = []
    damaged, doubtful, made = [], set[str](), set[str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is not None and (entry.action == "enroll" or entry.id in made):
            entries.append(entry)
            made.add(entry.id)
            continue
        damaged.append(number)
        named = {match.decode() for match in _NAMED.findall(line)} if entry is None else set()
        doubtful |= named if named or number == len(lines) else made
    return Record(tuple(entries), tuple(damaged), frozenset(doubtful))


def _entry(line: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(line, type=Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def identity(counting: Sequence[Entry]) -> str:
    """What answers with these enrolments say of them: ``enrolled.2.1f9a367a0c3d``; empty for none.

    The digest is over ids and sealed texts, which nobody can guess a case from.
    """
    if not counting:
        return ""
    digest = hashlib.sha256()
    for entry in counting:
        digest.update(f"{entry.id}\n{entry.sealed}\n".encode())
    return f"enrolled.{len(counting)}.{digest.hexdigest()[:12]}"


def states(entries: Iterable[Entry]) -> list[tuple[Entry, str]]:
    """Each line of a whole record with the `identity` of what counted once it was written."""
    counting: dict[str, Entry] = {}
    found = []
    for entry in entries:
        if entry.action == "enroll":
            counting[entry.id] = entry
        else:
            counting.pop(entry.id, None)
        found.append((entry, identity(list(counting.values()))))
    return found
