"""A suspected rare disease as the engine would hold it, for the tests that read its card."""

from typing import Any

from hook_values import finding

from models.assessment import Fact, Prediction, RareOpinion
from models.rare.assessment import (
    Family,
    Matched,
    Question,
    RareAlarm,
    RareAssessment,
    RareCandidate,
    Reported,
    Resemblance,
    Share,
)

LENS, AORTA, TALL, MIND = "HP:0001083", "HP:0002616", "HP:0000098", "HP:0001249"
LABELS = (
    (TALL, "Tall stature"),
    (LENS, "Ectopia lentis"),
    (MIND, "Intellectual disability"),
    (AORTA, "Aortic root aneurysm"),
    ("HP:0100775", "Dural ectasia"),
)
FINDINGS = (
    finding(TALL, "Tall stature", "Condition/t"),
    finding(LENS, "Ectopia lentis", "Condition/l"),
    finding(AORTA, "Aortic root aneurysm", "Condition/a"),
    Fact("finding", MIND, "Intellectual disability", ("Condition/m",), state="absent"),
)


def candidate(name: str, family: str, probability: float, *, explained: bool = True) -> RareCandidate:
    """A disease of which two findings fit, one is missing and one speaks against it."""
    if not explained:
        return RareCandidate(("OMIM:9",), name, (), family, probability, 0.1)
    reported = Reported(LENS, 0.6, 60, 100, ("PMID:11", "PMID:12"))
    return RareCandidate(
        ("OMIM:154700", "ORPHA:558"),
        name,
        ("FBN1",),
        family,
        probability,
        1.5,
        explained=True,
        baseline=0.5,
        shares=(Share("likelihood", 1.0),),
        matched=(
            Matched(LENS, True, 2.0, reported),
            Matched(AORTA, True, 1.0, reported),
            Matched(TALL, False, -0.1, None),
        ),
        missing=(Reported("HP:0100775", 0.5, 16, 21, ("PMID:11",)),),
        contradicting=(Reported(MIND, 0.3, 0, 0, ("OMIM:1",)),),
    )  # fmt: skip


def suspected(*names: str, none_known: bool = False, set_aside: tuple[str, ...] = ()) -> dict[str, Any]:
    """The members of an assessment with the alarm on; the last name is only listed, not explained."""
    called = names or ("Marfan syndrome", "Loeys-Dietz syndrome 1")
    found = tuple(
        [
            candidate(name, name.lower(), 0.6 / 2**place, explained=place == 0)
            for place, name in enumerate(called)
        ]
    )
    families = tuple([Family(one.family, one.probability, (place,)) for place, one in enumerate(found)])
    assessed = RareAssessment(
        found,
        0.1,
        0.0,
        families,
        (Question("HP:0100775", 0.4, 0, 0),),
        (Resemblance("PMID:11;PMID:12", "OMIM:154700", 0.5, (LENS, AORTA), (), (TALL,)),),
        RareAlarm(True, 0.95, 0.7, none_known, -1.0, (Share("rarest", 3.0),)),
        (),
        "2025-01-16",
        "HPO, cited",
        11463,
    )
    rare = tuple([Prediction(one.ids[0], one.name, one.probability, ()) for one in found])
    return {
        "rare": rare,
        "rare_alarm": True,
        "rare_alarm_probability": 0.95,
        "rare_opinion": RareOpinion(assessed, FINDINGS, LABELS, set_aside),
    }
