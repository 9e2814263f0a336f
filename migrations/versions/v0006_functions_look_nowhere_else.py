"""PostgreSQL: the guards' functions name the schema they look in, so that nobody can put a table before it.

A function without a search path of its own finds tables by its caller's, and temporary tables before all
others: whoever may delete from `patient_keys` could have answered the guard's question for an order with a
temporary table `destructions`.  SQLite has neither.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_FUNCTIONS = (
    "cds_refuse_change()",
    "cds_ordered_only()",
    "cds_rewrap_only()",
    "cds_key_not_destroyed()",
    "cds_filed(text, timestamptz)",
    "cds_add_event_month(date)",
)


def upgrade() -> None:
    """Fixes the search path: this schema, temporary tables last."""
    if op.get_bind().dialect.name != "postgresql":
        return
    # As revision 0002 made it, but for the name of the month, which says where to look.
    op.execute(
        "CREATE OR REPLACE FUNCTION cds_add_event_month(month date) RETURNS text LANGUAGE plpgsql "
        "SECURITY DEFINER AS $$ "
        "DECLARE first date := date_trunc('month', month)::date; "
        "name text := 'events_' || to_char(first, 'YYYY_MM'); "
        "low timestamptz := first::timestamp AT TIME ZONE 'UTC'; "
        "high timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC'; "
        "BEGIN "
        "PERFORM pg_advisory_xact_lock(hashtextextended('cds_add_event_month', 0)); "
        "IF to_regclass(format('%I.%I', current_schema(), name)) IS NOT NULL THEN RETURN 'present'; END IF; "
        "IF EXISTS (SELECT 1 FROM events_unfiled WHERE filed >= low AND filed < high) "
        "THEN RETURN 'unfiled'; END IF; "
        "EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', "
        "name, low, high); "
        "EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I.%I "
        "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()', "
        "name || '_append_only', current_schema(), name); "
        "RETURN 'added'; END $$"
    )
    for function in _FUNCTIONS:
        op.execute(
            f"DO $$ BEGIN EXECUTE format('ALTER FUNCTION {function} SET search_path = %I, pg_temp', "
            "current_schema()); END $$"
        )


def downgrade() -> None:
    """As revisions 0002 and 0005 made them, but that a month keeps its qualified name."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for function in _FUNCTIONS[:-1]:
        op.execute(f"ALTER FUNCTION {function} RESET search_path")
    op.execute("ALTER FUNCTION cds_add_event_month(date) SET search_path FROM CURRENT")
