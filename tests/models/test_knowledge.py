"""The shipped knowledge base: what it covers, that it is whole, and that its parts fit together."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.hpo import load_ontology
from models.knowledge.loader import DATA, age_band, load_knowledge
from models.knowledge.schema import AGE_BANDS, Disease, Knowledge

ONTOLOGY = load_ontology()
KNOWLEDGE = load_knowledge(ONTOLOGY)
DISEASES = {disease.id: disease for disease in KNOWLEDGE.diseases}


def probability(disease: Disease, label: str) -> float:
    """The highest chance of a finding over the grades of a disease, 0 where it is not listed."""
    for _, name, chance, _ in disease.findings:
        if name == label:
            return chance if isinstance(chance, float) else max(chance)
    return 0.0


def test_at_least_200_diseases_over_all_organ_systems_are_described() -> None:
    assert len(DISEASES) >= 200
    groups = Counter(disease.group for disease in DISEASES.values())
    assert len(groups) == 24
    assert min(groups.values()) >= 4


def test_children_pregnancy_and_the_healthy_are_among_them() -> None:
    assert sum(disease.rate.age[2] > disease.rate.age[6] for disease in DISEASES.values()) >= 30
    assert sum(disease.rate.pregnancy > 5 for disease in DISEASES.values()) >= 5
    assert any(disease.group == "healthy" for disease in DISEASES.values())
    assert any(disease.group == "nonspecific" for disease in DISEASES.values())


def test_every_name_is_there_in_both_languages_and_belongs_to_one_disease_only() -> None:
    for language in ("en", "es"):
        names = [getattr(disease.name, language).strip().lower() for disease in DISEASES.values()]
        assert all(names)
        assert [name for name, count in Counter(names).items() if count > 1] == []


@pytest.mark.parametrize("setting", ["primary_care", "emergency"])
def test_the_rates_of_a_setting_come_to_about_ten_thousand_visits(setting: str) -> None:
    total = sum(getattr(disease.rate, setting) for disease in DISEASES.values())
    assert 7_000 < total < 11_000


def test_a_sixth_of_emergency_visits_needs_immediate_attention() -> None:
    # As the simulator weighs the grades there: who comes to an emergency department is the more ill.
    visits = immediate = 0.0
    for disease in DISEASES.values():
        weights = [grade.weight * (0.8 + grade.immediate) for grade in disease.grades]
        rate = disease.rate.emergency
        visits += rate
        immediate += (
            rate
            * sum(w * grade.immediate for w, grade in zip(weights, disease.grades, strict=True))
            / sum(weights)
        )
    assert 0.14 < immediate / visits < 0.22


def test_every_finding_of_a_disease_has_a_row_and_every_row_is_used() -> None:
    used = {row[0] for disease in DISEASES.values() for row in disease.findings}
    assert used == {row.key for row in KNOWLEDGE.findings}


@pytest.mark.parametrize("disease", DISEASES.values(), ids=lambda disease: disease.id)
def test_a_disease_lists_what_its_patients_say_and_how_it_is_told_apart(disease: Disease) -> None:
    assert len(disease.findings) >= 20
    assert disease.vitals
    assert disease.recommend
    severities = {grade.severity for grade in disease.grades}
    assert severities == {"no-disease"} or disease.mimics


@pytest.mark.parametrize(
    ("diseases", "findings"),
    [
        (
            ("common-cold", "influenza", "covid-19", "community-acquired-pneumonia", "acute-bronchitis"),
            ("Fever", "Cough", "Fatigue", "Malaise", "Headache", "Poor appetite", "Rhinorrhea"),
        ),
        (
            ("acute-appendicitis", "acute-cholecystitis", "acute-pancreatitis", "bowel-obstruction"),
            ("Abdominal pain", "Pain", "Nausea", "Vomiting", "Poor appetite", "Fever"),
        ),
        (
            ("stemi", "nstemi", "pulmonary-embolism", "aortic-dissection", "acute-pericarditis"),
            ("Chest pain", "Dyspnea", "Hyperhidrosis", "Nausea", "Palpitations", "Presyncope", "Anxiety"),
        ),
        (("migraine", "tension-headache", "subarachnoid-haemorrhage"), ("Headache", "Pain", "Nausea")),
    ],
    ids=["respiratory-infections", "abdomen", "chest", "headache"],
)
def test_diseases_that_are_confused_are_described_by_the_same_findings(
    diseases: tuple[str, ...], findings: tuple[str, ...]
) -> None:
    missing = [(d, f) for d in diseases for f in findings if probability(DISEASES[d], f) == 0]
    assert missing == []


def test_an_injury_is_not_read_from_the_code_of_a_suicide_attempt() -> None:
    keys = {row.key for row in KNOWLEDGE.findings}
    assert "ICD:T14.90" in keys
    assert not any("T14.91".startswith(key[4:]) for key in keys if key.startswith("ICD:"))


def test_parents_of_findings_form_no_circle() -> None:
    parent = {row.key: row.parent for row in KNOWLEDGE.findings}
    for key, own in parent.items():
        seen = [key]
        while parent[seen[-1]]:
            assert parent[seen[-1]] not in seen
            seen.append(parent[seen[-1]])
        if key.startswith("HP:") and own.startswith("HP:"):
            assert key not in ONTOLOGY.ancestors(own)


def test_the_digest_is_of_the_knowledge_and_of_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(Path(str(DATA)), tmp_path / "data")
    assert load_knowledge(ONTOLOGY, tmp_path / "data").digest == KNOWLEDGE.digest
    (tmp_path / "data" / "notes.txt").write_text("not part of it", encoding="utf-8")
    assert load_knowledge(ONTOLOGY, tmp_path / "data").digest == KNOWLEDGE.digest
    file = tmp_path / "data" / "diseases" / "gout.toml"
    file.write_text(file.read_text(encoding="utf-8") + "# one more line\n", encoding="utf-8")
    changed: Knowledge = load_knowledge(ONTOLOGY, tmp_path / "data")
    assert changed.digest != KNOWLEDGE.digest
    assert len(changed.digest) == hashlib.sha256().digest_size * 2


@given(st.floats(min_value=0, max_value=129.9))
def test_every_age_has_exactly_one_band(years: float) -> None:
    band = age_band(years)
    assert years < AGE_BANDS[band][1]
    assert band == 0 or years >= AGE_BANDS[band - 1][1]
