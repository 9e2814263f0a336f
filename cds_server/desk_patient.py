"""Which patient a command at the desk is about: an id, and the system that gave it.

Two EHRs may use one id for different people.  A command that gives out or destroys a patient's data never
guesses between them: where several hold something under an id, it names them and asks.
"""

from dataclasses import dataclass

from sqlalchemy import select, union_all

from cds_server.authorities import read, shown
from cds_server.cli_desk import NotDone
from cds_server.db.models import Event
from cds_server.db.models_decisions import PatientKeyRow, StoredDecisionRow
from cds_server.operator import Desk
from cds_server.people import People


@dataclass(frozen=True, slots=True)
class Whom:
    """A patient as the command line names one; `servers` empty: the one authority that holds something."""

    patient: str
    servers: tuple[str, ...] = ()
    every: bool = False

    @property
    def id(self) -> str:
        """The bare id; raises `NotDone` for none."""
        found = self.patient.strip().removeprefix("Patient/")
        if not found:
            raise NotDone("The patient's id is empty.")
        return found


@dataclass(frozen=True, slots=True)
class Found:
    """The patient's pseudonyms under all keys, the one of the newest key first."""

    pseudonyms: tuple[str, ...]
    people: People


async def find(desk: Desk, whom: Whom, activity: str) -> Found:
    """The pseudonyms to work on.

    Args:
        activity: what is recorded as refused when it is not clear who is meant.

    Raises:
        NotDone: several authorities hold something under the id, or a named one is not known.
    """
    people = await desk.people()
    if whom.servers:
        chosen = named(people, whom.servers)
    elif whom.every:
        chosen = people.authorities
    else:
        holding = [one for one in people.authorities if await _holds(desk, people.patient(whom.id, one))]
        if len(holding) > 1:
            await desk.record(activity, status=409, result="refused", reason="several-servers")
            raise NotDone(
                f"Patients of {len(holding)} systems have this id, and they may be different people. Name "
                "whom you mean with --server (more than once for several), or say --every-server if they "
                "are one person:\n" + "\n".join(f"  --server {shown(one)}" for one in holding)
            )
        chosen = tuple(holding) or people.authorities
    found = (pseudonym for one in chosen for pseudonym in people.patient(whom.id, one))
    return Found(tuple(found), people)


def named(people: People, servers: tuple[str, ...]) -> tuple[str, ...]:
    """The authorities of those names.  Raises `NotDone` for one that nothing was ever recorded of."""
    wanted = read(servers)
    for given, one in zip(servers, wanted, strict=True):
        if one not in people.authorities:
            known = ", ".join(shown(authority) for authority in people.authorities)
            raise NotDone(f"Nothing was ever recorded of patients of {given}. Known are: {known}.")
    return wanted


async def _holds(desk: Desk, pseudonyms: tuple[str, ...]) -> bool:
    """Whether anything is recorded or kept under one of the pseudonyms."""
    anything = union_all(
        select(Event.event_id.label("found"))
        .where(Event.patient.in_(pseudonyms))
        .limit(1)
        .subquery()
        .select(),
        select(StoredDecisionRow.event_id).where(StoredDecisionRow.subject.in_(pseudonyms)),
        select(PatientKeyRow.key_id).where(PatientKeyRow.subject.in_(pseudonyms)),
    ).limit(1)
    async with desk.engine.connect() as connection:
        return (await connection.execute(anything)).first() is not None
