"""What is kept sealed beside the audit events: a wrapped data key, one decision's inputs and answer, a name.

They are records of the trail (same queue, same commit, same spool) and no audit events: they stand in
tables of their own.  Rows of the first two can be destroyed, so nothing of the hash chain may rest on them.
"""

from datetime import datetime

import msgspec


class DataKey(msgspec.Struct, frozen=True, kw_only=True, tag="data-key", tag_field="kind"):
    """A data key as it is stored: wrapped under master key number `master` (`decisions.keys`)."""

    key_id: str
    created: datetime
    subject: str
    wrapped: str
    master: int


class SealedDecision(msgspec.Struct, frozen=True, kw_only=True, tag="sealed-decision", tag_field="kind"):
    """Inputs and answer of one decision, compressed and encrypted under data key `key_id`.

    `plain_bytes` is their size before both.
    """

    event_id: str
    recorded: datetime
    subject: str
    key_id: str
    sealed: bytes
    plain_bytes: int


class AuthorityName(msgspec.Struct, frozen=True, kw_only=True, tag="authority-name", tag_field="kind"):
    """The name of an assigning authority under the site's cipher key; `authority` is what events call it."""

    authority: str
    first_seen: datetime
    sealed: str
