"""Adding up a points score: the interpreter shared by the scores that are a sum over parameters.

Takes the parameters and variants a score module chose, looks the points up, and says which
parameters could not be scored.  Knows no publication.
"""

from datetime import datetime

from models.assessment import Fact, Score, ScorePart
from models.rules.scores.bands import Bands
from models.rules.scores.points import PointsTable
from models.rules.scores.view import View


def add_up(
    view: View,
    score: str,
    table: PointsTable,
    bands: Bands,
    parameters: tuple[tuple[str, str], ...],
    *,
    maximum: float,
    source: str,
    also_missing: tuple[str, ...] = (),
    context: tuple[Fact, ...] = (),
    banded_as: str | None = None,
) -> Score | None:
    """The score of `parameters` (``(parameter, variant)``), or `None` when none of them was measured.

    A parameter that was not measured gives no points and is listed in `missing`; one whose value is
    only bounded (``<90``) gives the points the bound proves, and is listed too when others are possible.
    `context` are facts that chose a variant or a band; they become parts of 0 points.  `banded_as` is
    the id under which the band is looked up when it is not the score's own.
    """
    chosen = view.layer(tuple([name for name, _ in parameters]))
    if chosen is None:
        return None
    layer, stale = chosen
    total = single = 0
    missing: list[str] = list(also_missing)
    parts: list[ScorePart] = []
    observed: datetime | None = None
    for name, variant in parameters:
        reading = layer.get(name)
        if reading is None:
            missing.append(name)
            parts.append(ScorePart(name, 0))
            continue
        if reading.key:
            points = table.keys[name, reading.key]
        else:
            points, certain = table.steps[name, variant].proven(reading.value, reading.comparator)
            if not certain:
                missing.append(name)
        total += points
        single = max(single, points)
        fact = reading.fact
        parts.append(ScorePart(name, points, fact))
        if fact.time is not None and (observed is None or fact.time > observed):
            observed = fact.time
    for fact in context:
        parts.append(ScorePart("context", 0, fact))
    band = bands.of(banded_as or score, total, single)
    return Score(
        id=score,
        value=float(total),
        maximum=maximum,
        band=band.band,
        complete=not missing,
        parts=tuple(parts),
        missing=tuple(missing),
        urgency=band.urgency,
        stale=stale,
        observed_at=observed,
        source=source,
    )
