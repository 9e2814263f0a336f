"""Two measures that are no points table: the shock index and the Glasgow coma score.

The bands are in ``data/score_bands.csv``.  The shock index is for adults; the pregnant have bands of
their own (Nathan 2015).  The coma score is for every age (the paediatric scale has the same range).
"""

from models.assessment import Score, ScorePart
from models.rules.scores.adult import age_missing, is_adult
from models.rules.scores.bands import Bands
from models.rules.scores.view import View

SHOCK_SOURCE = (
    "Allgower M, Burri C. Dtsch Med Wochenschr 1967;92:1947-1950; Rady MY. Ann Emerg Med 1994;24:685-690; "
    "Mutschler M. Crit Care 2013;17:R172"
)
OBSTETRIC_SOURCE = "Nathan HL et al. BJOG 2015;122:268-275"
GCS_SOURCE = "Teasdale G, Jennett B. Lancet 1974;304:81-84"
GCS_PARTS = (("gcs-eye", 4), ("gcs-verbal", 5), ("gcs-motor", 6))
GCS_FULL = 15


def shock_index(view: View, bands: Bands) -> Score | None:
    """Heart rate divided by systolic pressure (1/min per mmHg), or `None` without both or under 16 years.

    A value that is only bounded (``<``, ``>``) is not used.
    """
    if not is_adult(view):
        return None
    for layer, stale in ((view.current, False), (view.stale, True)):
        rate, pressure = layer.get("heart-rate"), layer.get("systolic")
        if rate is None or pressure is None or pressure.value <= 0 or rate.comparator or pressure.comparator:
            continue
        index = round(rate.value / pressure.value, 2)
        band = bands.of("shock-index-obstetric" if view.maternity else "shock-index", index)
        missing = age_missing(view)
        times = [fact.time for fact in (rate.fact, pressure.fact) if fact.time is not None]
        return Score(
            id="shock-index",
            value=index,
            maximum=None,
            band=band.band,
            complete=not missing,
            parts=(ScorePart("heart-rate", 0, rate.fact), ScorePart("systolic", 0, pressure.fact)),
            missing=missing,
            urgency=band.urgency,
            stale=stale,
            observed_at=max(times) if times else None,
            source=OBSTETRIC_SOURCE if view.maternity else SHOCK_SOURCE,
        )
    return None


def glasgow(view: View, bands: Bands) -> Score | None:
    """The Glasgow coma score (3-15): the total as recorded, or from its parts; `None` without any.

    A part that was not recorded counts as normal and is listed as missing, so that a partial score
    never says more than was seen.  The points of a part are what is lost of its maximum.
    """
    for layer, stale in ((view.current, False), (view.stale, True)):
        total = layer.get("gcs")
        missing: tuple[str, ...] = ()
        if total is not None and total.comparator is None and 3 <= total.value <= GCS_FULL:
            value = int(total.value)
            parts: tuple[ScorePart, ...] = (ScorePart("gcs", GCS_FULL - value, total.fact),)
        else:
            recorded = [(name, full, layer.get(name)) for name, full in GCS_PARTS]
            missing = tuple([name for name, _, reading in recorded if reading is None])
            if len(missing) == len(recorded):
                continue
            parts = tuple(
                [
                    ScorePart(name, 0)
                    if reading is None
                    else ScorePart(name, full - min(max(int(reading.value), 1), full), reading.fact)
                    for name, full, reading in recorded
                ]
            )
            value = GCS_FULL - sum([part.points for part in parts])
        band = bands.of("gcs", GCS_FULL - value)
        times = [part.fact.time for part in parts if part.fact is not None and part.fact.time is not None]
        return Score(
            id="gcs",
            value=float(value),
            maximum=15.0,
            band=band.band,
            complete=not missing,
            parts=parts,
            missing=missing,
            urgency=band.urgency,
            stale=stale,
            observed_at=max(times) if times else None,
            source=GCS_SOURCE,
        )
    return None
