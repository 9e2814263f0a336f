"""What to look for next: the findings that would tell the leading diseases apart best."""

import numpy as np
from numpy.typing import NDArray

from models.rare.assessment import Question
from models.rare.scoring import Shortlist
from models.rare.segment import PRESENT_FROM
from models.rare.terms import F32, I32, Terms, runs

LEADING = 20
"""Candidates that a question may separate."""
ASKED = 8
_TRUST = 0.9
"""How far an answer is believed: neither a finding nor its absence is ever certain (grade C)."""


def questions(
    shortlist: Shortlist, order: I32, probability: NDArray[np.float64], terms: Terms
) -> tuple[Question, ...]:
    """The best questions.

    Args:
        shortlist: the candidates.
        order: places of the candidates, the most probable first.
        probability: of each candidate, in the shortlist's order.
        terms: the ontology.
    """
    leading = order[:LEADING]
    if len(leading) < 2:
        return ()
    chance = probability[leading] / max(float(probability[leading].sum()), 1e-12)
    names, place, column, likely = _likely(shortlist, leading, terms)
    table = np.repeat(np.minimum(terms.rate[names], 0.5)[:, None], len(leading), axis=1).astype(np.float64)
    table[column, place] = likely
    open_ = _open(names, shortlist, terms) & (terms.ic[names] > 1.5)
    names, table = names[open_], 0.5 + _TRUST * (table[open_] - 0.5)
    if not len(names):
        return ()
    yes = table @ chance
    before = _entropy(chance[None, :])[0]
    given_yes, given_no = table * chance, (1 - table) * chance
    after = yes * _entropy(given_yes / yes[:, None]) + (1 - yes) * _entropy(given_no / (1 - yes)[:, None])
    gain = before - after
    found: list[Question] = []
    taken: set[int] = set()
    for best in np.lexsort((names, -gain)).tolist():
        name = int(names[best])
        # A finding and its more general forms are one question.
        if gain[best] < 0.01 or len(found) == ASKED:
            break
        if any(name in terms.chain(t) or t in terms.chain(name) for t in taken):
            continue
        taken.add(name)
        rises = given_yes[best] / yes[best] - chance
        found.append(Question(terms.hpo(name), float(gain[best]), int(rises.argmax()), int(rises.argmin())))
    return tuple(found)


def _likely(
    shortlist: Shortlist, leading: I32, terms: Terms
) -> tuple[I32, NDArray[np.intp], NDArray[np.intp], F32]:
    """How often patients of the leading candidates have a finding or a kind of it.

    The findings [N]; and place in `leading`, number among the findings and frequency of each pair [P].
    """
    size, term, chance = shortlist.columns.profiles(shortlist.chosen[leading])
    place = np.repeat(np.arange(len(leading)), size)
    real = np.flatnonzero(chance >= PRESENT_FROM)
    term, chance, place = term[real], chance[real], place[real]
    begins, ends = terms.starts[term], terms.starts[term + 1]
    above = terms.above[runs(begins, ends)]
    names, column = np.unique(above, return_inverse=True)
    key = column * len(leading) + np.repeat(place, ends - begins)
    highest = np.zeros(len(names) * len(leading), dtype=np.float32)
    np.maximum.at(highest, key, np.repeat(chance, ends - begins))
    pairs = np.flatnonzero(highest)
    return names, pairs % len(leading), pairs // len(leading), highest[pairs]


def _open(names: I32, shortlist: Shortlist, terms: Terms) -> NDArray[np.bool_]:
    """Which of some terms [N] the chart does not speak of yet."""
    said = {each for term in shortlist.query.present.tolist() for each in terms.chain(term)}
    found = np.array([name not in said for name in names.tolist()], dtype=np.bool_)
    if len(names) and len(shortlist.query.absent):
        denied = np.zeros(len(terms), dtype=np.bool_)
        denied[shortlist.query.absent] = True
        begins, ends = terms.starts[names], terms.starts[names + 1]
        above = terms.above[runs(begins, ends)]
        found &= ~np.logical_or.reduceat(denied[above], np.cumsum(ends - begins) - (ends - begins))
    return found


def _entropy(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in bits of each row."""
    return np.asarray(-(chance * np.log2(np.maximum(chance, 1e-300))).sum(axis=1))
