"""Reads and checks the knowledge base: shape, ranges, codes, sources, both languages.

Responsible for turning ``data/diseases/*.toml`` and the shared tables into a `Knowledge`, or into one
error that lists everything that is wrong.  It checks what can be checked without a package that serving
lacks; whether ICD-10-CM codes exist and tests are readable is checked by `training.knowledge_check`.
"""

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from fhir_adapters.hpo import Ontology
from models.knowledge.checks import DiseaseChecker
from models.knowledge.schema import AGE_BANDS, Disease, Knowledge
from models.knowledge.shared_tables import COLUMNS, SharedTables, read_shared

DATA = resources.files("models.knowledge").joinpath("data")


class KnowledgeInvalid(ValueError):
    """The knowledge base is wrong somewhere; `problems` names file and entry of each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_knowledge(ontology: Ontology, data: Traversable = DATA) -> Knowledge:
    """Read a knowledge base (the packaged one); raises `KnowledgeInvalid` with everything that is wrong."""
    shared = load_shared(ontology, data)
    problems: list[str] = []
    files = sorted(
        (entry for entry in data.joinpath("diseases").iterdir() if entry.name.endswith(".toml")),
        key=lambda entry: entry.name,
    )
    checker = DiseaseChecker(ontology, shared.findings, shared.risks, shared.analytes)
    diseases: list[Disease] = []
    for entry in files:
        disease, faults = checker.read(entry.name, entry.read_text(encoding="utf-8"))
        problems += faults
        if disease is not None:
            diseases.append(disease)
    ids = {disease.id for disease in diseases}
    for disease in diseases:
        others = {*disease.mimics, *(other for row in disease.tests for other in row[3])}
        problems += [f"{disease.id}.toml: no disease {other!r}" for other in sorted(others - ids)]
    if problems:
        raise KnowledgeInvalid(problems)
    return Knowledge(
        tuple(sorted(diseases, key=lambda disease: disease.id)),
        tuple(sorted(shared.findings, key=lambda row: row.key)),
        shared.risks,
        shared.analytes,
        shared.complaints,
        shared.asked_from,
        shared.unrelated,
        _digest(data),
        ontology.version,
    )


def load_shared(ontology: Ontology, data: Traversable = DATA) -> SharedTables:
    """The shared tables; raises `KnowledgeInvalid` when one of them is wrong.

    No disease is looked at then: a fault in a shared table would come back in each that uses the row.
    """
    problems: list[str] = []
    shared = read_shared(data, ontology, problems)
    if problems:
        raise KnowledgeInvalid(problems)
    return shared


def load_checker(ontology: Ontology, data: Traversable = DATA) -> DiseaseChecker:
    """A checker over the shared tables; raises `KnowledgeInvalid` when one of them is wrong."""
    shared = load_shared(ontology, data)
    return DiseaseChecker(ontology, shared.findings, shared.risks, shared.analytes)


def age_band(years: float) -> int:
    """The number of the age band (0 to 9) of an age in years."""
    return next(index for index, (_, end) in enumerate(AGE_BANDS) if years < end)


def _digest(data: Traversable) -> str:
    """SHA-256 over the shared tables and the disease files; other files of the folder do not count."""
    total = hashlib.sha256()
    diseases = data.joinpath("diseases").iterdir()
    files = [*(data.joinpath(name) for name in COLUMNS), *(e for e in diseases if e.name.endswith(".toml"))]
    for entry in sorted(files, key=lambda item: item.name):
        content = entry.read_bytes()
        total.update(f"{entry.name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()
