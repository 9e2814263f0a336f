"""Loading and checking the tables of the free-text matcher: phrases, body sites, cues and word lists.

Responsible for every row being usable (HPO term current, ICD-10-CM code well formed, source present)
and for naming file and row when one is not.  It matches nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fhir_adapters.hpo import Ontology
from fhir_adapters.terminology.codes import icd10_form
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows, required
from fhir_adapters.text_tokens import is_slashed, tokenize

PHRASE_FILES = ("text_abbreviations.csv", "text_spanish.csv")
SITES_FILE = "text_body_sites.csv"
CUES_FILE = "text_cues.csv"
WORDS_FILE = "text_words.csv"

GUARDS = frozenset({"", "alone", "not-spanish"})
CUE_KINDS = frozenset(
    {"negation", "uncertain", "history", "after", "family", "conditional", "pseudo", "terminator", "now"}
)
WORD_KINDS = frozenset(
    {"filler", "modifier", "time", "negator", "stop", "spanish", "english", "dotted", "prose"}
    | {"slashed", "inert", "radiating"}
)
_PHRASE_KINDS = frozenset({"stop", "inert"})


class Concept(NamedTuple):
    """What a phrase means.  `guard` says when the phrase may count: always, only when nothing else
    stands in its clause (``alone``), or only in a sentence that is not Spanish (``not-spanish``).
    `site` and `symptom` are keys of the body-site table; a concept with only a `site` is no finding."""

    hpo: str | None
    icd10cm: str | None
    label: str
    guard: str = ""
    site: str = ""
    symptom: str = ""


class Cue(NamedTuple):
    """Words that change how the findings around them are to be read.

    `pre` acts on what follows, otherwise on what precedes.  A `wide` cue reaches over commas ("denies
    fever, cough, pain"); another stops at the first comma unless an "or" list goes on.
    """

    words: tuple[str, ...]
    kind: str
    pre: bool
    wide: bool


class Sites(NamedTuple):
    """Body sites and symptoms by phrase, and the concepts of their pairs by (site, symptom)."""

    phrases: list[tuple[str, Concept]]
    pairs: dict[tuple[str, str], Concept]


def _checked(
    file: str, number: int, row: dict[str, str], ontology: Ontology
) -> tuple[str | None, str | None]:
    hpo, icd = row["hpo"], row["icd10cm"]
    if hpo and hpo not in ontology:
        raise TerminologyInvalid(file, number, f"no current HPO term {hpo!r}")
    if icd and icd10_form(icd) != icd:
        raise TerminologyInvalid(file, number, f"{icd!r} is not an ICD-10-CM code")
    if not hpo and not icd:
        raise TerminologyInvalid(file, number, "neither an HPO term nor an ICD-10-CM code")
    return hpo or None, icd or None


def load_phrases(ontology: Ontology) -> Iterator[tuple[str, tuple[Concept, ...]]]:
    """Each phrase of the abbreviation and Spanish tables with its concepts, in the order of the rows.

    A phrase on several rows means all of them ("N/V/D").  Raises `TerminologyInvalid`.
    """
    found: dict[str, list[Concept]] = {}
    for file in PHRASE_FILES:
        here: set[tuple[str, str, str]] = set()
        for number, row in read_rows(file, ("phrase", "hpo", "icd10cm", "label", "guard", "source")):
            required(file, number, row, "phrase", "label", "source")
            hpo, icd = _checked(file, number, row, ontology)
            if row["guard"] not in GUARDS:
                raise TerminologyInvalid(file, number, f"unknown guard {row['guard']!r}")
            same = (row["phrase"], row["hpo"], row["icd10cm"])
            if same in here or not tokenize(row["phrase"]).words:
                raise TerminologyInvalid(file, number, "a repeated row, or a phrase without words")
            here.add(same)
            concept = Concept(hpo, icd, row["label"], row["guard"])
            group = found.setdefault(row["phrase"], [])
            if concept not in group:
                group.append(concept)
            if len(group) > len(row["phrase"]):
                raise TerminologyInvalid(file, number, "more meanings than letters")
    for phrase, concepts in found.items():
        yield phrase, tuple(concepts)


def load_sites(ontology: Ontology) -> Sites:
    """The body-site table: words for sites, words for symptoms, and what a site with a symptom is called."""
    phrases: list[tuple[str, Concept]] = []
    pairs: dict[tuple[str, str], Concept] = {}
    sites: set[str] = set()
    general: dict[str, Concept] = {}
    columns = ("kind", "site", "symptom", "phrase", "hpo", "icd10cm", "label", "source")
    for number, row in read_rows(SITES_FILE, columns):
        required(SITES_FILE, number, row, "kind", "source")
        kind, site, symptom = row["kind"], row["site"], row["symptom"]
        if kind == "site":
            required(SITES_FILE, number, row, "site", "phrase")
            sites.add(site)
            phrases.append((row["phrase"], Concept(None, None, site, site=site)))
        elif kind == "symptom":
            required(SITES_FILE, number, row, "symptom", "phrase", "label")
            # A symptom without codes ("discharge") means something only together with a site.
            hpo, icd = None, None
            if row["hpo"] or row["icd10cm"]:
                hpo, icd = _checked(SITES_FILE, number, row, ontology)
            concept = Concept(hpo, icd, row["label"], symptom=symptom)
            if general.setdefault(symptom, concept) != concept:
                raise TerminologyInvalid(SITES_FILE, number, f"symptom {symptom!r} has two general meanings")
            phrases.append((row["phrase"], concept))
        elif kind == "pair":
            required(SITES_FILE, number, row, "label")
            hpo, icd = _checked(SITES_FILE, number, row, ontology)
            if site not in sites or symptom not in general or (site, symptom) in pairs:
                raise TerminologyInvalid(SITES_FILE, number, "unknown site or symptom, or a repeated pair")
            pairs[site, symptom] = Concept(hpo, icd, row["label"], site=site, symptom=symptom)
        else:
            raise TerminologyInvalid(SITES_FILE, number, f"unknown kind {kind!r}")
    return Sites(phrases, pairs)


def load_cues() -> list[Cue]:
    """The cues of negation, doubt, history, family and their limits, in the order of the rows."""
    cues: list[Cue] = []
    seen: set[tuple[tuple[str, ...], bool]] = set()
    for number, row in read_rows(CUES_FILE, ("phrase", "kind", "direction", "scope", "source")):
        required(CUES_FILE, number, row, "phrase", "kind", "direction", "scope", "source")
        if row["kind"] not in CUE_KINDS:
            raise TerminologyInvalid(CUES_FILE, number, f"unknown kind {row['kind']!r}")
        if row["direction"] not in ("pre", "post") or row["scope"] not in ("item", "list"):
            raise TerminologyInvalid(CUES_FILE, number, "direction is pre or post, scope is item or list")
        words = tuple(tokenize(row["phrase"]).words)
        pre = row["direction"] == "pre"
        if not words or (words, pre) in seen:
            raise TerminologyInvalid(CUES_FILE, number, "a repeated cue, or one without words")
        seen.add((words, pre))
        cues.append(Cue(words, row["kind"], pre, row["scope"] == "list"))
    return cues


def load_words() -> dict[str, frozenset[str]]:
    """The word lists by kind (see ``text_words.csv``), each word folded."""
    lists: dict[str, set[str]] = {kind: set() for kind in WORD_KINDS}
    for number, row in read_rows(WORDS_FILE, ("word", "kind", "reason")):
        required(WORDS_FILE, number, row, "word", "kind", "reason")
        if row["kind"] not in lists:
            raise TerminologyInvalid(WORDS_FILE, number, f"unknown kind {row['kind']!r}")
        if row["kind"] == "slashed":
            if not is_slashed(row["word"]):
                raise TerminologyInvalid(WORDS_FILE, number, "two small letters with a slash expected")
            lists["slashed"].add(row["word"])
            continue
        words = tokenize(row["word"]).words
        if not words or (len(words) > 1 and row["kind"] not in _PHRASE_KINDS):
            raise TerminologyInvalid(WORDS_FILE, number, "one word expected")
        lists[row["kind"]].add(" ".join(words))
    return {kind: frozenset(words) for kind, words in lists.items()}
