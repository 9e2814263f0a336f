"""Site keys and what is done with them: pseudonyms for persons, encryption for texts that may name one.

Keys are made at the first start in ``<var_dir>/keys`` (files of mode 0600, one per key, numbered), or
are given (containers, several machines behind one address).  The highest number is in use, lower ones
still decrypt.  This module decides nothing about what must be pseudonymous; its callers do.
"""

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cds_server.secret_files import SecretUnreadable, revealed

KEY_BYTES = 32
_NONCE_BYTES = 12  # NIST SP 800-38D: 96-bit nonces for GCM
_PSEUDONYM_BYTES = 16
_AUTHORITY = "authority"


class KeyMaterialInvalid(Exception):
    """A key file or setting is not a key.  Names the place, never the content."""


class DecryptionFailed(Exception):
    """Wrong key, wrong context or altered ciphertext."""


class KeyRing:
    """Numbered secret keys of one purpose; shows nothing of them."""

    __slots__ = ("_keys", "current")

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys.values()) or min(keys) < 1:
            raise KeyMaterialInvalid(f"a key ring needs keys of {KEY_BYTES} bytes, numbered from 1")
        self._keys = dict(keys)
        self.current = max(keys)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)}, current {self.current}>"

    def __reduce__(self) -> str:
        raise TypeError("keys are not pickled")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the keys, growing; the last is in use."""
        return tuple(sorted(self._keys))

    def key(self, number: int) -> bytes | None:
        """The key of that number, if there is one."""
        return self._keys.get(number)


class SiteKeys:
    """The key rings of a site: `pseudonym`, `cipher`, and `master`, which wraps the patients' data keys."""

    __slots__ = ("cipher", "master", "pseudonym")

    def __init__(self, pseudonym: KeyRing, cipher: KeyRing, master: KeyRing) -> None:
        self.pseudonym = pseudonym
        self.cipher = cipher
        self.master = master

    def __repr__(self) -> str:
        return f"<SiteKeys pseudonym={self.pseudonym!r} cipher={self.cipher!r} master={self.master!r}>"

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        pseudonym: str | None = None,
        cipher: str | None = None,
        master: str | None = None,
    ) -> "SiteKeys":
        """The site's keys: given ones where given, else those of `directory`, made there if missing.

        Args:
            directory: ``<var_dir>/keys``; several workers may open it for the first time at once.
            pseudonym, cipher, master: key rings as settings, ``1:BASE64 2:BASE64`` (32 bytes each; a bare
                BASE64 is number 1), or ``@path`` of a file that holds the same.

        Raises:
            KeyMaterialInvalid: a file or setting is not a key.
            OSError: the directory cannot be read or written.
        """
        return cls(
            _given("pseudonym key", pseudonym) if pseudonym else _stored(directory, "pseudonym"),
            _given("cipher key", cipher) if cipher else _stored(directory, "cipher"),
            open_ring(directory, "master", master),
        )


def open_ring(directory: Path, purpose: str, given: str | None = None) -> KeyRing:
    """The key ring of one purpose: the given one, else that of `directory`, made there if missing.

    Raises:
        KeyMaterialInvalid: a file or setting is not a key.
        OSError: the directory cannot be read or written.
    """
    return _given(f"{purpose} key", given) if given else _stored(directory, purpose)


class Pseudonymiser:
    """Turns an identifier into a stable pseudonym that cannot be turned back without the key.

    A pseudonym is made with the highest key of the ring.  After a rotation the same person has another
    one, so whoever looks somebody up asks for `all` of them.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: KeyRing) -> None:
        self._keys = [(f"p{number}-", key) for number in reversed(keys.numbers) if (key := keys.key(number))]

    def __repr__(self) -> str:
        return f"<Pseudonymiser {self._keys[0][0]}>"

    def pseudonym(self, kind: str, value: str, authority: str) -> str:
        """The pseudonym of `value`, e.g. ``p1-k3fw...``, with who gave it ``p1-k3fw....7xq2...``.

        Key number, then 128 bits of HMAC-SHA256 in base32 of the value, then likewise of the authority.

        Args:
            kind: what the value names (``patient``, ``user``); the same value of two kinds is unlinkable.
            value: the identifier.
            authority: who gave the identifier (`cds_server.authorities`); the same value of two authorities
                is two people, whose pseudonyms begin alike.  Of ``""`` there is no second part.
        """
        return _pseudonym(*self._keys[0], kind, value, authority)

    def persons(self, kind: str, value: str) -> tuple[str, ...]:
        """The first parts of the pseudonyms of `value`, under every key of the ring, the current one first.

        For looking somebody up: what was stored before a rotation stands under an older one.
        """
        return self.all(kind, value, "")

    def all(self, kind: str, value: str, authority: str) -> tuple[str, ...]:
        """The whole pseudonyms likewise."""
        return tuple(_pseudonym(prefix, key, kind, value, authority) for prefix, key in self._keys)

    def systems(self, authority: str) -> tuple[str, ...]:
        """The second parts of the pseudonyms of whatever ids an authority gave, under every key likewise."""
        return tuple(_digest(key, _AUTHORITY, authority) for _, key in self._keys)


def parts(pseudonym: str) -> tuple[str, str | None]:
    """A pseudonym's person and authority; ``None`` for one without."""
    person, dot, authority = pseudonym.partition(".")
    return person, authority if dot else None


def is_pseudonym(value: str) -> bool:
    """Whether a value has the form of our pseudonyms (``p1-…``)."""
    number, dash, rest = value[1:].partition("-")
    return value[:1] == "p" and number.isascii() and number.isdigit() and bool(dash and rest)


def _pseudonym(prefix: str, key: bytes, kind: str, value: str, authority: str) -> str:
    whose = f".{_digest(key, _AUTHORITY, authority)}" if authority else ""
    return f"{prefix}{_digest(key, kind, value)}{whose}"


def _digest(key: bytes, kind: str, value: str) -> str:
    # The length keeps ("ab", "c") and ("a", "bc") apart.
    message = f"{len(kind)}:{kind}{value}".encode("utf-8", "surrogatepass")
    mac = hmac.digest(key, message, "sha256")[:_PSEUDONYM_BYTES]
    return base64.b32encode(mac).decode().rstrip("=").lower()


class Cipher:
    """AES-256-GCM under the site key: confidential, and any change to it or to its context is noticed."""

    __slots__ = ("_current", "_keys")

    def __init__(self, keys: KeyRing) -> None:
        self._current = keys.current
        self._keys = {
            number: AESGCM(key) for number in range(1, keys.current + 1) if (key := keys.key(number))
        }

    def __repr__(self) -> str:
        return f"<Cipher c{self._current}>"

    def encrypt(self, text: str, context: str) -> str:
        """Ciphertext as ``c<key number>.<base64 of nonce and sealed text>``.

        Args:
            context: where it is stored (e.g. ``feedback.comment/<id>``); decryption needs the same, so a
                ciphertext moved to another row does not open.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        label = f"c{self._current}"
        sealed = self._keys[self._current].encrypt(
            nonce, text.encode("utf-8", "surrogatepass"), f"{label}|{context}".encode()
        )
        return f"{label}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def decrypt(self, ciphertext: str, context: str) -> str:
        """The text again.

        Raises:
            DecryptionFailed: unknown key, other context, altered or malformed ciphertext.
        """
        label, _, body = ciphertext.partition(".")
        try:
            aes = self._keys[int(label.removeprefix("c"))]
            data = base64.b64decode(body, altchars=b"-_", validate=True)
            text = aes.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], f"{label}|{context}".encode())
            return text.decode("utf-8", "surrogatepass")
        except (KeyError, ValueError, InvalidTag) as error:
            raise DecryptionFailed("ciphertext does not open with this site's keys and context") from error


def _given(name: str, setting: str) -> KeyRing:
    try:
        text = revealed(name, setting)
    except SecretUnreadable as fault:
        raise KeyMaterialInvalid(str(fault)) from None
    keys: dict[int, bytes] = {}
    for item in text.split():
        number, colon, body = item.rpartition(":")
        try:
            keys[int(number) if colon else 1] = base64.b64decode(body, validate=True)
        except ValueError:
            # Not chained: int() quotes what it was given, and a traceback shows the cause.
            raise KeyMaterialInvalid(f"{name}: expected NUMBER:BASE64") from None
    try:
        return KeyRing(keys)
    except KeyMaterialInvalid as error:
        raise KeyMaterialInvalid(f"{name}: {error}") from None


def _stored(directory: Path, purpose: str) -> KeyRing:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(directory.glob(f"{purpose}-*.key")):
        _create(directory, f"{purpose}-1.key")
    keys: dict[int, bytes] = {}
    for path in directory.glob(f"{purpose}-*.key"):
        try:
            number = int(path.stem.removeprefix(f"{purpose}-"))
            keys[number] = base64.b64decode(path.read_bytes().strip(), validate=True)
        except (ValueError, binascii.Error) as error:
            raise KeyMaterialInvalid(
                f"key file {path.name}: not NUMBER.key with one line of base64"
            ) from error
    try:
        return KeyRing(keys)
    except KeyMaterialInvalid as error:
        raise KeyMaterialInvalid(f"key files {purpose}-*.key: {error}") from None


def _create(directory: Path, name: str) -> None:
    create_once(directory, name, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")


def create_once(directory: Path, name: str, content: bytes) -> None:
    """Makes a key file (0600), once: of several processes one wins, and nobody ever reads half a key.

    Raises:
        OSError: the directory cannot be written.
    """
    temporary = directory / f".{name}.{os.getpid()}-{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    try:
        # link, unlike rename, fails when the name is taken.
        (directory / name).hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def key_files(directory: Path, purpose: str) -> dict[int, Path]:
    """The key files of a purpose by their numbers.  Opens none of them."""
    found = {}
    for path in directory.glob(f"{purpose}-*.key"):
        number = path.stem.removeprefix(f"{purpose}-")
        if number.isascii() and number.isdigit():
            found[int(number)] = path
    return dict(sorted(found.items()))


def add_key(directory: Path, purpose: str) -> int:
    """Make the next key file of a purpose, which is in use from the next start on; returns its number."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = max(key_files(directory, purpose), default=0) + 1
    _create(directory, f"{purpose}-{number}.key")
    return number


def add_key_to_ring(path: Path) -> int:
    """Make the next key of a ring in a file that a setting names with ``@``; returns its number.

    The file is replaced as a whole (mode 0600): who reads it meanwhile reads the former or the new one.

    Raises:
        KeyMaterialInvalid: the file is there and is no key ring.
    """
    former = path.read_text() if path.exists() else ""
    number = _given(path.name, former).current + 1 if former.strip() else 1
    lines = [f"1:{line}" if ":" not in line else line for line in former.split()]
    lines.append(f"{number}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, ("\n".join(lines) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    return number
