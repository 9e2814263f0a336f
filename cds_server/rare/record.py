"""The lines of the record of enrolled cases, and what of a record that is damaged can still be trusted.

Responsible for reading lines without keys: which enrolments were made, which were taken back, and which a
damaged line puts in doubt; and which counted when an answer was given.  Nothing is opened here, and nothing
is written.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

FILE = "rare/enrolled.jsonl"
# Only with what stands around it: of "enrolled:000002" and a date a cut can make "enrolled:002026".
_NAMED = re.compile(rb'"id":"(enrolled:\d{6,})","at":"')
_IN_KNOWLEDGE = re.compile(r"\+(enrolled\.\d+\.[0-9a-f]{12})\Z")


class EnrolmentInvalid(Exception):
    """The record cannot be used or the request makes no sense; the text holds no clinical value."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: `id` of the enrolment, when (ISO 8601, UTC), and the sealed case of an ``enroll``.

    The ``enroll`` of a case that was erased is still there, with nothing sealed; a line ``erase`` says when.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^enrolled:\d{6,}$")]
    at: str
    action: Literal["enroll", "undo", "erase"]
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
        """The enrolments that were not taken back or erased and are not in doubt."""
        gone = {entry.id for entry in self.entries if entry.action != "enroll"} | self.doubtful
        return [entry for entry in self.entries if entry.sealed and entry.id not in gone]


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


def identity_in(knowledge_id: str) -> str:
    """The `identity` of the cases that an answer was given with, from its knowledge id; empty for none."""
    found = _IN_KNOWLEDGE.search(knowledge_id)
    return found[1] if found else ""


def states(entries: Iterable[Entry]) -> list[tuple[Entry, str | None]]:
    """Each line of a whole record with the `identity` of what counted once it was written.

    `None` where a case counted that was erased since: its part of the digest is gone with it.
    """
    return [(entry, _known(counting)) for entry, counting in _steps(entries)]


def counted(entries: Iterable[Entry], wanted: str) -> list[Entry] | None:
    """The enrolments that counted when answers carried the identity `wanted`, proven by its digest."""
    size = _size(wanted)
    for _, counting in _steps(entries):
        if len(counting) == size and _known(counting) == wanted:
            return counting
    return None


def erased(entries: Sequence[Entry], wanted: str) -> list[str]:
    """The ids of erased cases that counted at a time when as many did as `wanted` says; empty for none."""
    size = _size(wanted)
    return sorted(
        {
            entry.id
            for _, counting in _steps(entries)
            if len(counting) == size
            for entry in counting
            if not entry.sealed
        }
    )


def _steps(entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[Entry]]]:
    """Each line with what counted once it was written, erased cases too."""
    counting: dict[str, Entry] = {}
    for entry in entries:
        if entry.action == "enroll":
            counting[entry.id] = entry
        else:
            counting.pop(entry.id, None)
        yield entry, list(counting.values())


def _known(counting: Sequence[Entry]) -> str | None:
    return identity(counting) if all(entry.sealed for entry in counting) else None


def _size(wanted: str) -> int:
    return int(wanted.split(".")[1])
