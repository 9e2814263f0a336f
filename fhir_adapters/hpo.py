"""The Human Phenotype Ontology as an immutable, typed value: terms, labels, the is-a hierarchy.

It answers questions about terms (canonical id, parents, ancestors, descendants, names) from the file
that `training.terminology` compiles out of ``hp.obo``.  It does not match text, score phenotypes or
know anything about diseases.  The ontology is used unaltered; licence and release are stated in
``terminology/data/README.md``.
"""

import csv
import gzip
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fhir_adapters.terminology.errors import TerminologyInvalid

ROOT = "HP:0000001"
PHENOTYPIC_ABNORMALITY = "HP:0000118"
COMPILED = "hpo.tsv.gz"
SPANISH = "hpo_es.csv"

# Ancestor sets are remembered for so many terms; a chart asks about a few dozen.
_REMEMBERED = 2048


class Ontology:
    """One release of HPO.  Never changes after construction; safe to share between threads.

    Term ids are written ``"HP:0001945"``.  Every method that takes a term id accepts current ids
    only (use `canonical` first for ids from outside) and raises `KeyError` for others, except
    `canonical`, `label_es`, `is_phenotype` and ``in``, which take any string.
    """

    __slots__ = (
        "_ancestors",
        "_children",
        "_labels",
        "_parents",
        "_replaced",
        "_source",
        "_spanish",
        "_version",
    )

    def __init__(
        self,
        version: str,
        labels: dict[str, str],
        parents: dict[str, tuple[str, ...]],
        *,
        replaced: dict[str, str],
        spanish: dict[str, str],
        source: Traversable,
    ) -> None:
        self._version = version
        self._labels = labels
        self._parents = parents
        self._replaced = replaced
        self._spanish = spanish
        self._source = source
        self._children: dict[str, tuple[str, ...]] | None = None
        self._ancestors: dict[str, frozenset[str]] = {}

    @property
    def version(self) -> str:
        """The HPO release, for example ``"2025-01-16"``."""
        return self._version

    def __contains__(self, term_id: object) -> bool:
        return term_id in self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[str]:
        """All current term ids, in order of id."""
        return iter(self._labels)

    def canonical(self, term_id: str) -> str | None:
        """The current id of a term: alternative ids and obsolete terms are followed; `None` if unknown.

        An obsolete term is followed to what HPO says replaces it, or to its only "consider" term;
        with several to consider there is no safe answer and it counts as unknown.
        """
        if term_id in self._labels:
            return term_id
        return self._replaced.get(term_id)

    def label(self, term_id: str) -> str:
        """The English name HPO gives the term."""
        return self._labels[term_id]

    def label_es(self, term_id: str) -> str | None:
        """A Spanish name, for the terms this project has translated; `None` for the others."""
        return self._spanish.get(term_id)

    def parents(self, term_id: str) -> tuple[str, ...]:
        """The direct is-a parents; empty only for the root."""
        return self._parents[term_id]

    def ancestors(self, term_id: str) -> frozenset[str]:
        """All terms this one is a kind of, itself and the root included."""
        known = self._ancestors.get(term_id)
        if known is not None:
            return known
        found = {term_id}
        waiting = [term_id]
        while waiting:
            for parent in self._parents[waiting.pop()]:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        if len(self._ancestors) >= _REMEMBERED:
            self._ancestors.clear()
        result = self._ancestors[term_id] = frozenset(found)
        return result

    def descendants(self, term_id: str) -> frozenset[str]:
        """All terms that are a kind of this one, itself included."""
        children = self._children
        if children is None:
            lists: dict[str, list[str]] = {}
            for child, parents in self._parents.items():
                for parent in parents:
                    lists.setdefault(parent, []).append(child)
            children = self._children = {parent: tuple(below) for parent, below in lists.items()}
        if term_id not in self._labels:
            raise KeyError(term_id)
        found = {term_id}
        waiting = [term_id]
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return frozenset(found)

    def is_a(self, term_id: str, ancestor: str) -> bool:
        """Whether `term_id` is `ancestor` or a kind of it."""
        return ancestor in self.ancestors(term_id)

    def is_phenotype(self, term_id: str) -> bool:
        """Whether the term is a phenotypic abnormality (not an onset, a modifier or an inheritance)."""
        return term_id in self._labels and PHENOTYPIC_ABNORMALITY in self.ancestors(term_id)

    def names(self) -> Iterator[tuple[str, str]]:
        """``(name, term id)`` for every label and exact synonym of the phenotypic abnormalities.

        Labels first for each term.  Abbreviations are left out: HPO's ("MS", "PD") mean several
        things in a chart.  Read from the compiled file on each call, so that nobody pays memory for
        text that only a matcher's construction needs.
        """
        for fields in _read(self._source):
            term_id = fields[0]
            if not self.is_phenotype(term_id):
                continue
            yield fields[1], term_id
            if fields[4]:
                for synonym in fields[4].split("|"):
                    yield synonym, term_id


def _read(source: Traversable) -> Iterator[list[str]]:
    """The rows of the compiled file after its heading: id, label, parents, replaced ids, synonyms."""
    text = gzip.decompress(source.read_bytes()).decode("utf-8")
    for line in text.splitlines()[1:]:
        yield line.split("\t")


def _spanish(source: Traversable, labels: dict[str, str]) -> dict[str, str]:
    if not source.is_file():
        return {}
    names: dict[str, str] = {}
    with source.open("r", encoding="utf-8") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=2):
            term_id, name = row["hpo"], row["label_es"]
            if term_id not in labels:
                raise TerminologyInvalid(SPANISH, number, f"no current HPO term {term_id!r}")
            if not name or term_id in names:
                raise TerminologyInvalid(SPANISH, number, "empty or repeated translation")
            names[term_id] = name
    return names


@cache
def load_ontology() -> Ontology:
    """The HPO release shipped with the product, read once per process.

    Raises:
        TerminologyInvalid: the compiled file is missing, damaged or inconsistent.
    """
    folder = files("fhir_adapters") / "terminology" / "data"
    source = folder / COMPILED
    if not source.is_file():
        raise TerminologyInvalid(COMPILED, 0, "missing; build it with `python -m training.terminology`")
    try:
        text = gzip.decompress(source.read_bytes()).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise TerminologyInvalid(COMPILED, 0, "not a readable gzip file") from error
    lines = text.splitlines()
    heading = lines[0].split("\t")
    if heading[0] != "#hpo":
        raise TerminologyInvalid(COMPILED, 1, "heading missing")
    labels: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    replaced: dict[str, str] = {}
    shared: dict[str, tuple[str, ...]] = {}  # many siblings have the same parents
    ids: dict[str, str] = {}  # one string object per id
    for number, line in enumerate(lines[1:], start=2):
        try:
            term_id, label, above, former, _ = line.split("\t")
        except ValueError:
            raise TerminologyInvalid(COMPILED, number, "five columns expected") from None
        term_id = ids.setdefault(term_id, term_id)
        labels[term_id] = label
        known = shared.get(above)
        if known is None:
            known = shared[above] = tuple(ids.setdefault(p, p) for p in above.split())
        parents[term_id] = known
        for old in former.split():
            replaced[old] = term_id
    for above_ids in shared.values():
        for parent in above_ids:
            if parent not in labels:
                raise TerminologyInvalid(COMPILED, 0, f"parent {parent!r} is not a term")
    return Ontology(
        heading[1],
        labels,
        parents,
        replaced=replaced,
        spanish=_spanish(folder / SPANISH, labels),
        source=source,
    )
