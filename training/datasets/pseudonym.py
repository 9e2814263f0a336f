"""Patient keys that cannot be turned back: a keyed hash of the patient's id.

Without the key nobody can test whether a known patient is in a dataset.  The key is the caller's (a site
that keeps it gets the same pseudonyms again), or random and forgotten when the run ends.
"""

import hashlib
import secrets

SHORTEST = 16


class Pseudonyms:
    """Makes pseudonyms with one key: 32 hexadecimal digits, BLAKE2b keyed."""

    def __init__(self, key: bytes | None) -> None:
        """`key` of at least 16 bytes, or `None` for a random one; raises `ValueError` for a short one."""
        if key is not None and len(key) < SHORTEST:
            raise ValueError(f"key: give at least {SHORTEST} bytes, or none for a random key")
        # A key of any length; BLAKE2b itself takes 64 bytes at most.
        self._key = hashlib.sha256(key).digest() if key is not None else secrets.token_bytes(32)

    def of(self, patient_id: str) -> str:
        """The pseudonym of a patient id."""
        return hashlib.blake2b(patient_id.encode(), key=self._key, digest_size=16).hexdigest()
