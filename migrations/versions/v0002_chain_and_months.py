"""Every record in one table, chained and signed; on PostgreSQL that table is partitioned by month."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = (
    "seq, event_id, filed, recorded, action, service, hook_instance, client, user_pseudonym, "
    "patient_pseudonym, entity, severity, escalation, status, payload"
)
_OLD = (
    "event_id, recorded, action, service, hook_instance, client, user_pseudonym, patient_pseudonym, "
    "severity, escalation, status, payload"
)
_INDEXES = (
    ("ix_events_recorded", "recorded, event_id", ""),
    ("ix_events_patient", "patient_pseudonym, recorded", ""),
    ("ix_events_user", "user_pseudonym, recorded", ""),
    ("ix_events_client", "client, recorded", ""),
    ("ix_events_action", "action, recorded", ""),
    ("ix_events_trace", "hook_instance", ""),
    ("ix_events_entity", "entity", " WHERE entity IS NOT NULL"),
    ("ix_events_failed", "recorded", " WHERE status >= 400"),
    ("ix_events_strand", "strand, place", ""),
)
_EPOCH = "1970-01-01 00:00:00.000000"


def upgrade() -> None:
    """Rebuilds `events`: new columns, all records in it, months on PostgreSQL; adds the checkpoints."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    # Its triggers go with the old table, its indexes make room for their successors' names.
    op.execute("ALTER TABLE events RENAME TO events_0001")
    for index in ("ix_events_recorded", "ix_events_patient"):
        op.execute(f"DROP INDEX {index}")
    if sqlite:
        _events_sqlite()
    else:
        _events_postgresql()
    op.execute("DROP TABLE events_0001")
    for name, columns, where in _INDEXES:
        op.execute(f"CREATE INDEX {name} ON events ({columns}){where}")
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("made", sa.DateTime(timezone=True), nullable=False),
        sa.Column("through_seq", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False, comment="Ed25519 over the body, base64"),
    )
    if sqlite:
        _refuse_changes_sqlite("events", "event_id = NEW.event_id OR seq = NEW.seq")
        _refuse_changes_sqlite("audit_checkpoints", "number = NEW.number")
    else:
        for table in ("events", "audit_checkpoints"):
            _refuse_changes_postgresql(table)


def downgrade() -> None:
    """Back to 0001: decisions keep their rows; the chain, the checkpoints and every other event go."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.drop_table("audit_checkpoints")
    op.execute("ALTER TABLE events RENAME TO events_0002")
    for name, _, _ in _INDEXES:
        op.execute(f"DROP INDEX {name}")
    if not sqlite:
        op.execute("ALTER TABLE events_0002 DROP CONSTRAINT uq_events_event_id")
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "events",
        sa.Column("seq", number, sa.Identity(always=False), primary_key=True),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("recorded", sa.DateTime(timezone=True), nullable=False),
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
    decision = (
        "json_extract(payload, '$.kind') = 'decision'" if sqlite else "payload::json->>'kind' = 'decision'"
    )
    op.execute(
        f"INSERT INTO events (seq, {_OLD}) SELECT seq, {_OLD} FROM events_0002 WHERE {decision} ORDER BY seq"  # noqa: S608
    )
    op.execute("DROP TABLE events_0002")
    op.create_index("ix_events_recorded", "events", ["recorded"])
    op.create_index("ix_events_patient", "events", ["patient_pseudonym", "recorded"])
    if sqlite:
        _refuse_changes_sqlite("events", "event_id = NEW.event_id OR seq = NEW.seq")
    else:
        _next_seq_postgresql()
        for function in ("cds_add_event_month(date)", "cds_filed(text, timestamptz)"):
            op.execute(f"DROP FUNCTION {function}")
        _refuse_changes_postgresql("events")


def _events_sqlite() -> None:
    op.execute(
        "CREATE TABLE events (seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, "
        "filed DATETIME NOT NULL, recorded DATETIME NOT NULL, action TEXT NOT NULL, service TEXT NOT NULL, "
        "hook_instance TEXT, client TEXT, user_pseudonym TEXT, patient_pseudonym TEXT, entity TEXT, "
        "severity TEXT, escalation TEXT, status INTEGER NOT NULL, strand BIGINT, place BIGINT, link BLOB, "
        "payload TEXT NOT NULL, CONSTRAINT uq_events_event_id UNIQUE (event_id, filed))"
    )
    # Nothing is partitioned here: what came before the chain is unfiled, and the trigger below, not the
    # constraint, keeps a record that is replayed from being stored twice.
    op.execute(
        f"INSERT INTO events ({_COLUMNS}) SELECT seq, event_id, '{_EPOCH}', recorded, action, service, "  # noqa: S608
        "hook_instance, client, user_pseudonym, patient_pseudonym, NULL, severity, escalation, status, "
        "payload FROM events_0001 ORDER BY seq"
    )
    op.execute(
        f"INSERT INTO events ({_OLD}, filed, entity) SELECT feedback_id, recorded, 'feedback', service, "  # noqa: S608
        f"NULL, client, NULL, NULL, NULL, NULL, 200, payload, '{_EPOCH}', 'urn:uuid:' || card "
        "FROM feedback ORDER BY seq"
    )


def _events_postgresql() -> None:
    op.execute("ALTER TABLE events_0001 DROP CONSTRAINT uq_events_event_id")
    op.execute("ALTER TABLE events_0001 RENAME CONSTRAINT events_pkey TO events_0001_pkey")
    op.execute("ALTER SEQUENCE events_seq_seq RENAME TO events_0001_seq_seq")
    # Not an identity column: before PostgreSQL 17 a partitioned table has none.
    op.execute("CREATE SEQUENCE events_seq_seq AS bigint")
    op.execute(
        "CREATE TABLE events (seq bigint NOT NULL DEFAULT nextval('events_seq_seq'), "
        "event_id text NOT NULL, filed timestamptz NOT NULL, recorded timestamptz NOT NULL, "
        "action text NOT NULL, service text NOT NULL, hook_instance text, client text, "
        "user_pseudonym text, patient_pseudonym text, entity text, severity text, escalation text, "
        "status integer NOT NULL, strand bigint, place bigint, link bytea, payload text NOT NULL, "
        # A unique constraint must hold the partition key; `filed` follows from the id, so it says the same.
        "CONSTRAINT events_pkey PRIMARY KEY (seq, filed), "
        "CONSTRAINT uq_events_event_id UNIQUE (event_id, filed)) PARTITION BY RANGE (filed)"
    )
    op.execute("ALTER SEQUENCE events_seq_seq OWNED BY events.seq")
    # A row always has a place: whatever no month is there for goes into the default partition.
    op.execute("CREATE TABLE events_unfiled PARTITION OF events DEFAULT")
    _functions_postgresql()
    op.execute(
        "SELECT cds_add_event_month(month) FROM (SELECT DISTINCT date_trunc('month', "
        "cds_filed(id, recorded) AT TIME ZONE 'UTC')::date AS month FROM (SELECT event_id AS id, recorded "
        "FROM events_0001 UNION ALL SELECT feedback_id, recorded FROM feedback) AS every) AS months "
        "WHERE month > '1970-01-31'"
    )
    op.execute(
        "SELECT cds_add_event_month((date_trunc('month', now() AT TIME ZONE 'UTC') "
        "+ n * interval '1 month')::date) FROM generate_series(0, 3) AS n"
    )
    op.execute(
        f"INSERT INTO events ({_COLUMNS}) SELECT seq, event_id, cds_filed(event_id, recorded), recorded, "  # noqa: S608
        "action, service, hook_instance, client, user_pseudonym, patient_pseudonym, NULL, severity, "
        "escalation, status, payload FROM events_0001 ORDER BY seq"
    )
    _next_seq_postgresql()
    op.execute(
        f"INSERT INTO events ({_OLD}, filed, entity) SELECT feedback_id, recorded, 'feedback', service, "  # noqa: S608
        "NULL, client, NULL, NULL, NULL, NULL, 200, payload, cds_filed(feedback_id, recorded), "
        "'urn:uuid:' || card FROM feedback ORDER BY seq"
    )


def _next_seq_postgresql() -> None:
    op.execute(
        "SELECT setval(pg_get_serial_sequence('events', 'seq'), "
        "coalesce((SELECT max(seq) FROM events), 0) + 1, false)"
    )


def _functions_postgresql() -> None:
    # The same as cds_server.db.writer.filed, for rows that are there already.
    op.execute(
        "CREATE FUNCTION cds_filed(id text, recorded timestamptz) RETURNS timestamptz "
        "LANGUAGE sql IMMUTABLE AS $$ "
        "SELECT CASE WHEN made BETWEEN recorded - interval '24 hours' AND recorded + interval '24 hours' "
        "THEN made ELSE 'epoch'::timestamptz END FROM (SELECT CASE WHEN id ~ "
        "'^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7.{21}$' THEN 'epoch'::timestamptz + interval '1 millisecond' * "
        "('x0000' || left(id, 8) || substr(id, 10, 4))::bit(64)::bigint END AS made) AS read $$"
    )
    # SECURITY DEFINER: the server's own role may add a month without being allowed to create tables.
    op.execute(
        "CREATE FUNCTION cds_add_event_month(month date) RETURNS text LANGUAGE plpgsql SECURITY DEFINER "
        "SET search_path FROM CURRENT AS $$ "
        "DECLARE first date := date_trunc('month', month)::date; "
        "name text := 'events_' || to_char(first, 'YYYY_MM'); "
        "low timestamptz := first::timestamp AT TIME ZONE 'UTC'; "
        "high timestamptz := (first + interval '1 month') AT TIME ZONE 'UTC'; "
        "BEGIN "
        "PERFORM pg_advisory_xact_lock(hashtextextended('cds_add_event_month', 0)); "
        "IF to_regclass(name) IS NOT NULL THEN RETURN 'present'; END IF; "
        # The month began before it had a partition: its rows are in the default one and may not move.
        "IF EXISTS (SELECT 1 FROM events_unfiled WHERE filed >= low AND filed < high) "
        "THEN RETURN 'unfiled'; END IF; "
        "EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', "
        "name, low, high); "
        "EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I "
        "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()', name || '_append_only', name); "
        "RETURN 'added'; END $$"
    )
    _refuse_changes_postgresql("events_unfiled")


def _refuse_changes_postgresql(table: str) -> None:
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION cds_refuse_change()"
    )


def _refuse_changes_sqlite(table: str, known: str) -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
    # INSERT OR REPLACE deletes without firing delete triggers: a known row is passed over before that.
    op.execute(
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {known}) BEGIN SELECT RAISE(IGNORE); END"
    )
