"""The nearest single profiles: enrolled cases, and what one paper reports of a leading disease."""

from collections.abc import Collection, Iterable, Sequence

from models.rare.assessment import Resemblance
from models.rare.enrolment import EnrolledCase
from models.rare.knowledge import RareKnowledge
from models.rare.phenotype import Query, resolve
from models.rare.terms import Terms

SHOWN = 5
NAMED = 8


def closure(findings: Iterable[int], terms: Terms) -> frozenset[int]:
    """Findings with all their ancestors."""
    return frozenset({each for term in findings for each in terms.chain(term)})


def similarity(one: frozenset[int], other: frozenset[int], terms: Terms) -> float:
    """simGIC of two closed sets of findings (Pesquita et al. 2008, BMC Bioinformatics 9:S4), 0 to 1."""
    joint = _content(one | other, terms)
    return _content(one & other, terms) / joint if joint else 0.0


def _content(findings: frozenset[int], terms: Terms) -> float:
    return float(terms.ic[sorted(findings)].sum()) if findings else 0.0


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
    own = closure(mine, terms)
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
        (similarity(own, closure(found, terms), terms), reference, disease, found)
        for reference, disease, found in profiles
    ]
    best = sorted(scored, key=lambda each: (-each[0], each[1], each[2]))[:SHOWN]
    return tuple(
        _shown(mine, own, found, score, reference, disease, terms)
        for score, reference, disease, found in best
    )


def _shown(
    mine: list[int],
    own: frozenset[int],
    theirs: list[int],
    score: float,
    reference: str,
    disease: str,
    terms: Terms,
) -> Resemblance:
    other = closure(theirs, terms)
    by_content = sorted(set(theirs), key=lambda term: (-float(terms.ic[term]), term))
    return Resemblance(
        reference,
        disease,
        score,
        tuple(terms.hpo(t) for t in by_content if t in own)[:NAMED],
        tuple(terms.hpo(t) for t in by_content if t not in own)[:NAMED],
        tuple(terms.hpo(t) for t in sorted(mine) if t not in other)[:NAMED],
    )
