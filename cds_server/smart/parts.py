"""The SMART parts of a running server, made from its settings."""

from dataclasses import dataclass

from cds_server.auth.outbound import Outbound
from cds_server.clock import Clock
from cds_server.privacy import Cipher
from cds_server.settings import Settings
from cds_server.smart.cookies import Cookies
from cds_server.smart.discovery import Discovery
from cds_server.smart.ehrs import registered
from cds_server.smart.grants import ClientProof, Grants
from cds_server.smart.keys import ClientKeys
from cds_server.smart.service import Smart
from cds_server.smart.session_caller import SessionCaller
from cds_server.smart.stores import Stores


@dataclass(frozen=True, slots=True)
class SmartParts:
    """Launches and sessions, the cookies that carry them, and sessions as callers."""

    service: Smart
    cookies: Cookies
    caller: SessionCaller

    async def close(self) -> None:
        """Close all connections."""
        await self.service.close()


def smart_parts(settings: Settings, cipher: Cipher, clock: Clock) -> SmartParts:
    """The parts for a site's settings; without registered EHRs nobody can launch.

    Raises:
        EhrsInvalid: the file of EHRs does not hold.
        KeyMaterialInvalid: a key file does not hold.
        OSError: the key directory cannot be written.
    """
    ehrs = registered(settings)
    keys = ClientKeys(settings.var_dir / "keys")
    by_key = [ehr for ehr in ehrs.entries if ehr.client_id and ehr.client_auth == "private_key_jwt"]
    keys.ensure(
        {*(ehr.algorithm for ehr in by_key), *(e.backend.algorithm for e in ehrs.entries if e.backend)}
    )
    outbound = Outbound(ca_file=settings.fhir_ca_file)
    stores = Stores(
        settings.database_url,
        cipher,
        now=clock,
        longest=settings.smart_session_hours,
        idle=settings.smart_idle_minutes,
    )
    service = Smart(
        ehrs=ehrs,
        base_url=settings.base_url,
        outbound=outbound,
        discovery=Discovery(outbound),
        grants=Grants(outbound, ClientProof(keys)),
        stores=stores,
        keys=keys,
        now=clock,
    )
    cookies = Cookies(secure=settings.base_url.startswith("https://"))
    return SmartParts(service, cookies, SessionCaller(service, cookies))
