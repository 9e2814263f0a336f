"""Answering a question to the trail, with the asking itself recorded before the answer leaves.

Shared by the FHIR search and the console.  A database that is away is a refusal, like everywhere.
"""

from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from cds_server.audit.access import of_call
from cds_server.audit.events import Entity, Record, identity, patient_of
from cds_server.audit.question import Cursor, Question
from cds_server.audit.reader import AuditReader, ChainStatus, Page
from cds_server.audit.trail import AuditTrail
from cds_server.clock import Clock
from cds_server.errors import Unavailable
from cds_server.http import Call
from cds_server.privacy import Pseudonymiser

_T = TypeVar("_T")


class Asking:
    """Asks on behalf of callers."""

    def __init__(
        self, reader: AuditReader, trail: AuditTrail, pseudonymiser: Pseudonymiser, clock: Clock
    ) -> None:
        self._reader = reader
        self._trail = trail
        self.pseudonymiser = pseudonymiser
        self.clock = clock

    async def page(self, call: Call, question: Question, query: str, size: int, after: Cursor | None) -> Page:
        """A page of events; `query` is the search as it is kept, patients as pseudonyms."""
        found = await _read(self._reader.page(question, size, after))
        await self.searched(call, question, query)
        return found

    async def count(self, call: Call, question: Question, query: str) -> int:
        """How many events answer the question."""
        found = await self.total(question)
        await self.searched(call, question, query)
        return found

    async def total(self, question: Question) -> int:
        """How many events answer a question whose asking is recorded already."""
        return await _read(self._reader.count(question))

    async def one(self, call: Call, event_id: str) -> Record | None:
        """One event.  That it was not there is recorded as well."""
        found = await _read(self._reader.one(event_id))
        await self._trail.record(
            of_call(
                self,
                call,
                "audit-read",
                service="audit",
                status=404 if found is None else 200,
                patient=None if found is None else patient_of(found),
                entities=() if found is None else (Entity(f"AuditEvent/{identity(found)}"),),
            )
        )
        return found

    async def export(
        self, call: Call, question: Question, query: str, form: str
    ) -> tuple[int, AsyncIterator[Page]]:
        """How many events there are, and all of them; recorded before the first is given out."""
        count = await self.total(question)
        told = (("events", str(count)), ("format", form))
        await self._record_about(call, question, "audit-exported", query, told)
        return count, self._reader.stream(question)

    async def refused(self, call: Call, activity: str, reason: str) -> None:
        """A search that was not understood; what it said is not kept, it may hold anything."""
        await self._trail.record(of_call(self, call, activity, service="audit", status=400, reason=reason))

    async def chain_status(self) -> ChainStatus:
        """The chain at a glance."""
        return await _read(self._reader.chain_status())

    async def searched(self, call: Call, question: Question, query: str) -> None:
        """Records that somebody searched."""
        await self._record_about(call, question, "audit-searched", query)

    async def _record_about(
        self,
        call: Call,
        question: Question,
        activity: str,
        query: str,
        detail: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """One event for each patient that was asked about, so that each one's record shows the asking."""
        await self._trail.record_all(
            [
                of_call(self, call, activity, service="audit", query=query, patient=patient, detail=detail)
                for patient in question.about or (None,)
            ]
        )


async def _read(answer: Awaitable[_T]) -> _T:
    try:
        return await answer
    except (SQLAlchemyError, OSError) as error:
        raise Unavailable("the audit trail cannot be read now; try again") from error
