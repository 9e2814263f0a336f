"""What a differential looks like on a card, for the tests that read it."""

from dataclasses import dataclass

from differential_values import TEMPERATURE, ill, ill_chart, names
from hook_values import measured, news2

from hooks.diagnostic_assessment import cards
from models.assessment import Escalation, Recommendation, RedFlag

RR = measured("9279-1", "Respiratory rate", 28, "/min")
SEPSIS = {
    "red_flags": (
        RedFlag(
            "sepsis-suspected",
            "immediate",
            (RR, TEMPERATURE),
            ("A41.9", "I26.99", "G03.9"),
            ("blood-cultures", "lactate"),
            "NICE NG51",
        ),
    ),
    "scores": (news2(9, "high", "immediate", RR, TEMPERATURE),),
    "recommendations": (Recommendation("blood-cultures", "immediate", ("sepsis-suspected",)),),
    "escalation": Escalation("red-flag", "red-flag-immediate"),
}


def show(language="en", on=None, **changes):
    return cards(on or ill_chart(), ill(**changes), language=language, seed="s", names=names)


@dataclass
class Read:
    """A card's detail as its titled parts."""

    detail: str

    def line(self, title):
        found = [b for b in self.detail.split("\n\n") if b.startswith(f"**{title}:** ")]
        return found[0].removeprefix(f"**{title}:** ") if found else ""

    def list(self, title):
        blocks = self.detail.split("\n\n")
        return blocks[blocks.index(f"**{title}**") + 1].splitlines() if f"**{title}**" in blocks else []
