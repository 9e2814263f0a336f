"""`POST /api/v1/predict`: the simple form in, the same assessment as everywhere out, in simple words."""

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.responses import Response

from cds_server.api.answer import simple_answer
from cds_server.api.bundle import bundle_of
from cds_server.api.description import reference
from cds_server.api.schemas import PredictRequest, PredictResponse
from cds_server.errors import RequestMalformed
from cds_server.fhir_api.assessing import Encode, assess_bundle
from cds_server.http import Call, check_content_type, read_body
from cds_server.language import choose_language
from cds_server.state import House, Knowledge
from fhir_adapters.chart import PatientChart
from hooks.texts import texts_for
from models.assessment import Assessment


def router(house: House) -> APIRouter:
    """The route of this slice, with its documentation."""
    api = APIRouter(prefix="/api/v1", tags=["simple form"])

    @api.post(
        "/predict",
        summary="Assess a patient described in a few words",
        responses={200: {"model": PredictResponse}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": reference(PredictRequest)}},
            }
        },
    )
    async def predict(request: Request) -> Response:
        check_content_type(request.scope)
        call = Call(request.scope, await read_body(request.receive))
        form = validated(call.body)
        language = form.language or choose_language(call.header(b"accept-language"), house.settings.language)

        body = await assess_bundle(
            house,
            "predict",
            call,
            bundle=lambda now: bundle_of(form, now),
            encode=simple_in(language),
            language=language,
        )
        return Response(body, media_type="application/json", headers={"Content-Language": language})

    return api


def simple_in(language: str) -> Encode:
    """Encodes an assessment as the simple form's answer, in one language."""

    def encode(knowledge: Knowledge, chart: PatientChart, assessment: Assessment) -> bytes:
        names = knowledge.builder.name_of
        return msgspec.json.encode(simple_answer(chart, assessment, texts_for(language), names))

    return encode


def validated(body: bytes) -> PredictRequest:
    """The form in a body; raises `RequestMalformed` naming the field."""
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
