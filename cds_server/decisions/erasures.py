"""The erasures of a site as a file beside the database, so that a restored backup can be erased again.

A backup made before an erasure still holds the data key, and the database that is restored from it no longer
knows of the erasure.  One line here is one erasure: pseudonyms and the time, nothing that names anybody.
"""

import os
from datetime import datetime
from pathlib import Path

import msgspec

FILE = "privacy/erasures.jsonl"


class Erasure(msgspec.Struct, frozen=True):
    """One erasure."""

    at: datetime
    subjects: tuple[str, ...]


def note(var_dir: Path, erasure: Erasure) -> None:
    """Add one; returns when it is on disk.  Raises `OSError`."""
    path = var_dir / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(erasure) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def noted(var_dir: Path) -> list[Erasure]:
    """All of them, oldest first.

    Raises:
        OSError: the file cannot be read.
        msgspec.MsgspecError: a line is damaged.
    """
    try:
        lines = (var_dir / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Erasure) for line in lines]
