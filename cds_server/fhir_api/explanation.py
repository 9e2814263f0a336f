"""The `explanation` of `$assess`: the policy's rule, statements with their facts, what moved each disease."""

from cds_server.fhir_api.parts import Part, decimal, fact_part, string_part, string_parts
from hooks.differential_words import names_of
from hooks.suggestions import action_title
from hooks.texts import Texts
from hooks.wording import Names
from models.assessment import Assessment


def explanation_parts(assessment: Assessment, texts: Texts, names: Names) -> list[Part]:
    """What the decision rests on: the policy's rule, then every statement with its facts."""
    parts: list[Part] = [
        {
            "name": "policy",
            "part": [
                *string_part("rule", assessment.escalation.rule),
                *string_parts("because", assessment.escalation.because),
            ],
        },
    ]
    for flag in assessment.red_flags:
        parts.append(
            {
                "name": "red-flag",
                "part": [
                    {"name": "id", "valueString": flag.id},
                    *string_part("text", texts.get(f"red-flag.{flag.id}.summary", "")),
                    {"name": "urgency", "valueCode": flag.urgency},
                    {"name": "outdated", "valueBoolean": flag.stale},
                    *string_part("publication", flag.source),
                    *[fact_part(fact, texts, names) for fact in flag.facts],
                ],
            }
        )
    for value in assessment.critical_values:
        parts.append(
            {
                "name": "critical-value",
                "part": [
                    {"name": "id", "valueString": value.id},
                    {"name": "direction", "valueCode": value.direction},
                    {"name": "limit", "valueDecimal": value.limit},
                    {"name": "urgency", "valueCode": value.urgency},
                    {"name": "outdated", "valueBoolean": value.stale},
                    *string_part("publication", value.source),
                    fact_part(value.fact, texts, names),
                ],
            }
        )
    for score in assessment.scores:
        points: list[Part] = []
        for part in score.parts:
            inner: list[Part] = [
                {"name": "parameter", "valueString": part.parameter},
                {"name": "points", "valueDecimal": part.points},
            ]
            if part.fact is not None:
                inner.append(fact_part(part.fact, texts, names))
            points.append({"name": "part", "part": inner})
        parts.append(
            {
                "name": "score",
                "part": [
                    {"name": "id", "valueString": score.id},
                    *string_part("text", texts.get(f"score.{score.id}.name", score.id)),
                    {"name": "value", "valueDecimal": score.value},
                    *(
                        [{"name": "maximum", "valueDecimal": score.maximum}]
                        if score.maximum is not None
                        else []
                    ),
                    {"name": "band", "valueString": score.band},
                    {"name": "complete", "valueBoolean": score.complete},
                    {"name": "outdated", "valueBoolean": score.stale},
                    *string_part("publication", score.source),
                    *points,
                ],
            }
        )
    for recommendation in assessment.recommendations:
        parts.append(
            {
                "name": "recommendation",
                "part": [
                    {"name": "id", "valueString": recommendation.action},
                    *string_part("text", action_title(recommendation.action, texts)),
                    {"name": "urgency", "valueCode": recommendation.urgency},
                    *string_parts("because", recommendation.because),
                    *string_part("already", recommendation.already or ""),
                ],
            }
        )
    called = names_of(assessment, texts)
    for contribution in assessment.explanation:
        parts.append(
            {
                "name": "contribution",
                "part": [
                    {"name": "target", "valueString": contribution.target},
                    *string_part("target-text", called.get(contribution.target, "")),
                    {"name": "amount", "valueDecimal": decimal(contribution.amount)},
                    fact_part(contribution.fact, texts, names),
                ],
            }
        )
    return parts
