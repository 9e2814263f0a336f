"""Replays: is a past decision what its inputs and the model of that day give?

Answers with one of three: identical to the byte, different (and where, and what else is not as it was), or
not to be had (and why).  Nothing of the patient is in the result unless its values are asked for.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from cds_server.audit import DataKey, Decision, SealedDecision, digest
from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.differences import Difference, differences
from cds_server.decisions.keeper import context_of
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.recompute import recompute
from cds_server.decisions.shelf import Shelf
from cds_server.decisions.software import software
from cds_server.decisions.stored import Circumstances, Stored, StoredInvalid, unpack
from cds_server.deployment.loading import with_bundle_of
from cds_server.deployment.source import ModelRefused
from cds_server.errors import refusal_for
from cds_server.privacy import DecryptionFailed
from cds_server.state import Knowledge

Reason = Literal[
    "not-found",  # no decision of that id
    "refused-call",  # the call was refused: there is nothing to compute
    "off",  # the site does not keep inputs
    "consent",  # the patient's denial was respected
    "erased",  # the patient's data was erased
    "expired",  # the retention time is over
    "lost",  # the event says kept, nothing is there, and nothing ordered it
    "altered",  # what is there is not what was kept
    "unreadable",  # kept by a version whose form this one does not read
    "bundle-missing",  # the model bundle of that day is not in the archive
    "bundle-refused",  # it is, and this software cannot use it
    "fails",  # this software refuses the call, or fails at it
]


class NoReplay(Exception):
    """There is no replay; `reason` says why."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Replay(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one replay; `changed` names what is not as it was: software, knowledge, model."""

    event_id: str
    result: Literal["identical", "differs", "unavailable"]
    reason: Reason | None = None
    detail: str = ""
    service: str = ""
    recorded: str = ""
    bundle: str | None = None
    changed: dict[str, tuple[str, str]] = {}
    differences: tuple[Difference, ...] = ()
    patient: str | None = None


class Replayer:
    """Replays decisions one after the other; loads each model bundle once."""

    def __init__(self, shelf: Shelf, keys: DataKeys, archive: BundleArchive, base: Knowledge) -> None:
        self._shelf = shelf
        self._keys = keys
        self._archive = archive
        self._base = base
        self._loaded: dict[str | None, Knowledge] = {base.bundle: base}

    async def replay(self, event_id: str) -> Replay:
        """Replay the decision of an audit event."""
        event = await self._shelf.decision(event_id)
        if event is None:
            return Replay(event_id, "unavailable", "not-found")
        begun = Replay(
            event_id,
            "unavailable",
            service=event.service,
            recorded=event.recorded.isoformat(timespec="milliseconds"),
            patient=event.patient,
        )
        try:
            stored = await self.stored(event)
            knowledge = self._knowledge(stored.circumstances)
        except NoReplay as fault:
            return replace(begun, reason=fault.reason, detail=fault.detail)
        then = stored.circumstances
        begun = replace(begun, bundle=then.bundle, changed=_changed(then, knowledge))
        try:
            answer = await recompute(stored, event_id, knowledge)
        except Exception as error:  # noqa: BLE001 that this software fails at what was answered is the finding
            told = type(refusal_for(error) or error).__name__
            return replace(begun, result="differs", reason="fails", detail=told)
        found = differences(stored.answer, answer)
        return replace(begun, result="differs" if found else "identical", differences=found)

    async def stored(self, event: Decision) -> Stored:
        """What was kept of a decision, proven to be what was kept.  Raises `NoReplay`."""
        sealed = await self._shelf.sealed(event.event_id)
        if sealed is None:
            raise NoReplay(*await self._why_absent(event))
        if digest(sealed.sealed) != event.stored_digest:
            raise NoReplay("altered", "its digest is not the audit event's")
        key = (await self._shelf.keys([sealed.key_id])).get(sealed.key_id)
        if key is None:
            raise NoReplay(*await self._why_absent(event, sealed))
        stored = _opened(self._keys, sealed, key)
        whole = stored.circumstances.whole
        if digest(stored.answer) != event.output_digest:
            raise NoReplay("altered", "the answer's digest is not the audit event's")
        if whole and digest(stored.body) != event.input_digest:
            raise NoReplay("altered", "the request's digest is not the audit event's")
        return stored

    async def _why_absent(self, event: Decision, sealed: SealedDecision | None = None) -> tuple[Reason, str]:
        if event.status != 200:
            return "refused-call", f"status {event.status}"
        if event.stored == "consent":
            return "consent", ""
        if event.stored != "stored":
            return "off", ""
        subject = sealed.subject if sealed is not None else event.patient or f"event:{event.event_id}"
        order = await self._shelf.destroyed(subject, event.recorded)
        if order is None and sealed is not None:
            # Sealed under a key that a server still held when the patient was erased.
            order = await self._shelf.destroyed(subject, None)
        if order is None:
            return "lost", ""
        when = order.recorded.date().isoformat()
        return ("erased" if order.reason == "erasure" else "expired"), when

    def _knowledge(self, then: Circumstances) -> Knowledge:
        if then.bundle in self._loaded:
            return self._loaded[then.bundle]
        if then.bundle is None:
            self._loaded[None] = self._base.with_bundle(None)
            return self._loaded[None]
        source = self._archive.find(then.bundle)
        if source is None:
            raise NoReplay("bundle-missing", then.bundle)
        try:
            self._loaded[then.bundle] = with_bundle_of(source, self._base)
        except ModelRefused as refused:
            raise NoReplay("bundle-refused", f"{refused.fault}: {refused.reason}") from refused
        return self._loaded[then.bundle]


def _opened(keys: DataKeys, sealed: SealedDecision, key: DataKey) -> Stored:
    try:
        return unpack(keys.open_sealed(key, sealed.sealed, context_of(sealed.event_id)))
    except DecryptionFailed:
        raise NoReplay("altered", "it does not open with its key") from None
    except StoredInvalid as fault:
        raise NoReplay("unreadable", str(fault)) from None


def _changed(then: Circumstances, knowledge: Knowledge) -> dict[str, tuple[str, str]]:
    engine = knowledge.engine
    pairs = {
        "software": (then.software, software()),
        "model": (then.model, engine.model_id),
        "knowledge": (then.knowledge, engine.knowledge_id),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
