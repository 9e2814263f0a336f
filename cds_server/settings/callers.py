"""Who may call: EHRs, people, apps, addresses; and how often."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cds_server.auth.addresses import parse_networks
from cds_server.auth.outbound import AddressRefused, check_address, on_this_machine
from cds_server.auth.signed_tokens import ALGORITHMS
from cds_server.settings.parts import split
from cds_server.settings.serving import ServingSettings


class CallersSettings(ServingSettings):
    """Callers' authentication, rates and networks; the identity provider and the launches of EHRs."""

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
    allow_unauthenticated: bool = Field(
        default=False,
        description=(
            "Listen on a non-loopback address although callers are not authenticated. Only behind something "
            "that authenticates them (mutual TLS, a private network)."
        ),
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
