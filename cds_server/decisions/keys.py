"""The patients' data keys: made here, wrapped under the site's master key, forgotten soon.

Envelope encryption: what is stored of a patient is sealed with AES-256-GCM under a data key of that
patient alone; the data key is stored only wrapped (sealed itself under the master key), in a table whose
rows can be destroyed.  A destroyed data key is the end of everything sealed under it (crypto-shredding).

A process makes a data key when it needs one and keeps it for `LIFETIME` seconds; then it makes a new one.
So no call waits for a lookup, nothing has to be agreed between processes, and a database that is away
changes nothing; a patient simply has several keys, all found by the subject they are for.  A subject is a
pseudonym, or ``card:<uuid>`` for a comment on a card, or ``event:<id>`` where nobody is named.
"""

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cds_server.audit.events import DataKey, new_id
from cds_server.clock import Clock
from cds_server.privacy import KEY_BYTES, DecryptionFailed, KeyRing

LIFETIME = 300.0
"""Seconds for which a process goes on using a data key it made."""
MOST_KEPT = 4_096
"""Data keys that a process holds at one time."""
_NONCE_BYTES = 12  # NIST SP 800-38D: 96-bit nonces for GCM


@dataclass(slots=True)
class _Held:
    record: DataKey
    aes: AESGCM
    until: float
    durable: bool = False


class DataKeys:
    """The data keys of one process; may be used from several threads.

    Args:
        master: wraps them; the highest number for new ones, every number for reading.
        now: the clock whose time becomes a key's `created`.
        monotonic: seconds that only grow, for the time a key is held.
    """

    def __init__(
        self, master: KeyRing, *, now: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._current = master.current
        self._masters = {n: AESGCM(key) for n in master.numbers if (key := master.key(n))}
        self._now = now
        self._monotonic = monotonic
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<DataKeys m{self._current}>"

    def seal(self, subject: str, plain: bytes, context: str) -> tuple[str, bytes, DataKey | None]:
        """Encrypt under a data key of `subject`.

        Args:
            context: where the ciphertext will be stored; `open_sealed` needs the same.

        Returns: the key's id, the ciphertext, and the key's own record when it is not known to be stored
        yet: it must be made durable together with the ciphertext, and then be confirmed.
        """
        held = self._key_of(subject)
        key_id = held.record.key_id
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + held.aes.encrypt(nonce, plain, f"{context}|{key_id}".encode())
        return key_id, sealed, None if held.durable else held.record

    def confirm(self, records: Iterable[DataKey]) -> None:
        """These records are durable: later ciphertexts need not bring them again."""
        with self._lock:
            for record in records:
                held = self._held.get(record.subject)
                if held is not None and held.record.key_id == record.key_id:
                    held.durable = True

    def open_sealed(self, record: DataKey, sealed: bytes, context: str) -> bytes:
        """The inverse of `seal`, given the wrapped key.

        Raises:
            DecryptionFailed: no such master key, another context, or something was altered.
        """
        plain_key = self._unwrap(record)
        try:
            return AESGCM(plain_key).decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], f"{context}|{record.key_id}".encode()
            )
        except (ValueError, InvalidTag) as error:
            raise DecryptionFailed("what is stored does not open with its key and context") from error

    def rewrap(self, record: DataKey) -> DataKey | None:
        """The same data key under the current master key; `None` when it is already.

        Raises:
            DecryptionFailed: its master key is gone, or it was altered.
        """
        if record.master == self._current:
            return None
        return self._wrapped(record, self._unwrap(record))

    def _key_of(self, subject: str) -> _Held:
        now = self._monotonic()
        with self._lock:
            held = self._held.get(subject)
            if held is not None and now < held.until:
                return held
            if len(self._held) >= MOST_KEPT:
                self._let_go(now)
            plain_key = secrets.token_bytes(KEY_BYTES)
            blank = DataKey(key_id=new_id(), created=self._now(), subject=subject, wrapped="", master=0)
            held = _Held(self._wrapped(blank, plain_key), AESGCM(plain_key), now + LIFETIME)
            self._held[subject] = held
            return held

    def _let_go(self, now: float) -> None:
        """Forget what has run out; when nothing has, the older half (a dict is in order of making)."""
        kept = {subject: held for subject, held in self._held.items() if now < held.until}
        if len(kept) >= MOST_KEPT:
            kept = dict(list(kept.items())[MOST_KEPT // 2 :])
        self._held = kept

    def _wrapped(self, record: DataKey, plain_key: bytes) -> DataKey:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        body = nonce + self._masters[self._current].encrypt(nonce, plain_key, _label(record, self._current))
        return DataKey(
            key_id=record.key_id,
            created=record.created,
            subject=record.subject,
            wrapped=base64.b64encode(body).decode(),
            master=self._current,
        )

    def _unwrap(self, record: DataKey) -> bytes:
        try:
            body = base64.b64decode(record.wrapped, validate=True)
            return self._masters[record.master].decrypt(
                body[:_NONCE_BYTES], body[_NONCE_BYTES:], _label(record, record.master)
            )
        except (KeyError, ValueError, binascii.Error, InvalidTag) as error:
            raise DecryptionFailed("a data key does not open with this site's master keys") from error


def _label(record: DataKey, master: int) -> bytes:
    # A wrapped key put into another patient's row does not open there.
    return f"m{master}|data-key/{record.key_id}/{record.subject}".encode()
