"""The files of a trained rare engine: ``rare.npz`` (all arrays) and ``rare.json`` (what it was made from).

Training writes them to a directory (``var/rare``); a signed bundle carries ``rare.npz`` as one more file, and
the shipped bundle is the only place of the shipped arrays.  Same arrays, same bytes.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import models
from models.rare.terms import Arrays

SHIPPED = Path(models.__file__).parent / "artifacts" / "common"
ARRAYS, FACTS, FOLDS = "rare.npz", "rare.json", "folds.npz"


class ArtifactMissing(Exception):
    """There is no trained engine at the path; the text says how to make one."""


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as the bytes of an ``.npz`` file, in order of name."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()


def write_artifact(directory: Path, arrays: Arrays, facts: dict[str, Any]) -> str:
    """Write both files; returns the SHA-256 of the arrays.  Raises `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    data = packed(arrays)
    digest = hashlib.sha256(data).hexdigest()
    (directory / ARRAYS).write_bytes(data)
    text = json.dumps({**facts, "sha256": digest, "bytes": len(data)}, indent=2, sort_keys=True)
    (directory / FACTS).write_text(text + "\n", encoding="utf-8")
    return digest


def read_arrays(directory: Path = SHIPPED, name: str = ARRAYS) -> Arrays:
    """The arrays of a trained engine, or of a bundle's directory.  Raises `ArtifactMissing`."""
    path = directory / name
    if not path.is_file():
        raise ArtifactMissing(f"{name} is not in {directory.name}: make it with `cds-server train rare`")
    with np.load(path, allow_pickle=False) as stored:
        return {each: stored[each] for each in stored.files}


def write_folds(path: Path, folds: tuple[Arrays, ...], fold_of: dict[str, int]) -> None:
    """Keep the second stages of cross-validation, for `cds-server evaluate rare --folds`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: Arrays = {
        "diseases": np.array(sorted(fold_of)),
        "fold": np.array([fold_of[d] for d in sorted(fold_of)]),
    }
    for number, each in enumerate(folds):
        arrays |= {f"{number}/{name}": values for name, values in each.items()}
    path.write_bytes(packed(arrays))


def read_folds(path: Path) -> tuple[tuple[Arrays, ...], dict[str, int]]:
    """What `write_folds` kept.  Raises `ArtifactMissing`."""
    stored = read_arrays(path.parent, path.name)
    fold_of = dict(zip(stored["diseases"].tolist(), stored["fold"].tolist(), strict=True))
    count = 1 + max(int(name.partition("/")[0]) for name in stored if "/" in name)
    folds = tuple(
        {name.partition("/")[2]: values for name, values in stored.items() if name.startswith(f"{number}/")}
        for number in range(count)
    )
    return folds, fold_of
