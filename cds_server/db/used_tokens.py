"""The table of used tokens, on both databases: which of some tokens are new, and forgetting expired ones."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite
from cds_server.db.writer import DatabaseAway

# One parameter for a whole batch, whatever its length: the statement is planned and cached once.
_SOURCE_SQLITE = "SELECT value ->> 0, value ->> 1 FROM json_each(:rows) WHERE true"
_SOURCE_POSTGRESQL = (
    "SELECT value ->> 0, CAST(value ->> 1 AS bigint) FROM jsonb_array_elements(CAST(:rows AS jsonb))"
)


class UsedTokens:
    """One process's way to the table.

    Args:
        timeout: seconds a connection, a lock or a statement may take.
    """

    def __init__(self, database_url: str, *, timeout: float) -> None:
        self._url = database_url
        self._timeout = timeout
        source = _SOURCE_SQLITE if is_sqlite(database_url) else _SOURCE_POSTGRESQL
        self._insert = text(
            f"INSERT INTO used_tokens (digest, expires) {source} ON CONFLICT DO NOTHING RETURNING digest"
        )
        self._prune = text("DELETE FROM used_tokens WHERE expires < :now")
        self._engine: AsyncEngine | None = None

    async def add(self, tokens: Sequence[tuple[str, int]]) -> frozenset[str]:
        """Remember tokens (digest, expiry in seconds since 1970); the digests that were not there before.

        Raises:
            DatabaseAway: nothing is known; they may or may not be remembered now.
        """
        rows = msgspec.json.encode(tokens).decode()
        try:
            async with self._connected().begin() as connection:
                found = await connection.execute(self._insert, {"rows": rows})
                new = frozenset(found.scalars())
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise DatabaseAway(type(error).__name__) from error
        return new

    async def prune(self, now: int) -> None:
        """Forget those that expired before `now`.  Raises: DatabaseAway."""
        try:
            async with self._connected().begin() as connection:
                await connection.execute(self._prune, {"now": now})
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise DatabaseAway(type(error).__name__) from error

    async def close(self) -> None:
        """Close the connection."""
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    def _connected(self) -> AsyncEngine:
        if self._engine is None:  # made on the loop it is used on
            self._engine = create_engine(self._url, pool_size=1, timeout=self._timeout)
        return self._engine
