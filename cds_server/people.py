"""The names of authorities as they are kept, and the pseudonyms of people by their ids under each of them.

A name comes with a call (`fhirServer`), so it may hold anything: it is kept sealed under the site's cipher
key, and events have a keyed digest of it.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit.sealed import AuthorityName
from cds_server.authorities import UNNAMED, Identity, base_of, of_reference
from cds_server.clock import Clock
from cds_server.db.models import AssigningAuthorityRow
from cds_server.privacy import Cipher, Pseudonymiser

_KIND = "authority"
_MOST_KEPT = 1_024
"""Names that a process remembers to have stored; with more than that it stores some again, for nothing."""


class Named(msgspec.Struct, frozen=True):
    """An authority in events, and what must become durable beside the first of them."""

    digest: str | None = None
    records: tuple[AuthorityName, ...] = ()


class AuthorityNames:
    """Seals the names of authorities for one process.  Not for several threads."""

    def __init__(self, pseudonymiser: Pseudonymiser, cipher: Cipher, now: Clock) -> None:
        self._pseudonymiser = pseudonymiser
        self._cipher = cipher
        self._now = now
        self._digests: dict[str, str] = {}
        self._durable: set[str] = set()

    def keep(self, authority: str) -> Named:
        """What to record with an event of ids of this authority; nothing for `UNNAMED`."""
        if not authority:
            return Named()
        digest = self._digests.get(authority)
        if digest is None:
            if len(self._digests) >= _MOST_KEPT:
                self._digests.clear()
                self._durable.clear()
            digest = self._digests[authority] = self._pseudonymiser.pseudonym(_KIND, authority, UNNAMED)
        if digest in self._durable:
            return Named(digest)
        sealed = self._cipher.encrypt(authority, _context(digest))
        return Named(digest, (AuthorityName(authority=digest, first_seen=self._now(), sealed=sealed),))

    def confirm(self, named: Named) -> None:
        """The records are durable."""
        self._durable.update(record.authority for record in named.records)


class KnownAuthority(msgspec.Struct, frozen=True):
    """An authority that something was recorded of: its name, what events call it, and since when."""

    name: str
    digest: str
    since: datetime


async def known_authorities(engine: AsyncEngine, cipher: Cipher) -> list[KnownAuthority]:
    """All of them, in the order of their names; one with two digests was seen under two pseudonym keys.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the database is away.
        DecryptionFailed: a name was altered, or its key is gone; then not everybody can be found.
    """
    async with engine.connect() as connection:
        rows = (await connection.execute(select(AssigningAuthorityRow.__table__))).all()
    found = [
        KnownAuthority(
            cipher.decrypt(row.sealed_name, _context(row.authority)), row.authority, row.first_seen
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: (one.name, one.since))


class People:
    """Finds the pseudonyms of people by their ids, under every key and every authority there is.

    `authorities` are `UNNAMED` and then those that something was ever recorded of.
    """

    def __init__(self, pseudonymiser: Pseudonymiser, authorities: Iterable[str] = ()) -> None:
        self._pseudonymiser = pseudonymiser
        self.authorities = tuple(dict.fromkeys((UNNAMED, *authorities)))

    @classmethod
    async def load(cls, pseudonymiser: Pseudonymiser, cipher: Cipher, engine: AsyncEngine) -> "People":
        """With the authorities that are known now; raises as `known_authorities` does."""
        return cls(pseudonymiser, (one.name for one in await known_authorities(engine, cipher)))

    def patient(self, patient_id: str, authority: str | None = None) -> tuple[str, ...]:
        """The pseudonyms of a patient, the newest key's first; of an id alone those under every authority."""
        return self._pseudonymiser.all("patient", patient_id, self._of(authority))

    def current(self, patient_id: str, authority: str | None = None) -> tuple[str, ...]:
        """Likewise, under the newest key only: one for each person there may be."""
        return tuple(self._pseudonymiser.pseudonym("patient", patient_id, one) for one in self._of(authority))

    def user(self, user: str, authority: str | None = None) -> tuple[str, ...]:
        """Likewise of a user; where `user` is an absolute reference, it names its authority itself.

        Before there were authorities, a pseudonym was of the whole reference, or of issuer and subject.
        """
        found = of_reference(user) if authority is None else Identity(authority, user)
        if not found.authority:
            return self._pseudonymiser.all("user", user, self.authorities)
        former = user if authority is None else f"{authority}|{user}"
        # An issuer is kept exactly as it is, a FHIR server in one form.
        named = dict.fromkeys((found.authority, base_of(found.authority) or found.authority))
        return (
            *self._pseudonymiser.all("user", found.value, named),
            *self._pseudonymiser.all("user", former, (UNNAMED,)),
        )

    def _of(self, authority: str | None) -> tuple[str, ...]:
        return self.authorities if authority is None else (authority,)


def _context(digest: str) -> str:
    return f"assigning-authority/{digest}"
