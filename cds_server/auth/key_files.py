"""Public keys that were exchanged by hand: a JWK Set in a file, read again when it was replaced."""

from pathlib import Path

import msgspec
import structlog

from cds_server.auth.jwks import KeyUnknown, PublicKey, only_one, public_keys
from cds_server.auth.outbound import ServerUnreachable

_log = structlog.get_logger(__name__)
_LARGEST = 512_000


class FileKeys:
    """The keys of one issuer; see `jwks.KeySource`.

    While a replaced file does not hold, the former keys go on and the log says so.

    Raises:
        ServerUnreachable: (when made) the file cannot be read or is no JWK Set with a usable key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen, self._keys = _read(path)

    async def key(self, kid: str | None, algorithm: str) -> PublicKey:
        """See `jwks.KeySource.key`."""
        try:
            if _fingerprint(self._path) != self._seen:
                self._seen, self._keys = _read(self._path)
        except (ServerUnreachable, OSError):
            _log.warning("auth.key_file_unusable")
        found = only_one(self._keys, kid, algorithm)
        if found is None:
            raise KeyUnknown("no such key")
        return found


def read_keys(path: Path) -> list[PublicKey]:
    """The usable keys of a JWK Set in a file.  Raises: ServerUnreachable, as `FileKeys` does."""
    return _read(path)[1]


def _read(path: Path) -> tuple[tuple[int, int, int], list[PublicKey]]:
    try:
        seen = _fingerprint(path)  # first: a file that is replaced meanwhile is read once more
        if seen[2] > _LARGEST:
            raise ServerUnreachable(f"larger than {_LARGEST} bytes")
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except OSError as fault:
        raise ServerUnreachable(f"{path.name}: {fault.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ServerUnreachable(f"{path.name}: not a JSON object") from None
    keys = public_keys(document)
    if not keys:
        raise ServerUnreachable(f"{path.name}: no usable public key in it")
    return seen, keys


def _fingerprint(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return (found.st_ino, found.st_mtime_ns, found.st_size)
