"""What the rare-disease engine is told of a patient, and the same in the numbers of its knowledge.

Responsible for the input value and for making it canonical: former ids become current ones, what is
unknown is counted, repetitions and what is implied by something more specific fall away.  Reads no chart.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
import numpy as np

from models.rare.terms import I32, Terms

Sex = Literal["MALE", "FEMALE"]


class Inherited(msgspec.Struct, frozen=True):
    """A disease (any id of it) that a relative has, and what that weighs for the patient: `nats`, natural
    logarithm of a likelihood ratio (`models.rare.relatives`)."""

    disease: str
    nats: float


class Phenotype(msgspec.Struct, frozen=True):
    """HPO findings of one patient.

    `observed` and `excluded` are HPO ids (``"HP:0001250"``), in any order; former ids are accepted.
    `age_years` is the age now, `onset_years` the age at which the illness began.  `inherited` are diseases
    of relatives, each at most once.
    """

    observed: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    sex: Sex | None = None
    age_years: float | None = None
    onset_years: float | None = None
    inherited: tuple[Inherited, ...] = ()


class Query(msgspec.Struct, frozen=True):
    """A phenotype in term numbers: most specific findings present, most general ones absent, ascending.

    `unknown` are the ids that this release of HPO does not know as an abnormality.
    """

    present: I32
    absent: I32
    unknown: tuple[str, ...]


def resolve(phenotype: Phenotype, terms: Terms) -> Query:
    """The phenotype in term numbers.

    A finding present that is an ancestor of another one present says nothing more and is left out; so is
    one absent that is a descendant of another one absent, or that something present contradicts.
    """
    unknown: set[str] = set()
    present = _numbers(phenotype.observed, terms, unknown)
    absent = _numbers(phenotype.excluded, terms, unknown)
    implied: set[int] = set()
    for term in present:
        implied.update(terms.chain(term)[:-1])
    absent -= implied | present
    general = {term for term in absent if absent.isdisjoint(terms.chain(term)[:-1])}
    return Query(_sorted(present - implied), _sorted(general), tuple(sorted(unknown)))


def _numbers(ids: Iterable[str], terms: Terms, unknown: set[str]) -> set[int]:
    found = set()
    for term_id in ids:
        number = terms.number(term_id)
        if number is None:
            unknown.add(term_id)
        elif number != terms.root:
            found.add(number)
    return found


def _sorted(numbers: set[int]) -> I32:
    return np.array(sorted(numbers), dtype=np.int32)
