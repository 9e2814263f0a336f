"""Keeps decisions: seals what a call was answered from, while it is answered.

The body is squeezed as soon as it is decoded, where large work is done, so that it need not stay in memory;
the rest is sealed when the answer's bytes are there.  What comes out are records for the audit trail, for
the same commit as the audit event.  Nothing here does I/O.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from cds_server.audit import DataKey, SealedDecision, digest
from cds_server.decisions.consent import denies_storing
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.stored import Circumstances, pack, squeeze
from fhir_adapters.reading import Fetched

_AUTHORIZATION = "fhirAuthorization"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

Outcome = Literal["stored", "off", "consent"]


class Kept(msgspec.Struct, frozen=True):
    """The body of one call, squeezed; `outcome` says whether it may be stored, `whole` whether it is
    still the bytes that came."""

    outcome: Outcome
    squeezed: bytes = b""
    size: int = 0
    whole: bool = True


class Sealed(msgspec.Struct, frozen=True):
    """What goes into the audit event (`outcome`, `digest`) and beside it (`records`)."""

    outcome: Outcome
    digest: str | None = None
    records: tuple[DataKey | SealedDecision, ...] = ()


class Keeper:
    """Seals the decisions of one process; `on` is the site's setting."""

    def __init__(self, keys: DataKeys, *, on: bool) -> None:
        self._keys = keys
        self._on = on

    def body(self, body: bytes, now: datetime, *, token: bool = False) -> Kept:
        """Squeeze a request's body; one that must not be stored is let go.

        Args:
            now: for a Consent's period.
            token: whether the request carries an access token, which is taken out.
        """
        if not self._on:
            return Kept("off")
        if denies_storing(body, now):
            return Kept("consent")
        whole = not token and _AUTHORIZATION.encode() not in body
        kept = body if whole else _without_token(body)
        return Kept("stored", squeeze(kept), len(kept), whole)

    def seal(
        self,
        kept: Kept,
        circumstances: Circumstances,
        *,
        event_id: str,
        subject: str,
        fetched: Sequence[Fetched],
        answer: bytes,
    ) -> Sealed:
        """Seal one decision under a data key of `subject` (see `decisions.keys`)."""
        if kept.outcome != "stored":
            return Sealed(kept.outcome)
        now = circumstances.now
        if any(page.body is not None and denies_storing(page.body, now) for page in fetched):
            return Sealed("consent")
        plain = pack(circumstances, kept.squeezed, fetched, answer)
        key_id, sealed, key = self._keys.seal(subject, plain, context_of(event_id))
        record = SealedDecision(
            event_id=event_id,
            recorded=now,
            subject=subject,
            key_id=key_id,
            sealed=sealed,
            plain_bytes=kept.size + len(answer) + sum(len(page.body or b"") for page in fetched),
        )
        return Sealed("stored", digest(sealed), (record,) if key is None else (key, record))

    def confirm(self, sealed: Sealed) -> None:
        """The records are durable."""
        self._keys.confirm(record for record in sealed.records if isinstance(record, DataKey))


def context_of(event_id: str) -> str:
    """Where a sealed decision is stored: it opens nowhere else."""
    return f"stored-decision/{event_id}"


def _without_token(body: bytes) -> bytes:
    members = _members.decode(body)
    members.pop(_AUTHORIZATION, None)
    return msgspec.json.encode(members)
