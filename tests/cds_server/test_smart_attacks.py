"""What somebody might try at the SMART app's door, one test each."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from smart_ehr import APP, SECRET, StandinEhr, invented, launch_path, running
from smart_helpers import (
    Site,
    authorize,
    csrf_of,
    ehr_file,
    free_port,
    log_out,
    parameters,
    secret_file,
    signed_in,
    smart_site,
)
from smart_helpers import site as plain_site

from cds_server.smart import endpoints
from cds_server.state import Knowledge

HOSTILE = "https://evil.example"


@pytest.fixture
def standin() -> Iterator[StandinEhr]:
    with running(StandinEhr()) as ehr:
        yield ehr


@pytest.fixture
def site(knowledge: Knowledge, tmp_path: Path, sqlite_url: str, standin: StandinEhr) -> Iterator[Site]:
    with smart_site(knowledge, tmp_path, sqlite_url, standin) as running_site:
        yield running_site


def refused(answer: httpx.Response, status: int = 400) -> httpx.Response:
    """A refusal in words, without a session and without a reason that helps."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert "cds-session" not in answer.headers.get("set-cookie", "")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Signing in did not work" in answer.text
    return answer


def changed(address: str, **changes: str | None) -> str:
    """An address with other parameters (`None` removes one)."""
    query = {**parameters(address), **changes}
    kept = {name: value for name, value in query.items() if value is not None}
    return f"{urlsplit(address)._replace(query=urlencode(kept)).geturl()}"


# -- the launch


@pytest.mark.parametrize(
    "iss",
    [
        "https://evil.example/fhir",
        "http://127.0.0.1:1/fhir",
        "http://169.254.169.254/latest",
        "{iss}/../other",
        "{iss}@evil.example",
        "{iss}#x",
        "{url}",
        "",
        "javascript:alert(1)",
        "{iss}\\@evil.example",
    ],
)
def test_an_iss_that_is_not_registered_is_asked_for_nothing(
    site: Site, standin: StandinEhr, iss: str
) -> None:
    wanted = iss.format(iss=standin.iss, url=standin.url)
    answer = site.browser().get(f"/smart/launch?{urlencode({'iss': wanted, 'launch': 'x'})}")
    refused(answer)
    assert "location" not in answer.headers
    assert standin.requests == []


def test_the_slash_at_the_end_of_an_iss_means_nothing(site: Site, standin: StandinEhr) -> None:
    answer = site.browser().get(f"/smart/launch?{urlencode({'iss': standin.iss + '/', 'launch': 'x'})}")
    assert answer.status_code == 303
    assert parameters(answer.headers["location"])["aud"] == standin.iss


@pytest.mark.parametrize("extra", ["&iss=https://evil.example", "&launch=b", "&launch=a%0d%0aSet-Cookie:x"])
def test_parameters_that_come_twice_or_carry_control_characters_are_refused(
    site: Site, standin: StandinEhr, extra: str
) -> None:
    path = launch_path(standin) if "%0d" not in extra else launch_path(standin, None)
    refused(site.browser().get(path + extra))
    assert standin.requests == []


def test_a_server_that_announces_no_s256_is_not_used(site: Site, standin: StandinEhr) -> None:
    standin.configuration = {"code_challenge_methods_supported": ["plain"]}
    refused(site.browser().get(launch_path(standin)), 502)


@pytest.mark.parametrize(
    "configuration",
    [
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "ftp://evil.example/token"},
        {"token_endpoint": None},
        {"jwks_uri": "http://evil.example/jwks"},
        {"issuer": None},
        {"code_challenge_methods_supported": "S256"},
    ],
)
def test_a_configuration_that_is_not_safe_is_not_used(
    site: Site, standin: StandinEhr, configuration: dict[str, Any]
) -> None:
    standin.configuration = configuration
    answer = refused(site.browser().get(launch_path(standin)), 502)
    assert "evil" not in answer.text


def test_an_issuer_other_than_the_registered_one_is_not_used(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str, standin: StandinEhr
) -> None:
    with smart_site(knowledge, tmp_path, sqlite_url, standin, issuer="https://login.example") as site:
        refused(site.browser().get(launch_path(standin)), 502)


# -- the way back


def test_a_state_nobody_gave_out(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    callback = authorize(browser, standin)
    refused(browser.get(changed(callback, state=invented())))
    refused(browser.get(changed(callback, state=None)))
    assert "/token" not in standin.told()


def test_a_state_is_good_once(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    callback = authorize(browser, standin)
    assert browser.get(callback).status_code == 303
    asked = standin.told().count("/token")
    refused(browser.get(callback))
    assert standin.told().count("/token") == asked  # the code was not sent again either


def test_the_state_of_another_browser(site: Site, standin: StandinEhr) -> None:
    attacker, victim = site.browser(), site.browser()
    callback = authorize(attacker, standin)
    refused(victim.get(callback))
    # Not even with a launch of its own under way, or the cookie's name guessed.
    authorize(victim, standin)
    refused(victim.get(callback))
    name = next(iter(attacker.cookies))
    victim.cookies.set(name, invented())
    refused(victim.get(callback))
    assert "/token" not in standin.told()
    assert attacker.get(callback).status_code == 303


def test_a_launch_that_took_too_long(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    callback = authorize(browser, standin)
    site.clock.ahead = timedelta(seconds=601)
    refused(browser.get(callback))
    assert "/token" not in standin.told()


def test_a_code_that_was_used_elsewhere(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    first = authorize(browser, standin)
    second = authorize(browser, standin)
    assert browser.get(first).status_code == 303
    refused(browser.get(changed(second, code=parameters(first)["code"])))


def test_a_code_of_another_launch_does_not_fit_the_verifier(site: Site, standin: StandinEhr) -> None:
    browser, attacker = site.browser(), site.browser()
    mine, theirs = authorize(browser, standin), authorize(attacker, standin)
    refused(browser.get(changed(mine, code=parameters(theirs)["code"])))


def test_the_answer_of_another_issuer(site: Site, standin: StandinEhr) -> None:
    for issuer in (HOSTILE, None):
        browser = site.browser()
        callback = authorize(browser, standin)
        refused(browser.get(changed(callback, iss=issuer)))
    assert "/token" not in standin.told()


def test_the_code_of_one_ehr_never_reaches_another(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str, standin: StandinEhr
) -> None:
    """Mix-up, RFC 9700 4.4: neither announces `iss`, so only the callback's path tells them apart."""
    standin.issuer_parameter = None
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    other = StandinEhr()
    other.issuer_parameter = None
    with running(other):
        standin.register(base)
        other.register(base, redirect_uris=[f"{base}/smart/callback/other"])
        ehr_file(tmp_path, standin)
        path = ehr_file(tmp_path, other, name="other", own_callback=True)
        with plain_site(knowledge, tmp_path, sqlite_url, port, smart_ehrs=path) as site:
            browser = site.browser()
            honest = authorize(browser, standin)
            begun = parameters(browser.get(launch_path(other)).headers["location"])
            # The hostile EHR sends the browser back with a code of the honest one and its own state.
            for path_taken in ("/smart/callback", "/smart/callback/other"):
                mixed = urlencode({"code": parameters(honest)["code"], "state": begun["state"]})
                answer = browser.get(f"{path_taken}?{mixed}")
                refused(answer)
                begun = parameters(browser.get(launch_path(other)).headers["location"])
                if path_taken == "/smart/callback":
                    assert "/token" not in other.told()
            assert browser.get(honest).status_code == 303
            assert signed_in(site, other).get("/app/").status_code == 200


def test_an_ehr_that_says_no(site: Site, standin: StandinEhr) -> None:
    standin.decides = False
    browser = site.browser()
    callback = authorize(browser, standin)
    assert parameters(callback)["error"] == "access_denied"
    said = changed(callback, error_description="<script>alert(1)</script>")
    answer = refused(browser.get(said), 403)
    assert "script" not in answer.text


# -- the id token

Spoil = Callable[[dict[str, Any], dict[str, Any]], None]


def _claim(**claims: Any) -> Spoil:
    def spoil(_: dict[str, Any], found: dict[str, Any]) -> None:
        found.update(claims)

    return spoil


def _in(**seconds: int) -> Spoil:
    """Claims that are times, from when the token is made: a long run reads this file long before."""

    def spoil(_: dict[str, Any], found: dict[str, Any]) -> None:
        found.update({name: int(time.time()) + after for name, after in seconds.items()})

    return spoil


def _without(name: str) -> Spoil:
    def spoil(_: dict[str, Any], found: dict[str, Any]) -> None:
        del found[name]

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        _in(exp=-60),
        _in(exp=100_000, iat=0),
        _in(iat=600),
        _in(nbf=600),
        _claim(exp="soon"),
        _claim(exp=True),
        _claim(nonce="another"),
        _without("nonce"),
        _without("exp"),
        _without("iat"),
        _without("sub"),
        _without("iss"),
        _without("aud"),
        _without("fhirUser"),
        _claim(aud="another-app"),
        _claim(aud=[]),
        _claim(aud=[APP, "another-app"]),
        _claim(azp="another-app"),
        _claim(iss=HOSTILE),
        _claim(at_hash="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        _claim(fhirUser="javascript:alert(1)"),
        _claim(fhirUser=7),
    ],
)
def test_an_id_token_that_does_not_hold(site: Site, standin: StandinEhr, spoil: Spoil) -> None:
    standin.spoil = spoil
    browser = site.browser()
    refused(browser.get(authorize(browser, standin)))
    assert "cds-session" not in browser.cookies


def _unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = ({**header, "alg": "none"}, claims)
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        + "."
    )


def _symmetric(key: bytes) -> Callable[[dict[str, Any], dict[str, Any]], str]:
    def sign(header: dict[str, Any], claims: dict[str, Any]) -> str:
        return jwt.encode({**header, "alg": "HS256"}, claims, OctKey.import_key(key), algorithms=["HS256"])

    return sign


def _other_key(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return jwt.encode(header, claims, ECKey.generate_key("P-384"), algorithms=["ES384"])


def test_an_id_token_that_the_ehr_did_not_sign(site: Site, standin: StandinEhr) -> None:
    public = json.dumps(standin.key.as_dict(private=False)).encode()
    forgeries = [_unsigned, _symmetric(SECRET.encode() * 3), _symmetric(public), _other_key]
    for forge in forgeries:
        standin.sign = forge
        browser = site.browser()
        refused(browser.get(authorize(browser, standin)))
        assert "cds-session" not in browser.cookies


@pytest.mark.parametrize("user", ["Patient/p-1", "RelatedPerson/r-1", "Person/x"])
def test_who_is_no_practitioner_does_not_come_in(site: Site, standin: StandinEhr, user: str) -> None:
    standin.user = user
    browser = site.browser()
    answer = refused(browser.get(authorize(browser, standin)), 403)
    assert "for practitioners" in answer.text


@pytest.mark.parametrize(
    "answer",
    [
        {"id_token": None},
        {"token_type": "mac"},
        {"scope": None},
        {"patient": "../Practitioner/1"},
        {"patient": "x?_include=*"},
        {"access_token": "a\r\nX-Evil: 1"},
        {"expires_in": -1},
        {"expires_in": "never"},
    ],
)
def test_a_token_answer_that_is_not_one(site: Site, standin: StandinEhr, answer: dict[str, Any]) -> None:
    standin.answer = answer
    browser = site.browser()
    status = 400 if answer == {"id_token": None} else 502
    refused(browser.get(authorize(browser, standin)), status)


# -- the session


def test_the_cookies_are_for_this_site_and_not_for_scripts(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    begun = browser.get(launch_path(standin))
    done = browser.get(httpx.get(begun.headers["location"]).headers["location"])
    for cookie in [begun.headers["set-cookie"], *done.headers.get_list("set-cookie")]:
        assert "; HttpOnly; SameSite=Lax" in cookie
        assert "; Path=/;" in cookie
        assert "Domain" not in cookie
        assert "Secure" not in cookie  # http on loopback, where a browser would not send it back
    assert "Max-Age=0" in done.headers.get_list("set-cookie")[0]


def test_behind_https_the_cookies_are_secure_and_bound_to_the_host(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str, standin: StandinEhr
) -> None:
    public = "https://cds.hospital.example/cds"
    standin.register(public, auth_method="client_secret_basic")
    secret = secret_file(tmp_path)
    path = ehr_file(tmp_path, standin, client_auth="client_secret_basic", client_secret_file=secret)
    settings = {"smart_ehrs": path, "public_base_url": public}
    with plain_site(knowledge, tmp_path, sqlite_url, free_port(), **settings) as site:
        begun = site.browser().get(launch_path(standin))
        cookie = begun.headers["set-cookie"]
        assert cookie.startswith("__Host-cds-launch-")
        assert cookie.endswith("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure")
        assert parameters(begun.headers["location"])["redirect_uri"] == f"{public}/smart/callback"
        jar = {cookie.partition("=")[0]: cookie.partition("=")[2].partition(";")[0]}
        back = urlsplit(httpx.get(begun.headers["location"]).headers["location"])
        done = site.browser(cookies=jar).get(f"/smart/callback?{back.query}")
        assert done.headers["location"] == "/cds/app/"
        session = done.headers.get_list("set-cookie")[1]
        assert session.startswith("__Host-cds-session=")
        assert session.endswith("; HttpOnly; SameSite=Lax; Secure")


def test_a_login_makes_a_new_session_and_ends_the_former(site: Site, standin: StandinEhr) -> None:
    planted = invented()
    browser = site.browser()
    browser.cookies.set("cds-session", planted)  # session fixation
    answer = browser.get(authorize(browser, standin))
    first = parameters("?" + answer.headers.get_list("set-cookie")[1].partition(";")[0])["cds-session"]
    assert first != planted
    assert "Ada" not in site.browser(cookies={"cds-session": planted}).get("/app/").text
    browser = site.browser(cookies={"cds-session": first})
    answer = browser.get(authorize(browser, standin))
    second = parameters("?" + answer.headers.get_list("set-cookie")[1].partition(";")[0])["cds-session"]
    assert second != first
    assert "Ada" not in site.browser(cookies={"cds-session": first}).get("/app/").text
    assert "Ada" in site.browser(cookies={"cds-session": second}).get("/app/").text


def test_another_site_cannot_log_a_person_out(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    page = browser.get("/app/").text
    token = csrf_of(page)
    attempts: list[dict[str, Any]] = [
        {"data": {"other": "1"}},
        {"data": {"csrf": invented()}},
        {"data": {"csrf": token}, "headers": {"Origin": HOSTILE}},
        {"data": {"csrf": token}, "headers": {"Origin": "null"}},
        {"data": {"csrf": token}, "headers": {"Sec-Fetch-Site": "cross-site"}},
    ]
    for attempt in attempts:
        assert browser.post("/smart/logout", **attempt).status_code == 403
    assert browser.get("/smart/logout").status_code == 405
    assert browser.post("/smart/logout", json={"csrf": token}).status_code == 415
    assert "Ada" in browser.get("/app/").text
    assert log_out(browser, page).status_code == 303


@pytest.mark.parametrize("path", ["/audit", "/audit/export", "/fhir/AuditEvent/_search"])
def test_a_session_s_cookie_opens_no_console(site: Site, standin: StandinEhr, path: str) -> None:
    """Launches give no auditors, and a cookie alone changes nothing, whichever page the browser was on."""
    browser = signed_in(site, standin)
    token = csrf_of(browser.get("/app/").text)
    for headers in ({}, {"Origin": HOSTILE}, {"Sec-Fetch-Site": "same-origin"}, {"X-CSRF-Token": token}):
        answer = browser.post(path, data={"format": "csv"}, headers=headers)
        assert answer.status_code == 403, headers
        assert "x-total-count" not in answer.headers
    assert browser.get("/audit").status_code == 403


def test_the_form_token_of_another_session_is_worth_nothing(site: Site, standin: StandinEhr) -> None:
    mine, theirs = signed_in(site, standin), signed_in(site, standin)
    token = csrf_of(theirs.get("/app/").text)
    assert mine.post("/smart/logout", data={"csrf": token}).status_code == 403


def test_nothing_a_caller_sends_chooses_where_the_browser_goes(site: Site, standin: StandinEhr) -> None:
    hostile = {"redirect_uri": HOSTILE, "next": HOSTILE, "returnTo": "//evil.example", "url": HOSTILE}
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    browser = site.browser()
    begun = browser.get(f"{launch_path(standin)}&{urlencode(hostile)}", headers=headers)
    address = begun.headers["location"]
    assert "evil" not in address
    signed = httpx.get(address).headers["location"]
    query = {**parameters(signed), **hostile}
    browser = site.browser(cookies=_jar(begun))
    done = browser.get(f"/smart/callback?{urlencode(query)}", headers=headers)
    assert done.headers["location"] == "/app/"
    assert browser.get("/app", headers=headers).headers["location"] == "/app/"


def _jar(answer: httpx.Response) -> dict[str, str]:
    name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
    return {name: value}


def test_texts_of_the_ehr_cannot_become_markup(site: Site, standin: StandinEhr) -> None:
    def spoil(_: dict[str, Any], claims: dict[str, Any]) -> None:
        claims["name"] = '"><img src=x onerror=alert(1)>'

    standin.spoil = spoil
    for one in standin.resources:
        if one["resourceType"] == "Patient":
            one["name"] = [{"text": "<script>alert(2)</script>"}]
    page = signed_in(site, standin).get("/app/").text
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page


def test_no_address_carries_a_patient_a_user_or_a_token(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    page = browser.get("/app/").text
    for secret in ("sepsis", standin.tokens[0].access_token, "dr-quinta"):
        for address in _addresses(page):
            assert secret not in address


def _addresses(page: str) -> list[str]:
    return re.findall(r'(?:href|action|src)="([^"]*)"', page)


def test_a_log_says_nothing_of_persons_and_tokens(
    site: Site, standin: StandinEhr, capfd: pytest.CaptureFixture[str]
) -> None:
    browser = signed_in(site, standin)
    page = browser.get("/app/").text
    assert "Ada" in page
    refused(browser.get(launch_path(standin) + "&iss=https://evil.example"))
    written = "".join(capfd.readouterr())
    assert "smart.login" in written
    token = standin.tokens[0]
    for secret in (token.access_token, token.refresh_token, "dr-quinta", "sepsis", "Prüfling", csrf_of(page)):
        assert secret is not None
        assert secret not in written


def test_a_session_cookie_does_not_change_anything_without_the_sessions_token(
    site: Site, standin: StandinEhr
) -> None:
    browser = signed_in(site, standin)
    assert browser.post("/fhir/$assess", json={}).status_code == 403
    token = csrf_of(browser.get("/app/").text)
    assert browser.post("/fhir/$assess", json={}, headers={"X-CSRF-Token": token}).status_code == 422


def test_ids_in_the_path_are_not_taken_for_registered_ehrs(site: Site, standin: StandinEhr) -> None:
    browser = site.browser()
    callback = authorize(browser, standin)
    query = urlsplit(callback).query
    refused(browser.get(f"/smart/callback/{quote('standin')}?{query}"))
    assert "/token" not in standin.told()


def test_a_token_in_the_header_is_not_overruled_by_a_cookie(site: Site, standin: StandinEhr) -> None:
    browser = signed_in(site, standin)
    # Without authentication (loopback) a header nobody knows is passed over; the cookie is not used.
    answer = browser.post("/fhir/$assess", json={}, headers={"Authorization": "Bearer unknown"})
    assert answer.status_code == 422


def test_strangers_cannot_knock_without_end(
    site: Site, standin: StandinEhr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "LAUNCHES_PER_MINUTE", 1)
    assert site.browser().get(launch_path(standin)).status_code == 303
    for path in (launch_path(standin), "/smart/callback?state=x"):
        answer = site.browser().get(path)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
    assert standin.told().count("/fhir/.well-known/smart-configuration") == 1


def test_an_ehr_that_is_away_is_not_asked_by_every_launch(site: Site, standin: StandinEhr) -> None:
    standin.configuration = {"token_endpoint": None}
    for _ in range(5):
        refused(site.browser().get(launch_path(standin)), 502)
    assert len(standin.requests) == 1
