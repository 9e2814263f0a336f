"""The diseases to think of that red flags name, each once; builds no card.

Responsible for leaving out what the card says already: a headline, a disease of almost the same name
or code, and what the differential lists.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from unicodedata import category, normalize

from hooks.context import CallContext
from hooks.statements import Statement
from hooks.titles import title_of
from models.assessment import RedFlag

_MOST = 5


def suspects(shown: Sequence[Statement], context: CallContext, listed: Collection[str] = ()) -> list[str]:
    """Names of diseases to think of; `listed` are the ICD-10 categories that the card lists anyway."""
    texts = context.texts
    titles = [_words(title_of(s, context)) for s in shown if s.kind == "red-flag"]
    taken: list[tuple[str, frozenset[str]]] = []
    named: list[str] = []
    for statement in shown:
        if not isinstance(statement.value, RedFlag):
            continue
        for code in statement.value.suspects:
            name = texts.get(f"suspect.{code}", code)
            words = _words(name)
            if len(named) == _MOST or code[:3] in listed or any(words <= title for title in titles):
                continue
            if not any(_nearly(code, words, other) for other in taken):
                taken.append((code, words))
                named.append(name)
    return named


def _nearly(code: str, words: frozenset[str], other: tuple[str, frozenset[str]]) -> bool:
    """Whether two diseases are nearly one: one name within the other, or one ICD category."""
    named, among = other
    if words <= among or among <= words:
        return True
    return code[:3] == named[:3] and (code[3:5] == ".9" or named[3:5] == ".9")


@lru_cache(maxsize=1024)
def _words(name: str) -> frozenset[str]:
    """The beginnings of the words that tell a disease's name from another, without accents."""
    bare = "".join([c for c in normalize("NFD", name.lower()) if category(c) != "Mn"]).replace(":", " ")
    words = bare.split()
    return frozenset([word[:6] for word in words if len(word) > 4]) or frozenset(words)
