"""NEWS2, the National Early Warning Score of the Royal College of Physicians (2017).

Chooses the SpO2 scale and says whom the score is for: 16 years and older, not pregnant.  The numbers
are in ``data/news2.csv``.  Scale 2 is used only when hypercapnic respiratory failure is documented
(``data/hypercapnia_evidence.csv``), because a wrong scale 2 hides hypoxia.  Unknown age counts as
adult, with ``age`` listed as missing: an unidentified patient in the resuscitation room is one.
"""

from models.assessment import Fact, Score
from models.rules.scores.bands import Bands
from models.rules.scores.points import PointsTable
from models.rules.scores.sums import add_up
from models.rules.scores.view import View, problem_fact

ID = "news2"
ADULT_FROM_DAYS = 5844  # 16 years
PARAMETERS = ("respiratory-rate", "spo2", "oxygen", "systolic", "heart-rate", "consciousness", "temperature")
SOURCE = "Royal College of Physicians. National Early Warning Score (NEWS) 2. London: RCP, 2017"


def news2(view: View, table: PointsTable, bands: Bands) -> Score | None:
    """NEWS2 of a chart (0-20), or `None` when it does not apply or nothing was measured."""
    if view.maternity or (view.age_days is not None and view.age_days < ADULT_FROM_DAYS):
        return None
    scale = "scale-1"
    context: tuple[Fact, ...] = ()
    if view.hypercapnia is not None:
        oxygen = view.current.get("oxygen") or view.stale.get("oxygen")
        scale = "scale-2-oxygen" if oxygen is not None and oxygen.key == "oxygen" else "scale-2-air"
        context = (problem_fact(view.hypercapnia),)
    parameters = tuple([(name, scale if name == "spo2" else "") for name in PARAMETERS])
    unknown_age = ("age",) if view.age_days is None else ()
    return add_up(
        view,
        ID,
        table,
        bands,
        parameters,
        maximum=20.0,
        source=SOURCE,
        also_missing=unknown_age,
        context=context,
    )
