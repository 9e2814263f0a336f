"""A finished run as a signed model bundle.

Responsible for putting arrays, manifest and model card together; what the arrays are is `parts`, what the
card says `card`, the format itself `models.bundle`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models.bundle import Bundle, write_bundle
from training.ensemble.card import CardFacts, model_card
from training.ensemble.cohort import Simulator
from training.ensemble.config import EnsembleConfig
from training.ensemble.parts import bundle_parts
from training.ensemble.train import Trained
from training.evaluation.report import flat_metrics

NAME = "common"
LICENCES = {
    "knowledge": "written for this product; every row names its source and evidence grade",
    "human-phenotype-ontology": "free use with attribution (human-phenotype-ontology.github.io/license)",
    "icd-10-cm": "public domain (CDC/NCHS)",
    "loinc": "LOINC licence (loinc.org/license): codes used free of charge, with attribution",
    "snomed-ct": "concept ids only; use needs a licence where SNOMED International asks for one",
    "training-data": "simulated patients of this product unless the model card names datasets",
}


@dataclass(frozen=True)
class Origin:
    """Where a run comes from.

    `created` is the day, `revision` that of the code, `sources` and `data_digest` as
    `training.ensemble.assemble.Assembled` has them.
    """

    version: str
    created: date
    revision: str
    sources: tuple[dict[str, str | int], ...]
    data_digest: str


def build_bundle(
    directory: Path,
    simulator: Simulator,
    trained: Trained,
    config: EnsembleConfig,
    origin: Origin,
    report: dict[str, Any],
    key: Ed25519PrivateKey,
    extra_metrics: Mapping[str, float] | None = None,
) -> Bundle:
    """Write and sign the bundle of a run at `directory`; the same arguments give the same bytes.

    Args:
        directory: replaced when there is a bundle.
        report: of `training.evaluation.report.build_report`; its figures go into manifest and card.
        key: signs; servers must trust its public key.
        extra_metrics: further figures for the manifest.

    Raises what `models.bundle.write_bundle` raises.
    """
    knowledge = simulator.knowledge
    diseases, stack, arrays = bundle_parts(knowledge, simulator.tables, trained, config.coverage)
    facts = CardFacts(
        version=origin.version,
        created=origin.created.isoformat(),
        revision=origin.revision,
        knowledge=knowledge.digest,
        ontology=knowledge.ontology,
        diseases=len(diseases),
        features=len(simulator.schema.names()),
        sources=origin.sources,
        data_digest=origin.data_digest,
        coverage=config.coverage,
        critical_weight=config.critical_weight,
    )
    return write_bundle(
        directory,
        name=NAME,
        version=origin.version,
        created=origin.created.isoformat(),
        knowledge_release=knowledge.digest,
        training_data_digest=origin.data_digest,
        code_revision=origin.revision,
        metrics=flat_metrics(report) | dict(extra_metrics or {}),
        licences=LICENCES,
        schema=simulator.schema,
        diseases=diseases,
        stack=msgspec.to_builtins(stack),
        arrays=arrays,
        model_card=model_card(facts, report),
        private_key=key,
    )
