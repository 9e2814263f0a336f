"""The rare-disease engine travels in a signed bundle as one more part."""

from pathlib import Path

import pytest
from bundle_helpers import KEY, TRUSTED, tiny_bundle
from rare_values import knowledge, model

from models.bundle import BundleDigestMismatch, add_rare, load_bundle
from models.rare.engine import RareEngine
from models.rare.phenotype import Phenotype
from training.rare.artifact import packed

PATIENT = Phenotype(("HP:0002197", "HP:0001249"))


def test_a_bundle_carries_the_rare_engine_and_answers_as_its_arrays_do(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "plain")
    arrays = {**knowledge().arrays(), **model()}
    add_rare(tmp_path / "plain", tmp_path / "both", TRUSTED, packed(arrays), {"HPO": "cite"}, KEY)
    bundle = load_bundle(tmp_path / "both", TRUSTED)
    assert bundle.rare is not None and bundle.manifest.licences["HPO"] == "cite"
    assert RareEngine.of(bundle.rare).assess(PATIENT) == RareEngine.of(arrays).assess(PATIENT)
    assert load_bundle(tmp_path / "plain", TRUSTED).rare is None


def test_a_changed_rare_part_is_noticed(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "plain")
    add_rare(tmp_path / "plain", tmp_path / "both", TRUSTED, packed(knowledge().arrays()), {}, KEY)
    part = tmp_path / "both" / "rare.npz"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleDigestMismatch, match=r"rare\.npz"):
        load_bundle(tmp_path / "both", TRUSTED)
