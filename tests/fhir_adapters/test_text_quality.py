"""How well the free-text matcher reads short clinical texts that this project wrote, held-out ones apart.

A third of ``data/text_cases.csv`` (``heldout``) was written before it was first read by the matcher and
is never tuned on; a text that is corrected for moves to ``tuning`` and fresh ones take its place.
An expected item is ``[f][h]{+,-,?}code``: family, historical, present / absent / uncertain, and an HPO
term or ICD-10-CM code.
"""

import csv
from pathlib import Path

import pytest

from fhir_adapters.hpo import load_ontology
from fhir_adapters.text import TextMatch, TextMatcher

CASES = Path(__file__).parent / "data" / "text_cases.csv"
SIGNS = {"present": "+", "absent": "-", "uncertain": "?"}


@pytest.fixture(scope="module")
def matcher() -> TextMatcher:
    return TextMatcher.load(load_ontology())


def written(match: TextMatch, code: str | None) -> str:
    family = "f" if match.experiencer == "family" else ""
    return f"{family}{'h' if match.historical else ''}{SIGNS[match.state]}{code}"


def score(matcher: TextMatcher, split: str) -> tuple[int, int, int, list[str]]:
    """Right, spurious and missed items of a split, and the texts they are in."""
    right = spurious = missed = 0
    faults: list[str] = []
    with CASES.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["split"] != split:
                continue
            expected = set(row["expected"].split())
            wrong: list[str] = []
            for match in matcher.match(row["text"]):
                found = {written(match, match.hpo), written(match, match.icd10cm)} & expected
                if found:
                    right += 1
                    expected -= found
                else:
                    spurious += 1
                    wrong.append(f"{written(match, match.hpo)}/{match.icd10cm} {match.label}")
            missed += len(expected)
            if wrong or expected:
                faults.append(f"{row['text']!r}: spurious {wrong}, missed {sorted(expected)}")
    return right, spurious, missed, faults


@pytest.mark.parametrize("split", ["heldout", "tuning"])
def test_short_clinical_texts_are_read_with_high_precision_and_recall(
    matcher: TextMatcher, split: str
) -> None:
    right, spurious, missed, faults = score(matcher, split)
    precision, recall = right / (right + spurious), right / (right + missed)
    print(f"\n{split}: precision {precision:.3f}, recall {recall:.3f} over {right + missed} expected items")
    for fault in faults:
        print("  ", fault)
    assert precision >= 0.95
    assert recall >= 0.90


def test_the_evaluation_is_large_enough_and_a_third_of_it_is_held_out() -> None:
    with CASES.open(encoding="utf-8", newline="") as lines:
        splits = [row["split"] for row in csv.DictReader(lines)]
    assert len(splits) >= 250
    assert splits.count("heldout") * 3 >= len(splits)
