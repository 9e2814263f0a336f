"""Which URLs count as the allowed FHIR server: by parsed parts, never by what the text looks like."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhir_adapters.origin import AllowList, ServerBase, ServerNotAllowed

GOOD = AllowList.parse("https://good.example/fhir, http://localhost:8080/r4")


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example/fhir",
        "https://good.example/fhir/",
        "https://GOOD.example:443/fhir",
        "https://good.example/fhir/tenant-7",
        "http://localhost:8080/r4",
    ],
)
def test_an_allowed_server_is_recognised_however_it_is_spelled(url: str) -> None:
    assert GOOD.admit(url)


NASTY = [
    "https://good.example.evil.com/fhir",
    "https://good.example@evil.com/fhir",
    "https://evil.com/https://good.example/fhir",
    "https://evil.com#https://good.example/fhir",
    "https://evil.com?https://good.example/fhir",
    "https://good.example/fhir/../admin",
    "https://good.example/fhir/..",
    "https://good.example/fhir/%2e%2e/admin",
    "https://good.example/fhir%2f..%2fadmin",
    "https://good.example/fhir/%252e%252e/admin",
    "https://good.example/fhirx",
    "https://good.example/",
    "https://good.example",
    "https://good.example:8443/fhir",
    "http://good.example/fhir",
    "https://good.example\\@evil.com/fhir",
    "https://good.example\t/fhir",
    "https://good.example/fhir\r\nX-Evil: 1",
    "https://good.example/fhir?x=1",
    "https://good.example/fhir#f",
    "https://user:pass@good.example/fhir",
    "https://good.example:/fhir",
    "https://good.example.:443/fhir",
    "https://gооd.example/fhir",  # Cyrillic letters
    "https://good.example\u3002evil.com/fhir",
    "//good.example/fhir",
    "good.example/fhir",
    "file:///etc/passwd",
    "gopher://good.example/fhir",
    "javascript:alert(1)",
    "https:///fhir",
    "https://",
    "",
    "https://good.example//fhir",
    "https://good.example/fhir//x",
    "https://[::1/fhir",
    "https://good.example:99999/fhir",
]


@pytest.mark.parametrize("url", NASTY)
def test_a_url_that_only_looks_like_the_allowed_server_is_refused(url: str) -> None:
    with pytest.raises(ServerNotAllowed) as refusal:
        GOOD.admit(url)
    assert url not in str(refusal.value) or not url


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/fhir",
        "http://0x7f000001/fhir",
        "http://0177.0.0.1/fhir",
        "http://127.1/fhir",
        "http://127.0.0.256/fhir",
        "http://1.2.3.4.5/fhir",
        "https://a@b/fhir",
        "https://good.example/a/../b",
    ],
)
def test_even_where_any_server_is_allowed_an_ambiguous_url_is_not(url: str) -> None:
    with pytest.raises(ServerNotAllowed):
        AllowList.parse("*").admit(url)


def test_any_well_formed_server_is_allowed_with_the_star() -> None:
    for url in ("https://launch.smarthealthit.org/v/r4/fhir", "http://127.0.0.1:8080", "http://[::1]:9/fhir"):
        assert AllowList.parse("*").admit(url).url == url


def test_nothing_is_allowed_by_default() -> None:
    with pytest.raises(ServerNotAllowed):
        AllowList.parse("").admit("https://good.example/fhir")


def test_next_links_of_common_servers_stay_on_the_server() -> None:
    base = ServerBase.parse("https://good.example/fhir")
    assert base.holds("https://good.example/fhir?_getpages=abc&_getpagesoffset=50")
    assert base.holds("https://good.example/fhir/Observation?code=http://loinc.org|8867-4&_page=2")
    assert not base.holds("https://good.example/fhirs?_getpages=abc")
    assert not base.holds("https://good.example/fhir/../x")


@given(st.text(max_size=60))
@example("https://good.example/fhir@evil")
def test_whatever_is_admitted_is_of_the_allowed_origin_and_path(tail: str) -> None:
    for url in (
        "https://good.example/fhir" + tail,
        "https://good.example" + tail,
        "https://" + tail + "good.example/fhir",
    ):
        try:
            admitted = GOOD.admit(url)
        except ServerNotAllowed:
            continue
        parts = urlsplit(admitted.url)
        assert (parts.scheme, parts.hostname) == ("https", "good.example")
        assert parts.port in (None, 443)
        assert parts.username is None
        assert parts.path == "/fhir" or parts.path.startswith("/fhir/")
        assert ".." not in parts.path.split("/")
        assert "%" not in parts.path
