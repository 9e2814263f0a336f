"""What the CDS Hooks Sandbox really sends, as its public source builds it, works with no special case.

Source read: cds-hooks/sandbox, src/retrieve-data-helpers (service-exchange, jwt-generator,
discovery-services-retrieval): best-effort prefetch, a token signed with ES384 that we cannot verify, draft
orders without `type` and `intent`, `category` as one object.
"""

import base64
import json
import time
import uuid
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fhir_standin import Standin, condition
from server_helpers import ASSESSMENT, REVIEW, Running, minimal
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

ORIGIN = "https://sandbox.cds-hooks.org"


def es384_token(audience: str) -> str:
    """A JWT as the Sandbox makes it for every call."""

    def segment(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    header = {"alg": "ES384", "typ": "JWT", "kid": "k", "jku": f"{ORIGIN}/.well-known/jwks.json"}
    now = int(time.time())
    claims = {"iss": ORIGIN, "aud": audience, "exp": now + 300, "iat": now, "jti": str(uuid.uuid4())}
    signed = f"{segment(header)}.{segment(claims)}"
    signature = ec.generate_private_key(ec.SECP384R1()).sign(signed.encode(), ec.ECDSA(hashes.SHA384()))
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def headers(url: str) -> dict[str, str]:
    return {
        "Origin": ORIGIN,
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {es384_token(url)}",
    }


def hook_call(hook: str, fhir_server: str, **context: Any) -> dict[str, Any]:
    return {
        "hookInstance": str(uuid.uuid4()),
        "hook": hook,
        "fhirServer": fhir_server,
        "context": {"patientId": "p", "userId": "Practitioner/COREPRACTITIONER1", **context},
    }


def open_ehr(ehr: Standin) -> str:
    async def patient(_: Request) -> Response:
        return JSONResponse(minimal()["prefetch"]["patient"], media_type="application/fhir+json")

    ehr.on("Patient", patient)
    return f"{ehr.url}/fhir"


def test_discovery_is_asked_with_a_token_from_another_origin(server: Running) -> None:
    answer = server.client.get("/cds-services", headers=headers(f"{server.url}/cds-services"))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_patient_view_with_the_prefetch_that_succeeded(server: Running, ehr: Standin) -> None:
    request = hook_call("patient-view", open_ehr(ehr))
    request["prefetch"] = {
        "patient": minimal()["prefetch"]["patient"],
        "conditions": {
            "resourceType": "Bundle",
            "type": "searchset",
            "entry": [{"resource": condition("c")}],
        },
    }
    answer = server.post(ASSESSMENT, json.dumps(request).encode(), headers=headers(server.url + ASSESSMENT))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_patient_view_when_no_prefetch_succeeded(server: Running, ehr: Standin) -> None:
    request = hook_call("patient-view", open_ehr(ehr))
    answer = server.post(ASSESSMENT, json.dumps(request).encode(), headers=headers(server.url + ASSESSMENT))
    assert answer.status_code == 200
    # The Sandbox's own token is for us; it is not the FHIR server's.
    assert {token for _, token in ehr.requests} == {None}


def test_order_select_with_drafts_as_the_sandbox_builds_them(server: Running, ehr: Standin) -> None:
    medication = {
        "resourceType": "MedicationRequest",
        "id": "request-123",
        "status": "draft",
        "authoredOn": "2026-11-21",
        "subject": {"reference": "Patient/p"},
        "medicationCodeableConcept": {
            "text": "Aspirin 81 MG Oral Tablet",
            "coding": [
                {
                    "display": "Aspirin 81 MG Oral Tablet",
                    "system": "http://www.nlm.nih.gov/research/umls/rxnorm",
                    "code": "243670",
                }
            ],
        },
        "dosageInstruction": [{"doseQuantity": {"value": 1, "code": "{pill}"}}],
    }
    imaging = {
        "resourceType": "ServiceRequest",
        "id": "example-MRI-59879846",
        "status": "draft",
        "category": {"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]},
        "code": {
            "coding": [{"system": "http://www.ama-assn.org/go/cpt", "code": "72133"}],
            "text": "Lumbar spine CT",
        },
        "subject": {"reference": "Patient/p"},
    }
    request = hook_call(
        "order-select",
        open_ehr(ehr),
        selections=["MedicationRequest/request-123"],
        draftOrders={"resourceType": "Bundle", "entry": [{"resource": medication}, {"resource": imaging}]},
    )
    issues_before = _issues(server)
    answer = server.post(REVIEW, json.dumps(request).encode(), headers=headers(server.url + REVIEW))
    assert answer.status_code == 200
    assert isinstance(answer.json()["cards"], list)
    assert _issues(server) == issues_before, "a draft of the Sandbox could not be read"


def _issues(server: Running) -> float:
    text = server.client.get("/metrics").text
    lines = [
        line
        for line in text.splitlines()
        if line.startswith('cds_read_issues_total{code="unreadable-resource"}')
    ]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def test_feedback_as_the_sandbox_sends_it(server: Running) -> None:
    body = {
        "feedback": [
            {
                "card": str(uuid.uuid4()),
                "outcome": "overridden",
                "overrideReason": {"reason": {"code": "x", "system": "urn:x"}, "userComment": ""},
                "outcomeTimestamp": "2026-11-21T10:00:00.123Z",
            }
        ]
    }
    path = f"{ASSESSMENT}/feedback"
    assert server.post(path, json.dumps(body).encode(), headers=headers(server.url + path)).is_success
