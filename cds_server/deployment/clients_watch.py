"""Takes a changed file of trusted clients in use while the server answers.

Checked as at the start; one that does not hold changes nothing but what `/health/ready`, the metrics, the
log and the audit trail say, and is looked at again until it holds (a file it names may be what is missing).
Each worker process looks for itself; what they notice is recorded once.
"""

import asyncio
import time

import structlog

from cds_server.audit import Access, AuditUnavailable
from cds_server.audit.settings_change import client_changes, clients_refused
from cds_server.auth.clients import ClientsFileInvalid, TrustedClients, load_clients
from cds_server.auth.outbound import Outbound
from cds_server.state import ClientsRefused, House
from cds_server.tasks import cancelled

_log = structlog.get_logger(__name__)
_SETTLING = 1.0
"""Seconds without a change after which a copy counts as complete (half the interval, if that is less)."""
_LETTING_GO = 60.0
"""Seconds after which no call can still be fetching keys over a connection that was replaced."""
_MOST_SAID = 20


class ClientsWatch:
    """The watcher of one process, for the `house`'s clients."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._path = house.settings.trusted_clients
        self._every = house.settings.clients_reload_seconds
        self._task: asyncio.Task[None] | None = None
        self._said: list[str] = []
        self._owed: list[Access] = []
        self._untold: TrustedClients | None = None
        self._retired: list[tuple[float, Outbound]] = []

    async def start(self) -> None:
        """Record what was changed since the last start, and begin to look.

        Raises:
            AuditUnavailable: the change cannot be recorded.
        """
        house = self._house
        await house.trail.record_all(self._changes(house.clients))
        if self._path is not None and self._every:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        await cancelled(self._task)
        for _, outbound in self._retired:
            await outbound.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 the task must live on: nobody would be removed after its end
                _log.error("clients.not_looked_at", error=type(error).__name__)

    async def _look(self) -> None:
        house = self._house
        await self._tell()
        await self._record([])
        await self._let_go()
        if await asyncio.to_thread(house.clients.current) and house.clients_refused is None:
            return
        await self._settled()
        assert self._path is not None  # noqa: S101 there is no task without one
        try:
            found = await asyncio.to_thread(load_clients, self._path, house.clients)
        except ClientsFileInvalid as fault:
            await self._refuse(fault.faults)
            return
        before, house.clients = house.clients, found
        news = before.described() != found.described() or house.clients_refused is not None
        house.clients_refused, self._said = None, []
        house.metrics.clients_refused.set(0)
        kept = set(found.outbounds.values())
        now = time.monotonic()
        self._retired += [(now, one) for one in before.outbounds.values() if one not in kept]
        if news:
            _log.info("clients.loaded", clients=len(found.clients), before=len(before.clients))
        self._untold = found
        await self._tell()

    async def _settled(self) -> None:
        """Returns when nobody is writing the files any more: half of one could hold, and be half the list."""
        clients = self._house.clients
        found = await asyncio.to_thread(clients.prints)
        while True:
            await asyncio.sleep(min(_SETTLING, self._every / 2))
            later = await asyncio.to_thread(clients.prints)
            if later == found:
                return
            found = later

    async def _refuse(self, faults: list[str]) -> None:
        house = self._house
        if faults == self._said:
            return
        self._said = faults
        since = house.clients_refused.since if house.clients_refused is not None else house.clock()
        house.clients_refused = ClientsRefused(len(faults), since)
        house.metrics.clients_refused.set(1)
        _log.error("clients.refused", faults=faults[:_MOST_SAID], kept=len(house.clients.clients))
        await self._record(
            await asyncio.to_thread(
                clients_refused, house.settings, faults, house.pseudonymiser, house.clock()
            )
        )

    async def _tell(self) -> None:
        """Record what changed; what fails (a full disk) is tried again at the next look."""
        if self._untold is not None:
            found = await asyncio.to_thread(self._changes, self._untold)
            self._untold = None
            await self._record(found)

    def _changes(self, clients: TrustedClients) -> list[Access]:
        house = self._house
        return client_changes(
            house.settings,
            clients.described(),
            house.pseudonymiser,
            house.clock(),
            current=clients.current,
        )

    async def _record(self, accesses: list[Access]) -> None:
        """Record these, and those that could not be recorded before."""
        self._owed += accesses
        if not self._owed:
            return
        try:
            await self._house.trail.record_all(self._owed)
        except AuditUnavailable:
            _log.error("clients.not_recorded", events=len(self._owed))
        else:
            self._owed = []

    async def _let_go(self) -> None:
        now = time.monotonic()
        late = [one for since, one in self._retired if now - since > _LETTING_GO]
        self._retired = [(since, one) for since, one in self._retired if one not in late]
        for outbound in late:
            await outbound.close()
