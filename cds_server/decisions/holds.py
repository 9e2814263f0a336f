"""Legal holds: while one is placed on a patient, nothing of that patient is destroyed.

A hold is two rows at most, placed and lifted, and never changed.  Whom it protects, why, and who said so is
encrypted under the site key; the patient's id is among it, so that the hold still finds the patient when
pseudonym keys have been rotated.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import new_id
from cds_server.db.models_decisions import LegalHoldRow
from cds_server.people import People
from cds_server.privacy import Cipher


class HoldUnknown(Exception):
    """No hold of that id is in force."""


class Hold(msgspec.Struct, frozen=True):
    """A hold in force.

    `patient` is the id, `authority` who gave it (`None`: whoever has that id, of any authority), `pseudonym`
    what it was placed on when no id was known.
    """

    hold_id: str
    placed: datetime
    patient: str | None
    pseudonym: str | None
    reason: str
    by: str
    authority: str | None = None

    def subjects(self, people: People) -> tuple[str, ...]:
        """Everything the patient is stored under."""
        given = (self.pseudonym,) if self.pseudonym else ()
        return given + (people.patient(self.patient, self.authority) if self.patient else ())


class _Content(msgspec.Struct, frozen=True):
    reason: str
    by: str
    patient: str | None = None
    pseudonym: str | None = None
    authority: str | None = None


class Holds:
    """The holds of a site."""

    def __init__(self, engine: AsyncEngine, cipher: Cipher) -> None:
        self._engine = engine
        self._cipher = cipher

    async def place(
        self,
        *,
        patient: str | None,
        pseudonym: str | None,
        reason: str,
        by: str,
        now: datetime,
        authority: str | None = None,
    ) -> str:
        """Place a hold on a patient, named by id (and who gave it) or by pseudonym; returns the hold's id."""
        hold_id = new_id()
        await self._add(hold_id, "placed", _Content(reason, by, patient, pseudonym, authority), now)
        return hold_id

    async def lift(self, hold_id: str, *, reason: str, by: str, now: datetime) -> Hold:
        """Lift a hold and return it as it was.  Raises `HoldUnknown`."""
        hold = next((hold for hold in await self.in_force() if hold.hold_id == hold_id), None)
        if hold is None:
            raise HoldUnknown(hold_id)
        await self._add(hold_id, "lifted", _Content(reason, by), now)
        return hold

    async def in_force(self) -> list[Hold]:
        """All holds that are placed and not lifted, oldest first.

        Raises:
            DecryptionFailed: a hold was altered, or its key is gone; then nothing may be destroyed.
        """
        query = select(
            LegalHoldRow.hold_id, LegalHoldRow.recorded, LegalHoldRow.action, LegalHoldRow.sealed
        ).order_by(LegalHoldRow.seq)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        lifted = {row.hold_id for row in rows if row.action == "lifted"}
        found = []
        for row in rows:
            if row.action == "placed" and row.hold_id not in lifted:
                text = self._cipher.decrypt(row.sealed, _context(row.hold_id, "placed"))
                content = msgspec.json.decode(text, type=_Content)
                found.append(
                    Hold(
                        row.hold_id,
                        row.recorded,
                        content.patient,
                        content.pseudonym,
                        content.reason,
                        content.by,
                        content.authority,
                    )
                )
        return found

    async def on(self, subjects: Sequence[str], people: People) -> list[Hold]:
        """The holds in force on whoever is stored under one of the subjects."""
        wanted = set(subjects)
        return [hold for hold in await self.in_force() if wanted & set(hold.subjects(people))]

    async def _add(
        self, hold_id: str, action: Literal["placed", "lifted"], content: _Content, now: datetime
    ) -> None:
        sealed = self._cipher.encrypt(msgspec.json.encode(content).decode(), _context(hold_id, action))
        row = {"hold_id": hold_id, "recorded": now, "action": action, "sealed": sealed}
        async with self._engine.begin() as connection:
            await connection.execute(insert(LegalHoldRow).values(row))


def _context(hold_id: str, action: str) -> str:
    return f"legal-hold/{hold_id}/{action}"
