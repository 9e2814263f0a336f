"""What a coded condition means: SNOMED CT, ICD-10(-CM) and HPO codes as pivot concepts.

Responsible for loading and validating the tables and for `ConceptTable.lookup`; it knows nothing of
FHIR resources, and whether a concept matters clinically is decided elsewhere.  A concept is an HPO
term (finding), an ICD-10-CM code (problem), both, or `ignored` (known, carries nothing we use).
"""

import gzip
from collections.abc import Callable, Iterator
from functools import partial
from importlib.resources import files
from typing import Literal, cast

import msgspec

from fhir_adapters.hpo import Ontology
from fhir_adapters.terminology.codes import icd10_form, is_sctid
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows, required

Kind = Literal["finding", "disease", "situation", "ignored"]

SNOMED_FILE = "snomed_concepts.csv"
ICD_FILE = "icd10cm_concepts.csv"
WHO_FILE = "icd10_who.csv"
CATEGORY_FILE = "icd10cm_categories.csv"
XREF_FILE = "hpo_snomed.tsv.gz"

_KINDS = frozenset(("finding", "disease", "situation", "ignored"))
_SNOMED = (
    "http://snomed.info/sct",
    "https://snomed.info/sct",
    "urn:oid:2.16.840.1.113883.6.96",
    "2.16.840.1.113883.6.96",
)
_ICD10CM = (
    "http://hl7.org/fhir/sid/icd-10-cm",
    "https://hl7.org/fhir/sid/icd-10-cm",
    "http://www.cms.gov/Medicare/Coding/ICD10",
    "urn:oid:2.16.840.1.113883.6.90",
    "2.16.840.1.113883.6.90",
)
_ICD10 = (
    "http://hl7.org/fhir/sid/icd-10",
    "https://hl7.org/fhir/sid/icd-10",
    "http://id.who.int/icd/release/10",
    "http://id.who.int/icd10",
    "http://www.who.int/classifications/icd/icd-10",
    "urn:oid:2.16.840.1.113883.6.3",
    "2.16.840.1.113883.6.3",
)
_HPO = (
    "http://human-phenotype-ontology.org",
    "https://human-phenotype-ontology.org",
    "http://purl.obolibrary.org/obo/hp.owl",
    "http://purl.obolibrary.org/obo/hp.fhir",
    "http://purl.obolibrary.org/obo/hp",
    "https://hpo.jax.org",
    "https://hpo.jax.org/app",
)
# Sent codes are remembered up to this many; beyond, memory starts anew (codes come from outside).
_REMEMBERED = 4096


class Concept(msgspec.Struct, frozen=True, gc=False):
    """The meaning of one code.

    `label`/`label_es` are what people read (`label_es` is `None` where nothing was translated), `hpo`
    a current HPO term that is never more specific than the code, `icd10cm` a code with its dot.
    `state` is ``"absent"`` for codes that say something is not there ("No known allergy").
    """

    label: str
    label_es: str | None
    hpo: str | None
    icd10cm: str | None
    kind: Kind
    state: Literal["present", "absent"] = "present"


class ConceptTable:
    """All condition codes that are understood; build it with `ConceptTable.load`."""

    __slots__ = ("_categories", "_icd", "_lookups", "_memory", "_ontology", "_snomed", "_who")

    def __init__(
        self,
        ontology: Ontology,
        snomed: dict[str, Concept],
        icd: dict[str, Concept],
        *,
        categories: dict[str, str],
        who: dict[str, str],
    ) -> None:
        self._ontology = ontology
        self._snomed = snomed
        self._icd = icd
        self._categories = categories
        self._who = who
        self._memory: dict[tuple[str, str], Concept | None] = {}
        lookups: dict[str, Callable[[str], Concept | None]] = {}
        for systems, find in (
            (_SNOMED, snomed.get),
            (_ICD10CM, partial(self._remembered, "icd-10-cm", self._icd10cm)),
            (_ICD10, partial(self._remembered, "icd-10", self._icd10)),
            (_HPO, partial(self._remembered, "hpo", self._hpo)),
        ):
            for system in systems:
                lookups[system] = lookups[system + "/"] = find
        self._lookups = lookups

    @classmethod
    def load(cls, ontology: Ontology) -> "ConceptTable":
        """Read and validate the packaged tables.

        Raises:
            TerminologyInvalid: naming file and row: malformed or repeated codes, HPO ids that are not
                current phenotypes, unknown ICD categories or kinds, missing labels or sources.
        """
        categories = dict(_categories())
        snomed = dict(_xrefs(ontology))
        snomed.update(_snomed_rows(ontology, categories))
        return cls(
            ontology,
            snomed,
            dict(_icd_rows(ontology, categories)),
            categories=categories,
            who=dict(_who_rows(categories)),
        )

    def lookup(self, system: str, code: str) -> Concept | None:
        """The concept of a code, `None` when no table knows it.

        `system` is a FHIR code system URI (versions and ``urn:oid:`` forms are understood).  An
        ICD-10 code that is not in the table takes the meaning of its nearest ancestor there, keeping
        the sent code; any code of a known category is at least that category.
        """
        find = self._lookups.get(system)
        if find is None:
            # SNOMED CT URIs may carry an edition and version behind a slash.
            if not system.startswith("http://snomed.info/sct/"):
                return None
            return self._snomed.get(code)
        return find(code)

    def __len__(self) -> int:
        return len(self._snomed) + len(self._icd)

    def snomed_codes(self) -> Iterator[str]:
        """All SNOMED CT codes understood, HPO's cross references included."""
        return iter(self._snomed)

    def icd10cm_codes(self) -> Iterator[str]:
        """The ICD-10-CM codes with a row of their own (categories come on top)."""
        return iter(self._icd)

    def _remembered(self, kind: str, find: Callable[[str], Concept | None], code: str) -> Concept | None:
        key = (kind, code)
        memory = self._memory
        try:
            return memory[key]
        except KeyError:
            found = find(code) if len(code) <= 64 else None
            if len(memory) >= _REMEMBERED:
                memory.clear()
            if len(code) <= 64:
                memory[key] = found
            return found

    def _icd10cm(self, sent: str) -> Concept | None:
        code = icd10_form(sent)
        if code is None:
            return None
        row = self._icd.get(code)
        if row is not None:
            return row
        shorter = code
        while len(shorter) > 3:
            shorter = shorter[:-1].rstrip(".")
            row = self._icd.get(shorter)
            if row is not None:
                return Concept(row.label, row.label_es, row.hpo, code, row.kind, row.state)
        title = self._categories.get(code[:3])
        if title is None:
            return None
        return Concept(title, None, None, code, _chapter_kind(code))

    def _icd10(self, sent: str) -> Concept | None:
        code = icd10_form(sent)
        if code is None:
            return None
        # Categories that only the WHO edition has stand in a table of their own.
        if code[:3] in self._who:
            return self._icd10cm(self._who[code[:3]])
        return self._icd10cm(code)

    def _hpo(self, sent: str) -> Concept | None:
        name = sent.rpartition("/")[2].replace("_", ":")
        term = self._ontology.canonical(name.upper())
        if term is None:
            return None
        if not self._ontology.is_phenotype(term):
            return Concept(self._ontology.label(term), self._ontology.label_es(term), None, None, "ignored")
        return Concept(self._ontology.label(term), self._ontology.label_es(term), term, None, "finding")


def _chapter_kind(code: str) -> Kind:
    if code[0] == "R":
        return "finding"
    return "situation" if code[0] in "VWXYZ" else "disease"


def _categories() -> Iterator[tuple[str, str]]:
    for number, row in read_rows(CATEGORY_FILE, ("category", "label")):
        required(CATEGORY_FILE, number, row, "category", "label")
        if len(row["category"]) != 3 or icd10_form(row["category"]) != row["category"]:
            raise TerminologyInvalid(CATEGORY_FILE, number, "not a three-character category")
        yield row["category"], row["label"]


def _xrefs(ontology: Ontology) -> Iterator[tuple[str, Concept]]:
    source = files("fhir_adapters.terminology").joinpath("data", XREF_FILE)
    try:
        lines = gzip.decompress(source.read_bytes()).decode("utf-8").splitlines()
    except (OSError, EOFError, ValueError) as error:
        raise TerminologyInvalid(XREF_FILE, 0, "missing or not a readable gzip file") from error
    for number, line in enumerate(lines[1:], start=2):
        code, _, term = line.partition("\t")
        if term not in ontology:
            raise TerminologyInvalid(XREF_FILE, number, f"{term!r} is not a current HPO term")
        yield code, Concept(ontology.label(term), ontology.label_es(term), term, None, "finding")


def _checked(
    file: str, number: int, row: dict[str, str], ontology: Ontology, categories: dict[str, str]
) -> tuple[str | None, str | None, Kind]:
    """The HPO term, ICD-10-CM code and kind of a row, or `TerminologyInvalid`."""
    required(file, number, row, "label", "label_es", "kind", "source")
    kind, term, icd = row["kind"], row["hpo"] or None, row["icd10cm"] or None
    if kind not in _KINDS:
        raise TerminologyInvalid(file, number, f"unknown kind {kind!r}")
    if term is not None and not ontology.is_phenotype(term):
        raise TerminologyInvalid(file, number, f"{term!r} is not a current HPO phenotype")
    if icd is not None and (icd10_form(icd) != icd or icd[:3] not in categories):
        raise TerminologyInvalid(file, number, f"{icd!r} is not an ICD-10-CM code")
    if (term is None and icd is None) != (kind == "ignored"):
        raise TerminologyInvalid(file, number, "only an ignored row maps to nothing")
    return term, icd, cast(Kind, kind)


def _snomed_rows(ontology: Ontology, categories: dict[str, str]) -> Iterator[tuple[str, Concept]]:
    columns = ("code", "label", "label_es", "hpo", "icd10cm", "kind", "state", "source")
    seen: set[str] = set()
    for number, row in read_rows(SNOMED_FILE, columns):
        code = row["code"]
        if not is_sctid(code):
            raise TerminologyInvalid(SNOMED_FILE, number, f"{code!r} is not a SNOMED CT identifier")
        if code in seen:
            raise TerminologyInvalid(SNOMED_FILE, number, f"{code} is repeated")
        seen.add(code)
        term, icd, kind = _checked(SNOMED_FILE, number, row, ontology, categories)
        state = row["state"]
        if state not in ("present", "absent"):
            raise TerminologyInvalid(SNOMED_FILE, number, f"unknown state {state!r}")
        state = cast(Literal["present", "absent"], state)
        yield code, Concept(row["label"], row["label_es"], term, icd, kind, state)


def _icd_rows(ontology: Ontology, categories: dict[str, str]) -> Iterator[tuple[str, Concept]]:
    columns = ("icd10cm", "label", "label_es", "hpo", "kind", "source")
    seen: set[str] = set()
    for number, row in read_rows(ICD_FILE, columns):
        required(ICD_FILE, number, row, "icd10cm")
        term, icd, kind = _checked(ICD_FILE, number, row, ontology, categories)
        code = row["icd10cm"]
        if code in seen:
            raise TerminologyInvalid(ICD_FILE, number, f"{code} is repeated")
        seen.add(code)
        yield code, Concept(row["label"], row["label_es"], term, icd, kind)


def _who_rows(categories: dict[str, str]) -> Iterator[tuple[str, str]]:
    for number, row in read_rows(WHO_FILE, ("who_category", "label", "icd10cm", "source")):
        required(WHO_FILE, number, row, "who_category", "label", "icd10cm", "source")
        who, icd = row["who_category"], row["icd10cm"]
        if icd10_form(who) != who or len(who) != 3 or who in categories:
            raise TerminologyInvalid(WHO_FILE, number, f"{who!r} is not a category of the WHO edition only")
        if icd10_form(icd) != icd or icd[:3] not in categories:
            raise TerminologyInvalid(WHO_FILE, number, f"{icd!r} is not an ICD-10-CM code")
        yield who, icd
