"""The systems whose ids are in the trail, so that a search by a bare id can look under each of them.

Append-only like the trail itself: without its row here, what is recorded of a system's patients would no
longer be found by their ids, nor exported, nor erased.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLE = "assigning_authorities"


def upgrade() -> None:
    """Creates the table and its triggers."""
    op.create_table(
        _TABLE,
        sa.Column("authority", sa.Text(), primary_key=True),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sealed_name", sa.Text(), nullable=False, comment="AES-GCM under the site key"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {_TABLE}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {_TABLE} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {_TABLE}_no_{change.lower()} BEFORE {change} ON {_TABLE} "
            f"BEGIN SELECT RAISE(ABORT, '{_TABLE} is append-only'); END"
        )
    # INSERT OR REPLACE deletes without firing delete triggers: a known row is passed over before that.
    op.execute(
        f"CREATE TRIGGER {_TABLE}_no_replace BEFORE INSERT ON {_TABLE} "  # noqa: S608 a constant
        f"WHEN EXISTS (SELECT 1 FROM {_TABLE} WHERE authority = NEW.authority) "
        "BEGIN SELECT RAISE(IGNORE); END"
    )


def downgrade() -> None:
    """Drops the table, rows included."""
    op.drop_table(_TABLE)
