"""Order review with a differential: every harmful drug is named in its disease and nowhere else."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rule_charts import AT, ONTOLOGY, chart, draft, finding, problem, value

from fhir_adapters.chart import Allergy, Order, PatientChart, Subject
from models.assessment import Assessment, Contribution, Fact, NextStep, OrderConcern, Prediction
from models.engine import Engine
from models.knowledge.drug_harms import COLUMNS, PACKAGED, DrugHarm, Known, packaged, read
from models.order_guidance import OrderGuidance, read_limits, strength
from models.rules import tables
from models.rules.actions import Actions
from models.rules.analytes import load_analytes
from models.rules.currency import Currency, Windows
from models.rules.errors import RulesInvalid
from models.rules.matching import Hits
from models.rules.order_rules import OrderRules
from models.rules.red_flags import RedFlagRules
from models.rules.terms import TermTable

ACTIONS = Actions.load()
ENGINE = Engine.load(ONTOLOGY)
WINDOWS = Windows.load()
HARMS = list(packaged().values())
KNOWN = Known.packaged()
CHILD = Subject("p", "female", 4 * 365, "day")
ADULT = Subject("p", "female", 45 * 365, "day")


TERMS = TermTable(ONTOLOGY, load_analytes())
RedFlagRules.load(TERMS, ACTIONS)  # the groups that order rules use
GUIDANCE = OrderGuidance.load(ACTIONS, OrderRules.load(TERMS, ACTIONS))


def hits_of(patient: PatientChart) -> Hits:
    return TERMS.match(patient, Currency(patient, WINDOWS))


def prediction(disease: str, probability: float, immediate: float = 0.1) -> Prediction:
    return Prediction(disease, disease, probability, (), immediate=immediate)


def reviewed(patient: PatientChart, *common: Prediction, **changes: Any) -> Assessment:
    """The assessment of a chart as it is once a learned engine has named its diseases."""
    bare = msgspec.structs.replace(ENGINE.assess(patient), common=common, **changes)
    # What the engine itself said of the differential, if anything, is not the matter here.
    own = ("harmful-in-diagnosis", "separating-test")
    bare = msgspec.structs.replace(
        bare, order_concerns=tuple(c for c in bare.order_concerns if c.kind not in own)
    )
    return GUIDANCE.complete(bare, patient, hits_of(patient))


def harms(assessment: Assessment) -> dict[str, OrderConcern]:
    return {c.rule: c for c in assessment.order_concerns if c.kind == "harmful-in-diagnosis"}


def speaks(patient: PatientChart, disease: str) -> dict[str, OrderConcern]:
    """What is said for the suspected disease when the record itself gives no reason to speak."""
    bare = msgspec.structs.replace(
        ENGINE.assess(patient), common=(prediction(disease, 0.4),), order_concerns=()
    )
    return harms(GUIDANCE.complete(bare, patient, hits_of(patient)))


def a_patient_for(harm: DrugHarm, *orders: Order) -> PatientChart:
    return chart(subject=CHILD if harm.below_age else ADULT, orders=orders)


def drafted(harm: DrugHarm, atc: str) -> Order:
    return draft(f"drug-{harm.id}", atc=(atc,))


# -- the data ----------------------------------------------------------------------------------------


def test_there_are_at_least_sixty_rules_each_with_a_source_in_both_languages() -> None:
    assert len(HARMS) >= 60
    assert all(harm.source and harm.en and harm.es for harm in HARMS)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.id)
def test_every_rule_speaks_in_each_of_its_diseases_for_each_of_its_drugs(harm: DrugHarm) -> None:
    patient = a_patient_for(harm, *[drafted(harm, harm.drugs[0])])
    for disease in harm.diseases:
        found = speaks(patient, disease)
        assert found[harm.id].diagnoses == (disease,)
        assert found[harm.id].urgency == harm.urgency
        assert found[harm.id].source == harm.source
    for atc in harm.drugs:
        assert harm.id in speaks(a_patient_for(harm, drafted(harm, atc)), min(harm.diseases)), atc


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.id)
def test_every_rule_is_calm_without_its_disease_its_drug_or_its_probability(harm: DrugHarm) -> None:
    order, disease = drafted(harm, harm.drugs[0]), min(harm.diseases)
    patient = a_patient_for(harm, order)
    # Another disease; the disease as a remote possibility; another drug; the disease with no drug at all.
    assert harm.id not in harms(reviewed(patient, prediction("worried-well", 0.9)))
    assert harm.id not in harms(reviewed(patient, prediction(disease, 0.04, immediate=0.9)))
    assert harm.id not in harms(reviewed(patient, prediction(disease, 0.1)))
    harmless = draft("vitamin-c", atc=("A11GA01",))
    assert harms(reviewed(a_patient_for(harm, harmless), prediction(disease, 0.9))) == {}
    assert harms(reviewed(a_patient_for(harm), prediction(disease, 0.9))) == {}
    # What the patient takes already is no order being picked.
    placed = msgspec.structs.replace(order, draft=False, selected=False)
    assert harms(reviewed(a_patient_for(harm, placed), prediction(disease, 0.9))) == {}
    if harm.below_age:
        adult = chart(subject=ADULT, orders=(order,))
        assert harm.id not in harms(reviewed(adult, prediction(disease, 0.9)))
        unknown = chart(subject=Subject("p", "female", None), orders=(order,))
        assert harm.id not in harms(reviewed(unknown, prediction(disease, 0.9)))


@pytest.mark.parametrize("harm", [h for h in HARMS if h.said_by], ids=lambda harm: harm.id)
def test_what_the_record_rules_say_of_the_order_already_is_not_said_twice(harm: DrugHarm) -> None:
    order = drafted(harm, harm.drugs[0])
    patient = a_patient_for(harm, order)
    rule = min(harm.said_by)
    said = OrderConcern("contraindicated", rule, order.reference, order.label, "urgent", ())
    bare = msgspec.structs.replace(
        ENGINE.assess(patient), common=(prediction(min(harm.diseases), 0.4),), order_concerns=(said,)
    )
    assert harm.id not in harms(GUIDANCE.complete(bare, patient, hits_of(patient)))


# -- judgement ---------------------------------------------------------------------------------------

HEPARIN = draft("heparin", atc=("B01AB01",))
DISSECTION = "harm-anticoagulant-aortic-dissection"


def test_a_grave_disease_warns_from_five_percent_but_not_as_critical_until_it_is_likely() -> None:
    patient = chart(orders=(HEPARIN,))
    remote = harms(reviewed(patient, prediction("aortic-dissection", 0.06, immediate=0.95)))
    likely = harms(reviewed(patient, prediction("aortic-dissection", 0.15, immediate=0.95)))
    assert remote[DISSECTION].urgency == "urgent"
    assert likely[DISSECTION].urgency == "immediate"


def test_only_selected_drafts_are_judged_when_there_is_a_selection() -> None:
    other = draft("alteplase", atc=("B01AD02",), selected=False)
    found = reviewed(chart(orders=(HEPARIN, other)), prediction("aortic-dissection", 0.3, 0.95))
    assert {c.order for c in harms(found).values()} == {HEPARIN.reference}
    unselected = tuple(msgspec.structs.replace(o, selected=False) for o in (HEPARIN, other))
    both = reviewed(chart(orders=unselected), prediction("aortic-dissection", 0.3, 0.95))
    assert {c.order for c in harms(both).values()} == {HEPARIN.reference, other.reference}


def test_several_diseases_of_one_rule_are_one_concern_most_probable_first_with_the_facts_for_it() -> None:
    pain = Fact("finding", "HP:0002248", "Hematemesis", ("Condition/1",))
    against = Fact("demographic", "age", "Age", value=45.0, unit="a")
    ibuprofen = draft("ibuprofen", atc=("M01AE01",))
    found = harms(
        reviewed(
            chart(orders=(ibuprofen,)),
            prediction("upper-gi-bleeding", 0.5),
            prediction("mallory-weiss-tear", 0.2),
            explanation=(
                Contribution("upper-gi-bleeding", against, -0.5),
                Contribution("upper-gi-bleeding", pain, 2.0),
                Contribution("immediate-attention", against, 1.0),
            ),
        )
    )
    concern = found["harm-nsaid-gi-bleeding"]
    assert concern.diagnoses == ("upper-gi-bleeding", "mallory-weiss-tear")
    assert concern.facts == (pain,)


def test_the_image_to_do_first_is_proposed_unless_drafted_done_or_not_for_this_patient() -> None:
    suspicion = prediction("aortic-dissection", 0.3, 0.95)
    (coding,) = ACTIONS.by_id["ct-angiography-aorta"].codings
    code = (f"{coding[0]}|{coding[1]}",)
    alone = harms(reviewed(chart(orders=(HEPARIN,)), suspicion))
    assert alone[DISSECTION].actions == ("ct-angiography-aorta",)
    drafted_too = draft("cta", codes=code, selected=False)
    assert harms(reviewed(chart(orders=(HEPARIN, drafted_too)), suspicion))[DISSECTION].actions == ()
    placed = Order("ServiceRequest", "ServiceRequest/1", "CTA", False, code, time=AT - timedelta(hours=1))
    assert harms(reviewed(chart(orders=(HEPARIN, placed)), suspicion))[DISSECTION].actions == ()
    contrast = Allergy("iodinated contrast", ("AllergyIntolerance/1",), ("V08A",))
    allergic = chart(orders=(HEPARIN,), allergies=(contrast,))
    assert harms(reviewed(allergic, suspicion))[DISSECTION].actions == ()


def test_concerns_come_gravest_first_and_nothing_changes_without_a_differential() -> None:
    amoxicillin = draft("amoxicillin", atc=("J01CA04",))
    allergy = Allergy("Penicillin", ("AllergyIntolerance/1",), ("J01C",))
    patient = chart(orders=(amoxicillin,), allergies=(allergy,))
    found = reviewed(patient, prediction("infectious-mononucleosis", 0.5)).order_concerns
    assert [c.kind for c in found] == ["allergy", "harmful-in-diagnosis"]
    bare = ENGINE.assess(patient)
    bare = msgspec.structs.replace(bare, common=())
    assert GUIDANCE.complete(bare, patient, hits_of(patient)) is bare


# -- the test that would decide ----------------------------------------------------------------------

PAIR = (prediction("stemi", 0.45, 0.95), prediction("aortic-dissection", 0.35, 0.95))
ASPIRIN = draft("paracetamol", atc=("N02BE01",))


def step(code: str, gain: float, kind: Any = "test") -> NextStep:
    return NextStep(kind, code, code, gain, ("aortic-dissection", "stemi"))


def proposed(patient: PatientChart, *steps: NextStep, common: tuple[Prediction, ...] = PAIR) -> str | None:
    found = [
        c for c in reviewed(patient, *common, next_steps=steps).order_concerns if c.kind == "separating-test"
    ]
    assert len(found) <= 1
    return found[0].actions[0] if found else None


def test_the_test_that_tells_most_is_proposed_with_the_diseases_it_separates() -> None:
    patient = chart(orders=(ASPIRIN,))
    steps = (step("HP:0001", 0.9, "ask"), step("d-dimer", 0.2), step("ct-angiography-aorta", 0.5))
    found = reviewed(patient, *PAIR, next_steps=steps).order_concerns
    (concern,) = [c for c in found if c.kind == "separating-test"]
    assert concern.actions == ("ct-angiography-aorta",)
    assert concern.diagnoses == ("aortic-dissection", "stemi")
    assert (concern.urgency, concern.order) == ("soon", "")


def test_nothing_is_proposed_when_it_is_drafted_or_ordered_already() -> None:
    (coding,) = ACTIONS.by_id["ct-angiography-aorta"].codings
    code = (f"{coding[0]}|{coding[1]}",)
    steps = (step("ct-angiography-aorta", 0.5), step("d-dimer", 0.2))
    assert proposed(chart(orders=(ASPIRIN, draft("cta", codes=code))), *steps) is None
    placed = Order("ServiceRequest", "ServiceRequest/1", "CTA", False, code, time=AT - timedelta(hours=1))
    assert proposed(chart(orders=(ASPIRIN, placed)), *steps) is None


def test_a_test_with_a_recent_result_gives_way_to_the_next_best() -> None:
    dimer = value("48065-7", 300.0, "ng/mL{FEU}", time=AT - timedelta(hours=5))
    steps = (step("d-dimer", 0.5), step("ct-angiography-aorta", 0.3))
    assert proposed(chart(dimer, orders=(ASPIRIN,)), *steps) == "ct-angiography-aorta"
    old = value("48065-7", 300.0, "ng/mL{FEU}", time=AT - timedelta(days=20))
    assert proposed(chart(old, orders=(ASPIRIN,)), *steps) == "d-dimer"


def test_a_test_that_a_rule_speaks_against_gives_way_to_the_next_best() -> None:
    contrast = Allergy("iodinated contrast", ("AllergyIntolerance/1",), ("V08A",))
    steps = (step("ct-angiography-aorta", 0.5), step("echo", 0.3))
    assert proposed(chart(orders=(ASPIRIN,), allergies=(contrast,)), *steps) == "echo"
    steps = (step("lumbar-puncture", 0.5), step("ct-head", 0.3))
    raised = chart(finding("Papilledema"), problem("G93.2"), orders=(ASPIRIN,))
    assert proposed(raised, *steps) == "ct-head"
    assert proposed(chart(orders=(ASPIRIN,)), *steps) == "lumbar-puncture"


def test_nothing_is_proposed_without_a_draft_a_gain_an_order_or_a_known_disease() -> None:
    best = step("ct-angiography-aorta", 0.5)
    assert proposed(chart(), best) is None
    assert proposed(chart(orders=(ASPIRIN,)), step("ct-angiography-aorta", 0.04)) is None
    assert proposed(chart(orders=(ASPIRIN,)), step("peak-flow", 0.5)) is None  # measured, not ordered
    assert proposed(chart(orders=(ASPIRIN,)), step("no-such-test", 0.5)) is None
    assert proposed(chart(orders=(ASPIRIN,)), best, common=PAIR[:1]) is None
    assert proposed(chart(orders=(ASPIRIN,)), NextStep("test", "echo", "echo", 0.5)) is None


@pytest.mark.parametrize(
    ("dissection", "stemi", "offered"),
    [
        ((0.2, 0.9), (0.3, 0.6), True),
        ((0.04, 0.9), (0.3, 0.6), False),  # grave, but hardly possible
        ((0.06, 0.9), (0.3, 0.6), True),
        ((0.06, 0.1), (0.3, 0.1), False),  # neither grave nor a contender
        ((0.12, 0.1), (0.3, 0.1), True),
        ((0.12, 0.1), (0.14, 0.1), False),  # nothing leads
    ],
)
def test_a_test_is_proposed_only_between_diseases_that_are_worth_telling_apart(
    dissection: tuple[float, float], stemi: tuple[float, float], offered: bool
) -> None:
    pair = (prediction("aortic-dissection", *dissection), prediction("stemi", *stemi))
    found = proposed(chart(orders=(ASPIRIN,)), step("ct-angiography-aorta", 0.5), common=pair)
    assert (found == "ct-angiography-aorta") is offered


def test_the_gain_is_said_in_three_strengths() -> None:
    assert [strength(gain) for gain in (0.05, 0.15, 0.4, 1.0)] == ["some", "clear", "strong", "strong"]


# -- the loaders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("leading", 1.5, "leading"),
        ("contender", 0.01, "grave_leading <= contender"),
        ("grave", 0.0, "0 < grave < 1"),
        ("clear_gain", 0.5, "least_gain <= clear_gain <= strong_gain"),
        ("source", "", "is missing"),
        ("margin", 0.1, "margin"),
        ("leading", "often", "float"),
    ],
)
def test_wrong_limits_are_refused_with_their_name(name: str, value: Any, said: str) -> None:
    content = tables.read_toml("order_guidance.toml")
    assert read_limits(content).leading == 0.15
    with pytest.raises(RulesInvalid, match=said):
        read_limits(content | {name: value})


def test_the_harms_are_part_of_what_the_rules_are_known_by(tmp_path: Path) -> None:
    other = tmp_path / "drug_harms.csv"
    other.write_text(PACKAGED.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert tables.digest(PACKAGED) != tables.digest(other) != tables.digest()
    assert ENGINE.knowledge_id.endswith(tables.digest(PACKAGED))


GOOD = {
    "id": "harm-test",
    "atc": "B01AD",
    "diseases": "aortic-dissection",
    "below_age": "",
    "effect": "bleeding",
    "urgency": "critical",
    "alternative": "ct-head",
    "said_by": "anticoagulant-bleeding",
    "en": "It bleeds.",
    "es": "Sangra.",
    "source": "BNF",
}


def table(*rows: dict[str, str]) -> str:
    return "\n".join([",".join(COLUMNS), *[",".join(row[name] for name in COLUMNS) for row in rows]])


def test_a_good_row_is_read() -> None:
    harm = read(table(GOOD), KNOWN)["harm-test"]
    assert (harm.urgency, harm.below_age, harm.alternative) == ("immediate", None, "ct-head")
    assert (harm.sentence("en"), harm.sentence("es")) == ("It bleeds.", "Sangra.")


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("id", "Harm Test"),
        ("id", "anticoagulant-bleeding"),
        ("atc", ""),
        ("atc", "heparin"),
        ("diseases", ""),
        ("diseases", "no-such-disease"),
        ("below_age", "child"),
        ("below_age", "-3"),
        ("effect", "Bleeding!"),
        ("urgency", "immediate"),
        ("alternative", "no-such-action"),
        ("alternative", "ct-head ecg"),
        ("said_by", "no-such-rule"),
        ("en", ""),
        ("en", "No full stop"),
        ("en", "[Link](x)."),
        ("es", "It bleeds."),
        ("es", "x" * 130 + "."),
        ("source", ""),
    ],
)
def test_the_loader_names_the_row_and_the_column_of_a_wrong_cell(column: str, cell: str) -> None:
    with pytest.raises(RulesInvalid, match=rf"drug_harms\.csv: row 3: column {column}"):
        read(table(GOOD, {**GOOD, "id": "harm-other", column: cell}), KNOWN)


def test_the_loader_refuses_a_wrong_shape_and_an_id_that_stands_twice() -> None:
    with pytest.raises(RulesInvalid, match="row 1"):
        read("a,b\n1,2", KNOWN)
    with pytest.raises(RulesInvalid, match="row 2: 2 cells"):
        read(",".join(COLUMNS) + "\n1,2", KNOWN)
    with pytest.raises(RulesInvalid, match="row 3: column id"):
        read(table(GOOD, GOOD), KNOWN)
    with pytest.raises(RulesInvalid, match="no rows"):
        read(",".join(COLUMNS), KNOWN)
