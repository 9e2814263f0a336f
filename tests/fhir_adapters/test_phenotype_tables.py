"""The tables of the phenotype: a wrong cell is found at load, and the error names file and row."""

from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import pytest
from phenotype_charts import builder

from fhir_adapters import growth, phenotype_growth, phenotype_limits, phenotype_problems
from fhir_adapters.growth import GrowthReference
from fhir_adapters.hpo import load_ontology
from fhir_adapters.phenotype_growth import GrowthReader
from fhir_adapters.phenotype_limits import load_limits
from fhir_adapters.phenotype_problems import ProblemTerms
from fhir_adapters.terminology.analytes import AnalyteTable
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import loinc_is_valid, read_rows

ONTOLOGY = load_ontology()
ROW = 7


def _load_limits() -> object:
    return load_limits(builder().tables.analytes, ONTOLOGY)


LOADERS: dict[ModuleType, Callable[[], object]] = {
    phenotype_limits: _load_limits,
    phenotype_problems: lambda: ProblemTerms.load(ONTOLOGY),
    phenotype_growth: lambda: GrowthReader.load(ONTOLOGY),
    growth: GrowthReference.load,
}


@pytest.mark.parametrize(
    ("module", "cells"),
    [
        (phenotype_limits, {"loinc": "777-4"}),  # check digit
        (phenotype_limits, {"loinc": "99999-3"}),  # not an analyte of ours
        (phenotype_limits, {"unit": "mg/L"}),
        (phenotype_limits, {"hpo_below": "HP:9999999"}),
        (phenotype_limits, {"hpo_above": "HP:0000118", "label_above": "Fever"}),
        (phenotype_limits, {"low": "900", "high": "1"}),
        (phenotype_limits, {"low": "abc"}),
        (phenotype_limits, {"from_days": "900", "to_days": "1"}),
        (phenotype_limits, {"sex": "girl"}),
        (phenotype_limits, {"factor_high": "0.5"}),
        (phenotype_limits, {"factor_low": "1.5"}),
        (phenotype_limits, {"days_apart": "0"}),
        (phenotype_limits, {"excludes": "all"}),
        (phenotype_limits, {"source": ""}),
        (phenotype_problems, {"icd10cm": "nonsense"}),
        (phenotype_problems, {"hpo": "HP:9999999"}),
        (phenotype_problems, {"label": "Something else"}),
        (phenotype_problems, {"scope": "narrow"}),
        (phenotype_problems, {"source": ""}),
        (phenotype_growth, {"measure": "arm"}),
        (phenotype_growth, {"hpo": "HP:9999999"}),
        (phenotype_growth, {"from_months": "500", "to_months": "2"}),
        (phenotype_growth, {"z": "0"}),
        (phenotype_growth, {"source": ""}),
        (growth, {"m": "0"}),
        (growth, {"s": "-1"}),
        (growth, {"age_months": "0"}),
        (growth, {"sex": "x"}),
        (growth, {"source": ""}),
    ],
)
def test_a_wrong_cell_is_named_by_file_and_row(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, cells: dict[str, str]
) -> None:
    def with_fault(file: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        for number, row in read_rows(file, columns):
            yield number, {**row, **cells} if number == ROW else row

    monkeypatch.setattr(module, "read_rows", with_fault)
    with pytest.raises(TerminologyInvalid) as raised:
        LOADERS[module]()
    assert (raised.value.file, raised.value.row) == (module.FILE, ROW)


def test_overlapping_age_bands_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(file: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        rows = list(read_rows(file, columns))
        yield from rows
        yield len(rows) + 2, rows[0][1]

    monkeypatch.setattr(phenotype_limits, "read_rows", twice)
    with pytest.raises(TerminologyInvalid, match="overlaps"):
        _load_limits()


def test_every_row_has_a_source_and_grade_or_guideline() -> None:
    for file, columns in (
        (phenotype_limits.FILE, phenotype_limits.COLUMNS),
        (phenotype_growth.FILE, phenotype_growth.COLUMNS),
    ):
        for _, row in read_rows(file, columns):
            assert "grade C" in row["source"] or any(c.isdigit() for c in row["source"]), row["source"]
    codes = {row["loinc"] for _, row in read_rows(phenotype_limits.FILE, phenotype_limits.COLUMNS)}
    assert len(codes) >= 120
    assert all(loinc_is_valid(code) for code in codes)


def test_icd_rows_are_never_more_specific_than_what_the_concept_table_says() -> None:
    lookup = builder().tables.concepts.lookup
    for _, row in read_rows(phenotype_problems.FILE, phenotype_problems.COLUMNS):
        known = lookup("http://hl7.org/fhir/sid/icd-10-cm", row["icd10cm"])
        assert known is not None, row["icd10cm"]
        # Where both know a term, ours is a kind of it: the profile adds and never contradicts.
        assert known.hpo is None or ONTOLOGY.is_a(row["hpo"], known.hpo), row["icd10cm"]


def test_amino_acids_convert_between_mass_and_amount() -> None:
    table = AnalyteTable.load()
    phenylalanine = table.by_loinc["14875-9"]
    found = table.unit_conversion(phenylalanine, "mg/dL")
    assert found is not None
    assert found.factor == pytest.approx(60.54, rel=1e-3)
