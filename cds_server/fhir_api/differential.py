"""The differential in `$assess` beside its RiskAssessment: its set, what would change it, what to find out.

Only a change of form; words come from `hooks`.  Without a learned engine there is nothing to send.
"""

from cds_server.fhir_api.parts import Part, decimal, fact_part, string_part, string_parts
from hooks.context import CallContext
from hooks.differential_words import change, names_of, step_name
from models.assessment import Counterfactual, NextStep

FINDING_SYSTEM = "http://human-phenotype-ontology.org"
ACTION_SYSTEM = "urn:cds-server:action"
_ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"


def coding_of(coding: tuple[str, str, str]) -> Part:
    """A FHIR Coding."""
    system, code, display = coding
    return {"system": system, "code": code, **({"display": display} if display else {})}


def differential_parameters(context: CallContext) -> list[Part]:
    """`differential-set`, then each `counterfactual` and each `next-step`; empty without predictions."""
    assessment = context.assessment
    if not assessment.common:
        return []
    return [
        {"name": "differential-set", "part": _set(context)},
        *[_counterfactual(one, context) for one in assessment.counterfactuals],
        *[_next_step(one, context) for one in assessment.next_steps],
    ]


def _set(context: CallContext) -> list[Part]:
    """The conformal set: how often it holds the true disease, how large it is, which of it are listed."""
    assessment = context.assessment
    parts: list[Part] = []
    if assessment.coverage is not None:
        parts.append({"name": "coverage", "valueDecimal": decimal(assessment.coverage)})
    if assessment.set_size is not None:
        parts.append({"name": "size", "valueInteger": assessment.set_size})
    for one in assessment.common:
        if one.in_set and one.codings:
            parts.append({"name": "listed", "valueCoding": coding_of(one.codings[0])})
    parts.append({"name": "other-probability", "valueDecimal": decimal(assessment.other_probability)})
    if assessment.similarity is not None:
        parts.append({"name": "similarity", "valueDecimal": decimal(assessment.similarity)})
    return parts


def _counterfactual(one: Counterfactual, context: CallContext) -> Part:
    target = names_of(context.assessment, context.texts).get(one.target, one.target)
    parts: list[Part] = [
        {"name": "target", "valueString": one.target},
        *string_part("text", change(one, target, context) or ""),
        fact_part(one.fact, context.texts, context.names),
    ]
    if one.value is not None:
        quantity: Part = {"value": one.value}
        if one.fact.unit:
            quantity |= {
                "unit": one.fact.unit,
                "system": "http://unitsofmeasure.org",
                "code": one.fact.unit,
            }
        parts.append({"name": "value", "valueQuantity": quantity})
    if one.state is not None:
        parts.append({"name": "state", "valueCode": one.state})
    parts.append({"name": "before", "valueDecimal": decimal(one.before)})
    parts.append({"name": "after", "valueDecimal": decimal(one.after)})
    return {"name": "counterfactual", "part": parts}


def _next_step(one: NextStep, context: CallContext) -> Part:
    return {
        "name": "next-step",
        "part": [
            {"name": "kind", "valueCode": one.kind},
            {"name": "code", "valueCoding": {"system": _system(one), "code": one.code.removeprefix("ICD:")}},
            *string_part("text", step_name(one, context)),
            {"name": "gain", "valueDecimal": decimal(one.gain)},
            *string_parts("separates", one.separates),
        ],
    }


def _system(step: NextStep) -> str:
    if step.kind == "test":
        return ACTION_SYSTEM
    return _ICD10CM if step.code.startswith("ICD:") else FINDING_SYSTEM
