"""Whatever comes in, what reads it says yes or says no in its own words; nothing else gets out."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_server.auth.outbound import AddressRefused, check_address, on_this_machine
from cds_server.auth.signed_tokens import TokenInvalid, unverified
from cds_server.auth.users_roles import RoleRules
from cds_server.errors import RequestMalformed
from cds_server.own_page import origin_of
from cds_server.smart.cookies import Cookies
from cds_server.smart.ehrs import Ehrs
from cds_server.smart.forms import single
from cds_server.smart.grants import TokenAnswerInvalid, read_tokens
from fhir_adapters.origin import AllowList

NOW = datetime(2026, 11, 26, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text() | st.text(alphabet="abcABC-_.=0189", max_size=60))
def test_a_token_of_any_text(text: str) -> None:
    try:
        header, claims = unverified(text)
    except TokenInvalid:
        return
    assert isinstance(header, dict)
    assert isinstance(claims, dict)


@given(
    st.dictionaries(
        st.sampled_from(
            ["access_token", "token_type", "expires_in", "scope", "patient", "encounter", "refresh_token"]
        ),
        JSON | st.just("Bearer"),
    )
)
def test_a_token_answer_of_any_json(answer: dict[str, Any]) -> None:
    try:
        tokens = read_tokens(answer, NOW)
    except TokenAnswerInvalid:
        return
    assert NOW <= tokens.due <= tokens.expires
    assert tokens.patient is None or "/" not in tokens.patient
    assert "\n" not in tokens.access_token


@given(
    st.text(max_size=80) | st.from_regex(r"https?://[a-z.@:\[\]0-9\\]{1,20}(/[a-z%.]{0,9})?", fullmatch=True)
)
def test_an_address_of_any_text(url: str) -> None:
    try:
        checked = check_address(url, origin="https://ehr.example/fhir")
    except AddressRefused:
        return
    parts = urlsplit(checked)
    assert parts.scheme == "https"
    assert parts.hostname
    assert parts.username is None
    assert not on_this_machine(checked)


@given(st.dictionaries(st.text(min_size=1, max_size=6), st.text(max_size=12), max_size=6))
def test_parameters_are_read_as_they_were_written(values: dict[str, str]) -> None:
    written = urlencode({name: value.encode("utf-8", "replace") for name, value in values.items()})
    if len({name.encode("utf-8", "replace") for name in values}) == len(values):
        assert single(written) == {
            name.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
            for name, value in values.items()
        }


@given(st.text(alphabet="ab=&%+;\x00é1", max_size=40))
def test_a_query_of_any_text(text: str) -> None:
    try:
        found = single(text)
    except RequestMalformed:
        return
    assert all(isinstance(value, str) for value in found.values())


@given(st.text(alphabet="abcds-session=;, \"'\\x0", max_size=60))
def test_a_cookie_header_of_any_text(header: str) -> None:
    cookies = Cookies(secure=False)
    value = cookies.read(header, cookies.session_name)
    assert value is None or f"{cookies.session_name}={value}" in header
    twice = f"{cookies.session_name}=a; {cookies.session_name}=b"
    assert cookies.read(twice, cookies.session_name) is None


@given(st.text(max_size=60))
def test_an_iss_of_any_text_names_no_other_ehr(iss: str) -> None:
    ehrs = Ehrs.parse(
        '[[ehr]]\nname = "a"\niss = "https://ehr.example/fhir"\nclient_id = "c"',
        readable=AllowList.parse("*"),
    )
    found = ehrs.by_iss(iss)
    assert found is None or iss.lower().rstrip("/").startswith("https://ehr.example")


@given(st.dictionaries(st.sampled_from(["scope", "scp", "groups", "a"]), JSON))
def test_claims_of_any_json_give_only_roles_of_the_table(claims: dict[str, Any]) -> None:
    rules = RoleRules.parse(
        '[[role]]\nrole = "auditor"\nclaim = "a.b.c"\nvalue = "x"\n[[role]]\nrole = "operator"\nscope = "ops"'
    )
    assert rules.roles(claims) <= {"auditor", "operator"}


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://cds.example/base", "https://cds.example"),
        ("https://cds.example:443", "https://cds.example"),
        ("https://cds.example:8443/x/y", "https://cds.example:8443"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url: str, origin: str) -> None:
    assert origin_of(url) == origin
