"""Notices settings, and a model, that are not what they were at the last start, and says so in the trail.

What a setting was is kept in ``<var_dir>/audit/settings.json``: numbers and choices as they are, texts
(they may hold passwords and paths) as keyed digests, so that a change shows and the text does not.
"""

import fcntl
import os
from datetime import datetime
from typing import Literal, get_origin

import msgspec
from pydantic import SecretStr

from cds_server.audit.events import Access, Entity, new_id
from cds_server.authorities import UNNAMED
from cds_server.privacy import Pseudonymiser
from cds_server.settings import Settings

FILE = "audit/settings.json"
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
    path = settings.var_dir / FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    present = {
        f"CDS_{name.upper()}": _shown(
            getattr(settings, name), pseudonymiser, plain=get_origin(field.annotation) is Literal
        )
        for name, field in type(settings).model_fields.items()
    }
    present[_MODEL] = bundle or "none"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = _read(file.read())
        if before == present:
            return []
        data = msgspec.json.encode(present)
        file.seek(0)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    if before is None:
        return []
    return [
        promotion(before.get(name), value, now) if name == _MODEL else _changed(name, before, value, now)
        for name, value in present.items()
        if before.get(name) != value
    ]


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
