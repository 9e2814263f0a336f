"""A dataset from a FHIR bulk export: every qualifying visit as the chart stood at its decision.

Puts the pieces together: lines spread by patient (`ndjson`), records and visits (`visits`), labels
(`diagnosis`, `attention`), charts as of the decision (`asof`), rows (`context`), the directory (`writer`).
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from rich.console import Console

from training.datasets.asof import AsOf
from training.datasets.attention import AttentionCodes
from training.datasets.buckets import Buckets
from training.datasets.context import DatasetContext
from training.datasets.diagnosis import choose_label
from training.datasets.format import DatasetInfo, Row
from training.datasets.ndjson import Shared, expected_bytes, export_files, spread
from training.datasets.options import CohortOptions
from training.datasets.progress import bars
from training.datasets.pseudonym import Pseudonyms
from training.datasets.visits import Record, Visit, read_record
from training.datasets.writer import DatasetWriter


def build_from_ndjson(
    folder: Path,
    target: Path,
    context: DatasetContext,
    *,
    created: datetime,
    options: CohortOptions | None = None,
    key: bytes | None = None,
    console: Console | None = None,
    scratch: Path | None = None,
    replace: bool = False,
) -> DatasetInfo:
    """Build the dataset of a bulk export folder in `target`.

    Args:
        folder: NDJSON files by type, in parts or compressed.
        target: the dataset directory to make.
        context: what charts are read with.
        created: the moment written into the description.
        options: when the decision is and what counts as label.
        key: at least 16 bytes that make the pseudonyms (and with them splits and digest) the same again;
            random by default.
        console: where progress is shown; nowhere by default.
        scratch: where temporary files (patient data, removed at the end) may be; the system's place
            for them by default.
        replace: whether `target` may be written over.

    Raises:
        InputUnreadable: no export, or a damaged file.
        DatasetExists: `target` holds something.
        DatasetInvalid: a row breaks the format (a fault of this package).
    """
    options = options or CohortOptions()
    paths = export_files(folder)
    attention = AttentionCodes.load()
    pseudonyms = Pseudonyms(key)
    with (
        bars(console) as shown,
        Buckets(expected_bytes(paths), scratch) as buckets,
        DatasetWriter(target, context.knowledge, context.schema, replace=replace) as writer,
    ):
        shared, rejects = spread(paths, buckets, pseudonyms, attention, shown)
        for reference, reason in rejects:
            writer.reject(reference, reason)
        maker = VisitRows(context, options, attention, shared)
        bar = shown.start("Building rows", buckets.count)
        for group in buckets.groups():
            for pseudonym, lines in group:
                record = read_record(lines, options)
                if record is None:
                    writer.reject(f"patient {pseudonym}", "patient-missing")
                    continue
                for reference, outcome in maker.rows(record, pseudonym):
                    if isinstance(outcome, Row):
                        writer.add(outcome)
                    else:
                        writer.reject(reference, outcome)
            bar.advance()
        writer.left_out.update(maker.left_out)
        return writer.finish("fhir-bulk-export", created, msgspec.to_builtins(options))


class VisitRows:
    """Makes the rows of records; counts in `left_out` what rows do not rest on."""

    def __init__(
        self, context: DatasetContext, options: CohortOptions, attention: AttentionCodes, shared: Shared
    ) -> None:
        self._context = context
        self._options = options
        self._attention = attention
        self._medications = shared.medications
        self._places = frozenset(shared.intensive_places)
        self._asof = AsOf(context.labels, attention)
        self.left_out: Counter[str] = Counter()

    def rows(self, record: Record, pseudonym: str) -> Iterator[tuple[str, Row | str]]:
        """For each Encounter of a record its reference with the row, or with why there is none."""
        yield from record.rejects
        for number, visit in enumerate(record.visits):
            yield visit.reference, self._row(record, visit, number, pseudonym)

    def _row(self, record: Record, visit: Visit, number: int, pseudonym: str) -> Row | str:
        label = choose_label(record, visit, self._context.labels, self._options)
        if isinstance(label, str):
            return label
        counted: Counter[str] = Counter()
        found = self._asof.resources(record, visit, label.own, self._medications, counted)
        row = self._context.row(
            found,
            visit.decision,
            counted,
            patient=pseudonym,
            visit=number,
            disease=label.disease,
            severity=None,
            immediate=self._attention.immediate(record, visit, self._places),
            encounter_id=visit.id,
            settings=self._options.settings,
        )
        if isinstance(row, Row):
            self.left_out.update(counted)
        return row
