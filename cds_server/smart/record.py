"""Logins, logouts and refused launches in the audit trail."""

import structlog

from cds_server.audit import Access, AuditUnavailable, new_id
from cds_server.audit.events import OWN_APP
from cds_server.authorities import UNNAMED, of_reference
from cds_server.http import Call
from cds_server.smart.service import LaunchRefused
from cds_server.smart.stores import Session
from cds_server.state import House

_log = structlog.get_logger(__name__)


class Recorder:
    """Writes what happens at the app's door."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def login(self, call: Call, session: Session) -> None:
        """A person came in.

        Raises:
            AuditUnavailable: it cannot be recorded; then nobody comes in.
        """
        house = self._house
        patient = session.tokens.patient
        named = house.authority_names.keep(self._server(session) if patient is not None else UNNAMED)
        await house.trail.record_all((self._access(call, session, "login"), *named.records))
        house.authority_names.confirm(named)
        _log.info("smart.login", ehr=session.ehr, request_id=call.request_id)

    async def logout(self, call: Call, session: Session) -> None:
        """A person went.  What cannot be recorded does not keep the session open."""
        await self._if_possible(self._access(call, session, "logout"))
        _log.info("smart.logout", ehr=session.ehr, request_id=call.request_id)

    async def refused(self, call: Call, refusal: LaunchRefused) -> None:
        """A launch, callback or form did not hold; that stays the answer when it cannot be recorded."""
        _log.warning("smart.refused", category=refusal.category, request_id=call.request_id)
        await self._house.refusals.record(
            Access(
                event_id=new_id(),
                recorded=self._house.clock(),
                activity="authentication-failed",
                service="smart",
                status=401,
                reason=refusal.category,
                network=call.network,
                request=call.request_id or None,
            )
        )

    def _access(self, call: Call, session: Session, activity: str) -> Access:
        house = self._house
        principal = house.smart.service.principal(session)
        patient = session.tokens.patient
        user = of_reference(session.person.fhir_user)
        server = self._server(session)
        return Access(
            event_id=new_id(),
            recorded=house.clock(),
            activity=activity,
            service="smart",
            client=f"{OWN_APP}{session.ehr}",
            user=house.pseudonymiser.pseudonym("user", user.value, user.authority),
            roles=tuple(sorted(principal.roles)) if principal is not None else (),
            purpose="TREAT",
            network=call.network,
            request=call.request_id or None,
            patient=None if patient is None else house.pseudonymiser.pseudonym("patient", patient, server),
        )

    def _server(self, session: Session) -> str:
        """The FHIR server of a session's patient; that of its user, when the site has dropped that EHR."""
        ehr = self._house.smart.service.ehrs.by_name(session.ehr)
        return ehr.base.url if ehr is not None else of_reference(session.person.fhir_user).authority

    async def _if_possible(self, access: Access) -> None:
        try:
            await self._house.trail.record(access)
        except AuditUnavailable:
            _log.error("smart.not_recorded", activity=access.activity)
