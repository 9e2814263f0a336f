"""A CSV with a mapping file: the rows of serving's reader, and faults that name field and fix."""

import csv
from pathlib import Path

import msgspec
import pytest
from datasets_support import CREATED, KEY, context

from training.datasets.format import InputUnreadable
from training.datasets.load import Dataset, load_dataset
from training.datasets.mapping import Mapping, MappingInvalid, load_mapping
from training.datasets.table import build_from_csv

MAPPING = """
version = 1
delimiter = ";"
patient = { column = "pid" }
start = { column = "arrival" }
setting = { constant = "emergency" }
age = { column = "age" }
sex = { column = "sex", values = { f = "female", m = "male" } }
label = { column = "dx", system = "icd-10-cm" }
immediate = { column = "triage", values = { 1 = "yes", 2 = "yes", 3 = "no", 4 = "no", 5 = "no" } }

[[finding]]
column = "complaint"
role = "complaint"
days = "days"

[[finding]]
column = "fever"
system = "hpo"
code = "HP:0001945"

[[finding]]
column = "signs"
system = "hpo"
separator = "|"

[[history]]
column = "history"
system = "icd-10-cm"
separator = " "

[[medication]]
column = "drugs"
system = "atc"
separator = " "

[[measurement]]
column = "temp_f"
loinc = "8310-5"
unit = "[degF]"

[[measurement]]
column = "crp"
loinc = "1988-5"
unit = "mg/L"
decimal = ","

[[answer]]
column = "avpu"
loinc = "67775-7"
values = { A = "alert", V = "voice" }
"""
HEADER = "pid;arrival;age;sex;dx;triage;complaint;days;fever;signs;history;drugs;temp_f;crp;avpu"
ROWS = [
    "a7;2026-02-01T08:00:00Z;5;f;K35.80;2;abdominal pain;1;yes;HP:0002013|HP:0002039;J45.909;H02AB06;101.3;"
    "88,5;V",
    "a7;2026-01-01T08:00:00Z;5;f;J06.9;4;runny nose;;no;;;;;;A",
    "b1;2026-01-05;61;m;I21.02;1;chest pain;0;;;I10 E11.9;;98.6;x;",
    "b2;2026-01-05;300;m;;1;chest pain;;;;;;;;",
    "b3;2026-01-05;;;Q99.9;9;chest pain;;;;;;;;",
    "b4;?;30;m;J06.9;9;cough;;;;;;;;",
    "b5;2026-01-05;200;x;J20.9;9;cough;;;;;;;;",
]


def mapping_of(tmp_path: Path, text: str = MAPPING) -> Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return load_mapping(path, context().builder.tables.analytes)


@pytest.fixture
def built(tmp_path: Path) -> tuple[Dataset, Path]:
    source = tmp_path / "visits.csv"
    source.write_text("\n".join([HEADER, *ROWS]) + "\n", encoding="utf-8")
    build_from_csv(source, mapping_of(tmp_path), tmp_path / "out", context(), created=CREATED, key=KEY)
    return load_dataset(tmp_path / "out", schema=context().schema), tmp_path / "out"


def features(dataset: Dataset, disease: str, visit: int = 0) -> dict[str, float]:
    """The features by name of the row with a label."""
    number = next(
        n
        for n in range(len(dataset))
        if dataset.diseases[dataset.disease[n]] == disease and dataset.visit[n] == visit
    )
    row = dataset.rows.features[number]
    return {dataset.info.features[c]: float(v) for c, v in zip(row.indices, row.data, strict=True)} | {
        "immediate": float(dataset.immediate[number]),
        "band": float(dataset.rows.band[number]),
    }


def test_every_column_of_the_mapping_arrives_as_the_feature_it_means(built: tuple[Dataset, Path]) -> None:
    found = features(built[0], "acute-appendicitis", visit=1)
    assert found["HP:0002027"] == 1.5
    assert found["HP:0001945"] == found["HP:0002013"] == 1.0
    assert found["risk:asthma"] == found["risk:corticosteroid-use"] == 1.0
    assert found["value:temperature"] > 2
    assert found["measured:crp"] == 1.0
    assert found["HP:0004372"] == 1.0
    assert found["immediate"] == 1.0
    assert found["emergency"] == 1.0
    assert found["sex"] == 1.0
    assert found["band"] == 4.0
    assert found["duration"] != 0


def test_visits_of_one_person_are_numbered_by_date_and_share_a_split(built: tuple[Dataset, Path]) -> None:
    dataset = built[0]
    assert features(dataset, "common-cold", visit=0)["HP:0001945"] == -1.0
    same = dataset.patient[dataset.visit == 1][0]
    assert len(set(dataset.split[dataset.patient == same])) == 1
    assert len(dataset) == 4


def test_cells_that_cannot_be_read_are_counted_and_rows_without_a_label_reported(
    built: tuple[Dataset, Path],
) -> None:
    dataset, path = built
    assert features(dataset, "stemi")["risk:diabetes"] == 1.0
    assert "measured:crp" not in features(dataset, "stemi")
    assert dataset.info.left_out == {"unreadable-number": 1, "unreadable-age": 1}
    with (path / "rejects.csv").open(encoding="utf-8") as lines:
        found = {row["reference"]: row["reason"] for row in csv.DictReader(lines)}
    assert found == {
        "row 4": "no-confirmed-diagnosis",
        "row 5": "diagnosis-not-in-knowledge",
        "row 6": "start-unreadable",
    }


def test_a_file_without_dates_and_persons_is_read_row_by_row(tmp_path: Path) -> None:
    text = """
        version = 1
        label = { column = "d", system = "disease" }
        age = { column = "months", unit = "months" }
        [[finding]]
        column = "said"
        separator = ","
    """
    source = tmp_path / "plain.csv"
    source.write_text('d,months,said\nmigraine,480,"headache, nausea"\ngout,,knee pain\n', encoding="utf-8")
    mapping = mapping_of(tmp_path, text)
    info = build_from_csv(source, mapping, tmp_path / "out", context(), created=CREATED)
    assert info.by_disease == {"gout": 1, "migraine": 1}
    assert info.by_setting == {"unknown": 2}
    assert features(load_dataset(tmp_path / "out"), "migraine")["HP:0002315"] == 1.0


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("version = 1", "version = 2", "version"),
        ('system = "icd-10-cm" }', 'system = "icd9" }', "label.system"),
        ('constant = "emergency"', 'constant = "hospital"', "setting: 'hospital' is none of emergency"),
        ('f = "female"', 'f = "F"', "sex: 'F' is none of female"),
        ('loinc = "8310-5"', 'loinc = "8310-x"', r"measurement\[0\]\.loinc: 8310-x"),
        ('decimal = ","', 'decimals = ","', "decimals"),
        ('system = "hpo"\ncode', "code", r"finding\[1\]\.system: say of which system"),
        ('delimiter = ";"', 'delimiter = ";;"', "delimiter: give one character"),
        ("version = 1", "version = ", "mapping.toml"),
    ],
)
def test_a_faulty_mapping_names_the_field_and_the_fix(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in MAPPING
    with pytest.raises(MappingInvalid, match=fault):
        mapping_of(tmp_path, MAPPING.replace(old, new, 1))


def test_a_column_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    source = tmp_path / "visits.csv"
    source.write_text("pid;arrival\n", encoding="utf-8")
    with pytest.raises(MappingInvalid, match=r"age: no column 'age'.*the file has: pid, arrival"):
        build_from_csv(source, mapping_of(tmp_path), tmp_path / "out", context(), created=CREATED)
    assert not (tmp_path / "out").exists()


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "visits.csv"
    source.write_bytes((HEADER + "\n" + ROWS[1].replace("runny nose", "congestión")).encode("latin-1"))
    mapping = mapping_of(tmp_path)
    with pytest.raises(InputUnreadable, match="set encoding"):
        build_from_csv(source, mapping, tmp_path / "out", context(), created=CREATED)
    latin = msgspec.structs.replace(mapping, encoding="latin-1")
    build_from_csv(source, latin, tmp_path / "out", context(), created=CREATED)
