"""What is kept of one decision: all that it was computed from, what was answered, and nothing else.

The request's body as it came (without the access token), the pages that were fetched, the answer, each
compressed, and the circumstances: time, language, software, model bundle and the settings that show in an
answer.  `pack` and `unpack` are the only form; encryption is `decisions.keys`' business.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from fhir_adapters.reading import Fetched
from hooks.cards import CardSettings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORM = 1
_LEVEL = 1
"""Of zstd: a tenth of the size for 40 us on a chart of 25 kB; level 6 saves 2 % more for four times that."""

Kind = Literal["hook-call", "assess", "predict"]


class StoredInvalid(Exception):
    """What was kept cannot be read by this version of the software."""


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """All that an answer depends on beside body and pages.

    `now` is the server's time (aware, UTC), `bundle` the id of the model bundle (`None`: rules only).
    `admitted` says whether the request's FHIR server was on the allow list, `most_pages` the limit of
    pages per query.  `whole` is false when the access token was taken out of the body, whose digest then
    is not the event's `input_digest` any more.
    """

    form: int = FORM
    kind: Kind
    service: str
    language: str
    now: datetime
    software: str
    bundle: str | None
    model: str
    knowledge: str
    base_url: str | None = None
    cards: CardSettings = CardSettings()
    admitted: bool = False
    most_pages: int = 0
    whole: bool = True


class Stored(msgspec.Struct, frozen=True):
    """One decision as it is kept; `fetched` are the pages in the order of their arrival."""

    circumstances: Circumstances
    body: bytes
    fetched: tuple[Fetched, ...]
    answer: bytes


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    circumstances: Circumstances
    body: bytes
    fetched: bytes
    answer: bytes


_pages = msgspec.msgpack.Decoder(tuple[Fetched, ...])
_packed = msgspec.msgpack.Decoder(_Packed)
_encode = msgspec.msgpack.Encoder().encode


def squeeze(data: bytes) -> bytes:
    """Compressed; large data costs time without the interpreter lock."""
    return zstd.compress(data, _LEVEL)


def pack(
    circumstances: Circumstances, squeezed_body: bytes, fetched: Sequence[Fetched], answer: bytes
) -> bytes:
    """The bytes to encrypt; the body was squeezed before, when it was at hand."""
    pages = squeeze(_encode(tuple(fetched))) if fetched else b""
    return _encode(_Packed(circumstances, squeezed_body, pages, squeeze(answer)))


def unpack(data: bytes) -> Stored:
    """The inverse of `pack`.

    Raises:
        StoredInvalid: of another form, or damaged.
    """
    try:
        packed = _packed.decode(data)
        if packed.circumstances.form != FORM:
            raise StoredInvalid(f"kept in form {packed.circumstances.form}, this version reads {FORM}")
        pages = _pages.decode(zstd.decompress(packed.fetched)) if packed.fetched else ()
        return Stored(
            packed.circumstances, zstd.decompress(packed.body), pages, zstd.decompress(packed.answer)
        )
    except (msgspec.MsgspecError, zstd.ZstdError) as fault:
        raise StoredInvalid("kept in a form that this version does not read") from fault
