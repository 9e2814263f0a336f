"""The site's own signing keys as a SMART client: made, rotated, retired; their public halves published.

Private keys are JWK files ``<var_dir>/keys/smart-ES384-1.jwk`` (mode 0600).  The highest number of an
algorithm signs.  All of them are published at ``/smart/jwks.json`` until they are retired, so that an EHR
that still holds the older set keeps accepting, and a new key is known before an old one goes.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from cds_server.privacy import KeyMaterialInvalid, create_once
from cds_server.smart.ehrs import Algorithm

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_FILE = re.compile(r"smart-(ES384|RS384)-([1-9]\d{0,5})\.jwk\Z")
_RSA_BITS = 3072  # NIST SP 800-57: 128 bits of strength


class SigningKey:
    """One private key; shows nothing of it."""

    __slots__ = ("_key", "algorithm", "kid", "number")

    def __init__(self, key: ECKey | RSAKey, algorithm: Algorithm, number: int) -> None:
        self._key = key
        self.algorithm = algorithm
        self.number = number
        self.kid = key.thumbprint()  # RFC 7638

    def __repr__(self) -> str:
        return f"<SigningKey {self.algorithm} {self.number}>"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    @property
    def private(self) -> ECKey | RSAKey:
        """The key itself, for signing."""
        return self._key

    def public(self) -> dict[str, Any]:
        """The public half as a JWK with `kid`, `alg` and `use`."""
        bare = self._key.as_dict(private=False)
        names = ("kty", "crv", "x", "y", "n", "e")
        return {
            **{name: bare[name] for name in names if name in bare},
            "kid": self.kid,
            "alg": self.algorithm,
            "use": "sig",
            "key_ops": ["verify"],
        }


class ClientKeys:
    """The keys of a site, read from a directory; read again when a file appears or goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: frozenset[str] | None = None
        self._keys: tuple[SigningKey, ...] = ()

    def all(self) -> tuple[SigningKey, ...]:
        """Every key, by algorithm and number.

        Raises:
            KeyMaterialInvalid: a file is not such a key; names the file only.
            OSError: the directory cannot be read.
        """
        names = frozenset(path.name for path in self._directory.glob("smart-*.jwk"))
        if names != self._seen:
            self._keys = tuple(sorted(map(self._read, names), key=lambda key: (key.algorithm, key.number)))
            self._seen = names
        return self._keys

    def signing(self, algorithm: Algorithm) -> SigningKey:
        """The key that signs with an algorithm now.

        Raises:
            KeyMaterialInvalid: there is none.
        """
        found = [key for key in self.all() if key.algorithm == algorithm]
        if not found:
            raise KeyMaterialInvalid(f"there is no SMART key for {algorithm}: cds-server keys smart new")
        return found[-1]

    def ensure(self, algorithms: Iterable[Algorithm]) -> None:
        """Make the first key of each algorithm that has none; several workers may do so at once."""
        for algorithm in algorithms:
            if not any(key.algorithm == algorithm for key in self.all()):
                self._make(algorithm, 1)

    def add(self, algorithm: Algorithm) -> SigningKey:
        """Make a further key, which signs from now on.

        Raises:
            OSError: the directory cannot be written.
        """
        self._make(algorithm, max((k.number for k in self.all() if k.algorithm == algorithm), default=0) + 1)
        return self.signing(algorithm)

    def retire(self, algorithm: Algorithm, number: int) -> None:
        """Remove an older key for good; the one that signs stays.

        Raises:
            KeyMaterialInvalid: no such key, or the one in use.
        """
        numbers = [key.number for key in self.all() if key.algorithm == algorithm]
        if number not in numbers:
            raise KeyMaterialInvalid(f"there is no {algorithm} key {number}")
        if number == numbers[-1]:
            raise KeyMaterialInvalid(f"{algorithm} key {number} is in use; make a new one first")
        (self._directory / f"smart-{algorithm}-{number}.jwk").unlink()

    def published(self) -> dict[str, Any]:
        """The JWK set for ``/smart/jwks.json`` (RFC 7517, 5)."""
        return {"keys": [key.public() for key in self.all()]}

    def _make(self, algorithm: Algorithm, number: int) -> None:
        key = (
            ECKey.generate_key("P-384", private=True)
            if algorithm == "ES384"
            else RSAKey.generate_key(_RSA_BITS, private=True)
        )
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps(key.as_dict(private=True)).encode() + b"\n"
        create_once(self._directory, f"smart-{algorithm}-{number}.jwk", content)

    def _read(self, name: str) -> SigningKey:
        parts = _FILE.match(name)
        if parts is None:
            raise KeyMaterialInvalid(f"key file {name}: expected smart-ES384-1.jwk or smart-RS384-1.jwk")
        algorithm: Algorithm = "ES384" if parts[1] == "ES384" else "RS384"
        kind = ECKey if algorithm == "ES384" else RSAKey
        try:
            key = kind.import_key(msgspec.json.decode((self._directory / name).read_bytes(), type=dict))
        except (JoseError, ValueError, TypeError, KeyError, msgspec.DecodeError):
            raise KeyMaterialInvalid(f"key file {name}: not a JWK of that kind") from None
        if not key.is_private or (isinstance(key, ECKey) and key.curve_name != "P-384"):
            raise KeyMaterialInvalid(f"key file {name}: not a private JWK of that kind")
        return SigningKey(key, algorithm, int(parts[2]))
