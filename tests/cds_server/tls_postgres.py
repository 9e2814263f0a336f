"""A PostgreSQL that ends TLS itself: a distribution's own, since the one of the other tests is built without.

Its `pg_hba.conf` lets nobody in over TCP without TLS.  The role `cds` has a password, `certified` needs a
client certificate; both are for tests alone.
"""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

from certificates import Authority, Issued

PASSWORD = "p@ss:w/rd?"
_HBA = """\
local   all all                    trust
hostssl all certified 127.0.0.1/32 cert
hostssl all all       127.0.0.1/32 scram-sha-256
hostssl all all       ::1/128      scram-sha-256
"""


@cache
def binaries() -> Path | None:
    """The directory of a PostgreSQL built with TLS: on the path, or where Debian puts its servers."""
    found = [Path(path).resolve() for path in [shutil.which("postgres")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "postgresql.conf").touch()
        for postgres in found:
            # -C must come first: only then may root ask.
            asked = [str(postgres), "-C", "ssl_library", "-D", empty]
            library = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
            if library and postgres.with_name("initdb").exists():
                return postgres.parent
    return None


@cache
def account() -> str | None:
    """As whom the server runs: PostgreSQL refuses root, who then needs somebody else on the machine."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "pgserver", "nobody") if name in accounts), None)


class TlsPostgres:
    """The server, on a port of its own; `serve` starts it anew with a certificate, or without TLS."""

    def __init__(self, directory: Path, callers: Authority, certificate: Issued) -> None:
        found = binaries()
        assert found is not None
        self._bin = found
        self._directory = directory
        self._data = directory / "data"
        self._names = itertools.count(1)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = unused.getsockname()[1]
        self._give_away(directory)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "-N")
        (self._data / "pg_hba.conf").write_text(_HBA)
        (self._data / "callers.pem").write_bytes(callers.file.read_bytes())
        # Which of its files a postmaster may read is checked against the owner.
        for name in ("pg_hba.conf", "callers.pem"):
            self._give_away(self._data / name)
        self._running = False
        self.certificate: Issued | None = None
        self.serve(certificate)
        self.sql(f"CREATE ROLE cds LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE certified LOGIN")

    def serve(self, certificate: Issued | None) -> None:
        """(Re)starts with this certificate; with none it refuses TLS and lets plain callers in."""
        self.stop()
        self.certificate = certificate
        hba = _HBA if certificate else _HBA.replace("hostssl", "host   ").replace("cert\n", "trust\n")
        (self._data / "pg_hba.conf").write_text(hba)
        options = [
            f"-p {self.port}",
            f"-c unix_socket_directories={self._directory}",
            "-c password_encryption=scram-sha-256",
        ]
        if certificate is not None:
            for name, content in (("server.crt", certificate.certificate), ("server.key", certificate.key)):
                path = self._data / name
                path.write_bytes(content)
                path.chmod(0o600)
                self._give_away(path)
            options += ["-c ssl=on", "-c ssl_ca_file=callers.pem"]
        log = self._directory / "log"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(log), "-o", " ".join(options))
        self._running = True

    def stop(self) -> None:
        """Ends every connection, as a restart in a hospital would."""
        if self._running:
            self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._data))
            self._running = False

    def new_database(self) -> str:
        """Creates an empty database of the role `cds`; returns its name."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} OWNER cds")
        return name

    def url(self, database: str, host: str = "127.0.0.1", user: str = "cds") -> str:
        """The address as `CDS_DATABASE_URL` says it: nothing of TLS."""
        return f"postgresql+asyncpg://{user}:{quote(PASSWORD, safe='')}@{host}:{self.port}/{database}"

    def uri(self, database: str, host: str = "127.0.0.1", user: str = "cds", **parameters: str) -> str:
        """The address as PostgreSQL's own tools read it."""
        said = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://{user}:{quote(PASSWORD, safe='')}@{host}:{self.port}/{database}?{said}"

    def sql(self, command: str, database: str = "postgres") -> str:
        """Runs SQL over the socket, outside of anything that is tested; the result without headers."""
        at = ["-h", str(self._directory), "-p", str(self.port), "-U", "postgres", "-d", database]
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *at, "-c", command)

    def tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's own tools as whoever runs the tests."""
        command = [str(self._bin / name), *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def _give_away(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, account())

    def _run(self, name: str, *arguments: str) -> str:
        whose = pwd.getpwnam(account() or "") if os.geteuid() == 0 else None
        done = subprocess.run(
            [str(self._bin / name), *arguments],
            check=False,
            user=whose and whose.pw_uid,
            group=whose and whose.pw_gid,
            extra_groups=[] if whose else None,
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (name, done.stdout, done.stderr)
        return done.stdout.strip()


@contextmanager
def tls_postgres(callers: Authority, certificate: Issued) -> Iterator[TlsPostgres]:
    """A server of our own, gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="cds-pgtls-"))  # short: a socket's path ends at 107 bytes
    try:
        server = TlsPostgres(directory, callers, certificate)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
