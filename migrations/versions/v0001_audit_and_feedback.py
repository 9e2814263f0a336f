"""Audit events, the cards that were shown, feedback on them; rows can only be added."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)
_APPEND_ONLY = ("events", "shown_cards", "feedback", "feedback_suggestions")


def upgrade() -> None:
    """Creates the tables, their indexes and the triggers that keep them append-only."""
    op.create_table(
        "events",
        sa.Column("seq", _SEQ, sa.Identity(always=False), primary_key=True),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("recorded", _TIME, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("hook_instance", sa.Text()),
        sa.Column("client", sa.Text()),
        sa.Column("user_pseudonym", sa.Text()),
        sa.Column("patient_pseudonym", sa.Text()),
        sa.Column("severity", sa.Text()),
        sa.Column("escalation", sa.Text()),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.UniqueConstraint("event_id", name="uq_events_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_recorded", "events", ["recorded"])
    op.create_index("ix_events_patient", "events", ["patient_pseudonym", "recorded"])
    op.create_table(
        "shown_cards",
        sa.Column("event_id", sa.Text(), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("indicator", sa.Text(), nullable=False),
        sa.Column("suggestions", sa.Text(), nullable=False, comment="JSON array of the suggestions' uuids"),
    )
    op.create_index("ix_shown_cards_uuid", "shown_cards", ["uuid"])
    op.create_table(
        "feedback",
        sa.Column("seq", _SEQ, sa.Identity(always=False), primary_key=True),
        sa.Column("feedback_id", sa.Text(), nullable=False),
        sa.Column("recorded", _TIME, nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("client", sa.Text()),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("outcome_timestamp", _TIME),
        sa.Column("reason_code", sa.Text()),
        sa.Column("reason_system", sa.Text()),
        sa.Column("reason_display", sa.Text()),
        sa.Column("comment", sa.Text(), comment="AES-GCM under the site key"),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.UniqueConstraint("feedback_id", name="uq_feedback_feedback_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_feedback_card", "feedback", ["card"])
    op.create_index("ix_feedback_recorded", "feedback", ["recorded"])
    op.create_table(
        "feedback_suggestions",
        sa.Column("feedback_id", sa.Text(), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("suggestion", sa.Text(), nullable=False),
    )
    op.create_index("ix_feedback_suggestions_suggestion", "feedback_suggestions", ["suggestion"])
    if op.get_bind().dialect.name == "sqlite":
        _refuse_changes_sqlite()
    else:
        _refuse_changes_postgresql()


def downgrade() -> None:
    """Drops everything, rows included."""
    for table in reversed(_APPEND_ONLY):
        op.drop_table(table)  # its triggers go with it
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION cds_refuse_change()")


def _refuse_changes_sqlite() -> None:
    for table in _APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
    # INSERT OR REPLACE deletes without firing delete triggers: a known row is passed over before that.
    for table, known in (
        ("events", "SELECT 1 FROM events WHERE event_id = NEW.event_id OR seq = NEW.seq"),
        ("feedback", "SELECT 1 FROM feedback WHERE feedback_id = NEW.feedback_id OR seq = NEW.seq"),
        (
            "shown_cards",
            "SELECT 1 FROM shown_cards WHERE event_id = NEW.event_id AND position = NEW.position",
        ),
        (
            "feedback_suggestions",
            "SELECT 1 FROM feedback_suggestions "
            "WHERE feedback_id = NEW.feedback_id AND position = NEW.position",
        ),
    ):
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS ({known}) BEGIN SELECT RAISE(IGNORE); END"
        )


def _refuse_changes_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION cds_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege'; END $$"
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()"
        )
