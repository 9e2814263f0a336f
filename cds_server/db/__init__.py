"""Persistence: schema, engines, migrations and the batch writers.  No SQLAlchemy import at package level.

The worker's hot path (the audit writer) talks to the drivers directly; SQLAlchemy serves queries and
migrations, Alembic only `cds_server.db.migrate.upgrade` and `downgrade`.
"""

HEAD = "0007"
"""The schema revision this code writes to; a test holds it equal to the head of `migrations/`."""
