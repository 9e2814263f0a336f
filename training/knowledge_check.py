"""Checks disease files while they are written: every fault at once, and help with names and codes.

Responsible for what the loader cannot check in a serving install (ICD-10-CM codes by a maintained
package, tests by the chart reader) and for finding HPO ids by name.  ``cds-server knowledge check`` is the
same command.

    python -m training.knowledge_check                      # all files
    python -m training.knowledge_check FILE.toml ...        # these
    python -m training.knowledge_check --find "short of breath" --find hiccup
    python -m training.knowledge_check --fix FILE.toml      # fill ids and labels of findings by name
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path

import simple_icd_10_cm as icd10cm

from fhir_adapters.hpo import Ontology, load_ontology
from fhir_adapters.terminology.analytes import AnalyteTable
from fhir_adapters.terminology.tables import LOINC
from models.knowledge.loader import DATA, KnowledgeInvalid, load_checker, load_knowledge, load_shared
from models.knowledge.schema import Disease

_ROW = re.compile(r'^(\s*\[\s*)"([^"]*)",\s*"([^"]*)"', re.M)
_NO_FINDING = re.compile(r"findings \S+ \((.*?)\): no such finding")
_POSITIVE_NEGATIVE = ("LA6576-8", "LA6577-6")
Names = dict[str, tuple[str, str]]
"""Names in lower case to ``(key, label)``."""


def code_faults(disease: Disease) -> list[str]:
    """The codes of a disease that do not exist in ICD-10-CM or that no chart can be read for."""
    faults = [
        f"icd10cm: {code} does not exist" for code in disease.icd10cm if not icd10cm.is_valid_item(code)
    ]
    faults += [
        f"results {loinc} ({name}): not read from charts; use a coded LOINC of terminology/data/analytes.csv"
        for loinc, name, _, _ in disease.results
        if not readable(loinc)
    ]
    return [f"{disease.id}.toml: {fault}" for fault in faults]


def readable(loinc: str) -> bool:
    """Whether a chart with this test, answered positive or negative, is understood."""
    table = _analytes()
    analyte = table.by_loinc.get(loinc)
    if analyte is None or analyte.kind != "coded" or analyte.loinc != loinc:
        return False
    return [table.answer(loinc, LOINC, code) for code in _POSITIVE_NEGATIVE] == ["positive", "negative"]


def check_all(data: Traversable = DATA) -> tuple[int, list[str]]:
    """The number of diseases of a knowledge base and everything that is wrong with it."""
    try:
        knowledge = load_knowledge(load_ontology(), data)
    except KnowledgeInvalid as problem:
        return 0, problem.problems
    return len(knowledge.diseases), [
        fault for disease in knowledge.diseases for fault in code_faults(disease)
    ]


def check_files(paths: Sequence[Path]) -> list[str]:
    """What is wrong with these disease files, with near names where a finding is unknown.

    Raises:
        KnowledgeInvalid: when a shared table is wrong, for then no file can be judged.
    """
    ontology = load_ontology()
    checker, names = load_checker(ontology), finding_names(ontology)
    found: list[str] = []
    for path in paths:
        disease, faults = checker.read(path.name, path.read_text(encoding="utf-8"))
        if disease is not None:
            faults = [*faults, *code_faults(disease)]
        found += [fault + _hint(fault, names) for fault in faults]
    return found


def finding_names(ontology: Ontology) -> Names:
    """Every name and synonym of HPO in lower case; the labels of ``findings.csv`` win."""
    names: Names = {}
    for name, term in ontology.names():
        names.setdefault(name.lower(), (term, ontology.label(term)))
    names |= {row.label.lower(): (row.key, row.label) for row in load_shared(ontology).findings}
    return names


def find(text: str, names: Names) -> list[tuple[str, str]]:
    """Findings whose name is, resembles or contains `text`; at most 14, best first."""
    words = text.lower()
    exact = [names[words]] if words in names else []
    near = [names[name] for name in difflib.get_close_matches(words, names, 8, 0.7)]
    inside = [value for name, value in names.items() if words in name][:12]
    return list(dict.fromkeys(exact + near + inside))[:14]


def fix(path: Path, names: Names) -> None:
    """Give every finding row the id and label of its name (the label as written, or the id's own)."""
    text = path.read_text(encoding="utf-8")
    start = text.index("findings = [")
    end = text.index("\n]", start)

    def right(match: re.Match[str]) -> str:
        found = names.get(match[3].lower())
        return match[0] if found is None else f'{match[1]}"{found[0]}", "{found[1]}"'

    path.write_text(text[:start] + _ROW.sub(right, text[start:end]) + text[end:], encoding="utf-8")


def run(files: Sequence[Path], look_up: Sequence[str] = (), mend: bool = False) -> Iterator[tuple[str, bool]]:
    """The command: lines to print, each with whether it tells of a fault."""
    if look_up:
        names = finding_names(load_ontology())
        for text in look_up:
            yield f"{text}:", False
            yield from ((f"  {key}  {label}", False) for key, label in find(text, names))
        return
    if not files:
        count, faults = check_all()
        yield from ((fault, True) for fault in faults)
        yield f"{count} diseases, {len(faults)} faults", False
        return
    if mend:
        names = finding_names(load_ontology())
        for path in files:
            fix(path, names)
    faults = check_files(files)
    yield from ((fault, True) for fault in faults)
    yield f"{len(files)} files checked, {'all good' if not faults else 'see above'}", False


@cache
def _analytes() -> AnalyteTable:
    return AnalyteTable.load()


def _hint(fault: str, names: Names) -> str:
    named = _NO_FINDING.search(fault)
    near = find(named[1], names)[:6] if named else []
    return f"  perhaps: {near}" if near else ""


def main() -> int:
    """The command as a module; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--find", action="append", default=[], help="look up a finding by its name")
    parser.add_argument("--fix", action="store_true", help="fill ids and labels of findings by name")
    options = parser.parse_args()
    wrong = False
    for line, fault in run(options.files, options.find, options.fix):
        sys.stdout.write(line + "\n")
        wrong = wrong or fault
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
