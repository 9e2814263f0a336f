"""An assessment as a FHIR R4 `Parameters` (ARCHITECTURE.md, "`$assess` answer").

Only a change of form: every value comes from the `Assessment` or the `PatientChart`, every text for
people from `hooks`.  `common` and `rare` are RiskAssessments; their `prediction` is left out while no
engine predicts, because FHIR has no empty arrays.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from fhir_adapters.chart import PatientChart
from hooks.suggestions import action_title
from hooks.texts import Texts, texts_for
from hooks.wording import Names
from models.assessment import Assessment, Fact, Prediction

SEVERITY_SYSTEM = "urn:cds-server:severity"
ESCALATION_SYSTEM = "urn:cds-server:escalation"
_FACT_SYSTEMS = {
    "measurement": "http://loinc.org",
    "coded": "http://loinc.org",
    "finding": "http://human-phenotype-ontology.org",
    "problem": "http://hl7.org/fhir/sid/icd-10-cm",
    "medication": "http://www.whocc.no/atc",
    "allergy": "http://www.whocc.no/atc",
}
_MOST_ROWS = 200
"""Most issues and unmapped codes listed; the totals are always given."""

Part = dict[str, Any]


def assessment_parameters(
    chart: PatientChart, assessment: Assessment, *, language: str, names: Names
) -> dict[str, Any]:
    """The `Parameters` resource as plain data, ready to be encoded."""
    texts = texts_for(language)
    escalation = assessment.escalation
    return {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "severity",
                "valueCoding": {
                    "system": SEVERITY_SYSTEM,
                    "code": assessment.severity,
                    "display": texts[f"severity.{assessment.severity}"],
                },
            },
            {
                "name": "immediate-attention",
                "part": [
                    {"name": "decision", "valueBoolean": assessment.immediate},
                    {"name": "probability", "valueDecimal": _decimal(assessment.immediate_probability)},
                ],
            },
            {"name": "common", "resource": _risk(chart, assessment.common, "common")},
            {"name": "rare", "resource": _risk(chart, assessment.rare, "rare")},
            {
                "name": "rare-alarm",
                "part": [
                    {"name": "decision", "valueBoolean": assessment.rare_alarm},
                    {"name": "probability", "valueDecimal": _decimal(assessment.rare_alarm_probability)},
                ],
            },
            {
                "name": "escalation",
                "valueCoding": {
                    "system": ESCALATION_SYSTEM,
                    "code": escalation.code,
                    "display": texts[f"escalation.{escalation.code}"],
                },
            },
            {"name": "explanation", "part": _explanation(assessment, texts, names)},
            *_missing(chart, assessment, texts),
            {"name": "unreadable", "part": _unreadable(chart, texts)},
            {
                "name": "model",
                "part": [
                    {"name": "bundle", "valueString": assessment.model},
                    {"name": "knowledge", "valueString": assessment.knowledge},
                ],
            },
        ],
    }


def _decimal(value: float) -> float:
    return round(value, 6)


def _risk(chart: PatientChart, predictions: Sequence[Prediction], identity: str) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "RiskAssessment",
        "id": identity,
        "status": "final",
        "subject": {"reference": _patient_reference(chart)},
        "occurrenceDateTime": chart.at.isoformat(timespec="seconds"),
    }
    if chart.encounter is not None:
        resource["encounter"] = {"reference": chart.encounter.reference}
    if predictions:
        resource["prediction"] = [_prediction(prediction) for prediction in predictions]
    return resource


def _patient_reference(chart: PatientChart) -> str:
    identity = chart.subject.patient_id
    return identity if "/" in identity or ":" in identity else f"Patient/{identity}"


def _prediction(prediction: Prediction) -> dict[str, Any]:
    codings = [
        {"system": system, "code": code, **({"display": display} if display else {})}
        for system, code, display in prediction.codings
    ]
    entry: dict[str, Any] = {
        "outcome": {**({"coding": codings} if codings else {}), "text": prediction.label},
        "probabilityDecimal": _decimal(prediction.probability),
    }
    if prediction.rationale:
        entry["rationale"] = prediction.rationale
    return entry


def _text(name: str, value: str) -> list[Part]:
    """A string part, or none: FHIR strings are never empty."""
    return [{"name": name, "valueString": value}] if value.strip() else []


def _texts(name: str, values: Iterable[str]) -> list[Part]:
    return [part for value in values for part in _text(name, value)]


def _fact(fact: Fact, texts: Texts, names: Names) -> Part:
    label = names(fact, texts.language) or fact.label
    parts: list[Part] = [*_text("label", label)]
    system = _FACT_SYSTEMS.get(fact.kind)
    if system and fact.code:
        parts.append({"name": "code", "valueCoding": {"system": system, "code": fact.code}})
    if fact.value is not None:
        quantity: dict[str, Any] = {"value": fact.value}
        if fact.unit:
            quantity |= {"unit": fact.unit, "system": "http://unitsofmeasure.org", "code": fact.unit}
        parts.append({"name": "value", "valueQuantity": quantity})
    parts += _text("value-text", fact.text_value or "")
    if fact.state != "present":
        parts.append({"name": "state", "valueCode": fact.state})
    if fact.time is not None:
        parts.append({"name": "time", "valueDateTime": fact.time.isoformat(timespec="seconds")})
    parts += _texts("source", fact.sources)
    return {"name": "fact", "part": parts}


def _explanation(assessment: Assessment, texts: Texts, names: Names) -> list[Part]:
    """What the decision rests on: the policy's rule, then every statement with its facts."""
    parts: list[Part] = [
        {
            "name": "policy",
            "part": [
                *_text("rule", assessment.escalation.rule),
                *_texts("because", assessment.escalation.because),
            ],
        },
    ]
    for flag in assessment.red_flags:
        parts.append(
            {
                "name": "red-flag",
                "part": [
                    {"name": "id", "valueString": flag.id},
                    *_text("text", texts.get(f"red-flag.{flag.id}.summary", "")),
                    {"name": "urgency", "valueCode": flag.urgency},
                    {"name": "outdated", "valueBoolean": flag.stale},
                    *_text("publication", flag.source),
                    *[_fact(fact, texts, names) for fact in flag.facts],
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
                    *_text("publication", value.source),
                    _fact(value.fact, texts, names),
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
                inner.append(_fact(part.fact, texts, names))
            points.append({"name": "part", "part": inner})
        parts.append(
            {
                "name": "score",
                "part": [
                    {"name": "id", "valueString": score.id},
                    *_text("text", texts.get(f"score.{score.id}.name", score.id)),
                    {"name": "value", "valueDecimal": score.value},
                    *(
                        [{"name": "maximum", "valueDecimal": score.maximum}]
                        if score.maximum is not None
                        else []
                    ),
                    {"name": "band", "valueString": score.band},
                    {"name": "complete", "valueBoolean": score.complete},
                    {"name": "outdated", "valueBoolean": score.stale},
                    *_text("publication", score.source),
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
                    *_text("text", action_title(recommendation.action, texts)),
                    {"name": "urgency", "valueCode": recommendation.urgency},
                    *_texts("because", recommendation.because),
                    *_text("already", recommendation.already or ""),
                ],
            }
        )
    for contribution in assessment.explanation:
        parts.append(
            {
                "name": "contribution",
                "part": [
                    {"name": "target", "valueString": contribution.target},
                    {"name": "amount", "valueDecimal": _decimal(contribution.amount)},
                    _fact(contribution.fact, texts, names),
                ],
            }
        )
    return parts


def _missing(chart: PatientChart, assessment: Assessment, texts: Texts) -> list[Part]:
    items: list[Part] = []
    for missing in assessment.missing:
        text = texts.maybe(f"missing.{missing.id}") or texts.get(f"parameter.{missing.id}", missing.id)
        items.append(
            {
                "name": "item",
                "part": [
                    {"name": "id", "valueString": missing.id},
                    *_text("text", text),
                    *_texts("needed-for", missing.needed_for),
                ],
            }
        )
    items += _texts("section", chart.sections_missing)
    return [{"name": "missing-information", "part": items}] if items else []


def _unreadable(chart: PatientChart, texts: Texts) -> list[Part]:
    """Counts always, then the first rows of what was sent and could not be used."""
    parts: list[Part] = [
        {"name": "resources-read", "valueInteger": chart.resources_read},
        {"name": "issue-count", "valueInteger": len(chart.issues)},
        {"name": "coded-count", "valueInteger": chart.coded_total},
        {"name": "unmapped-count", "valueInteger": len(chart.unmapped)},
    ]
    for issue in chart.issues[:_MOST_ROWS]:
        parts.append(
            {
                "name": "issue",
                "part": [
                    {"name": "code", "valueString": issue.code},
                    *_text("text", texts.get(f"issue.{issue.code}", issue.code)),
                    *_text("reference", issue.reference),
                    *_text("path", issue.path),
                    *_text("detail", issue.detail),
                ],
            }
        )
    for unmapped in chart.unmapped[:_MOST_ROWS]:
        parts.append(
            {
                "name": "unmapped",
                "part": [
                    *_text("reference", unmapped.reference),
                    *_text("system", unmapped.system),
                    *_text("code", unmapped.code),
                ],
            }
        )
    return parts
