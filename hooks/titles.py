"""What a statement is called on a card, in a few words of plain text.

Shared by the cards about the patient now and the cards about everything else; builds no card.
"""

from hooks import wording
from hooks.context import CallContext
from hooks.statements import Statement
from models.assessment import RedFlag, Score


def critical_phrase(statement: Statement, context: CallContext) -> str:
    """``Potassium 6.9 mmol/L``-like phrase of a critical value, with its own name when the texts have one."""
    return wording.fact_phrase(statement.facts[0], context.texts, context.names)


def title_of(statement: Statement, context: CallContext) -> str:
    """A statement in a few words, plain text."""
    texts = context.texts
    value = statement.value
    if isinstance(value, RedFlag):
        return texts.get(f"red-flag.{value.id}.summary", value.id.replace("-", " "))
    if isinstance(value, Score):
        return wording.score_phrase(value, texts)
    return texts[f"critical_value.{value.direction}"].format(what=critical_phrase(statement, context))
