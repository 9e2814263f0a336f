"""Reads a dataset directory into the arrays that training works on.

Checks that the dataset is whole and of the feature schema at hand before anything is made of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fhir_adapters.features import FeatureSchema
from models.assessment import SEVERITIES
from training.datasets.check import check_part, part_schema
from training.datasets.content import ContentDigest, flat
from training.datasets.format import DESCRIPTION, FORMAT, SPLITS, DatasetInfo, DatasetInvalid, schema_digest
from training.simulation.rows import Rows

UNKNOWN = -1
_SEX = {"female": 1, "male": -1}


@dataclass(frozen=True)
class Dataset:
    """N rows with labels, in the order of the splits.

    `disease` numbers `diseases`, `severity` `SEVERITIES` (-1 not known), `immediate` is 1, 0 or -1 (not
    known), `split` numbers `SPLITS`, `age` is in years (nan where not known).
    """

    info: DatasetInfo
    diseases: tuple[str, ...]
    rows: Rows
    disease: NDArray[np.int32]
    severity: NDArray[np.int8]
    immediate: NDArray[np.int8]
    split: NDArray[np.int8]
    age: NDArray[np.float64]
    setting: NDArray[np.str_]
    patient: NDArray[np.str_]
    visit: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.disease)

    def numbers(self, split: str) -> NDArray[np.int64]:
        """The row numbers of ``"train"``, ``"valid"`` or ``"test"``."""
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)


def read_info(path: Path) -> DatasetInfo:
    """The description of a dataset; raises `DatasetInvalid` when there is none or it is of another format."""
    try:
        info = msgspec.json.decode((path / DESCRIPTION).read_bytes(), type=DatasetInfo)
    except FileNotFoundError:
        raise DatasetInvalid(f"{path.name}: no {DESCRIPTION}; not a dataset directory") from None
    except msgspec.DecodeError as fault:
        raise DatasetInvalid(f"{path.name}/{DESCRIPTION}: {fault}") from None
    if info.format != FORMAT:
        raise DatasetInvalid(
            f"{path.name}/{DESCRIPTION}: format is {info.format}, this release reads {FORMAT}; build it again"
        )
    return info


def load_dataset(
    path: Path,
    *,
    schema: FeatureSchema | None = None,
    diseases: Sequence[str] | None = None,
    splits: Sequence[str] = SPLITS,
) -> Dataset:
    """Read a dataset.

    Args:
        path: the directory.
        schema: the feature schema at hand; one that differs from the dataset's is refused.
        diseases: order of the disease numbers; that of the dataset's knowledge by default.
        splits: which splits to read; the content digest is verified when it is all of them.

    Raises:
        DatasetInvalid: not a dataset, another schema, a label that `diseases` lacks, faulty or changed
            content.
    """
    info = read_info(path)
    if schema is not None and schema_digest(schema) != info.schema_digest:
        raise DatasetInvalid(
            f"{path.name}: made with another feature schema; build it again with this knowledge release"
        )
    order = tuple(diseases) if diseases is not None else info.diseases
    frame, counts = _frame(path, info, tuple(splits))
    lacking = sorted(set(frame["disease"].unique()) - set(order))
    if lacking:
        raise DatasetInvalid(f"{path.name}: disease: labels that are not asked for: {', '.join(lacking)}")
    features = _matrix(frame, "index", "value", len(info.features))
    sex = frame["sex"].to_list()
    rows = Rows(
        features,
        _matrix(frame, "said_index", "said_value", info.findings),
        _matrix(frame, "denied", None, info.findings),
        frame["setting"].is_in(["emergency", "inpatient"]).to_numpy(),
        frame["age_band"].to_numpy().astype(np.int8),
        np.array([_SEX.get(name, 0) for name in sex], dtype=np.int8),
    )
    known = {name: number for number, name in enumerate(order)}
    return Dataset(
        info=info,
        diseases=order,
        rows=rows,
        disease=np.array([known[name] for name in frame["disease"]], dtype=np.int32),
        severity=np.array(
            [UNKNOWN if name is None else SEVERITIES.index(name) for name in frame["severity"]], dtype=np.int8
        ),
        immediate=frame["immediate"].cast(pl.Int8).fill_null(UNKNOWN).to_numpy().astype(np.int8),
        split=np.repeat([SPLITS.index(name) for name in splits], counts).astype(np.int8),
        age=_age(features, info, rows.band),
        setting=np.array(frame["setting"].to_list(), dtype=np.str_),
        patient=np.array(frame["patient"].to_list(), dtype=np.str_),
        visit=frame["visit"].to_numpy().astype(np.int32),
    )


def _frame(path: Path, info: DatasetInfo, splits: tuple[str, ...]) -> tuple[pl.DataFrame, list[int]]:
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown or not splits:
        raise DatasetInvalid(f"splits: {unknown or 'none'} given; known are {', '.join(SPLITS)}")
    bands = sum(name.startswith("age-band:") for name in info.features)
    check = part_schema(info.diseases, len(info.features), info.findings, bands)
    content = ContentDigest()
    frames: list[pl.DataFrame] = []
    counts: list[int] = []
    for split in splits:
        parts = [pl.read_parquet(part) for part in sorted((path / split).glob("part-*.parquet"))]
        for number, part in enumerate(parts):
            check_part(part, check, f"{path.name}/{split}, part {number}")
            content.add(split, part)
        counts.append(sum(len(part) for part in parts))
        if counts[-1] != info.rows[split]:
            raise DatasetInvalid(
                f"{path.name}/{split}: {counts[-1]} rows, {DESCRIPTION} says {info.rows[split]}; "
                "a part is missing or not of this dataset"
            )
        frames.extend(parts)
    if not frames:
        raise DatasetInvalid(f"{path.name}: no rows; see rejects.csv for the reasons")
    if set(splits) == set(SPLITS) and content.hexdigest() != info.digest:
        raise DatasetInvalid(f"{path.name}: the content is not what {DESCRIPTION} describes (digest)")
    return pl.concat(frames), counts


def _matrix(frame: pl.DataFrame, index: str, value: str | None, width: int) -> csr_matrix:
    starts = np.concatenate(([0], np.cumsum(frame[index].list.len().to_numpy().astype(np.int64))))
    columns = flat(frame[index]).astype(np.int32)
    data = flat(frame[value]) if value is not None else np.ones(len(columns))
    return csr_matrix((data.astype(np.float32), columns, starts), shape=(len(frame), width))


def _age(features: csr_matrix, info: DatasetInfo, band: NDArray[np.int8]) -> NDArray[np.float64]:
    """The age in years that the age feature stands for (`fhir_adapters.features.age_feature`)."""
    scaled = features[:, info.features.index("age")].toarray()[:, 0].astype(np.float64)
    return np.where(band >= 0, np.expm1(scaled + 3.3), np.nan)
