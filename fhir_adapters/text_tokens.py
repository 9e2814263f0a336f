"""Cutting clinical free text into words with their places, folded and stemmed for comparison.

Responsible for what counts as a word, a break or a joiner; it knows no clinical meaning.  Every step
is linear in the length of the text.
"""

import re
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

# What stands between two words: nothing of note, a comma-like pause, a colon, or the end of a sentence.
NO_BREAK, COMMA, COLON, SENTENCE = 0, 1, 2, 3
AND, OR = "&", "|"

_WORD = r"[^\W_](?:[^\W_]|[\u0300-\u036f])*"
_TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}(?![^\W\d_]{2})"  # S.O.B.
    r"|\d+[.,]\d+"  # 38.5
    rf"|{_WORD}(?:['\u2019]{_WORD})*"
    r"|[.,;:!?()\[\]&+\n\r|\u00bf\u00a1]"
)
_BREAKS = {",": COMMA, "(": COMMA, ")": COMMA, "[": COMMA, "]": COMMA, ":": COLON}
_BREAKS |= {".": SENTENCE, ";": SENTENCE, "!": SENTENCE, "\n": SENTENCE, "\r": SENTENCE, "|": SENTENCE}
_BREAKS |= {"\u00bf": NO_BREAK, "\u00a1": NO_BREAK}
_AND = frozenset({"and", "y", "e", "&", "+"})
_OR = frozenset({"or", "nor", "ni", "o", "u"})
_SLASHED = len("h/a")
_KEEP_FINAL_S = ("ss", "us", "is")
_SIBILANT_PLURALS = ("shes", "sses", "xes", "zes")


class Tokens(NamedTuple):
    """The words of a text in parallel lists.

    `words` are folded, `stems` further reduced for look-up, `starts`/`ends` their places in the text,
    `breaks` the break before each word, `asked` whether a question mark touches it: -1 before,
    1 after, 0 not.  `text` is what was cut.
    """

    words: list[str]
    stems: list[str]
    starts: list[int]
    ends: list[int]
    breaks: list[int]
    asked: list[int]
    text: str = ""


def fold(word: str) -> str:
    """`word` in small letters without accents, apostrophes, dots or possessive ``'s``."""
    if not word.isascii():
        decomposed = unicodedata.normalize("NFKD", word.replace("\u2019", "'").casefold())
        # A second pass, since casefold of a decomposed letter may bring a mark or a capital back.
        word = "".join(c for c in decomposed if not unicodedata.combining(c))
    word = word.lower()
    if "'" in word:
        word = word.removesuffix("'s").replace("'", "")
    return word


def stem(word: str) -> str:
    """`word` (folded) without its English or Spanish plural ending, the same for singular and plural.

    Only plurals and a final ``e`` of longer words go; other endings carry meaning in clinical words.
    """
    size = len(word)
    if size > 3 and word[-1] == "s" and not word.endswith(_KEEP_FINAL_S):
        if size > 4 and word.endswith("ies"):
            return word[:-3] + "y"
        word = word[:-2] if (size > 6 and word[-2] == "e") or word.endswith(_SIBILANT_PLURALS) else word[:-1]
    return word[:-1] if len(word) > 5 and word[-1] == "e" else word


def is_slashed(text: str) -> bool:
    """Whether `text` is two small letters joined by a slash ("h/a")."""
    return len(text) == _SLASHED and text[1] == "/" and (text[0] + text[2]).isalpha() and text == fold(text)


def tokenize(text: str, dotted: Collection[str] = (), slashed: Collection[str] = ()) -> Tokens:
    """The words of `text`; a dot after a word of `dotted` or a single letter does not end a sentence, and
    two letters with a slash that are in `slashed` are one word (others are two: "c/o")."""
    words: list[str] = []
    stems: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    breaks: list[int] = []
    asked: list[int] = []
    gap, question = NO_BREAK, 0
    free_from = 0
    for found in _TOKEN.finditer(text):
        if found.start() < free_from:
            continue
        raw = found[0]
        if not raw[0].isalnum() and raw not in "&+":
            if raw == "?":
                touches = bool(words) and found.start() == ends[-1]
                if touches:
                    asked[-1], gap = 1, max(gap, COMMA)
                else:
                    question = -1
            elif raw != "." or not words or found.start() != ends[-1] or not _short(words[-1], dotted):
                gap = max(gap, _BREAKS[raw])
            continue
        word = fold(raw.replace(".", "") if raw[-1] == "." else raw)
        if not word:
            continue
        end = found.end()
        if len(word) == 1 and text[end : end + 1] == "/" and slashed:
            pair = _slashed_at(text, found.start())
            if pair in slashed:
                word, end = pair, found.start() + _SLASHED
                free_from = end
        words.append(word)
        stems.append(_stem_of(word))
        starts.append(found.start())
        ends.append(end)
        breaks.append(gap)
        asked.append(question)
        gap, question = NO_BREAK, 0
    return Tokens(words, stems, starts, ends, breaks, asked, text)


def _slashed_at(text: str, start: int) -> str:
    """The slashed pair of letters at `start`, ``""`` when more is joined to it ("n/v/d", "and/or")."""
    end = start + _SLASHED
    if start and (text[start - 1] == "/" or text[start - 1].isalnum()):
        return ""
    if text[end : end + 1] == "/" or text[end : end + 1].isalnum():
        return ""
    return text[start:end].lower()


def _stem_of(word: str) -> str:
    return AND if word in _AND else OR if word in _OR else stem(word)


def name_stems(name: str, known: dict[str, str], leave_out: Collection[str]) -> list[str]:
    """The stems of `tokenize(name)` without those to `leave_out`; `known` remembers words seen before."""
    stems: list[str] = []
    # Most names are letters and spaces, where splitting is several times cheaper than the pattern.
    for raw in name.split() if name.replace(" ", "").isalpha() else _TOKEN.findall(name):
        one = known.get(raw)
        if one is None:
            one = (
                _stem_of(fold(raw.replace(".", "") if raw[-1] == "." else raw))
                if raw[0].isalnum() or raw in "&+"
                else ""
            )
            one = known[raw] = "" if one in leave_out else one
        if one:
            stems.append(one)
    return stems


def _short(word: str, dotted: Collection[str]) -> bool:
    return len(word) == 1 or word in dotted


def look_up_key(stems: list[str], ordered: Collection[str]) -> str:
    """The key under which a group of stems is filed: their order does not count ("pain in leg",
    "leg pain"), unless one of them is in `ordered` (a negator: "no appetite" is not "appetite, no")."""
    if len(stems) == 1:
        return stems[0]
    for one in stems:
        if one in ordered:
            return " ".join(stems)
    return " ".join(sorted(stems))
