"""Which OMIM and ORPHA entries are one disease, from what HPO's files say of them.

Neither file holds cross references, so a pair must earn it: the same name, or a name alike together with
an exclusive gene and a similar phenotype.  One entry joins at most one of the other registry, and type
numbers must agree ("Kabuki syndrome" is a group, not "Kabuki syndrome 1").  Measured in docs/rare.md.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import log

from training.rare.names import family, numbers, words

NAME_ALIKE = 0.42
SURE = 0.80
"""Grade C, set on pairs checked by hand: share of names' information in common, and the score to merge."""


@dataclass(frozen=True)
class Entry:
    """One OMIM or ORPHA entry: `terms` are its findings with all their ancestors."""

    id: str
    name: str
    genes: frozenset[str]
    terms: frozenset[int]


def merge(entries: Mapping[str, Entry], ic: Mapping[int, float]) -> dict[str, str]:
    """ORPHA id → OMIM id of the pairs that are one disease."""
    omim = [entry for entry in entries.values() if entry.id.startswith("OMIM:")]
    orpha = [entry for entry in entries.values() if entry.id.startswith("ORPHA:")]
    weight = _weights([entry.name for entry in entries.values()])
    by_gene: dict[str, list[Entry]] = {}
    by_word: dict[str, list[Entry]] = {}
    for entry in omim:
        for gene in entry.genes:
            by_gene.setdefault(gene, []).append(entry)
        for word in words(entry.name):
            by_word.setdefault(word, []).append(entry)
    types = Counter(family(entry.name) for entry in omim)
    orpha_of_gene = Counter(gene for entry in orpha for gene in entry.genes)
    scored: list[tuple[float, str, str]] = []
    for entry in orpha:
        rarest = sorted(words(entry.name), key=lambda word: (-weight[word], word))[:3]
        near = {e.id: e for word in rarest for e in by_word.get(word, ())}
        near |= {e.id: e for gene in entry.genes for e in by_gene.get(gene, ())}
        for other in near.values():
            exclusive = any(
                len(by_gene[gene]) == 1 and orpha_of_gene[gene] == 1 for gene in entry.genes & other.genes
            )
            alone = types[family(other.name)] == 1
            score = pair_score(entry, other, weight, ic, exclusive=exclusive, alone=alone)
            if score >= SURE:
                scored.append((score, entry.id, other.id))
    taken: set[str] = set()
    merged: dict[str, str] = {}
    for _, mine, theirs in sorted(scored, key=lambda row: (-row[0], row[1], row[2])):
        if mine not in taken and theirs not in taken:
            merged[mine] = theirs
            taken |= {mine, theirs}
    return merged


def pair_score(
    orpha: Entry,
    omim: Entry,
    weight: Mapping[str, float],
    ic: Mapping[int, float],
    *,
    exclusive: bool,
    alone: bool,
) -> float:
    """How sure two entries are one disease, 0 to about 2.

    `exclusive`: a gene is of these two entries only.  `alone`: no other OMIM entry differs from this one
    in its type number only.
    """
    mine, theirs = words(orpha.name), words(omim.name)
    union = sum(weight[word] for word in mine | theirs)
    alike = sum(weight[word] for word in mine & theirs) / union if union else 0.0
    group = exclusive and alone and not numbers(orpha.name)
    if (numbers(orpha.name) != numbers(omim.name) and not group) or _other_genes(orpha, omim):
        return 0.0
    similar = _similarity(orpha.terms, omim.terms, ic)
    if alike >= 0.999:
        return 1.0 + similar
    # Many genes make a group of diseases, of which this one may be a member only.
    if len(orpha.genes) > 1 and len(omim.genes) <= 1:
        return 0.0
    if exclusive:
        return 0.45 + 0.5 * alike + 0.8 * similar
    shared = 0.15 if orpha.genes & omim.genes else 0.0
    return alike * 0.8 + shared + 0.4 * similar if alike >= NAME_ALIKE else 0.0


def _other_genes(orpha: Entry, omim: Entry) -> bool:
    return bool(orpha.genes and omim.genes and not orpha.genes & omim.genes)


def _weights(names: list[str]) -> dict[str, float]:
    counts = Counter(word for name in names for word in words(name))
    return {word: log(len(names) / count) for word, count in counts.items()}


def _similarity(one: frozenset[int], other: frozenset[int], ic: Mapping[int, float]) -> float:
    """Shared over joint information content (simGIC: Pesquita et al. 2008, BMC Bioinformatics 9:S4)."""
    joint = sum(ic[term] for term in one | other)
    return sum(ic[term] for term in one & other) / joint if joint else 0.0
