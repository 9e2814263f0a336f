"""A job's access to an EHR: SMART Backend Services, with a token that is renewed before it runs out.

SMART App Launch 2.2, "Backend Services": client credentials with a signed assertion, ``system/`` scopes.
There is no person behind it, so what a job may read is what the EHR grants the registration.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from cds_server.auth.outbound import TokenRefused
from cds_server.smart.discovery import Discovery
from cds_server.smart.ehrs import Ehr
from cds_server.smart.grants import Grants, Tokens
from fhir_adapters.client import Access


class BackendAccess:
    """Gives `fhir_adapters.client.FhirClient` what it reads an EHR with; one for all of a job's calls.

    Args:
        ehr: with a `backend` registration.
        now: the one clock.
    """

    def __init__(
        self, ehr: Ehr, discovery: Discovery, grants: Grants, *, now: Callable[[], datetime]
    ) -> None:
        self._ehr = ehr
        self._discovery = discovery
        self._grants = grants
        self._now = now
        self._tokens: Tokens | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<BackendAccess {self._ehr.name}>"

    async def access(self) -> Access:
        """Base and token for the next reads; concurrent callers share one request for a token.

        Raises:
            TokenRefused: the EHR said no, or there is no registration.
            ServerUnreachable: no usable answer.
            KeyMaterialInvalid: the site has no key of the registered algorithm.
        """
        return Access(self._ehr.base, (await self.tokens()).access_token)

    async def tokens(self) -> Tokens:
        """The current tokens, with the scope that was granted.  Raises: see `access`."""
        if self._ehr.backend is None:
            raise TokenRefused("unauthorized_client")
        async with self._lock:
            now = self._now()
            if self._tokens is None or now >= self._tokens.due:
                endpoint = (await self._discovery.of(self._ehr)).token_endpoint
                self._tokens = await self._grants.by_credentials(self._ehr, endpoint, now)
            return self._tokens
