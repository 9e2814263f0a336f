"""An assessment as a FHIR R4 `Parameters` (ARCHITECTURE.md, "`$assess` answer").

Only a change of form: every value comes from the `Assessment` or the `PatientChart`, every text for
people from `hooks`.  `common` and `rare` are RiskAssessments; their `prediction` is left out while no
engine predicts, because FHIR has no empty arrays.  `explanation` and `differential` hold the longer parts.
"""

from collections.abc import Sequence
from typing import Any

from cds_server.fhir_api.differential import coding_of, differential_parameters
from cds_server.fhir_api.explanation import explanation_parts
from cds_server.fhir_api.parts import Part, decimal, string_part, string_parts
from cds_server.fhir_api.rare import RareParts
from fhir_adapters.chart import PatientChart
from hooks.cards import DEFAULT_SETTINGS
from hooks.context import CallContext
from hooks.differential_words import disease, rationale
from hooks.texts import Texts, texts_for
from hooks.wording import Names
from models.assessment import Assessment, Prediction

SEVERITY_SYSTEM = "urn:cds-server:severity"
ESCALATION_SYSTEM = "urn:cds-server:escalation"
_MOST_ROWS = 200
"""Most issues and unmapped codes listed; the totals are always given."""


def assessment_parameters(
    chart: PatientChart, assessment: Assessment, *, language: str, names: Names
) -> dict[str, Any]:
    """The `Parameters` resource as plain data, ready to be encoded."""
    texts = texts_for(language)
    context = CallContext(chart, assessment, texts, names, "", None, DEFAULT_SETTINGS)
    escalation = assessment.escalation
    opinion = assessment.rare_opinion
    rare = RareParts(context, opinion) if opinion is not None else None
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
                    {"name": "probability", "valueDecimal": decimal(assessment.immediate_probability)},
                ],
            },
            {"name": "common", "resource": _risk(context, assessment.common, "common")},
            {"name": "rare", "resource": _risk(context, assessment.rare, "rare", rare)},
            {
                "name": "rare-alarm",
                "part": [
                    {"name": "decision", "valueBoolean": assessment.rare_alarm},
                    {"name": "probability", "valueDecimal": decimal(assessment.rare_alarm_probability)},
                    *(rare.alarm() if rare is not None else []),
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
            {"name": "explanation", "part": explanation_parts(assessment, texts, names)},
            *differential_parameters(context),
            *([rare.parameter()] if rare is not None else []),
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


def _risk(
    context: CallContext, predictions: Sequence[Prediction], identity: str, rare: RareParts | None = None
) -> Part:
    chart = context.chart
    resource: Part = {
        "resourceType": "RiskAssessment",
        "id": identity,
        "status": "final",
        "subject": {"reference": _patient_reference(chart)},
        "occurrenceDateTime": chart.at.isoformat(timespec="seconds"),
    }
    if chart.encounter is not None:
        resource["encounter"] = {"reference": chart.encounter.reference}
    if predictions:
        if rare is None:
            resource["prediction"] = [
                _prediction(one, context, rationale(one, context)) for one in predictions
            ]
        else:
            why = rare.rationales()
            resource["prediction"] = [_prediction(one, context, why.get(one.id, "")) for one in predictions]
        if identity == "common":
            resource["note"] = [{"text": f"{context.texts['differential.simulated']}."}]
    return resource


def _patient_reference(chart: PatientChart) -> str:
    identity = chart.subject.patient_id
    return identity if "/" in identity or ":" in identity else f"Patient/{identity}"


def _prediction(prediction: Prediction, context: CallContext, why: str) -> Part:
    codings = [coding_of(coding) for coding in prediction.codings]
    entry: Part = {
        "outcome": {
            **({"coding": codings} if codings else {}),
            "text": disease(prediction, context.texts),
        },
        "probabilityDecimal": decimal(prediction.probability),
    }
    if why:
        entry["rationale"] = why
    return entry


def _missing(chart: PatientChart, assessment: Assessment, texts: Texts) -> list[Part]:
    items: list[Part] = []
    for missing in assessment.missing:
        text = texts.maybe(f"missing.{missing.id}") or texts.get(f"parameter.{missing.id}", missing.id)
        items.append(
            {
                "name": "item",
                "part": [
                    {"name": "id", "valueString": missing.id},
                    *string_part("text", text),
                    *string_parts("needed-for", missing.needed_for),
                ],
            }
        )
    items += string_parts("section", chart.sections_missing)
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
                    *string_part("text", texts.get(f"issue.{issue.code}", issue.code)),
                    *string_part("reference", issue.reference),
                    *string_part("path", issue.path),
                    *string_part("detail", issue.detail),
                ],
            }
        )
    for unmapped in chart.unmapped[:_MOST_ROWS]:
        parts.append(
            {
                "name": "unmapped",
                "part": [
                    *string_part("reference", unmapped.reference),
                    *string_part("system", unmapped.system),
                    *string_part("code", unmapped.code),
                ],
            }
        )
    return parts
