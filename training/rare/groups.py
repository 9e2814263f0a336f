"""Training patients of the second stage: candidates with their features, and which one is right.

Responsible for the four kinds of patients: simulated ones, simulated ones whose disease is unknown, and
published cases with their own paper unread, ranked by the shipped profile or by one drawn from a few
other cases of the same disease (as if it had been enrolled).  Half of all compete with decoys, profiles
of other diseases drawn from a few cases in the same way.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.rare.enrolment import EnrolledCase, enrolled_profile
from models.rare.evidence import Profile
from models.rare.panel import overlay_of
from models.rare.phenotype import Phenotype
from models.rare.scoring import Scorer, Shortlist
from training.rare.boosting import Groups
from training.rare.cases import Case
from training.rare.simulate import Simulator

KEPT = 60
"""Candidates kept for training, besides the right one: the hardest by the first stage."""
UNKNOWN = 0.12
"""Share of simulated patients whose disease is left out of the knowledge."""
SHOTS = (1, 2, 3, 5, 8)
"""Cases that an enrolled disease is drawn from."""
FEW = 0.15
"""Share of simulated patients whose disease is known from a few other simulated patients only."""
FEW_CASES = 25
"""Published cases of one disease asked against a profile of a few others, at most."""
FEW_WEIGHT, UNRANKED_WEIGHT = 0.15, 0.09
"""Weight of a case asked against a few others, and of one whose disease the knowledge lacks, against 1 of a
case ranked by the shipped profile.  Greater ones (0.5 and 0.3) cost ranking in cross-validation."""
DECOYS = 4
DECOYED = 0.5
"""Enrolled diseases that are not the answer, in so large a share of patients: that a profile comes from
few cases must not tell that it is the right one."""


class Gathering:
    """Patients as groups, being gathered."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float32]] = []
        self._sizes: list[int] = []
        self._right: list[int] = []
        self._weight: list[float] = []
        self._label: list[int] = []

    def add(
        self, shortlist: Shortlist, features: NDArray[np.float32], right: set[int], weight: float, label: int
    ) -> None:
        """One patient; `right` are the diseases that count as the answer, empty for none of them."""
        hits = np.flatnonzero(np.isin(shortlist.owner, sorted(right)))
        size = min(KEPT, len(shortlist.chosen))
        rows = np.arange(size)
        first = sum(self._sizes)
        if len(hits):
            best = int(hits[0])
            # A second entry of the same disease is neither right nor wrong.
            rows = np.setdiff1d(rows, hits[1:])
            if best not in rows:
                rows = np.r_[rows, best]
            self._right.append(first + int(np.flatnonzero(rows == best)[0]))
        elif right:
            return
        else:
            self._right.append(-1)
        self._rows.append(features[rows])
        self._sizes.append(len(rows))
        self._weight.append(weight)
        self._label.append(label)

    def groups(self) -> Groups:
        """All that was added."""
        return Groups(
            np.concatenate(self._rows),
            np.concatenate([[0], np.cumsum(self._sizes)]),
            np.array(self._right),
            np.array(self._weight),
            np.array(self._label),
        )


class Decoys:
    """Profiles of a few cases each, by the disease they are of (a number, or an id of a published case)."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._pool: list[tuple[object, Profile]] = []

    def add(self, disease: object, cases: Sequence[Phenotype]) -> None:
        """One more profile."""
        self._pool.append((disease, few_cases(self._scorer, cases)))

    def simulate(self, count: int, rng: np.random.Generator) -> None:
        """Profiles of simulated patients."""
        simulator = Simulator(self._scorer.knowledge)
        for patient in simulator.patients(count, rng):
            shots = int(rng.choice(SHOTS))
            cases = [simulator.patient(patient.disease, rng).phenotype for _ in range(shots)]
            self.add(patient.disease, cases)

    def pick(self, count: int, disease: object, rng: np.random.Generator) -> dict[int, Profile]:
        """Some profiles of other diseases under numbers beyond the knowledge's."""
        first = len(self._scorer.knowledge.diseases) + 1
        drawn = [self._pool[n] for n in rng.integers(len(self._pool), size=count)] if self._pool else []
        others = [profile for of, profile in drawn if of != disease]
        return {first + n: profile for n, profile in enumerate(others)}


def some_decoys(
    decoys: Decoys, disease: object, rng: np.random.Generator, *, always: bool = False
) -> dict[int, Profile]:
    """Decoys for one patient, or none."""
    return decoys.pick(DECOYS, disease, rng) if always or rng.random() < DECOYED else {}


def simulated(scorer: Scorer, count: int, rng: np.random.Generator, progress: Progress) -> Groups:
    """Groups of simulated patients (label -1)."""
    simulator = Simulator(scorer.knowledge)
    decoys = Decoys(scorer)
    decoys.simulate(300, rng)
    gathered = Gathering()
    terms, size = scorer.knowledge.terms, len(scorer.knowledge.diseases)
    task = progress.add_task("simulated patients", total=count)
    for patient in simulator.patients(count, rng):
        profiles = some_decoys(decoys, patient.disease, rng)
        draw = rng.random()
        hidden: list[int] = []
        right = {patient.disease}
        if draw < UNKNOWN:
            hidden, right = [patient.disease], set()
        elif draw < UNKNOWN + FEW:
            cases = [simulator.patient(patient.disease, rng).phenotype for _ in range(int(rng.choice(SHOTS)))]
            profiles = some_decoys(decoys, patient.disease, rng, always=True)
            profiles[size] = few_cases(scorer, cases)
            hidden, right = [patient.disease], {size}
        else:
            profiles |= scorer.knowledge.without(patient.unread)
        overlay = overlay_of(profiles, terms, hidden)
        shortlist = scorer.shortlist(patient.phenotype, overlay)
        gathered.add(shortlist, scorer.features(shortlist), right, 1.0, -1)
        progress.advance(task)
    return gathered.groups()


def numbers_of(scorer: Scorer) -> dict[str, int]:
    """OMIM or ORPHA id → disease number."""
    return {one: number for number, ids in enumerate(scorer.knowledge.diseases.ids) for one in ids}


def truth(case: Case, numbers: dict[str, int]) -> set[int]:
    """The diseases of the knowledge that are the case's."""
    ids = [*case.dx, *(each.replace("Orphanet:", "ORPHA:") for each in case.dx_equiv if each)]
    return {numbers[each] for each in ids if each in numbers}


def published(
    scorer: Scorer,
    cases: Sequence[Case],
    labels: dict[str, int],
    rng: np.random.Generator,
    progress: Progress,
) -> Groups:
    """Groups of published cases, own paper unread; each disease weighs as the square root of its cases."""
    numbers, terms = numbers_of(scorer), scorer.knowledge.terms
    by_disease: dict[str, list[Case]] = {}
    for case in cases:
        by_disease.setdefault(case.dx[0], []).append(case)
    decoys = Decoys(scorer)
    for disease, members in sorted(by_disease.items()):
        for _ in range(2):
            decoys.add(disease, [case.phenotype() for case in _some(members, rng)])
    gathered = Gathering()
    task = progress.add_task("published cases", total=len(cases))
    for disease, members in sorted(by_disease.items()):
        weight = len(members) ** -0.5
        for case in members:
            right = truth(case, numbers)
            profiles = scorer.knowledge.without([case.pmid] if case.pmid else [])
            overlay = overlay_of(profiles | some_decoys(decoys, disease, rng), terms)
            shortlist = scorer.shortlist(case.phenotype(), overlay)
            share = weight if right else UNRANKED_WEIGHT * weight
            gathered.add(shortlist, scorer.features(shortlist), right, share, labels[disease])
            progress.advance(task)
        queries = (
            members if len(members) <= FEW_CASES else [members[n] for n in rng.permutation(len(members))]
        )
        for case in queries[:FEW_CASES]:
            others = [other for other in members if other.pmid != case.pmid]
            if others:
                size = len(scorer.knowledge.diseases)
                profiles = some_decoys(decoys, disease, rng, always=True)
                profiles[size] = few_cases(scorer, [other.phenotype() for other in _some(others, rng)])
                overlay = overlay_of(profiles, terms, sorted(truth(case, numbers)))
                shortlist = scorer.shortlist(case.phenotype(), overlay)
                gathered.add(
                    shortlist,
                    scorer.features(shortlist),
                    {size},
                    FEW_WEIGHT * min(len(queries), FEW_CASES) ** -0.5,
                    labels[disease],
                )
    return gathered.groups()


def _some(cases: Sequence[Case], rng: np.random.Generator) -> list[Case]:
    """A few of the cases."""
    shots = min(int(rng.choice(SHOTS)), len(cases))
    return [cases[n] for n in sorted(rng.permutation(len(cases))[:shots])]


def few_cases(scorer: Scorer, cases: Sequence[Phenotype]) -> Profile:
    """The profile of a disease that is known from some cases only."""
    enrolled = [EnrolledCase("new", phenotype, f"case-{n}") for n, phenotype in enumerate(cases)]
    return enrolled_profile(enrolled, scorer.knowledge.terms)
