# ruff: noqa: N802 - the names carry the ids of the checklist
"""Section I of the CDS Hooks checklist, a test per row: who calls, and what a token must be.

I12 (browsers) is in `test_cds_hooks_checklist`, what it adds for tokens is here.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from audit_helpers import rows
from auth_helpers import BASE, Ehr, clients_file, protected, published, segment
from joserfc.jwk import ECKey, RSAKey
from server_helpers import ASSESSMENT, REVIEW, Running, example, minimal, outcome, start

from cds_server.state import Knowledge

DISCOVERY = "/cds-services"
FEEDBACK = f"{ASSESSMENT}/feedback"


@pytest.fixture(scope="module")
def ehr() -> Iterator[Ehr]:
    with published(Ehr()) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(
    knowledge: Knowledge, ehr: Ehr, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server where callers must authenticate, with one trusted EHR."""
    directory = tmp_path_factory.mktemp("guarded")
    with start(knowledge, directory, _sqlite_template, **protected(ehr.file(directory))) as running:
        yield running


def refused(answer: httpx.Response) -> None:
    """401 without a reason, whatever the reason was."""
    issue = outcome(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert issue == {"severity": "error", "code": "login", "diagnostics": "authentication is required"}


def call(server: Running, token: str | None, path: str = ASSESSMENT) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    if path == DISCOVERY:
        return server.client.get(path, headers=headers)
    body: dict[str, Any] = {"feedback": []} if path == FEEDBACK else minimal()
    return server.post(path, body, headers=headers)


@pytest.mark.parametrize("path", [DISCOVERY, ASSESSMENT, FEEDBACK, "/fhir/$assess", "/api/v1/predict"])
def test_I1_nothing_is_told_without_authentication(guarded: Running, path: str) -> None:
    refused(call(guarded, None, path))
    refused(
        guarded.client.get(path, headers={"Authorization": "Basic dXNlcjpwYXNz"})
        if path == DISCOVERY
        else guarded.post(path, minimal(), headers={"Authorization": "Basic dXNlcjpwYXNz"})
    )


@pytest.mark.parametrize("path", [DISCOVERY, ASSESSMENT, FEEDBACK])
def test_I2_a_bearer_token_opens_discovery_service_and_feedback(
    guarded: Running, ehr: Ehr, path: str
) -> None:
    assert call(guarded, ehr.token(path), path).status_code == 200
    lower = {"authorization": f"bearer {ehr.token(DISCOVERY)}"}
    assert guarded.client.get(DISCOVERY, headers=lower).status_code == 200


def test_I2_two_authorization_headers_are_none(guarded: Running, ehr: Ehr) -> None:
    pair = [("Authorization", f"Bearer {ehr.token(DISCOVERY)}"), ("Authorization", "Bearer x")]
    refused(guarded.client.get(DISCOVERY, headers=pair))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": None},
        {"kid": ""},
        {"kid": "unknown"},
        {"typ": None},
        {"typ": "at+jwt"},
        {"typ": "JOSE"},
        {"jku": "https://evil.example/jwks.json"},
        {"jku": f"{BASE}/jwks.json"},
    ],
    ids=str,
)
def test_I3_the_header_must_be_complete_and_of_a_jwt(
    guarded: Running, ehr: Ehr, header: dict[str, Any]
) -> None:
    refused(call(guarded, ehr.token(ASSESSMENT, header=header)))


def test_I3_a_jku_that_is_listed_may_be_there(guarded: Running, ehr: Ehr) -> None:
    assert call(guarded, ehr.token(ASSESSMENT, header={"jku": ehr.jku})).status_code == 200


@pytest.mark.parametrize("member", [{"crit": ["b64"], "b64": False}, {"crit": ["exp"]}, {"crit": []}])
def test_I3_extensions_that_change_the_reading_are_refused(
    guarded: Running, ehr: Ehr, member: dict[str, Any]
) -> None:
    parts = ehr.token(ASSESSMENT).split(".")
    header = {"alg": "ES384", "typ": "JWT", "kid": "ec"} | member
    refused(call(guarded, ".".join([segment(header), *parts[1:]])))


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "jti"])
@pytest.mark.parametrize("value", [None, "", 7, [], {}, True], ids=str)
def test_I4_required_claims_are_there_and_of_their_kind(
    guarded: Running, ehr: Ehr, claim: str, value: Any
) -> None:
    refused(call(guarded, ehr.token(ASSESSMENT, **{claim: value})))


def test_I4_aud_is_a_string_or_an_array(guarded: Running, ehr: Ehr) -> None:
    both = ["https://other.example/x", BASE + ASSESSMENT]
    assert call(guarded, ehr.token(ASSESSMENT, aud=both)).status_code == 200
    assert call(guarded, ehr.token(ASSESSMENT, aud=[BASE + ASSESSMENT])).status_code == 200
    refused(call(guarded, ehr.token(ASSESSMENT, aud=["https://other.example/x"])))
    refused(call(guarded, ehr.token(ASSESSMENT, aud=[BASE + ASSESSMENT, 7])))


@pytest.mark.parametrize("listed", [None, ["north", "south"]])
@pytest.mark.parametrize("tenant", [None, "north", "west", "", 7, ["north"]], ids=str)
def test_I4_the_tenant_is_one_the_site_has_listed(
    start_server: Any, ehr: Ehr, tmp_path: Path, listed: Any, tenant: Any
) -> None:
    running = start_server(**protected(ehr.file(tmp_path, tenants=listed)))
    answer = call(running, ehr.token(ASSESSMENT, tenant=tenant))
    if (tenant == "north") if listed else (tenant is None):
        assert answer.status_code == 200
    else:
        refused(answer)


@pytest.mark.parametrize(
    "audience",
    [
        BASE,
        f"{BASE}/",
        BASE + DISCOVERY,
        BASE + REVIEW,
        f"{BASE}{ASSESSMENT}/",
        f"{BASE}{ASSESSMENT}?x=1",
        f"http://cds.hospital.example{ASSESSMENT}",
        f"https://evil.example{ASSESSMENT}",
        ASSESSMENT,
    ],
)
def test_I5_aud_is_the_endpoint_that_is_called(guarded: Running, ehr: Ehr, audience: str) -> None:
    refused(call(guarded, ehr.token(ASSESSMENT, aud=audience)))


def test_I5_headers_of_the_caller_do_not_move_the_audience(guarded: Running, ehr: Ehr) -> None:
    token = ehr.token(ASSESSMENT, aud=f"https://evil.example{ASSESSMENT}")
    moved = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example;proto=https",
        "X-Original-URL": ASSESSMENT,
    }
    refused(guarded.post(ASSESSMENT, minimal(), headers={"Authorization": f"Bearer {token}", **moved}))
    good = {"Authorization": f"Bearer {ehr.token(ASSESSMENT)}", **moved}
    assert guarded.post(ASSESSMENT, minimal(), headers=good).status_code == 200


def test_I6_alg_none_is_refused(guarded: Running, ehr: Ehr) -> None:
    refused(call(guarded, ehr.unsigned(ASSESSMENT)))
    for name in ("None", "NONE", "", "nOnE"):
        header = segment({"alg": name, "typ": "JWT", "kid": "ec"})
        refused(call(guarded, f"{header}.{segment(ehr.claims(ASSESSMENT))}."))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("kid", ["ec", "rsa"])
def test_I7_symmetric_algorithms_are_refused(guarded: Running, ehr: Ehr, algorithm: str, kid: str) -> None:
    refused(call(guarded, ehr.symmetric(ASSESSMENT, algorithm, kid)))


@pytest.mark.parametrize("kid", ["ec", "rsa"])
def test_I8_ES384_and_RS384_are_accepted(guarded: Running, ehr: Ehr, kid: str) -> None:
    assert call(guarded, ehr.token(ASSESSMENT, kid=kid)).status_code == 200


def test_I8_ES256_and_RS256_only_by_setting(start_server: Any, tmp_path: Path) -> None:
    ehr = Ehr()
    ehr.keys["p256"] = ECKey.generate_key("P-256")
    ehr.published.append("p256")
    with published(ehr):
        plain = start_server(**protected(ehr.file(tmp_path)))
        opened = start_server(**protected(ehr.file(tmp_path), client_algorithms="ES256,RS256"))
        for token in (
            lambda: ehr.token(ASSESSMENT, kid="p256"),
            lambda: ehr.token(ASSESSMENT, kid="rsa", header={"alg": "RS256"}),
        ):
            refused(call(plain, token()))
            assert call(opened, token()).status_code == 200
        for other in ("RS512", "PS384"):
            refused(call(opened, ehr.token(ASSESSMENT, kid="rsa", header={"alg": other})))
        # A key of the other kind or curve under the right id.
        header = segment({"alg": "ES384", "typ": "JWT", "kid": "p256"})
        refused(call(opened, f"{header}.{segment(ehr.claims(ASSESSMENT))}.{segment(b'0' * 96)}"))


def test_I9_nothing_is_fetched_for_who_is_not_listed(start_server: Any, tmp_path: Path) -> None:
    with published(Ehr()) as trusted, published(Ehr("https://evil.example")) as stranger:
        running = start_server(**protected(trusted.file(tmp_path, tenants=["north"])))
        refused(call(running, stranger.token(ASSESSMENT, header={"jku": stranger.jku})))
        refused(call(running, stranger.token(ASSESSMENT, iss=trusted.issuer, header={"jku": stranger.jku})))
        refused(call(running, trusted.token(ASSESSMENT, tenant="west", header={"jku": trusted.jku})))
        refused(call(running, trusted.token(ASSESSMENT, tenant="north", header={"jku": stranger.jku})))
        assert (trusted.asked, stranger.asked) == (0, 0)
        assert call(running, trusted.token(ASSESSMENT, tenant="north")).status_code == 200
        # Trusted for its own issuer it is not trusted for another's.
        refused(call(running, stranger.token(ASSESSMENT, iss=trusted.issuer, tenant="north")))
        assert (trusted.asked, stranger.asked) == (1, 0)


def test_I10_keys_come_from_the_jku_or_by_hand(start_server: Any, tmp_path: Path) -> None:
    by_hand = Ehr("https://by-hand.example")
    keys = tmp_path / "by-hand.json"
    keys.write_text(json.dumps(by_hand.key_set()))
    with published(Ehr()) as fetched:
        file = clients_file(
            tmp_path,
            {"name": "fetched", "issuer": fetched.issuer, "jku": fetched.jku},
            {
                "name": "by-hand",
                "issuer": by_hand.issuer,
                "jwks_file": "by-hand.json",
                "jku": "https://by-hand.example/jwks",  # may be named; the keys come from the file
            },
        )
        running = start_server(**protected(file))
        for ehr in (fetched, by_hand):
            assert call(running, ehr.token(ASSESSMENT)).status_code == 200
        named = by_hand.token(ASSESSMENT, header={"jku": "https://by-hand.example/jwks"})
        assert call(running, named).status_code == 200
        # The file is replaced: the new key holds at once, the old one no more.
        old = by_hand.token(ASSESSMENT)
        by_hand.keys["next"] = RSAKey.generate_key(2048)
        by_hand.published = ["next"]
        fresh = tmp_path / "fresh.json"
        fresh.write_text(json.dumps(by_hand.key_set()))
        fresh.replace(keys)
        assert call(running, by_hand.token(ASSESSMENT, kid="next")).status_code == 200
        refused(call(running, old))


def test_I11_a_token_is_good_once(guarded: Running, ehr: Ehr) -> None:
    token = ehr.token(ASSESSMENT)
    assert call(guarded, token).status_code == 200
    for _ in range(3):
        refused(call(guarded, token))
    # Another token with the same jti is a replay as well.
    refused(call(guarded, ehr.token(ASSESSMENT, jti=json.loads(_payload(token))["jti"])))


def test_I12_a_browser_can_read_that_it_was_refused(guarded: Running) -> None:
    origin = {"Origin": "https://sandbox.cds-hooks.org"}
    answer = guarded.client.get(DISCOVERY, headers=origin)
    refused(answer)
    assert answer.headers["access-control-allow-origin"] == origin["Origin"]
    preflight = guarded.client.options(ASSESSMENT, headers=origin | {"Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 204


def test_I13_mutual_TLS_in_front_is_said_in_words_and_opens_only_clinical_calls(start_server: Any) -> None:
    running = start_server(host="0.0.0.0", client_auth="off", allow_unauthenticated=True)
    assert call(running, None).status_code == 200
    assert call(running, None, DISCOVERY).status_code == 200
    outcome(running.client.get("/fhir/AuditEvent"), 403)
    outcome(running.client.get("/metrics"), 403)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": -31},
        {"exp": -100_000, "iat": -100_300},
        {"iat": 40, "exp": 200},
        {"nbf": 40},
        {"exp": 331, "iat": 30},
        {"exp": 301},
        {"exp": 10**12},
        {"iat": -200, "exp": 101},
    ],
    ids=str,
)
def test_I14_times_are_checked_and_bounded(guarded: Running, ehr: Ehr, changes: dict[str, int]) -> None:
    now = ehr.claims(ASSESSMENT)["iat"]
    refused(call(guarded, ehr.token(ASSESSMENT, **{name: now + value for name, value in changes.items()})))


@pytest.mark.parametrize(
    "changes", [{"exp": 299}, {"exp": -20, "iat": -100}, {"iat": 20, "exp": 120}], ids=str
)
def test_I14_clocks_may_differ_a_little(guarded: Running, ehr: Ehr, changes: dict[str, int]) -> None:
    now = ehr.claims(ASSESSMENT)["iat"]
    token = ehr.token(ASSESSMENT, **{name: now + value for name, value in changes.items()})
    assert call(guarded, token).status_code == 200


def test_I14_a_changed_token_is_refused(guarded: Running, ehr: Ehr) -> None:
    header, payload, signature = ehr.token(ASSESSMENT).split(".")
    claims = json.loads(_payload(f"{header}.{payload}.{signature}"))
    other = segment(claims | {"jti": "another"})
    for token in (
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.",
        f"{header}.{payload}.{segment(b'0' * 96)}",
        f"{header}.{payload}.{signature[:-4]}",
        f"{segment({'alg': 'RS384', 'typ': 'JWT', 'kid': 'rsa'})}.{payload}.{signature}",
        f"{header}.{payload}",
        f"{header}.{payload}.{signature}.x",
        "x",
        "x" * 20_000,
        "..",
        "a.b.c",
    ):
        refused(call(guarded, token))
    refused(guarded.client.get(DISCOVERY, headers={"Authorization": "Bearer"}))


async def test_I14_jti_is_stored_for_valid_tokens_only(start_server: Any, ehr: Ehr, tmp_path: Path) -> None:
    running = start_server(**protected(ehr.file(tmp_path)))
    refused(call(running, ehr.token(ASSESSMENT, aud="https://evil.example")))
    refused(call(running, ehr.token(ASSESSMENT, header={"kid": "unknown"})))
    refused(call(running, ehr.token(ASSESSMENT, exp=1, iat=0)))
    changed = ehr.token(ASSESSMENT, jti="mine")[:-8] + "AAAAAAAA"
    refused(call(running, changed))
    assert await rows(running.database_url, "SELECT * FROM used_tokens") == []
    assert call(running, ehr.token(ASSESSMENT, jti="mine")).status_code == 200
    [(digest, expires)] = await rows(running.database_url, "SELECT digest, expires FROM used_tokens")
    assert "mine" not in digest and ehr.issuer not in digest
    assert expires > ehr.claims(ASSESSMENT)["iat"]


async def test_I14_who_called_is_recorded(guarded: Running, ehr: Ehr) -> None:
    assert call(guarded, ehr.token(ASSESSMENT)).status_code == 200
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": minimal()["prefetch"]["patient"]}],
    }
    assert guarded.post("/fhir/$assess", bundle, headers=ehr.headers("/fhir/$assess")).status_code == 200
    card = guarded.post(ASSESSMENT, example("sepsis"), headers=ehr.headers(ASSESSMENT)).json()["cards"][0]
    feedback = {
        "feedback": [
            {"card": card["uuid"], "outcome": "accepted", "outcomeTimestamp": "2026-11-20T10:00:00Z"}
        ]
    }
    assert guarded.post(FEEDBACK, feedback, headers=ehr.headers(FEEDBACK)).status_code == 200
    called = "events WHERE action IN ('hook-call', 'assess', 'feedback')"
    for table in (called, "feedback"):
        found = await rows(guarded.database_url, f"SELECT DISTINCT client FROM {table}")
        assert found == [(ehr.issuer,)]


def test_I14_no_token_and_no_reason_reaches_log_metric_or_answer(
    start_server: Any, ehr: Ehr, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    running = start_server(**protected(ehr.file(tmp_path), log_level="debug"))
    good, late = ehr.token(ASSESSMENT), ehr.token(ASSESSMENT, exp=1, iat=0, jti="jti-of-the-late")
    assert call(running, good).status_code == 200
    refused(call(running, good))
    refused(call(running, late))
    refused(call(running, "not.a.token"))
    out, err = capfd.readouterr()
    metrics = running.house.metrics.text().decode()
    for secret in (*good.split("."), *late.split("."), "jti-of-the-late", ehr.issuer, "not.a.token"):
        assert secret not in out + err + metrics
    for category in ("replayed", "expired", "unrecognised"):
        assert f'cds_callers_refused_total{{category="{category}"}} 1.0' in metrics
        assert category in out + err


def _payload(token: str) -> bytes:
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
