"""What each single statement of a chart does to the features, learned by reading it with the real reader.

Responsible for the matrices by which `rows` turns thousands of recorded patients into features at once.
There is no second set of reading rules: every code is put in a Bundle of one statement and read by
`ChartBuilder` and `FeatureReader`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy.sparse import csr_matrix

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.decode import read_bundle
from fhir_adapters.features import FeatureReader, Features
from training.simulation import bundles
from training.simulation.bundles import AT, Resource, concept, condition
from training.simulation.recording import CONSCIOUSNESS, drug_list
from training.simulation.tables import Tables


@dataclass(frozen=True)
class Effect:
    """Statements [S] on findings present [S, V], findings denied [S, V] and risks [S, R] (1, 0.5, -1)."""

    present: csr_matrix
    denied: csr_matrix
    risks: csr_matrix


@dataclass(frozen=True)
class Effects:
    """By kind of statement; `findings` by how it is said."""

    complaint: Effect
    present: Effect
    unsure: Effect
    denied: Effect
    risk: Effect
    risk_denied: Effect
    drug: Effect
    consciousness: Effect
    pregnant: Effect
    not_pregnant: Effect


def learn_effects(tables: Tables, builder: ChartBuilder, labels: dict[str, str]) -> Effects:
    """Read every statement there is once (about 3,000; a few seconds)."""
    reader = FeatureReader(tables.schema, builder.tables.ontology)
    keys = tables.schema.findings

    def effect(statements: Sequence[tuple[list[Resource], list[Resource]]]) -> Effect:
        return _matrix(reader, [_read(builder, reader, *statement) for statement in statements])

    codes = [concept(key, labels[key]) for key in keys]
    risks = tables.schema.risks
    pregnancy = ("77386006", "60001007")
    return Effects(
        complaint=effect([([condition(code)], [code]) for code in codes]),
        present=effect([([condition(code)], []) for code in codes]),
        unsure=effect([([condition(code, "unconfirmed")], []) for code in codes]),
        denied=effect([([condition(code, "refuted")], []) for code in codes]),
        risk=effect([(bundles.risk_resources(evidence, name, 1), []) for name, evidence in risks]),
        risk_denied=effect([(bundles.risk_resources(evidence, name, -1), []) for name, evidence in risks]),
        drug=effect([([bundles.medication(atc)], []) for _, atc, _ in drug_list(tables)]),
        consciousness=effect([([bundles.consciousness(level)], []) for level in CONSCIOUSNESS]),
        pregnant=effect([([_pregnancy(pregnancy[0])], [])]),
        not_pregnant=effect([([_pregnancy(pregnancy[1])], [])]),
    )


def _pregnancy(code: str) -> Resource:
    coding = {"system": bundles.SNOMED, "code": code}
    return bundles.observation("82810-3", AT, valueCodeableConcept={"coding": [coding]})


def _read(
    builder: ChartBuilder, reader: FeatureReader, resources: list[Resource], reasons: list[Resource]
) -> Features:
    patient: Resource = {"resourceType": "Patient", "id": "p", "birthDate": "1990-06-01", "gender": "female"}
    encounter: Resource = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "in-progress",
        "class": {"code": "AMB"},
        "period": {"start": AT.isoformat()},
        "subject": {"reference": "Patient/p"},
        "reasonCode": reasons,
    }
    for number, resource in enumerate(resources):
        key = "patient" if resource["resourceType"] == "FamilyMemberHistory" else "subject"
        resource.update({"id": f"r{number}", key: {"reference": "Patient/p"}})
    entry = [{"resource": resource} for resource in (patient, encounter, *resources)]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entry}
    chart = builder.build(
        read_bundle(msgspec.json.encode(bundle)), at=AT, patient_id=None, retrospective=True
    )
    return reader.read(chart)


def _matrix(reader: FeatureReader, read: list[Features]) -> Effect:
    width, risks = len(reader.schema.findings), len(reader.schema.risks)
    present: list[tuple[int, int, float]] = []
    denied: list[tuple[int, int, float]] = []
    risk: list[tuple[int, int, float]] = []
    for row, features in enumerate(read):
        for stated in features.stated:
            (present if stated.value > 0 else denied).append((row, stated.finding, 1.0))
        for index, value in zip(features.index, features.values, strict=True):
            if reader.at_risks <= index < reader.at_values:
                risk.append((row, index - reader.at_risks, value))
    return Effect(
        _sparse(present, len(read), width), _sparse(denied, len(read), width), _sparse(risk, len(read), risks)
    )


def _sparse(cells: list[tuple[int, int, float]], rows: int, columns: int) -> csr_matrix:
    if not cells:
        return csr_matrix((rows, columns), dtype=np.float32)
    row, column, value = zip(*cells, strict=True)
    return csr_matrix((value, (row, column)), shape=(rows, columns), dtype=np.float32)
