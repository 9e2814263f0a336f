"""The scores of children under 16: Bedside PEWS (Parshuram 2009) and vital signs against their age's ranges.

Chooses the age band to the day; the numbers are in ``data/pews.csv`` and ``data/paediatric_vitals.csv``.
When the chart gives only a year of birth, the band is still chosen but ``exact-age`` is missing for
infants.  Nothing here applies from 16 years on, or when the age is unknown (adult tables then stand in).
"""

from models.assessment import Score
from models.rules.scores.adult import ADULT_FROM_DAYS
from models.rules.scores.age_bands import AgeBands
from models.rules.scores.bands import Bands
from models.rules.scores.points import PointsTable
from models.rules.scores.sums import add_up
from models.rules.scores.view import View

BANDED = frozenset({"heart-rate", "systolic", "respiratory-rate"})
PEWS_PARAMETERS = (
    "heart-rate",
    "systolic",
    "capillary-refill",
    "respiratory-rate",
    "respiratory-effort",
    "spo2",
    "oxygen-level",
)
PEWS_SOURCE = (
    "Parshuram CS et al. Development and initial validation of the Bedside Paediatric Early Warning System "
    "score. Crit Care 2009;13:R135"
)
VITALS_PARAMETERS = ("respiratory-rate", "heart-rate", "systolic")
VITALS_SOURCE = (
    "Fleming S et al. Normal ranges of heart rate and respiratory rate in children from birth to 18 years. "
    "Lancet 2011;377:1011-1018; hypotension: PALS (American Heart Association 2020)"
)
INFANT_DAYS = 731


def pews(view: View, table: PointsTable, bands: Bands, ages: AgeBands) -> Score | None:
    """Bedside PEWS (0-26), or `None` when it does not apply or nothing was measured."""
    age = view.age_days
    if age is None or age >= ADULT_FROM_DAYS:
        return None
    variant = ages.variant("pews", "*", age)
    return add_up(
        view,
        "pews",
        table,
        bands,
        tuple([(name, variant if name in BANDED else "") for name in PEWS_PARAMETERS]),
        maximum=26.0,
        source=PEWS_SOURCE,
        also_missing=_inexact(view, age),
    )


def paediatric_vitals(view: View, table: PointsTable, bands: Bands, ages: AgeBands) -> Score | None:
    """How far heart rate, respiratory rate and systolic pressure are from their age's range, or `None`.

    Points per sign: 1 outside the 10th to 90th centile, 2 beyond the 1st or 99th, 3 for hypotension.
    """
    age = view.age_days
    if age is None or age >= ADULT_FROM_DAYS:
        return None
    return add_up(
        view,
        "paediatric-vitals",
        table,
        bands,
        tuple([(name, ages.variant("paediatric-vitals", name, age)) for name in VITALS_PARAMETERS]),
        maximum=7.0,
        source=VITALS_SOURCE,
        also_missing=_inexact(view, age),
    )


def _inexact(view: View, age: int) -> tuple[str, ...]:
    """``exact-age`` when an infant's birth date is known to the month or year only."""
    return ("exact-age",) if age < INFANT_DAYS and view.chart.subject.birth_date_precision != "day" else ()
