"""The three CDS Hooks paths."""

import msgspec
from starlette.routing import BaseRoute, Route

from cds_server.audit.access import TREATMENT, caller
from cds_server.cds_hooks.feedback import decode_feedback
from cds_server.cds_hooks.service import HookCalls
from cds_server.errors import ServiceUnknown
from cds_server.http import Answer, Call, Endpoint
from cds_server.language import choose_language
from cds_server.state import House
from hooks.services import BY_ID, DISCOVERY_JSON, Service


def routes(house: House) -> list[BaseRoute]:
    """The routes of this slice."""
    calls = HookCalls(house)
    default = house.settings.language

    async def discover(_: Call) -> Answer:
        return Answer(DISCOVERY_JSON)

    async def answer(call: Call) -> Answer:
        service = _service(call)
        language = choose_language(call.header(b"accept-language"), default)
        body = await calls.answer(service, call, language, call.principal.client)
        return Answer(body, headers=((b"content-language", language.encode()),))

    async def feedback(call: Call) -> Answer:
        service = _service(call)
        items = decode_feedback(call.body)
        who = caller(house, call)
        await house.feedback.record(service.id, who.client, items, caller=who, purpose=TREATMENT)
        for item in items:
            house.metrics.feedback.labels(service.id, item.outcome).inc()
        return Answer(msgspec.json.encode({"received": len(items)}))

    return [
        Route("/cds-services/{service_id}", Endpoint(answer, "POST")),
        Route("/cds-services", Endpoint(discover, "GET")),
        Route("/cds-services/{service_id}/feedback", Endpoint(feedback, "POST")),
    ]


def _service(call: Call) -> Service:
    service = BY_ID.get(call.parameter("service_id"))
    if service is None:
        raise ServiceUnknown("there is no CDS service of that id; see /cds-services")
    return service
