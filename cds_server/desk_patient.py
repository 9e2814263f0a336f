"""Which patient a command at the desk is about: an id, and the system that gave it.

Two EHRs may use one id for different people.  A command that gives out or destroys a patient's data never
guesses between them: where several hold something under an id, it names them and asks.
"""

from dataclasses import dataclass

import typer
from sqlalchemy import select

from cds_server.auth.clients import ClientsFileInvalid, read_entries
from cds_server.authorities import UNNAMED, base_of, client_name
from cds_server.cli_desk import NotDone
from cds_server.db.models_decisions import StoredDecisionRow
from cds_server.decisions.export import server_of
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.opening import NoReplay, Opener
from cds_server.decisions.shelf import Shelf
from cds_server.decisions.subjects import everywhere, in_care
from cds_server.operator import Desk
from cds_server.privacy import is_pseudonym, parts
from cds_server.settings import Settings
from cds_server.smart.ehrs import EhrsInvalid, registered

UNNAMED_SHOWN = "unnamed"


@dataclass(frozen=True, slots=True)
class Whom:
    """A patient as the command line names one; `servers` empty: the one system that holds something."""

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
    """Who is meant: `subjects` (`decisions.subjects`), of which `systems` by name.

    `told` has a pseudonym for each system.  `left` are the systems that hold something under the id and are
    not meant.
    """

    subjects: tuple[str, ...]
    systems: tuple[str, ...]
    told: tuple[str, ...]
    left: tuple[str, ...]


async def find(desk: Desk, whom: Whom, activity: str) -> Found:
    """Who is meant.

    Args:
        activity: what is recorded as refused when that is not clear.

    Raises:
        NotDone: several systems hold something under the id, or a named one holds nothing.
    """
    systems = await _systems(desk, whom.id)
    if whom.servers:
        chosen = [_named(systems, server) for server in whom.servers]
    elif whom.every or len(systems) <= 1:
        chosen = list(systems)
    else:
        told = desk.pseudonymiser.pseudonym("patient", whom.id, UNNAMED)
        await desk.record(activity, patient=told, status=409, result="refused", reason="several-systems")
        raise NotDone(
            f"Patients of {len(systems)} systems have this id, and they may be different people. Name whom "
            "you mean with --server (more than once for several), or say --every-server if they are one "
            f"person:\n{_list(systems)}"
        )
    persons = desk.pseudonymiser.persons("patient", whom.id)
    subjects = [subject for name in chosen for subject in systems[name]]
    if whom.every or not systems:
        # Also what no event tells of yet: a spool may hold it.
        subjects += [*persons, *(everywhere(person) for person in persons)]
    return Found(
        subjects=tuple(dict.fromkeys(subjects)),
        systems=tuple(chosen),
        told=tuple(systems[name][0] for name in chosen) or persons[:1],
        left=tuple(name for name in systems if name not in chosen),
    )


async def hold_of(desk: Desk, whom: Whom, server: str) -> tuple[str | None, str | None]:
    """The authority, or else the pseudonym, that a hold on one system's patient is to be placed on.

    Raises:
        NotDone: nothing is held there under the id, and the site's settings do not name it: a slip would hold
            nobody.
    """
    systems = await _systems(desk, whom.id)
    configured = {name for name in _configured(desk.settings) if name in _forms(server)}
    if configured and not any(name in systems for name in configured):
        return configured.pop(), None
    name = _named(systems, server)
    if is_pseudonym(name):
        return None, name
    return (UNNAMED if name == UNNAMED_SHOWN else name), None


def _forms(server: str) -> tuple[str, ...]:
    """What a text of the command line may be the name of."""
    return (server, base_of(server) or server, client_name(server))


def _named(systems: dict[str, list[str]], server: str) -> str:
    for name in _forms(server):
        if name in systems:
            return name
    for name, subjects in systems.items():
        if is_pseudonym(server) and server in subjects:
            return name
    held = f" These do:\n{_list(systems)}" if systems else ""
    raise NotDone(f"{server} holds nothing under this id.{held}")


def _list(systems: dict[str, list[str]]) -> str:
    return "\n".join(f"  --server {name}" for name in systems)


async def _systems(desk: Desk, patient: str) -> dict[str, list[str]]:
    """The systems that hold something under an id, oldest first; of each the subjects, newest key first.

    A system is called by its name where that can be told, and else by the patient's pseudonym there.
    """
    every = desk.pseudonymiser.all
    known = await in_care(desk.engine, desk.pseudonymiser.persons("patient", patient))
    names = dict.fromkeys(every("patient", patient, UNNAMED), UNNAMED_SHOWN)
    for authority in _configured(desk.settings):
        names |= dict.fromkeys(every("patient", patient, authority), authority)
    found: dict[str, list[str]] = {}
    for subject in known:
        if subject not in names:
            for authority in await _recorded(desk, subject):
                names |= dict.fromkeys(every("patient", patient, authority), authority)
        found.setdefault(names.get(subject, subject), []).append(subject)
    persons = desk.pseudonymiser.persons("patient", patient)
    return {name: sorted(some, key=lambda one: persons.index(parts(one)[0])) for name, some in found.items()}


def _configured(settings: Settings) -> list[str]:
    """The authorities that the site's settings name."""
    found = [base.url for base in settings.fhir_servers.bases]
    try:
        found += [ehr.base.url for ehr in registered(settings).entries]
        if settings.trusted_clients is not None:
            for entry in read_entries(settings.trusted_clients):
                found += entry.fhir_servers
                found += [client_name(f"{entry.issuer}|{tenant}") for tenant in entry.tenants]
                found.append(client_name(entry.issuer))
    except (ClientsFileInvalid, EhrsInvalid) as fault:
        typer.echo(f"Names of systems may be missing: {fault}", err=True)
    return found


async def _recorded(desk: Desk, subject: str) -> list[str]:
    """What the newest kept decision of a subject says of its system."""
    query = (
        select(StoredDecisionRow.event_id)
        .where(StoredDecisionRow.subject == subject)
        .order_by(StoredDecisionRow.recorded.desc())
        .limit(1)
    )
    async with desk.engine.connect() as connection:
        event_id = (await connection.execute(query)).scalar()
    shelf = Shelf(desk.engine)
    decision = await shelf.decision(event_id) if event_id is not None else None
    if decision is None:
        return []
    found = [client_name(decision.client)] if decision.client else []
    try:
        stored = await Opener(shelf, DataKeys(desk.keys.master, now=desk.now)).stored(decision)
    except NoReplay:
        return found
    server = server_of(stored)
    return [*found, server] if server is not None else found
