"""The record of enrolled cases: an append-only file of JSON lines, with undo as one more line.

Responsible for keeping what was enrolled and taken back, in order, and for telling what counts now.  A
case's findings are encrypted under the site's key; ids, times and actions are not.  What an enrolled case
does to a ranking is `models.rare.enrolment`'s business.
"""

import errno
import fcntl
import os
from datetime import datetime
from pathlib import Path

import msgspec

from cds_server.privacy import Cipher, DecryptionFailed
from cds_server.rare.record import FILE, EnrolmentInvalid, Entry, Record, identity, read_record, states
from models.rare.enrolment import EnrolledCase


class Enrolled(msgspec.Struct, frozen=True):
    """An enrolment: its id, when it was made, whether it still counts, and the case."""

    id: str
    at: str
    active: bool
    case: EnrolledCase


class Counting(msgspec.Struct, frozen=True):
    """What counts now: `cases`, and the `identity` under which answers name them.

    `damaged` are the numbers of lines that cannot be read, `doubtful` the enrolments that do not count
    because of them, `sealed` those that do not open with this site's keys.
    """

    cases: tuple[EnrolledCase, ...] = ()
    identity: str = ""
    damaged: tuple[int, ...] = ()
    doubtful: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of the record can be read."""
        return not self.damaged and not self.sealed


class EnrolmentStore:
    """The record in one directory; safe for several processes."""

    def __init__(self, var_dir: Path, cipher: Cipher) -> None:
        self.path = var_dir / FILE
        self._cipher = cipher

    def enroll(self, case: EnrolledCase, now: datetime) -> str:
        """Record a confirmed case; returns the id of the enrolment, which is also its reference.

        Raises `EnrolmentInvalid`, also when the cases before it do not open: a record under two keys would
        lose one half or the other.
        """
        with self._locked() as file:
            number = 1 + len(self.all())
            new = f"enrolled:{number:06d}"
            named = msgspec.structs.replace(case, reference=new)
            sealed = self._cipher.encrypt(msgspec.json.encode(named).decode(), _context(new))
            self._append(file, Entry(new, now.isoformat(timespec="seconds"), "enroll", sealed))
        return new

    def undo(self, enrolment: str, now: datetime) -> None:
        """Take an enrolment back.  Raises `EnrolmentInvalid` when there is none that counts."""
        with self._locked() as file:
            active = {entry.id for entry in self._whole().active()}
            if enrolment not in active:
                raise EnrolmentInvalid(
                    "no such enrolment, or it was undone already: see `cds-server rare list`"
                )
            self._append(file, Entry(enrolment, now.isoformat(timespec="seconds"), "undo"))

    def all(self) -> tuple[Enrolled, ...]:
        """Every enrolment, undone ones too, in order.  Raises `EnrolmentInvalid`."""
        record = self._whole()
        active = {entry.id for entry in record.active()}
        found = []
        for entry in record.entries:
            if entry.action == "enroll":
                case = self._opened(entry)
                if case is None:
                    raise EnrolmentInvalid(
                        f"{entry.id} does not open with this site's keys (CDS_CIPHER_KEY, or without it the "
                        "files in CDS_VAR_DIR/keys): use the keys it was enrolled with"
                    )
                found.append(Enrolled(entry.id, entry.at, entry.id in active, case))
        return tuple(found)

    def states(self) -> list[tuple[Entry, str]]:
        """Each line with the identity of what counted after it.  Raises `EnrolmentInvalid`."""
        return states(self._whole().entries)

    def counting(self) -> Counting:
        """The cases that count now, for `models.rare.engine.RareEngine.enrolled`, and what is wrong.

        A record that is damaged gives what can be trusted of it (`cds_server.rare.record.Record`).
        Raises `EnrolmentInvalid` when the file cannot be read at all.
        """
        record = read_record(self.path)
        opened = [(entry, self._opened(entry)) for entry in record.active()]
        good = [(entry, case) for entry, case in opened if case is not None]
        return Counting(
            tuple([case for _, case in good]),
            identity([entry for entry, _ in good]),
            record.damaged,
            tuple(sorted(record.doubtful)),
            tuple([entry.id for entry, case in opened if case is None]),
        )

    def _opened(self, entry: Entry) -> EnrolledCase | None:
        try:
            text = self._cipher.decrypt(entry.sealed, _context(entry.id))
            return msgspec.json.decode(text, type=EnrolledCase)
        except (DecryptionFailed, msgspec.MsgspecError):
            return None

    def _whole(self) -> Record:
        record = read_record(self.path)
        if record.damaged:
            raise EnrolmentInvalid(
                f"line {record.damaged[0]} of the record is damaged: restore it from a copy"
            )
        return record

    def _locked(self) -> "_Locked":
        return _Locked(self.path)

    @staticmethod
    def _append(descriptor: int, entry: Entry) -> None:
        """Write a line, wholly or not at all.  Raises `EnrolmentInvalid`."""
        before, line = os.fstat(descriptor).st_size, msgspec.json.encode(entry) + b"\n"
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as fault:
            os.ftruncate(descriptor, before)
            raise EnrolmentInvalid(f"the record cannot be written: {fault.strerror}") from None


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


def _context(enrolment: str) -> str:
    return f"rare.enrolled/{enrolment}"
