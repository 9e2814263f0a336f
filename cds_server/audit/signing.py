"""The site's Ed25519 keys for the audit trail: what signs openings and checkpoints, what checks them.

The secret halves are ``<var_dir>/keys/audit-signing-N.key`` (made at the first start, the highest number
signs) or given by a setting; the public halves lie beside them as ``.pem`` and may be given to anybody.
A key is named by the first 16 hexadecimal digits of the SHA-256 of its public bytes.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from cds_server.audit.chain import strand_name
from cds_server.privacy import KeyMaterialInvalid, KeyRing, add_key, open_ring

PURPOSE = "audit-signing"
_OPENING = b"cds-server audit strand opened "
_END = b"-----END PUBLIC KEY-----"


class Signer:
    """Signs with the newest key of a ring."""

    __slots__ = ("_key", "key_id", "public")

    def __init__(self, ring: KeyRing) -> None:
        keys = _private(ring)
        self._key = keys[-1]
        self.key_id = key_id(self._key.public_key())
        self.public = PublicKeys(key.public_key() for key in keys)

    def __repr__(self) -> str:
        return f"<Signer {self.key_id}>"

    @classmethod
    def open(cls, keys_directory: Path, given: str | None = None) -> "Signer":
        """The site's signer; makes its first key, and leaves the public halves beside the secret ones.

        Raises:
            KeyMaterialInvalid: a file or setting is not a key.
            OSError: the directory cannot be read or written.
        """
        ring = open_ring(keys_directory, PURPOSE, given)
        if given is None:
            _publish(keys_directory, ring)
        return cls(ring)

    def sign(self, data: bytes) -> str:
        """The signature in base64."""
        return base64.b64encode(self._key.sign(data)).decode()

    def opening(self, strand: int) -> str:
        """The signature that vouches for a strand: its writer had the key."""
        return self.sign(opening_bytes(strand))


class PublicKeys:
    """Public keys by their ids; shows whether something was signed with one of them."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id(key): key for key in keys}

    def __repr__(self) -> str:
        return f"<PublicKeys {', '.join(self._keys)}>"

    @classmethod
    def read(cls, *files: Path) -> "PublicKeys":
        """The keys of PEM files, each of which may hold several.

        Raises:
            KeyMaterialInvalid: a file holds no Ed25519 public key.
            OSError: a file cannot be read.
        """
        keys: list[Ed25519PublicKey] = []
        for file in files:
            blocks = file.read_bytes().split(_END)[:-1]
            for block in blocks:
                try:
                    key = load_pem_public_key(block + _END + b"\n")
                except ValueError:
                    raise KeyMaterialInvalid(f"{file.name}: not a PEM public key") from None
                if not isinstance(key, Ed25519PublicKey):
                    raise KeyMaterialInvalid(f"{file.name}: not an Ed25519 key")
                keys.append(key)
            if not blocks:
                raise KeyMaterialInvalid(f"{file.name}: holds no PEM public key")
        return cls(keys)

    @classmethod
    def of_directory(cls, keys_directory: Path) -> "PublicKeys":
        """The public keys of a site's key directory."""
        return cls.read(*sorted(keys_directory.glob(f"{PURPOSE}-*.pem")))

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(self._keys)

    def holds(self, name: str, data: bytes, signature: str) -> bool:
        """Whether `signature` (base64) is that of the key `name` over `data`."""
        key = self._keys.get(name)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(signature, validate=True), data)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def pem(self) -> bytes:
        """All of them as PEM, newest last."""
        return b"".join(_pem(key) for key in self._keys.values())


def add_signing_key(keys_directory: Path) -> int:
    """Make the next signing key, with its public half beside it; returns its number.

    The public half is there at once: whoever verifies can have it before the server signs with the key.

    Raises:
        KeyMaterialInvalid: a former file is not a key.
        OSError: the directory cannot be read or written.
    """
    number = add_key(keys_directory, PURPOSE)
    _publish(keys_directory, open_ring(keys_directory, PURPOSE))
    return number


def _publish(keys_directory: Path, ring: KeyRing) -> None:
    for number, key in zip(ring.numbers, _private(ring), strict=True):
        path = keys_directory / f"{PURPOSE}-{number}.pem"
        pem = _pem(key.public_key())
        if not path.exists() or path.read_bytes() != pem:
            path.write_bytes(pem)


def key_id(key: Ed25519PublicKey) -> str:
    """The name of a key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def opening_bytes(strand: int) -> bytes:
    """What the signature of a strand's opening is over."""
    return _OPENING + strand_name(strand).encode()


def _private(ring: KeyRing) -> list[Ed25519PrivateKey]:
    return [Ed25519PrivateKey.from_private_bytes(key) for number in ring.numbers if (key := ring.key(number))]


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
