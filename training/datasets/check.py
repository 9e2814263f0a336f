"""Validation of dataset parts with pandera: types, ranges, and lists that fit the feature schema.

Run on every part before it is written and again when it is loaded.  A fault names the column and the
check and counts the rows; pandera's own report would quote values.
"""

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors
from pandera.polars import PolarsData

from models.assessment import SEVERITIES
from training.datasets.format import COLUMNS, SETTINGS, SEXES, DatasetInvalid


def part_schema(diseases: tuple[str, ...], features: int, findings: int, bands: int) -> pa.DataFrameSchema:
    """The pandera schema of a part for the sizes of one feature schema."""
    checks = {
        "patient": [pa.Check.str_matches("^[0-9a-f]{32}$")],
        "visit": [pa.Check.ge(0)],
        "disease": [pa.Check.isin(diseases)],
        "severity": [pa.Check.isin(SEVERITIES)],
        "setting": [pa.Check.isin(SETTINGS)],
        "age_band": [pa.Check.in_range(-1, bands - 1)],
        "sex": [pa.Check.isin(SEXES)],
    }
    columns = {
        name: pa.Column(kind, checks.get(name, []), nullable=name in ("severity", "immediate"))
        for name, kind in COLUMNS.items()
    }
    tests = {
        "index and value are equally long": pl.col("index").list.len() == pl.col("value").list.len(),
        "said_index and said_value are equally long": (
            pl.col("said_index").list.len() == pl.col("said_value").list.len()
        ),
        "value is finite and not 0": _all("value", pl.element().is_finite() & (pl.element() != 0)),
        "said_value is finite and over 0": _all("said_value", pl.element().is_finite() & (pl.element() > 0)),
    }
    for name, end in (("index", features), ("said_index", findings), ("denied", findings)):
        inside = (pl.element() >= 0) & (pl.element() < end)
        tests[f"{name} is within the feature schema"] = _all(name, inside)
        tests[f"{name} rises"] = _all(name, pl.element().diff().fill_null(1) > 0)
    return pa.DataFrameSchema(
        columns,
        strict=True,
        checks=[_frame_check(test, name) for name, test in tests.items()],
    )


def _all(column: str, test: pl.Expr) -> pl.Expr:
    return pl.col(column).list.eval(test).list.all()


def _frame_check(test: pl.Expr, name: str) -> pa.Check:
    def holds(data: PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(test)

    return pa.Check(holds, name=name, error=name)


def check_part(frame: pl.DataFrame, schema: pa.DataFrameSchema, where: str) -> None:
    """Raise `DatasetInvalid` naming every check that fails and for how many rows."""
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as fault:
        found: dict[str, int] = {}
        for case in fault.failure_cases.select("column", "check").iter_rows():
            name = f"{case[0]}: {case[1]}" if case[0] else str(case[1])
            # A type fault's check text may go on to quote; its first words do not.
            found[name[:80]] = found.get(name[:80], 0) + 1
        text = "; ".join(f"{name} ({count} rows)" for name, count in sorted(found.items()))
        raise DatasetInvalid(f"{where}: {text}") from None
