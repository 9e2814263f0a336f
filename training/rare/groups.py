"""Training patients of the second stage: candidates with their features, and which one is right.

Responsible for the four kinds of patients: simulated ones, simulated ones whose disease is unknown, and
published cases with their own paper unread, ranked by the shipped profile or by one drawn from a few
other cases of the same disease (as if it had been enrolled).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from rich.progress import Progress

from models.rare.enrolment import EnrolledCase, enrolled_profile
from models.rare.panel import Overlay, overlay_of
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


class Gathering:
    """Patients as groups, being gathered."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []  # type: ignore[type-arg]
        self._sizes: list[int] = []
        self._right: list[int] = []
        self._weight: list[float] = []
        self._label: list[int] = []

    def add(self, shortlist: Shortlist, right: set[int], weight: float, label: int) -> None:
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
        self._rows.append(shortlist.features[rows])
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


def simulated(scorer: Scorer, count: int, rng: np.random.Generator, progress: Progress) -> Groups:
    """Groups of simulated patients (label -1)."""
    simulator = Simulator(scorer.knowledge)
    gathered = Gathering()
    task = progress.add_task("simulated patients", total=count)
    for patient in simulator.patients(count, rng):
        overlay: Overlay | None
        if rng.random() < UNKNOWN:
            overlay = overlay_of({}, scorer.knowledge.terms, [patient.disease])
            right: set[int] = set()
        else:
            overlay, right = scorer.unread(frozenset(patient.unread)), {patient.disease}
        gathered.add(scorer.shortlist(patient.phenotype, overlay), right, 1.0, -1)
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
    numbers = numbers_of(scorer)
    by_disease: dict[str, list[Case]] = {}
    for case in cases:
        by_disease.setdefault(case.dx[0], []).append(case)
    gathered = Gathering()
    task = progress.add_task("published cases", total=len(cases))
    for disease, members in sorted(by_disease.items()):
        weight = len(members) ** -0.5
        for case in members:
            right = truth(case, numbers)
            unread = frozenset({case.pmid}) if case.pmid else frozenset()
            overlay = scorer.unread(unread)
            gathered.add(
                scorer.shortlist(case.phenotype(), overlay),
                right,
                weight if right else 0.3 * weight,
                labels[disease],
            )
            progress.advance(task)
        queries = members if len(members) <= 25 else [members[n] for n in rng.permutation(len(members))[:25]]
        for case in queries:
            few = enrolled_overlay(scorer, case, members, truth(case, numbers), rng)
            if few is not None:
                size = len(scorer.knowledge.diseases)
                gathered.add(
                    scorer.shortlist(case.phenotype(), few),
                    {size},
                    0.5 * len(queries) ** -0.5,
                    labels[disease],
                )
    return gathered.groups()


def enrolled_overlay(
    scorer: Scorer, case: Case, members: Iterable[Case], known: set[int], rng: np.random.Generator
) -> Overlay | None:
    """The case's disease as if it were unknown but for a few cases of other papers."""
    others = [other for other in members if other.pmid != case.pmid]
    if not others:
        return None
    shots = min(int(rng.choice(SHOTS)), len(others))
    picked = [others[n] for n in sorted(rng.permutation(len(others))[:shots])]
    return profile_overlay(scorer, [other.phenotype() for other in picked], known)


def profile_overlay(scorer: Scorer, cases: Sequence[Phenotype], known: Iterable[int]) -> Overlay | None:
    """The overlay with one new disease (its number is the knowledge's size) drawn from cases."""
    enrolled = [EnrolledCase("new", phenotype, f"case-{n}") for n, phenotype in enumerate(cases)]
    profile = enrolled_profile(enrolled, scorer.knowledge.terms)
    return overlay_of({len(scorer.knowledge.diseases): profile}, scorer.knowledge.terms, sorted(known))
