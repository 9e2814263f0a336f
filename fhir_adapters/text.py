"""Findings and diseases in short clinical free text, by dictionary, in English and Spanish.

Responsible for "SOB x 3d, denies chest pain" becoming HPO terms and ICD-10-CM codes with their state,
from HPO's own names and the tables ``text_*.csv``.  It is meant for complaints and problem titles of
a line or two, not for notes; it learns nothing and guesses nothing beyond one slip of the pen in a
long word.  Cutting into words is `text_tokens`, the tables are `text_tables`, negation and the like
`text_context`, sites with symptoms `text_sites`.
"""

from functools import lru_cache
from typing import Literal

import msgspec

from fhir_adapters.hpo import Ontology
from fhir_adapters.text_context import AFTER, FAMILY, HISTORY, NEGATION, UNCERTAIN, Context
from fhir_adapters.text_lexicon import Lexicon
from fhir_adapters.text_sites import Hit, compose
from fhir_adapters.text_tables import Concept, load_cues, load_phrases, load_sites, load_words
from fhir_adapters.text_tokens import tokenize

#: Characters of a text that are read; what follows is ignored (a complaint is far shorter).
LONGEST_TEXT = 4000
# Texts longer than this are not remembered, so that the memory of the cache has a bound.
_REMEMBERED_LENGTH = 200
_REMEMBERED = 2048
# After "s/p" an injury or accident is why the patient comes, anything else is past.
_INJURY_CHAPTERS = frozenset("STVWXY")
_FALLS = "HP:0002527"


class TextMatch(msgspec.Struct, frozen=True, gc=False):
    """A finding or disease read in a text, at characters `start` to `end` (exclusive).

    At least one of `hpo` (``"HP:0001945"``) and `icd10cm` (``"R50.9"``) is set.  `state` is what the
    text says of it, hypothetical mentions ("return if fever") are uncertain; `historical` marks what
    is told as past ("h/o").
    """

    hpo: str | None
    icd10cm: str | None
    label: str
    state: Literal["present", "absent", "uncertain"]
    experiencer: Literal["patient", "family"]
    historical: bool
    start: int
    end: int


class TextMatcher:
    """The dictionary, built once per process.  Never changes after construction; safe to share."""

    def __init__(self, ontology: Ontology, lexicon: Lexicon, context: Context) -> None:
        self._ontology = ontology
        self._lexicon = lexicon
        self._context = context
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._match)

    @classmethod
    def load(cls, ontology: Ontology) -> "TextMatcher":
        """Build the matcher from `ontology` and the packaged tables.

        Raises:
            TerminologyInvalid: a row of a table is wrong; the error names file and row.
        """
        words = load_words()
        context = Context(load_cues())
        phrases = load_phrases(ontology)
        lexicon = Lexicon(ontology, phrases, load_sites(ontology), words, context.words)
        return cls(ontology, lexicon, context)

    def match(self, text: str) -> tuple[TextMatch, ...]:
        """What `text` (its first `LONGEST_TEXT` characters) says, in order of place, without overlaps.

        Never raises on any string; one without anything known gives ``()``.
        """
        if len(text) > _REMEMBERED_LENGTH:
            return self._match(text[:LONGEST_TEXT])
        return self._remembered(text)

    def _match(self, text: str) -> tuple[TextMatch, ...]:
        lexicon = self._lexicon
        tokens = tokenize(text, lexicon.dotted, lexicon.slashed)
        if not tokens.words:
            return ()
        hits, taken = lexicon.find(tokens)
        if not hits:
            return ()
        cues = self._context.cues(tokens, taken)
        compose(hits, tokens, text, lexicon)
        marks = self._context.marks(tokens, cues)
        matches: list[TextMatch] = []
        for hit in hits:
            self._emit(hit, tokens.starts[hit.first], tokens.ends[hit.last], marks[hit.core], matches)
        return tuple(matches)

    def _emit(self, hit: Hit, start: int, end: int, marks: int, matches: list[TextMatch]) -> None:
        """Append the matches of one place; several meanings share its characters among them."""
        concepts: tuple[Concept, ...] | str = hit.concepts
        if isinstance(concepts, str):
            concepts = (
                Concept(concepts, self._lexicon.icd10cm.get(concepts), self._ontology.label(concepts)),
            )
        share, last = (end - start) // len(concepts), len(concepts) - 1
        for number, concept in enumerate(concepts):
            if concept.hpo is None and concept.icd10cm is None:
                continue
            matches.append(
                TextMatch(
                    concept.hpo,
                    concept.icd10cm,
                    concept.label,
                    "absent" if marks & NEGATION else "uncertain" if marks & UNCERTAIN else "present",
                    "family" if marks & FAMILY else "patient",
                    bool(marks & HISTORY or (marks & AFTER and not _is_injury(concept))),
                    start + share * number,
                    end if number == last else start + share * (number + 1),
                )
            )


def _is_injury(concept: Concept) -> bool:
    return concept.hpo == _FALLS or (concept.icd10cm is not None and concept.icd10cm[0] in _INJURY_CHAPTERS)
