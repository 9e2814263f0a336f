"""The audit trail: an answer leaves only after its event is durable.

`AuditTrail.record` returns when the event is committed in the database or, while the database is
away, fsynced in the local spool.  `docs/operations-audit.md` says what that means for operators.
"""

from cds_server.audit.events import (
    Access,
    AuthorityName,
    CardFeedback,
    DataKey,
    Decision,
    Entity,
    Record,
    SealedDecision,
    ShownCard,
    digest,
    new_id,
)
from cds_server.audit.trail import AuditState, AuditTrail, AuditUnavailable

__all__ = [
    "Access",
    "AuditState",
    "AuditTrail",
    "AuditUnavailable",
    "AuthorityName",
    "CardFeedback",
    "DataKey",
    "Decision",
    "Entity",
    "Record",
    "SealedDecision",
    "ShownCard",
    "digest",
    "new_id",
]
