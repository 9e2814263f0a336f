"""TLS that PostgreSQL ends itself: who is refused, and that all the product's connections are encrypted.

`test_database_tls.py` does the same through a proxy, on any machine; this needs a PostgreSQL built with TLS.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from audit_helpers import decision, trail, until
from certificates import Authority, Issued
from decisions_helpers import call, command
from pydantic import ValidationError
from server_helpers import Running
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tls_postgres import TlsPostgres, account, binaries, tls_postgres

from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.settings import Settings

pytestmark = [
    pytest.mark.skipif(binaries() is None, reason="no PostgreSQL built with TLS here (apt: postgresql)"),
    pytest.mark.skipif(account() is None, reason="root, and no account that could run PostgreSQL"),
]

# Loopback under a name that does not say so (Linux): to the settings it is another machine.
ELSEWHERE = "0.0.0.0"


class Site:
    """A PostgreSQL with a certificate of the hospital's authority, and databases on it."""

    def __init__(self, server: TlsPostgres, hospital: Authority, stranger: Authority, good: Issued) -> None:
        self.server = server
        self.hospital = hospital
        self.stranger = stranger
        self.good = good
        self.misnamed = hospital.issue(addresses=["10.1.2.3"])
        self.expired = hospital.issue(addresses=["127.0.0.1", ELSEWHERE], expired=True)

    def settings(self, database: str, host: str = "127.0.0.1", **changes: Any) -> Settings:
        """Settings as a site would have them."""
        return Settings(database_url=self.server.url(database, host), **changes)

    def verified(self, database: str, host: str = "127.0.0.1", ca: Path | None = None) -> str:
        """The address with the hospital's authority (or another) trusted."""
        return self.settings(
            database, host, database_tls="verify", database_ca_file=ca or self.hospital.file
        ).database_url


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("authorities")
    hospital, stranger = Authority(directory), Authority(directory, "stranger")
    good = hospital.issue(addresses=["127.0.0.1", ELSEWHERE])
    with tls_postgres(hospital, good) as server:
        yield Site(server, hospital, stranger, good)


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    """The server with its right certificate, whatever the test before did to it."""
    yield _site
    if _site.server.certificate is not _site.good:
        _site.server.serve(_site.good)


@pytest.fixture
async def database(site: Site) -> str:
    """A migrated database, reached through verified TLS."""
    name = site.server.new_database()
    await asyncio.to_thread(migrate.upgrade, site.verified(name))
    return name


async def encrypted(url: str) -> bool:
    """Whether the engine's connection is encrypted, as the server sees it."""
    engine = create_engine(url)
    try:
        async with engine.connect() as connection:
            query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return bool((await connection.execute(query)).scalar_one())
    finally:
        await engine.dispose()


async def refused(url: str, spool: Path, kind: type[Exception]) -> None:
    """Queries, migrations and the trail all turn away; the trail keeps its record in the spool."""
    with pytest.raises(kind):
        await encrypted(url)
    with pytest.raises(kind):
        await asyncio.to_thread(migrate.current, url)
    async with trail(url, spool) as audit:
        assert not audit.state().database_up
        await audit.record(decision())
        assert audit.state().spool_depth == 1


def connections(site: Site, database: str) -> set[tuple[str, str]]:
    """The clients of a database, and whether each is encrypted: (application_name, t or f)."""
    query = (
        "SELECT DISTINCT application_name, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
        f"WHERE datname = '{database}'"
    )
    return {
        (name, tls) for name, _, tls in (row.partition("|") for row in site.server.sql(query).split("\n"))
    }


async def test_a_whole_server_and_its_commands_reach_it_through_verified_tls_only(
    site: Site, database: str, start_server: Callable[..., Running]
) -> None:
    server = start_server(
        database_url=site.server.url(database),
        database_tls="verify",
        database_ca_file=site.hospital.file,
        model_bundle="none",
    )
    call(server, "sepsis")
    assert connections(site, database) == {("cds-server", "t"), ("cds-server audit", "t")}
    said = {
        "CDS_DATABASE_URL": site.server.url(database),
        "CDS_DATABASE_TLS": "verify",
        "CDS_DATABASE_CA_FILE": str(site.hospital.file),
    }
    settings = server.house.settings
    done = await asyncio.to_thread(command, settings, "audit", "verify", **said)
    assert done.returncode == 0, done.stdout + done.stderr
    answered = "SELECT count(*) FROM events WHERE service = 'diagnostic-assessment'"
    assert site.server.sql(answered, database) == "1"


@pytest.mark.parametrize(
    "words", [("db", "version"), ("db", "upgrade"), ("audit", "verify"), ("replay", "--last", "1")]
)
async def test_a_command_says_in_one_line_that_the_database_is_not_the_right_one(
    site: Site, database: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    settings = Settings(var_dir=tmp_path, model_bundle="none")
    said = {"CDS_DATABASE_URL": site.server.url(database), "CDS_DATABASE_TLS": "verify"}
    stranger = await asyncio.to_thread(
        command, settings, *words, **said, CDS_DATABASE_CA_FILE=str(site.stranger.file)
    )
    site.server.serve(None)
    plain = await asyncio.to_thread(
        command, settings, *words, **said, CDS_DATABASE_CA_FILE=str(site.hospital.file)
    )
    for done, why in ((stranger, "certificate"), (plain, "TLS")):
        assert done.returncode == 2, done.stdout + done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert why in done.stderr
        assert "p%40ss" not in done.stderr
        assert "p@ss" not in done.stderr


async def test_beyond_this_machine_the_certificate_is_verified_unless_somebody_says_otherwise(
    site: Site, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = site.settings(database, ELSEWHERE).database_url
    await refused(default, tmp_path / "spool", ssl.SSLCertVerificationError)  # no system knows our authority
    monkeypatch.setenv("SSL_CERT_FILE", str(site.hospital.file))  # the system's authorities, to OpenSSL
    assert await encrypted(default)
    monkeypatch.delenv("SSL_CERT_FILE")
    assert await encrypted(
        site.settings(database, ELSEWHERE, database_ca_file=site.hospital.file).database_url
    )
    assert await encrypted(site.settings(database, ELSEWHERE, database_tls="required").database_url)
    with pytest.raises(ValidationError, match="CDS_DATABASE_TLS=verify"):
        site.settings(database, ELSEWHERE, database_tls="off")


@pytest.mark.parametrize("wrong", ["authority", "host name", "certificate's address", "expired"])
async def test_a_database_that_cannot_prove_who_it_is_gets_nothing(
    site: Site, database: str, tmp_path: Path, wrong: str
) -> None:
    url = site.verified(database)
    if wrong == "authority":
        url = site.verified(database, ca=site.stranger.file)
    elif wrong == "host name":
        url = site.verified(database, "localhost")  # the certificate is for 127.0.0.1
    else:
        site.server.serve(site.expired if wrong == "expired" else site.misnamed)
    before = site.server.sql("SELECT count(*) FROM events", database)
    await refused(url, tmp_path / "spool", ssl.SSLCertVerificationError)
    assert site.server.sql("SELECT count(*) FROM events", database) == before


@pytest.mark.parametrize("tls", ["required", "verify"])
async def test_a_server_without_tls_is_refused_where_tls_is_required(
    site: Site, database: str, tmp_path: Path, tls: Literal["required", "verify"]
) -> None:
    site.server.serve(None)
    await refused(site.settings(database, database_tls=tls).database_url, tmp_path / "spool", ConnectionError)
    assert not await encrypted(site.settings(database, database_tls="off").database_url)


async def test_without_tls_we_are_refused_by_a_server_that_demands_it(
    site: Site, database: str, tmp_path: Path
) -> None:
    off = site.settings(database, database_tls="off").database_url
    await refused(off, tmp_path / "spool", DBAPIError)
    assert await encrypted(site.settings(database).database_url)  # nothing said, on this machine: it is tried


async def test_somebody_who_takes_the_databases_place_gets_no_record_and_the_trail_comes_back(
    site: Site, database: str, tmp_path: Path
) -> None:
    url = site.verified(database)
    async with trail(url, tmp_path / "spool") as audit:
        await audit.record(decision("before"))
        site.server.serve(site.stranger.issue(addresses=["127.0.0.1"]))
        await audit.record(decision("meanwhile"))
        assert not audit.state().database_up
        await until(lambda: "SSLCertVerificationError" in str(audit.state().trouble))
        assert site.server.sql("SELECT count(*) FROM events WHERE event_id = 'meanwhile'", database) == "0"
        site.server.serve(site.good)
        await until(lambda: audit.state().database_up)
    query = "SELECT event_id FROM events WHERE action = 'assess' ORDER BY seq"
    assert site.server.sql(query, database).split() == ["before", "meanwhile"]


async def test_client_certificates_are_not_supported_and_it_is_said(site: Site, tmp_path: Path) -> None:
    database = site.server.new_database()
    site.server.sql(f"GRANT ALL ON DATABASE {database} TO certified")
    caller = site.hospital.issue(name="certified")
    for name, content in (("caller.pem", caller.certificate), ("caller.key", caller.key)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    files = {"sslcert": str(tmp_path / "caller.pem"), "sslkey": str(tmp_path / "caller.key")}
    # The server does ask for one, and lets in who has it: PostgreSQL's own client.
    theirs = site.server.uri(
        database,
        user="certified",
        sslmode="verify-full",
        sslrootcert=str(site.hospital.file),
        **files,
    )
    assert site.server.tool("psql", "-X", "-At", "-c", "SELECT 1", theirs).stdout == "1\n"
    plain = site.server.url(database, user="certified")
    with pytest.raises(ValidationError, match="must not speak of TLS"):
        Settings(database_url=f"{plain}?sslcert={files['sslcert']}&sslkey={files['sslkey']}")
    ours = Settings(
        database_url=plain, database_tls="verify", database_ca_file=site.hospital.file
    ).database_url
    await refused(ours, tmp_path / "spool", DBAPIError)


async def test_a_backup_is_made_and_put_back_through_verified_tls(
    site: Site, database: str, tmp_path: Path
) -> None:
    async with trail(site.verified(database), tmp_path / "spool") as audit:
        await audit.record(decision("kept"))
    dump = tmp_path / "cds.dump"

    def dumped(ca: Path, host: str = "127.0.0.1") -> Any:
        """As docs/postgresql.md says it."""
        uri = site.server.uri(database, host, sslmode="verify-full", sslrootcert=str(ca))
        return site.server.tool("pg_dump", "-Fc", "--file", str(dump), uri)

    stranger = dumped(site.stranger.file)
    assert stranger.returncode != 0
    assert "certificate verify failed" in stranger.stderr
    misnamed = dumped(site.hospital.file, "localhost")
    assert misnamed.returncode != 0
    assert "does not match host name" in misnamed.stderr
    done = dumped(site.hospital.file)
    assert done.returncode == 0, done.stderr
    new = site.server.new_database()
    target = site.server.uri(new, sslmode="verify-full", sslrootcert=str(site.hospital.file))
    put_back = site.server.tool("pg_restore", "--exit-on-error", "-1", "--dbname", target, str(dump))
    assert put_back.returncode == 0, put_back.stderr
    assert site.server.sql("SELECT event_id FROM events", new) == "kept"
