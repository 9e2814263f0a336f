"""The first-order modifiers of the Canadian Triage and Acuity Scale for adults, as a score of levels 1 to 5.

CTAS gives a level by presenting complaint and modifiers; this module applies the modifiers alone
(saturation, pressure, rate, consciousness, effort of breathing, fever with SIRS, pain by site), so
its level is a floor for urgency and never a full triage.  **Lower is graver**; each part's points are
how far above level 5 it lifts (4 for level 1, 0 for no modifier).  The numbers are in
``data/ctas.csv``; some are our estimates, since CTAS words haemodynamic compromise without numbers,
and their rows say so.
"""

from models.assessment import Fact, Score, ScorePart
from models.rules.scores.adult import COLD, FEVER, age_missing, is_adult
from models.rules.scores.bands import Bands
from models.rules.scores.points import PointsTable
from models.rules.scores.view import Layer, View

SOURCE = (
    "Bullard MJ et al. Revisions to the Canadian Emergency Department Triage and Acuity Scale (CTAS) adult "
    "guidelines. CJEM 2008;10:136-142; Murray M et al. CJEM 2004;6:421-427"
)
NONE = 5
PARAMETERS = (
    "spo2",
    "systolic",
    "diastolic",
    "heart-rate",
    "gcs",
    "consciousness",
    "respiratory-effort",
    "temperature",
    "pain",
)
SIRS_HEART_RATE, SIRS_RESPIRATORY_RATE = 90.0, 20.0  # above these: Bone 1992 Chest 101:1644
SIRS_WHITE_CELLS = (4.0, 12.0)  # 10*9/L, outside these


def ctas_modifiers(view: View, table: PointsTable, bands: Bands) -> Score | None:
    """The level (1 resuscitation to 5) that the modifiers ask for, or `None` when none was measured."""
    if view.maternity or not is_adult(view):
        return None
    chosen = view.layer(PARAMETERS)
    if chosen is None:
        return None
    layer, stale = chosen
    parts: list[ScorePart] = []
    missing = list(age_missing(view))
    symptoms = "symptoms" if "hypertension-symptom" in view.evidence else ""
    variants = {
        "spo2": "hypercapnia" if "hypercapnia" in view.evidence else "",
        "systolic": symptoms,
        "diastolic": symptoms,
        "pain": "central" if "pain-location" in view.evidence else "peripheral",
    }
    level = physical = measured = NONE
    times = []
    for name in PARAMETERS:
        reading = layer.get(name)
        if reading is None:
            if name not in ("gcs", "respiratory-effort"):
                missing.append(name)
            continue
        if name == "temperature":
            own = table.keys[
                "fever", _fever(view, layer, reading.value) if not reading.comparator else "none"
            ]
        elif reading.key:
            own = table.keys[name, reading.key]
        else:
            own = _least_grave(table, name, variants.get(name, ""), reading.value, reading.comparator)
        parts.append(ScorePart(name, NONE - own, reading.fact))
        if reading.fact.time is not None:
            times.append(reading.fact.time)
        level = min(level, own)
        if name != "pain":
            physical = min(physical, own)
            if reading.fact.kind in ("measurement", "coded"):
                measured = min(measured, own)
    band = bands.of("ctas-modifiers" if level == physical else "ctas-modifiers-pain", NONE - level)
    # A complaint (breathlessness) is no modifier by itself: only what was measured makes urgent.  Pain that
    # asks for more than the rest must not lower what the rest asks for.
    urgency = bands.of("ctas-modifiers", NONE - measured).urgency
    if urgency is None and level != physical:
        urgency = band.urgency
    parts.extend([ScorePart("context", 0, fact) for fact in _context(view)])
    return Score(
        id="ctas-modifiers",
        value=float(level),
        maximum=float(NONE),
        band=band.band,
        complete=not missing,
        parts=tuple(parts),
        missing=tuple(missing),
        urgency=urgency,
        stale=stale,
        observed_at=max(times) if times else None,
        source=SOURCE,
    )


def _least_grave(table: PointsTable, name: str, variant: str, value: float, comparator: str | None) -> int:
    """The level of a value; of a bounded value the least grave level that the bound allows."""
    steps = table.steps[name, variant]
    if comparator is None:
        return steps.at(value)
    here = steps.index(value)
    return max(steps.points[: here + 1] if comparator.startswith("<") else steps.points[here:])


def _fever(view: View, layer: Layer, temperature: float) -> str:
    """The key of the fever row: fever, with how many SIRS criteria, or in the immunocompromised."""
    if COLD <= temperature <= FEVER:
        return "none"
    if "immunocompromise" in view.evidence and temperature > FEVER:
        return "immunocompromised"
    criteria = 1
    rate, breaths, cells = layer.get("heart-rate"), layer.get("respiratory-rate"), layer.get("white-cells")
    if rate is not None and rate.value > SIRS_HEART_RATE and not rate.comparator:
        criteria += 1
    if breaths is not None and breaths.value > SIRS_RESPIRATORY_RATE and not breaths.comparator:
        criteria += 1
    if cells is not None and not cells.comparator:
        criteria += not SIRS_WHITE_CELLS[0] <= cells.value <= SIRS_WHITE_CELLS[1]
    if criteria >= 3:
        return "three-sirs"
    if criteria == 2:
        return "two-sirs"
    return "fever" if temperature > FEVER else "none"


def _context(view: View) -> list[Fact]:
    """The facts that chose a variant."""
    topics = ("hypercapnia", "immunocompromise", "pain-location", "hypertension-symptom")
    return [view.evidence[topic][2] for topic in topics if topic in view.evidence]
