"""Compressed HTTP answers, unpacked under a bound: nothing small unfolds into more memory than allowed.

An HTTP library unpacks what one read of the network brought at once, which is 64 MB of a gzip bomb (and
more of Brotli or Zstandard) before anybody can count.  Here the bound is given to the decompressor itself.
"""

import zlib

ACCEPTED = "gzip"
"""What to ask for (``Accept-Encoding``); `Unpacking` also reads ``deflate``."""
_EITHER_HEADER = zlib.MAX_WBITS | 32  # zlib finds out whether it is gzip's or zlib's


class UnpackingFailed(Exception):
    """A coding that was not asked for, damaged data, or more of it than allowed."""


class Unpacking:
    """Takes the body of one answer piece by piece.

    Args:
        coding: the answer's ``Content-Encoding``.
        limit: most bytes of the unpacked body.

    Raises:
        UnpackingFailed: (when made) the coding is another one.
    """

    def __init__(self, coding: str, limit: int) -> None:
        name = coding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise UnpackingFailed("coding")
        self._packed = name not in ("", "identity")
        self._decompressor = zlib.decompressobj(_EITHER_HEADER)
        self._limit = limit
        self._body = bytearray()

    def add(self, piece: bytes) -> None:
        """Raises `UnpackingFailed` as soon as the limit is passed."""
        if self._packed:
            try:
                piece = self._decompressor.decompress(piece, self._limit + 1 - len(self._body))
            except zlib.error:
                raise UnpackingFailed("damaged") from None
        self._body += piece
        if len(self._body) > self._limit:
            raise UnpackingFailed("too-large")

    def whole(self) -> bytes:
        """The body.  Raises `UnpackingFailed` when its end is missing, or not the end of what came."""
        if self._packed and (not self._decompressor.eof or self._decompressor.unused_data):
            raise UnpackingFailed("damaged")
        return bytes(self._body)
