"""What a process does with its memory once everything that stays is loaded."""

import ctypes
import gc


def settle() -> None:
    """Take what is loaded out of later garbage collections, and give back what loading needed on the way.

    Loading unpacks far more than stays, in pieces so small that glibc keeps them: 40 of 250 MiB with the
    shipped bundle (docs/benchmark.md).  Where the C library has no `malloc_trim` nothing is given back.
    """
    gc.collect()
    gc.freeze()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)
