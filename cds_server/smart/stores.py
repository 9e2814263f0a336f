"""Launches under way and sessions, in the database, so that every worker process knows them.

Ids and states are stored as SHA-256 only, contents under the site's `Cipher`: whoever reads the database
can neither take over a session nor see a token, a user or a patient.  Expired rows are removed whenever
a new one is added.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import msgspec
import structlog
from sqlalchemy import CursorResult, delete, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cds_server.db.engine import create_engine
from cds_server.db.models import SmartLaunchRow, SmartSessionRow
from cds_server.errors import Unavailable
from cds_server.privacy import Cipher, DecryptionFailed
from cds_server.smart.grants import Tokens
from cds_server.smart.identity import Person

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
LAUNCH_SECONDS = 600
"""How long a person may take at the EHR's authorization server."""
_REFRESH_SECONDS = 15
"""How long one process may take to renew a token before another tries."""
_TOUCH_SECONDS = 60
"""Use is noted at most this often: a write per page would be one too many."""
_ID_BYTES = 32


def new_secret() -> str:
    """256 random bits as text: a state, a nonce, a session id."""
    return secrets.token_urlsafe(_ID_BYTES)


def digest_of(secret: str) -> str:
    """What is stored in a secret's place."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Launch(msgspec.Struct, frozen=True):
    """A launch under way: at which EHR, what must come back, and what proves that it is ours."""

    ehr: str
    nonce: str
    verifier: str
    scope: str

    def __repr__(self) -> str:
        return "<Launch>"


class Session(msgspec.Struct, frozen=True):
    """A logged-in person: who, at which EHR, with which tokens and patient; `csrf` guards its forms."""

    ehr: str
    person: Person
    tokens: Tokens
    asked: str
    csrf: str

    def __repr__(self) -> str:
        return "<Session>"


class Found(msgspec.Struct, frozen=True):
    """A live session and the digest it is kept under."""

    digest: str
    session: Session


class Stores:
    """The two tables.

    Args:
        now: the one clock.
        longest: hours a session lives at most, from its login.
        idle: minutes it lives without use.
    """

    def __init__(
        self, database_url: str, cipher: Cipher, *, now: Callable[[], datetime], longest: float, idle: float
    ) -> None:
        self._database_url = database_url
        self._cipher = cipher
        self._now = now
        self._longest = timedelta(hours=longest)
        self._idle = timedelta(minutes=idle)
        self._engine: AsyncEngine | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            await self._engine.dispose()

    @property
    def longest(self) -> timedelta:
        """How long a session lives at most."""
        return self._longest

    async def add_launch(self, state: str, browser: str, launch: Launch) -> None:
        """Keep a launch until its callback; `browser` is the secret in the browser's cookie."""
        key = digest_of(state)
        now = self._now()
        async with self._transaction() as connection:
            await connection.execute(delete(SmartLaunchRow).where(SmartLaunchRow.expires <= now))
            await connection.execute(
                insert(SmartLaunchRow).values(
                    state_digest=key,
                    browser_digest=digest_of(browser),
                    expires=now + timedelta(seconds=LAUNCH_SECONDS),
                    sealed=self._seal("smart_launches", key, launch),
                )
            )

    async def take_launch(self, state: str, browser: str) -> Launch | None:
        """The launch of a state, once, and only for the browser it began in; `None` for any other."""
        key = digest_of(state)
        async with self._transaction() as connection:
            sealed = await connection.scalar(
                delete(SmartLaunchRow)
                .where(
                    SmartLaunchRow.state_digest == key,
                    SmartLaunchRow.browser_digest == digest_of(browser),
                    SmartLaunchRow.expires > self._now(),
                )
                .returning(SmartLaunchRow.sealed)
            )
        return self._open("smart_launches", key, sealed, Launch)

    async def add_session(self, session: Session) -> str:
        """Keep a new session; returns its id, which exists nowhere but in the browser."""
        identity = new_secret()
        key = digest_of(identity)
        now = self._now()
        async with self._transaction() as connection:
            await connection.execute(
                delete(SmartSessionRow).where(
                    or_(SmartSessionRow.expires <= now, SmartSessionRow.seen <= now - self._idle)
                )
            )
            await connection.execute(
                insert(SmartSessionRow).values(
                    session_digest=key,
                    expires=now + self._longest,
                    seen=now,
                    sealed=self._seal("smart_sessions", key, session),
                )
            )
        return identity

    async def session(self, identity: str) -> Found | None:
        """The session of an id, `None` when there is none or it has expired; notes that it is in use."""
        key = digest_of(identity)
        now = self._now()
        async with self._transaction() as connection:
            row = (
                await connection.execute(
                    select(SmartSessionRow.sealed, SmartSessionRow.seen).where(
                        SmartSessionRow.session_digest == key,
                        SmartSessionRow.expires > now,
                        SmartSessionRow.seen > now - self._idle,
                    )
                )
            ).one_or_none()
            if row is not None and now - row.seen >= timedelta(seconds=_TOUCH_SECONDS):
                await connection.execute(
                    update(SmartSessionRow).where(SmartSessionRow.session_digest == key).values(seen=now)
                )
        session = self._open("smart_sessions", key, row.sealed if row is not None else None, Session)
        return Found(key, session) if session is not None else None

    async def by_digest(self, key: str) -> Session | None:
        """A session as it is stored now; for a caller that has it already and waits for a change."""
        async with self._transaction() as connection:
            sealed = await connection.scalar(
                select(SmartSessionRow.sealed).where(
                    SmartSessionRow.session_digest == key, SmartSessionRow.expires > self._now()
                )
            )
        return self._open("smart_sessions", key, sealed, Session)

    async def end_session(self, identity: str) -> None:
        """Remove a session; its id is worth nothing from then on."""
        async with self._transaction() as connection:
            await connection.execute(
                delete(SmartSessionRow).where(SmartSessionRow.session_digest == digest_of(identity))
            )

    async def claim_refresh(self, key: str) -> bool:
        """Whether this caller, among all processes, is the one to renew the session's token now."""
        now = self._now()
        async with self._transaction() as connection:
            done = await connection.execute(
                update(SmartSessionRow)
                .where(
                    SmartSessionRow.session_digest == key,
                    or_(
                        SmartSessionRow.refreshing.is_(None),
                        SmartSessionRow.refreshing <= now - timedelta(seconds=_REFRESH_SECONDS),
                    ),
                )
                .values(refreshing=now)
            )
        return cast("CursorResult[Any]", done).rowcount == 1

    async def end_refresh(self, key: str, session: Session | None) -> None:
        """Keep the renewed session, or (`None`) only let others try again."""
        values: dict[str, Any] = {"refreshing": None}
        if session is not None:
            values["sealed"] = self._seal("smart_sessions", key, session)
        async with self._transaction() as connection:
            await connection.execute(
                update(SmartSessionRow).where(SmartSessionRow.session_digest == key).values(**values)
            )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:  # a site without SMART never opens these connections
            self._engine = create_engine(self._database_url, pool_size=4)
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            _log.warning("smart.database_away", error=type(error).__name__)
            raise Unavailable("sessions cannot be read now; try again") from None

    def _seal(self, table: str, key: str, value: msgspec.Struct) -> str:
        return self._cipher.encrypt(msgspec.json.encode(value).decode(), f"{table}/{key}")

    def _open(self, table: str, key: str, sealed: str | None, kind: type[_T]) -> _T | None:
        if sealed is None:
            return None
        try:
            return msgspec.json.decode(self._cipher.decrypt(sealed, f"{table}/{key}"), type=kind)
        except (DecryptionFailed, msgspec.DecodeError) as fault:
            # Another site key, or a row of another version: logging in again is all it takes.
            _log.warning("smart.row_unreadable", table=table, error=type(fault).__name__)
            return None
