"""Access tokens of the site's identity provider, over HTTP, with a provider that is a real server."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir_standin import free_port, serving
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from server_helpers import example
from smart_helpers import Site, site
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from cds_server.auth.outbound import Outbound
from cds_server.auth.principal import Role
from cds_server.auth.users import UserTokenRules, UserTokens
from cds_server.auth.users_roles import RoleRules, RolesInvalid
from cds_server.clock import utc_now
from cds_server.errors import Unauthenticated
from cds_server.settings import Settings
from cds_server.state import Knowledge

AUDIENCE = "https://cds.hospital.example"
ROLES = """
[[role]]
role = "clinician"
scope = "cds.assess"

[[role]]
role = "auditor"
claim = "realm_access.roles"
value = "cds-auditors"

[[role]]
role = "operator"
claim = "https://hospital.example/job"
value = "it"
"""


@dataclass(frozen=True)
class In:
    """A time so many seconds from when the token is made (tests may begin long after they are collected)."""

    seconds: int


class Provider:
    """An identity provider: metadata, keys, and tokens of any kind a test wants."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[ECKey | RSAKey] = [ECKey.generate_key("P-384", {"kid": "k1"})]
        self.metadata: dict[str, Any] = {}
        self.asked: list[str] = []
        self.down = False
        self.redirect: str | None = None
        self.app = Starlette(
            routes=[Route("/.well-known/openid-configuration", self._metadata), Route("/keys", self._keys)]
        )

    async def _metadata(self, request: Request) -> Response:
        self.asked.append("metadata")
        if self.redirect is not None:
            return RedirectResponse(self.redirect)
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.metadata})

    async def _keys(self, request: Request) -> Response:
        self.asked.append("keys")
        if self.down:
            return Response(status_code=503)
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    def token(self, header: dict[str, Any] | None = None, *, key: Any = None, **claims: Any) -> str:
        """An access token; `None` leaves a claim or header out."""
        now = int(time.time())
        made: dict[str, Any] = {
            "iss": self.url,
            "sub": "user-7",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 300,
            "client_id": "console",
            "scope": "openid cds.assess",
            **claims,
        }
        head: dict[str, Any] = {"alg": "ES384", "kid": "k1", "typ": "at+jwt", **(header or {})}
        made |= {name: now + value.seconds for name, value in made.items() if isinstance(value, In)}
        kept = {name: value for name, value in made.items() if value is not None}
        head = {name: value for name, value in head.items() if value is not None}
        signer = key if key is not None else self.keys[0]
        return jwt.encode(head, kept, signer, algorithms=[head["alg"]], default_type=None)


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    with serving(made.app) as url:
        made.url = url
        yield made


@pytest.fixture
def begin(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str, provider: Provider
) -> Iterator[Callable[..., Site]]:
    roles = tmp_path / "roles.toml"
    roles.write_text(ROLES)
    clients = tmp_path / "clients.toml"
    clients.write_text(
        '[[client]]\nname = "ehr"\nissuer = "https://ehr.example"\njku = "https://ehr.example/keys"\n'
    )
    with ExitStack() as stack:

        def start(**changes: Any) -> Site:
            settings = {
                "oidc_issuer": provider.url,
                "oidc_audience": AUDIENCE,
                "oidc_roles": roles,
                "client_auth": "required",
                "trusted_clients": clients,
                "public_base_url": AUDIENCE,
                **changes,
            }
            return stack.enter_context(site(knowledge, tmp_path, sqlite_url, free_port(), **settings))

        yield start


@pytest.fixture
def server(begin: Callable[..., Site]) -> Site:
    return begin()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def assess(server: Site, token: str) -> httpx.Response:
    with server.browser() as client:
        body = {"resourceType": "Bundle", "type": "collection", "entry": []}
        body["entry"] = [{"resource": example("sepsis")["prefetch"]["patient"]}]  # type: ignore[assignment]
        return client.post("/fhir/$assess", json=body, headers=bearer(token))


def test_a_token_with_the_scope_lets_its_user_assess(server: Site, provider: Provider) -> None:
    answer = assess(server, provider.token())
    assert answer.status_code == 200, answer.text
    assert provider.asked == ["metadata", "keys"]
    assess(server, provider.token())
    assert provider.asked == ["metadata", "keys"]  # cached


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT"])
def test_access_tokens_say_that_they_are(server: Site, provider: Provider, typ: str) -> None:
    assert assess(server, provider.token({"typ": typ})).status_code == 200


def test_other_types_need_the_setting(begin: Callable[..., Site], provider: Provider) -> None:
    server = begin(oidc_any_token_type=True)
    assert assess(server, provider.token({"typ": "JWT"})).status_code == 200


def test_a_site_whose_callers_are_people_needs_no_cds_clients(
    begin: Callable[..., Site], provider: Provider
) -> None:
    server = begin(trusted_clients=None)
    assert assess(server, provider.token()).status_code == 200
    with server.browser() as client:
        assert client.get("/cds-services").status_code == 401
        foreign = bearer(provider.token(iss="https://ehr.example"))
        assert client.get("/cds-services", headers=foreign).status_code == 401


def test_a_user_without_the_role_is_known_and_refused(server: Site, provider: Provider) -> None:
    for token in (
        provider.token(scope="openid"),
        provider.token(scope=None),
        provider.token(scope="cds.assessment"),
        provider.token(scope=None, realm_access={"roles": ["cds-auditors"]}),
        provider.token(scope=None, **{"https://hospital.example/job": "it"}),
    ):
        assert assess(server, token).status_code == 403


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"typ": "JWT"}, {}),
        ({"typ": None}, {}),
        ({"typ": "id_token"}, {}),
        ({"kid": "other"}, {}),
        ({}, {"aud": "https://other.example"}),
        ({}, {"aud": []}),
        ({}, {"aud": None}),
        ({}, {"aud": {"a": AUDIENCE}}),
        ({}, {"sub": None}),
        ({}, {"sub": ""}),
        ({}, {"exp": None}),
        ({}, {"exp": In(-31)}),
        ({}, {"exp": In(200_000)}),
        ({}, {"exp": "9999999999"}),
        ({}, {"iat": None}),
        ({}, {"iat": In(300)}),
        ({}, {"nbf": In(300)}),
    ],
)
def test_a_token_that_does_not_hold_is_refused_without_a_reason(
    server: Site, provider: Provider, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    answer = assess(server, provider.token(header, **claims))
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert answer.json()["issue"][0]["diagnostics"] == "authentication is required"


def test_a_token_that_the_provider_did_not_sign(server: Site, provider: Provider) -> None:
    mine = ECKey.generate_key("P-384", {"kid": "k1"})
    public = json.dumps(provider.keys[0].as_dict(private=False)).encode()
    forgeries = [
        provider.token(key=mine),
        provider.token({"alg": "HS256"}, key=OctKey.import_key(public)),
        provider.token({"jwk": mine.as_dict(private=False), "kid": None}, key=mine),
        provider.token()[:-4] + "AAAA",
    ]
    header, _, signature = provider.token().split(".")
    forgeries.append(f"{header}.{provider.token(scope='more').split('.')[1]}.{signature}")
    for token in forgeries:
        assert assess(server, token).status_code == 401


def test_no_setting_can_allow_symmetric_algorithms() -> None:
    for algorithms in ("HS256", "none", "ES384,HS384", ""):
        with pytest.raises(ValueError, match="CDS_OIDC_ALGORITHMS"):
            Settings(oidc_algorithms=algorithms)


def test_an_algorithm_the_site_does_not_allow(begin: Callable[..., Site], provider: Provider) -> None:
    provider.keys.append(RSAKey.generate_key(2048, {"kid": "r1"}))
    server = begin(oidc_algorithms="ES384")
    assert (
        assess(server, provider.token({"alg": "RS256", "kid": "r1"}, key=provider.keys[1])).status_code == 401
    )
    assert assess(server, provider.token()).status_code == 200


def test_a_weak_or_unfit_key_is_no_key(server: Site, provider: Provider) -> None:
    weak = RSAKey.generate_key(1024, {"kid": "weak"}, auto_kid=False)
    fit = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
    provider.keys += [weak, fit]
    assert assess(server, provider.token({"alg": "RS256", "kid": "weak"}, key=weak)).status_code == 401
    sign = RSAKey.import_key({k: v for k, v in fit.as_dict(private=True).items() if k != "use"})
    assert assess(server, provider.token({"alg": "RS256", "kid": "enc"}, key=sign)).status_code == 401


def test_made_up_key_ids_are_not_a_way_to_flood(server: Site, provider: Provider) -> None:
    for number in range(5):
        assert assess(server, provider.token({"kid": f"made-up-{number}"})).status_code == 401
    assert provider.asked.count("keys") <= 2
    assert assess(server, provider.token()).status_code == 200


def test_metadata_of_another_issuer_is_not_believed(server: Site, provider: Provider) -> None:
    provider.metadata = {"issuer": provider.url + "/"}
    answer = assess(server, provider.token())
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "keys" not in provider.asked


@pytest.mark.parametrize(
    "address", ["http://evil.example/keys", "file:///etc/passwd", "//evil.example", None]
)
def test_keys_are_fetched_over_https_only(server: Site, provider: Provider, address: str | None) -> None:
    provider.metadata = {"jwks_uri": address}
    assert assess(server, provider.token()).status_code == 503
    assert "keys" not in provider.asked


def test_no_redirect_is_followed(server: Site, provider: Provider) -> None:
    provider.redirect = f"{provider.url}/keys"
    assert assess(server, provider.token()).status_code == 503
    assert provider.asked == ["metadata"]


def test_a_provider_that_is_down_is_not_the_users_fault(server: Site, provider: Provider) -> None:
    provider.down = True
    assert assess(server, provider.token()).status_code == 503


def test_a_token_of_another_issuer_is_not_this_parts_business(server: Site, provider: Provider) -> None:
    assert assess(server, provider.token(iss="https://other.example")).status_code == 401
    assert assess(server, "opaque").status_code == 401
    assert assess(server, "a.b.c").status_code == 401
    assert provider.asked == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "role"),
        ("role = []", "no \\[\\[role\\]\\]"),
        ('[[role]]\nrole = "boss"\nscope = "x"', "must be one of clinician"),
        ('[[role]]\nrole = "cds-client"\nscope = "x"', "cds-client is for EHRs"),
        ('[[role]]\nrole = "auditor"', "either claim and value, or scope"),
        ('[[role]]\nrole = "auditor"\nscope = "x"\nclaim = "y"\nvalue = "z"', "either"),
        ('[[role]]\nrole = "auditor"\nclaim = "y"', "either"),
        ('[[role]]\nrole = "auditor"\nscope = "x y"', "one scope a rule"),
        ('[[role]]\nrole = "auditor"\nscop = "x"', "scop"),
        ('[[role]]\nrole = "auditor"\nclaim = "a..b"\nvalue = "x"', "names joined by dots"),
        ("[[role]\n", "CDS_OIDC_ROLES"),
    ],
)
def test_a_table_of_roles_that_does_not_hold_says_where(table: str, said: str) -> None:
    with pytest.raises(RolesInvalid, match=said):
        RoleRules.parse(table)


def test_an_identity_provider_is_set_up_wholly_or_not_at_all(tmp_path: Path) -> None:
    roles = tmp_path / "roles.toml"
    roles.write_text(ROLES)
    with pytest.raises(ValueError, match="CDS_OIDC_ROLES"):
        Settings(oidc_issuer="https://login.example", oidc_audience="x")
    with pytest.raises(ValueError, match="CDS_OIDC_AUDIENCE"):
        Settings(oidc_issuer="https://login.example", oidc_roles=roles)
    with pytest.raises(ValueError, match="https is required"):
        Settings(oidc_issuer="http://login.example", oidc_audience="x", oidc_roles=roles)


async def test_a_provider_may_rotate_its_keys(provider: Provider) -> None:
    moment = [0.0]
    rules = UserTokenRules(
        issuer=provider.url,
        audience=AUDIENCE,
        algorithms=frozenset({"ES384"}),
        roles=RoleRules.parse(ROLES),
    )
    tokens = UserTokens(rules, Outbound(), now=utc_now, monotonic=lambda: moment[0])

    async def caller(token: str) -> Any:
        return await tokens.authenticate({"headers": [(b"authorization", f"Bearer {token}".encode())]})

    former = provider.token()
    assert (await caller(former)).roles == {Role.CLINICIAN}
    provider.keys = [ECKey.generate_key("P-384", {"kid": "k2"})]
    with pytest.raises(Unauthenticated):  # asked a moment ago
        await caller(provider.token({"kid": "k2"}))
    moment[0] += 31
    principal = await caller(
        provider.token({"kid": "k2"}, fhirUser="https://ehr.example/fhir/Practitioner/1")
    )
    assert principal.fhir_user == "https://ehr.example/fhir/Practitioner/1"
    assert (principal.kind, principal.id, principal.issuer) == ("user", "user-7", provider.url)
    with pytest.raises(Unauthenticated):  # withdrawn
        await caller(former)
    provider.down = True
    moment[0] += 3600
    assert await caller(provider.token({"kid": "k2"})) is not None  # while the provider is away
    assert await caller("opaque") is None
    await tokens.close()
