"""The record of enrolled cases: an append-only file of JSON lines, with undo as one more line.

Responsible for keeping what was enrolled and taken back, in order, and for telling what counts now and what
counted when an answer was given.  A case's findings are encrypted under the site's key; ids, times and
actions are not.  Only an erasure takes something out of a line: what was sealed in it.  What an enrolled
case does to a ranking is `models.rare.enrolment`'s business.
"""

import errno
import fcntl
import os
import secrets
import stat
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from cds_server.privacy import Cipher, DecryptionFailed
from cds_server.rare.record import (
    FILE,
    EnrolmentInvalid,
    Entry,
    Record,
    counted,
    erased,
    identity,
    read_record,
    states,
)
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


class CasesGone(Exception):
    """The cases that counted when an answer was given cannot be had again.

    `reason`: ``cases-erased``, ``cases-sealed`` (they do not open with this site's keys) or
    ``cases-missing`` (the record does not hold, or does not show, what counted then); `detail` names
    enrolments and lines, nothing of a case.
    """

    def __init__(self, reason: Literal["cases-missing", "cases-erased", "cases-sealed"], detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


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
            self.all()
            number = 1 + len({entry.id for entry in read_record(self.path).entries})
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

    def erase(self, enrolment: str, now: datetime) -> None:
        """Take what is sealed in an enrolment out of the file, for good; it need not count any more.

        The lines stay without it, so that no id is given twice.  What counted while it did cannot be had
        again.  Raises `EnrolmentInvalid` when there is nothing to erase, and then nothing is changed.
        """
        with self._locked():
            entries = self._whole().entries
            if not any(entry.id == enrolment and entry.sealed for entry in entries):
                raise EnrolmentInvalid(
                    "no such enrolment, or it was erased already: see `cds-server rare list`"
                )
            left = [
                msgspec.structs.replace(entry, sealed="") if entry.id == enrolment else entry
                for entry in entries
            ]
            self._rewrite([*left, Entry(enrolment, now.isoformat(timespec="seconds"), "erase")])

    def all(self) -> tuple[Enrolled, ...]:
        """Every enrolment but those erased, undone ones too, in order.  Raises `EnrolmentInvalid`."""
        record = self._whole()
        active = {entry.id for entry in record.active()}
        found = []
        for entry in record.entries:
            if entry.sealed:
                case = self._opened(entry)
                if case is None:
                    raise EnrolmentInvalid(
                        f"{entry.id} does not open with this site's keys (CDS_CIPHER_KEY, or without it the "
                        "files in CDS_VAR_DIR/keys): use the keys it was enrolled with"
                    )
                found.append(Enrolled(entry.id, entry.at, entry.id in active, case))
        return tuple(found)

    def states(self) -> list[tuple[Entry, str | None]]:
        """Each line with the identity of what counted after it, `None` where a case was erased since.

        Raises `EnrolmentInvalid`.
        """
        return states(self._whole().entries)

    def then(self, wanted: str) -> tuple[EnrolledCase, ...]:
        """The cases that counted when answers carried the identity `wanted`, which proves that they did.

        Lines that can be read are tried as they were written, and what counts now: a record may have been
        damaged already when the answer was given.  Raises `CasesGone`.
        """
        try:
            record = read_record(self.path)
        except EnrolmentInvalid as fault:
            raise CasesGone("cases-missing", str(fault)) from None
        now = self._counting(record)
        if now.identity == wanted:
            return now.cases
        found = counted(record.entries, wanted)
        if found is None:
            gone = erased(record.entries, wanted)
            if gone:
                raise CasesGone("cases-erased", ", ".join(gone))
            lines = ", ".join([str(line) for line in record.damaged])
            raise CasesGone("cases-missing", f"damaged lines: {lines}" if lines else "")
        opened = [(entry.id, self._opened(entry)) for entry in found]
        shut = [name for name, case in opened if case is None]
        if shut:
            raise CasesGone("cases-sealed", ", ".join(shut))
        return tuple([case for _, case in opened if case is not None])

    def counting(self) -> Counting:
        """The cases that count now, for `models.rare.engine.RareEngine.enrolled`, and what is wrong.

        A record that is damaged gives what can be trusted of it (`cds_server.rare.record.Record`).
        Raises `EnrolmentInvalid` when the file cannot be read at all.
        """
        return self._counting(read_record(self.path))

    def _counting(self, record: Record) -> Counting:
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

    def _rewrite(self, entries: list[Entry]) -> None:
        """Put other lines in the record's place, wholly or not at all.  Raises `EnrolmentInvalid`."""
        data = b"".join([msgspec.json.encode(entry) + b"\n" for entry in entries])
        try:
            place = self.path.resolve(strict=True)  # not a link to it, which would leave the file as it is
            before = place.stat()
            if before.st_nlink > 1:
                raise EnrolmentInvalid("the record has other names (hard links) that would keep the case")
            part = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}")
            try:
                _create(part, data, before)
                part.replace(place)
            finally:
                part.unlink(missing_ok=True)
            folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as fault:
            raise EnrolmentInvalid(f"the record cannot be written: {fault.strerror}") from None


def _create(path: Path, data: bytes, like: os.stat_result) -> None:
    """Write a new file, durable, for the same owner and readers as another.  Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if os.write(file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file, like.st_uid, like.st_gid)  # the command may be root's, the server is not
        os.fchmod(file, stat.S_IMODE(like.st_mode))
        os.fsync(file)
    finally:
        os.close(file)


class _Locked:
    """The record opened for appending, by one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> int:
        while True:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except OSError as fault:
                raise EnrolmentInvalid(f"the record cannot be written: {fault.strerror}") from None
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if self._in_place():
                return self._file
            os.close(self._file)  # an erasure put another file there while this one waited

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _context(enrolment: str) -> str:
    return f"rare.enrolled/{enrolment}"
