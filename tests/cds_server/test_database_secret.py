"""The database's address and password from a file: read the same way by all, shown by nothing."""

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from cds_server.db.urls import DatabaseUrlInvalid, is_sqlite, with_password
from cds_server.settings import Settings

PASSWORD = "zq/pass:w@rd#77%31?é "
"""With all that an address must not hold as it is."""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CDS_")]:
        monkeypatch.delenv(name)


def run(directory: Path, *words: str, **settings: str) -> tuple[int, str]:
    """The command in an environment of its own: how it ended and all it said."""
    done = subprocess.run(
        [sys.executable, "-c", "from cds_server.cli import main; main()", *words],
        env={
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "CDS_VAR_DIR": str(directory / "var"),
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def secret(directory: Path, text: str, name: str = "secret") -> str:
    """A file that holds a text, as a setting names it."""
    (directory / name).write_text(text, encoding="utf-8")
    return f"@{directory / name}"


def test_the_address_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = secret(tmp_path, "postgresql+asyncpg://cds:zq-secret@127.0.0.1/cds\n")
    monkeypatch.setenv("CDS_DATABASE_URL", given)
    settings = Settings()
    assert settings.database_url == "postgresql+asyncpg://cds:zq-secret@127.0.0.1/cds"
    assert "zq-secret" not in repr(settings) + str(settings)
    config = tmp_path / "cds.toml"
    config.write_text(f'database_url = "{given}"\n')
    monkeypatch.delenv("CDS_DATABASE_URL")
    monkeypatch.setenv("CDS_CONFIG", str(config))
    assert Settings().database_url == settings.database_url


def test_the_rules_for_tls_hold_for_an_address_from_a_file(tmp_path: Path) -> None:
    given = secret(tmp_path, "postgresql+asyncpg://cds:zq-secret@db.example/cds")
    assert Settings(database_url=given).database_url.endswith("@db.example/cds?ssl=verify-full")
    with pytest.raises(ValueError, match="CDS_ALLOW_PLAIN_DATABASE"):
        Settings(database_url=given, database_tls="off")


def test_a_password_alone_is_read_from_a_file_as_it_is(tmp_path: Path) -> None:
    settings = Settings(
        database_url="postgresql+asyncpg://cds@127.0.0.1:5433/cds",
        database_password=secret(tmp_path, f"{PASSWORD}\n"),  # type: ignore[arg-type]
    )
    url = make_url(settings.database_url)
    assert (url.username, url.password) == ("cds", PASSWORD.strip())
    assert (url.host, url.port, url.database) == ("127.0.0.1", 5433, "cds")
    assert "zq" not in repr(settings) + str(settings)


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_any_password_survives_the_address(password: str) -> None:
    url = with_password("postgresql+asyncpg://cds@/cds?host=/run/postgresql", password)
    found = make_url(url)
    assert (found.username, found.password, found.database) == ("cds", password, "cds")
    assert found.query == {"host": "/run/postgresql"}


@pytest.mark.parametrize("name", ["CDS_DATABASE_URL", "CDS_DATABASE_PASSWORD"])
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "No such file or directory"),
        (b"", "the file is empty"),
        (b" \n\t", "the file is empty"),
        (b"zq\xff\xfe", "not a text"),
        (b"zq" * 40_000, "larger than"),
    ],
)
def test_a_file_that_holds_no_secret_is_named_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, fault: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("CDS_DATABASE_URL", "postgresql+asyncpg://cds@127.0.0.1/cds")
    monkeypatch.setenv(name, f"@{path}")
    with pytest.raises(ValueError, match=fault) as refusal:
        Settings()
    assert f"{name} names {path}" in str(refusal.value)
    assert "zq" not in "".join(traceback.format_exception(refusal.value, chain=True))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("postgresql+asyncpg://cds:other@127.0.0.1/cds", "has a password of its own"),
        ("postgresql+asyncpg://127.0.0.1/cds", "needs the user"),
        ("postgresql+asyncpg:///cds?host=/run/a@b", "needs the user"),
        ("sqlite+aiosqlite:///cds.db", "is for PostgreSQL"),
        ("", "is for PostgreSQL"),
    ],
)
def test_a_password_that_belongs_to_nobody_stops_the_start(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as refusal:
        Settings(database_url=url, database_password="zq-secret")  # type: ignore[arg-type]
    assert "zq-secret" not in str(refusal.value) and ":other@" not in str(refusal.value)


@pytest.mark.parametrize("text", ["zq-secret", "zq secret://x", "://zq-secret", "sqlite", "postgresql"])
def test_a_secret_in_the_place_of_an_address_is_not_quoted(text: str) -> None:
    with pytest.raises(DatabaseUrlInvalid) as refusal:
        is_sqlite(text)
    assert "zq" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://cds:zq/77@127.0.0.1/cds",
        "postgresql+asyncpg://cds:zq[77@127.0.0.1/cds",
        "postgresql+asyncpg://cds:zq\uff0f77@127.0.0.1/cds",
        "zq-secret-alone",
    ],
)
@pytest.mark.parametrize("words", [("db", "upgrade"), ("db", "version"), ("serve",)], ids=" ".join)
def test_an_address_that_cannot_be_read_is_quoted_by_nobody(
    tmp_path: Path, url: str, words: tuple[str, ...]
) -> None:
    status, said = run(tmp_path, *words, CDS_DATABASE_URL=secret(tmp_path, url), CDS_MODEL_BUNDLE="none")
    assert status != 0 and said
    assert "zq" not in said.replace(str(tmp_path), "")


def test_migrations_commands_and_the_trail_log_in_with_the_password_of_a_file(
    postgres: Any, tmp_path: Path
) -> None:
    """A real PostgreSQL that asks this role, and no other, for a password."""
    role = f"asked_{os.getpid()}"
    url = postgres.new_database(migrated=False)
    name = urlsplit(url).path[1:]
    hba = Path(postgres.sql("SHOW hba_file"))
    rules = hba.read_text(encoding="utf-8")
    escaped = PASSWORD.strip().replace("'", "''")
    postgres.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{escaped}'")
    postgres.sql(f"ALTER DATABASE {name} OWNER TO {role}")
    hba.write_text(f"local all {role} scram-sha-256\n{rules}", encoding="utf-8")
    try:
        postgres.sql("SELECT pg_reload_conf()")
        parts = urlsplit(url)
        location = parts.netloc.rpartition("@")[2]

        def of(user: str) -> str:
            return urlunsplit((parts.scheme, f"{user}@{location}", parts.path, parts.query, ""))

        right = secret(tmp_path, f"{PASSWORD.strip()}\n", "password")
        wrong = secret(tmp_path, "zq-another", "wrong")
        status, said = run(tmp_path, "db", "upgrade", CDS_DATABASE_URL=of(role), CDS_DATABASE_PASSWORD=wrong)
        assert status != 0 and "zq-another" not in said
        both = {"CDS_DATABASE_URL": of(role), "CDS_DATABASE_PASSWORD": right}
        whole = {
            "CDS_DATABASE_URL": secret(tmp_path, of(f"{role}:{quote(PASSWORD.strip(), safe='')}"), "address")
        }
        for settings in (both, whole):
            for words in (("db", "upgrade"), ("db", "version"), ("db", "partitions"), ("audit", "verify")):
                status, said = run(tmp_path, *words, **settings)
                assert status == 0, said
                assert "zq" not in said.replace(str(tmp_path), "")
        # The trail is there, and not in the spool: `audit verify` records that it was asked.
        assert int(postgres.sql("SELECT count(*) FROM events", name)) > 0
    finally:
        hba.write_text(rules, encoding="utf-8")
        postgres.sql("SELECT pg_reload_conf()")
