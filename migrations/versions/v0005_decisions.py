"""Kept decisions and the patients' data keys, what orders their destruction, legal holds, noisy answers.

`stored_decisions` and `patient_keys` are the two tables whose rows may go, and the database itself lets a
row go only when a row of `destructions`, which is append-only, orders it.  A key that comes late (from the
spool of a machine that was cut off) is not stored any more once its destruction is ordered.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)
_APPEND_ONLY = {
    "destructions": "destruction_id = NEW.destruction_id OR seq = NEW.seq",
    "legal_holds": "(hold_id = NEW.hold_id AND action = NEW.action) OR seq = NEW.seq",
    "noisy_answers": "answer_id = NEW.answer_id",
}
_SHREDDED = {
    "stored_decisions": ("event_id = NEW.event_id", "recorded"),
    "patient_keys": ("key_id = NEW.key_id", "created"),
}


def upgrade() -> None:
    """Creates the tables, their indexes and the triggers."""
    op.create_table(
        "patient_keys",
        sa.Column("key_id", sa.Text(), primary_key=True),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.Text(), nullable=False, comment="AES-GCM under the master key"),
        sa.Column("master", sa.Integer(), nullable=False),
    )
    op.create_index("ix_patient_keys_subject", "patient_keys", ["subject"])
    op.create_index("ix_patient_keys_created", "patient_keys", ["created"])
    op.create_index("ix_patient_keys_master", "patient_keys", ["master"])
    op.create_table(
        "stored_decisions",
        sa.Column("event_id", sa.Text(), primary_key=True),
        sa.Column("recorded", _TIME, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="AES-GCM under the data key"),
        sa.Column("plain_bytes", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_stored_decisions_recorded", "stored_decisions", ["recorded"])
    op.create_index("ix_stored_decisions_subject", "stored_decisions", ["subject"])
    op.create_index("ix_stored_decisions_key", "stored_decisions", ["key_id"])
    op.create_table(
        "destructions",
        sa.Column("seq", _SEQ, sa.Identity(always=False), primary_key=True),
        sa.Column("destruction_id", sa.Text(), nullable=False),
        sa.Column("recorded", _TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), comment="null: everybody's, of that age"),
        sa.Column("up_to", _TIME, nullable=False),
        sa.UniqueConstraint("destruction_id", name="uq_destructions_destruction_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_destructions_subject", "destructions", ["subject", "up_to"])
    op.create_table(
        "legal_holds",
        sa.Column("seq", _SEQ, sa.Identity(always=False), primary_key=True),
        sa.Column("hold_id", sa.Text(), nullable=False),
        sa.Column("recorded", _TIME, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False, comment="AES-GCM under the site key"),
        sa.UniqueConstraint("hold_id", "action", name="uq_legal_holds_hold_id_action"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "noisy_answers",
        sa.Column("answer_id", sa.Text(), primary_key=True),
        sa.Column("recorded", _TIME, nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("first_month", sa.Text(), nullable=False),
        sa.Column("last_month", sa.Text(), nullable=False),
        sa.Column("epsilon", sa.Float(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
    )
    op.create_index("ix_noisy_answers_months", "noisy_answers", ["first_month", "last_month"])
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def downgrade() -> None:
    """Drops the tables, rows included."""
    for table in ("noisy_answers", "legal_holds", "destructions", "stored_decisions", "patient_keys"):
        op.drop_table(table)  # its triggers go with it
    if op.get_bind().dialect.name == "postgresql":
        for function in ("cds_ordered_only()", "cds_key_not_destroyed()", "cds_rewrap_only()"):
            op.execute(f"DROP FUNCTION {function}")


def _ordered(row: str, time: str) -> str:
    return (
        "EXISTS (SELECT 1 FROM destructions d "  # noqa: S608 built from constants only
        f"WHERE d.subject = {row}.subject AND d.up_to >= {row}.{time}) "
        f"OR EXISTS (SELECT 1 FROM destructions d WHERE d.subject IS NULL AND d.up_to >= {row}.{time})"
    )


def _guard_sqlite() -> None:
    for table in _APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
    # INSERT OR REPLACE deletes without firing delete triggers: a known row is passed over before that.
    for table, known in (*_APPEND_ONLY.items(), *((t, k) for t, (k, _) in _SHREDDED.items())):
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608 constants above
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {known}) BEGIN SELECT RAISE(IGNORE); END"
        )
    for table, (_, time) in _SHREDDED.items():
        op.execute(
            f"CREATE TRIGGER {table}_ordered_only BEFORE DELETE ON {table} "
            f"WHEN NOT ({_ordered('OLD', time)}) "
            f"BEGIN SELECT RAISE(ABORT, '{table}: no destruction is ordered for this row'); END"
        )
    op.execute(
        "CREATE TRIGGER stored_decisions_no_update BEFORE UPDATE ON stored_decisions "
        "BEGIN SELECT RAISE(ABORT, 'stored_decisions are never changed'); END"
    )
    op.execute(
        "CREATE TRIGGER patient_keys_rewrap_only BEFORE UPDATE ON patient_keys "
        "WHEN NEW.key_id <> OLD.key_id OR NEW.subject <> OLD.subject OR NEW.created <> OLD.created "
        "BEGIN SELECT RAISE(ABORT, 'patient_keys are only ever wrapped anew'); END"
    )
    op.execute(
        "CREATE TRIGGER patient_keys_not_destroyed BEFORE INSERT ON patient_keys WHEN EXISTS "
        "(SELECT 1 FROM destructions d WHERE d.subject = NEW.subject AND d.up_to >= NEW.created) "
        "BEGIN SELECT RAISE(IGNORE); END"
    )


def _guard_postgresql() -> None:
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()"
        )
    op.execute(
        "CREATE FUNCTION cds_ordered_only() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE made timestamptz; "
        "BEGIN made := CASE TG_TABLE_NAME WHEN 'patient_keys' THEN (to_jsonb(OLD)->>'created')::timestamptz "
        "ELSE (to_jsonb(OLD)->>'recorded')::timestamptz END; "
        "IF NOT EXISTS (SELECT 1 FROM destructions d WHERE d.subject = OLD.subject AND d.up_to >= made) "
        "AND NOT EXISTS (SELECT 1 FROM destructions d WHERE d.subject IS NULL AND d.up_to >= made) THEN "
        "RAISE EXCEPTION '%: no destruction is ordered for this row', TG_TABLE_NAME "
        "USING ERRCODE = 'insufficient_privilege'; END IF; RETURN OLD; END $$"
    )
    op.execute(
        "CREATE FUNCTION cds_rewrap_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.key_id <> OLD.key_id OR NEW.subject <> OLD.subject OR NEW.created <> OLD.created THEN "
        "RAISE EXCEPTION 'patient_keys are only ever wrapped anew' "
        "USING ERRCODE = 'insufficient_privilege'; END IF; RETURN NEW; END $$"
    )
    op.execute(
        "CREATE FUNCTION cds_key_not_destroyed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT 1 FROM destructions d WHERE d.subject = NEW.subject AND d.up_to >= NEW.created) "
        "THEN RETURN NULL; END IF; RETURN NEW; END $$"
    )
    for table in _SHREDDED:
        op.execute(
            f"CREATE TRIGGER {table}_ordered_only BEFORE DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION cds_ordered_only()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()"
        )
    op.execute(
        "CREATE TRIGGER stored_decisions_no_update BEFORE UPDATE ON stored_decisions "
        "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER patient_keys_rewrap_only BEFORE UPDATE ON patient_keys "
        "FOR EACH ROW EXECUTE FUNCTION cds_rewrap_only()"
    )
    op.execute(
        "CREATE TRIGGER patient_keys_not_destroyed BEFORE INSERT ON patient_keys "
        "FOR EACH ROW EXECUTE FUNCTION cds_key_not_destroyed()"
    )
