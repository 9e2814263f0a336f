"""An assessment as the simple form's answer: the same content as everywhere, in simple words."""

from collections.abc import Sequence
from typing import Any

from fhir_adapters.chart import PatientChart
from hooks.cards import DEFAULT_SETTINGS
from hooks.context import CallContext
from hooks.differential import differential_of
from hooks.differential_words import change, disease, footing, names_of, rationale, step_name, unknown_lines
from hooks.suggestions import action_title
from hooks.texts import Texts
from hooks.wording import Names, name_of
from models.assessment import SEVERITIES, Assessment, Fact, Prediction


def simple_answer(chart: PatientChart, assessment: Assessment, texts: Texts, names: Names) -> dict[str, Any]:
    """The body of the answer as `PredictResponse` documents it."""
    context = CallContext(chart, assessment, texts, names, "", None, DEFAULT_SETTINGS)
    escalation = assessment.escalation.code

    def facts(found: Sequence[Fact]) -> list[dict[str, Any]]:
        return [_fact(fact, texts, names) for fact in found]

    return {
        "severity": {"code": assessment.severity, "text": texts[f"severity.{assessment.severity}"]},
        "severity_probabilities": dict(zip(SEVERITIES, assessment.severity_probabilities, strict=True)),
        "immediate_attention": {
            "decision": assessment.immediate,
            "probability": assessment.immediate_probability,
        },
        "common": [_candidate(prediction, context) for prediction in assessment.common],
        "differential": _differential(context),
        "rare": [_candidate(prediction, context) for prediction in assessment.rare],
        "rare_alarm": {"decision": assessment.rare_alarm, "probability": assessment.rare_alarm_probability},
        "escalation": {"code": escalation, "text": texts[f"escalation.{escalation}"]},
        "explanation": {
            "red_flags": [
                {
                    "id": flag.id,
                    "text": texts.get(f"red-flag.{flag.id}.summary", flag.id),
                    "urgency": flag.urgency,
                    "facts": facts(flag.facts),
                    "source": flag.source,
                }
                for flag in assessment.red_flags
            ],
            "scores": [
                {
                    "id": score.id,
                    "text": texts.get(f"score.{score.id}.name", score.id),
                    "value": score.value,
                    "maximum": score.maximum,
                    "band": score.band,
                    "complete": score.complete,
                    "missing": list(score.missing),
                    "source": score.source,
                }
                for score in assessment.scores
            ],
            "critical_values": [
                {
                    "id": value.id,
                    "direction": value.direction,
                    "limit": value.limit,
                    "urgency": value.urgency,
                    "facts": facts([value.fact]),
                    "source": value.source,
                }
                for value in assessment.critical_values
            ],
            "contributions": [
                {"target": part.target, "amount": part.amount, "facts": facts([part.fact])}
                for part in assessment.explanation
            ],
        },
        "recommendations": [
            {
                "id": recommendation.action,
                "text": action_title(recommendation.action, texts),
                "urgency": recommendation.urgency,
                "because": list(recommendation.because),
            }
            for recommendation in assessment.recommendations
        ],
        "missing_information": [
            {
                "code": missing.id,
                "text": texts.maybe(f"missing.{missing.id}")
                or texts.get(f"parameter.{missing.id}", missing.id),
            }
            for missing in assessment.missing
        ],
        "unreadable": [
            *[
                {
                    "code": issue.code,
                    "text": texts.get(f"issue.{issue.code}", issue.code),
                    "where": issue.reference,
                }
                for issue in chart.issues
            ],
            *[
                {
                    "code": "unmapped",
                    "text": f"{unmapped.system}|{unmapped.code}",
                    "where": unmapped.reference,
                }
                for unmapped in chart.unmapped
            ],
        ],
        "model": assessment.model,
        "knowledge": assessment.knowledge,
    }


def _fact(fact: Fact, texts: Texts, names: Names) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": name_of(fact, texts, names) or fact.label,
        "code": fact.code,
        "state": fact.state,
        "sources": list(fact.sources),
    }
    if fact.value is not None:
        found |= {"value": fact.value, "unit": fact.unit}
    return found


def _candidate(prediction: Prediction, context: CallContext) -> dict[str, Any]:
    return {
        "id": prediction.id,
        "name": disease(prediction, context.texts),
        "probability": prediction.probability,
        "in_set": prediction.in_set,
        "codes": [{"system": s, "code": c, "display": d} for s, c, d in prediction.codings],
        "rationale": rationale(prediction, context) or None,
    }


def _differential(context: CallContext) -> dict[str, Any] | None:
    """What the list of common diseases rests on, what would change it, what to find out next."""
    assessment = context.assessment
    if not assessment.common:
        return None
    called = names_of(assessment, context.texts)
    told = differential_of(context.chart, assessment)
    return {
        "text": footing(told, context) if told is not None else f"{context.texts['differential.simulated']}.",
        "coverage": assessment.coverage,
        "set_size": assessment.set_size,
        "other_probability": assessment.other_probability,
        "similarity": assessment.similarity,
        "what_changes": [
            {
                "target": one.target,
                "text": change(one, called.get(one.target, one.target), context),
                "before": one.before,
                "after": one.after,
            }
            for one in assessment.counterfactuals
        ],
        "what_next": [
            {
                "kind": one.kind,
                "code": one.code,
                "text": step_name(one, context),
                "gain": one.gain,
                "separates": list(one.separates),
            }
            for one in assessment.next_steps
        ],
        "not_known": unknown_lines(context),
    }
