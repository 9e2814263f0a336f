"""Checkpoints: signed statements of how far every strand had come, each bound to the one before.

As values: what a checkpoint says, its bytes, its signature.  One that somebody carried away (a line of
``<var_dir>/audit/checkpoints.jsonl``) proves what the database held then, whatever is done to the
database later.  When they are made and where they are put is `cds_server.audit.sealing`'s business.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from cds_server.audit.chain import Strand, strand_name
from cds_server.audit.signing import PublicKeys, Signer

BLOCK = 1_000
"""Records from before the chain that share one digest."""


class CheckpointFileInvalid(Exception):
    """A file of checkpoints cannot be read; names the line."""


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """A strand as it was: how many records, and the link of the last in hexadecimal.

    `by`: its ``writer`` said so from its own memory, or another process ``found`` it in the database
    (its writer was gone).  `closed`: the writer has ended, nothing may follow.
    """

    strand: str
    count: int
    head: str
    by: Literal["writer", "found"] = "writer"
    closed: bool = False

    @classmethod
    def of(cls, strand: Strand, *, closed: bool = False) -> "Head":
        """The head of the strand its own writer holds."""
        return cls(strand_name(strand.number), strand.count, strand.head.hex(), "writer", closed)


class Unchained(msgspec.Struct, frozen=True):
    """What was recorded before there was a chain: how many, the last `seq`, a digest of each `BLOCK`."""

    count: int
    last_seq: int
    blocks: tuple[str, ...]


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is signed.  `previous` is the digest of the checkpoint before, empty for the first.

    `strands` holds those that grew since; all that is known of a strand is in the newest checkpoint that
    names it.  `through_seq` is the largest `events.seq` seen, `key` names the signing key.
    """

    number: int
    made: datetime
    previous: str
    key: str
    through_seq: int
    strands: tuple[Head, ...] = ()
    unchained: Unchained | None = None


class Checkpoint(msgspec.Struct, frozen=True):
    """The bytes that were signed, as text, and the signature in base64."""

    body: str
    signature: str

    @property
    def digest(self) -> str:
        """What the next checkpoint names as `previous`."""
        return hashlib.sha256(f"{self.body}\n{self.signature}".encode()).hexdigest()

    def read(self) -> Body:
        """What it says.  Raises: msgspec.DecodeError."""
        return msgspec.json.decode(self.body, type=Body)

    def signed_by(self, keys: PublicKeys) -> bool:
        """Whether one of the keys, the one it names, signed exactly this body."""
        try:
            return keys.holds(self.read().key, self.body.encode(), self.signature)
        except msgspec.DecodeError:
            return False


def signed(body: Body, signer: Signer) -> Checkpoint:
    """The checkpoint of a body."""
    data = msgspec.json.encode(body)
    return Checkpoint(data.decode(), signer.sign(data))


def unchained_blocks(records: Iterable[tuple[str, str]]) -> tuple[int, tuple[str, ...]]:
    """How many records (id, payload), and the digest of each block of them, in their order."""
    blocks: list[str] = []
    count = 0
    digest = hashlib.sha256()
    for record_id, payload in records:
        for part in (record_id.encode(), payload.encode()):
            digest.update(len(part).to_bytes(8, "big") + part)
        count += 1
        if count % BLOCK == 0:
            blocks.append(digest.hexdigest())
            digest = hashlib.sha256()
    if count % BLOCK:
        blocks.append(digest.hexdigest())
    return count, tuple(blocks)


def read_file(path: Path) -> list[Checkpoint]:
    """The checkpoints of a file, one JSON object a line.

    Raises:
        CheckpointFileInvalid: a line is none.
        OSError: the file cannot be read.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            checkpoint = msgspec.json.decode(line, type=Checkpoint)
            checkpoint.read()
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise CheckpointFileInvalid(f"{path.name}, line {number}: not a checkpoint") from None
        found.append(checkpoint)
    return found
