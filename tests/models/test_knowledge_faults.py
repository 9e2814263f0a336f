"""What the loader refuses: each kind of fault in a broken copy, named by file and entry."""

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.hpo import load_ontology
from models.knowledge.loader import DATA, KnowledgeInvalid, load_checker, load_knowledge, load_shared

ONTOLOGY = load_ontology()
CHECKER = load_checker(ONTOLOGY)
FILE = "community-acquired-pneumonia.toml"
TEXT = DATA.joinpath("diseases", FILE).read_text(encoding="utf-8")


def faults(text: str) -> list[str]:
    """What is wrong with a version of the file."""
    return CHECKER.read(FILE, text)[1]


def test_the_file_itself_has_no_fault() -> None:
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("schema = 1", "schema = 2", "schema must be 1"),
        ('id = "community-acquired-pneumonia"', 'id = "pneumonia"', "id must be kebab-case and the name"),
        ('es = "Neumonía"', 'es = " "', "name: both languages are needed"),
        ('group = "respiratory"', 'group = "lungs"', "Invalid enum value 'lungs'"),
        ('course = "acute"', 'course = "quick"', "Invalid enum value 'quick'"),
        ('icd10 = ["J18", ', 'icd10 = ["J.18", ', "icd10: 'J.18' is not spelt as a code"),
        ('icd10cm = ["J18.9", ', 'icd10cm = ["18.9", ', "icd10cm: '18.9' is not spelt as a code"),
        ('snomed = "233604007"', 'snomed = "233604008"', "snomed: '233604008' has a wrong check digit"),
        ("duration_days = [1, 12]", "duration_days = [12, 1]", "duration_days: shortest and longest"),
        ('"sepsis-suspected"', '"sepsis-certain"', "red_flags: no red flag 'sepsis-certain'"),
        ('"chest-x-ray"', '"chest-photograph"', "recommend: no action 'chest-photograph'"),
        ('severity_source = "crb"', 'severity_source = "crp"', "severity_source: no source 'crp'"),
        ('"HP:0012735", "Cough", 0.88', '"HP:0012735", "Coughing", 0.88', "the label of this key is 'Cough'"),
        ('"HP:0012735", "Cough", 0.88', '"HP:0012735", "Cough", 1.88', "probabilities lie between 0 and 1"),
        ('"HP:0012735", "Cough", 0.88', '"HP:0012735", "Cough", [0.1, 0.2]', "one for each of the 3 grades"),
        ('"HP:0012735", "Cough", 0.88', '"HP:0012735", "Cough", "often"', "`$.findings[0][2]`"),
        ('"HP:0012735", "Cough", 0.88', '"HP:0012735", "Cough", nan', "every number must be finite"),
        ('"HP:0012735", "Cough"', '"HP:9999999", "Cough"', "findings HP:9999999 (Cough): no such finding"),
        ('"HP:0012735", "Cough"', '"HP:0100247", "Recurrent singultus"', "add a row for it"),
        ('"HP:0012735", "Cough", 0.88, "bts"', '"HP:0012735", "Cough", 0.88, "x"', "no source 'x'"),
        (
            '["temperature", [0.9, 1.4, 1.5]',
            '["warmth", [0.9, 1.4, 1.5]',
            "vitals warmth: no such vital sign",
        ),
        ('["temperature", [0.9, 1.4, 1.5]', '["temperature", [0.9, 1.4]', "vitals temperature: one shift"),
        ('["crp", [60, 130, 220], 2.0', '["crq", [60, 130, 220], 2.0', "labs crq: no such analyte"),
        ('["crp", [60, 130, 220], 2.0', '["crp", [60, 130, 220], 0.5', "labs crp: lognormal, spread 0.5"),
        ('["crp", [60, 130, 220], 2.0', '["crp", [], 2.0', "labs crp: one median, or one per grade"),
        ("primary_care = 35", "primary_care = -35", "rate: no negative number"),
        ("primary_care = 35", "primary_care = 3500", "rate: visits per 10,000"),
        ("weight = 0.3", "weight = 0.5", "grades: the weights must sum to 1"),
        ("immediate = 0.8", "immediate = 1.8", "grades: weight and immediate lie between 0 and 1"),
        ('severity = "acute-disease"', 'severity = "bad"', "Invalid enum value 'bad'"),
        ("[sources]", '[sources]\nblog = "D: somewhere"', "sources.blog: begin with 'A: ', 'B: ' or 'C: '"),
        ("[sources]", "[wishes]", "Object contains unknown field `wishes`"),
        ("schema = 1", "schema = = 1", "line 1"),
    ],
)
def test_a_fault_of_a_disease_file_is_named_with_file_and_entry(before: str, after: str, said: str) -> None:
    assert before in TEXT
    found = faults(TEXT.replace(before, after, 1))
    assert found
    assert all(fault.startswith(f"{FILE}: ") for fault in found)
    assert any(said in fault for fault in found), found


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        (
            "findings",
            '["HP:0012735", "Cough", 0.8, "est"], ["HP:0012735", "Cough", 0.8, "est"]',
            "stands twice",
        ),
        ("risks", '["smoking-sometimes", 1.5, "est"]', "risks smoking-sometimes: not in risks.csv"),
        ("risks", '["smoking-current", 40000, "est"]', "an odds ratio between 0.01 and 30000"),
        ("results", '["94500-7", "SARS-CoV-2 RNA", 0.1, "est"]', "wrong check digit"),
        ("results", '["94500-6", "SARS-CoV-2 RNA", 1.1, "est"]', "probabilities lie between 0 and 1"),
        ("tests", '["chest-x-ray", 0.5, 0.1, ["influenza"], "est"]', "LR+ of at least 1"),
        ("tests", '["x-ray-vision", 5, 0.1, ["influenza"], "est"]', "tests x-ray-vision: neither an action"),
        ("medications", '["12X", 0.1, "est"]', "medications 12X: an ATC prefix and a chance"),
        ("timing", '["HP:0001250", 1, 2, "est"]', "timing HP:0001250: not among the findings"),
        ("timing", '["HP:0012735", 3, 2, "est"]', "timing HP:0012735: shortest and longest days"),
        ("correlations", '["HP:0012735", "spo2", 1.0]', "between -0.95 and 0.95"),
        ("correlations", '["HP:0012735", "vigour", 0.5]', "vigour is no finding, vital or lab"),
    ],
)
def test_a_wrong_row_is_named(name: str, rows: str, said: str) -> None:
    text = re.sub(rf"^{name} = \[(\n.*?^\]|[^\n]*\])\n", "", TEXT, count=1, flags=re.M | re.S)
    found = faults(text.replace("# shift from", f"{name} = [{rows}]\n# shift from", 1))
    assert any(said in fault for fault in found), found


@given(st.floats())
def test_a_probability_is_accepted_exactly_when_it_is_one(value: float) -> None:
    text = TEXT.replace('"HP:0012735", "Cough", 0.88', f'"HP:0012735", "Cough", {value!r}', 1)
    assert (faults(text) == []) == (0 <= value <= 1)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_reported_and_never_an_exception(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(TEXT) - 1))
    length = data.draw(st.integers(0, 60))
    put = data.draw(st.sampled_from(["", "]", '"', "= ", "[[grades]]", "-1", "inf", "é", "\n"]))
    disease, found = CHECKER.read(FILE, TEXT[:start] + put + TEXT[start + length :])
    assert disease is not None or found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shared tables and of one disease that refers to no other."""
    shutil.copytree(Path(str(DATA)), tmp_path / "data", ignore=shutil.ignore_patterns("diseases"))
    (tmp_path / "data" / "diseases").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("findings.csv", "HP:0012735,Cough,", "HP:0012735,Coughing,", "HP:0012735 is called 'Cough'"),
        ("findings.csv", "HP:0012735,Cough,", "HP:9999999,Cough,", "HP:9999999 is not a current HPO id"),
        ("findings.csv", "HP:0012735,Cough,", "SCT:49727002,Cough,", "neither an HPO id nor ICD:<code>"),
        ("findings.csv", "HP:0012735,Cough,symptom", "HP:0012735,Cough,habit", "Invalid enum value 'habit'"),
        ("findings.csv", "Cough,symptom,,0.06", "Cough,symptom,,0.9", "background lies between 0 and 0.5"),
        ("findings.csv", "Cough,symptom,,0.06", "Cough,symptom,,often", "could not convert"),
        ("findings.csv", "Cough,symptom,,0.06", "Cough,symptom,HP:0000001,0.06", "has no parent"),
        ("findings.csv", "HP:0002094,Dyspnea,", "HP:0012735,Cough,", "HP:0012735 stands twice"),
        ("findings.csv", "key,label", "label,key", "the columns are key, label"),
        ("risks.csv", "smoking-current,Smokes,Fuma", "smoking-current,Smokes,", "both names and source"),
        ("risks.csv", "Fuma,0.02", "Fuma,2.0", "prevalence and share of women"),
        ("risks.csv", "coded:72166-2=current", "code:72166-2=current", "is not spelt right"),
        ("risks.csv", "R03AC:.8", "R03AC:8", "the share between 0 and 1"),
        ("risks.csv", "smoking-former,", "smoking-current,", "smoking-current stands twice"),
        ("analytes.csv", "8867-4", "8867-5", "8867-5 has a wrong check digit"),
        ("analytes.csv", "lognormal", "gamma", "Invalid enum value 'gamma'"),
        ("modifiers.csv", "beta-blocker,heart-rate", "beta-blocker,heart", "'heart' takes a chance"),
        ("modifiers.csv", "beta-blocker,heart-rate", "blocker,heart-rate", "no risk 'blocker'"),
        ("modifiers.csv", "heart-rate,shift,-12", "heart-rate,factor,0.8", "'heart-rate' takes a shift"),
        ("modifiers.csv", "chance,0.06", "chance,6", "a chance is between 0 and 1"),
        ("vital_ages.csv", "heart-rate,0.25,143", "heart-rate,0.25,-143", "are above 0"),
        ("vital_ages.csv", "heart-rate,0.25", "heart,0.25", "no analyte 'heart'"),
        ("coded_findings.csv", "HP:0001259,present", "HP:0001259,perhaps", "present or absent"),
        ("coded_findings.csv", "67775-7,alert", "67775-8,alert", "a LOINC and the key of its answer"),
        ("complaints.csv", "HP:0012735,Cough,1.0", "HP:0012735,Cough,1.5", "above 0 and is at most 1"),
        ("complaints.csv", "HP:0012735,Cough,1.0", "HP:0012735,Cough,often", "above 0 and is at most 1"),
        ("complaints.csv", "HP:0012735,Cough,", "HP:0012735,Coughing,", "has no 'HP:0012735' called"),
        ("complaints.csv", "HP:0002094,Dyspnea,", "HP:0012735,Cough,", "HP:0012735 stands twice"),
        ("not_asked.csv", "Headache,3,", "Headache,30,", "an age of childhood, or empty for never"),
        (
            "unrelated.csv",
            "Palpitations,HP:0011675",
            "Palpitations,HP:0001945",
            "no finding that HPO has above",
        ),
    ],
)
def test_a_fault_of_a_shared_table_is_named_with_file_and_row(
    copy: Path, file: str, before: str, after: str, said: str
) -> None:
    text = (copy / file).read_text(encoding="utf-8")
    assert before in text
    row = text[: text.index(before)].count("\n") + 1
    (copy / file).write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(KnowledgeInvalid) as refused:
        load_shared(ONTOLOGY, copy)
    assert any(said in problem for problem in refused.value.problems), refused.value.problems
    if "parent" not in said:  # (rows whose parent is gone are named too)
        assert any(problem.startswith(f"{file} row {row}: ") for problem in refused.value.problems)


def test_a_disease_that_is_named_but_not_described_is_a_fault(copy: Path) -> None:
    (copy / "diseases" / FILE).write_text(TEXT, encoding="utf-8")
    with pytest.raises(KnowledgeInvalid) as refused:
        load_knowledge(ONTOLOGY, copy)
    assert f"{FILE}: no disease 'acute-bronchitis'" in refused.value.problems


def test_all_faults_of_all_files_are_reported_at_once(copy: Path) -> None:
    for name in ("gout", "migraine"):
        text = DATA.joinpath("diseases", f"{name}.toml").read_text(encoding="utf-8")
        (copy / "diseases" / f"{name}.toml").write_text(text.replace("schema = 1", "schema = 7", 1), "utf-8")
    with pytest.raises(KnowledgeInvalid) as refused:
        load_knowledge(ONTOLOGY, copy)
    assert {"gout.toml: schema must be 1", "migraine.toml: schema must be 1"} <= set(refused.value.problems)
