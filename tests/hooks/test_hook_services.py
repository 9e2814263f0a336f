"""Discovery and prefetch templates: CDS Hooks checklist, sections B and C."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.services import BY_ID, DISCOVERY_JSON, SERVICES, discovery, resolve_template

TEMPLATES = [(service, template) for service in SERVICES for template in service.templates]


def test_discovery_lists_both_services_with_every_required_member():
    services = discovery()["services"]
    assert [(s["id"], s["hook"]) for s in services] == [
        ("diagnostic-assessment", "patient-view"),
        ("order-review", "order-select"),
    ]
    for service in services:
        for name in ("id", "hook", "title", "description", "usageRequirements", "version"):
            assert isinstance(service[name], str)
            assert service[name].strip()
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?", service["version"])
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in service["prefetch"].items())


def test_no_two_services_share_id_and_hook():
    assert len({(s.id, s.hook) for s in SERVICES}) == len(SERVICES) == len(BY_ID)


def test_discovery_bytes_are_the_discovery_document():
    assert msgspec.json.decode(DISCOVERY_JSON) == discovery()


def test_discovery_tells_nothing_the_standard_does_not_know():
    allowed = {"id", "hook", "title", "description", "usageRequirements", "version", "prefetch"}
    assert all(set(service) <= allowed for service in discovery()["services"])


@pytest.mark.parametrize(("service", "template"), TEMPLATES, ids=lambda v: getattr(v, "key", None) or v.id)
def test_template_stays_inside_the_recommended_subset(service, template):
    url = template.template
    tokens = re.findall(r"{{(.*?)}}", url)
    assert set(tokens) == {"context.patientId"}, (
        "encounterId is optional: a template with it is unsatisfiable"
    )
    assert "{{" not in re.sub(r"{{context\.patientId}}", "", url)
    if "?" not in url:
        assert re.fullmatch(r"[A-Z][A-Za-z]+/{{context\.patientId}}", url)
        return
    resource_type, query = url.split("?")
    assert template.resource_types == (resource_type,)
    for pair in query.split("&"):
        name, value = pair.split("=")
        assert name in {"patient", "category", "status", "_sort", "_count"}, f"{name} is outside the subset"
        assert "," not in value, "token OR is outside the subset"
    assert "today()" not in url
    assert re.search(r"_count=\d+", url)


def test_only_the_patient_is_required():
    for service in SERVICES:
        assert service.required_keys == ("patient",)


def test_keys_are_unique_in_each_service():
    for service in SERVICES:
        assert len({template.key for template in service.templates}) == len(service.templates)


def test_resolving_fills_and_encodes_tokens():
    assert resolve_template("Patient/{{context.patientId}}", {"patientId": "a1"}) == "Patient/a1"
    url = resolve_template("Observation?patient={{context.patientId}}&_count=1", {"patientId": "a&b=c/..?#é"})
    assert url == "Observation?patient=a%26b%3Dc%2F..%3F%23%C3%A9&_count=1"


@pytest.mark.parametrize(
    "context", [{}, {"patientId": None}, {"patientId": ""}, {"patientId": {"id": 1}}, {"patientId": ".."}]
)
def test_a_template_with_an_absent_token_resolves_to_nothing(context):
    assert resolve_template("Patient/{{context.patientId}}", context) is None


@pytest.mark.parametrize(
    "template",
    ["Patient/{{userPatientId}}", "Patient/{{context.patientId", "Patient/x}}", "a{{context.a}}b}}"],
)
def test_a_template_that_is_no_template_resolves_to_nothing(template):
    assert resolve_template(template, {"patientId": "1", "a": "1"}) is None


@given(st.text(min_size=1))
def test_no_patient_id_leaves_its_place_in_the_url(value):
    url = resolve_template("Patient/{{context.patientId}}?x=1", {"patientId": value})
    if url is not None:
        assert re.fullmatch(r"Patient/(?!\.{1,2}\?)[A-Za-z0-9_.~%-]+\?x=1", url)
