"""Opening what was kept of a decision, proven to be what was kept; or saying why it is not to be had."""

from cds_server.audit import DataKey, Decision, SealedDecision, digest
from cds_server.decisions.keeper import context_of
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.reasons import Reason
from cds_server.decisions.shelf import Shelf
from cds_server.decisions.stored import Stored, StoredInvalid, unpack
from cds_server.privacy import DecryptionFailed


class NoReplay(Exception):
    """There is no replay; `reason` says why."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Opener:
    """Opens kept decisions of one site."""

    def __init__(self, shelf: Shelf, keys: DataKeys) -> None:
        self._shelf = shelf
        self._keys = keys

    async def stored(self, event: Decision) -> Stored:
        """What was kept of a decision, proven to be what was kept.  Raises `NoReplay`."""
        return self.opened(event, *await self.found(event))

    async def found(self, event: Decision) -> tuple[SealedDecision, DataKey]:
        """What is kept of a decision, still sealed, with its data key.  Raises `NoReplay`."""
        sealed = await self._shelf.sealed(event.event_id)
        if sealed is None:
            raise NoReplay(*await self._why_absent(event))
        if digest(sealed.sealed) != event.stored_digest:
            raise NoReplay("altered", "its digest is not the audit event's")
        key = (await self._shelf.keys([sealed.key_id])).get(sealed.key_id)
        if key is None:
            raise NoReplay(*await self._why_absent(event, sealed))
        return sealed, key

    def opened(self, event: Decision, sealed: SealedDecision, key: DataKey) -> Stored:
        """What was found, opened and proven; a large one takes a while.  Raises `NoReplay`."""
        stored = self._opened(sealed, key)
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

    def _opened(self, sealed: SealedDecision, key: DataKey) -> Stored:
        try:
            return unpack(self._keys.open_sealed(key, sealed.sealed, context_of(sealed.event_id)))
        except DecryptionFailed:
            raise NoReplay("altered", "it does not open with its key") from None
        except StoredInvalid as fault:
            raise NoReplay("unreadable", str(fault)) from None
