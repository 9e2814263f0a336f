"""What a statement is called on a card, in a few words of plain text.

Shared by the cards about the patient now and the cards about everything else; builds no card.
"""

from hooks import wording
from hooks.context import CallContext
from hooks.markdown import plain
from hooks.statements import Statement
from models.assessment import RedFlag, Score


def title_of(statement: Statement, context: CallContext) -> str:
    """A statement in a few words, plain text."""
    texts = context.texts
    value = statement.value
    if isinstance(value, RedFlag):
        return texts.get(f"red-flag.{value.id}.summary", value.id.replace("-", " "))
    if isinstance(value, Score):
        return wording.score_phrase(value, texts)
    fact = value.fact
    number = wording.value_of(fact, texts)
    if not number:
        return wording.fact_phrase(fact, texts, context.names)
    name = plain(wording.mid_sentence(wording.name_of(fact, texts, context.names)), 60)
    return texts[f"critical_value.{value.direction}"].format(name=name, value=plain(number, 40))
