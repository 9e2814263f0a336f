"""Running a command on stored data, and telling a person in one line why it cannot be done."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError

from cds_server.audit import AuditUnavailable
from cds_server.cli_settings import read_settings
from cds_server.db.faults import reason
from cds_server.db.urls import DatabaseUrlInvalid
from cds_server.deployment.source import ModelRefused
from cds_server.monitoring.logging import configure_logging
from cds_server.privacy import DecryptionFailed, KeyMaterialInvalid
from cds_server.settings import Settings

_T = TypeVar("_T")


class NotDone(Exception):
    """A command that is not carried out; the text says why and what to do."""


def run(command: Callable[[Settings], Awaitable[_T]]) -> _T:
    """Run a command with the settings of this process; a foreseeable failure becomes one line and code 2."""
    configure_logging("error", "console")
    settings = read_settings()

    async def inside() -> _T:
        return await command(settings)

    try:
        return asyncio.run(inside())
    except NotDone as fault:
        fail(str(fault))
    except AuditUnavailable:
        fail("Nothing was done: it could not be recorded in the audit trail.")
    except ModelRefused as refused:
        fail(f"The model bundle in the settings cannot be used: {refused.reason}.")
    except (KeyMaterialInvalid, DecryptionFailed, DatabaseUrlInvalid) as fault:
        fail(f"{type(fault).__name__}: {fault}")
    except SQLAlchemyError as fault:
        fail(f"The database refuses or does not answer ({reason(fault)}); `cds-server db version`?")
    except OSError as fault:
        fail(f"It cannot be read or written: {reason(fault)}.")


def fail(message: str) -> NoReturn:
    """Say why on standard error and end with code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(2)
