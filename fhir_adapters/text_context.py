"""How a finding is meant: denied, doubted, past, or somebody else's.

An implementation of the idea of NegEx (Chapman et al., J Biomed Inform 2001;34:301-10) and ConText
(Harkema et al., J Biomed Inform 2009;42:839-51): cue words open a scope to one side that a
terminator, another cue or a break closes.  The cues are data (``text_cues.csv``); which scope passes
a comma is our own rule.  It finds no findings.
"""

from typing import NamedTuple

from fhir_adapters.text_tables import Cue
from fhir_adapters.text_tokens import COMMA, OR, SENTENCE, Tokens

NEGATION, UNCERTAIN, HISTORY, AFTER, FAMILY = 1, 2, 4, 8, 16
_MARKS = {
    "negation": NEGATION,
    "uncertain": UNCERTAIN,
    "conditional": UNCERTAIN,
    "history": HISTORY,
    "after": AFTER,
    "family": FAMILY,
}
_LIMITS = frozenset({"terminator", "now"})
# What a "now" terminator ("presents with") closes; negation and doubt run on.
_PAST = HISTORY | AFTER | FAMILY


class CueHit(NamedTuple):
    """A cue standing at words `first` to `last` (inclusive)."""

    first: int
    last: int
    cue: Cue


class Context:
    """The cues of both languages, ready to be found."""

    __slots__ = ("_by_first", "words")

    def __init__(self, cues: list[Cue]) -> None:
        self._by_first: dict[str, list[Cue]] = {}
        for cue in cues:
            self._by_first.setdefault(cue.words[0], []).append(cue)
        for group in self._by_first.values():
            group.sort(key=lambda cue: -len(cue.words))
        self.words = frozenset(word for cue in cues for word in cue.words)

    def cues(self, tokens: Tokens, taken: list[bool]) -> list[CueHit]:
        """The cues in `tokens`, longest first at each place, outside of the words that are `taken`."""
        hits: list[CueHit] = []
        words, by_first = tokens.words, self._by_first
        free_from = 0
        for at, word in enumerate(words):
            group = by_first.get(word)
            if group is None or at < free_from or taken[at]:
                continue
            length = 0
            for cue in group:
                size = len(cue.words)
                if size < length:
                    break
                if (
                    tuple(words[at : at + size]) == cue.words
                    and not any(taken[at : at + size])
                    and SENTENCE not in tokens.breaks[at + 1 : at + size]
                ):
                    length = size
                    hits.append(CueHit(at, at + size - 1, cue))
            free_from = at + length if length else free_from
        return hits

    def marks(self, tokens: Tokens, hits: list[CueHit]) -> list[int]:
        """For each word the marks (bits) of the scopes it lies in."""
        marks = [0] * len(tokens.words)
        for number, hit in enumerate(hits):
            mark = _MARKS.get(hit.cue.kind)
            if mark is None:
                continue
            if hit.cue.pre and not _is_answer(tokens, hit):
                for at in range(hit.last + 1, _scope_end(tokens, hits, number, mark)):
                    marks[at] |= mark
            else:
                for at in range(_scope_start(tokens, hits, number), hit.first):
                    marks[at] |= mark
        for at, asked in enumerate(tokens.asked):
            if asked:
                _mark_question(tokens, at, asked, marks)
        return marks


def _is_answer(tokens: Tokens, hit: CueHit) -> bool:
    """Whether a "no" answers what stands before it ("fever: no, cough: yes", "chest pain (no)")."""
    if hit.cue.words != ("no",) or not hit.first:
        return False
    after = hit.last + 1
    if after < len(tokens.words) and tokens.breaks[after] not in (COMMA, SENTENCE):
        return False
    before = tokens.breaks[hit.first]
    bracketed = tokens.text[: tokens.starts[hit.first]].rstrip().endswith(("(", "["))
    return before != SENTENCE and (before != COMMA or bracketed)


def _scope_end(tokens: Tokens, hits: list[CueHit], number: int, mark: int) -> int:
    """The word before which the scope of the forward cue `hits[number]` ends."""
    start = hits[number].last + 1
    limit = len(tokens.words)
    for place in range(number + 1, len(hits)):
        later = hits[place]
        kind = later.cue.kind
        closes = kind == "terminator" or (kind == "now" and mark & _PAST)
        if closes or (later.cue.pre and _MARKS.get(kind) == mark):
            limit = later.first
            break
    for at in range(start, limit):
        if tokens.breaks[at] == SENTENCE:
            limit = at
            break
    if hits[number].cue.wide:
        return limit
    last_or = -1
    for at in range(start, limit):
        if tokens.stems[at] == OR:
            last_or = at
    for at in range(max(start + 1, last_or + 1), limit):
        if tokens.breaks[at] == COMMA and at > start:
            return at
    return limit


def _scope_start(tokens: Tokens, hits: list[CueHit], number: int) -> int:
    """The first word of the scope of the backward cue `hits[number]`."""
    first = hits[number].first
    start = first
    while (
        start > 0 and tokens.breaks[start] != SENTENCE and (start == first or tokens.breaks[start] != COMMA)
    ):
        start -= 1
    for place in range(number - 1, -1, -1):
        earlier = hits[place]
        if earlier.last < start:
            break
        if earlier.cue.kind in _LIMITS or not earlier.cue.pre:
            return earlier.last + 1
    return start


def _mark_question(tokens: Tokens, at: int, asked: int, marks: list[int]) -> None:
    """A question mark before or after word `at` puts its comma-bounded part in doubt."""
    step = 1 if asked < 0 else -1
    while True:
        marks[at] |= UNCERTAIN
        following = at + step
        if not 0 <= following < len(marks) or tokens.asked[following] == asked:
            return
        if tokens.breaks[max(at, following)] in (COMMA, SENTENCE):
            return
        at = following
