"""Enrolled cases in the running server: the record, read at start and again whenever it has changed.

Responsible for knowledge that counts the site's cases, tried on a patient before anybody else is, and for
telling what does not count and why.  A record that is damaged, or sealed under another key, never stops a
server: what can be trusted of it counts, and the log, `/health/ready` and the metrics say the rest.
"""

from dataclasses import dataclass

import structlog

from cds_server.deployment.loading import try_out
from cds_server.rare.record import EnrolmentInvalid
from cds_server.rare.status import EnrolledState
from cds_server.rare.store import Counting, EnrolmentStore
from cds_server.state import Knowledge

_log = structlog.get_logger(__name__)

Fingerprint = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class EnrolledCases:
    """The record of one server."""

    store: EnrolmentStore

    def fingerprint(self) -> Fingerprint:
        """Size, time and inode of the record: differs when there is something to read."""
        try:
            state = self.store.path.stat()
        except OSError:
            return (-1, 0, 0)
        return (state.st_size, state.st_mtime_ns, state.st_ino)

    def applied(self, base: Knowledge) -> tuple[Knowledge, EnrolledState]:
        """The knowledge with the cases that count now, and what to say of them.

        `base` itself when nothing changes.  When the record cannot be read at all, or the engine cannot use
        its cases, the cases of `base` go on counting.
        """
        try:
            found = self.store.counting()
        except EnrolmentInvalid as fault:
            return base, self._refused(base, str(fault))
        if found.identity == base.enrolled.identity:
            knowledge = base
        else:
            try:
                knowledge = base.with_enrolled(found.cases, found.identity)
                if found.cases and knowledge.engine.rare is not None:
                    try_out(knowledge)
            except Exception as fault:  # noqa: BLE001 whatever it is, it is the cases': `base` was tried
                return base, self._refused(base, f"the engine cannot use the cases: {type(fault).__name__}")
            if knowledge.engine.rare is not None:
                _log.info(
                    "rare.enrolled", cases=len(found.cases), id=found.identity, before=base.enrolled.identity
                )
        return knowledge, self._told(found)

    @staticmethod
    def _told(found: Counting) -> EnrolledState:
        left_out = tuple(sorted({*found.doubtful, *found.sealed}))
        reasons = []
        if found.damaged:
            lines = ", ".join([str(line) for line in found.damaged])
            reasons.append(f"damaged lines ({lines}): restore the record from a copy")
        if found.sealed:
            reasons.append(
                f"{len(found.sealed)} enrolled cases do not open with this site's keys (CDS_CIPHER_KEY, or "
                "without it the files in CDS_VAR_DIR/keys)"
            )
        state = EnrolledState(len(found.cases), found.identity, found.damaged, left_out, "; ".join(reasons))
        if reasons:
            _log.error(
                "rare.enrolled_damaged",
                cases=state.cases,
                lines=list(found.damaged),
                left_out=list(left_out),
                reason=state.reason,
            )
        return state

    @staticmethod
    def _refused(base: Knowledge, reason: str) -> EnrolledState:
        state = EnrolledState(len(base.enrolled.cases), base.enrolled.identity, reason=reason)
        _log.error("rare.enrolled_refused", reason=reason, cases=state.cases, kept=state.identity)
        return state
