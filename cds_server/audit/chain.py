"""The hash chain: every record carries a digest of itself and of all before it in its strand.

A strand is what one writer process records between its start and its end: its own random number, its
own count, its own head.  So processes and machines never wait for each other, and a record that goes
through the spool has its place before anybody knows when it will be stored.  What ties the strands
together is the signed checkpoint (`cds_server.audit.checkpoints`).  Pure: no I/O, no clock.

    digest  = SHA-256(payload)
    link(0) = SHA-256("cds-server audit strand" || strand)
    link(n) = SHA-256(link(n-1) || strand || n || digest(n))        strand, n: 8 bytes, big-endian
"""

import hashlib
import secrets
from collections.abc import Sequence

import msgspec

LINK_BYTES = 32
_STRAND_BITS = 63  # fits a signed 64-bit column
_SEPARATOR = b" "


class Link(msgspec.Struct, frozen=True, gc=False):
    """A record's place in the chain: number of its strand, place in it from 1, and the digest there."""

    strand: int
    place: int
    value: bytes


class Strand(msgspec.Struct, frozen=True, gc=False):
    """How far a strand has come: its number, how many records it has, the link of the last one."""

    number: int
    count: int
    head: bytes

    @classmethod
    def new(cls) -> "Strand":
        """A strand nobody else has: 63 random bits."""
        return cls.empty(secrets.randbits(_STRAND_BITS))

    @classmethod
    def empty(cls, number: int) -> "Strand":
        """The strand of that number before its first record."""
        head = hashlib.sha256(b"cds-server audit strand" + number.to_bytes(8, "big")).digest()
        return cls(number, 0, head)

    def extended(self, payloads: Sequence[bytes]) -> tuple[list[Link], "Strand"]:
        """The links of further records in their order, and the strand after them."""
        number, place, head = self.number, self.count, self.head
        links = []
        for payload in payloads:
            place += 1
            head = link_value(head, number, place, hashlib.sha256(payload).digest())
            links.append(Link(number, place, head))
        return links, Strand(number, place, head)


def link_value(before: bytes, strand: int, place: int, payload_digest: bytes) -> bytes:
    """The link of a record whose payload has that SHA-256, after a record with the link `before`."""
    return hashlib.sha256(
        before + strand.to_bytes(8, "big") + place.to_bytes(8, "big") + payload_digest
    ).digest()


def strand_name(strand: int) -> str:
    """How a strand is written for people and in checkpoints: 16 hexadecimal digits."""
    return f"{strand:016x}"


def with_link(link: Link | None, payload: bytes) -> bytes:
    """A spool line: ``strand place link payload``; the payload alone for a record that has no place yet."""
    if link is None:
        return payload
    return f"{strand_name(link.strand)} {link.place} {link.value.hex()} ".encode() + payload


def without_link(line: bytes) -> tuple[Link | None, bytes]:
    """The inverse of `with_link`; a line of a version without chain is a payload alone.

    Raises:
        ValueError: neither.
    """
    if line[:1] == b"{":
        return None, line
    strand, place, value, payload = line.split(_SEPARATOR, 3)
    link = Link(int(strand, 16), int(place), bytes.fromhex(value.decode("ascii")))
    if len(link.value) != LINK_BYTES or not 0 < link.place < 1 << 63 or not 0 <= link.strand < 1 << 63:
        raise ValueError("not a link")
    return link, payload
