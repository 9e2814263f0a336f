"""Alembic history, one for SQLite and PostgreSQL."""
