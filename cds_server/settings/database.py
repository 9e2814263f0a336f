"""The database: where it is, who logs in, how it is reached."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from cds_server.db.tls import speaks_of_tls, stays_here, with_tls
from cds_server.db.urls import DatabaseUrlInvalid, check_readable, is_sqlite, with_password
from cds_server.secret_files import revealed


class DatabaseSettings(BaseModel):
    """Address, login, TLS and limits of the database."""

    database_url: str = Field(
        default="",
        repr=False,  # a password may be in it
        description=(
            "sqlite+aiosqlite:///path or postgresql+asyncpg://..., or '@file' that holds it; default: SQLite "
            "in CDS_VAR_DIR."
        ),
    )
    database_password: SecretStr | None = Field(
        default=None,
        description="Password, or '@file' that holds it, of the user that CDS_DATABASE_URL names.",
    )
    database_tls: Literal["off", "required", "verify"] | None = Field(
        default=None,
        description=(
            "TLS to PostgreSQL: 'verify' (the default beyond this machine: certificate and host name are "
            "checked), 'required' (encrypted, nothing checked), 'off'. See docs/postgresql.md."
        ),
    )
    database_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the CAs of PostgreSQL's certificate; default: the system's.",
    )
    allow_plain_database: bool = Field(
        default=False,
        description="Reach a PostgreSQL elsewhere without TLS (only through a tunnel that encrypts).",
    )
    database_pool: int = Field(
        default=4,
        ge=1,
        le=50,
        description="Connections for reading, per worker, at most; the audit trail has one of its own.",
    )
    database_timeout_ms: int = Field(
        default=5000,
        ge=100,
        le=600_000,
        description=(
            "Time a statement that answers a call, a lock, or waiting for a connection may take, in "
            "milliseconds."
        ),
    )

    def _database_is_read(self) -> None:
        """Settles address and password, wherever they stand, into `database_url`."""
        url = revealed("CDS_DATABASE_URL", self.database_url)
        if self.database_password is not None:
            password = revealed("CDS_DATABASE_PASSWORD", self.database_password.get_secret_value())
            url = with_password(url, password)
        object.__setattr__(self, "database_url", url)

    def _database_is_safe(self) -> None:
        """Settles how TLS to the database is done, into `database_url`."""
        try:
            sqlite = is_sqlite(self.database_url)
        except DatabaseUrlInvalid:
            return  # said, in its own words, by whoever opens it
        check_readable(self.database_url)
        if sqlite:
            if self.database_tls or self.database_ca_file:
                raise ValueError("CDS_DATABASE_TLS and CDS_DATABASE_CA_FILE are for PostgreSQL")
            return
        here = stays_here(self.database_url)
        if speaks_of_tls(self.database_url):
            raise ValueError(
                "CDS_DATABASE_URL must not speak of TLS itself (ssl, sslmode, sslrootcert): say "
                "CDS_DATABASE_TLS and CDS_DATABASE_CA_FILE"
            )
        tls = self.database_tls or ("verify" if self.database_ca_file or not here else None)
        if tls == "off" and not here and not self.allow_plain_database:
            raise ValueError(
                "CDS_DATABASE_TLS=off, and the database is on another machine: what is written could be read "
                "and changed on the way. Say CDS_DATABASE_TLS=verify (with CDS_DATABASE_CA_FILE for a CA of "
                "your own); or, where a tunnel encrypts, CDS_ALLOW_PLAIN_DATABASE=true."
            )
        if tls != "verify" and self.database_ca_file is not None:
            raise ValueError("CDS_DATABASE_CA_FILE needs CDS_DATABASE_TLS=verify: nothing else reads it")
        if self.database_ca_file is not None and not self.database_ca_file.is_file():
            raise ValueError(f"CDS_DATABASE_CA_FILE={self.database_ca_file} is not a file")
        if tls is not None:
            object.__setattr__(self, "database_url", with_tls(self.database_url, tls, self.database_ca_file))
