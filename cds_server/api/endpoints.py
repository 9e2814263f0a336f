"""`POST /api/v1/predict`: the simple form in, the same assessment as everywhere out, in simple words."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.responses import Response

from cds_server.api.bundle import bundle_of
from cds_server.api.schemas import PredictRequest, PredictResponse
from cds_server.errors import RequestMalformed
from cds_server.fhir_api.assessing import assess_bundle
from cds_server.http import Call, check_content_type, read_body
from cds_server.language import choose_language
from cds_server.state import House
from fhir_adapters.chart import PatientChart
from hooks.suggestions import action_title
from hooks.texts import Texts, texts_for
from hooks.wording import Names
from models.assessment import SEVERITIES, Assessment, Fact, Prediction

_REFUSED = "FHIR OperationOutcome that names the field."


def router(house: House) -> APIRouter:
    """The route of this slice, with its documentation."""
    api = APIRouter(prefix="/api/v1", tags=["simple form"])

    @api.post(
        "/predict",
        summary="Assess a patient described in a few words",
        responses={
            200: {"model": PredictResponse},
            400: {"description": _REFUSED},
            422: {"description": _REFUSED},
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": PredictRequest.model_json_schema(mode="validation")}
                },
            }
        },
    )
    async def predict(request: Request) -> Response:
        check_content_type(request.scope)
        call = Call(request.scope, await read_body(request.receive))
        form = _validated(call.body)
        language = form.language or choose_language(call.header(b"accept-language"), house.settings.language)

        def encode(chart: PatientChart, assessment: Assessment) -> bytes:
            names = house.knowledge.builder.name_of
            return msgspec.json.encode(_simple(chart, assessment, texts_for(language), names))

        body = await assess_bundle(
            house,
            "predict",
            call.body,
            bundle=lambda: bundle_of(form, house.clock()),
            encode=encode,
            language=language,
        )
        return Response(body, media_type="application/json", headers={"Content-Language": language})

    return api


def _validated(body: bytes) -> PredictRequest:
    try:
        return PredictRequest.model_validate_json(body)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_context=False, include_input=False)[0]
        raise RequestMalformed(_reason(first), _path(first["loc"])) from None


def _reason(error: ErrorDetails) -> str:
    """Pydantic's own words, which name types and limits; anything else could quote the input."""
    if error["type"] == "json_invalid":
        return "not valid JSON"
    return error["msg"]


def _path(location: tuple[int | str, ...]) -> str | None:
    text = ""
    for step in location:
        # A member we do not know is named by the caller, so it is not repeated.
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if step in _KNOWN else ""
    return text.lstrip(".") or None


def _members(schema: dict[str, Any]) -> set[str]:
    found = set(schema.get("properties", {}))
    for part in schema.get("$defs", {}).values():
        found |= set(part.get("properties", {}))
    return found


_KNOWN = frozenset(_members(PredictRequest.model_json_schema()))


def _simple(chart: PatientChart, assessment: Assessment, texts: Texts, names: Names) -> dict[str, Any]:
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
        "common": [_candidate(prediction) for prediction in assessment.common],
        "rare": [_candidate(prediction) for prediction in assessment.rare],
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
        "text": names(fact, texts.language) or fact.label,
        "code": fact.code,
        "state": fact.state,
        "sources": list(fact.sources),
    }
    if fact.value is not None:
        found |= {"value": fact.value, "unit": fact.unit}
    return found


def _candidate(prediction: Prediction) -> dict[str, Any]:
    return {
        "name": prediction.label,
        "probability": prediction.probability,
        "codes": [{"system": s, "code": c, "display": d} for s, c, d in prediction.codings],
        "rationale": prediction.rationale or None,
    }
