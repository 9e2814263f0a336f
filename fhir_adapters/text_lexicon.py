"""The dictionary of the free-text matcher and the search in it.

Responsible for which groups of words are known names, longest first; how they are meant (negated,
past) and the joining of sites with symptoms are decided elsewhere.
"""

from collections.abc import Iterable

from fhir_adapters.hpo import Ontology
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.text_names import COMPILED, LONGEST_NAME, Keys, load_names
from fhir_adapters.text_sites import Hit
from fhir_adapters.text_tables import Concept, Sites
from fhir_adapters.text_tokens import AND, COMMA, OR, SENTENCE, Tokens, look_up_key, stem
from fhir_adapters.text_typos import Corrector

_HA = "ha"
# Endings of Spanish participles (folded), and the irregular ones that stay short.
_PARTICIPLE = ("ado", "ido")
_IRREGULAR = frozenset(
    {"abierto", "cubierto", "dicho", "escrito", "hecho", "muerto", "puesto", "roto", "visto", "vuelto"}
)

_Known = str | tuple[Concept, ...]


class Lexicon:
    """Names by look-up key (see `look_up_key`); a string is an HPO term, a tuple comes from our tables."""

    __slots__ = (
        "_by_key",
        "_corrector",
        "_cues",
        "_english",
        "_fillers",
        "_inert",
        "_modifiers",
        "_negators",
        "_spanish",
        "_time",
        "_vocabulary",
        "dotted",
        "icd10cm",
        "pairs",
        "radiating",
        "sites",
        "slashed",
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
        keys = Keys(words)
        self._fillers = keys.fillers
        self._modifiers = frozenset(map(stem, words["modifier"])) | words["modifier"]
        self._time = words["time"]
        self._negators = keys.negators
        self._spanish = words["spanish"]
        self._english = words["english"]
        self._cues = cue_words
        self.dotted = words["dotted"]
        self.slashed = words["slashed"]
        #: Words after which a pain is felt at a second site ("radiating to the arm").
        self.radiating = words["radiating"]
        self._inert: dict[str, list[list[str]]] = {}
        for phrase in sorted(words["inert"]):
            self._inert.setdefault(phrase.split(" ")[0], []).append(phrase.split(" "))
        self.pairs = sites.pairs
        by_key: dict[str, _Known] = {}
        #: The ICD-10-CM code that goes with an HPO term found by HPO's own name.
        self.icd10cm: dict[str, str] = {}
        for phrase, concept in sites.phrases:
            by_key.setdefault(keys.key(phrase), (concept,))
            if concept.hpo is not None and concept.icd10cm is not None:
                self.icd10cm.setdefault(concept.hpo, concept.icd10cm)
        for phrase, concepts in phrases:
            for concept in concepts:
                if concept.hpo is not None and concept.icd10cm is not None:
                    self.icd10cm.setdefault(concept.hpo, concept.icd10cm)
            key = keys.key(phrase)
            if len(key) > 1:
                by_key.setdefault(key, concepts)
        for pair in sites.pairs.values():
            if pair.hpo is not None and pair.icd10cm is not None:
                self.icd10cm.setdefault(pair.hpo, pair.icd10cm)
        #: Sites and symptoms of the body-site table by single word.
        self.sites = {keys.key(p): c.site for p, c in sites.phrases if c.site}
        self.symptoms = {keys.key(p): c.symptom for p, c in sites.phrases if c.symptom}
        targets = {one for key in by_key for one in key.split(" ")}
        _add_hpo_names(by_key, ontology, words)
        self._by_key = by_key
        vocabulary: set[str] = set()
        for key in by_key:
            vocabulary.update(key.split(" "))
        self._vocabulary = frozenset(vocabulary)
        common = words["prose"] | cue_words | self._time | self._fillers | self._modifiers | self._spanish
        common |= self.radiating
        self._corrector = Corrector(targets, frozenset(map(stem, common)) | common)

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
        inert = self._inert_runs(tokens) if candidates else ()
        for size, first, last, known in candidates:
            if True in taken[first : last + 1]:
                continue
            if inert and any(first <= end and last >= at and -size <= end - at + 1 for at, end in inert):
                continue
            if not isinstance(known, str) and not self._may_count(known[0].guard, tokens, stems, first, last):
                continue
            taken[first : last + 1] = [True] * (last + 1 - first)
            hits.append(Hit(first, last, known, -size))
        hits.sort(key=lambda hit: hit.first)
        return hits, taken

    def _inert_runs(self, tokens: Tokens) -> list[tuple[int, int]]:
        """First and last word of each phrase that keeps the words in it from counting ("cut down")."""
        runs: list[tuple[int, int]] = []
        words, inert = tokens.words, self._inert
        for at, word in enumerate(words):
            for group in inert.get(word, ()):
                end = at + len(group)
                if words[at:end] == group and not any(tokens.breaks[at + 1 : end]):
                    runs.append((at, end - 1))
        return runs

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
        if guard == "not-spanish" and tokens.words[first] == _HA and not self._is_headache(tokens, first):
            return False
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

    def _is_headache(self, tokens: Tokens, at: int) -> bool:
        """Whether "ha" is the abbreviation and not the Spanish auxiliary ("ha comido").

        In small letters only alone or beside an English word; in capitals unless a participle follows.
        """
        words = tokens.words
        if at + 1 < len(words) and (words[at + 1].endswith(_PARTICIPLE) or words[at + 1] in _IRREGULAR):
            return False
        if len(words) == 1 or tokens.text[tokens.starts[at] : tokens.ends[at]].isupper():
            return True
        return not self._english.isdisjoint(words)


def _add_hpo_names(by_key: dict[str, _Known], ontology: Ontology, words: dict[str, frozenset[str]]) -> None:
    """HPO's own names, where our tables give a key no meaning of its own."""
    ids = {term_id: term_id for term_id in ontology}  # one string object per id
    for number, (written, keys) in enumerate(load_names(ontology.version, words), start=2):
        term_id = ids.get(written)
        if term_id is None:
            raise TerminologyInvalid(COMPILED, number, f"no current HPO term {written!r}")
        for key in keys:
            by_key.setdefault(key, term_id)


def _broken(breaks: list[int], previous: int, at: int) -> bool:
    return breaks[at] > 0 if at == previous + 1 else any(breaks[previous + 1 : at + 1])
