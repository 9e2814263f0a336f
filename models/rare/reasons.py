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
from models.rare.terms import I32, Terms

MISSING_FROM = 0.3
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
    match, column = shortlist.columns.match, int(shortlist.chosen[place])
    likely = known.profile.terms[known.profile.chance > 0.02]
    closures = {int(term): terms.ancestors(int(term)) for term in likely}
    found = []
    for line, term in enumerate(shortlist.query.present.tolist()):
        exact = bool(match.exact[line, column])
        partner = _partner(term, exact, closures, terms, known)
        found.append(
            Matched(
                terms.hpo(term),
                exact,
                float(match.gain[line, column] * UNIT),
                known.reported(partner, terms) if partner is not None else None,
            )
        )
    return tuple(sorted(found, key=lambda each: (-each.gain, each.hpo)))


def _partner(
    term: int,
    exact: bool,
    closures: dict[int, I32],
    terms: Terms,
    known: Account,
) -> int | None:
    """The annotation nearest to a finding: itself or a kind of it, else the most informative in common."""
    chance = dict(zip(known.profile.terms.tolist(), known.profile.chance.tolist(), strict=True))
    if exact:
        below = [other for other, above in closures.items() if term in above]
        return max(below, key=lambda other: (other == term, chance[other], -other), default=None)
    mine = terms.ancestors(term)
    best: tuple[float, float, int] | None = None
    for other, above in closures.items():
        common = np.intersect1d(mine, above, assume_unique=True)
        content = float(terms.ic[common].max()) if len(common) else 0.0
        if content > 0.5 * float(terms.ic[term]) and (
            best is None or (content, chance[other], -other) > best
        ):
            best = (content, chance[other], -other)
    return -best[2] if best is not None else None


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
