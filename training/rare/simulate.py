"""Simulated patients of rare diseases: what a published case report would tell of one.

Drawn from the evidence of a disease, or from that of one of its papers alone (the engine is then asked
without this paper, as with a paper it has never seen).  Findings are left out, told too broadly or more
closely, strays are added, absences are told.  All shares are grade C: estimates of this project.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.diseases import ONSETS
from models.rare.evidence import profile_of
from models.rare.knowledge import RareKnowledge
from models.rare.phenotype import Phenotype, Sex

PAPER = 0.65
"""Share of patients drawn from one paper, of the diseases that have several."""
UNREAD = 0.75
"""Share of those whose paper the engine must do without."""
BROADER, CLOSER, BESIDE = 0.13, 0.10, 0.07
TOLD = (2.2, 1.2)
"""Beta parameters of the share of findings that are told."""
STRAY = 0.12
DENIED_OWN, DENIED_OTHER = 0.45, 0.25
BROADEST = 1.0
"""Nobody tells a finding more broadly than this information content (nats)."""


@dataclass(frozen=True)
class Simulated:
    """A patient of `disease`; `unread` are the references to do without."""

    disease: int
    phenotype: Phenotype
    unread: tuple[str, ...]


class Simulator:
    """Draws patients of a knowledge's diseases."""

    def __init__(self, knowledge: RareKnowledge) -> None:
        self._knowledge = knowledge
        terms = knowledge.terms
        self._parents, self._children = _links(knowledge)
        share = terms.rate * (terms.ic > BROADEST) + 2 * terms.visitor * (terms.ic > BROADEST)
        self._stray = np.cumsum(share / share.sum())
        self._sizes = np.diff(knowledge.evidence.starts)

    def patients(self, count: int, rng: np.random.Generator) -> Iterator[Simulated]:
        """`count` patients of diseases drawn at random, the better described ones a little more often."""
        weight = np.minimum(self._sizes, 40) ** 0.7
        drawn = rng.choice(len(weight), size=count, p=weight / weight.sum())
        for disease in drawn.tolist():
            yield self.patient(disease, rng)

    def patient(self, disease: int, rng: np.random.Generator) -> Simulated:
        """One patient of a disease."""
        evidence, terms = self._knowledge.evidence, self._knowledge.terms
        at = np.arange(evidence.starts[disease], evidence.starts[disease + 1])
        papers = np.unique(evidence.reference[at])
        unread: tuple[str, ...] = ()
        if len(papers) > 1 and rng.random() < PAPER:
            counts = np.array([(evidence.reference[at] == paper).sum() for paper in papers])
            paper = int(rng.choice(papers, p=np.sqrt(counts) / np.sqrt(counts).sum()))
            at = at[evidence.reference[at] == paper]
            if rng.random() < UNREAD:
                unread = tuple(evidence.references[paper].split(";"))
        profile = profile_of(evidence.term[at], evidence.seen[at], evidence.of[at], evidence.kind[at])
        has = rng.random(len(profile.terms)) < profile.chance
        if not has.any():
            has[int(profile.chance.argmax())] = True
        present = profile.terms[has]
        told = max(1, int(np.ceil(len(present) * rng.beta(*TOLD))), min(3, len(present)))
        present = rng.permutation(present)[: min(told, 30)]
        observed = {self._told(int(term), rng) for term in present}
        observed |= set(self._strays(rng.poisson(STRAY * len(present) + 0.15), rng))
        closure = {int(a) for term in observed for a in terms.ancestors(term)}
        talkative = rng.beta(0.8, 1.2)
        absent = [t for t in profile.terms[~has].tolist() if rng.random() < 2 * DENIED_OWN * talkative]
        absent += self._strays(rng.poisson(2 * DENIED_OTHER * 20 * talkative), rng)
        excluded = {term for term in absent if term not in closure}
        onset, age = self._ages(disease, rng)
        male = float(self._knowledge.diseases.male[disease])
        sex: Sex = "MALE" if rng.random() < male else "FEMALE"
        return Simulated(
            disease,
            Phenotype(
                tuple(terms.hpo(term) for term in sorted(observed)),
                tuple(terms.hpo(term) for term in sorted(excluded)),
                sex,
                age,
                onset,
            ),
            unread,
        )

    def _told(self, term: int, rng: np.random.Generator) -> int:
        """The term as it is told: itself, one broader, one closer, or one beside it."""
        draw = rng.random()
        if draw < BROADER + BESIDE:
            above = [t for t in self._parents[term] if self._knowledge.terms.ic[t] > BROADEST]
            if above:
                term = above[int(rng.integers(len(above)))]
            if draw >= BROADER:
                term = self._closer(term, rng)
        elif draw < BROADER + BESIDE + CLOSER:
            term = self._closer(term, rng)
        return term

    def _closer(self, term: int, rng: np.random.Generator) -> int:
        below = self._children[term]
        return below[int(rng.integers(len(below)))] if below else term

    def _strays(self, count: int, rng: np.random.Generator) -> list[int]:
        return [int(t) for t in np.searchsorted(self._stray, rng.random(count)).clip(0, len(self._stray) - 1)]

    def _ages(self, disease: int, rng: np.random.Generator) -> tuple[float | None, float | None]:
        shares: NDArray[np.float64] = self._knowledge.diseases.onset[disease].astype(np.float64)
        if not shares.sum():
            return None, float(rng.gamma(1.2, 15)) if rng.random() < 0.5 else None
        _, low, high = ONSETS[int(rng.choice(len(ONSETS), p=shares / shares.sum()))]
        onset = float(rng.uniform(max(low, 0.0), max(high, 0.01)))
        age = onset + float(rng.gamma(1.0, 8))
        return onset if rng.random() < 0.55 else None, age if rng.random() < 0.7 else None


def _links(knowledge: RareKnowledge) -> tuple[list[list[int]], list[list[int]]]:
    """Parents and children of each term, from its ancestors: a parent is an ancestor of no other one."""
    terms = knowledge.terms
    parents: list[list[int]] = []
    children: list[list[int]] = [[] for _ in range(len(terms))]
    for term in range(len(terms)):
        above = terms.ancestors(term).tolist()[:-1]
        implied = {int(a) for t in above for a in terms.ancestors(t).tolist()[:-1]}
        parents.append([t for t in above if t not in implied])
        for parent in parents[-1]:
            children[parent].append(term)
    return parents, children
