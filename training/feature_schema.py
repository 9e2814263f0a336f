"""From the knowledge base to the `FeatureSchema` by which charts are read in training and serving.

Responsible for the order of features and for which finding is a kind of which; the reading itself is
`fhir_adapters.features`.
"""

import csv

from fhir_adapters.features import AnalyteFeature, FeatureSchema
from fhir_adapters.hpo import Ontology
from models.knowledge.loader import DATA
from models.knowledge.schema import AGE_BANDS, Analyte, Knowledge

WINDOW_HOURS = {"vital": 24.0, "laboratory": 72.0, "body": 24.0 * 365}
"""How old a value may be and still speak of now: as `models/rules/data/currency.toml` has it."""
TRENDS = (
    "temperature", "heart-rate", "respiratory-rate", "systolic", "spo2", "creatinine", "potassium", "sodium",
    "haemoglobin", "leukocytes", "platelets", "crp", "lactate", "troponin", "glucose", "total-bilirubin",
)  # fmt: skip


def build_schema(knowledge: Knowledge, ontology: Ontology) -> FeatureSchema:
    """The schema of a knowledge base; the same knowledge gives the same schema."""
    keys = [row.key for row in knowledge.findings]
    number = {key: place for place, key in enumerate(keys)}
    parents = {row.key: row.parent for row in knowledge.findings}
    cut = knowledge.unrelated

    def above(key: str) -> set[str]:
        found: set[str] = set()
        if key.startswith("HP:"):
            found |= {term for term in ontology.ancestors(key) if term in number and (key, term) not in cut}
        parent = parents[key]
        if parent:
            found |= {parent} | above(parent)
        return found - {key}

    ages = _ages()
    results = sorted({row[0] for disease in knowledge.diseases for row in disease.results})
    places = {analyte.key: place for place, analyte in enumerate(knowledge.analytes)}
    return FeatureSchema(
        ontology=knowledge.ontology,
        findings=tuple(keys),
        above=tuple(tuple(sorted(number[term] for term in above(key))) for key in keys),
        risks=tuple((risk.id, risk.evidence) for risk in knowledge.risks),
        analytes=tuple(_analyte(analyte, ages) for analyte in knowledge.analytes),
        trends=tuple(places[key] for key in TRENDS),
        results=tuple(results),
        coded=_coded(),
        age_bands=tuple(end for _, end in AGE_BANDS),
    )


def _analyte(analyte: Analyte, ages: dict[str, list[tuple[float, float, float]]]) -> AnalyteFeature:
    return AnalyteFeature(
        analyte.key,
        analyte.loinc,
        analyte.distribution == "lognormal",
        analyte.male,
        analyte.female,
        analyte.spread,
        WINDOW_HOURS[analyte.kind],
        tuple(sorted(ages.get(analyte.key, ()))),
    )


def _ages() -> dict[str, list[tuple[float, float, float]]]:
    found: dict[str, list[tuple[float, float, float]]] = {}
    lines = DATA.joinpath("vital_ages.csv").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(lines):
        found.setdefault(row["key"], []).append(
            (float(row["below_years"]), float(row["normal"]), float(row["spread"]))
        )
    return found


def _coded() -> dict[str, tuple[str, str]]:
    lines = DATA.joinpath("coded_findings.csv").read_text(encoding="utf-8").splitlines()
    return {
        f"{row['loinc']}={row['answer']}": (row["finding"], row["state"]) for row in csv.DictReader(lines)
    }
