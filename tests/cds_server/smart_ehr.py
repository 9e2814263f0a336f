"""An EHR of the tests' own: a real authorization server (authlib) with a small FHIR server beside it.

SMART App Launch with PKCE, OpenID Connect id tokens, both client authentications, refresh, revocation and
client credentials, over HTTP on a port of its own.  A test may make it misbehave; left alone it is strict.
"""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus, urlencode

import httpx
import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, InvalidScopeError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, ClientCredentialsGrant, RefreshTokenGrant
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9207 import IssuerParameter
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet
from server_helpers import example
from werkzeug.serving import WSGIRequestHandler, make_server

from cds_server.cds_hooks.request import AS_OF

SECRET = "s3cret-of:the client"
APP, JOBS = "cds-app", "cds-jobs"
PATIENT = example("sepsis")["prefetch"]["patient"]["id"]
FHIR_USER = "Practitioner/dr-quinta"
USER_NAME = "Dra. Quinta Ejemplo"

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")

SpoilToken = Callable[[dict[str, Any], dict[str, Any]], None]


@dataclass
class Client(ClientMixin):
    """A registered client."""

    client_id: str
    redirect_uris: list[str]
    auth_method: str
    grants: tuple[str, ...]
    scope: str
    jwks_uri: str = ""

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uris[0]

    def get_allowed_scope(self, scope: str) -> str | None:
        return " ".join(one for one in (scope or "").split() if one in self.scope.split())

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return unquote_plus(client_secret) == SECRET  # RFC 6749, 2.3.1: it comes form-encoded

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == self.auth_method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grants


@dataclass
class Code:
    """An authorization code that was given out."""

    code: str
    client_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str
    code_challenge_method: str
    context: dict[str, Any]
    auth_time: int = field(default_factory=lambda: int(time.time()))

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return self.auth_time

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass
class Token:
    """An access token with its refresh token."""

    access_token: str
    refresh_token: str | None
    client_id: str
    scope: str
    expires: float
    user: str | None = None

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return int(self.expires - time.time())

    def is_expired(self) -> bool:
        return time.time() > self.expires

    def is_revoked(self) -> bool:
        return False

    def get_user(self) -> str | None:
        return self.user


class StandinEhr:
    """The EHR.  `requests` are the method and path of everything it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.key = ECKey.generate_key("P-384", {"kid": "ehr-key-1"})
        self.clients: dict[str, Client] = {}
        self.codes: dict[str, Code] = {}
        self.tokens: list[Token] = []
        self.seen_ids: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.launches: dict[str, dict[str, Any]] = {
            "launch-of-sepsis": {"patient": PATIENT, "encounter": "e-1"}
        }
        self.picked: dict[str, Any] = {"patient": PATIENT}
        self.expires_in = 600
        self.user = FHIR_USER
        self.decides = True
        self.spoil: SpoilToken = lambda header, claims: None
        self.sign: Callable[[dict[str, Any], dict[str, Any]], str] = self._sign
        self.configuration: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.issuer_parameter: str | None = ""
        self.resources = self._resources()

    @property
    def iss(self) -> str:
        return f"{self.url}/fhir"

    @property
    def issuer(self) -> str:
        return self.url

    def register(self, base_url: str, *, auth_method: str = "private_key_jwt", **changes: Any) -> Client:
        """Register the server under test as an app."""
        method = "client_assertion_jwt" if auth_method == "private_key_jwt" else auth_method
        client = Client(
            **{
                "client_id": APP,
                "redirect_uris": [f"{base_url}/smart/callback"],
                "auth_method": method,
                "grants": ("authorization_code", "refresh_token"),
                "scope": "launch launch/patient openid fhirUser online_access patient/*.rs",
                "jwks_uri": f"{base_url}/smart/jwks.json",
                **changes,
            }
        )
        self.clients[client.client_id] = client
        return client

    def register_jobs(self, jwks: dict[str, Any]) -> None:
        """Register a backend service with its public keys given by hand."""
        self.clients[JOBS] = Client(
            JOBS, [], "client_assertion_jwt", ("client_credentials",), "system/*.rs", jwks_uri=""
        )
        self.jobs_keys = jwks

    def told(self) -> list[str]:
        """The paths that were asked."""
        return [path for _, path in self.requests]

    def _sign(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode(header, claims, self.key, algorithms=[header["alg"]])

    @staticmethod
    def _resources() -> list[dict[str, Any]]:
        """The patient of the sepsis example, as if the record were of now, with a name."""
        request = example("sepsis")
        age = datetime.now(UTC) - datetime.fromisoformat(request["extension"][AS_OF]["instant"])

        def later(found: re.Match[str]) -> str:
            return (datetime.fromisoformat(found[0]) + age).isoformat(timespec="seconds")

        prefetch = json.loads(_INSTANT.sub(later, json.dumps(request["prefetch"])))
        found: list[dict[str, Any]] = []
        for value in prefetch.values():
            if value and value["resourceType"] == "Bundle":
                found += [entry["resource"] for entry in value.get("entry", [])]
            elif value:
                found.append(value)
        for one in found:
            if one["resourceType"] == "Patient":
                one["name"] = [{"use": "official", "family": "Prüfling", "given": ["Ada"]}]
        return found


def make_app(ehr: StandinEhr) -> Flask:
    """The EHR as a WSGI application."""
    app = Flask("ehr")
    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    app.config["OAUTH2_TOKEN_EXPIRES_IN"] = dict.fromkeys(
        ("authorization_code", "refresh_token", "client_credentials"), ehr.expires_in
    )

    def save_token(token: dict[str, Any], made: Any) -> None:
        expires = time.time() + token["expires_in"]
        ehr.tokens.append(
            Token(
                token["access_token"],
                token.get("refresh_token"),
                made.client.client_id,
                token.get("scope", ""),
                expires,
                made.user,
            )
        )

    server = AuthorizationServer(app, ehr.clients.get, save_token)
    _add_grants(server, ehr)

    @app.before_request
    def note() -> None:
        ehr.requests.append((request.method, request.path))

    @app.get("/fhir/.well-known/smart-configuration")
    def smart_configuration() -> Response:
        return jsonify(
            {
                "issuer": ehr.issuer,
                "jwks_uri": f"{ehr.url}/jwks",
                "authorization_endpoint": f"{ehr.url}/authorize",
                "token_endpoint": f"{ehr.url}/token",
                "revocation_endpoint": f"{ehr.url}/revoke",
                "code_challenge_methods_supported": ["S256"],
                "grant_types_supported": ["authorization_code", "client_credentials"],
                "authorization_response_iss_parameter_supported": ehr.issuer_parameter is not None,
                "capabilities": ["launch-ehr", "launch-standalone", "sso-openid-connect"],
                **ehr.configuration,
            }
        )

    @app.get("/jwks")
    def jwks() -> Response:
        return jsonify({"keys": [{**ehr.key.as_dict(private=False), "use": "sig"}]})

    @app.get("/authorize")
    def authorize() -> Any:
        if request.args.get("aud") != ehr.iss:
            return Response("wrong aud", 400)
        grant = server.get_consent_grant(end_user=ehr.user)
        return server.create_authorization_response(grant_user=ehr.user if ehr.decides else None, grant=grant)

    @app.post("/token")
    def token() -> Any:
        answer = server.create_token_response()
        if answer.status_code == 200 and ehr.answer:
            body = {**answer.get_json(), **ehr.answer}
            return jsonify({name: value for name, value in body.items() if value is not None})
        return answer

    @app.post("/revoke")
    def revoke() -> Any:
        return server.create_endpoint_response(RevocationEndpoint.ENDPOINT_NAME)

    @app.get("/fhir/<path:path>")
    def fhir(path: str) -> Any:
        if path == "metadata":
            return _fhir(
                {
                    "resourceType": "CapabilityStatement",
                    "fhirVersion": "4.0.1",
                    "software": {"name": "Stand-in"},
                }
            )
        sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not any(one.access_token == sent and not one.is_expired() for one in ehr.tokens):
            return Response("", 401)
        kind, _, identity = path.partition("/")
        found = [one for one in ehr.resources if one["resourceType"] == kind]
        if identity:
            found = [one for one in found if one["id"] == identity]
            return _fhir(found[0]) if found else Response("", 404)
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": len(found)}
        if request.args.get("_summary") != "count":
            category = request.args.get("category")
            if category:
                found = [one for one in found if category in str(one.get("category"))]
            bundle["entry"] = [{"resource": one} for one in found]
        return _fhir(bundle)

    return app


def _fhir(body: dict[str, Any]) -> Response:
    answer = jsonify(body)
    answer.headers["Content-Type"] = "application/fhir+json"
    return answer


def _add_grants(server: AuthorizationServer, ehr: StandinEhr) -> None:
    methods = ["client_secret_basic", "client_assertion_jwt"]

    class CodeGrant(AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = methods

        def save_authorization_code(self, code: str, made: Any) -> None:
            data = made.payload.data
            if "launch" in data:
                context = ehr.launches.get(data["launch"])
                if context is None or "launch" not in made.scope.split():
                    raise InvalidScopeError
            else:
                context = ehr.picked if "launch/patient" in made.scope.split() else {}
            ehr.seen_ids.add(data["nonce"])
            ehr.codes[code] = Code(
                code,
                made.client.client_id,
                made.payload.redirect_uri,
                made.scope,
                data.get("nonce"),
                data["code_challenge"],
                data["code_challenge_method"],
                context,
            )

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            found = ehr.codes.get(code)
            return found if found is not None and found.client_id == client.client_id else None

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del ehr.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> str:
            return ehr.user

        def create_token_response(self) -> Any:
            status, body, headers = super().create_token_response()
            body.update(self.request.authorization_code.context)
            return status, body, headers

    class OnlyS256(CodeChallenge):
        SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    class IdToken(OpenIDCode):
        def exists_nonce(self, nonce: str, made: Any) -> bool:
            return nonce in ehr.seen_ids

        def generate_user_info(self, user: str, scope: str) -> UserInfo:
            return UserInfo(sub="u-1", name=USER_NAME, fhirUser=f"{ehr.iss}/{user}")

        def get_client_claims(self, client: Client) -> dict[str, Any]:
            return {"iss": ehr.issuer, "aud": client.client_id}

        def get_client_algorithm(self, client: Client) -> str:
            return "ES384"

        def resolve_client_private_key(self, client: Client) -> ECKey:
            return ehr.key

        def encode_id_token(self, token: dict[str, Any], made: Any) -> str:
            whole = super().encode_id_token(token, made)
            claims = jwt.decode(whole, ehr.key, algorithms=["ES384"]).claims
            header = {"alg": "ES384", "kid": "ehr-key-1"}
            ehr.spoil(header, claims)
            return ehr.sign(header, claims)

    class Refresh(RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = methods
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
            return next((one for one in ehr.tokens if one.refresh_token == refresh_token), None)

        def authenticate_user(self, refresh_token: Token) -> str:
            return ehr.user

        def revoke_old_credential(self, refresh_token: Token) -> None:
            ehr.tokens.remove(refresh_token)

    class Jobs(ClientCredentialsGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = methods

    class Assertion(JWTBearerClientAssertion):
        def get_audiences(self) -> list[str]:
            return [f"{ehr.url}/token", f"{ehr.url}/revoke"]

        def validate_jti(self, claims: dict[str, Any], jti: str) -> bool:
            if jti in ehr.seen_ids or claims["exp"] > time.time() + 300:
                return False
            ehr.seen_ids.add(jti)
            return True

        def resolve_client_public_key(self, client: Client) -> KeySet:
            document = httpx.get(client.jwks_uri).json() if client.jwks_uri else ehr.jobs_keys
            assert not any("d" in key for key in document["keys"])
            return KeySet.import_key_set(document)

        def process_assertion_claims(self, assertion: str, resolve_key: KeySet) -> Any:
            try:
                token = jwt.decode(assertion, resolve_key, algorithms=["ES384", "RS384"])
            except JoseError:
                raise InvalidClientError from None
            self.verify_claims(token.claims)
            return token.claims

    class Revocation(RevocationEndpoint):
        CLIENT_AUTH_METHODS = methods

        def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
            return next(
                (one for one in ehr.tokens if token_string in (one.access_token, one.refresh_token)), None
            )

        def revoke_token(self, token: Token, made: Any) -> None:
            ehr.tokens.remove(token)

    class Issuer(IssuerParameter):
        def get_issuer(self) -> str | None:
            return ehr.issuer if ehr.issuer_parameter == "" else ehr.issuer_parameter

    server.register_grant(CodeGrant, [OnlyS256(required=True), IdToken(require_nonce=True)])
    server.register_grant(Refresh)
    server.register_grant(Jobs)
    server.register_client_auth_method("client_assertion_jwt", Assertion())
    server.register_endpoint(Revocation)
    server.register_extension(Issuer())


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Nothing: what was asked is in `StandinEhr.requests`."""


@contextmanager
def running(ehr: StandinEhr) -> Iterator[StandinEhr]:
    """Serve the EHR on a free port of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # the tests' servers are on loopback
        server = make_server("127.0.0.1", 0, make_app(ehr), threaded=True, request_handler=_Quiet)
        ehr.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield ehr
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()


def launch_path(ehr: StandinEhr, launch: str | None = "launch-of-sepsis") -> str:
    """The address an EHR opens to launch the app."""
    parameters = {"iss": ehr.iss} | ({"launch": launch} if launch else {})
    return f"/smart/launch?{urlencode(parameters)}"


def invented() -> str:
    """A random value nobody gave out."""
    return secrets.token_urlsafe(32)
