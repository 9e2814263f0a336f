"""Counterfactuals that a doctor would ask: what if this measurement were normal, this finding not there?

Responsible for choosing at most three facts that can change and for asking the ensemble again without
them.  It answers for the model, not for the patient: no causal claim is made.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.chart import PatientChart
from fhir_adapters.features import Features
from models.assessment import Counterfactual, Fact
from models.common.ensemble import Outcome
from models.common.members import Places

if TYPE_CHECKING:
    from models.common.engine import CommonEngine

MOST = 3
LEAST_PUSH = 0.4
"""Log-odds under which a fact is not worth asking about."""
LEAST_CHANGE = 0.005
"""Change of the probability that no reader would see: it is shown in percent."""
CHANGEABLE = ("measurement", "finding")
AS_NORMAL = 1e-4
"""A measurement at the normal of the patient's age; exactly 0 would mean that it was not taken."""


def counterfactuals(
    engine: "CommonEngine",
    chart: PatientChart,
    features: Features,
    outcome: Outcome,
    facts: list[Fact],
    owner: NDArray[np.int32],
    amounts: NDArray[np.float64],
    target: NDArray[np.intp],
    rules_logit: float,
) -> tuple[Counterfactual, ...]:
    """The leading disease's probability if one of the facts that speak for it most were otherwise.

    A measurement is imagined at the normal of the patient's age and sex, a finding as not mentioned.
    `amounts` [facts, 1] are the contributions to the leading disease.
    """
    disease = int(target[0])
    name = engine.diseases[disease].id
    before = float(outcome.disease[disease])
    found: list[Counterfactual] = []
    for row in np.argsort(-amounts[:, 0], kind="stable")[: 2 * MOST]:
        fact = facts[int(row)]
        if amounts[row, 0] < LEAST_PUSH or len(found) == MOST:
            break
        if fact.kind not in CHANGEABLE or fact.state != "present":
            continue
        items = set(np.flatnonzero(owner == row).tolist())
        changed = _otherwise(features, items, engine.ensemble.places)
        after = float(engine.ensemble.run(changed, rules_logit).disease[disease])
        if abs(after - before) < LEAST_CHANGE:
            continue
        value = None
        if fact.kind == "measurement":
            value = _normal(engine, chart, fact)
        found.append(
            Counterfactual(fact, name, before, after, value, None if value is not None else "unknown")
        )
    return tuple(found)


def _normal(engine: "CommonEngine", chart: PatientChart, fact: Fact) -> float | None:
    for analyte in engine.reader.schema.analytes:
        if analyte.loinc == fact.code:
            return analyte.normal(chart.subject.age_years, chart.subject.sex)[0]
    return None


def _otherwise(features: Features, items: set[int], places: Places) -> Features:
    """The features as if some items had said nothing; a measurement among them becomes a normal one."""
    index: list[int] = []
    values: list[float] = []
    owner: list[int] = []
    for place, value, item in zip(features.index, features.values, features.owner, strict=True):
        imagined = value
        if item in items:
            if not places.values <= place < places.measured + (places.measured - places.values):
                continue
            if place < places.measured:
                imagined = AS_NORMAL
        index.append(place)
        values.append(imagined)
        owner.append(item)
    return Features(
        tuple(index),
        tuple(values),
        tuple(owner),
        tuple([stated for stated in features.stated if stated.item not in items]),
        features.items,
        features.emergency,
        features.age_years,
        features.sex,
    )
