"""What the app shows of the launched patient: read from the EHR with the session's token, assessed, audited.

The patient goes through the same line as a hook call, as one: prefetch by FHIR server and token, chart,
assessment, cards, audit event.  Nothing clinical is decided here.
"""

import asyncio
import re
import uuid
from typing import Any

import msgspec

from cds_server.audit import AuditUnavailable
from cds_server.audit.events import OWN_APP
from cds_server.cds_hooks.service import HookCalls
from cds_server.errors import PatientMismatch, PrefetchIncomplete, Refused
from cds_server.http import Call
from cds_server.smart import pages
from cds_server.smart.ehrs import Ehr
from cds_server.smart.pages import Banner, Frame
from cds_server.smart.stores import Session
from cds_server.state import House
from fhir_adapters.client import Access, ReadFailed
from hooks.markdown import plain
from hooks.services import BY_ID

_SERVICE = BY_ID["diagnostic-assessment"]


class _HumanName(msgspec.Struct, gc=False):
    use: str | None = None
    text: str | None = None
    family: str | None = None
    given: list[str] | None = None


class _Patient(msgspec.Struct, gc=False):
    id: str
    name: list[_HumanName] | None = None
    birthDate: str | None = None
    gender: str | None = None


class _Cards(msgspec.Struct):
    cards: list[dict[str, Any]]


_decode_patient = msgspec.json.Decoder(_Patient).decode
_decode_cards = msgspec.json.Decoder(_Cards).decode
_DATE = re.compile(r"\d{4}(-\d\d(-\d\d)?)?\Z")
_USES = ("official", "usual", None)
"""Names to show, best first (FHIR R4, HumanName.use); old, temporary and nicknames come last."""


class PatientView:
    """Makes the content of the page about a session's patient."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._calls = HookCalls(house)

    async def content(self, call: Call, frame: Frame, session: Session, ehr: Ehr) -> tuple[int, str]:
        """Status and HTML of the page's main part."""
        words = frame.words
        patient = session.tokens.patient
        if patient is None:
            return 200, pages.note(words["no_patient"])
        access = Access(ehr.base, session.tokens.access_token)
        shown, (status, assessed) = await asyncio.gather(
            self._banner(access, patient), self._assessed(call, frame, session, ehr, patient)
        )
        return status, pages.banner(frame, shown) + _granted(frame, session) + assessed

    async def _banner(self, access: Access, patient: str) -> Banner:
        try:
            found = _decode_patient(await self._house.fhir.read(access, f"Patient/{patient}"))
        except (ReadFailed, msgspec.DecodeError, UnicodeDecodeError):
            return Banner()
        if found.id != patient:
            return Banner()
        born = found.birthDate if found.birthDate and _DATE.match(found.birthDate) else None
        return Banner(_name(found.name or []), born, found.gender)

    async def _assessed(
        self, call: Call, frame: Frame, session: Session, ehr: Ehr, patient: str
    ) -> tuple[int, str]:
        body = msgspec.json.encode(_request(session, ehr, patient))
        try:
            answer = await self._calls.answer(
                _SERVICE, Call(call.scope, body), frame.language, f"{OWN_APP}{ehr.name}"
            )
        except (PrefetchIncomplete, PatientMismatch):
            return 502, pages.note(frame.words["not_readable"])
        except AuditUnavailable:
            return 503, pages.note(frame.words["not_recorded"])
        except Refused:
            return 503, pages.note(frame.words["not_assessed"])
        return 200, pages.findings(frame, _decode_cards(answer).cards)


def _request(session: Session, ehr: Ehr, patient: str) -> dict[str, Any]:
    context = {"userId": session.person.reference, "patientId": patient}
    if session.tokens.encounter is not None:
        context["encounterId"] = session.tokens.encounter
    return {
        "hook": _SERVICE.hook,
        "hookInstance": str(uuid.uuid4()),
        "context": context,
        "fhirServer": ehr.base.url,
        "fhirAuthorization": {
            "access_token": session.tokens.access_token,
            "token_type": "Bearer",
            "expires_in": 60,
            "scope": session.tokens.scope,
            "subject": ehr.client_id,
        },
    }


def _granted(frame: Frame, session: Session) -> str:
    """A remark when the EHR granted less of the record than was asked for."""
    granted = {_scope(scope) for scope in session.tokens.scope.split()}
    lacking = [
        scope
        for scope in session.asked.split()
        if scope.startswith(("patient/", "user/")) and _scope(scope) not in granted
    ]
    return pages.note(frame.words["less_granted"].format(scopes=", ".join(lacking))) if lacking else ""


def _scope(scope: str) -> str:
    """A scope as SMART 2 spells it: ``patient/*.read`` is ``patient/*.rs``."""
    return f"{scope.removesuffix('.read')}.rs" if scope.endswith(".read") else scope


def _name(names: list[_HumanName]) -> str | None:
    ranked = sorted(names, key=lambda name: _USES.index(name.use) if name.use in _USES else len(_USES))
    for name in ranked:
        text = name.text or " ".join([*(name.given or ()), *([name.family] if name.family else ())])
        if text.strip():
            return plain(text, 200)
    return None
