"""Why a disease is a candidate: what fits, what is missing, what speaks against it, with references."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from models.rare.assessment import Matched, Reported
from models.rare.enrolment import EnrolledCase, case_lines
from models.rare.evidence import COUNTED, Evidence, Profile, profile_of
from models.rare.matching import UNIT
from models.rare.phenotype import Query, resolve
from models.rare.scoring import Shortlist
from models.rare.terms import Terms, runs

MISSING_FROM = 0.3
ANNOTATED_FROM = 0.02
LISTED = 8
REFERENCES = 6


@dataclass(frozen=True, eq=False)
class Account:
    """All lines about one disease as they count in this answer: `profile` and, by term, counts and
    references."""

    profile: Profile
    counts: dict[int, tuple[float, float]]
    references: dict[int, tuple[str, ...]]

    def reported(self, term: int, terms: Terms) -> Reported:
        """What is reported of a term of the profile."""
        at = int(np.searchsorted(self.profile.terms, term))
        seen, of = self.counts.get(term, (0.0, 0.0))
        return Reported(
            terms.hpo(term),
            float(self.profile.chance[at]),
            seen,
            of,
            self.references.get(term, ())[:REFERENCES],
        )


def account(
    evidence: Evidence, disease: int, unread: Collection[str], cases: Sequence[EnrolledCase], terms: Terms
) -> Account:
    """The account of a disease; numbers beyond the evidence have enrolled cases only."""
    lines = evidence.lines(disease, unread) if disease < len(evidence.starts) - 1 else evidence.none()
    term, seen, of, kind, references = lines
    counts: dict[int, tuple[float, float]] = {}
    cited: dict[int, list[str]] = {}
    for place, number in enumerate(term.tolist()):
        cited.setdefault(number, []).extend(references[place].split(";"))
        if kind[place] == COUNTED:
            before = counts.get(number, (0.0, 0.0))
            counts[number] = (before[0] + float(seen[place]), before[1] + float(of[place]))
    if cases:
        queries = [resolve(case.phenotype, terms) for case in cases]
        own, own_seen, own_of = case_lines(queries, terms)
        for place, number in enumerate(own.tolist()):
            before = counts.get(number, (0.0, 0.0))
            counts[number] = (before[0] + float(own_seen[place]), before[1] + float(own_of[place]))
            cited.setdefault(number, []).extend(
                case.reference
                for case, query in zip(cases, queries, strict=True)
                if number in query.present or number in query.absent
            )
        term, seen = np.concatenate([term, own]), np.concatenate([seen, own_seen])
        of = np.concatenate([of, own_of])
        kind = np.concatenate([kind, np.full(len(own), COUNTED, dtype=np.uint8)])
    return Account(
        profile_of(term, seen, of, kind),
        counts,
        {number: tuple(dict.fromkeys(each)) for number, each in cited.items()},
    )


def matched(shortlist: Shortlist, place: int, known: Account, terms: Terms) -> tuple[Matched, ...]:
    """Each finding of the patient and what of the disease it fits, what speaks for it most first."""
    match = shortlist.match
    nearest = _Nearest(known.profile, terms)
    found = []
    for line, term in enumerate(shortlist.query.present.tolist()):
        exact = bool(match.exact[line, place])
        partner = nearest.of(term, exact=exact)
        found.append(
            Matched(
                terms.hpo(term),
                exact,
                float(match.gain[line, place] * UNIT),
                known.reported(partner, terms) if partner is not None else None,
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.gain, each.hpo)))


class _Nearest:
    """Finds the annotation of a profile that is nearest to a finding."""

    def __init__(self, profile: Profile, terms: Terms) -> None:
        likely = profile.chance > ANNOTATED_FROM
        self._terms = terms
        self._names, self._chance = profile.terms[likely], profile.chance[likely]
        begins, ends = terms.starts[self._names], terms.starts[self._names + 1]
        self._above = terms.above[runs(begins, ends)]
        self._firsts = np.cumsum(ends - begins) - (ends - begins)

    def of(self, term: int, *, exact: bool) -> int | None:
        """The finding itself or the most frequent kind of it; else the most informative in common."""
        if not len(self._names):
            return None
        terms = self._terms
        mine = np.zeros(len(terms), dtype=np.float32)
        if exact:
            mine[term] = 1.0
        else:
            above = terms.ancestors(term)
            mine[above] = terms.ic[above]
        common = np.maximum.reduceat(mine[self._above], self._firsts)
        best = int(np.lexsort((self._names, -self._chance, self._names != term, -common))[0])
        if common[best] <= (0 if exact else 0.5 * float(terms.ic[term])):
            return None
        return int(self._names[best])


def missing(query: Query, known: Account, terms: Terms) -> tuple[Reported, ...]:
    """Frequent findings of the disease of which nothing is known in the patient, most telling first."""
    closure = {int(a) for term in query.present for a in terms.ancestors(int(term))}
    denied = set(query.absent.tolist())
    found = []
    for term, chance in zip(known.profile.terms.tolist(), known.profile.chance.tolist(), strict=True):
        above = terms.ancestors(term)
        if chance >= MISSING_FROM and term not in closure and denied.isdisjoint(above.tolist()):
            found.append((-chance * float(terms.ic[term]), term))
    return tuple(known.reported(term, terms) for _, term in sorted(found)[:LISTED])


def contradicting(query: Query, known: Account, terms: Terms) -> tuple[Reported, ...]:
    """Findings of the disease that are denied in the patient, the most frequent first."""
    denied = set(query.absent.tolist())
    found = []
    for term, chance in zip(known.profile.terms.tolist(), known.profile.chance.tolist(), strict=True):
        if chance > 0.1 and not denied.isdisjoint(terms.ancestors(term).tolist()):
            found.append((-chance, term))
    return tuple(known.reported(term, terms) for _, term in sorted(found)[:LISTED])
