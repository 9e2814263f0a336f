"""What the rare-disease engine promises: order, reasons that add up, evidence that can go unread."""

import msgspec
import numpy as np
import pytest
import rare_values
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rare.assessment import RareAssessment
from models.rare.engine import RareEngine
from models.rare.enrolment import EnrolledCase
from models.rare.features import FEATURES
from models.rare.knowledge import RareKnowledge, RareKnowledgeInvalid
from models.rare.phenotype import Phenotype, resolve

ENGINE = rare_values.engine()
IDS = [f"HP:{each:07d}" for each in sorted(rare_values.TREE) if each != 118]
FINDINGS = st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique=True)
PHENOTYPES = st.builds(
    Phenotype,
    FINDINGS.map(tuple),
    st.lists(st.sampled_from(IDS), max_size=5, unique=True).map(tuple),
    st.sampled_from(["MALE", "FEMALE", None]),
    st.none() | st.floats(0, 90),
    st.none() | st.floats(0, 90),
)
SEIZURES = Phenotype(("HP:0002197", "HP:0001249"), ("HP:0000505",))


def encoded(found: RareAssessment) -> bytes:
    return msgspec.json.encode(found)


def first(found: RareAssessment) -> str:
    return found.candidates[0].ids[0]


def test_the_disease_whose_findings_a_patient_has_comes_first() -> None:
    assert first(ENGINE.assess(SEIZURES)) == "OMIM:1"
    assert first(ENGINE.assess(Phenotype(("HP:0007530", "HP:0000989")))) == "OMIM:3"


def test_sex_counts_where_the_inheritance_says_something_of_it() -> None:
    linked = ENGINE.knowledge.diseases.male > 0.5
    assert linked.sum() == 1
    weighed = {}
    for sex in ("MALE", "FEMALE", None):
        ranked = ENGINE.rank(ENGINE.shortlist(msgspec.structs.replace(SEIZURES, sex=sex)))
        weighed[sex] = ranked.features[:, FEATURES.index("sex")][np.argsort(ranked.shortlist.owner)]
        assert not weighed[sex][~linked].any()
    assert weighed["FEMALE"][linked] < 0 < weighed["MALE"][linked]
    assert not weighed[None].any()


@settings(max_examples=60, deadline=None)
@given(PHENOTYPES)
def test_the_reasons_of_a_score_add_up_to_it(phenotype: Phenotype) -> None:
    for candidate in ENGINE.assess(phenotype, explained=5).candidates:
        total = candidate.baseline + sum(share.amount for share in candidate.shares)
        assert candidate.explained
        assert total == pytest.approx(candidate.score, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(PHENOTYPES)
def test_the_gains_of_the_findings_add_up_to_the_likelihood(phenotype: Phenotype) -> None:
    ranked = ENGINE.rank(ENGINE.shortlist(phenotype))
    order = ranked.order
    found = ENGINE.assess(phenotype, explained=5)
    for place, candidate in zip(order, found.candidates, strict=True):
        gains = sum(each.gain for each in candidate.matched)
        assert gains == pytest.approx(float(ranked.features[place, 0]), abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(PHENOTYPES)
def test_probabilities_are_of_one_whole_and_fall(phenotype: Phenotype) -> None:
    found = ENGINE.assess(phenotype, limit=3)
    chances = [candidate.probability for candidate in found.candidates]
    assert sum(chances) + found.none_probability + found.rest_probability == pytest.approx(1, abs=1e-9)
    assert chances == sorted(chances, reverse=True)
    assert sum(family.probability for family in found.families) == pytest.approx(sum(chances))


@settings(max_examples=40, deadline=None)
@given(PHENOTYPES, st.randoms(use_true_random=False))
def test_the_order_in_which_findings_are_told_does_not_matter(phenotype: Phenotype, random: object) -> None:
    observed, excluded = list(phenotype.observed), list(phenotype.excluded)
    random.shuffle(observed)  # type: ignore[attr-defined]
    random.shuffle(excluded)  # type: ignore[attr-defined]
    told = msgspec.structs.replace(phenotype, observed=tuple(observed), excluded=tuple(excluded))
    assert encoded(ENGINE.assess(told)) == encoded(ENGINE.assess(phenotype))


@settings(max_examples=40, deadline=None)
@given(PHENOTYPES, st.sampled_from(["PMID:1", "PMID:2", "PMID:3", "PMID:4", "PMID:5"]))
def test_an_unread_paper_has_no_effect_at_all(phenotype: Phenotype, paper: str) -> None:
    unread = ENGINE.assess(phenotype, frozenset({paper}), explained=5)
    never = rare_values.engine(frozenset({paper})).assess(phenotype, explained=5)
    by_ids = {candidate.ids: candidate for candidate in never.candidates}
    assert {candidate.ids for candidate in unread.candidates} == set(by_ids)
    for candidate in unread.candidates:
        other = by_ids[candidate.ids]
        assert candidate.score == pytest.approx(other.score, abs=1e-4)
        assert candidate.probability == pytest.approx(other.probability, abs=1e-6)
        assert [m.reported for m in candidate.matched] == [m.reported for m in other.matched]
    assert paper.encode() not in encoded(unread)


@settings(max_examples=60, deadline=None)
@given(FINDINGS, st.integers(0, 4))
def test_a_finding_that_the_disease_always_has_never_lowers_its_likelihood(
    told: list[str], disease: int
) -> None:
    profile = ENGINE.knowledge.segment.profile(disease)
    frequent = int(profile.terms[int(profile.chance.argmax())])
    extra = ENGINE.knowledge.terms.hpo(frequent)

    def likelihood(observed: list[str]) -> float:
        query = resolve(Phenotype(tuple(observed)), ENGINE.knowledge.terms)
        return float(ENGINE.scorer.matcher.match(query).gain[:, disease].sum(dtype=np.int64))

    related = any(
        ENGINE.knowledge.terms.number(each) in ENGINE.knowledge.terms.ancestors(frequent)
        or frequent in ENGINE.knowledge.terms.ancestors(ENGINE.knowledge.terms.number(each) or 0)
        for each in told
    )
    if not related:
        assert likelihood([*told, extra]) >= likelihood(told)


def test_former_ids_mean_what_replaced_them_and_unknown_ones_are_told() -> None:
    old = ENGINE.assess(Phenotype(("HP:0006887", "HP:0002197")))
    new = ENGINE.assess(Phenotype(("HP:0001249", "HP:0002197")))
    assert encoded(old) == encoded(new)
    assert ENGINE.assess(Phenotype(("HP:9999999", "HP:0002197"))).unknown == ("HP:9999999",)


def test_nothing_present_gives_no_candidates_and_no_alarm() -> None:
    found = ENGINE.assess(Phenotype((), ("HP:0001250",)))
    assert found.candidates == () and not found.alarm.decision and found.none_probability == 1.0


def test_reasons_carry_their_references() -> None:
    candidate = ENGINE.assess(SEIZURES).candidates[0]
    fits = {each.hpo: each for each in candidate.matched}
    assert fits["HP:0002197"].exact
    assert fits["HP:0002197"].reported is not None
    assert fits["HP:0002197"].reported.references == ("PMID:1",)
    assert (fits["HP:0002197"].reported.seen, fits["HP:0002197"].reported.of) == (8, 10)
    assert candidate.missing[0].hpo == "HP:0001263"
    assert ENGINE.assess(Phenotype(("HP:0001249",), ("HP:0001250",))).candidates[0].contradicting


def test_types_of_one_syndrome_are_one_family() -> None:
    found = ENGINE.assess(SEIZURES)
    alpha = next(family for family in found.families if family.name == "alpha syndrome")
    assert {found.candidates[place].ids[0] for place in alpha.members} == {"OMIM:1", "OMIM:2"}


def test_questions_are_about_what_the_chart_does_not_say() -> None:
    found = ENGINE.assess(Phenotype(("HP:0001250",), ("HP:0000505",)))
    asked = [question.hpo for question in found.questions]
    assert asked and "HP:0001250" not in asked and "HP:0000505" not in asked
    assert [q.gain for q in found.questions] == sorted((q.gain for q in found.questions), reverse=True)


def test_the_alarm_knows_neither_age_nor_denials() -> None:
    plain = ENGINE.assess(Phenotype(("HP:0002197", "HP:0001249"))).alarm
    told = ENGINE.assess(
        Phenotype(("HP:0002197", "HP:0001249"), ("HP:0000505", "HP:0000518", "HP:0000982"), "MALE", 4.0, 1.0)
    ).alarm
    assert plain == told
    assert plain.baseline + sum(each.amount for each in plain.shares) == pytest.approx(
        np.log(plain.probability / (1 - plain.probability)), abs=1e-4
    )


def case(disease: str, reference: str, *observed: str) -> EnrolledCase:
    return EnrolledCase(disease, Phenotype(observed), reference, "New disease")


def test_an_unknown_disease_becomes_rankable_from_one_case_and_is_forgotten_again() -> None:
    patient = Phenotype(("HP:0000982", "HP:0002315", "HP:0000505"))
    learned = ENGINE.enrolled([case("SITE:1", "enrolled:1", "HP:0000982", "HP:0002315", "HP:0000505")])
    found = learned.assess(patient)
    assert found.candidates[0].ids == ("SITE:1",)
    assert found.candidates[0].enrolled == 1
    assert found.candidates[0].name == "New disease"
    assert found.resembles[0].reference == "enrolled:1"
    assert encoded(learned.enrolled([]).assess(patient)) == encoded(ENGINE.assess(patient))
    unread = learned.assess(patient, frozenset({"enrolled:1"}))
    assert "SITE:1" not in {each for candidate in unread.candidates for each in candidate.ids}


def test_a_known_disease_sharpens() -> None:
    patient = Phenotype(("HP:0000982", "HP:0000989"))

    def score(engine: RareEngine) -> float:
        return next(c.score for c in engine.assess(patient).candidates if "OMIM:4" in c.ids)

    more = ENGINE.enrolled([case("ORPHA:4", f"enrolled:{n}", "HP:0000982", "HP:0000989") for n in range(3)])
    assert score(more) > score(ENGINE)


def test_knowledge_survives_its_arrays() -> None:
    arrays = rare_values.knowledge().arrays()
    again = RareKnowledge.of(arrays).arrays()
    assert sorted(arrays) == sorted(again)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    with pytest.raises(RareKnowledgeInvalid, match="terms"):
        RareKnowledge.of({k: v for k, v in arrays.items() if not k.startswith("terms.")})
