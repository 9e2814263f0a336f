"""Past decisions for those who may read them: opened, proven, recomputed where need be, recorded, given.

What was kept of `$assess` is the assessment itself.  Of a hook call and of the simple form cards or numbers
were kept: the assessment is computed again with the knowledge of that day, and given only when the answer
made from it is the kept one to the byte.  All of this is done in a thread, for one reader at a time.
"""

import asyncio
import re
from typing import Any

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from cds_server.audit import DataKey, Decision, Entity, SealedDecision
from cds_server.audit.access import of_call
from cds_server.auth.principal import Principal, Role
from cds_server.authorities import may_read
from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import NoReplay, Opener
from cds_server.decisions.past import PastKnowledge
from cds_server.decisions.reasons import REASONS, Reason
from cds_server.decisions.recompute import recompute
from cds_server.decisions.shelf import Shelf
from cds_server.errors import Gone, NotProven, PathUnknown, Refused, Unavailable, status_of
from cds_server.fhir_api.parameters import assessment_parameters
from cds_server.fhir_api.parts import Part
from cds_server.fhir_api.past_risk import NotAnAssessment, risk_assessment
from cds_server.http import FHIR_JSON, Answer, Call
from cds_server.privacy import parts
from cds_server.rare.store import EnrolmentStore
from cds_server.state import House, Knowledge

_IDLE = 300.0
"""Seconds for which knowledge of another day stays loaded for the next reader."""
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}\Z")  # FHIR R4, 2.24.0.1, "id"
_NOT_KEPT: frozenset[Reason] = frozenset({"not-found", "refused-call", "off", "consent"})
_DESTROYED: frozenset[Reason] = frozenset({"erased", "expired", "cases-erased"})
_DIFFERS = "computed again with the model and the cases of that day it is not what was answered"


class _Kept(msgspec.Struct):
    parameter: list[dict[str, Any]]


_kept = msgspec.json.Decoder(_Kept)
_encode = msgspec.json.Encoder().encode


class PastDecisions:
    """Reads past decisions of one site."""

    def __init__(self, house: House, keys: DataKeys, archive: BundleArchive, cases: EnrolmentStore) -> None:
        self._house = house
        self._shelf = Shelf(house.engine)
        self._opener = Opener(self._shelf, keys)
        self._archive = archive
        self._cases = cases
        self._turn = asyncio.Lock()
        self._past: tuple[Knowledge, PastKnowledge] | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    async def read(self, call: Call, event_id: str) -> Answer:
        """The decision as a RiskAssessment, once the reading is recorded; so is a reading in vain.

        Raises `PathUnknown`, `Gone`, `NotProven`, `Unavailable`, `AuditUnavailable`.
        """
        event: Decision | None = None
        try:
            event = await self._shelf.decision(event_id) if _ID.match(event_id) else None
            if event is None:
                raise NoReplay("not-found")
            if not self._may(call.principal, event):
                # Not even that there is such a decision is told.
                await self._record(call, event, 403, "other-system")
                raise _refusal(NoReplay("not-found"))
            sealed, key = await self._opener.found(event)
            async with self._turn:
                body = await asyncio.to_thread(self._resource, event, sealed, key, self._knowledge_of_past())
        except NoReplay as fault:
            refusal = _refusal(fault)
            await self._record(call, event, status_of(refusal), fault.reason)
            raise refusal from None
        except _Differs:
            refusal = NotProven(f"differs: {_DIFFERS}")
            await self._record(call, event, status_of(refusal), "differs")
            raise refusal from None
        except (SQLAlchemyError, OSError) as error:
            raise Unavailable("past decisions cannot be read now; try again") from error
        await self._record(call, event, 200, None)
        return Answer(body, media_type=FHIR_JSON, headers=((b"content-language", event.language.encode()),))

    def _may(self, principal: Principal, event: Decision) -> bool:
        if Role.AUDITOR in principal.roles:
            return True
        system = parts(event.patient)[1] if event.patient else None
        systems = self._house.pseudonymiser.systems
        return may_read(principal, event.client, lambda one: system is None or system in systems(one))

    def _resource(self, event: Decision, sealed: SealedDecision, key: DataKey, past: PastKnowledge) -> bytes:
        stored = self._opener.opened(event, sealed, key)
        then = stored.circumstances
        try:
            if then.kind == "assess":
                parameters: list[Part] = _kept.decode(stored.answer).parameter
            else:
                knowledge = past.knowledge(then)
                # A loop of this thread: the recorded pages are read the way a FHIR server is.
                try:
                    again = asyncio.run(recompute(stored, event.event_id, knowledge))
                except Exception as error:  # noqa: BLE001 that it fails at what was answered is the answer
                    raise NoReplay("fails", type(error).__name__) from None
                if again.body != stored.answer:
                    raise _Differs
                names = knowledge.builder.name_of
                found = assessment_parameters(
                    again.chart, again.assessment, language=then.language, names=names
                )
                parameters = found["parameter"]
            again_by = None if then.kind == "assess" else self._house.software
            return _encode(risk_assessment(event, then.software, parameters, again_by=again_by))
        except (NotAnAssessment, msgspec.MsgspecError):
            raise NoReplay("unreadable") from None

    async def _record(self, call: Call, event: Decision | None, status: int, reason: str | None) -> None:
        # An id that is none of ours is not kept: it may hold anything.
        named = () if event is None else (f"RiskAssessment/{event.event_id}", f"AuditEvent/{event.event_id}")
        await self._house.trail.record(
            of_call(
                self._house,
                call,
                "decision-read",
                service="RiskAssessment",
                status=status,
                reason=reason,
                patient=None if event is None else event.patient,
                entities=tuple([Entity(name) for name in named]),
            )
        )

    def _knowledge_of_past(self) -> PastKnowledge:
        """For the knowledge in use now, which a new model replaces; let go when nobody reads for a while."""
        now = self._house.knowledge
        if self._past is None or self._past[0] is not now:
            self._past = (now, PastKnowledge(self._archive, self._cases, now, bundles=1))
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(_IDLE, self._forget)
        return self._past[1]

    def _forget(self) -> None:
        self._past = self._forgetting = None


class _Differs(Exception):
    """The recomputed answer is another one."""


def _refusal(fault: NoReplay) -> Refused:
    text = f"{fault.reason}: {REASONS[fault.reason]}{f' ({fault.detail})' if fault.detail else ''}"
    if fault.reason in _NOT_KEPT:
        return PathUnknown(text)
    return Gone(text) if fault.reason in _DESTROYED else NotProven(text)
