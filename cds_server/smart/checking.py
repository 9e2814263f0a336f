"""Looking whether an EHR can be read by this site's jobs: each step, and how it went.

Says nothing of any patient: statuses, versions, scopes and one total.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from cds_server.auth.outbound import ServerUnreachable, TokenRefused
from cds_server.privacy import KeyMaterialInvalid
from cds_server.smart.backend import BackendAccess
from cds_server.smart.discovery import Discovery
from cds_server.smart.ehrs import Ehr
from cds_server.smart.grants import Grants
from fhir_adapters.client import FhirClient, ReadFailed

_SEARCH = "Patient?_summary=count"


class Step(msgspec.Struct, frozen=True):
    """One thing that was tried: `good` is `None` when it does not matter for jobs."""

    name: str
    good: bool | None
    said: str


async def check(
    ehr: Ehr, *, discovery: Discovery, grants: Grants, fhir: FhirClient, now: Callable[[], datetime]
) -> list[Step]:
    """Discovery, token, CapabilityStatement and one search of an EHR; stops where going on is no use."""
    steps: list[Step] = []
    try:
        found = await discovery.of(ehr)
    except ServerUnreachable as fault:
        return [Step("SMART configuration", False, str(fault))]
    steps.append(Step("SMART configuration", True, "found"))
    launch = found.s256 and found.authorization_endpoint and found.issuer and found.jwks_uri
    steps.append(
        Step(
            "App Launch",
            bool(launch) if ehr.client_id else None,
            "S256, endpoints, id tokens" if launch else "lacks S256, an endpoint, issuer or keys",
        )
    )
    if ehr.backend is None:
        steps.append(Step("Token for jobs", None, "no [ehr.backend] in the file"))
        return steps
    backend = BackendAccess(ehr, discovery, grants, now=now)
    try:
        tokens = await backend.tokens()
    except (TokenRefused, ServerUnreachable, KeyMaterialInvalid) as fault:
        steps.append(Step("Token for jobs", False, str(fault)))
        return steps
    seconds = int((tokens.expires - now()).total_seconds())
    steps.append(Step("Token for jobs", True, f"granted {tokens.scope}, for {seconds} s"))
    access = await backend.access()
    steps.append(await _read(fhir.read(access, "metadata"), "CapabilityStatement", _version))
    steps.append(await _read(fhir.read(access, _SEARCH), "Search", _total))
    return steps


async def _read(reading: Any, name: str, say: Callable[[dict[str, Any]], str | None]) -> Step:
    try:
        said = say(msgspec.json.decode(await reading, type=dict[str, Any]))
    except ReadFailed as failure:
        return Step(name, False, str(failure))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Step(name, False, "not a FHIR resource")
    return Step(name, said is not None, said or "not the expected resource")


def _version(body: dict[str, Any]) -> str | None:
    version = body.get("fhirVersion")
    if body.get("resourceType") != "CapabilityStatement" or not isinstance(version, str):
        return None
    return f"FHIR {version[:20]}" if version.startswith("4.0") else None


def _total(body: dict[str, Any]) -> str | None:
    total = body.get("total")
    if body.get("resourceType") != "Bundle" or isinstance(total, bool) or not isinstance(total, int):
        return None
    return f"Patient: {total} in all"
