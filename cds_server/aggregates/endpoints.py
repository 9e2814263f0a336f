"""`GET /api/v1/aggregates?by=severity&from=2026-10&to=2026-11&epsilon=1`."""

from datetime import datetime
from urllib.parse import parse_qs

import msgspec
from starlette.routing import BaseRoute, Route

from cds_server.aggregates.answering import answer
from cds_server.aggregates.ledger import BudgetSpent
from cds_server.aggregates.noise import NoiseMissing
from cds_server.aggregates.questions import Question
from cds_server.audit.access import of_call
from cds_server.errors import RequestMalformed, Spent, Unsupported
from cds_server.http import Answer, Call, Endpoint
from cds_server.state import House

DEFAULT_EPSILON = 1.0


def routes(house: House) -> list[BaseRoute]:
    """The route of this slice."""

    async def aggregates(call: Call) -> Answer:
        now = house.clock()
        question = _question(call, now)
        try:
            found = await answer(house.engine, house.settings.aggregate_epsilon, question, now)
        except BudgetSpent as fault:
            raise Spent(f"the privacy budget of {fault.month} has {fault.left:g} left") from None
        except NoiseMissing as fault:
            raise Unsupported(f"aggregates need {fault}") from None
        facts = (
            ("by", found.by),
            ("from", found.first),
            ("to", found.last),
            ("epsilon", f"{found.epsilon:g}"),
        )
        await house.trail.record(of_call(house, call, "aggregates-read", service="aggregates", detail=facts))
        return Answer(msgspec.json.encode(found))

    return [Route("/api/v1/aggregates", Endpoint(aggregates, "GET"))]


def _question(call: Call, now: datetime) -> Question:
    try:
        given = parse_qs(call.scope.get("query_string", b"").decode("latin-1"), max_num_fields=20)
    except ValueError:
        raise RequestMalformed("expected by, from, to and epsilon") from None
    known = {name: values[-1] for name, values in given.items() if name in ("by", "from", "to", "epsilon")}
    try:
        epsilon = float(known.get("epsilon", DEFAULT_EPSILON))
    except ValueError:
        raise RequestMalformed("expected a number from 0.01 to 4", "epsilon") from None
    first = known.get("from", known.get("to", now.strftime("%Y-%m")))
    return Question.of(known.get("by", ""), first, known.get("to", first), epsilon, now)
