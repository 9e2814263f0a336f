"""What answers are made from: model bundles, and what is fetched from FHIR servers."""

from pathlib import Path

from pydantic import BaseModel, Field, field_validator

from fhir_adapters.origin import AllowList, ServerNotAllowed


class KnowledgeSettings(BaseModel):
    """The model bundle and the FHIR servers."""

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

    @field_validator("fhir_server_allowlist")
    @classmethod
    def _prefixes(cls, value: str) -> str:
        try:
            AllowList.parse(value)
        except ServerNotAllowed as fault:
            raise ValueError(str(fault)) from None
        return value
