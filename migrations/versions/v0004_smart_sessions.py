"""SMART launches under way and sessions of people; unlike the audit tables, their rows come and go."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_SEALED = "AES-GCM under the site key"


def upgrade() -> None:
    """Creates the tables and the indexes by which what has expired is found."""
    op.create_table(
        "smart_launches",
        sa.Column("state_digest", sa.Text(), primary_key=True),
        sa.Column("browser_digest", sa.Text(), nullable=False),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False, comment=_SEALED),
    )
    op.create_index("ix_smart_launches_expires", "smart_launches", ["expires"])
    op.create_table(
        "smart_sessions",
        sa.Column("session_digest", sa.Text(), primary_key=True),
        sa.Column("expires", _TIME, nullable=False),
        sa.Column("seen", _TIME, nullable=False),
        sa.Column("refreshing", _TIME),
        sa.Column("sealed", sa.Text(), nullable=False, comment=_SEALED),
    )
    op.create_index("ix_smart_sessions_expires", "smart_sessions", ["expires"])


def downgrade() -> None:
    """Drops both: whoever is logged in must log in again."""
    op.drop_table("smart_sessions")
    op.drop_table("smart_launches")
