"""What relatives say: named exactly, weighed within bounds, explained; nothing where nothing is recorded."""

import math
import re
import tomllib
from importlib import resources

import msgspec
import numpy as np
import pytest
import rare_values
import simple_icd_10_cm as icd
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rare_engine import PHENOTYPES, SEIZURES, case, encoded

from fhir_adapters.terminology.codes import is_sctid
from hooks.texts import load
from models.rare.disease_names import DiseaseNames, FamilyDataInvalid, family_codes, normal
from models.rare.diseases import Diseases
from models.rare.engine import FAMILY_HISTORY
from models.rare.phenotype import Inherited, Phenotype
from models.rare.relatives import MOST, Relations, read_relations, relations, strongest
from training.rare.artifact import read_arrays

ENGINE = rare_values.engine()
INHERITED = st.lists(
    st.builds(
        Inherited, st.sampled_from(["OMIM:1", "ORPHA:2", "OMIM:3", "OMIM:5", "OMIM:99"]), st.floats(0, 4)
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one.disease,
).map(tuple)
TABLE = resources.files("models.rare").joinpath("data", "relatives.toml").read_text(encoding="utf-8")


def with_family(phenotype: Phenotype, inherited: tuple[Inherited, ...]) -> Phenotype:
    return msgspec.structs.replace(phenotype, inherited=inherited)


@settings(max_examples=60, deadline=None)
@given(PHENOTYPES, INHERITED)
def test_with_relatives_the_reasons_still_add_up_and_the_probabilities_are_of_one_whole(
    phenotype: Phenotype, inherited: tuple[Inherited, ...]
) -> None:
    found = ENGINE.assess(with_family(phenotype, inherited), explained=5)
    for candidate in found.candidates:
        total = candidate.baseline + sum(share.amount for share in candidate.shares)
        assert total == pytest.approx(candidate.score, abs=1e-3)
    total = sum(candidate.probability for candidate in found.candidates)
    assert total + found.none_probability + found.rest_probability == pytest.approx(1, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(PHENOTYPES, st.floats(0.01, 4))
def test_a_relatives_disease_gains_just_its_likelihood_ratio_over_every_other(
    phenotype: Phenotype, nats: float
) -> None:
    before = {one.ids: one for one in ENGINE.assess(phenotype).candidates}
    after = {
        one.ids: one
        for one in ENGINE.assess(
            with_family(phenotype, (Inherited("ORPHA:3", nats),)), explained=5
        ).candidates
    }
    named, other = ("OMIM:3", "ORPHA:3"), ("OMIM:1", "ORPHA:1")
    gain = math.log(after[named].probability / after[other].probability)
    gain -= math.log(before[named].probability / before[other].probability)
    assert gain == pytest.approx(nats, abs=1e-3)
    assert [share.feature for share in after[named].shares].count(FAMILY_HISTORY) == 1
    assert all(share.feature != FAMILY_HISTORY for share in after[other].shares)


@settings(max_examples=40, deadline=None)
@given(PHENOTYPES, INHERITED)
def test_relatives_ring_no_alarm(phenotype: Phenotype, inherited: tuple[Inherited, ...]) -> None:
    plain, told = (
        ENGINE.alarm(ENGINE.shortlist(each)) for each in (phenotype, with_family(phenotype, inherited))
    )
    assert (plain.probability, plain.shares) == (told.probability, told.shares)


@settings(max_examples=40, deadline=None)
@given(PHENOTYPES)
def test_a_family_that_names_nothing_known_changes_no_bit(phenotype: Phenotype) -> None:
    told = with_family(phenotype, (Inherited("OMIM:99", 4.0),))
    assert encoded(ENGINE.assess(told)) == encoded(ENGINE.assess(phenotype))


def test_a_disease_beyond_the_candidates_is_ranked_when_a_relative_has_it() -> None:
    scorer = ENGINE.scorer
    plain = scorer.shortlist(SEIZURES, count=2)
    missing = next(number for number in range(5) if number not in plain.owner)
    asked = scorer.widened(plain, [missing])
    assert asked.owner.tolist() == [*plain.owner.tolist(), missing]
    assert np.array_equal(scorer.features(asked)[:, 0][:2], scorer.features(plain)[:, 0])
    assert scorer.widened(plain, plain.owner.tolist()) is plain


def test_a_disease_that_the_site_enrolled_is_inherited_too() -> None:
    engine = ENGINE.enrolled([case("SITE:1", "enrolled:1", "HP:0000982", "HP:0002315")])
    told = with_family(SEIZURES, (Inherited("SITE:1", 3.0),))
    (found,) = [one for one in engine.assess(told, explained=9).candidates if one.ids == ("SITE:1",)]
    assert FAMILY_HISTORY in [share.feature for share in found.shares]
    assert engine.site_names == {"SITE:1": "New disease"}


def test_several_relatives_count_as_the_nearest_one() -> None:
    found = strongest([Inherited("OMIM:1", 1.0), Inherited("OMIM:1", 3.0), Inherited("OMIM:2", 0.0)])
    assert found == (Inherited("OMIM:1", 3.0),)
    assert len(strongest([Inherited(f"OMIM:{number}", 1.0) for number in range(500)])) == MOST


def nats(table: Relations, code: str) -> float:
    relation = table.of(code)
    assert relation is not None
    return relation.nats


def test_nearer_relatives_weigh_more_and_none_more_than_the_limit() -> None:
    table = relations()
    order = ["ITWIN", "SIS", "MTH", "FTH", "MAUNT", "COUSN"]
    weights = [nats(table, code) for code in order]
    assert weights == sorted(weights, reverse=True) and weights[-1] > 0 and weights[0] == 4.0
    assert nats(table, "72705000") == nats(table, "MTH") == nats(table, "madre")
    assert nats(table, "LOCAL-CODE") == nats(table, "FAMMEMB")
    for stranger in ("HUSB", "STPMTH", "ADOPTF", "127849001", "wife"):
        assert table.of(stranger) is None
    names = {relation.name for relation in table.by_code.values() if relation is not None}
    for language in ("en", "es"):
        assert all(load()[language][f"rare.relation.{name}"] for name in names)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("nats = 4.0", "nats = 9.0", "limit"),
        ("dominant = 0.416", "dominant = 0.9", "modes"),
        ("risk = { dominant = 1.0,", "risk = { dominant = 1.5,", "twin"),
        ('codes = ["FTH"', 'codes = ["MTH"', "twice"),
        ('codes = ["FAMMEMB", ', "codes = [", "FAMMEMB"),
        ('source = "monozygotic: the same genome"', 'source = ""', "no source"),
        ("[modes]", "[modes", "relatives.toml"),
    ],
)
def test_a_wrong_table_is_told(old: str, new: str, why: str) -> None:
    assert old in TABLE
    with pytest.raises(FamilyDataInvalid, match=re.escape(why)):
        read_relations(TABLE.replace(old, new, 1))


def test_every_relation_has_its_source() -> None:
    assert all(row["source"] for row in tomllib.loads(TABLE)["relation"])


@pytest.fixture(scope="module")
def diseases() -> Diseases:
    return Diseases.of(read_arrays())


@pytest.fixture(scope="module")
def names(diseases: Diseases) -> DiseaseNames:
    return DiseaseNames(diseases)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Marfan's syndrome (disorder)", {"Marfan syndrome"}),
        ("MARFAN  SYNDROME", {"Marfan syndrome"}),
        ("Huntington\u2019s disease", {"Huntington disease"}),
        ("neurofibromatosis type I", {"Neurofibromatosis, type 1"}),
        ("acute intermittent porphyria", {"Porphyria, acute intermittent"}),
        ("Marfan", set()),
        ("no Marfan syndrome", set()),
        ("Marfan syndrome?? or Loeys-Dietz", set()),
        ("Deafness", set()),
        ("", set()),
    ],
)
def test_a_name_means_a_disease_only_exactly(
    names: DiseaseNames, diseases: Diseases, written: str, meant: set[str]
) -> None:
    assert {diseases.names[number] for number in names.named(written)} == meant


def test_the_name_of_a_syndrome_with_types_means_its_types(names: DiseaseNames, diseases: Diseases) -> None:
    found = {diseases.names[number] for number in names.named("Loeys-Dietz syndrome")}
    assert {f"Loeys-Dietz syndrome {number}" for number in range(1, 6)} <= found


@pytest.mark.parametrize(
    ("system", "code"),
    [
        ("https://omim.org", "154700"),
        ("http://www.omim.org", "OMIM:154700"),
        ("urn:oid:2.16.840.1.113883.6.174", "#154700"),
        ("http://www.orpha.net", "558"),
        ("http://www.orpha.net", "ORPHA:558"),
        ("http://snomed.info/sct", "19346006"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "Q87.410"),
    ],
)
def test_a_code_of_any_registry_means_its_disease(
    names: DiseaseNames, diseases: Diseases, system: str, code: str
) -> None:
    assert [diseases.names[number] for number in names.coded(system, code)] == ["Marfan syndrome"]
    assert names.coded(system, "0") == names.coded("http://example.org", code) == ()


def test_every_code_of_the_table_exists_and_every_disease_is_in_the_knowledge(diseases: Diseases) -> None:
    known = {one for ids in diseases.ids for one in ids}
    for (system, code), ids in family_codes().items():
        assert set(ids) <= known, (system, code)
        assert is_sctid(code) if system == "snomed" else icd.is_valid_item(code), code


@given(st.text(max_size=40))
def test_any_text_has_one_normal_form(text: str) -> None:
    once = normal(text)
    assert once == once.strip() and "  " not in once and normal(once.upper()) in (once, normal(once))
