"""No token is good twice: used ones are remembered until they expire, by all processes and machines.

The database holds them, and this process those that it has seen itself.  Calls that arrive while one
batch is being written are written together by the next, as the audit trail does it.

When the database is away the server goes on (so does the audit, see `cds_server.audit.spool`): a token
is then checked against this process's own memory only, which is logged and counted, and what was
accepted meanwhile is written when the database is back.  The alternative, refusing every call, would
take decision support from a whole hospital to keep somebody who already holds a stolen token, good for
one endpoint and some minutes, from using it once more.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable

import structlog

from cds_server.db.used_tokens import UsedTokens
from cds_server.db.writer import DatabaseAway
from cds_server.errors import Unavailable

_log = structlog.get_logger(__name__)

DATABASE_SECONDS = 1.0
"""How long a call waits for the database before it counts as away."""
RETRY_SECONDS = 2.0
PRUNE_SECONDS = 60.0
KEPT_SECONDS = 600
"""How long after its expiry a token stays in the table: another machine's clock may be behind."""
MOST_REMEMBERED = 1_000_000
"""Digests one process holds (about 150 MB); more valid tokens than that at a time are refused."""


def token_digest(issuer: str, jti: str) -> str:
    """What is kept of a token; the length keeps ("ab", "c") and ("a", "bc") apart."""
    return hashlib.sha256(f"{len(issuer)}:{issuer}{jti}".encode("utf-8", "surrogatepass")).hexdigest()


class ReplayGuard:
    """Remembers used tokens.  One per process, on its event loop.

    Args:
        now: seconds since 1970.
        on_unshared: told how many tokens were accepted on this process's word alone.
    """

    def __init__(
        self, database_url: str, *, now: Callable[[], float], on_unshared: Callable[[int], object]
    ) -> None:
        self._table = UsedTokens(database_url, timeout=DATABASE_SECONDS)
        self._now = now
        self._seen: dict[str, int] = {}
        self._queue: dict[str, asyncio.Future[bool]] = {}
        self._unsaved: dict[str, int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._away_until = 0.0
        self._pruned = 0.0
        self._on_unshared = on_unshared

    async def first_use(self, issuer: str, jti: str, expires: int) -> bool:
        """Whether a valid token is used for the first time; from now on it is not.

        Args:
            issuer: within which `jti` is unique.
            expires: second since 1970 from which the token is refused anyway.

        Raises:
            Unavailable: this process remembers as much as it can.
        """
        if len(self._seen) >= MOST_REMEMBERED:
            raise Unavailable("more calls than can be told apart now; try again")
        digest = token_digest(issuer, jti)
        if digest in self._seen:
            return False
        self._seen[digest] = expires
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue[digest] = answer
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await answer

    async def close(self) -> None:
        """Finish what is being written, then let go."""
        if self._writing is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        await self._table.close()

    async def _write(self) -> None:
        """Writes batches until nobody waits."""
        try:
            while self._queue:
                batch, self._queue = self._queue, {}
                try:
                    new = await self._save(batch)
                except Exception as error:  # noqa: BLE001 a defect: nobody who waits may wait for ever
                    _log.error("auth.replay_failed", error=type(error).__name__)
                    for answer in batch.values():
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for digest, answer in batch.items():
                    if not answer.done():  # its caller may be gone; the token stays used
                        answer.set_result(digest in new)
                await self._forget()
        finally:
            self._writing = None

    async def _save(self, batch: "dict[str, asyncio.Future[bool]]") -> frozenset[str]:
        """The digests of a batch that are new; with the database away all, for `_seen` has let them in."""
        loop_time = asyncio.get_running_loop().time()
        tokens = [(digest, self._seen[digest]) for digest in batch]
        if loop_time >= self._away_until:
            try:
                new = await self._table.add([*tokens, *self._unsaved.items()])
            except DatabaseAway as error:
                if not self._away_until:
                    _log.warning("auth.replay_memory_only", error=str(error))
                self._away_until = loop_time + RETRY_SECONDS
            else:
                if self._away_until:
                    _log.info("auth.replay_shared_again", caught_up=len(self._unsaved))
                self._away_until = 0.0
                self._unsaved = {}
                return new
        self._unsaved.update(tokens)
        self._on_unshared(len(tokens))
        return frozenset(batch)

    async def _forget(self) -> None:
        now = self._now()
        if now - self._pruned < PRUNE_SECONDS:
            return
        self._pruned = now
        self._seen = {
            digest: expires
            for digest, expires in self._seen.items()
            if expires >= now or digest in self._queue
        }
        self._unsaved = {digest: expires for digest, expires in self._unsaved.items() if expires >= now}
        if not self._away_until:
            with contextlib.suppress(DatabaseAway):  # the next batch finds out
                await self._table.prune(int(now) - KEPT_SECONDS)
