"""Where and how the server listens, and what it takes from the network."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from cds_server.auth.addresses import is_loopback
from cds_server.settings.parts import split

SANDBOX_ORIGIN = "https://sandbox.cds-hooks.org"


class ServingSettings(BaseModel):
    """Address, public name, browsers, limits of bodies, language, log."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes.")
    public_base_url: str | None = Field(
        default=None,
        description="How callers address this server, e.g. https://cds.hospital.example; the base of links.",
    )
    var_dir: Path = Field(default=Path("var"), description="Directory of all state: database, spool, keys.")
    cors_origins: str = Field(
        default="",
        description=(
            "Comma-separated origins of browser clients. Default on loopback: the CDS Hooks Sandbox, pages "
            "of this machine; elsewhere none."
        ),
    )
    frame_ancestors: str = Field(
        default="",
        description="Comma-separated origins (EHRs) that may show the pages inside their own window.",
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object per line, or readable."
    )

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

    @field_validator("cors_origins", "frame_ancestors")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in split(value):
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or any(c in rest for c in "/?#@ *"):
                raise ValueError("an origin looks like https://ehr.hospital.example, without path or '*'")
        return value

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

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
