"""Every route, every role: who may call what, from where and how often."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import httpx
import pytest
from auth_helpers import BASE, Ehr, clients_file, protected, published
from hypothesis import given
from hypothesis import strategies as st
from server_helpers import ASSESSMENT, Running, minimal, outcome, start
from starlette.routing import Route

from cds_server.auth.addresses import caller_address, is_loopback, parse_networks
from cds_server.auth.permissions import ANYONE, PERMISSIONS, Permission, Table, may
from cds_server.auth.principal import Role
from cds_server.state import Knowledge

ROLES = [role for role in Role if role is not Role.CLINICIAN_ADMIN]
"""What a client of the file can be; people with more come with their own authentication."""
DISCOVERY = "/cds-services"


def routes(running: Running) -> list[tuple[str, str]]:
    """Path and method of all routes that really exist, HEAD left out."""
    pairs = []
    for route in running.app.every_route():
        assert isinstance(route, Route), route
        methods = route.methods or {route.endpoint.method}
        pairs += [(route.path, method) for method in methods if method != "HEAD"]
    assert len(pairs) > 10
    return pairs


def place(path: str) -> str:
    """A path of a template."""
    return (
        path.replace("{service_id}", "diagnostic-assessment")
        .replace("{id}", "1")
        .replace("{event_id}", "1")
        .replace("{ehr}", "main")
        .replace("{rest:path}", "x/y")
    )


@pytest.fixture(scope="module")
def ehrs() -> Iterator[dict[Role, Ehr]]:
    """One caller per role, all with one key."""
    with published(Ehr()) as first:
        found = {}
        for role in ROLES:
            ehr = found[role] = Ehr(f"https://{role}.example")
            ehr.keys, ehr.url = first.keys, first.url
        yield found


@pytest.fixture(scope="module")
def guarded(
    knowledge: Knowledge,
    ehrs: dict[Role, Ehr],
    tmp_path_factory: pytest.TempPathFactory,
    _sqlite_template: Path,
) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("gate")
    file = clients_file(
        directory,
        *(
            {"name": role, "issuer": ehr.issuer, "jku": ehr.jku, "roles": [role]}
            for role, ehr in ehrs.items()
        ),
    )
    with start(knowledge, directory, _sqlite_template, **protected(file)) as running:
        yield running


def test_every_route_has_a_row_in_the_table(guarded: Running) -> None:
    table = Table()
    for path, method in routes(guarded):
        rows = table.methods(place(path))
        assert rows is not None and method in rows, f"{method} {path}: say in permissions.py who may use it"


def test_the_table_reads_a_path_as_the_router_does(guarded: Running) -> None:
    """A path that two templates match must mean the same row and the same route."""
    table = Table()
    for path, method in routes(guarded):
        rows = table.methods(place(path))
        assert rows is not None
        assert rows[method].path == path or rows[method].path.endswith("{rest:path}")


@pytest.mark.parametrize("role", [None, *ROLES], ids=str)
@pytest.mark.parametrize("row", PERMISSIONS, ids=lambda row: f"{row.method} {row.path}")
def test_each_role_may_do_what_the_table_says_and_nothing_else(
    guarded: Running, ehrs: dict[Role, Ehr], role: Role | None, row: Permission
) -> None:
    path = place(row.path)
    headers = ehrs[role].headers(path) if role is not None else {}
    status = guarded.client.request(row.method, path, headers=headers).status_code
    if row.roles is ANYONE:
        assert status not in (401, 403)
    elif role is None:
        assert status == 401
    elif may(frozenset({role}), row):
        assert status not in (401, 403)
    else:
        assert status == 403


def test_the_roles_are_those_of_the_site_s_rules() -> None:
    """What the issue says in words, as facts about the table."""

    def can(role: Role, method: str, path: str) -> bool:
        rows = Table().methods(path)
        assert rows is not None
        return may(frozenset({role}), rows[method])

    patient_data = [
        ("POST", ASSESSMENT),
        ("POST", "/fhir/$assess"),
        ("POST", "/api/v1/predict"),
        ("GET", "/app/x"),
    ]
    for method, path in patient_data:
        assert can(Role.CLINICIAN, method, path) and can(Role.CLINICIAN_ADMIN, method, path)
        for role in (Role.DATA_SCIENTIST, Role.AUDITOR, Role.OPERATOR):
            assert not can(role, method, path), (role, path)
    for path in ("/fhir/AuditEvent", "/fhir/AuditEvent/1", "/audit", "/audit/event/1"):
        assert [role for role in Role if can(role, "GET", path)] == [Role.AUDITOR]
    assert {role for role in Role if can(role, "GET", "/fhir/RiskAssessment/1")} == {
        Role.CLINICIAN,
        Role.CLINICIAN_ADMIN,
        Role.AUDITOR,
    }
    assert {role for role in Role if can(role, "GET", "/api/v1/aggregates")} == {
        Role.CLINICIAN_ADMIN,
        Role.DATA_SCIENTIST,
    }


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/CDS-SERVICES",
        "/cds-services/",
        "//cds-services",
        "/cds-services/a/b",
        "/fhir",
        "/metrics/",
    ],
)
@pytest.mark.parametrize("role", [None, Role.OPERATOR], ids=str)
def test_what_has_no_row_is_refused_for_everybody(
    guarded: Running, ehrs: dict[Role, Ehr], role: Role | None, path: str
) -> None:
    headers = ehrs[role].headers(path) if role is not None else {}
    assert guarded.client.get(path, headers=headers).status_code in (401, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "POST"])
def test_a_method_without_a_row_is_refused(guarded: Running, method: str) -> None:
    answer = guarded.client.request(method, DISCOVERY)
    outcome(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"


def test_HEAD_is_guarded_like_GET(guarded: Running, ehrs: dict[Role, Ehr]) -> None:  # noqa: N802
    assert guarded.client.head(DISCOVERY).status_code == 401
    headers = ehrs[Role.CDS_CLIENT].headers(DISCOVERY)
    assert guarded.client.head(DISCOVERY, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/fhir/metadata", "/docs", "/openapi.json"])
def test_public_paths_look_at_no_token(guarded: Running, path: str) -> None:
    assert guarded.client.get(path, headers={"Authorization": "Bearer x"}).status_code == 200


def test_a_body_is_not_read_before_the_caller_is_known(guarded: Running) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(3):
            yield b" " * 65_536
            time.sleep(0.01)

    answer = guarded.client.post(ASSESSMENT, content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


def test_off_on_loopback_asks_nobody_and_ignores_foreign_tokens(server: Running) -> None:
    for headers in ({}, {"Authorization": "Bearer a.b.c"}, {"Authorization": "Basic eDp5"}):
        assert server.client.get(DISCOVERY, headers=headers).status_code == 200
        assert server.client.get("/metrics", headers=headers).status_code == 200


def test_optional_lets_in_who_sends_nothing_and_checks_what_is_sent(
    start_server: Any, tmp_path: Path
) -> None:
    with published(Ehr()) as ehr:
        running = start_server(**protected(ehr.file(tmp_path), client_auth="optional"))
        assert running.client.get(DISCOVERY).status_code == 200
        assert running.client.get(DISCOVERY, headers=ehr.headers(DISCOVERY)).status_code == 200
        for bad in ("x", ehr.token(DISCOVERY, exp=1, iat=0), Ehr("https://evil.example").token(DISCOVERY)):
            outcome(running.client.get(DISCOVERY, headers={"Authorization": f"Bearer {bad}"}), 401)
        # Proven to be somebody, one has that one's rights, not those of nobody in particular.
        outcome(running.client.get("/metrics", headers=ehr.headers("/metrics")), 403)
        assert running.client.get("/metrics").status_code == 200


def test_metrics_are_read_without_a_token_from_the_networks_named(start_server: Any, tmp_path: Path) -> None:
    with published(Ehr()) as ehr:
        named = start_server(**protected(ehr.file(tmp_path), metrics_from="127.0.0.1"))
        assert named.client.get("/metrics").status_code == 200
        outcome(named.client.get(DISCOVERY), 401)
        elsewhere = start_server(**protected(ehr.file(tmp_path), metrics_from="192.0.2.0/24"))
        outcome(elsewhere.client.get("/metrics"), 401)


# -- how often


def test_the_rate_of_the_clients_file_is_kept_and_says_when_to_come_again(
    start_server: Any, tmp_path: Path
) -> None:
    with published(Ehr()) as ehr:
        running = start_server(**protected(ehr.file(tmp_path, rate_per_minute=5)))
        statuses = [
            running.client.get(DISCOVERY, headers=ehr.headers(DISCOVERY)).status_code for _ in range(5)
        ]
        assert statuses == [200] * 5
        answer = running.client.get(DISCOVERY, headers=ehr.headers(DISCOVERY))
        outcome(answer, 429)
        assert 1 <= int(answer.headers["retry-after"]) <= 12
        assert running.client.get("/health/live").status_code == 200


def test_a_call_that_is_refused_for_its_token_uses_up_nobody_s_rate(
    start_server: Any, tmp_path: Path
) -> None:
    with published(Ehr()) as ehr:
        running = start_server(**protected(ehr.file(tmp_path, rate_per_minute=2)))
        for _ in range(5):
            bad = {"Authorization": f"Bearer {ehr.token(DISCOVERY)[:-8]}AAAAAAAA"}
            outcome(running.client.get(DISCOVERY, headers=bad), 401)
        assert running.client.get(DISCOVERY, headers=ehr.headers(DISCOVERY)).status_code == 200


# -- from where


@pytest.mark.parametrize(
    ("settings", "forwarded", "status"),
    [
        ({"ip_allowlist": "127.0.0.0/8"}, None, 200),
        ({"ip_allowlist": "192.0.2.0/24"}, None, 403),
        # A header of a stranger says nothing.
        ({"ip_allowlist": "192.0.2.0/24"}, "192.0.2.7", 403),
        ({"ip_allowlist": "127.0.0.0/8"}, "198.51.100.1", 200),
        # That of a trusted proxy does: the hop it wrote, and only that one.
        ({"ip_allowlist": "192.0.2.0/24", "trusted_proxies": "127.0.0.1"}, "192.0.2.7", 200),
        ({"ip_allowlist": "192.0.2.0/24", "trusted_proxies": "127.0.0.1"}, "192.0.2.7, 198.51.100.1", 403),
        (
            {"ip_allowlist": "192.0.2.0/24", "trusted_proxies": "127.0.0.1,10.0.0.0/8"},
            "192.0.2.7, 10.1.1.1",
            200,
        ),
        ({"ip_allowlist": "192.0.2.0/24", "trusted_proxies": "127.0.0.1"}, "unknown", 403),
        ({"ip_allowlist": "192.0.2.0/24", "trusted_proxies": "127.0.0.1"}, "192.0.2.7, unknown", 403),
        ({"ip_allowlist": "192.0.2.0/24", "trusted_proxies": "127.0.0.1"}, None, 403),
    ],
    ids=str,
)
def test_calls_come_from_the_networks_a_site_names(
    start_server: Any, settings: dict[str, str], forwarded: str | None, status: int
) -> None:
    running = start_server(**settings)
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert running.client.get(DISCOVERY, headers=headers).status_code == status
    assert running.client.get("/health/live", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", None),
        ("_hidden", None),
        ("192.0.2", None),
    ],
)
def test_hops_are_read_as_proxies_write_them(written: str, address: str | None) -> None:
    scope = {"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", written.encode())]}
    found = caller_address(scope, parse_networks("127.0.0.1"))
    assert (str(found) if found else None) == address


@given(st.lists(st.ip_addresses().map(str), max_size=5), st.text(max_size=40))
def test_what_stands_before_an_untrusted_hop_changes_nothing(hops: list[str], lie: str) -> None:
    trusted = parse_networks("127.0.0.1")
    line = ", ".join([*hops, "198.51.100.1"])
    honest = {"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", line.encode())]}
    spoofed = {
        "client": ("127.0.0.1", 1),
        "headers": [
            (b"x-forwarded-for", lie.encode("utf-8", "replace")),
            (b"x-forwarded-for", line.encode()),
        ],
    }
    assert caller_address(spoofed, trusted) == caller_address(honest, trusted)
    assert str(caller_address(honest, trusted)) == "198.51.100.1"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "::", "10.0.0.1"]
)
def test_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


# -- headers


def test_every_answer_carries_the_safe_headers(start_server: Any) -> None:
    running = start_server(public_base_url=BASE)
    answers: list[httpx.Response] = [
        running.client.get(DISCOVERY),
        running.post(ASSESSMENT, minimal()),
        running.post(ASSESSMENT, b"{"),
        running.client.get("/nowhere"),
        running.client.get("/metrics"),
        running.client.get("/docs"),
        running.client.get("/openapi.json"),
        running.client.put(DISCOVERY),
    ]
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["strict-transport-security"] == "max-age=31536000"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "*" not in policy
        assert headers["referrer-policy"] in ("no-referrer", "same-origin")
        assert len(headers.get_list("content-security-policy")) == 1
        assert "server" not in headers


def test_browsers_are_bound_to_https_only_where_there_is_https(server: Running) -> None:
    assert "strict-transport-security" not in server.client.get("/docs").headers


def test_pages_may_stand_in_the_windows_a_site_names_and_data_in_none(start_server: Any) -> None:
    running = start_server(frame_ancestors="https://ehr.hospital.example")
    page = running.client.get("/docs").headers["content-security-policy"]
    assert page.endswith("frame-ancestors https://ehr.hospital.example")
    assert "frame-ancestors 'none'" in running.client.get(DISCOVERY).headers["content-security-policy"]


@pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium on this machine (apt: chromium)")
def test_the_documentation_is_whole_in_a_browser_under_its_policy(server: Running) -> None:
    with chromium.browser() as browser:
        browser.open(f"{server.url}/docs")
        assert "POST" in browser.text and "/fhir/$assess" in browser.text
        assert browser.violations == []
        # The policy is in force there: a script in the page does not run.
        browser.run("document.body.appendChild(document.createElement('script')).text = 'window.ran = 1'")
        assert browser.run("typeof window.ran") == "undefined"
