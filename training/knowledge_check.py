"""Checks disease files while they are written: every fault at once, and help with names and codes.

Responsible for what the loader cannot check in a serving install (ICD-10-CM codes by a maintained
package) and for finding HPO ids by name.

    python -m training.knowledge_check                      # all files
    python -m training.knowledge_check FILE.toml ...        # these
    python -m training.knowledge_check --find "short of breath" --find hiccup
    python -m training.knowledge_check --fix FILE.toml      # fill ids and labels of findings by name
"""

import argparse
import difflib
import re
import sys
from pathlib import Path

import simple_icd_10_cm as icd10cm

from fhir_adapters.hpo import Ontology, load_ontology
from models.knowledge.loader import DATA, DiseaseChecker, KnowledgeInvalid, load_knowledge
from models.knowledge.schema import Disease

_ROW = re.compile(r'^(\s*\[\s*)"([^"]*)",\s*"([^"]*)"', re.M)


def unknown_codes(disease: Disease) -> list[str]:
    """The ICD-10-CM codes of a disease that the classification does not have."""
    return [
        f"{disease.id}.toml: icd10cm: {code} does not exist"
        for code in disease.icd10cm
        if not icd10cm.is_valid_item(code)
    ]


def _names(ontology: Ontology) -> dict[str, tuple[str, str]]:
    import csv

    names: dict[str, tuple[str, str]] = {}
    for name, term in ontology.names():
        names.setdefault(name.lower(), (term, ontology.label(term)))
    with (Path(str(DATA)) / "findings.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            names[row["label"].lower()] = (row["key"], row["label"])
    return names


def _find(text: str, names: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    words = text.lower()
    exact = [names[words]] if words in names else []
    near = [names[name] for name in difflib.get_close_matches(words, names, 8, 0.7)]
    inside = [value for name, value in names.items() if words in name][:12]
    return list(dict.fromkeys(exact + near + inside))[:14]


def _fix(path: Path, names: dict[str, tuple[str, str]]) -> None:
    """Give every finding row the id and label of its name (the label as written, or the id's own)."""
    text = path.read_text(encoding="utf-8")
    start = text.index("findings = [")
    end = text.index("\n]", start)

    def right(match: re.Match[str]) -> str:
        found = names.get(match[3].lower())
        return match[0] if found is None else f'{match[1]}"{found[0]}", "{found[1]}"'

    path.write_text(text[:start] + _ROW.sub(right, text[start:end]) + text[end:], encoding="utf-8")


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--find", action="append", default=[], help="look up a finding by its name")
    parser.add_argument("--fix", action="store_true", help="fill ids and labels of findings by name")
    options = parser.parse_args()
    out = sys.stdout.write
    ontology = load_ontology()
    names = _names(ontology)
    for text in options.find:
        out(f"{text}:\n" + "".join(f"  {key}  {label}\n" for key, label in _find(text, names)))
    if options.find:
        return 0
    if not options.files:
        try:
            knowledge = load_knowledge(ontology)
        except KnowledgeInvalid as problem:
            out(f"{problem}\n")
            return 1
        faults = [fault for disease in knowledge.diseases for fault in unknown_codes(disease)]
        out("\n".join([*faults, f"{len(knowledge.diseases)} diseases, {len(faults)} unknown codes\n"]))
        return 1 if faults else 0
    checker = DiseaseChecker.load(ontology)
    status = 0
    for path in options.files:
        if options.fix:
            _fix(path, names)
        disease, faults = checker.read(path.name, path.read_text(encoding="utf-8"))
        if disease is not None:
            faults += unknown_codes(disease)
        for fault in faults:
            named = re.search(r"findings \S+ \((.*?)\): no such finding", fault)
            hint = _find(named[1], names)[:6] if named else []
            out(fault + (f"  perhaps: {hint}" if hint else "") + "\n")
        status = status or (1 if faults else 0)
    out(f"{len(options.files)} files checked, {'all good' if not status else 'see above'}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
