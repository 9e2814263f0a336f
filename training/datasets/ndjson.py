"""The folder of a FHIR bulk export: its files, their lines, and whose each line is.

One type a file as the Bulk Data Access guide has it (``Condition.ndjson``, ``Condition.001.ndjson``,
``.gz`` allowed), but what a line is stands in the line.  Reads line by line; keeps nothing but the
medications that others refer to and the places that are intensive care units.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fhir_adapters import resources as r
from training.datasets.attention import AttentionCodes
from training.datasets.buckets import Buckets
from training.datasets.format import InputUnreadable
from training.datasets.moments import codings_of, last_part, rows_at
from training.datasets.progress import Bars
from training.datasets.pseudonym import Pseudonyms

_SUFFIXES = (".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz")
_READ = frozenset(kind.__name__ for kind in r.READ_TYPES) - {"OperationOutcome", "Medication"}
_IGNORED = frozenset(kind.__name__ for kind in r.IGNORED_TYPES) - {"Location"}
_TYPE = re.compile(r"[A-Za-z]+")
COMPRESSED = 12
"""About how much smaller gzip makes FHIR JSON: for the number of files to spread over."""


class _Reference(msgspec.Struct):
    reference: Any = None


class _Head(msgspec.Struct):
    resourceType: Any = None
    id: Any = None
    subject: _Reference | None = None
    patient: _Reference | None = None


class _Unusable(ValueError):
    """A line that belongs to no patient's record; the text is the stable reason."""


_head = msgspec.json.Decoder(_Head)
_whole: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


@dataclass
class Shared:
    """What belongs to no patient: Medication resources by id, Locations that are intensive care units."""

    medications: dict[str, bytes] = field(default_factory=dict)
    intensive_places: set[str] = field(default_factory=set)


def export_files(folder: Path) -> list[Path]:
    """The files of an export that may hold something for a chart, by name.

    Raises `InputUnreadable` when there are none.
    """
    if not folder.is_dir():
        raise InputUnreadable(f"{folder.name}: not a folder; give the folder of the bulk export")
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(_SUFFIXES))
    if not found:
        raise InputUnreadable(f"{folder.name}: holds no .ndjson or .ndjson.gz files")
    # A file named for a type that no chart reads (claims are most of many exports) is not even opened.
    return [path for path in found if _IGNORED.isdisjoint(_TYPE.findall(path.name))]


def expected_bytes(paths: list[Path]) -> int:
    """About how many bytes the files hold uncompressed."""
    return sum(path.stat().st_size * (COMPRESSED if path.suffix == ".gz" else 1) for path in paths)


def spread(
    paths: list[Path], buckets: Buckets, pseudonyms: Pseudonyms, attention: AttentionCodes, bars: Bars
) -> tuple[Shared, list[tuple[str, str]]]:
    """Spread all lines over `buckets` by patient; returns what is shared, and the rejected lines."""
    shared, rejects = Shared(), []
    bar = bars.start("Reading", sum(path.stat().st_size for path in paths))
    for path in paths:
        for number, line in _lines(path):
            try:
                _take(line, buckets, pseudonyms, attention, shared)
            except _Unusable as fault:
                rejects.append((f"{path.name}:{number}", str(fault)))
        bar.advance(path.stat().st_size)
    return shared, rejects


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.strip()
                if text:
                    yield number, text
    except (gzip.BadGzipFile, EOFError):
        raise InputUnreadable(f"{path.name}: the gzip file is damaged; export it again") from None


def _take(
    line: bytes, buckets: Buckets, pseudonyms: Pseudonyms, attention: AttentionCodes, shared: Shared
) -> None:
    """Put one line where it belongs; raises `_Unusable` when it belongs nowhere."""
    head: _Head = _decoded(line, _head)
    kind, identity = head.resourceType, head.id
    if not isinstance(kind, str):
        raise _Unusable("no-resource-type")
    if kind not in _READ and kind not in ("Medication", "Location"):
        return
    if not isinstance(identity, str) or not identity:
        raise _Unusable("no-id")
    # Decoded whole once, so that whoever reads it later need not expect broken JSON.
    resource = _decoded(line, _whole)
    if kind == "Medication":
        shared.medications[identity] = line
    elif kind == "Location":
        kinds = [pair for row in rows_at(resource, "type") for pair in codings_of(row)]
        if attention.is_intensive(kinds):
            shared.intensive_places.add(identity)
    else:
        owner = identity if kind == "Patient" else _owner(head)
        buckets.add(pseudonyms.of(owner), line)


def _decoded(line: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, RecursionError):
        raise _Unusable("unreadable-json") from None


def _owner(head: _Head) -> str:
    """The id of the patient that a resource is about."""
    reference = head.subject or head.patient
    sent = reference.reference if reference is not None else None
    if not isinstance(sent, str) or not sent or "Group/" in sent:
        raise _Unusable("no-patient")
    return last_part(sent)
