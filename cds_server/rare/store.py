"""The record of enrolled cases: an append-only file of JSON lines, with undo as one more line.

Responsible for keeping what was enrolled and taken back, in order, and for telling what counts now.  A
case's findings are encrypted under the site's key; ids, times and actions are not.  What an enrolled case
does to a ranking is `models.rare.enrolment`'s business.
"""

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from cds_server.privacy import Cipher, DecryptionFailed
from models.rare.enrolment import EnrolledCase

FILE = "rare/enrolled.jsonl"


class EnrolmentInvalid(Exception):
    """The record cannot be used or the request makes no sense; the text holds no clinical value."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: `id` of the enrolment, when (ISO 8601, UTC), and the sealed case of an ``enroll``."""

    id: str
    at: str
    action: Literal["enroll", "undo"]
    sealed: str = ""


class Enrolled(msgspec.Struct, frozen=True):
    """An enrolment: its id, when it was made, whether it still counts, and the case."""

    id: str
    at: str
    active: bool
    case: EnrolledCase


class EnrolmentStore:
    """The record in one directory; safe for several processes."""

    def __init__(self, var_dir: Path, cipher: Cipher) -> None:
        self._path = var_dir / FILE
        self._cipher = cipher

    def enroll(self, case: EnrolledCase, now: datetime) -> str:
        """Record a confirmed case; returns the id of the enrolment, which is also its reference."""
        with self._locked() as file:
            number = 1 + sum(entry.action == "enroll" for entry in self._entries())
            new = f"enrolled:{number:06d}"
            named = msgspec.structs.replace(case, reference=new)
            sealed = self._cipher.encrypt(msgspec.json.encode(named).decode(), f"rare.enrolled/{new}")
            self._append(file, Entry(new, now.isoformat(timespec="seconds"), "enroll", sealed))
        return new

    def undo(self, enrolment: str, now: datetime) -> None:
        """Take an enrolment back.  Raises `EnrolmentInvalid` when there is none that counts."""
        with self._locked() as file:
            states = {entry.id: entry.action == "enroll" for entry in self._entries()}
            if not states.get(enrolment, False):
                raise EnrolmentInvalid(
                    "no such enrolment, or it was undone already: see `cds-server rare list`"
                )
            self._append(file, Entry(enrolment, now.isoformat(timespec="seconds"), "undo"))

    def all(self) -> tuple[Enrolled, ...]:
        """Every enrolment, undone ones too, in order.  Raises `EnrolmentInvalid`."""
        entries = self._entries()
        undone = {entry.id for entry in entries if entry.action == "undo"}
        found = []
        for entry in entries:
            if entry.action == "enroll":
                try:
                    text = self._cipher.decrypt(entry.sealed, f"rare.enrolled/{entry.id}")
                    case = msgspec.json.decode(text, type=EnrolledCase)
                except (DecryptionFailed, msgspec.MsgspecError):
                    raise EnrolmentInvalid(f"{entry.id} does not open with this site's keys") from None
                found.append(Enrolled(entry.id, entry.at, entry.id not in undone, case))
        return tuple(found)

    def cases(self) -> tuple[EnrolledCase, ...]:
        """The cases that count now, for `models.rare.engine.RareEngine.enrolled`."""
        return tuple(each.case for each in self.all() if each.active)

    def _locked(self) -> "_Locked":
        return _Locked(self._path)

    def _entries(self) -> list[Entry]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise EnrolmentInvalid(f"the record cannot be read: {fault.strerror}") from None
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(msgspec.json.decode(line, type=Entry))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                raise EnrolmentInvalid(
                    f"line {number} of the record is damaged: restore it from a copy"
                ) from None
        return found

    @staticmethod
    def _append(descriptor: int, entry: Entry) -> None:
        os.write(descriptor, msgspec.json.encode(entry) + b"\n")
        os.fsync(descriptor)


class _Locked:
    """The record opened for appending, by one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise EnrolmentInvalid(f"the record cannot be written: {fault.strerror}") from None
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self._file

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
