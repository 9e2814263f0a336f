"""A small world for the training tests: twelve diseases, small members, an MLflow store of its own."""

import functools
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fhir_adapters.chart_builder import ChartBuilder
from models.bundle_seal import trusted_keys_json
from models.knowledge.loader import load_knowledge
from training.datasets.context import DatasetContext
from training.ensemble.cohort import Simulator
from training.ensemble.config import BoostedConfig, EnsembleConfig, ForestConfig, NetworkConfig

DISEASES = (
    "acute-appendicitis", "acute-gastroenteritis", "acute-pyelonephritis", "common-cold",
    "community-acquired-pneumonia", "gout", "hypertension", "influenza", "migraine", "panic-attack",
    "pulmonary-embolism", "stemi",
)  # fmt: skip
NOW = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = (KEY.public_key(),)
TINY = EnsembleConfig(
    patients=1500,
    folds=2,
    reads=120,
    threads=1,
    boosted=BoostedConfig(rounds=2, depth=3, severity_rounds=4, immediate_rounds=8),
    forest=ForestConfig(trees=6, leaves=60, depth=8),
    network=NetworkConfig(hidden=16, epochs=2),
)


@functools.cache
def small_simulator() -> Simulator:
    """The simulator over the packaged knowledge with `DISEASES` only."""
    builder = ChartBuilder.load()
    knowledge = load_knowledge(builder.tables.ontology)
    kept = tuple(disease for disease in knowledge.diseases if disease.id in DISEASES)
    assert len(kept) == len(DISEASES), set(DISEASES) - {disease.id for disease in kept}
    return Simulator(builder, msgspec.structs.replace(knowledge, diseases=kept))


@functools.cache
def small_context() -> DatasetContext:
    """What datasets of the same twelve diseases are read with."""
    return DatasetContext(small_simulator().builder, small_simulator().knowledge)


def key_files(directory: Path) -> tuple[Path, Path]:
    """`KEY` as its PEM file, and the file that trusts it."""
    private, trusted = directory / "signing_key.pem", directory / "trusted_keys.json"
    private.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    trusted.write_bytes(trusted_keys_json([(TRUSTED[0], "tests")]))
    return private, trusted
