"""SMART App Launch against a real authorization server: both launches, both client authentications."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from audit_helpers import rows
from fhir_standin import free_port
from smart_ehr import APP, FHIR_USER, PATIENT, USER_NAME, StandinEhr, launch_path, running
from smart_helpers import Site, authorize, csrf_of, log_out, parameters, signed_in, smart_site
from smart_helpers import site as another

from cds_server.state import Knowledge

MakeSite = Callable[..., Site]


@pytest.fixture
def standin() -> Iterator[StandinEhr]:
    with running(StandinEhr()) as ehr:
        yield ehr


@pytest.fixture
def make_site(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str, standin: StandinEhr
) -> Iterator[MakeSite]:
    with ExitStack() as stack:

        def begin(**options: Any) -> Site:
            context: AbstractContextManager[Site] = smart_site(
                knowledge, tmp_path, options.pop("database_url", sqlite_url), standin, **options
            )
            return stack.enter_context(context)

        yield begin


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()


def test_the_ehr_launches_the_app_and_the_patient_is_assessed(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    page = browser.get("/app/")
    assert page.status_code == 200, page.text
    assert "Ada Prüfling" in page.text
    assert f"Signed in: {USER_NAME} · Hospital of the tests" in page.text
    assert '<p class="indicator">Critical</p>' in page.text
    assert "Possible septic shock" in page.text
    assert "Blood cultures, two sets (recommended)" in page.text
    assert "<script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert browser.get("/app/style.css").headers["content-type"].startswith("text/css")


def test_the_authorization_request_says_what_smart_asks_for(site: Site, standin: StandinEhr) -> None:
    begun = site.browser().get(launch_path(standin))
    address = begun.headers["location"]
    asked = parameters(address)
    assert address.startswith(f"{standin.url}/authorize?")
    assert asked["response_type"] == "code"
    assert asked["client_id"] == APP
    assert asked["redirect_uri"] == f"{site.url}/smart/callback"
    assert asked["aud"] == standin.iss
    assert asked["launch"] == "launch-of-sepsis"
    assert asked["scope"] == "launch openid fhirUser online_access patient/*.rs"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    other = parameters(site.browser().get(launch_path(standin)).headers["location"])
    for name in ("state", "nonce", "code_challenge"):
        assert other[name] != asked[name]


def test_a_standalone_launch_gets_the_patient_the_user_picked(site: Site, standin: StandinEhr) -> None:
    start = site.browser().get("/app/")
    assert start.status_code == 200
    assert "Sign in at Hospital of the tests" in start.text
    browser = signed_in(site, standin, launch=None)
    assert "Ada Prüfling" in browser.get("/app/").text


@pytest.mark.parametrize("algorithm", ["ES384", "RS384"])
def test_the_client_proves_itself_with_a_key_that_the_ehr_fetches(
    make_site: MakeSite, standin: StandinEhr, algorithm: str
) -> None:
    site = make_site(algorithm=algorithm)
    published = httpx.get(f"{site.url}/smart/jwks.json").json()["keys"]
    assert [key["alg"] for key in published] == sorted({"ES384", algorithm})
    assert not {"d", "p", "q", "k"} & {name for key in published for name in key}
    assert signed_in(site, standin).get("/app/").status_code == 200


def test_the_client_proves_itself_with_its_secret(make_site: MakeSite, standin: StandinEhr) -> None:
    site = make_site(auth_method="client_secret_basic")
    assert signed_in(site, standin).get("/app/").status_code == 200


def test_the_page_speaks_spanish(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    for page in (
        browser.get("/app/", headers={"Accept-Language": "es-MX"}),
        browser.get("/app/?lang=es", headers={"Accept-Language": "en"}),
    ):
        assert '<html lang="es">' in page.text
        assert "Posible shock séptico" in page.text
        assert "Cerrar sesión" in page.text
        assert page.headers["content-language"] == "es"


async def test_sessions_and_launches_live_in_the_database_sealed(
    make_site: MakeSite, standin: StandinEhr, database_url: str
) -> None:
    site = make_site(database_url=database_url)
    browser = signed_in(site, standin)
    assert "Ada Prüfling" in browser.get("/app/").text
    identity = browser.cookies["cds-session"]
    stored = await rows(database_url, "SELECT session_digest, sealed FROM smart_sessions")
    assert len(stored) == 1
    assert await rows(database_url, "SELECT state_digest FROM smart_launches") == []
    text = str(stored)
    for secret in (identity, standin.tokens[0].access_token, PATIENT, FHIR_USER, "Prüfling"):
        assert secret not in text


def test_another_worker_knows_the_session(
    knowledge: Knowledge, tmp_path: Path, make_site: MakeSite, standin: StandinEhr
) -> None:
    first = make_site()
    identity = signed_in(first, standin).cookies["cds-session"]
    port = free_port()
    settings = {"smart_ehrs": tmp_path / "ehrs.toml"}
    with another(knowledge, tmp_path, first.database_url, port, **settings) as second:
        browser = second.browser(cookies={"cds-session": identity})
        page = browser.get("/app/").text
        assert "Ada Prüfling" in page
        assert log_out(browser, page).status_code == 303
    ended = first.browser(cookies={"cds-session": identity})
    assert "Ada" not in ended.get("/app/").text


async def test_logins_logouts_and_refusals_are_audited(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    browser.get("/app/")
    assert log_out(browser).status_code == 303
    assert browser.get(launch_path(standin).replace("fhir", "elsewhere")).status_code == 400
    found = await rows(
        site.database_url, "SELECT action, status, user_pseudonym, patient_pseudonym, payload FROM events"
    )
    actions = [row[0] for row in found]
    assert actions == [
        "audit-started",
        "login",
        "hook-call",
        "hook-call",
        "logout",
        "authentication-failed",
    ]
    login, call = found[1], found[2]
    for payload in (login[4], call[4]):
        assert '"roles":["clinician"],"purpose":"TREAT","network":"127.0.0.1"' in payload
    assert login[2:4] == call[2:4]  # the same person and patient under the same pseudonyms
    assert '"reason":"iss-not-registered"' in found[-1][4]
    for secret in (FHIR_USER, PATIENT, USER_NAME, "Prüfling"):
        assert secret not in str(found)


def test_logging_out_ends_the_session_and_its_tokens(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    page = browser.get("/app/").text
    identity = browser.cookies["cds-session"]
    out = log_out(browser, page)
    assert out.status_code == 303
    assert out.headers["location"] == "/app/?out=1"
    assert "cds-session" not in browser.cookies
    assert "You are logged out." in browser.get("/app/?out=1").text
    assert standin.tokens == []  # revoked at the EHR
    stolen = site.browser(cookies={"cds-session": identity}).get("/app/")
    assert "Ada" not in stolen.text
    assert "csrf" not in stolen.text


def test_an_access_token_is_renewed_before_it_expires(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str
) -> None:
    ehr = StandinEhr()
    ehr.expires_in = 30
    with running(ehr), smart_site(knowledge, tmp_path, sqlite_url, ehr) as site:
        browser = signed_in(site, ehr)
        first = ehr.tokens[0].access_token
        site.clock.ahead = timedelta(seconds=20)  # more than half of the token's life
        assert "Ada Prüfling" in browser.get("/app/").text
        assert [token.access_token for token in ehr.tokens] != [first]
        assert len(ehr.tokens) == 1  # the former refresh token was used up
        assert "Ada Prüfling" in browser.get("/app/").text


def test_without_a_refresh_token_the_page_says_that_access_has_ended(site: Site, standin: StandinEhr) -> None:
    standin.answer = {"expires_in": 1, "refresh_token": None}
    browser = signed_in(site, standin)
    site.clock.ahead = timedelta(seconds=2)
    page = browser.get("/app/")
    assert page.status_code == 401
    assert "Your access to the EHR has ended." in page.text
    assert csrf_of(page.text)


def test_a_record_that_cannot_be_read_is_not_assessed(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    standin.tokens[0].expires = 0
    page = browser.get("/app/")
    assert page.status_code == 502
    assert "could not be read from the EHR, so nothing was assessed" in page.text


def test_what_the_ehr_did_not_grant_is_said(site: Site, standin: StandinEhr) -> None:
    standin.answer = {"scope": "launch openid fhirUser patient/Patient.rs patient/Observation.read"}
    browser = signed_in(site, standin)
    assert "The EHR granted less than was asked for. Not readable: patient/*.rs." in browser.get("/app/").text


def test_two_tabs_can_launch_at_the_same_time(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    first = authorize(browser, standin)
    second = authorize(browser, standin)
    assert browser.get(first).status_code == 303
    assert browser.get(second).status_code == 303
