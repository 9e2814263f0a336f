"""`POST /fhir/$assess`, `GET /fhir/metadata` and the operation's definition."""

import msgspec
from starlette.routing import BaseRoute, Route

from cds_server.fhir_api.assessing import Encode, assess_bundle
from cds_server.fhir_api.capability import ASSESS_PATH, capability_statement, operation_definition
from cds_server.fhir_api.parameters import assessment_parameters
from cds_server.http import FHIR_JSON, Answer, Call, Endpoint
from cds_server.language import choose_language
from cds_server.state import House, Knowledge
from fhir_adapters.chart import PatientChart
from models.assessment import Assessment

_encode = msgspec.json.Encoder().encode


def parameters_in(language: str) -> Encode:
    """Encodes an assessment as the operation's Parameters, with texts in one language."""

    def encode(knowledge: Knowledge, chart: PatientChart, assessment: Assessment) -> bytes:
        names = knowledge.builder.name_of
        return _encode(assessment_parameters(chart, assessment, language=language, names=names))

    return encode


def routes(house: House) -> list[BaseRoute]:
    """The routes of this slice."""
    base_url = house.settings.base_url
    metadata_json = _encode(capability_statement(base_url))
    definition_json = _encode(operation_definition(base_url))

    async def assess(call: Call) -> Answer:
        language = choose_language(call.header(b"accept-language"), house.settings.language)

        body = await assess_bundle(
            house,
            "assess",
            call,
            bundle=lambda _: call.body,
            encode=parameters_in(language),
            language=language,
        )
        return Answer(body, media_type=FHIR_JSON, headers=((b"content-language", language.encode()),))

    async def metadata(_: Call) -> Answer:
        return Answer(metadata_json, media_type=FHIR_JSON)

    async def definition(_: Call) -> Answer:
        return Answer(definition_json, media_type=FHIR_JSON)

    return [
        Route("/fhir/$assess", Endpoint(assess, "POST")),
        Route("/fhir/metadata", Endpoint(metadata, "GET")),
        Route(ASSESS_PATH, Endpoint(definition, "GET")),
    ]
