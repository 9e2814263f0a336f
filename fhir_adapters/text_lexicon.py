"""The dictionary of the free-text matcher and the search in it.

Responsible for which groups of words are known names, longest first; how they are meant (negated,
past) and the joining of sites with symptoms are decided elsewhere.
"""

from collections.abc import Iterable

from fhir_adapters.hpo import Ontology
from fhir_adapters.text_sites import Hit
from fhir_adapters.text_tables import Concept, Sites
from fhir_adapters.text_tokens import AND, COMMA, OR, SENTENCE, Tokens, look_up_key, name_stems, stem
from fhir_adapters.text_typos import Corrector

# Longer names are left out: nobody types them into a complaint.
LONGEST_NAME = 6
_MAX_NAME_CHARACTERS = 70

_Known = str | tuple[Concept, ...]


class Lexicon:
    """Names by look-up key (see `look_up_key`); a string is an HPO term, a tuple comes from our tables."""

    __slots__ = (
        "_by_key",
        "_corrector",
        "_cues",
        "_fillers",
        "_modifiers",
        "_negators",
        "_spanish",
        "_stems",
        "_time",
        "_vocabulary",
        "dotted",
        "icd10cm",
        "pairs",
        "sites",
        "symptoms",
    )

    def __init__(
        self,
        ontology: Ontology,
        phrases: Iterable[tuple[str, tuple[Concept, ...]]],
        sites: Sites,
        words: dict[str, frozenset[str]],
        cue_words: frozenset[str],
    ) -> None:
        self._fillers = frozenset(map(stem, words["filler"])) | words["filler"]
        self._modifiers = frozenset(map(stem, words["modifier"])) | words["modifier"]
        self._time = words["time"]
        self._negators = words["negator"]
        self._spanish = words["spanish"]
        self._cues = cue_words
        self._stems: dict[str, str] = {}  # of words met while building
        self.dotted = words["dotted"]
        self.pairs = sites.pairs
        by_key: dict[str, _Known] = {}
        #: The ICD-10-CM code that goes with an HPO term found by HPO's own name.
        self.icd10cm: dict[str, str] = {}
        for phrase, concept in sites.phrases:
            by_key.setdefault(self._key(phrase), (concept,))
            if concept.hpo is not None and concept.icd10cm is not None:
                self.icd10cm.setdefault(concept.hpo, concept.icd10cm)
        for phrase, concepts in phrases:
            for concept in concepts:
                if concept.hpo is not None and concept.icd10cm is not None:
                    self.icd10cm.setdefault(concept.hpo, concept.icd10cm)
            key = self._key(phrase)
            if len(key) > 1:
                by_key.setdefault(key, concepts)
        for pair in sites.pairs.values():
            if pair.hpo is not None and pair.icd10cm is not None:
                self.icd10cm.setdefault(pair.hpo, pair.icd10cm)
        #: Sites and symptoms of the body-site table by single word.
        self.sites = {self._key(p): c.site for p, c in sites.phrases if c.site}
        self.symptoms = {self._key(p): c.symptom for p, c in sites.phrases if c.symptom}
        targets = {one for key in by_key for one in key.split(" ")}
        stop = {self._key(phrase) for phrase in words["stop"]}
        ids = {term_id: term_id for term_id in ontology}
        for name, term_id in ontology.names():
            if len(name) > _MAX_NAME_CHARACTERS:
                continue
            key = self._key(name)
            if key and key not in stop and AND not in key and OR not in key and key.count(" ") < LONGEST_NAME:
                by_key.setdefault(key, ids[term_id])
        self._stems = {}
        self._by_key = by_key
        shared: dict[str, str] = {}
        self._vocabulary = frozenset(shared.setdefault(one, one) for key in by_key for one in key.split(" "))
        common = words["prose"] | cue_words | self._time | self._fillers | self._modifiers | self._spanish
        self._corrector = Corrector(targets, frozenset(map(stem, common)) | common)

    def _key(self, phrase: str) -> str:
        return look_up_key(name_stems(phrase, self._stems, self._fillers), self._negators)

    def find(self, tokens: Tokens) -> tuple[list[Hit], list[bool]]:
        """The names in `tokens`, longest first, without overlaps, in order of place; and for each word
        whether a name has taken it.  Bare body sites are among them."""
        stems = self._corrected(tokens)
        candidates: list[tuple[int, int, int, _Known]] = []
        fillers, modifiers = self._fillers, self._modifiers
        content = [at for at, one in enumerate(stems) if one not in fillers]
        self._windows(content, stems, tokens.breaks, candidates)
        plain = [at for at in content if stems[at] not in modifiers]
        if len(plain) != len(content):
            self._windows(plain, stems, tokens.breaks, candidates)
        candidates.sort()
        taken = [False] * len(stems)
        hits: list[Hit] = []
        for size, first, last, known in candidates:
            if True in taken[first : last + 1]:
                continue
            if not isinstance(known, str) and not self._may_count(known[0].guard, tokens, stems, first, last):
                continue
            taken[first : last + 1] = [True] * (last + 1 - first)
            hits.append(Hit(first, last, known, -size))
        hits.sort(key=lambda hit: hit.first)
        return hits, taken

    def _corrected(self, tokens: Tokens) -> list[str]:
        stems, vocabulary = tokens.stems, self._vocabulary
        for at, one in enumerate(stems):
            if one not in vocabulary and len(tokens.words[at]) >= Corrector.SHORTEST:
                better = self._corrector.correct(one, tokens.words[at])
                if better is not None:
                    stems[at] = better
        return stems

    def _windows(
        self,
        content: list[int],
        stems: list[str],
        breaks: list[int],
        candidates: list[tuple[int, int, int, _Known]],
    ) -> None:
        """Append ``(-size, first, last, meaning)`` for each run of up to `LONGEST_NAME` known words."""
        vocabulary, by_key, negators = self._vocabulary, self._by_key, self._negators
        count = len(content)
        for begin in range(count):
            first = content[begin]
            if stems[first] not in vocabulary:
                continue
            group: list[str] = []
            previous = first
            for at in content[begin : begin + LONGEST_NAME]:
                one = stems[at]
                if one not in vocabulary:
                    break
                if at != first and _broken(breaks, previous, at):
                    break
                group.append(one)
                previous = at
                known = by_key.get(one if at == first else look_up_key(group, negators))
                if known is not None:
                    candidates.append((-len(group), first, at, known))

    def _may_count(self, guard: str, tokens: Tokens, stems: list[str], first: int, last: int) -> bool:
        """Whether a phrase with this guard (see `Concept`) may count where it stands."""
        if not guard:
            return True
        begin, end = first, last + 1
        limit = SENTENCE if guard == "not-spanish" else COMMA
        while begin > 0 and tokens.breaks[begin] < limit:
            begin -= 1
        while end < len(stems) and tokens.breaks[end] < limit:
            end += 1
        for at in (*range(begin, first), *range(last + 1, end)):
            word = tokens.words[at]
            if guard == "not-spanish":
                if word in self._spanish:
                    return False
            elif not (
                word in self._time
                or word in self._cues
                or stems[at] in self._fillers
                or stems[at] in self._modifiers
                or word[0].isdigit()
                or stems[at] in (AND, OR)
            ):
                return False
        return True


def _broken(breaks: list[int], previous: int, at: int) -> bool:
    return breaks[at] > 0 if at == previous + 1 else any(breaks[previous + 1 : at + 1])
