"""HPO's names under the look-up keys of the free-text matcher, made when the terminology is compiled.

Responsible for how a phrase becomes a key and for the compiled file of keyed names beside ``hpo.tsv.gz``:
what is in it (`key_names`), how it is written and how it is read.  Keying 37,000 names on every start would
cost a worker a fifth of a second; the words that decide a key are hand-kept (``text_words.csv``), so the
file carries their fingerprint and a file made with others is refused.  It searches nothing.
"""

import gzip
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources

from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import PACKAGE
from fhir_adapters.text_tokens import AND, OR, look_up_key, name_stems, stem

COMPILED = "hpo_text_keys.tsv.gz"

# Longer names are left out: nobody types them into a complaint.
LONGEST_NAME = 6
_MAX_NAME_CHARACTERS = 70

Words = Mapping[str, frozenset[str]]
_HEADING = "#hpo_text_keys"
_DECIDING = ("filler", "negator", "slashed", "stop")


class Keys:
    """How a phrase becomes its look-up key, with the word lists of ``text_words.csv``."""

    __slots__ = ("_known", "_slashed", "fillers", "negators")

    def __init__(self, words: Words) -> None:
        self.fillers = frozenset(map(stem, words["filler"])) | words["filler"]
        self.negators = words["negator"]
        self._slashed = words["slashed"]
        self._known: dict[str, str] = {}  # stems of words met before

    def key(self, phrase: str) -> str:
        """The key of `phrase`; ``""`` when it has no word that counts."""
        if phrase in self._slashed:
            return phrase
        return look_up_key(name_stems(phrase, self._known, self.fillers), self.negators)


def key_names(names: Iterable[tuple[str, str]], words: Words) -> dict[str, str]:
    """The term id by look-up key for ``(name, term id)`` pairs; of names with the same key the first counts.

    Long names, names of several findings ("fever and cough") and the stop phrases are left out.
    """
    keys = Keys(words)
    stop = {keys.key(phrase) for phrase in words["stop"]}
    found: dict[str, str] = {}
    for name, term_id in names:
        if len(name) > _MAX_NAME_CHARACTERS:
            continue
        key = keys.key(name)
        if key and key not in stop and AND not in key and OR not in key and key.count(" ") < LONGEST_NAME:
            found.setdefault(key, term_id)
    return found


def fingerprint(words: Words) -> str:
    """What of the word lists and limits decides the keys, as a SHA-256 in hex."""
    parts = [f"{LONGEST_NAME} {_MAX_NAME_CHARACTERS}"]
    parts += [f"{kind}: {'|'.join(sorted(words[kind]))}" for kind in _DECIDING]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def compile_names(version: str, names: Iterable[tuple[str, str]], words: Words) -> bytes:
    """The compiled file before compression: a heading, then term id and its keys, one term a row."""
    by_term: dict[str, list[str]] = {}
    for key, term_id in key_names(names, words).items():
        by_term.setdefault(term_id, []).append(key)
    lines = [f"{_HEADING}\t{version}\t{fingerprint(words)}"]
    lines += [f"{term_id}\t{'|'.join(keys)}" for term_id, keys in by_term.items()]
    return ("\n".join(lines) + "\n").encode()


def load_names(version: str, words: Words) -> Iterator[tuple[str, list[str]]]:
    """Each term id of the compiled file with the keys of its names.

    Raises:
        TerminologyInvalid: the file is missing or damaged, or was compiled from another HPO release than
            `version` or from other `words`; ``make terminology`` makes it anew.
    """
    try:
        packed = resources.files(PACKAGE).joinpath("data", COMPILED).read_bytes()
        lines = gzip.decompress(packed).decode("utf-8").splitlines()
    except FileNotFoundError as problem:
        raise TerminologyInvalid(COMPILED, 0, "missing; build it with `make terminology`") from problem
    except (OSError, EOFError, ValueError) as problem:
        raise TerminologyInvalid(COMPILED, 0, "not a readable gzip file") from problem
    if not lines or lines[0].split("\t") != [_HEADING, version, fingerprint(words)]:
        raise TerminologyInvalid(
            COMPILED, 1, "not made from this HPO release and these words; run `make terminology`"
        )
    for number in range(1, len(lines)):
        term_id, _, keys = lines[number].partition("\t")
        if not keys:
            raise TerminologyInvalid(COMPILED, number + 1, "two columns expected")
        yield term_id, keys.split("|")
