"""The OpenAPI description, made whole: types where references find them, and every refusal there is.

FastAPI writes what it knows; the forms are read from their bytes, so their types and the refusals of the
layers around the routes are added here.  FHIR and CDS Hooks routes are described by their own standards
(CapabilityStatement, discovery) and not again.
"""

from typing import Any

from fastapi import FastAPI

from cds_server.api.schemas import PredictRequest
from cds_server.auth.permissions import ANYONE, Table

_IN_COMPONENTS = "#/components/schemas/{model}"
_OUTCOME = "OperationOutcome"
_REFUSALS = {
    "400": "Not understood; names the field and repeats nothing that was sent.",
    "401": "Who calls is not known, or not proven.",
    "403": "The caller may not do this.",
    "405": "The path takes other methods.",
    "408": "The body did not arrive in time.",
    "413": "The body is larger than the site allows.",
    "415": "The body is not declared as JSON in UTF-8.",
    "422": "Understood, and cannot be assessed.",
    "429": "More calls than this caller's rate allows; `Retry-After` says when to come again.",
    "503": "Cannot be answered safely now, for example because it could not be recorded.",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The application's description; the application gives out the same from now on."""
    description = app.openapi()
    components = description.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    form = PredictRequest.model_json_schema(mode="validation", ref_template=_IN_COMPONENTS)
    schemas |= form.pop("$defs", {})
    schemas[PredictRequest.__name__] = form
    schemas[_OUTCOME] = _operation_outcome()
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    table = Table()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            permission = (table.methods(path) or {}).get(method.upper())
            if permission is not None and permission.roles is not ANYONE:
                operation["security"] = [{}, {"token": []}]  # the site's settings say whether it is needed
            for status, meaning in _REFUSALS.items():
                operation["responses"][status] = _refusal(meaning)
    return description


def reference(model: type[PredictRequest]) -> dict[str, str]:
    """The type of a body, by its name in the description."""
    return {"$ref": _IN_COMPONENTS.format(model=model.__name__)}


def _refusal(meaning: str) -> dict[str, Any]:
    schema = {"$ref": _IN_COMPONENTS.format(model=_OUTCOME)}
    return {"description": meaning, "content": {"application/fhir+json": {"schema": schema}}}


def _operation_outcome() -> dict[str, Any]:
    """What of FHIR R4's OperationOutcome this server gives."""
    text = {"type": "string"}
    issue = {
        "type": "object",
        "required": ["severity", "code", "diagnostics"],
        "properties": {
            "severity": {"const": "error"},
            "code": text,
            "diagnostics": text,
            "expression": {"type": "array", "items": text, "minItems": 1},
        },
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "required": ["resourceType", "issue"],
        "properties": {
            "resourceType": {"const": _OUTCOME},
            "issue": {"type": "array", "items": issue, "minItems": 1, "maxItems": 1},
        },
        "additionalProperties": False,
    }
