"""The SMART launch as a protocol: begin at an EHR, come back, become a session, renew, end.

SMART App Launch 2.2 (EHR launch and standalone launch, confidential client, PKCE S256) with OpenID
Connect for who logged in, and RFC 9207 and 9700 against mix-up.  HTTP, cookies and pages are
`cds_server.smart.endpoints`' business.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlencode, urlsplit

import msgspec
import structlog

from cds_server.auth.outbound import Outbound, ServerUnreachable, TokenRefused
from cds_server.auth.principal import Principal
from cds_server.auth.signed_tokens import TokenInvalid
from cds_server.smart.discovery import Discovery, LaunchConfiguration, for_launch
from cds_server.smart.ehrs import Ehr, Ehrs
from cds_server.smart.grants import Grants, Tokens
from cds_server.smart.identity import NotAPractitioner, identify
from cds_server.smart.keys import ClientKeys
from cds_server.smart.stores import Found, Launch, Session, Stores, new_secret

_log = structlog.get_logger(__name__)
_WAIT_STEPS, _WAIT_SECONDS = 40, 0.25


class LaunchRefused(Exception):
    """A launch does not become a session.

    `category` is one of ours, for log and audit.  `told` is what the person is told: ``unknown`` (no such
    EHR here), ``broken`` (start again), ``denied`` (the EHR said no), ``unreachable`` or ``role``.
    """

    def __init__(self, category: str, told: str = "broken") -> None:
        super().__init__(category)
        self.category = category
        self.told = told


class AccessEnded(Exception):
    """The session's access token has expired and cannot be renewed: launch again."""


class Begun(msgspec.Struct, frozen=True):
    """Where to send the browser, and what to leave in it."""

    url: str
    state: str
    browser: str

    def __repr__(self) -> str:
        return "<Begun>"


class Returned(msgspec.Struct, frozen=True):
    """What the browser brought back to the callback: its parameters, each at most once."""

    state: str
    code: str | None
    error: bool
    issuer: str | None
    path: str

    def __repr__(self) -> str:
        return "<Returned>"


class Smart:
    """Launches and sessions of one server."""

    def __init__(
        self,
        *,
        ehrs: Ehrs,
        base_url: str,
        outbound: Outbound,
        discovery: Discovery,
        grants: Grants,
        stores: Stores,
        keys: ClientKeys,
        now: Callable[[], datetime],
    ) -> None:
        self.ehrs = ehrs
        self.keys = keys
        self.stores = stores
        self.base_url = base_url
        self._outbound = outbound
        self._discovery = discovery
        self._grants = grants
        self._now = now

    async def close(self) -> None:
        """Close all connections."""
        await self._outbound.close()
        await self.stores.close()

    async def begin(self, iss: str, launch: str | None) -> Begun:
        """Begin a launch at the EHR of `iss`: an EHR launch when it gave a `launch`, else a standalone one.

        Raises:
            LaunchRefused: the EHR is not registered (then nothing was asked of anybody), or cannot be used.
        """
        ehr = self.ehrs.by_iss(iss)
        if ehr is None or not ehr.client_id or (launch is None and not ehr.standalone):
            raise LaunchRefused("iss-not-registered", "unknown")
        configuration = await self._configuration(ehr)
        scope = ehr.scope if launch is not None else ehr.standalone_scope
        state, browser, verifier, nonce = (new_secret() for _ in range(4))
        parameters = {
            "response_type": "code",
            "client_id": ehr.client_id,
            "redirect_uri": self._redirect_uri(ehr),
            "scope": scope,
            "state": state,
            "aud": ehr.iss,
            "nonce": nonce,
            "code_challenge": _s256(verifier),
            "code_challenge_method": "S256",
        }
        if launch is not None:
            parameters["launch"] = launch
        await self.stores.add_launch(state, browser, Launch(ehr.name, nonce, verifier, scope))
        endpoint = configuration.authorization_endpoint
        joint = "&" if urlsplit(endpoint).query else "?"
        return Begun(f"{endpoint}{joint}{urlencode(parameters)}", state, browser)

    async def finish(self, returned: Returned, browser: str) -> tuple[str, Session]:
        """Turn what came back into a new session; returns its id (never one that existed before).

        Raises:
            LaunchRefused: anything does not hold.  The launch is used up all the same.
        """
        launch = await self.stores.take_launch(returned.state, browser)
        if launch is None:
            raise LaunchRefused("state")
        ehr = self.ehrs.by_name(launch.ehr)
        if ehr is None or returned.path != ehr.callback_path:
            raise LaunchRefused("callback-of-another-ehr")
        configuration = await self._configuration(ehr)
        if returned.issuer != configuration.issuer and (
            returned.issuer is not None or configuration.says_issuer
        ):
            raise LaunchRefused("issuer-mix-up")  # RFC 9207, 2.4
        if returned.error or not returned.code:
            raise LaunchRefused("denied-by-ehr", "denied")
        tokens = await self._trade(ehr, configuration, returned.code, launch)
        try:
            person = await identify(
                tokens.id_token,
                self._discovery.keys(ehr),
                ehr=ehr,
                issuer=configuration.issuer,
                nonce=launch.nonce,
                access_token=tokens.access_token,
                now=self._now(),
            )
        except TokenInvalid as fault:
            raise LaunchRefused(f"id-token-{fault.category}") from None
        except NotAPractitioner:
            raise LaunchRefused("not-a-practitioner", "role") from None
        except ServerUnreachable as fault:
            _log.warning("smart.ehr_unreachable", ehr=ehr.name, failure=str(fault))
            raise LaunchRefused("keys-unreachable", "unreachable") from None
        # The id token has done its work; what is kept is what is used later.
        kept = msgspec.structs.replace(tokens, id_token=None)
        session = Session(ehr.name, person, kept, launch.scope, csrf=new_secret())
        return await self.stores.add_session(session), session

    def principal(self, session: Session) -> Principal | None:
        """The session's person as a caller; `None` when its EHR is no longer registered."""
        ehr = self.ehrs.by_name(session.ehr)
        if ehr is None:
            return None
        person = session.person
        return Principal(
            "user", person.subject, person.issuer, ehr.granted_roles(), fhir_user=person.fhir_user
        )

    async def current(self, found: Found) -> Session:
        """The session with an access token that is good for now, renewed when it has to be.

        Of several callers and processes one renews (an EHR may take a refresh token only once); the
        others wait for what it stores.

        Raises:
            AccessEnded: it has expired, and the EHR gives no other.
        """
        session = found.session
        for _ in range(_WAIT_STEPS):
            if session.tokens.due > self._now():
                return session
            if session.tokens.refresh_token is None:
                break
            if await self.stores.claim_refresh(found.digest):
                return await self._renew(found.digest, session)
            await asyncio.sleep(_WAIT_SECONDS)
            stored = await self.stores.by_digest(found.digest)
            if stored is None:
                raise AccessEnded
            session = stored
        if session.tokens.expires > self._now():
            return session
        raise AccessEnded

    async def _renew(self, digest: str, session: Session) -> Session:
        renewed: Session | None = None
        try:
            # Another process may have renewed it between our look and our turn.
            session = await self.stores.by_digest(digest) or session
            if session.tokens.due > self._now():
                return session
            ehr = self.ehrs.by_name(session.ehr)
            if ehr is None:
                raise AccessEnded
            configuration = await for_launch(self._discovery, ehr)
            tokens = await self._grants.by_refresh(
                ehr, configuration.token_endpoint, session.tokens, self._now()
            )
            renewed = msgspec.structs.replace(session, tokens=tokens)
            return renewed
        except (TokenRefused, ServerUnreachable) as fault:
            _log.warning("smart.not_renewed", ehr=session.ehr, failure=str(fault))
            if session.tokens.expires > self._now():
                return session
            raise AccessEnded from None
        finally:
            await self.stores.end_refresh(digest, renewed)

    async def logout(self, identity: str, session: Session) -> None:
        """End a session here at once, then tell the EHR that its tokens are no longer needed."""
        await self.stores.end_session(identity)
        ehr = self.ehrs.by_name(session.ehr)
        if ehr is None:
            return
        try:
            endpoint = (await for_launch(self._discovery, ehr)).revocation_endpoint
            if endpoint is not None:
                token = session.tokens.refresh_token or session.tokens.access_token
                await self._grants.revoke(ehr, endpoint, token, self._now())
        except ServerUnreachable as fault:
            _log.warning("smart.not_revoked", ehr=ehr.name, failure=str(fault))

    async def _configuration(self, ehr: Ehr) -> LaunchConfiguration:
        try:
            return await for_launch(self._discovery, ehr)
        except ServerUnreachable as fault:
            _log.warning("smart.ehr_unusable", ehr=ehr.name, failure=str(fault))
            raise LaunchRefused("ehr-unusable", "unreachable") from None

    async def _trade(self, ehr: Ehr, configuration: LaunchConfiguration, code: str, launch: Launch) -> Tokens:
        try:
            return await self._grants.by_code(
                ehr,
                configuration.token_endpoint,
                code=code,
                verifier=launch.verifier,
                redirect_uri=self._redirect_uri(ehr),
                now=self._now(),
            )
        except TokenRefused as fault:
            _log.warning("smart.code_refused", ehr=ehr.name, code=fault.code)
            raise LaunchRefused("code-refused") from None
        except ServerUnreachable as fault:
            _log.warning("smart.ehr_unreachable", ehr=ehr.name, failure=str(fault))
            raise LaunchRefused("token-endpoint", "unreachable") from None

    def _redirect_uri(self, ehr: Ehr) -> str:
        return f"{self.base_url}{ehr.callback_path}"


def _s256(verifier: str) -> str:
    """The PKCE challenge of a verifier (RFC 7636, 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
