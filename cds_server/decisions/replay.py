"""Replays: is a past decision what its inputs and the model of that day give?

Answers with one of three: identical to the byte, different (and where, and what else is not as it was), or
not to be had (and why).  Nothing of the patient is in the result unless its values are asked for.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from cds_server.decisions.differences import Difference, differences
from cds_server.decisions.opening import NoReplay, Opener
from cds_server.decisions.past import PastKnowledge
from cds_server.decisions.reasons import Reason
from cds_server.decisions.recompute import recompute
from cds_server.decisions.shelf import Shelf
from cds_server.decisions.software import software
from cds_server.decisions.stored import Circumstances
from cds_server.errors import refusal_for
from cds_server.state import Knowledge


class Replay(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one replay; `changed` names what is not as it was: software, knowledge, model."""

    event_id: str
    result: Literal["identical", "differs", "unavailable"]
    reason: Reason | None = None
    detail: str = ""
    service: str = ""
    recorded: str = ""
    bundle: str | None = None
    changed: dict[str, tuple[str, str]] = {}
    differences: tuple[Difference, ...] = ()
    patient: str | None = None


class Replayer:
    """Replays decisions one after the other, each with the knowledge it was made with.

    With `always` every decision is computed with that knowledge, whatever it was made with: what would be
    answered today.
    """

    def __init__(
        self,
        shelf: Shelf,
        opener: Opener,
        past: PastKnowledge,
        *,
        always: Knowledge | None = None,
    ) -> None:
        self._shelf = shelf
        self._always = always
        self._opener = opener
        self._past = past

    async def replay(self, event_id: str) -> Replay:
        """Replay the decision of an audit event."""
        event = await self._shelf.decision(event_id)
        if event is None:
            return Replay(event_id, "unavailable", "not-found")
        begun = Replay(
            event_id,
            "unavailable",
            service=event.service,
            recorded=event.recorded.isoformat(timespec="milliseconds"),
            patient=event.patient,
        )
        try:
            stored = await self._opener.stored(event)
            knowledge = self._always or self._past.knowledge(stored.circumstances)
        except NoReplay as fault:
            return replace(begun, reason=fault.reason, detail=fault.detail)
        then = stored.circumstances
        begun = replace(begun, bundle=then.bundle, changed=_changed(then, knowledge))
        try:
            answer = await recompute(stored, event_id, knowledge)
        except Exception as error:  # noqa: BLE001 that this software fails at what was answered is the finding
            told = type(refusal_for(error) or error).__name__
            return replace(begun, result="differs", reason="fails", detail=told)
        found = differences(stored.answer, answer.body)
        return replace(begun, result="differs" if found else "identical", differences=found)


def _changed(then: Circumstances, knowledge: Knowledge) -> dict[str, tuple[str, str]]:
    engine = knowledge.engine
    pairs = {
        "software": (then.software, software()),
        "model": (then.model, engine.model_id),
        "knowledge": (then.knowledge, engine.knowledge_id),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
