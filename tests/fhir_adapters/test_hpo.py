"""The ontology value: hierarchy invariants, former ids, names."""

import random

import pytest

from fhir_adapters.hpo import PHENOTYPIC_ABNORMALITY, ROOT, load_ontology

ONTOLOGY = load_ontology()
SAMPLE = random.Random(7).sample(list(ONTOLOGY), 300)


def test_the_release_is_the_one_we_cite() -> None:
    assert ONTOLOGY.version == "2025-01-16"
    assert len(ONTOLOGY) > 19_000


def test_only_the_root_has_no_parent_and_everything_descends_from_it() -> None:
    assert [term for term in ONTOLOGY if not ONTOLOGY.parents(term)] == [ROOT]
    assert len(ONTOLOGY.descendants(ROOT)) == len(ONTOLOGY)


@pytest.mark.parametrize("term", SAMPLE[:100])
def test_ancestors_are_transitive_and_hold_the_term_itself(term: str) -> None:
    ancestors = ONTOLOGY.ancestors(term)
    assert {term, ROOT} <= ancestors
    for ancestor in ancestors:
        assert ONTOLOGY.ancestors(ancestor) <= ancestors


def test_descendants_are_the_inverse_of_ancestors() -> None:
    above = ONTOLOGY.descendants("HP:0002094")  # Dyspnea
    assert {t for t in ONTOLOGY if "HP:0002094" in ONTOLOGY.ancestors(t)} == above
    assert "HP:0002875" in above  # Exertional dyspnea


def test_remembering_ancestors_never_changes_the_answer() -> None:
    first = {term: ONTOLOGY.ancestors(term) for term in SAMPLE}
    for term in ONTOLOGY:
        ONTOLOGY.ancestors(term)
    assert {term: ONTOLOGY.ancestors(term) for term in SAMPLE} == first


def test_former_ids_resolve_to_current_terms_and_unknown_ones_do_not() -> None:
    assert ONTOLOGY.canonical("HP:0001945") == "HP:0001945"
    assert ONTOLOGY.canonical("HP:0004715") == "HP:0000003"  # alt_id of multicystic kidney dysplasia
    assert ONTOLOGY.canonical("HP:9999999") is None
    assert "HP:0004715" not in ONTOLOGY


def test_a_phenotype_is_not_an_onset_or_an_inheritance() -> None:
    assert ONTOLOGY.is_phenotype("HP:0001945")
    assert not ONTOLOGY.is_phenotype("HP:0003577")  # Congenital onset
    assert not ONTOLOGY.is_phenotype("HP:9999999")


def test_names_give_labels_and_synonyms_of_phenotypes_only() -> None:
    names = list(ONTOLOGY.names())
    assert ("Fever", "HP:0001945") in names
    assert ("Pyrexia", "HP:0001945") in names
    assert all(PHENOTYPIC_ABNORMALITY in ONTOLOGY.ancestors(term) for _, term in names[::50])


def test_unknown_terms_are_an_error_where_a_current_id_is_required() -> None:
    for ask in (ONTOLOGY.label, ONTOLOGY.parents, ONTOLOGY.ancestors, ONTOLOGY.descendants):
        with pytest.raises(KeyError):
            ask("HP:9999999")


def test_spanish_names_exist_for_translated_terms() -> None:
    assert ONTOLOGY.label_es("HP:0001945") == "Fiebre"
    assert ONTOLOGY.label_es("HP:9999999") is None
