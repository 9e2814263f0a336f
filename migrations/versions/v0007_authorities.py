"""Whose id an id is: events tell a pseudonym's parts apart, and an erasure of everybody with an id holds.

A pseudonym is of an id and, after a dot, of the system that gave it.  Searches by an id alone look for the
first part, so that one index serves both.  What was recorded before has no second part.

An order to destroy for ``p1-….*`` stands against keys of that id from every system, also of one whose first
call still waits in a spool when the order is given.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COLUMNS = ("user_authority", "patient_authority")


def upgrade() -> None:
    """Adds the columns and widens the guard of keys."""
    for column in _COLUMNS:
        op.add_column("events", sa.Column(column, sa.Text()))
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql("d.subject IN (NEW.subject, split_part(NEW.subject, '.', 1) || '.*')")
    else:
        _guard_sqlite(
            "d.subject IN (NEW.subject, substr(NEW.subject, 1, instr(NEW.subject || '.', '.') - 1) || '.*')"
        )


def downgrade() -> None:
    """Drops the columns; refused once they are used.

    Software of before would not find what is kept of a system's patient: no hold would hold it, and no
    erasure would reach it.
    """
    used = "SELECT 1 FROM events WHERE patient_authority IS NOT NULL OR user_authority IS NOT NULL LIMIT 1"
    if op.get_bind().execute(sa.text(used)).first() is not None:
        raise RuntimeError(
            "revision 0007 cannot be taken back: pseudonyms of systems are stored, which software of before "
            "neither finds nor erases; restore the backup of before the upgrade instead"
        )
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql("d.subject = NEW.subject")
    else:
        _guard_sqlite("d.subject = NEW.subject")
    for column in _COLUMNS:
        op.drop_column("events", column)


def _guard_sqlite(ordered: str) -> None:
    op.execute("DROP TRIGGER patient_keys_not_destroyed")
    op.execute(
        "CREATE TRIGGER patient_keys_not_destroyed BEFORE INSERT ON patient_keys WHEN EXISTS "  # noqa: S608 constants below
        f"(SELECT 1 FROM destructions d WHERE {ordered} AND d.up_to >= NEW.created) "
        "BEGIN SELECT RAISE(IGNORE); END"
    )


def _guard_postgresql(ordered: str) -> None:
    # OR REPLACE keeps neither settings nor more: the search path of revision 0006 is given again.
    op.execute(
        "CREATE OR REPLACE FUNCTION cds_key_not_destroyed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "  # noqa: S608
        f"IF EXISTS (SELECT 1 FROM destructions d WHERE {ordered} AND d.up_to >= NEW.created) "
        "THEN RETURN NULL; END IF; RETURN NEW; END $$"
    )
    op.execute(
        "DO $$ BEGIN EXECUTE format('ALTER FUNCTION cds_key_not_destroyed() SET search_path = %I, pg_temp', "
        "current_schema()); END $$"
    )
