"""The dataset on disk: its columns, its description (``dataset.json``) and what may be wrong with it.

A dataset is a directory: ``train/``, ``valid/`` and ``test/`` with Parquet parts, ``dataset.json`` and
``rejects.csv``.  Writing is `writer`, reading `load`, checking `check`.
"""

import hashlib
from typing import Any

import msgspec
import polars as pl

from fhir_adapters.features import FeatureSchema

FORMAT = 1
"""Raised when a reader of the old format would misread the new one."""
SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.9)
"""Upper ends of the shares of the first two splits."""
SETTINGS = ("emergency", "inpatient", "ambulatory", "home", "virtual", "unknown")
SEXES = ("female", "male", "other", "unknown")
DESCRIPTION, REJECTS = "dataset.json", "rejects.csv"

COLUMNS: dict[str, Any] = {
    "patient": pl.String(),
    "visit": pl.Int32(),
    "index": pl.List(pl.Int32()),
    "value": pl.List(pl.Float32()),
    "said_index": pl.List(pl.Int32()),
    "said_value": pl.List(pl.Float32()),
    "denied": pl.List(pl.Int32()),
    "disease": pl.String(),
    "severity": pl.String(),
    "immediate": pl.Boolean(),
    "setting": pl.String(),
    "age_band": pl.Int8(),
    "sex": pl.String(),
}
"""Columns of a part.  `index`/`value` are features, `said_*` and `denied` findings as stated; `severity`
and `immediate` are null where nothing tells them, `age_band` is -1 where the age is not known."""


class DatasetInvalid(ValueError):
    """A dataset that cannot be used; says which column or field is wrong, and never a value."""


class DatasetExists(ValueError):
    """The directory to write to is not empty."""


class InputUnreadable(ValueError):
    """The input folder or file cannot be read as what it should be; names the file and the fix."""


class Row(msgspec.Struct, frozen=True):
    """One visit; the fields are the `COLUMNS`."""

    patient: str
    visit: int
    index: tuple[int, ...]
    value: tuple[float, ...]
    said_index: tuple[int, ...]
    said_value: tuple[float, ...]
    denied: tuple[int, ...]
    disease: str
    severity: str | None
    immediate: bool | None
    setting: str
    age_band: int
    sex: str


class DatasetInfo(msgspec.Struct, frozen=True):
    """``dataset.json``.

    `digest` is the SHA-256 over the content of all rows, in order (not over the bytes of the files, which
    depend on the Parquet writer); `schema_digest` that of the feature schema (`schema_digest`),
    `knowledge_digest` that of the knowledge.  `rejects` counts rejected rows and lines by reason,
    `left_out` resources that an accepted row does not rest on.
    """

    format: int
    source: str
    created: str
    schema_digest: str
    knowledge_digest: str
    ontology: str
    diseases: tuple[str, ...]
    features: tuple[str, ...]
    findings: int
    rows: dict[str, int]
    patients: dict[str, int]
    labelled: dict[str, int]
    by_disease: dict[str, int]
    by_setting: dict[str, int]
    rejects: dict[str, int]
    left_out: dict[str, int]
    options: dict[str, Any]
    digest: str


def schema_digest(schema: FeatureSchema) -> str:
    """The SHA-256 of a feature schema as a model bundle's ``features.json`` spells it."""
    return hashlib.sha256(msgspec.json.encode(schema)).hexdigest()


def split_of(pseudonym: str) -> str:
    """The split of a patient, by the hash that the pseudonym is: all visits of one fall together."""
    share = int(pseudonym[-8:], 16) / 2**32
    return SPLITS[sum(share >= end for end in SHARES)]
