"""The scores of adults: NEWS2 (RCP 2017) and qSOFA (Sepsis-3).

Says whom the scores are for and chooses scales and bands; the numbers are in ``data/news2.csv`` and
``data/qsofa.csv``.  SpO2 scale 2 is used only when hypercapnic respiratory failure is documented,
because a wrong scale 2 hides hypoxia.  Unknown age counts as adult, with ``age`` listed as missing:
an unidentified patient in the resuscitation room is one.
"""

from models.assessment import Fact, Score
from models.rules.scores.bands import Bands
from models.rules.scores.points import PointsTable
from models.rules.scores.sums import add_up
from models.rules.scores.view import View

ADULT_FROM_DAYS = 5844  # 16 years of 365.25 days

NEWS2_PARAMETERS = (
    "respiratory-rate",
    "spo2",
    "oxygen",
    "systolic",
    "heart-rate",
    "consciousness",
    "temperature",
)
_NEWS2 = {
    scale: tuple([(name, scale if name == "spo2" else "") for name in NEWS2_PARAMETERS])
    for scale in ("scale-1", "scale-2-air", "scale-2-oxygen")
}
NEWS2_SOURCE = "Royal College of Physicians. National Early Warning Score (NEWS) 2. London: RCP, 2017"

_QSOFA = (("respiratory-rate", ""), ("systolic", ""), ("consciousness", ""))
QSOFA_SOURCE = (
    "Singer M et al. The Third International Consensus Definitions for Sepsis. JAMA 2016;315:801-810"
)
FEVER, COLD = 38.0, 36.0  # degrees Celsius; a temperature beyond them suggests infection (SIRS, Bone 1992)


def is_adult(view: View) -> bool:
    """16 years and older; an unknown age counts as adult."""
    return view.age_days is None or view.age_days >= ADULT_FROM_DAYS


def age_missing(view: View) -> tuple[str, ...]:
    """``age`` as a missing parameter when the adult tables were chosen without knowing it."""
    return ("age",) if view.age_days is None else ()


def news2(view: View, table: PointsTable, bands: Bands) -> Score | None:
    """NEWS2 of a chart (0-20), or `None` when it does not apply or nothing was measured."""
    if view.maternity or not is_adult(view):
        return None
    scale = "scale-1"
    context: tuple[Fact, ...] = ()
    hypercapnia = view.evidence.get("hypercapnia")
    if hypercapnia is not None:
        oxygen = view.current.get("oxygen") or view.stale.get("oxygen")
        scale = "scale-2-oxygen" if oxygen is not None and oxygen.key == "oxygen" else "scale-2-air"
        context = (hypercapnia[2],)
    return add_up(
        view,
        "news2",
        table,
        bands,
        _NEWS2[scale],
        maximum=20.0,
        source=NEWS2_SOURCE,
        also_missing=age_missing(view),
        context=context,
    )


def infection_fact(view: View) -> Fact | None:
    """The fact that makes an infection suspected: a finding or problem, or a temperature now, if any."""
    found = view.evidence.get("infection")
    if found is not None:
        return found[2]
    temperature = view.current.get("temperature")
    if temperature is None or temperature.comparator is not None or COLD <= temperature.value <= FEVER:
        return None
    return temperature.fact


def qsofa(view: View, table: PointsTable, bands: Bands) -> Score | None:
    """qSOFA (0-3), or `None`; the urgency needs a suspected infection, whose fact becomes a part."""
    if not is_adult(view):
        return None
    infection = infection_fact(view)
    return add_up(
        view,
        "qsofa",
        table,
        bands,
        _QSOFA,
        maximum=3.0,
        source=QSOFA_SOURCE,
        also_missing=age_missing(view),
        context=() if infection is None else (infection,),
        banded_as="qsofa-no-infection" if infection is None else None,
    )
