"""Counterfactuals that a doctor would ask: what if this measurement were normal, this finding not there?

Responsible for choosing at most three facts that can change and for asking the ensemble again without
them.  It answers for the model, not for the patient: no causal claim is made.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.chart import PatientChart
from models.assessment import Counterfactual, Fact
from models.common.ensemble import Outcome

if TYPE_CHECKING:
    from models.common.engine import CommonEngine

MOST, TRIED = 3, 4
LEAST_PUSH = 0.4
"""Log-odds under which a fact is not worth asking about."""
LEAST_CHANGE = 0.005
"""Change of the probability that no reader would see: it is shown in percent."""
CHANGEABLE = ("measurement", "finding")
SCORE = "{score}"
"""Unit (UCUM annotation) of what puts a number to a complaint, such as pain: one does not change alone."""


def counterfactuals(
    engine: "CommonEngine",
    chart: PatientChart,
    outcome: Outcome,
    facts: list[Fact],
    amounts: NDArray[np.float64],
    disease: int,
) -> tuple[Counterfactual, ...]:
    """A disease's probability if one of the facts that speak for it most were otherwise.

    A measurement is imagined at the normal of the patient's age and sex, a finding as not mentioned.
    `outcome` is owned by facts, `amounts` [facts] are the contributions to the disease.
    """
    name = engine.diseases[disease].id
    before = float(outcome.disease[disease])
    asked: list[int] = []
    for row in np.argsort(-amounts, kind="stable")[:TRIED].tolist():
        fact = facts[row]
        changeable = fact.kind in CHANGEABLE and fact.state == "present" and fact.unit != SCORE
        if changeable and amounts[row] >= LEAST_PUSH:
            asked.append(row)
    if not asked:
        return ()
    found: list[Counterfactual] = []
    afters = engine.ensemble.otherwise(outcome, asked)[:, disease].tolist()
    for row, after in zip(asked, afters, strict=True):
        fact = facts[row]
        if abs(after - before) < LEAST_CHANGE or len(found) == MOST:
            continue
        value = _normal(engine, chart, fact) if fact.kind == "measurement" else None
        state: Literal["unknown"] | None = None if value is not None else "unknown"
        found.append(Counterfactual(fact, name, before, after, value, state))
    return tuple(found)


def _normal(engine: "CommonEngine", chart: PatientChart, fact: Fact) -> float | None:
    number = engine.reader.analytes.get(fact.code)
    if number is None:
        return None
    return engine.reader.schema.analytes[number].normal(chart.subject.age_years, chart.subject.sex)[0]
