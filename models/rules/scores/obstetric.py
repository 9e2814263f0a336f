"""MEOWS, the modified early obstetric warning system (CEMACH; validated by Singh 2012).

For the pregnant, and for six weeks after birth.  A yellow trigger counts 1 and a red one 2, so that
the published rule (one red or two yellow) reads as a sum of 2 or more.  The numbers are in
``data/meows.csv``.
"""

from models.assessment import Score
from models.rules.scores.bands import Bands
from models.rules.scores.points import PointsTable
from models.rules.scores.sums import add_up
from models.rules.scores.view import View

PARAMETERS = (
    ("temperature", ""),
    ("systolic", ""),
    ("diastolic", ""),
    ("heart-rate", ""),
    ("respiratory-rate", ""),
    ("spo2", ""),
    ("consciousness", ""),
    ("pain", ""),
)
SOURCE = (
    "Singh S et al. A validation study of the CEMACH recommended modified early obstetric warning system. "
    "Anaesthesia 2012;67:12-18"
)


def meows(view: View, table: PointsTable, bands: Bands) -> Score | None:
    """MEOWS (yellow 1, red 2 per parameter), or `None` when it does not apply or nothing was measured."""
    if not view.maternity:
        return None
    return add_up(view, "meows", table, bands, PARAMETERS, maximum=15.0, source=SOURCE)
