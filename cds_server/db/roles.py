"""The three roles on PostgreSQL and what each may do, as statements.

- the *owner* migrates; tables and functions belong to it;
- the *application* is the server and its commands: reads and adds, changes and deletes only where rows are
  made to come and go, creates nothing (months come from a function that runs with the owner's rights);
- the *auditor* reads the audit trail, for tools beside this product.

The statements suppose that the roles exist (how they log in is the site's business), change nothing else in
the database, and may be run again after every migration.  They are run by a superuser, or by the owner where
everything belongs to it already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

APPLICATION = {
    "alembic_version": "SELECT",
    "events": "SELECT, INSERT",
    "shown_cards": "SELECT, INSERT",
    "feedback": "SELECT, INSERT",
    "feedback_suggestions": "SELECT, INSERT",
    "assigning_authorities": "SELECT, INSERT",
    "audit_checkpoints": "SELECT, INSERT",
    "destructions": "SELECT, INSERT",
    "legal_holds": "SELECT, INSERT",
    "noisy_answers": "SELECT, INSERT",
    # Their rows go when a destruction is ordered (a trigger asks for the order); keys are wrapped anew.
    "patient_keys": "SELECT, INSERT, DELETE, UPDATE (wrapped, master)",
    "stored_decisions": "SELECT, INSERT, DELETE",
    "used_tokens": "SELECT, INSERT, DELETE",
    "smart_launches": "SELECT, INSERT, DELETE",
    "smart_sessions": "SELECT, INSERT, UPDATE, DELETE",
}
"""What the server may do with each table: every table of the schema is here (a test sees to it)."""

AUDITOR = (
    "events",
    "shown_cards",
    "feedback",
    "feedback_suggestions",
    "assigning_authorities",
    "audit_checkpoints",
)
"""What the auditor may read."""

_SEQUENCE = "events_seq_seq"
_ADD_MONTH = "cds_add_event_month(date)"
_MOST_BYTES = 63  # of a name in PostgreSQL; longer ones it cuts in silence


class RoleNameInvalid(ValueError):
    """Not the name of a role, or one role for two purposes."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the three roles.

    Raises:
        RoleNameInvalid: a name PostgreSQL would not take as it is, or one used twice.
    """

    owner: str
    application: str
    auditor: str

    def __post_init__(self) -> None:
        for name in (self.owner, self.application, self.auditor):
            identifier(name)
            if name.lower() in ("public", "none") or name.startswith("pg_"):
                raise RoleNameInvalid(f"{name} is a name PostgreSQL keeps for itself")
        if len({self.owner, self.application, self.auditor}) < 3:
            raise RoleNameInvalid("owner, application and auditor must be three roles: that is their purpose")


def identifier(name: str) -> str:
    """A name, quoted: the same name again whatever is in it, for psql as for the server.

    Raises:
        RoleNameInvalid: empty, longer than 63 bytes, or with control characters.
    """
    if not name or len(name.encode("utf-8", "replace")) > _MOST_BYTES or not name.isprintable():
        raise RoleNameInvalid("a role's name has 1 to 63 bytes and no control characters")
    return '"' + name.replace('"', '""') + '"'


def statements(roles: Roles, *, schema: str = "public") -> list[str]:
    """The statements, in their order; `schema` is where the tables are."""
    owner, application, auditor = (identifier(n) for n in (roles.owner, roles.application, roles.auditor))
    home = identifier(schema)
    three = f"{owner}, {application}, {auditor}"
    found = [
        _block(
            "EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); "
            "EXECUTE format('GRANT CONNECT ON DATABASE %I TO ', current_database()) || "
            f"{_literal(three)};"
        ),
        f"REVOKE ALL ON SCHEMA {home} FROM PUBLIC, {application}, {auditor};",
        f"GRANT USAGE, CREATE ON SCHEMA {home} TO {owner};",
        f"GRANT USAGE ON SCHEMA {home} TO {application}, {auditor};",
        _owned(roles.owner, schema),
    ]
    for table, rights in APPLICATION.items():
        name = f"{home}.{identifier(table)}"
        found.append(f"REVOKE ALL ON TABLE {name} FROM PUBLIC, {application}, {auditor};")
        found.append(f"GRANT {rights} ON TABLE {name} TO {application};")
    found += [f"GRANT SELECT ON TABLE {home}.{identifier(table)} TO {auditor};" for table in AUDITOR]
    sequence, function = f"{home}.{identifier(_SEQUENCE)}", f"{home}.{_ADD_MONTH}"
    found += [
        f"REVOKE ALL ON SEQUENCE {sequence} FROM PUBLIC, {application}, {auditor};",
        f"GRANT USAGE ON SEQUENCE {sequence} TO {application};",
        f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC, {auditor};",
        f"GRANT EXECUTE ON FUNCTION {function} TO {application};",
        # So that an erasure can also take what is deleted out of the files; before 17 only the owner may.
        _block(
            "IF current_setting('server_version_num')::int >= 170000 THEN EXECUTE "
            + _literal(
                f"GRANT MAINTAIN ON TABLE {home}.patient_keys, {home}.stored_decisions TO {application}"
            )
            + "; END IF;"
        ),
    ]
    return found


async def apply(engine: AsyncEngine, wanted: Sequence[str]) -> None:
    """Runs the statements as one transaction.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the database refuses or is away; nothing is changed.
    """
    async with engine.begin() as connection:
        for statement in wanted:
            # A colon would be read as a parameter.
            await connection.execute(text(statement.replace(":", "\\:")))


def _owned(owner: str, schema: str) -> str:
    """Everything of ours, months included, belongs to the owner."""
    ours = ", ".join(_literal(table) for table in APPLICATION)
    home, role = _literal(identifier(schema)), _literal(identifier(owner))
    events = _literal(identifier(schema) + ".events")
    return _block(
        "DECLARE one record; BEGIN "  # noqa: S608 every value is a literal
        "FOR one IN SELECT c.oid::regclass AS name FROM pg_class c "
        f"WHERE c.relnamespace = {home}::regnamespace AND c.relkind IN ('r', 'p') AND (c.relname IN ({ours}) "
        f"OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = {events}::regclass)) "
        f"AND c.relowner <> {role}::regrole "
        f"LOOP EXECUTE format('ALTER TABLE %s OWNER TO %I', one.name, {_literal(owner)}); END LOOP; "
        "FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p "
        f"WHERE p.pronamespace = {home}::regnamespace AND p.proname ~ '^cds_' "
        f"AND p.proowner <> {role}::regrole "
        f"LOOP EXECUTE format('ALTER FUNCTION %s OWNER TO %I', one.name, {_literal(owner)}); END LOOP;",
        begin=False,
    )


def _literal(value: str) -> str:
    """A text as a literal of SQL (standard_conforming_strings: a backslash is a backslash)."""
    return "'" + value.replace("'", "''") + "'"


def _block(body: str, *, begin: bool = True) -> str:
    """An anonymous block; its dollar quotes are such as the body does not hold."""
    tag = "cds"
    while f"${tag}$" in body:
        tag += "_"
    return f"DO ${tag}$ {'BEGIN ' if begin else ''}{body} END ${tag}$;"
