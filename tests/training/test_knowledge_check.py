"""What the author of a disease file gets: codes that exist, tests and risks that are read from charts."""

import shutil
from functools import cache
from pathlib import Path

import msgspec
import pytest
import simple_icd_10_cm as icd10cm
from typer.testing import CliRunner

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from fhir_adapters.features import FeatureReader
from models.knowledge.loader import DATA, load_knowledge
from training.cli import knowledge as commands
from training.feature_schema import build_schema
from training.knowledge_check import check_all, check_files, code_faults, find, finding_names, fix, readable
from training.simulation.bundles import AT, Resource, result, risk_resources

BUILDER = ChartBuilder.load()
ONTOLOGY = BUILDER.tables.ontology
KNOWLEDGE = load_knowledge(ONTOLOGY)
RESULTS = sorted({row[0] for disease in KNOWLEDGE.diseases for row in disease.results})


@cache
def reader() -> FeatureReader:
    return FeatureReader(build_schema(KNOWLEDGE, ONTOLOGY), ONTOLOGY)


def features(resources: list[Resource]) -> dict[str, float]:
    """The features by name of a chart with these resources."""
    patient = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-01-01"}
    for number, resource in enumerate(resources):
        resource["id"] = f"r{number}"
        link = "patient" if resource["resourceType"] == "FamilyMemberHistory" else "subject"
        resource[link] = {"reference": "Patient/p"}
    entry = [{"resource": resource} for resource in (patient, *resources)]
    bundle = msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": entry})
    chart = BUILDER.build(read_bundle(bundle), at=AT, patient_id=None, retrospective=True)
    read = reader().read(chart)
    names = reader().schema.names()
    return {names[index]: value for index, value in zip(read.index, read.values, strict=True)}


@pytest.mark.parametrize("disease", KNOWLEDGE.diseases, ids=lambda disease: disease.id)
def test_every_code_of_a_disease_exists_in_icd_10_cm(disease) -> None:
    assert disease.icd10cm
    assert [code for code in disease.icd10cm if not icd10cm.is_valid_item(code)] == []
    assert code_faults(disease) == []


@pytest.mark.parametrize("loinc", RESULTS)
@pytest.mark.parametrize("value", [1, -1])
def test_every_test_of_the_knowledge_is_read_from_a_chart(loinc: str, value: int) -> None:
    assert readable(loinc)
    assert features([result(loinc, value)])[f"result:{loinc}"] == value


@pytest.mark.parametrize("loinc", ["600-7", "8867-4", "0000-0"])
def test_a_test_that_no_chart_is_read_for_is_no_result(loinc: str) -> None:
    assert not readable(loinc)  # a culture, a measurement, no code at all


@pytest.mark.parametrize("risk", KNOWLEDGE.risks, ids=lambda risk: risk.id)
def test_every_risk_factor_is_read_from_the_way_in_which_charts_are_simulated_to_tell_it(risk) -> None:
    found = features(risk_resources(risk.evidence, risk.name.en, 1))
    assert found[f"risk:{risk.id}"] > 0


def test_all_is_well_with_the_shipped_knowledge() -> None:
    count, faults = check_all()
    assert (count, faults) == (len(KNOWLEDGE.diseases), [])


def test_codes_that_do_not_exist_are_reported_with_the_file(tmp_path: Path) -> None:
    text = DATA.joinpath("diseases", "gout.toml").read_text(encoding="utf-8")
    file = tmp_path / "gout.toml"
    assert 'icd10cm = ["' in text
    file.write_text(text.replace('icd10cm = ["', 'icd10cm = ["M10.99X", "', 1), encoding="utf-8")
    assert check_files([file]) == ["gout.toml: icd10cm: M10.99X does not exist"]


def test_an_unknown_finding_is_reported_with_what_it_may_be_called(tmp_path: Path) -> None:
    text = DATA.joinpath("diseases", "gout.toml").read_text(encoding="utf-8")
    file = tmp_path / "gout.toml"
    file.write_text(text.replace('"Joint swelling"', '"Swelling of joints"', 1).replace(
        '["HP:0001386"', '["?"', 1
    ), encoding="utf-8")  # fmt: skip
    (fault,) = [fault for fault in check_files([file]) if "no such finding" in fault]
    assert fault.startswith("gout.toml: findings ? (Swelling of joints): no such finding")
    assert "perhaps" in fault


def test_ids_are_filled_in_by_name(tmp_path: Path) -> None:
    source = Path(str(DATA)) / "diseases" / "gout.toml"
    file = tmp_path / "gout.toml"
    shutil.copy(source, file)
    file.write_text(file.read_text(encoding="utf-8").replace('["HP:0001386"', '["?"', 1), encoding="utf-8")
    fix(file, finding_names(ONTOLOGY))
    assert file.read_text(encoding="utf-8") == source.read_text(encoding="utf-8")


def test_a_finding_is_found_by_a_synonym() -> None:
    assert ("HP:0002094", "Dyspnea") in find("shortness of breath", finding_names(ONTOLOGY))[:1]


def test_the_command_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    file = tmp_path / "gout.toml"
    text = DATA.joinpath("diseases", "gout.toml").read_text(encoding="utf-8")
    file.write_text(text.replace("schema = 1", "schema = 2", 1), encoding="utf-8")
    done = CliRunner().invoke(commands, ["check", str(file)])
    assert done.exit_code == 1
    assert done.output.splitlines() == ["gout.toml: schema must be 1", "1 files checked, see above"]


def test_the_command_looks_up_names() -> None:
    done = CliRunner().invoke(commands, ["check", "--find", "hiccough"])
    assert done.exit_code == 0
    assert "ICD:R06.6  Hiccough" in done.output
