"""Confirmed cases as evidence: a known disease sharpens, an unknown one becomes rankable.

Responsible for drawing a profile from a few cases, and for putting it together with the shipped lines.
Keeping the record of who enrolled what is the business of `cds_server.rare`; nothing here is stored.
"""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from models.rare.evidence import COUNTED, Evidence, Profile, profile_of
from models.rare.phenotype import Phenotype, Query, resolve
from models.rare.terms import F32, I32, Terms

UNMENTIONED = 0.5
"""How much a case that does not mention a finding counts as one without it.  Grade C."""


class EnrolledCase(msgspec.Struct, frozen=True):
    """One confirmed case: `disease` an OMIM or ORPHA id, or a name of the site's own; `reference` where
    the case is recorded (an enrolment id, a PMID), shown with what it supports."""

    disease: str
    phenotype: Phenotype
    reference: str
    name: str = ""


def case_lines(queries: Sequence[Query], terms: Terms) -> tuple[I32, F32, F32]:
    """Term, seen, of: each finding of the cases [K], counted over them.

    A finding counts as present when it or a kind of it is, as absent when it or something it is a kind of
    is denied; a case that says neither counts `UNMENTIONED`.
    """
    closures = [{int(a) for t in query.present.tolist() for a in terms.ancestors(t)} for query in queries]
    denials = [set(query.absent.tolist()) for query in queries]
    named = sorted({int(t) for query in queries for t in (*query.present.tolist(), *query.absent.tolist())})
    seen, of = [], []
    for term in named:
        above = set(terms.ancestors(term).tolist())
        present = sum(term in closure for closure in closures)
        absent = sum(
            term not in closure and bool(above & denied)
            for closure, denied in zip(closures, denials, strict=True)
        )
        seen.append(float(present))
        of.append(present + absent + UNMENTIONED * (len(queries) - present - absent))
    return np.array(named, dtype=np.int32), np.array(seen, np.float32), np.array(of, np.float32)


def enrolled_profile(
    cases: Sequence[EnrolledCase],
    terms: Terms,
    evidence: Evidence | None = None,
    disease: int = -1,
    without: Collection[str] = (),
) -> Profile:
    """The profile of a disease from its enrolled cases and, for one in the knowledge, its shipped lines
    (those that `Evidence.profile` reads `without` some references)."""
    term, seen, of = case_lines([resolve(case.phenotype, terms) for case in cases], terms)
    kind = np.full(len(term), COUNTED, dtype=np.uint8)
    if evidence is None or disease < 0:
        return profile_of(term, seen, of, kind)
    shipped = evidence.lines(disease, without)
    return profile_of(
        np.concatenate([shipped[0], term]),
        np.concatenate([shipped[1], seen]),
        np.concatenate([shipped[2], of]),
        np.concatenate([shipped[3], kind]),
    )
