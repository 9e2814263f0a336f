"""What a verification of the trail says: something is not as it was recorded."""

from collections.abc import Callable
from typing import Literal

import msgspec

Kind = Literal[
    "changed",
    "removed",
    "inserted",
    "reordered",
    "tail removed",
    "not vouched for",
    "search column changed",
    "checkpoint forged",
    "checkpoint changed",
    "checkpoint removed",
]


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was recorded: its kind, the event or checkpoint, and what is known."""

    kind: Kind
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.text}"


Say = Callable[[Kind, str, str], None]
"""Takes a finding's kind, its subject and what is known."""
