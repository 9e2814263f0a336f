"""Tokens of CDS clients that were used already; a row is needed until its token has expired."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table; unlike the audit tables its rows are deleted."""
    op.create_table(
        "used_tokens",
        sa.Column("digest", sa.Text(), primary_key=True, comment="SHA-256 of issuer and jti"),
        sa.Column("expires", sa.BigInteger(), nullable=False, comment="seconds since 1970"),
    )
    op.create_index("ix_used_tokens_expires", "used_tokens", ["expires"])


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("used_tokens")
