"""What becomes of HPO's annotation lines: nothing invented, nothing dropped in silence, references kept."""

from pathlib import Path

import pytest
from rich.console import Console

from models.rare.evidence import COUNTED, UNSTATED, WORDED
from training.rare.build import Built, build, frequency
from training.rare.names import family
from training.rare.sources import Line, SourcesMissing

OBO = """format-version: 1.2
data-version: hp/releases/2025-01-16

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0000118
name: Phenotypic abnormality
is_a: HP:0000001 ! All

[Term]
id: HP:0000707
name: Abnormality of the nervous system
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:0001250
name: Seizure
alt_id: HP:0001275
is_a: HP:0000707 ! Abnormality of the nervous system

[Term]
id: HP:0001249
name: Intellectual disability
is_a: HP:0000707 ! Abnormality of the nervous system

[Term]
id: HP:0006887
name: obsolete Intellectual disability, progressive
is_obsolete: true
replaced_by: HP:0001249
"""
HPOA = (
    '#description: "test"\n#version: 2025-01-16\n'
    "database_id\tdisease_name\tqualifier\thpo_id\treference\tevidence\tonset\tfrequency\tsex\t"
    "modifier\taspect\tbiocuration\n"
    "OMIM:1\tAlpha syndrome 1\t\tHP:0001250\tPMID:1\tPCS\t\t3/5\t\t\tP\tx\n"
    "OMIM:1\tAlpha syndrome 1\t\tHP:0006887\tPMID:2\tPCS\t\t0/4\t\t\tP\tx\n"
    "OMIM:1\tAlpha syndrome 1\t\tHP:0003593\tPMID:1\tPCS\t\t5/5\t\t\tC\tx\n"
    "OMIM:1\tAlpha syndrome 1\t\tHP:0001419\tOMIM:1\tTAS\t\t\t\t\tI\tx\n"
    "OMIM:2\tBeta disease\t\tHP:0000006\tOMIM:2\tTAS\t\t\t\t\tI\tx\n"
    "ORPHA:10\tAlpha syndrome type 1\t\tHP:0001275\tORPHA:10\tTAS\t\tHP:0040281\t\t\tP\tx\n"
    "ORPHA:11\tAlpha syndrome\t\tHP:0001249\tORPHA:11\tTAS\t\tHP:0040284\t\t\tP\tx\n"
    "OMIM:2\tBeta disease\tNOT\tHP:0001250\tPMID:3\tPCS\t\t\t\t\tP\tx\n"
    "OMIM:2\tBeta disease\t\tHP:0001249\tPMID:3;PMID:4\tPCS\t\t\tMALE\t\tP\tx\n"
    "DECIPHER:1\tSome region\t\tHP:0001249\tDECIPHER:1\tIEA\t\t\t\t\tP\tx\n"
)
GENES = (
    "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n"
    "1\tAAA\tHP:0001250\tSeizure\t-\tOMIM:1\n"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    data = tmp_path_factory.mktemp("hpo")
    (data / "hp.obo").write_text(OBO)
    (data / "phenotype.hpoa").write_text(HPOA)
    (data / "genes_to_phenotype.txt").write_text(GENES)
    return build({"HP:0001250": 0.01}, Console(quiet=True), data)


def test_entries_of_one_disease_are_joined_and_a_group_is_not_one_of_its_types(built: Built) -> None:
    assert built.merged == {"ORPHA:10": "OMIM:1"}
    assert built.knowledge.diseases.ids == (("OMIM:1", "ORPHA:10"), ("OMIM:2",), ("ORPHA:11",))
    assert built.knowledge.diseases.genes[0] == ("AAA",)


def test_evidence_of_both_entries_is_pooled_and_former_ids_are_resolved(built: Built) -> None:
    known = built.knowledge
    profile = known.evidence.profile(0)
    chance = dict(zip(map(known.terms.hpo, profile.terms.tolist()), profile.chance.tolist(), strict=True))
    # 3 of 5, and 90 % standing for 10 patients, with a prior of half a patient in one.
    assert chance["HP:0001250"] == pytest.approx((3 + 9 + 0.5) / (5 + 10 + 1))
    assert chance["HP:0001249"] == pytest.approx(0.5 / 5)
    assert built.counts["lines with a former id"] == 2


def test_a_paper_can_go_unread_and_one_cited_beside_it_keeps_the_finding(built: Built) -> None:
    evidence = built.knowledge.evidence
    assert len(evidence.profile(0, {"PMID:1", "PMID:2"}).terms) == 1
    assert len(evidence.profile(1, {"PMID:3"}).terms) == 1
    assert evidence.lines(1, {"PMID:3"})[4] == ["PMID:4"]
    assert evidence.citing("PMID:4").tolist() == [1]


def test_the_share_of_male_patients_follows_the_inheritance(built: Built) -> None:
    alpha, beta, group = built.knowledge.diseases.male.tolist()
    assert alpha > 0.9
    assert beta == group == 0.5


def test_release_and_attribution_are_carried(built: Built) -> None:
    assert built.knowledge.release == "2025-01-16"
    assert "2025-01-16" in built.knowledge.attribution and "hpo.jax.org" in built.knowledge.attribution
    assert built.knowledge.diseases.onset[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "negated", "expected"),
    [
        ("3/5", False, (3, 5, COUNTED)),
        ("0/7", False, (0, 7, COUNTED)),
        ("", True, (0, 1, COUNTED)),
        ("HP:0040285", False, (0.0, 0, WORDED)),
        ("30%", False, (0.3, 0, WORDED)),
        ("", False, (0, 0, UNSTATED)),
        ("7/5", False, (0, 0, UNSTATED)),
    ],
)
def test_every_way_to_give_a_frequency_is_read(
    text: str, negated: bool, expected: tuple[float, float, int]
) -> None:
    assert frequency(Line("OMIM:1", "x", negated, "HP:1", "r", "", text, "", "P")) == expected


def test_types_share_a_family() -> None:
    assert family("Kabuki syndrome 2") == family("Kabuki syndrome 1") == "kabuki syndrome"


def test_missing_sources_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "hp.obo").write_text(OBO)
    with pytest.raises(SourcesMissing, match=r"phenotype\.hpoa"):
        build({}, Console(quiet=True), tmp_path)
