"""The page at `/docs`: what the server answers and what the simple form takes, as plain HTML.

Made once from the OpenAPI description; loads no script, style or font, so it reads the same on a laptop
without a network and under the strictest content security policy.  The machine-readable description
stays at `/openapi.json`.
"""

from html import escape
from typing import Any

from starlette.routing import BaseRoute, Route

from cds_server.http import Answer, Call, Endpoint

_PATHS = (
    ("GET", "/cds-services", "CDS Hooks discovery"),
    ("POST", "/cds-services/{id}", "CDS Hooks call: a request in, cards out"),
    ("POST", "/cds-services/{id}/feedback", "CDS Hooks feedback on cards"),
    ("POST", "/fhir/$assess", "A FHIR R4 Bundle of one patient in, Parameters out"),
    ("GET", "/fhir/metadata", "FHIR CapabilityStatement"),
    ("GET", "/fhir/AuditEvent", "Search the audit trail (also POST _search); each use is recorded"),
    ("GET", "/fhir/AuditEvent/{id}", "One audit event"),
    ("GET", "/audit", "The audit trail for people: filter, read, export"),
    ("GET", "/health/live", "The process answers"),
    ("GET", "/health/ready", "Answers can be made and recorded"),
    ("GET", "/metrics", "Prometheus metrics"),
)


def documentation_route(description: dict[str, Any]) -> BaseRoute:
    """The route of the page for an OpenAPI description."""
    page = _page(description).encode()

    async def show(_: Call) -> Answer:
        return Answer(page, media_type=b"text/html; charset=utf-8")

    return Route("/docs", Endpoint(show, "GET"))


def _page(description: dict[str, Any]) -> str:
    info = description["info"]
    paths = list(_PATHS)
    forms: list[str] = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            paths.append((method.upper(), path, operation.get("summary", "")))
            types = description["components"]["schemas"]
            body, answer = _body_name(operation), _answer_name(operation)
            if body:
                forms.append(_form(f"{method.upper()} {path}", types[body], _named_in(body, types)))
            if answer:
                forms.append(_form("The answer", types[answer], _named_in(answer, types), level=3))
    rows = "".join(
        f"<tr><td>{escape(method)}</td><td><code>{escape(path)}</code></td><td>{escape(summary)}</td></tr>\n"
        for method, path, summary in paths
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(info['title'])}</title></head><body>\n"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>\n<p>{escape(info.get('summary', ''))}. "
        "Every refusal is a FHIR OperationOutcome. Machine-readable: "
        '<a href="/openapi.json">/openapi.json</a>.</p>\n'
        f'<table border="1" cellpadding="6">\n{rows}</table>\n{"".join(forms)}</body></html>\n'
    )


def _body_name(operation: dict[str, Any]) -> str:
    """The type of a call's body, empty without one."""
    return _type_of(operation.get("requestBody", {}))


def _form(title: str, schema: dict[str, Any], types: dict[str, Any], level: int = 2) -> str:
    """The members of a JSON body, then those of each type it names."""
    parts = [f"<h{level}>{escape(title)}</h{level}>\n", _members(schema)]
    for name, inner in types.items():
        if inner.get("properties"):
            parts += [f"<h{level + 1}>{escape(name)}</h{level + 1}>\n", _members(inner)]
    return "".join(parts)


def _answer_name(operation: dict[str, Any]) -> str:
    """The type of the answer to a call, empty for one that is not described."""
    return _type_of(operation.get("responses", {}).get("200", {}))


def _type_of(described: dict[str, Any]) -> str:
    schema = described.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _named_in(name: str, types: dict[str, Any]) -> dict[str, Any]:
    """The types that a type names, in the order they are named."""
    named: dict[str, Any] = {}

    def follow(value: Any) -> None:
        if isinstance(value, dict):
            inner = str(value.get("$ref", "")).rpartition("/")[2]
            if inner in types and inner not in named:
                named[inner] = types[inner]
                follow(types[inner])
            for member in value.values():
                follow(member)
        elif isinstance(value, list):
            for member in value:
                follow(member)

    follow(types[name].get("properties", {}))
    return named


def _members(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_type(member))}</td>"
        f"<td>{'required' if name in required else ''}</td>"
        f"<td>{escape(member.get('description', ''))}</td></tr>\n"
        for name, member in schema.get("properties", {}).items()
    )
    return f'<table border="1" cellpadding="6">\n{rows}</table>\n'


def _type(member: dict[str, Any]) -> str:
    if "$ref" in member:
        return str(member["$ref"]).rpartition("/")[2]
    if "anyOf" in member:
        return " or ".join(_type(option) for option in member["anyOf"] if option.get("type") != "null")
    if "enum" in member:
        return " | ".join(str(value) for value in member["enum"])
    kind = str(member.get("type", member.get("const", "any")))
    text = f"list of {_type(member.get('items', {}))}" if kind == "array" else kind
    limits = [f"{sign} {member[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in member]
    return f"{text} ({', '.join(limits)})" if limits else text
