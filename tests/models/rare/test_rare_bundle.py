"""The rare-disease engine travels in a signed bundle as one more part."""

from pathlib import Path

import pytest
from bundle_helpers import KEY, TRUSTED, tiny_bundle
from rare_values import knowledge, model
from typer.testing import CliRunner

from cds_server.cli import app
from models.bundle import BundleDigestMismatch, add_rare, load_bundle
from models.bundle_seal import read_private_key, read_trusted_keys
from models.rare.engine import RareEngine
from models.rare.phenotype import Phenotype
from training.rare.artifact import packed, write_artifact

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


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a site signs with a key of its own: a bundle without the rare engine, and its keys."""
    assert run("bundle", "keys", "new", str(tmp_path / "keys"))[0] == 0
    tiny_bundle(tmp_path / "plain", private_key=read_private_key(tmp_path / "keys" / "signing_key.pem"))
    monkeypatch.setenv("CDS_TRUSTED_MODEL_KEYS", str(tmp_path / "keys" / "trusted_keys.json"))
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def add(site: Path, out: str, *more: str) -> tuple[int, str]:
    key = str(site / "keys" / "signing_key.pem")
    return run("bundle", "add-rare", str(site / "plain"), str(site / out), "--key", key, *more)


def test_what_training_wrote_is_put_into_a_bundle_and_carried_over_from_it(site: Path) -> None:
    arrays = {**knowledge().arrays(), **model()}
    write_artifact(site / "trained", arrays, {"attribution": "HPO, cited"})
    code, said = add(site, "first", "--rare", str(site / "trained"))
    assert code == 0, said
    code, said = add(site, "second", "--rare", str(site / "first"))
    assert code == 0, said
    keys = read_trusted_keys(site / "keys" / "trusted_keys.json")
    for name in ("first", "second"):
        bundle = load_bundle(site / name, keys)
        assert bundle.rare is not None
        assert bundle.manifest.licences["Human Phenotype Ontology and annotations"] == "HPO, cited"
        assert RareEngine.of(bundle.rare).assess(PATIENT) == RareEngine.of(arrays).assess(PATIENT)


def test_the_shipped_bundles_engine_is_the_default_though_a_site_trusts_its_own_key_only(site: Path) -> None:
    code, said = add(site, "out")
    assert code == 0, said
    shipped = load_bundle(site / "out", read_trusted_keys(site / "keys" / "trusted_keys.json"))
    assert shipped.rare is not None and len(RareEngine.of(shipped.rare).knowledge.diseases) > 10_000
    assert "hpo.jax.org" in shipped.manifest.licences["Human Phenotype Ontology and annotations"]


@pytest.mark.parametrize(
    ("place", "why"), [("nothing", "rare.npz and rare.json"), ("plain", "has no rare.npz")]
)
def test_where_there_is_no_rare_engine_is_told(site: Path, place: str, why: str) -> None:
    code, said = add(site, "out", "--rare", str(site / place))
    assert code == 1 and why in said and not (site / "out").exists()
