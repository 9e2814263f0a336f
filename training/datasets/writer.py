"""Writes a dataset directory: parts as rows come in, the description and the rejects at the end.

Nothing is visible under the target's name before everything is written, checked and described.
"""

import csv
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import polars as pl

from fhir_adapters.features import FeatureSchema
from models.knowledge.schema import Knowledge
from training.datasets.check import check_part, part_schema
from training.datasets.content import ContentDigest
from training.datasets.format import (
    COLUMNS,
    DESCRIPTION,
    FORMAT,
    REJECTS,
    SPLITS,
    DatasetExists,
    DatasetInfo,
    Row,
    schema_digest,
    split_of,
)

PART_ROWS = 20_000
PARTIAL = ".partial"


class DatasetWriter:
    """Writes one dataset; a context manager that leaves nothing behind when the block fails.

    Rows of one patient come one after the other (what a new pseudonym ends is counted as one patient).
    """

    def __init__(
        self, target: Path, knowledge: Knowledge, schema: FeatureSchema, *, replace: bool = False
    ) -> None:
        """Raises `DatasetExists` when `target` holds something and `replace` is not set."""
        if target.exists() and not replace and (not target.is_dir() or any(target.iterdir())):
            raise DatasetExists(f"{target.name}: is not empty; choose another name or replace it")
        self._target = target
        self._partial = target.with_name(target.name + PARTIAL)
        self._knowledge = knowledge
        self._schema = schema
        self._names = schema.names()
        self._diseases = tuple(disease.id for disease in knowledge.diseases)
        self._check = part_schema(
            self._diseases, len(self._names), len(schema.findings), len(schema.age_bands)
        )
        self._content = ContentDigest()
        self._held: dict[str, list[Row]] = {split: [] for split in SPLITS}
        self._parts: Counter[str] = Counter()
        self._rows: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
        self._patients: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
        self._last = ""
        self._counted: dict[str, Counter[str]] = {
            name: Counter() for name in ("labelled", "disease", "setting", "rejects")
        }
        self.left_out: Counter[str] = Counter()

    def __enter__(self) -> "DatasetWriter":
        shutil.rmtree(self._partial, ignore_errors=True)
        for split in SPLITS:
            (self._partial / split).mkdir(parents=True)
        self._rejects = (self._partial / REJECTS).open("w", encoding="utf-8", newline="")
        self._report = csv.writer(self._rejects, lineterminator="\n")
        self._report.writerow(("reference", "reason"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rejects.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, row: Row) -> None:
        """Take one row; it goes to the split of its patient."""
        split = split_of(row.patient)
        held = self._held[split]
        held.append(row)
        if row.patient != self._last:
            self._last = row.patient
            self._patients[split] += 1
        if len(held) >= PART_ROWS:
            self._flush(split)

    def reject(self, reference: str, reason: str) -> None:
        """Report something that gives no row: where it stands, and a stable reason."""
        self._counted["rejects"][reason] += 1
        self._report.writerow((reference, reason))

    def add_frame(self, split: str, frame: pl.DataFrame) -> None:
        """Take many rows of one split at once, every one of another patient."""
        self._flush(split)
        self._patients[split] += len(frame)
        self._write(split, frame)

    def _flush(self, split: str) -> None:
        held, self._held[split] = self._held[split], []
        if held:
            columns = {name: [getattr(row, name) for row in held] for name in COLUMNS}
            self._write(split, pl.DataFrame(columns, schema=COLUMNS))

    def _write(self, split: str, frame: pl.DataFrame) -> None:
        number = self._parts[split]
        check_part(frame, self._check, f"{split}, part {number}")
        self._content.add(split, frame)
        frame.write_parquet(self._partial / split / f"part-{number:05d}.parquet", compression="zstd")
        self._parts[split] += 1
        self._rows[split] += len(frame)
        labelled = self._counted["labelled"]
        labelled["severity"] += int(frame["severity"].is_not_null().sum())
        labelled["immediate"] += int(frame["immediate"].is_not_null().sum())
        labelled["immediate-true"] += int(frame["immediate"].sum())
        for name in ("disease", "setting"):
            counts = frame[name].value_counts()
            self._counted[name].update(dict(zip(counts[name], counts["count"], strict=True)))

    def finish(self, source: str, created: datetime, options: dict[str, Any]) -> DatasetInfo:
        """Write what is left and the description, and put the dataset in its place.

        `source` says where rows come from, `created` is the moment written down, `options` what the rows
        were made with (no keys, no paths).
        """
        for split in SPLITS:
            self._flush(split)
        counted = self._counted
        info = DatasetInfo(
            format=FORMAT,
            source=source,
            created=created.isoformat(),
            schema_digest=schema_digest(self._schema),
            knowledge_digest=self._knowledge.digest,
            ontology=self._knowledge.ontology,
            diseases=self._diseases,
            features=self._names,
            findings=len(self._schema.findings),
            rows=dict(self._rows),
            patients=dict(self._patients),
            labelled=dict(counted["labelled"]),
            by_disease=dict(sorted(counted["disease"].items())),
            by_setting=dict(sorted(counted["setting"].items())),
            rejects=dict(sorted(counted["rejects"].items())),
            left_out=dict(sorted(self.left_out.items())),
            options=options,
            digest=self._content.hexdigest(),
        )
        self._rejects.close()
        text = msgspec.json.format(msgspec.json.encode(info), indent=1)
        (self._partial / DESCRIPTION).write_bytes(text + b"\n")
        if self._target.is_dir():
            shutil.rmtree(self._target)
        self._partial.rename(self._target)
        return info
