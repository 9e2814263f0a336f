"""A denial that comes with the data is respected; what is no denial of storing changes nothing."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from cds_server.decisions.consent import denies_storing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def consent(
    *, scope: str | None = "patient-privacy", status: str = "active", **provision: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {"resourceType": "Consent", "status": status, "provision": provision}
    if scope:
        found["scope"] = {"coding": [{"code": scope}]}
    return found


def action(code: str) -> list[dict[str, Any]]:
    return [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentaction", "code": code}]}]


def denied(*resources: dict[str, Any]) -> bool:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": one} for one in resources]}
    request = {"hook": "patient-view", "prefetch": {"patient": {"resourceType": "Patient"}, "more": bundle}}
    return denies_storing(json.dumps(request).encode(), NOW)


def labelled(code: str, **label: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "meta": {"security": [{"code": code, **label}]}}


@pytest.mark.parametrize(
    "resource",
    [
        consent(type="deny"),
        consent(type="deny", scope=None),
        consent(type="deny", action=action("collect")),
        consent(type="deny", action=action("access") + action("collect")),
        consent(type="permit", provision=[{"type": "deny", "action": action("collect")}]),
        consent(type="deny", provision=[{"type": "permit"}]),
        consent(type="deny", period={"start": "2026-03-01"}),
        consent(type="deny", period={"start": "2020", "end": "2026"}),
        consent(type="deny", period={"end": "2026-03-01"}),
        labelled("NOCOLLECT"),
        labelled("DELAU", system="http://terminology.hl7.org/CodeSystem/v3-ActCode"),
        {"resourceType": "Patient", "contained": [consent(type="deny")]},
    ],
)
def test_these_deny_storing(resource: dict[str, Any]) -> None:
    assert denied(resource)


@pytest.mark.parametrize(
    "resource",
    [
        consent(type="permit"),
        consent(type="deny", status="inactive"),
        consent(type="deny", status="entered-in-error"),
        consent(type="deny", scope="adr"),
        consent(type="deny", scope="treatment"),
        consent(type="deny", action=action("disclose")),
        consent(type="deny", actor=[{"reference": {"reference": "Practitioner/1"}}]),
        consent(type="deny", period={"end": "2025"}),
        consent(type="deny", period={"start": "2026-03-10"}),
        labelled("R"),
        labelled("NOCOLLECT", system="urn:other"),
        {"resourceType": "Observation", "note": [{"text": 'Consent: "security" was explained'}]},
        {"resourceType": "Consent", "status": "active", "provision": "odd"},
        {"resourceType": "Observation", "meta": {"security": "odd"}},
    ],
)
def test_these_do_not(resource: dict[str, Any]) -> None:
    assert not denied(resource)


def test_what_cannot_be_read_is_not_kept() -> None:
    assert denies_storing(b'{"resourceType": "Consent"', NOW)
