"""Every setting of the server: name, meaning, default, allowed range, and which combinations are safe.

Read from the environment (prefix ``CDS_``) and, below it, from the TOML file named by ``CDS_CONFIG``.
A setting that does not exist, is out of range or would open the server to the network by accident stops
the start with a message that says what to do.  Nothing here reads a file other than the TOML one.
"""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

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
        description="sqlite+aiosqlite:///path or postgresql+asyncpg://...; default: SQLite in CDS_VAR_DIR.",
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
    client_auth: Literal["required", "optional", "off"] = Field(
        default="off",
        description=(
            "Whether CDS clients must authenticate by JWT. This version does not check JWTs, so only 'off' "
            "starts; see CDS_ALLOW_UNAUTHENTICATED."
        ),
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
        description="How often a new bundle at that path is looked for, in seconds; 0: never.",
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

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in _split(value):
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or any(c in rest for c in "/?#@ *"):
                raise ValueError("an origin looks like https://ehr.hospital.example, without path or '*'")
        return value

    @model_validator(mode="after")
    def _safe_together(self) -> Self:
        if self.client_auth != "off":
            raise ValueError(
                f"CDS_CLIENT_AUTH={self.client_auth}: this version does not check client JWTs yet; it "
                "would only look protected. Use CDS_CLIENT_AUTH=off on loopback or behind a proxy that "
                "authenticates."
            )
        if not self.on_loopback and not (
            "client_auth" in self.model_fields_set and self.allow_unauthenticated
        ):
            raise ValueError(
                f"CDS_HOST={self.host} can be reached from the network and callers are not authenticated. "
                "Listen on 127.0.0.1, or, if something in front authenticates callers, say so with "
                "CDS_CLIENT_AUTH=off and CDS_ALLOW_UNAUTHENTICATED=true."
            )
        if not self.on_loopback and "*" in _split(self.fhir_server_allowlist):
            raise ValueError("CDS_FHIR_SERVER_ALLOWLIST=* is allowed only on loopback: list the FHIR servers")
        if not self.database_url:
            path = self.var_dir / "cds.db"
            object.__setattr__(self, "database_url", f"sqlite+aiosqlite:///{path}")
        return self

    @property
    def archive_dir(self) -> Path:
        """Where the model bundles that were in use are kept."""
        return self.bundle_archive or self.var_dir / "bundles"

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def fhir_servers(self) -> AllowList:
        """The FHIR servers a hook may name."""
        return AllowList.parse(self.fhir_server_allowlist or ("*" if self.on_loopback else ""))

    @property
    def allowed_origins(self) -> frozenset[str]:
        """Origins of browser clients, spelled out."""
        if self.cors_origins:
            return frozenset(_split(self.cors_origins))
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


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
