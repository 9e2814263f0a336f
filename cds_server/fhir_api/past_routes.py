"""`GET /fhir/RiskAssessment/{id}`: a past decision, by the id of its audit event.

What reads it is imported and made at the first call: most workers are never asked.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.keys import DataKeys
from cds_server.http import Answer, Call, Endpoint
from cds_server.rare.store import EnrolmentStore
from cds_server.state import House

if TYPE_CHECKING:
    from cds_server.fhir_api.past_decisions import PastDecisions


def routes(
    house: House, keys: Callable[[], DataKeys], archive: BundleArchive, cases: EnrolmentStore
) -> list[BaseRoute]:
    """The route of this slice; `keys` gives the patients' data keys when they are first needed."""
    reading: list[PastDecisions] = []

    async def read(call: Call) -> Answer:
        if not reading:
            from cds_server.fhir_api.past_decisions import PastDecisions  # noqa: PLC0415 when asked

            reading.append(PastDecisions(house, keys(), archive, cases))
        return await reading[0].read(call, call.parameter("id"))

    return [Route("/fhir/RiskAssessment/{id}", Endpoint(read, "GET"))]
