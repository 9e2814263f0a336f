"""Every setting of the server: name, meaning, default, allowed range, and which combinations are safe.

Read from the environment (prefix ``CDS_``) and, below it, from the TOML file named by ``CDS_CONFIG``.
A setting that does not exist, is out of range or would open the server to the network by accident stops
the start with a message that says what to do.  Nothing here reads a file other than the TOML one and those
the database's address and password are in: they are settled here, for the server and every command alike.
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cds_server.auth.addresses import is_loopback, parse_networks
from cds_server.auth.outbound import AddressRefused, check_address, on_this_machine
from cds_server.auth.signed_tokens import ALGORITHMS
from cds_server.db.tls import speaks_of_tls, stays_here, with_tls
from cds_server.db.urls import DatabaseUrlInvalid, check_readable, is_sqlite, with_password
from cds_server.secret_files import revealed
from fhir_adapters.origin import AllowList, ServerNotAllowed

SANDBOX_ORIGIN = "https://sandbox.cds-hooks.org"
CONFIG_VARIABLE = "CDS_CONFIG"
NO_BUNDLE = "none"


class Settings(BaseSettings):
    """The settings of one server process; immutable."""

    model_config = SettingsConfigDict(
        env_prefix="CDS_",
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,  # keys and passwords are among them
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes.")
    public_base_url: str | None = Field(
        default=None,
        description="How callers address this server, e.g. https://cds.hospital.example; the base of links.",
    )
    var_dir: Path = Field(default=Path("var"), description="Directory of all state: database, spool, keys.")
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
    fhir_server_allowlist: str = Field(
        default="",
        description=(
            "Comma-separated URL prefixes of the FHIR servers a hook may name. '*' (any) is allowed, and the "
            "default, only when listening on loopback; otherwise nothing is fetched until servers are listed."
        ),
    )
    fhir_time_budget_ms: int = Field(
        default=2000,
        ge=50,
        le=30_000,
        description="Time all fetching for one hook call may take, in milliseconds.",
    )
    fhir_max_response_bytes: int = Field(
        default=10_000_000,
        ge=1_000,
        le=200_000_000,
        description="Largest single answer taken from a FHIR server.",
    )
    fhir_max_pages: int = Field(
        default=20, ge=1, le=500, description="Most pages followed for one prefetch key."
    )
    fhir_ca_file: Path | None = Field(
        default=None, description="PEM file with the CAs of the FHIR servers' certificates."
    )
    client_auth: Literal["required", "optional", "off"] | None = Field(
        default=None,
        description=(
            "Whether callers must authenticate: 'required' (the default beyond loopback), 'optional' (a "
            "token that is sent must hold), 'off' (the default on loopback). See docs/authentication.md."
        ),
    )
    trusted_clients: Path | None = Field(
        default=None,
        description="TOML file of the CDS clients (EHRs) whose tokens are accepted; docs/authentication.md.",
    )
    clients_reload_seconds: float = Field(
        default=5,
        ge=0,
        le=3600,
        description="How often a change of that file is looked for, in seconds; 0: never.",
    )
    client_algorithms: str = Field(
        default="",
        description="Comma-separated signature algorithms beside ES384 and RS384: ES256, RS256.",
    )
    client_token_seconds: int = Field(
        default=300,
        ge=30,
        le=3600,
        description="Longest validity of a client's token, from iat to exp, in seconds.",
    )
    client_rate: int = Field(
        default=6000,
        ge=1,
        le=10_000_000,
        description=(
            "Calls a minute of one CDS client, unless the file of trusted clients says otherwise; where "
            "callers need not authenticate, of one address that sends no credentials."
        ),
    )
    unproven_rate: int = Field(
        default=600,
        ge=1,
        le=10_000_000,
        description=(
            "Calls a minute of one address without the credentials they need, or with ones that do not hold; "
            "also the SMART launches begun from it. Valid credentials get in whatever its other calls do."
        ),
    )
    user_rate: int = Field(default=100, ge=1, le=10_000_000, description="Calls a minute of one person.")
    ip_allowlist: str = Field(
        default="",
        description="Comma-separated addresses and networks (CIDR) that may call; default: all.",
    )
    trusted_proxies: str = Field(
        default="",
        description=(
            "Comma-separated addresses and networks of the proxies in front, whose X-Forwarded-For is "
            "believed; default: none."
        ),
    )
    metrics_from: str = Field(
        default="",
        description=(
            "Comma-separated addresses and networks that may read /metrics without a token where callers "
            "must authenticate."
        ),
    )
    frame_ancestors: str = Field(
        default="",
        description="Comma-separated origins (EHRs) that may show the pages inside their own window.",
    )
    allow_unauthenticated: bool = Field(
        default=False,
        description=(
            "Listen on a non-loopback address although callers are not authenticated. Only behind something "
            "that authenticates them (mutual TLS, a private network)."
        ),
    )
    cors_origins: str = Field(
        default="",
        description=(
            "Comma-separated origins of browser clients. Default on loopback: the CDS Hooks Sandbox, pages "
            "of this machine; elsewhere none."
        ),
    )
    language: Literal["en", "es"] = Field(
        default="en", description="Language when Accept-Language does not say."
    )
    max_body_bytes: int = Field(
        default=10_000_000,
        ge=10_000,
        le=500_000_000,
        description="Largest request body; above it the answer is 413.",
    )
    inline_body_bytes: int = Field(
        default=1_048_576,
        ge=0,
        le=100_000_000,
        description="Bodies above this size are assessed in a thread, so that other callers do not wait.",
    )
    in_flight_bytes: int = Field(
        default=16_777_216,
        ge=1_000_000,
        le=10_000_000_000,
        description=(
            "Bytes of large bodies (over 256 KiB) held at one time; further ones wait their "
            "turn in the network, so that memory stays bounded."
        ),
    )
    body_timeout_ms: int = Field(
        default=30_000,
        ge=100,
        le=600_000,
        description=(
            "Time a request body may take to arrive, in milliseconds, counted from its turn; then the answer "
            "is 408."
        ),
    )
    max_cards: int = Field(default=3, ge=1, le=3, description="Most cards in one answer.")
    model_bundle: str = Field(
        default="",
        description=(
            "Model bundle: a directory or .zip archive; 'none' answers with the published rules only; "
            "default: the one shipped with the product, if any."
        ),
    )
    trusted_model_keys: Path | None = Field(
        default=None,
        description="JSON file of the public keys whose bundles are used; default: the product's own.",
    )
    model_reload_seconds: float = Field(
        default=5,
        ge=0,
        le=3600,
        description=(
            "How often a new bundle at that path, and newly enrolled cases, are looked for, in seconds; "
            "0: never."
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object per line, or readable."
    )
    pseudonym_key: SecretStr | None = Field(
        default=None,
        description="Key ring '1:BASE64' or '@file' for pseudonyms; default: made in CDS_VAR_DIR/keys.",
    )
    cipher_key: SecretStr | None = Field(
        default=None,
        description="Key ring '1:BASE64' or '@file' for stored texts; default: made in CDS_VAR_DIR/keys.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="Issuer of the site's identity provider, as its tokens name it; see docs/smart.md.",
    )
    oidc_audience: str | None = Field(
        default=None, description="Audience of its access tokens; default: CDS_PUBLIC_BASE_URL."
    )
    oidc_algorithms: str = Field(
        default="ES256,ES384,RS256,RS384,PS256,PS384",
        description="Comma-separated signature algorithms of its tokens; symmetric ones are never taken.",
    )
    oidc_roles: Path | None = Field(
        default=None, description="TOML file: which scopes and claims of its tokens give which roles."
    )
    oidc_ca_file: Path | None = Field(
        default=None, description="PEM file with the CAs of the identity provider's certificate."
    )
    oidc_any_token_type: bool = Field(
        default=False,
        description=(
            "Also take tokens that do not declare themselves access tokens (typ at+jwt, RFC 9068). Only for "
            "identity providers that cannot, and with an audience of its own for this server."
        ),
    )
    smart_ehrs: Path | None = Field(
        default=None, description="TOML file of the EHRs this server is registered with as a SMART app."
    )
    smart_session_hours: float = Field(
        default=8, gt=0, le=24, description="Longest life of a session after a SMART launch, in hours."
    )
    smart_idle_minutes: float = Field(
        default=30, gt=0, le=480, description="Minutes without use after which such a session ends."
    )
    master_key: SecretStr | None = Field(
        default=None,
        description=(
            "Key ring '1:BASE64' or '@file' that wraps the patients' data keys; default: made in "
            "CDS_VAR_DIR/keys."
        ),
    )
    store_decisions: bool = Field(
        default=True,
        description=(
            "Keep the inputs of every decision, encrypted under the patient's data key, so that it can be "
            "replayed. The audit event says whether they were kept."
        ),
    )
    bundle_archive: Path | None = Field(
        default=None,
        description=(
            "Directory where every model bundle that was in use is kept, for replays; default: "
            "CDS_VAR_DIR/bundles."
        ),
    )
    retention_years: int = Field(
        default=7,
        ge=1,
        le=100,
        description=(
            "Years for which inputs and answers are kept; `cds-server retention run` destroys older ones."
        ),
    )
    aggregate_epsilon: float = Field(
        default=4.0,
        gt=0,
        le=20,
        description=(
            "Differential-privacy budget (epsilon) of each month of data, for all aggregates ever asked of "
            "it."
        ),
    )

    audit_signing_key: SecretStr | None = Field(
        default=None,
        description=(
            "Key ring '1:BASE64' or '@file' that signs audit checkpoints; default: made in CDS_VAR_DIR/keys."
        ),
    )
    audit_checkpoint_seconds: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="A signed checkpoint of the audit trail is made after this time, in seconds.",
    )
    audit_checkpoint_events: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="And after so many events of one process.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments beat the environment, which beats the TOML file."""
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        named = os.environ.get(CONFIG_VARIABLE)
        if named:
            if not Path(named).is_file():
                raise ValueError(f"{CONFIG_VARIABLE} names {named}, which is not a file")
            sources += (TomlConfigSettingsSource(settings_cls, toml_file=named),)
        return sources

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("host")
    @classmethod
    def _bare(cls, value: str) -> str:
        return value.strip("[]")  # an IPv6 address is often written as in a URL

    @field_validator("public_base_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("https://", "http://")) or any(c in value for c in "?# @"):
            raise ValueError("expected something like https://cds.hospital.example/base")
        return value.rstrip("/")

    @field_validator("fhir_server_allowlist")
    @classmethod
    def _prefixes(cls, value: str) -> str:
        try:
            AllowList.parse(value)
        except ServerNotAllowed as fault:
            raise ValueError(str(fault)) from None
        return value

    @field_validator("client_algorithms")
    @classmethod
    def _asymmetric(cls, value: str) -> str:
        if not set(split(value)) <= {"ES256", "RS256", "ES384", "RS384"}:
            raise ValueError("ES256 and RS256 can be added to ES384 and RS384; nothing else is accepted")
        return value

    @field_validator("ip_allowlist", "trusted_proxies", "metrics_from")
    @classmethod
    def _networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("cors_origins", "frame_ancestors")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in split(value):
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or any(c in rest for c in "/?#@ *"):
                raise ValueError("an origin looks like https://ehr.hospital.example, without path or '*'")
        return value

    @model_validator(mode="after")
    def _people_safe(self) -> Self:
        """What people's tokens and sessions need; a half-configured way in is no way in."""
        for name, url in (("CDS_OIDC_ISSUER", self.oidc_issuer), ("CDS_PUBLIC_BASE_URL", self.base_url)):
            wanted = name == "CDS_OIDC_ISSUER" or self.smart_ehrs is not None
            if url is not None and wanted:
                try:
                    check_address(url, origin=url)
                except AddressRefused as fault:
                    raise ValueError(f"{name}: {fault}") from None
        if self.oidc_issuer is not None and self.oidc_roles is None:
            raise ValueError(
                "CDS_OIDC_ISSUER needs CDS_OIDC_ROLES: the TOML file that says which of its users may do what"
            )
        if self.oidc_issuer is not None and self.oidc_audience is None and self.public_base_url is None:
            raise ValueError("CDS_OIDC_ISSUER needs CDS_OIDC_AUDIENCE (or CDS_PUBLIC_BASE_URL)")
        unknown = set(split(self.oidc_algorithms)) - ALGORITHMS
        if unknown or not split(self.oidc_algorithms):
            raise ValueError(f"CDS_OIDC_ALGORITHMS must be of {', '.join(sorted(ALGORITHMS))}")
        return self

    @model_validator(mode="after")
    def _safe_together(self) -> Self:
        self._authentication_is_safe()
        if not self.on_loopback and "*" in split(self.fhir_server_allowlist):
            raise ValueError("CDS_FHIR_SERVER_ALLOWLIST=* is allowed only on loopback: list the FHIR servers")
        if not self.database_url:
            path = self.var_dir / "cds.db"
            object.__setattr__(self, "database_url", f"sqlite+aiosqlite:///{path}")
        self._database_is_read()
        self._database_is_safe()
        return self

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

    def _authentication_is_safe(self) -> None:
        mode = self.authentication
        where = f"CDS_HOST={self.host}"
        otherwise = (
            "Or say CDS_CLIENT_AUTH=off."
            if self.on_loopback
            else "Or listen on 127.0.0.1; or, if something in front authenticates callers, say so with "
            "CDS_CLIENT_AUTH=off and CDS_ALLOW_UNAUTHENTICATED=true."
        )
        if mode == "off" and self.trusted_clients is not None and self.client_auth is None:
            raise ValueError(
                f"CDS_TRUSTED_CLIENTS is set, but on loopback ({where}) nobody has to authenticate by "
                "default: say CDS_CLIENT_AUTH=required (or optional, or off)."
            )
        if mode != "required" and not self.on_loopback and not self.allow_unauthenticated:
            raise ValueError(
                f"{where} can be reached from the network and CDS_CLIENT_AUTH={mode} lets in callers who "
                f"are not authenticated. Say CDS_CLIENT_AUTH=required. {otherwise}"
            )
        if mode == "off":
            return
        missing = []
        if self.trusted_clients is None and self.oidc_issuer is None and self.smart_ehrs is None:
            missing.append(
                "CDS_TRUSTED_CLIENTS (the file of the EHRs whose tokens are accepted) or CDS_OIDC_ISSUER "
                "(the identity provider of the people and apps that call) or CDS_SMART_EHRS (the EHRs that "
                "launch the app)"
            )
        if self.public_base_url is None:
            missing.append("CDS_PUBLIC_BASE_URL (how callers address this server)")
        if missing:
            raise ValueError(
                f"CDS_CLIENT_AUTH={mode} ({where}) checks who calls and needs "
                f"{', and '.join(missing)}; see docs/authentication.md. {otherwise}"
            )
        base = self.public_base_url or ""
        if not base.startswith("https://") and not on_this_machine(base):
            raise ValueError(
                "CDS_PUBLIC_BASE_URL must begin with https:// where callers authenticate: over http their "
                "tokens and their patients' data could be read on the way."
            )

    @property
    def authentication(self) -> Literal["required", "optional", "off"]:
        """`client_auth`, or its default for where the server listens."""
        return self.client_auth or ("off" if self.on_loopback else "required")

    @property
    def archive_dir(self) -> Path:
        """Where the model bundles that were in use are kept."""
        return self.bundle_archive or self.var_dir / "bundles"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def fhir_servers(self) -> AllowList:
        """The FHIR servers a hook may name."""
        return AllowList.parse(self.fhir_server_allowlist or ("*" if self.on_loopback else ""))

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Origins of browser clients, spelled out."""
        if self.cors_origins:
            return frozenset(split(self.cors_origins))
        return frozenset({SANDBOX_ORIGIN}) if self.on_loopback else frozenset()

    @property
    def local_origins_allowed(self) -> bool:
        """Whether pages served from this machine, on any port, may call."""
        return self.on_loopback and not self.cors_origins

    @property
    def base_url(self) -> str:
        """The public base URL, or the address listened on."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_base_url or f"http://{host}:{self.port}"

    @property
    def local_url(self) -> str:
        """Where a command on this machine reaches the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def split(text: str) -> list[str]:
    """The parts of a comma-separated setting."""
    return [part.strip() for part in text.split(",") if part.strip()]
