"""Tiny model bundles, whole and signed, for tests of everything that carries bundles about.

Three diseases told apart by fever and cough: one boosted tree, one tree in the forest and one hidden
unit.  The figures mean nothing; the shapes are those of the shipped bundle.
"""

from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fhir_adapters.features import AnalyteFeature, FeatureSchema
from fhir_adapters.hpo import load_ontology
from models.bundle import Bundle, write_bundle
from models.bundle_seal import trusted_keys_json
from models.common.disease import DiseaseInfo

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = (KEY.public_key(),)
SEVERITIES, IMMEDIATE = 5, 1


def trusted_file(directory: Path) -> Path:
    """A file that trusts `KEY`."""
    path = directory / "trusted.json"
    path.write_bytes(trusted_keys_json([(KEY.public_key(), "tests")]))
    return path


def tiny_schema(**changes: Any) -> FeatureSchema:
    """Fever, cough, smoking, temperature and one test."""
    fields: dict[str, Any] = {
        "ontology": load_ontology().version,
        "findings": ("HP:0001945", "HP:0012735"),
        "above": ((), ()),
        "risks": (("smoking", ("icd:F17",)),),
        "analytes": (AnalyteFeature("temperature", "8310-5", False, 36.8, 36.8, 0.4, 24.0),),
        "trends": (0,),
        "results": ("94500-6",),
        "coded": {},
        "age_bands": (18.0, 65.0, 120.0),
    }
    return FeatureSchema(**(fields | changes))


def tiny_diseases() -> tuple[DiseaseInfo, ...]:
    """Three that everybody knows."""
    rows = (
        ("common-cold", "Common cold", "Resfriado común", "J00", "J00", (0.0, 0.5, 0.5, 0.0, 0.0), 0.01),
        ("influenza", "Influenza", "Gripe", "J11", "J11.1", (0.0, 0.1, 0.5, 0.4, 0.0), 0.05),
        ("sepsis", "Sepsis", "Sepsis", "A41", "A41.9", (0.0, 0.0, 0.0, 1.0, 0.0), 0.9),
    )
    return tuple(
        DiseaseInfo(
            id=name,
            en=english,
            es=spanish,
            group="infection",
            icd10=icd10,
            icd10cm=icd10cm,
            also=(),
            snomed=None,
            severity=severity,
            immediate=immediate,
            critical=immediate > 0.5,
            recommend=(),
            tests=(),
            mimics=(),
        )
        for name, english, spanish, icd10, icd10cm, severity, immediate in rows
    )


def tiny_arrays(schema: FeatureSchema, diseases: int = 3) -> dict[str, NDArray[Any]]:
    """Every array the ensemble reads, with one split on the first finding."""
    width = diseases + SEVERITIES + IMMEDIATE
    features = len(schema.names())
    single: Any = np.float32
    table = np.linspace(-1, 1, len(schema.findings) * diseases, dtype=single).reshape(-1, diseases)
    rows = {
        "present": table,
        "absent": -table,
        "risk": np.zeros((len(schema.risks), diseases), single),
        "no_risk": np.zeros((len(schema.risks), diseases), single),
        "positive": np.zeros((len(schema.results), diseases), single),
        "negative": np.zeros((len(schema.results), diseases), single),
        "mean": np.zeros((len(schema.analytes), diseases), single),
        "precision": np.ones((len(schema.analytes), diseases), single),
        "offset": np.zeros((len(schema.analytes), diseases), single),
        "least": np.full((len(schema.analytes), diseases), -4.0, single),
        "prior": np.zeros((2, len(schema.age_bands) + 1, diseases), single),
        "sex": np.zeros((3, diseases), single),
        "pregnant": np.zeros((3, diseases), single),
        "complaint": np.zeros((1, diseases), single),
        "usual": np.full(diseases, 1 / diseases, single),
        "attention": np.linspace(0.1, 0.9, diseases, dtype=single),
        "tempering": np.array(0.7, single),
    }
    # One inner node on feature 0, then its two leaves.
    tree: dict[str, NDArray[Any]] = {
        "roots": np.array([0], np.int32),
        "starts": np.array([0] + [1] * features, np.int32),
        "threshold": np.array([0.25, 0, 0], single),
        "left": np.array([1, 1, 2], np.int32),
        "right": np.array([2, 1, 2], np.int32),
        "zero_left": np.array([True, False, False]),
        "depth": np.array(1),
    }
    found: dict[str, NDArray[Any]] = {f"likelihood.{name}": values for name, values in rows.items()}
    found |= {f"boosted.{name}": values for name, values in tree.items()}
    found |= {f"forest.{name}": values for name, values in tree.items()}
    share = np.full(2 * width, 1 / width, single)
    return found | {
        "boosted.column": np.array([1], np.int32),
        "boosted.value": np.array([0, -0.5, 0.5], single),
        "boosted.base": np.zeros(width, single),
        "forest.first": np.array(1),
        "forest.start": np.array([0, width, 2 * width], np.int32),
        "forest.column": np.tile(np.arange(width, dtype=np.uint16), 2),
        "forest.share": share,
        "forest.usual": np.zeros(width, single),
        "knowledge.chance": np.linspace(0.1, 0.9, len(schema.findings) * diseases, dtype=single).reshape(
            -1, diseases
        ),
        "knowledge.asked_from": np.zeros(len(schema.findings), single),
        "knowledge.test_pairs": np.array([[0, 0, 2]], np.int32),
        "knowledge.labels": np.array(schema.findings),
        "knowledge.test": np.full((1, diseases), 0.5, single),
        "knowledge.test_names": np.array(["blood-cultures"]),
        "network.w1": np.zeros((features, 1), single),
        "network.b1": np.zeros(1, single),
        "network.w2": np.zeros((1, width), single),
        "network.b2": np.zeros(width, single),
    }


def tiny_stack(diseases: int = 3) -> dict[str, Any]:
    """Parameters of pool, calibration and sets."""
    return {
        "disease": [1.0, 0.5, 0.0, 0.5],
        "disease_bias": [0.0] * diseases,
        "disease_temperature": 1.0,
        "severity": [1.0, 0.0, 0.0, 0.0],
        "severity_bias": [0.0] * SEVERITIES,
        "severity_temperature": 1.0,
        "immediate": [1.0, 0.0, 0.0, 0.0, 0.1],
        "immediate_bias": 0.0,
        "set_threshold": 0.05,
        "coverage": 0.9,
        "similarity": [float(number) for number in range(101)],
        "forest_floor": 0.001,
    }


def tiny_bundle(directory: Path, version: str = "1.0.0", **changes: Any) -> Bundle:
    """Write and sign a bundle at `directory`; `changes` are arguments of `write_bundle`."""
    schema = changes.pop("schema", None) or tiny_schema()
    arguments: dict[str, Any] = {
        "name": "tiny",
        "version": version,
        "created": "2026-11-01",
        "knowledge_release": "sha256.0",
        "training_data_digest": "sha256.1",
        "code_revision": "abc",
        "metrics": {"macro_f1": 0.5},
        "licences": {"knowledge": "own work"},
        "schema": schema,
        "diseases": tiny_diseases(),
        "stack": tiny_stack(),
        "arrays": tiny_arrays(schema),
        "model_card": "# Tiny\n\nFor tests only.\n",
        "private_key": KEY,
    }
    return write_bundle(directory, **(arguments | changes))
