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
from cds_server.decisions.subjects import covers, everywhere
from cds_server.privacy import Cipher, Pseudonymiser, parts


class Hold(msgspec.Struct, frozen=True):
    """A hold in force.

    `patient` is the id, `authority` who gave it (`None`: whoever has that id, at every system), `pseudonym`
    what it was placed on when no id was known.
    """

    hold_id: str
    placed: datetime
    patient: str | None
    pseudonym: str | None
    reason: str
    by: str
    authority: str | None = None

    def subjects(self, pseudonymiser: Pseudonymiser) -> tuple[str, ...]:
        """Whom it protects (`decisions.subjects`), the newest key's first.

        One on a system's patient also protects what is kept of the id without a system: it may be theirs.
        """
        if self.patient is None:
            given = self.pseudonym or ""
            # One without a system, as in events of before there were any, may by now have one.
            return (given,) if parts(given)[1] is not None else (given, everywhere(given))
        persons = pseudonymiser.persons("patient", self.patient)
        if self.authority is None:
            return tuple(everywhere(person) for person in persons)
        return (*pseudonymiser.all("patient", self.patient, self.authority), *persons)


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

    async def lift(self, hold: Hold, *, reason: str, by: str, now: datetime) -> None:
        """Lift a hold that is in force."""
        await self._add(hold.hold_id, "lifted", _Content(reason, by), now)

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

    async def on(self, subjects: Sequence[str], pseudonymiser: Pseudonymiser) -> list[Hold]:
        """The holds in force on whoever is stored under one of the subjects."""
        return [
            hold
            for hold in await self.in_force()
            if any(
                covers(held, subject) or covers(subject, held)
                for held in hold.subjects(pseudonymiser)
                for subject in subjects
            )
        ]

    async def _add(
        self, hold_id: str, action: Literal["placed", "lifted"], content: _Content, now: datetime
    ) -> None:
        sealed = self._cipher.encrypt(msgspec.json.encode(content).decode(), _context(hold_id, action))
        row = {"hold_id": hold_id, "recorded": now, "action": action, "sealed": sealed}
        async with self._engine.begin() as connection:
            await connection.execute(insert(LegalHoldRow).values(row))


def _context(hold_id: str, action: str) -> str:
    return f"legal-hold/{hold_id}/{action}"
