"""The digest over a dataset's content, independent of how its rows are cut into parts or stored.

Each column of each split has a running SHA-256 over lengths and values; the digest is over all of them.
"""

import hashlib
from typing import Any

import numpy as np
import polars as pl

from training.datasets.format import COLUMNS, SPLITS


class ContentDigest:
    """Takes parts in order; equal rows in equal order give an equal digest."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[Any, Any]] = {
            (split, name): (hashlib.sha256(), hashlib.sha256()) for split in SPLITS for name in COLUMNS
        }

    def add(self, split: str, frame: pl.DataFrame) -> None:
        """Take one part of a split."""
        for name, kind in COLUMNS.items():
            lengths, values = self._held[split, name]
            column = frame[name]
            if isinstance(kind, pl.List):
                lengths.update(column.list.len().to_numpy().astype("<u4").tobytes())
                values.update(flat(column).tobytes())
            elif kind == pl.String():
                lengths.update(column.str.len_bytes().cast(pl.Int64).fill_null(-1).to_numpy().tobytes())
                values.update("".join(column.fill_null("")).encode())
            else:
                values.update(column.cast(pl.Int64).fill_null(-(2**40)).to_numpy().tobytes())

    def hexdigest(self) -> str:
        """The digest over everything taken so far."""
        total = hashlib.sha256()
        for (split, name), (lengths, values) in self._held.items():
            total.update(f"{split}\0{name}\0{lengths.hexdigest()}\0{values.hexdigest()}\n".encode())
        return total.hexdigest()


def flat(column: pl.Series) -> Any:
    """The values of a list column one after the other, as a numpy array."""
    # Polars makes a null of an empty list; no list holds one of its own.
    values = column.explode().drop_nulls().to_numpy()
    return np.ascontiguousarray(values)
