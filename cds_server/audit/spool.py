"""The spool: records on the local disk while the database is away.

One line per record: the CRC-32 of the JSON in eight hex digits, a space, the JSON.  A line that was
torn by a crash or damaged by the disk is found by its CRC or missing newline, copied to a ``.damaged``
file, counted, and never blocks those after it.  A process writes segments of its own and holds an
`flock` on each; the segments of a process that died can be locked by the next one, which adopts them.
All calls here block (fsync): `trail` makes them in one thread.  When to spool and when to replay is
decided there.
"""

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SEGMENT_BYTES = 8 << 20
SUFFIX = ".spool"


@dataclass(slots=True)
class Segment:
    """One spool file under our lock.  `position` is how far it is replayed, `size` how far it is good."""

    path: Path
    descriptor: int
    size: int = 0
    position: int = 0
    waiting: int = 0


@dataclass(slots=True)
class Chunk:
    """What a read of a segment gave: whole lines' JSON, where the next read starts, what was damaged."""

    payloads: list[bytes] = field(default_factory=list)
    end: int = 0
    damaged: list[bytes] = field(default_factory=list)
    torn: bool = False


def frame(payload: bytes) -> bytes:
    """One line of a segment."""
    return b"%08x %s\n" % (zlib.crc32(payload), payload)


def unframe(line: bytes) -> bytes | None:
    """The JSON of a line without its newline; `None` when the CRC does not hold."""
    payload = line[9:]
    return payload if line[:9] == b"%08x " % zlib.crc32(payload) else None


class Spool:
    """The spool files of this process in `directory`, and those it adopted.

    Raises (all methods that write): OSError.
    """

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._count = 0
        self._closed_for_append = True
        self.own: list[Segment] = []
        self.adopted: list[Segment] = []

    @property
    def depth(self) -> int:
        """Records waiting in the segments under our locks."""
        return sum(s.waiting for s in self.own) + sum(s.waiting for s in self.adopted)

    def unread_bytes(self) -> int:
        """Bytes of our own segments that are not replayed yet."""
        return sum(s.size - s.position for s in self.own)

    def probe(self) -> None:
        """Makes sure that a segment could be written: directory there, a byte on disk and gone again."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f".probe-{os.getpid()}-{time.time_ns()}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink()

    def append(self, payloads: Sequence[bytes]) -> None:
        """Puts records at the end of the spool; returns when they are on disk."""
        segment = self._writable()
        data = memoryview(b"".join(map(frame, payloads)))
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(segment.descriptor, data[written:], segment.size + written)
            os.fsync(segment.descriptor)
        except OSError:
            # Half a line must not be glued to the next one, and after a failed fsync nobody knows what
            # the disk holds: this segment takes no more.
            self._closed_for_append = True
            with contextlib.suppress(OSError):
                os.ftruncate(segment.descriptor, segment.size)
            raise
        segment.size += len(data)
        segment.waiting += len(payloads)

    def adopt(self) -> int:
        """Takes over the segments that no living process holds; returns how many records they hold."""
        ours = {s.path for s in (*self.own, *self.adopted)}
        taken = 0
        try:
            candidates = sorted(p for p in self._directory.iterdir() if p.suffix == SUFFIX)
        except FileNotFoundError:
            return 0
        for path in candidates:
            if path in ours:
                continue
            segment = self._lock_existing(path)
            if segment is None:
                continue
            segment.waiting = _lines(segment)
            self.adopted.append(segment)
            taken += segment.waiting
        return taken

    def read(self, segment: Segment, limit: int) -> Chunk:
        """At most `limit` bytes of whole lines from the segment's position on (one line at least)."""
        length = min(limit, segment.size - segment.position)
        data = os.pread(segment.descriptor, length, segment.position)
        while b"\n" not in data and len(data) < segment.size - segment.position:
            data = os.pread(segment.descriptor, len(data) + limit, segment.position)
        whole = data.rfind(b"\n") + 1
        chunk = Chunk(end=segment.position + whole)
        for line in data[: max(0, whole - 1)].split(b"\n") if whole else ():
            payload = unframe(line)
            if payload is None:
                chunk.damaged.append(line)
            else:
                chunk.payloads.append(payload)
        if whole == 0 and data:
            chunk.damaged.append(data)
            chunk.torn = True
            chunk.end = segment.position + len(data)
        return chunk

    def advance(self, segment: Segment, chunk: Chunk) -> None:
        """Marks a chunk as stored in the database.

        The mark saves work after a crash, no more (replaying twice stores once): it is not fsynced.
        """
        segment.position = chunk.end
        segment.waiting = max(0, segment.waiting - len(chunk.payloads) - len(chunk.damaged))
        with contextlib.suppress(OSError):
            _mark(segment.path).write_text(str(segment.position))

    def retire(self, segment: Segment) -> None:
        """Deletes a segment that is replayed to its end, and lets go of its lock."""
        segment.path.unlink(missing_ok=True)
        _mark(segment.path).unlink(missing_ok=True)
        os.close(segment.descriptor)
        (self.own if segment in self.own else self.adopted).remove(segment)

    def set_aside(self, segment_name: str, lines: Iterable[bytes], *, suffix: str = ".damaged") -> None:
        """Keeps what cannot be replayed beside the spool, fsynced, for a person to look at."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / (segment_name + suffix)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            data = b"".join(line + b"\n" for line in lines)
            if os.write(descriptor, data) != len(data):
                raise OSError("short write beside the spool")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._sync_directory()

    def close(self) -> None:
        """Lets go of all locks; what is not replayed stays for the next process to adopt."""
        for segment in (*self.own, *self.adopted):
            if segment.size == 0:
                segment.path.unlink(missing_ok=True)
            os.close(segment.descriptor)
        self.own.clear()
        self.adopted.clear()

    def _writable(self) -> Segment:
        if self.own and not self._closed_for_append and self.own[-1].size < self._segment_bytes:
            return self.own[-1]
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            self._count += 1
            # The name sorts by time, then by count: the order of replay of one process's segments.
            name = f"{time.time_ns():020d}-{os.getpid()}-{self._count:06d}{SUFFIX}"
            path = self._directory / name
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
            if _lock(path, descriptor):
                break
            os.close(descriptor)  # another process adopted the empty file in between
        self._sync_directory()
        self.own.append(Segment(path, descriptor))
        self._closed_for_append = False
        return self.own[-1]

    def _lock_existing(self, path: Path) -> Segment | None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if not _lock(path, descriptor):
            os.close(descriptor)
            return None
        segment = Segment(path, descriptor, size=os.fstat(descriptor).st_size)
        with contextlib.suppress(OSError, ValueError):
            position = int(_mark(path).read_text())
            if 0 < position <= segment.size and os.pread(descriptor, 1, position - 1) == b"\n":
                segment.position = position
        return segment

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lines(segment: Segment) -> int:
    count, at = 0, segment.position
    while block := os.pread(segment.descriptor, 1 << 20, at):
        count += block.count(b"\n")
        at += len(block)
    return count


def _mark(path: Path) -> Path:
    return path.with_suffix(".position")


def _lock(path: Path, descriptor: int) -> bool:
    """Whether we now hold the lock of the file that is still called `path`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
