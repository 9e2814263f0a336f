"""The nearest single profiles: enrolled cases, and what one paper reports of a leading disease."""

from collections.abc import Collection, Sequence

import numpy as np

from models.rare.assessment import Resemblance
from models.rare.enrolment import EnrolledCase
from models.rare.knowledge import RareKnowledge
from models.rare.phenotype import Query, resolve
from models.rare.terms import Terms

SHOWN = 5
NAMED = 8


def similarity(one: Sequence[int], other: Sequence[int], terms: Terms) -> float:
    """simGIC of two sets of findings (Pesquita et al. 2008, BMC Bioinformatics 9:S4), 0 to 1."""
    mine, theirs = np.zeros(len(terms), dtype=bool), np.zeros(len(terms), dtype=bool)
    for marks, found in ((mine, one), (theirs, other)):
        for term in found:
            marks[terms.ancestors(term)] = True
    joint = float(terms.ic[mine | theirs].sum())
    return float(terms.ic[mine & theirs].sum()) / joint if joint else 0.0


def nearest(
    query: Query,
    leading: Sequence[int],
    unread: Collection[str],
    enrolled: Sequence[EnrolledCase],
    knowledge: RareKnowledge,
) -> tuple[Resemblance, ...]:
    """The most similar enrolled cases (of all) and published profiles (of the leading diseases)."""
    terms = knowledge.terms
    mine = query.present.tolist()
    profiles: list[tuple[str, str, list[int]]] = []
    for case in enrolled:
        profiles.append((case.reference, case.disease, resolve(case.phenotype, terms).present.tolist()))
    for disease in leading:
        term, seen, _, kind, references = knowledge.evidence.lines(disease, unread)
        of_reference: dict[str, list[int]] = {}
        for place, reference in enumerate(references):
            if reference.startswith("PMID:") and (kind[place] != 0 or seen[place] > 0):
                of_reference.setdefault(reference, []).append(int(term[place]))
        ids = knowledge.diseases.ids[disease]
        profiles += [(reference, ids[0], found) for reference, found in sorted(of_reference.items())]
    scored = [
        (similarity(mine, found, terms), reference, disease, found) for reference, disease, found in profiles
    ]
    best = sorted(scored, key=lambda each: (-each[0], each[1], each[2]))[:SHOWN]
    return tuple(
        _shown(mine, found, score, reference, disease, terms) for score, reference, disease, found in best
    )


def _shown(
    mine: list[int], theirs: list[int], score: float, reference: str, disease: str, terms: Terms
) -> Resemblance:
    closure = {int(a) for term in mine for a in terms.ancestors(term)}
    other = {int(a) for term in theirs for a in terms.ancestors(term)}
    by_content = sorted(set(theirs), key=lambda term: (-float(terms.ic[term]), term))
    return Resemblance(
        reference,
        disease,
        score,
        tuple(terms.hpo(t) for t in by_content if t in closure)[:NAMED],
        tuple(terms.hpo(t) for t in by_content if t not in closure)[:NAMED],
        tuple(terms.hpo(t) for t in np.array(sorted(mine)).tolist() if t not in other)[:NAMED],
    )
