"""Callers who have not proven who they are, limited by the address they come from.

Many may share an address: an EHR, and somebody behind the same gateway who sends rubbish.  Who is right can
only be told by checking, so an address that has used up its failures is not shut out.  What costs nothing
to see (no credentials, claims that cannot hold) is refused at once; what has to be computed (a signature) or
looked up (a session) waits its turn in a lane that takes a bounded share of the process's time.  A connection
over which somebody has proven himself passes the lane by until something fails on it: it is nobody else's.

Memory is bounded: the counts are a file of fixed size for all processes (`rates`), apart from that of known
callers, who could otherwise be pushed out of it; the lane and the connections have limits of their own.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cds_server.auth.addresses import is_loopback, neighbourhood
from cds_server.auth.rates import Rates
from cds_server.errors import TooManyRequests

SHARE = 0.25
"""Of a process's time, at most, for checking what comes from addresses that have used up their failures."""
MOST_WAITING = 256
MOST_WAITING_OF_ONE = 64
_MOST_CONNECTIONS = 4096

Connection = tuple[str, int]
"""Address and port at the other end of a socket."""


class Unproven:
    """The limits of one process; the counts are those of all processes.

    Args:
        rates: a file of its own.
        per_minute: failures of one address; also, apart, starts of what costs much and is public.
        anonymous_per_minute: calls of one address that nobody has to prove anything for.
    """

    def __init__(self, rates: Rates, *, per_minute: int, anonymous_per_minute: int) -> None:
        self._rates = rates
        self._per_minute = per_minute
        self._anonymous_per_minute = anonymous_per_minute
        self._proven: OrderedDict[Connection, None] = OrderedDict()
        self._lane = asyncio.Lock()
        self._free_at = 0.0
        self._waiting: Counter[str] = Counter()

    def failed(self, network: str | None, connection: Connection | None) -> int:
        """Count a failure; the seconds to wait when the address has used up its own, else 0."""
        if connection is not None:
            self._proven.pop(connection, None)
        return self._rates.take(_name("failed", network), self._per_minute)

    def proved(self, connection: Connection | None) -> None:
        """Remember that somebody proved himself over a connection."""
        if connection is not None:
            self._proven[connection] = None
            self._proven.move_to_end(connection)
            if len(self._proven) > _MOST_CONNECTIONS:
                self._proven.popitem(last=False)

    def started(self, path: str, network: str | None) -> int:
        """Count the start of something public that costs much; the seconds to wait, else 0."""
        return self._rates.take(_name(path, network), self._per_minute)

    def anonymous(self, network: str | None) -> int:
        """Count a call that needs no proof; the seconds to wait, else 0.  This machine is not limited."""
        if network is not None and is_loopback(network):
            return 0
        return self._rates.take(_name("anonymous", network), self._anonymous_per_minute)

    @asynccontextmanager
    async def turn(self, network: str | None, connection: Connection | None) -> AsyncIterator[None]:
        """Around a check that costs something: at once, or in the lane where the address has failed much.

        Raises:
            TooManyRequests: the lane is full.
        """
        if connection in self._proven or not self._rates.wait(_name("failed", network), self._per_minute):
            yield
            return
        peer = neighbourhood(network) or ""
        if self._waiting[peer] >= MOST_WAITING_OF_ONE or self._waiting.total() >= MOST_WAITING:
            raise TooManyRequests(1)
        self._waiting[peer] += 1
        try:
            async with self._lane:
                await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
                began = time.monotonic()
                try:
                    yield
                finally:
                    ended = time.monotonic()
                    self._free_at = ended + (ended - began) * (1 / SHARE - 1)
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:
                del self._waiting[peer]

    def close(self) -> None:
        """Let go of the counts' file."""
        self._rates.close()


def _name(what: str, network: str | None) -> str:
    return f"{what} {neighbourhood(network)}"
