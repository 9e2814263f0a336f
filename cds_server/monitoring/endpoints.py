"""`/health/live`, `/health/ready` and `/metrics`."""

from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route

from cds_server.errors import Unavailable
from cds_server.http import Answer, Call, Endpoint
from cds_server.monitoring.metrics import CONTENT_TYPE
from cds_server.state import House


def routes(house: House) -> list[BaseRoute]:
    """The routes of this slice."""

    async def live(_: Call) -> Answer:
        """The process answers; nothing else is asked."""
        return Answer(b'{"status":"live"}')

    async def ready(_: Call) -> Answer:
        """Ready while an answer could be made durable: in the database, or else in the spool."""
        state = house.trail.state()
        if not state.database_up and not state.spool_writable:
            raise Unavailable("answers cannot be recorded: neither the database nor the audit spool works")
        body: dict[str, Any] = {
            "status": "ready",
            "audit": "database" if state.database_up else "spool",
            "spool_depth": state.spool_depth,
            "model": house.knowledge.engine.model_id,
            "knowledge": house.knowledge.engine.knowledge_id,
            "bundle": house.knowledge.bundle or "none",
        }
        if house.knowledge.engine.rare is not None:
            body["enrolled"] = house.enrolled
        if house.refused is not None:
            # Still ready: the model in use goes on answering.
            body["bundle_refused"] = house.refused
        if house.clients_refused is not None:
            # Anybody may read this: what is wrong, and with whom, is in the log.
            body["clients_refused"] = house.clients_refused
        return Answer(msgspec.json.encode(body))

    async def metrics(_: Call) -> Answer:
        house.metrics.audit(house.trail.state())
        return Answer(house.metrics.text(), media_type=CONTENT_TYPE)

    return [
        Route("/health/live", Endpoint(live, "GET")),
        Route("/health/ready", Endpoint(ready, "GET")),
        Route("/metrics", Endpoint(metrics, "GET")),
    ]
