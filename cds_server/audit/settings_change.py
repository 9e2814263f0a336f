"""Notices settings, and a model, that are not what they were at the last start, and says so in the trail.

What a setting was is kept in ``<var_dir>/audit/settings.json``: numbers and choices as they are, texts
(they may hold passwords and paths) as keyed digests, so that a change shows and the text does not.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal, get_origin

import msgspec
from pydantic import SecretStr

from cds_server.audit.events import Access, Entity, new_id
from cds_server.authorities import UNNAMED
from cds_server.privacy import Pseudonymiser
from cds_server.settings import Settings

FILE = "audit/settings.json"
CLIENTS_FILE = "audit/clients.json"
_MOST_NAMES = 50
_MODEL = "model"


def changes(
    settings: Settings, bundle: str | None, pseudonymiser: Pseudonymiser, now: datetime
) -> list[Access]:
    """One record for each setting that was changed since the last start on this directory, none at the first.

    `bundle` is the model bundle now in use; another one than at the last start is a promotion.  Of several
    processes that start at once, one gets them.

    Raises:
        OSError: the file cannot be read or written.
    """
    present = {
        f"CDS_{name.upper()}": _shown(
            getattr(settings, name), pseudonymiser, plain=get_origin(field.annotation) is Literal
        )
        for name, field in type(settings).model_fields.items()
    }
    present[_MODEL] = bundle or "none"
    with _alone(settings.var_dir / FILE) as file:
        before = _read(file.read())
        if before == present:
            return []
        _write(file, present)
    if before is None:
        return []
    return [
        promotion(before.get(name), value, now) if name == _MODEL else _changed(name, before, value, now)
        for name, value in present.items()
        if before.get(name) != value
    ]


class _Clients(msgspec.Struct, omit_defaults=True):
    """The clients last recorded, as digests by name, and the digest of the faults last recorded."""

    clients: dict[str, str] = {}
    refused: str | None = None


def client_changes(
    settings: Settings,
    described: Mapping[str, str],
    pseudonymiser: Pseudonymiser,
    now: datetime,
    *,
    current: Callable[[], bool] = lambda: True,
) -> list[Access]:
    """The record of a file of trusted clients that says something else than when it was last recorded.

    None at the first start on a directory.  Of several processes that notice, one gets it; one that has
    read a state of the file that is no longer `current` leaves it to those who read the newer one.

    Args:
        described: what the file says of each client, by name.

    Raises:
        OSError: the file in `settings.var_dir` cannot be read or written.
    """
    present = {name: _shown(text, pseudonymiser, plain=False) for name, text in sorted(described.items())}
    with _alone(settings.var_dir / CLIENTS_FILE) as file:
        data = file.read()
        before = _read_clients(data)
        if not current() or (data and before == _Clients(present)):
            return []
        _write(file, _Clients(present))
    if not data or before.clients == present:
        return []
    former = before.clients
    told = {
        "added": sorted(set(present) - set(former)),
        "removed": sorted(set(former) - set(present)),
        "changed": [name for name in present if name in former and former[name] != present[name]],
    }
    return [_of_clients(now, tuple((what, _names(names)) for what, names in told.items() if names))]


def clients_refused(
    settings: Settings, faults: list[str], pseudonymiser: Pseudonymiser, now: datetime
) -> list[Access]:
    """The record of a changed file of trusted clients that does not hold; of several processes, one gets it.

    Raises:
        OSError: the file in `settings.var_dir` cannot be read or written.
    """
    digest = _shown("\n".join(faults), pseudonymiser, plain=False)
    with _alone(settings.var_dir / CLIENTS_FILE) as file:
        before = _read_clients(file.read())
        if before.refused == digest:
            return []
        before.refused = digest
        _write(file, before)
    return [_of_clients(now, (("faults", str(len(faults))),), status=422, reason="clients-file-invalid")]


def promotion(before: str | None, bundle: str | None, now: datetime) -> Access:
    """The record of a model bundle taken in use."""
    return Access(
        event_id=new_id(),
        recorded=now,
        activity="model-promoted",
        service="deployment",
        entities=(
            Entity(f"urn:cds-server:model:{bundle or 'none'}", "Model", (("before", before or "none"),)),
        ),
    )


def refusal(fault: str, kept: str | None, now: datetime) -> Access:
    """The record of a model bundle that was not taken in use.

    Args:
        fault: the kind of fault, a word of ours.
        kept: the bundle that stays in use.
    """
    return Access(
        event_id=new_id(),
        recorded=now,
        activity="model-refused",
        service="deployment",
        status=422,
        reason=fault,
        entities=(Entity(f"urn:cds-server:model:{kept or 'none'}", "Model", (("kept", kept or "none"),)),),
    )


def _changed(name: str, before: dict[str, str], value: str, now: datetime) -> Access:
    values = (("before", before.get(name, "(not known)")), ("now", value))
    return Access(
        event_id=new_id(),
        recorded=now,
        activity="setting-changed",
        service="settings",
        entities=(Entity(f"urn:cds-server:setting:{name}", name, values),),
    )


def _of_clients(
    now: datetime, values: tuple[tuple[str, str], ...], *, status: int = 200, reason: str | None = None
) -> Access:
    return Access(
        event_id=new_id(),
        recorded=now,
        activity="setting-changed",
        service="settings",
        status=status,
        reason=reason,
        entities=(
            Entity("urn:cds-server:setting:CDS_TRUSTED_CLIENTS", "CDS_TRUSTED_CLIENTS, content", values),
        ),
    )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """A file for reading and writing, made when missing, held by this process alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _write(file: BinaryIO, value: object) -> None:
    file.seek(0)
    file.write(msgspec.json.encode(value))
    file.truncate()
    file.flush()
    os.fsync(file.fileno())


def _read_clients(data: bytes) -> _Clients:
    try:
        return msgspec.json.decode(data, type=_Clients) if data else _Clients()
    except msgspec.DecodeError:
        return _Clients()  # damaged: every client counts as added


def _read(data: bytes) -> dict[str, str] | None:
    try:
        return msgspec.json.decode(data, type=dict[str, str]) if data else None
    except msgspec.DecodeError:
        return {}  # damaged: every setting counts as changed


def _shown(value: object, pseudonymiser: Pseudonymiser, *, plain: bool) -> str:
    if plain or value is None or isinstance(value, bool | int | float):
        return str(value)
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if not text:
        return "(empty)"
    return f"digest {pseudonymiser.pseudonym('setting', text, UNNAMED)}"
