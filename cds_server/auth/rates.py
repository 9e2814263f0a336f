"""How often a caller may call: counted for all worker processes of a machine together.

Each caller has a moment up to which it has "used up" its rate (the generic cell rate algorithm, ITU-T
I.371: one number per caller).  The numbers stand in a small file that all workers map into memory, under
a lock that is held for some microseconds.  Several machines behind one address count each for itself: the
limit is against a caller that runs wild, not a quota to be billed.
"""

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

WINDOW_SECONDS = 60.0
"""A caller may save up this much: a rate of 100 a minute lets 100 calls pass at once, then one per 0.6 s."""

_SLOT = struct.Struct("<Qd")
_SLOTS = 65_536
_PROBES = 16
_SIZE = _SLOTS * _SLOT.size


class Rates:
    """The counters of a machine.

    Args:
        path: of the file, one per server; made when missing.  It holds hashes of callers' names.
        now: seconds since 1970, the same for all processes.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._path = path
        self._opened: tuple[int, mmap.mmap] | None = None

    def take(self, caller: str, per_minute: int) -> int:
        """Count one call.

        Args:
            caller: any text that tells callers apart.
            per_minute: the rate of this one.

        Returns: 0 when the call may pass, else the whole seconds until one may.
        """
        return self._asked(caller, per_minute, count=True)

    def wait(self, caller: str, per_minute: int) -> int:
        """What `take` would return; counts nothing."""
        return self._asked(caller, per_minute, count=False)

    def _asked(self, caller: str, per_minute: int, *, count: bool) -> int:
        now = self._now()
        interval = WINDOW_SECONDS / per_minute
        name = (
            int.from_bytes(hashlib.blake2b(caller.encode("utf-8", "surrogatepass"), digest_size=8).digest())
            or 1
        )
        with self._locked() as slots:
            place, used_until = _find(slots, name, now)
            used_until = max(used_until, now)
            wait = used_until + interval - WINDOW_SECONDS - now
            if wait > 1e-9:
                return math.ceil(wait)
            if count:
                _SLOT.pack_into(slots, place, name, used_until + interval)
        return 0

    def close(self) -> None:
        """Let go of the file; the counts stay for the others."""
        if self._opened is not None:
            file, slots = self._opened
            self._opened = None
            slots.close()
            os.close(file)

    @contextmanager
    def _locked(self) -> Iterator[mmap.mmap]:
        file, slots = self._opened = self._opened or self._open()
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield slots
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _open(self) -> tuple[int, mmap.mmap]:
        """At the first call: who limits nobody needs no file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            os.ftruncate(file, _SIZE)  # of a file that has that size already it changes nothing
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
        return file, mmap.mmap(file, _SIZE)


def _find(slots: mmap.mmap, name: int, now: float) -> tuple[int, float]:
    """The place of a caller, and until when it has used its rate; a new one takes one nobody needs."""
    spare, spare_until = -1, math.inf
    for step in range(_PROBES):
        place = (name + step) % _SLOTS * _SLOT.size
        holder, used_until = _SLOT.unpack_from(slots, place)
        if not 0 <= used_until <= now + 2 * WINDOW_SECONDS:
            used_until = 0.0  # no rate leads there: the clock was set back, or the file is damaged
        if holder == name:
            return place, used_until
        if used_until < spare_until:
            spare, spare_until = place, used_until
    # All taken by callers who are still counted: the one with the least to lose gives way.
    return spare, 0.0
