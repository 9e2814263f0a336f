"""Why the database cannot be used, in words for whoever runs a command."""

import ssl

from sqlalchemy.exc import DBAPIError


def reason(fault: Exception) -> str:
    """One line about a fault of connecting or of a statement.

    Of a statement only the kind of fault is told, for its text may quote what was asked; of a connection
    what the server says (which has no password in it).
    """
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"the database's certificate does not hold: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):
        return f"TLS with the database fails: {fault.reason}"
    if type(fault) is ConnectionError and "SSL" in str(fault):  # asyncpg's, without an errno
        return "the database refuses TLS, which CDS_DATABASE_TLS demands"
    if isinstance(fault, DBAPIError) and fault.orig is not None:
        said = str(fault.orig).splitlines() if fault.statement is None else []
        return said[0] if said else type(fault.orig).__name__
    return getattr(fault, "strerror", None) or type(fault).__name__
