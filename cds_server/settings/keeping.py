"""What is kept, for how long, and under which keys: decisions, the audit trail, aggregates."""

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr


class KeepingSettings(BaseModel):
    """Keys, kept decisions, audit checkpoints, the privacy budget."""

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
