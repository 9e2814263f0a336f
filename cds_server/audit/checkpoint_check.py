"""Which checkpoints hold: those of the database, and those somebody carried away.

Pure: rows in, findings out.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from cds_server.audit.checkpoints import Body, Checkpoint, Head
from cds_server.audit.findings import Say
from cds_server.audit.signing import PublicKeys
from cds_server.audit.strand_check import Seal


class Stored(NamedTuple):
    """A checkpoint as the database has it: columns beside what was signed."""

    number: int
    made: datetime
    through_seq: int
    body: str
    signature: str


class CheckpointCheck:
    """Reads checkpoints and says what is wrong with them.

    Args:
        keys: public keys of the site.
    """

    def __init__(self, keys: PublicKeys, say: Say) -> None:
        self._keys = keys
        self._say = say

    def read(self, rows: Iterable[Stored], carried: Iterable[Checkpoint]) -> list[Body]:
        """The checkpoints that hold, oldest first.

        Args:
            rows: those of the database.
            carried: those from outside the database.
        """
        stored: dict[int, Checkpoint] = {}
        trusted: dict[int, Body] = {}
        for row in rows:
            checkpoint = Checkpoint(row.body, row.signature)
            stored[row.number] = checkpoint
            body = self._trusted(checkpoint, f"checkpoint {row.number}")
            if body is None:
                continue
            if (body.number, body.made, body.through_seq) != (row.number, row.made, row.through_seq):
                self._say(
                    "checkpoint changed", f"checkpoint {row.number}", "its columns are not what was signed"
                )
            trusted[body.number] = body
        for checkpoint in carried:
            body = self._trusted(checkpoint, "a checkpoint carried away")
            if body is None:
                continue
            number = body.number
            if number not in stored:
                self._say(
                    "checkpoint removed",
                    f"checkpoint {number}",
                    f"carried away, made {body.made:%Y-%m-%d %H:%M}Z",
                )
            elif stored[number] != checkpoint:
                self._say(
                    "checkpoint changed", f"checkpoint {number}", "is not the one that was carried away"
                )
            trusted[number] = body
        self._linked(stored, trusted)
        return [trusted[number] for number in sorted(trusted)]

    def _trusted(self, checkpoint: Checkpoint, name: str) -> Body | None:
        if checkpoint.signed_by(self._keys):
            return checkpoint.read()
        try:
            key = checkpoint.read().key
        except msgspec.DecodeError:
            key = ""
        known = (
            "the signature does not hold" if key in self._keys.ids else "signed by a key that is not known"
        )
        self._say("checkpoint forged", name, known)
        return None

    def _linked(self, stored: Mapping[int, Checkpoint], trusted: Mapping[int, Body]) -> None:
        last = max([*stored, *trusted], default=0)
        for number in range(1, last + 1):
            if number not in stored and number not in trusted:
                self._say("checkpoint removed", f"checkpoint {number}", "the next one follows it")
            elif (
                number in trusted
                and number - 1 in stored
                and trusted[number].previous != stored[number - 1].digest
            ):
                self._say("checkpoint changed", f"checkpoint {number - 1}", "the next one names another")


def seals_of(bodies: Sequence[Body]) -> dict[str, list[Seal]]:
    """What the checkpoints say of each strand, by growing count."""
    seals: dict[str, list[Seal]] = {}
    for body in bodies:
        for head in body.strands:
            seals.setdefault(head.strand, []).append(_seal(head, body.number))
    return {strand: sorted(of_it) for strand, of_it in seals.items()}


def _seal(head: Head, number: int) -> Seal:
    return Seal(head.count, number, bytes.fromhex(head.head), head.closed)
