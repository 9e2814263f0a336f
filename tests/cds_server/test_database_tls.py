"""TLS to PostgreSQL: what the settings refuse, and connections through real TLS to a real PostgreSQL.

The PostgreSQL of the tests is built without OpenSSL, so a proxy stands before it that answers PostgreSQL's
SSLRequest, speaks TLS with a certificate made here and hands what comes on to the server's socket.  One that
ends TLS itself: `test_database_tls_itself.py`.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from audit_helpers import decision, stored_ids
from certificates import Authority
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cds_server.audit import AuditTrail
from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.db.tls import stays_here, taken_out, with_tls
from cds_server.settings import Settings

REMOTE = "postgresql+asyncpg://cds@db.hospital.example/cds"
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def certificate(directory: Path, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for an address: the file of its authority, and that of it with its key."""
    authority = Authority(directory, address)
    issued = authority.issue(addresses=[address])
    whole = directory / f"{address}.whole.pem"
    whole.write_bytes(issued.key + issued.certificate)
    return authority.file, whole


@asynccontextmanager
async def proxy(database_url: str, whole: Path | None) -> AsyncIterator[tuple[str, list[str]]]:
    """PostgreSQL behind TLS (without a certificate: one that refuses it); its URL, and what callers got."""
    directory = dict(parse_qsl(urlsplit(database_url).query))["host"]
    seen: list[str] = []
    context = None
    if whole is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(whole)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(8)
            if first == _SSL_REQUEST and context is None:
                seen.append("refused TLS")
                writer.write(b"N")
                first = b""
            elif first == _SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(context)
                seen.append("TLS")
                first = b""
            else:
                seen.append("plain")
            inner, out = await asyncio.open_unix_connection(f"{directory}/.s.PGSQL.5432")
            out.write(first)
            await asyncio.gather(pipe(reader, out), pipe(inner, writer))
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(caller, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}{urlsplit(database_url).path}", seen
    finally:
        server.close()


async def answers(url: str) -> bool:
    engine = create_engine(url)
    try:
        async with engine.connect() as connection:
            return bool((await connection.execute(text("SELECT true"))).scalar_one())
    finally:
        await engine.dispose()


async def records(url: str, spool: Path) -> bool:
    """Whether the audit trail reaches the database."""
    audit = AuditTrail(url, spool)
    await audit.start()
    up = audit.state().database_up
    if up:
        await audit.record(decision())
    await audit.close()
    return up


async def test_verified_tls_for_engine_trail_and_migration(postgresql_url: str, tmp_path: Path) -> None:
    public, whole = certificate(tmp_path)
    async with proxy(postgresql_url, whole) as (plain, seen):
        url = Settings(database_url=plain, database_tls="verify", database_ca_file=public).database_url
        assert await answers(url)
        assert await records(url, tmp_path / "spool")
        assert await asyncio.to_thread(migrate.current, url) is not None
        await asyncio.to_thread(migrate.upgrade, url)
        assert set(seen) == {"TLS"}
    assert len(await stored_ids(postgresql_url)) == 1


async def test_a_certificate_of_somebody_else_or_for_another_host_is_refused(
    postgresql_url: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    misnamed, whole = certificate(tmp_path, "127.0.0.9")
    async with proxy(postgresql_url, whole) as (plain, _):
        for ca in (other, misnamed, None):
            url = with_tls(plain, "verify", ca)
            with pytest.raises(ssl.SSLCertVerificationError):
                await answers(url)
            assert not await records(url, tmp_path / "spool")
        assert await answers(with_tls(plain, "required"))  # encrypted, to whomever it is


@pytest.mark.parametrize("tls", ["required", "verify"])
async def test_a_server_without_tls_is_refused_where_tls_is_required(
    postgresql_url: str, tmp_path: Path, tls: Any
) -> None:
    async with proxy(postgresql_url, None) as (plain, seen):
        with pytest.raises(ConnectionError):
            await answers(with_tls(plain, tls))
        assert not await records(with_tls(plain, tls), tmp_path / "spool")
        assert set(seen) == {"refused TLS"}
        seen.clear()
        assert await answers(with_tls(plain, "off"))
        assert set(seen) == {"plain"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"database_url": REMOTE, "database_tls": "off"}, "CDS_DATABASE_TLS=verify"),
        ({"database_url": REMOTE + "?ssl=disable"}, "must not speak of TLS"),
        ({"database_url": REMOTE + "?sslmode=prefer", "allow_plain_database": True}, "must not speak"),
        ({"database_url": REMOTE, "database_tls": "required", "database_ca_file": "/dev/null"}, "verify"),
        ({"database_url": REMOTE, "database_ca_file": "/nowhere.pem"}, "not a file"),
        ({"database_tls": "verify"}, "for PostgreSQL"),
    ],
)
def test_combinations_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(**changes)


def test_what_is_asked_for_where() -> None:
    def mode(**changes: Any) -> object:
        found = taken_out(Settings(**changes).database_url)[1]
        return found.verify_mode if isinstance(found, ssl.SSLContext) else found

    assert mode(database_url=REMOTE) == ssl.CERT_REQUIRED
    assert mode(database_url=REMOTE, database_tls="required") == ssl.CERT_NONE
    assert mode(database_url=REMOTE, database_tls="off", allow_plain_database=True) == "disable"
    assert mode(database_url="postgresql+asyncpg://cds@127.0.0.1/cds") is None
    assert mode(database_url="postgresql+asyncpg:///cds?host=/run/postgresql") is None


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("postgresql://u:p@localhost:5432/d", True),
        ("postgresql://u@[::1]:5432/d", True),
        ("postgresql:///d?host=/run/postgresql", True),
        ("postgresql://u@/d?host=10.0.0.1", False),
        ("postgresql://u@127.0.0.1,db.example/d", False),
        ("postgresql://u@127.0.0.1/d?host=127.0.0.1:5432,db.example:5432", False),
        ("postgresql://127.0.0.1@db.example/d", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, here: bool) -> None:
    assert stays_here(url) is here


async def test_the_address_keeps_its_socket_directory() -> None:
    plain, tls = taken_out(with_tls("postgresql+asyncpg:///cds?host=/run/postgresql", "off"))
    assert (plain, tls) == ("postgresql+asyncpg:///cds?host=/run/postgresql", "disable")


async def test_a_statement_that_takes_too_long_is_stopped(postgresql_url: str) -> None:
    settings = Settings(database_url=postgresql_url, database_timeout_ms=200)
    engine = create_engine(settings.database_url, timeout=settings.database_timeout_ms / 1000)
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="statement timeout"):
            await connection.execute(text("SELECT pg_sleep(30)"))
    await engine.dispose()


async def test_the_pool_has_an_end(postgresql_url: str) -> None:
    settings = Settings(database_url=postgresql_url, database_pool=1)
    engine = create_engine(settings.database_url, pool_size=settings.database_pool, timeout=0.3)
    async with engine.connect():
        with pytest.raises(PoolTimeout, match="QueuePool"):
            async with engine.connect():
                pass
    await engine.dispose()
