"""Joining a symptom with the body site it is said of: "swelling of the left thigh", "arm and leg pain".

Responsible only for which site belongs to which symptom within a clause; what the pair is called is
in the body-site table.  A pair the table does not know leaves the general symptom.
"""

from typing import TYPE_CHECKING

from fhir_adapters.text_tables import Concept
from fhir_adapters.text_tokens import AND, OR, SENTENCE, Tokens

if TYPE_CHECKING:
    from fhir_adapters.text_lexicon import Lexicon

# So many other words may stand between a symptom and its site ("pain radiating to the arm").
_LARGEST_GAP = 2
# So many words may stand between "radiating" and the site ("to the left upper"), or between two such
# sites ("left arm and the jaw").
_LARGEST_RADIATION = 4
_JOINERS = frozenset({"/", "&", "+", ",", "and", "y", "e", "o", "or"})


class Hit:
    """A name found at words `first` to `last`; `core` is the word whose context (negation) counts."""

    __slots__ = ("concepts", "core", "first", "last", "radiated", "size")

    def __init__(self, first: int, last: int, concepts: str | tuple[Concept, ...], size: int) -> None:
        self.first = first
        self.last = last
        self.core = first
        self.concepts = concepts
        self.size = size
        #: The symptom that radiates to this site, when one does.
        self.radiated = ""

    @property
    def site(self) -> str:
        """The body site, when the hit is nothing but one."""
        if isinstance(self.concepts, str) or len(self.concepts) != 1:
            return ""
        concept = self.concepts[0]
        return "" if concept.symptom else concept.site

    @property
    def symptom(self) -> str:
        """The symptom, when the hit is a general one without a site."""
        if isinstance(self.concepts, str) or len(self.concepts) != 1:
            return ""
        concept = self.concepts[0]
        return "" if concept.site else concept.symptom


def compose(hits: list[Hit], tokens: Tokens, text: str, lexicon: "Lexicon") -> None:
    """Join symptoms with sites in place; afterwards a site that belongs to nothing stays without meaning."""
    located: dict[int, str] = {}
    for number, hit in enumerate(hits):
        if hit.symptom:
            place = _nearest(hits, number, tokens)
            if place is not None:
                located[number] = _join(hits, number, place, lexicon)
    for number, hit in enumerate(hits):
        if hit.symptom and number not in located:
            _inherit(hits, number, located=located, tokens=tokens, text=text, lexicon=lexicon)
    for number, hit in enumerate(hits):
        if hit.site:
            _give_symptom(hits, number, tokens, text, lexicon)


def _between(left: Hit, right: Hit, tokens: Tokens, text: str) -> str:
    return text[tokens.ends[left.last] : tokens.starts[right.first]].strip().lower()


def _gap(left: Hit, right: Hit, tokens: Tokens) -> int | None:
    """Words between two hits; `None` when a break or an "and" stands between them."""
    for at in range(left.last + 1, right.first + 1):
        if tokens.breaks[at] or (at < right.first and tokens.stems[at] in (AND, OR)):
            return None
    return right.first - left.last - 1


def _nearest(hits: list[Hit], number: int, tokens: Tokens) -> int | None:
    best, least = None, _LARGEST_GAP + 1
    for other in (number - 1, number + 1):
        if 0 <= other < len(hits) and hits[other].site:
            left, right = (other, number) if other < number else (number, other)
            gap = _gap(hits[left], hits[right], tokens)
            if gap is not None and gap < least:
                best, least = other, gap
    return best


def _named(hit: Hit, site: str, lexicon: "Lexicon") -> None:
    pair = lexicon.pairs.get((site, hit.symptom))
    if pair is not None:
        hit.concepts = (pair,)


def _join(hits: list[Hit], number: int, place: int, lexicon: "Lexicon") -> str:
    hit, site = hits[number], hits[place].site
    symptom = hit.symptom
    _named(hit, site, lexicon)
    hit.core = hit.first
    if (site, symptom) in lexicon.pairs:
        # The site's words become part of the match.
        hit.first, hit.last = min(hit.first, hits[place].first), max(hit.last, hits[place].last)
        hits[place].concepts = (Concept(None, None, site, site="", symptom=""),)
        hits[place].first, hits[place].last, hits[place].core = hit.first, hit.last, hit.core
    return site


def _site_within(hit: Hit, tokens: Tokens, lexicon: "Lexicon") -> str | None:
    """The site among the words of a name such as "leg pain"."""
    for at in range(hit.first, hit.last + 1):
        site = lexicon.sites.get(tokens.stems[at])
        if site is not None and not hit.site:
            return site
    return None


def _inherit(
    hits: list[Hit], number: int, *, located: dict[int, str], tokens: Tokens, text: str, lexicon: "Lexicon"
) -> None:
    """ "leg pain and swelling", "pain and swelling of the leg": the neighbour's site counts for both."""
    for other in (number - 1, number + 1):
        if not 0 <= other < len(hits):
            continue
        site = located.get(other) or _site_within(hits[other], tokens, lexicon)
        if site is None:
            continue
        left, right = (other, number) if other < number else (number, other)
        if _between(hits[left], hits[right], tokens, text) in _JOINERS:
            _named(hits[number], site, lexicon)
            located[number] = site
            return


def _give_symptom(hits: list[Hit], number: int, tokens: Tokens, text: str, lexicon: "Lexicon") -> None:
    """ "arm and leg pain", "pain in arm and leg": a bare site joined to a located symptom."""
    hit = hits[number]
    for other in (number + 1, number - 1):
        if not 0 <= other < len(hits) or hits[other].site:
            continue
        left, right = (number, other) if number < other else (other, number)
        if _between(hits[left], hits[right], tokens, text) not in _JOINERS:
            continue
        pair = lexicon.pairs.get((hit.site, _symptom_within(hits[other], tokens, lexicon)))
        if pair is not None:
            hit.concepts = (pair,)
            return
    if number and not hits[number - 1].site:
        _radiate(hits, number, tokens, lexicon)


def _symptom_within(hit: Hit, tokens: Tokens, lexicon: "Lexicon") -> str:
    """The symptom named by the last or first word of a hit ("leg pain"), ``""`` when there is none."""
    for at in (hit.last, hit.first):
        symptom = lexicon.symptoms.get(tokens.stems[at])
        if symptom is not None:
            return symptom
    return ""


def _radiate(hits: list[Hit], number: int, tokens: Tokens, lexicon: "Lexicon") -> None:
    """ "chest pain radiating to the left arm and jaw": the pain is at the further sites as well."""
    hit, before = hits[number], hits[number - 1]
    symptom = _symptom_within(before, tokens, lexicon) or "pain"
    if before.radiated and _listed(before, hit, tokens):
        symptom = before.radiated
    elif not _radiates(before, hit, tokens, lexicon):
        return
    pair = lexicon.pairs.get((hit.site, symptom))
    if pair is not None:
        hit.concepts, hit.radiated = (pair,), symptom


def _radiates(left: Hit, right: Hit, tokens: Tokens, lexicon: "Lexicon") -> bool:
    """Whether a word of radiation stands between two hits, just before the second and in one sentence."""
    if SENTENCE in tokens.breaks[left.last + 1 : right.first + 1]:
        return False
    for at in range(right.first - 1, max(left.last, right.first - 2 - _LARGEST_RADIATION), -1):
        if tokens.words[at] in lexicon.radiating:
            # "non-radiating" denies only the radiation; a "not" before it is a cue of its own.
            return tokens.words[at - 1] != "non"
        if tokens.breaks[at + 1] or tokens.stems[at] in (AND, OR):
            return False
    return False


def _listed(left: Hit, right: Hit, tokens: Tokens) -> bool:
    """Whether two hits are joined by "and" or "or" with few other words and no break between them."""
    between = range(left.last + 1, right.first)
    return (
        len(between) <= _LARGEST_RADIATION
        and not any(tokens.breaks[left.last + 1 : right.first + 1])
        and any(tokens.stems[at] in (AND, OR) for at in between)
    )
