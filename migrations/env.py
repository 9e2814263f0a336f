"""Alembic's entry: runs the history on the connection of `cds_server.db.migrate`, in its transaction."""

from alembic import context

from cds_server.db.models_decisions import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run migrations with `cds-server db upgrade` (cds_server.db.migrate)")

context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
