"""Which software answers: the version and a digest over all code and data that an answer can depend on.

The version alone would call two builds of one working copy the same; a replay has to tell them apart.
"""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

import cds_server
import fhir_adapters
import hooks
import models

_IGNORED = ("__pycache__", "artifacts")  # model bundles have ids of their own


@cache
def software() -> str:
    """For example ``0.1.0+3f9ac2d41b07``; reads some 15 MB once."""
    total = hashlib.sha256()
    for package in (cds_server, fhir_adapters, hooks, models):
        room = Path(str(package.__file__)).parent
        for path in sorted(room.rglob("*")):
            inside = path.relative_to(room)
            if path.is_file() and not any(part in _IGNORED for part in inside.parts):
                total.update(f"{room.name}/{inside.as_posix()}\0".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{metadata.version('cds-server')}+{total.hexdigest()[:12]}"
