"""An EHR of our own: signs tokens as CDS Hooks has it and publishes its keys over HTTP."""

import asyncio
import base64
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fhir_standin import serving
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

BASE = "https://cds.hospital.example"
"""How the tests' callers address the server, whatever port it really listens on."""
ISSUER = "https://ehr.hospital.example"


def segment(value: Any) -> str:
    """A part of a compact token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Ehr:
    """Keys, tokens and a JWK Set server; `asked` counts its requests, `misbehave` replaces its answer."""

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.keys: dict[str, Any] = {"ec": ECKey.generate_key("P-384"), "rsa": RSAKey.generate_key(2048)}
        self.published = ["ec", "rsa"]
        self.asked = 0
        self.url = ""
        self.misbehave: str | None = None
        self.app = Starlette(routes=[Route("/jwks.json", self._answer), Route("/elsewhere", self._elsewhere)])
        self.followed = 0

    @property
    def jku(self) -> str:
        return f"{self.url}/jwks.json"

    def key_set(self) -> dict[str, Any]:
        return {"keys": [self.keys[kid].as_dict(private=False) | {"kid": kid} for kid in self.published]}

    async def _answer(self, _: Request) -> Response:
        self.asked += 1
        match self.misbehave:
            case "slow":
                await asyncio.sleep(0.3)
            case "down":
                return Response(status_code=503)
            case "redirect":
                return RedirectResponse(f"{self.url}/elsewhere")
            case "large":
                return Response(b'{"keys": [' + b" " * 2_000_000 + b"]}", media_type="application/json")
            case "nonsense":
                return Response(b"<html>", media_type="text/html")
        return JSONResponse(self.key_set())

    async def _elsewhere(self, _: Request) -> Response:
        self.followed += 1
        return JSONResponse(self.key_set())

    def claims(self, path: str, **changes: Any) -> dict[str, Any]:
        """The claims of a valid token for a path of the server; a change to `None` removes one."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": BASE + path,
            "iat": now,
            "exp": now + 240,
            "jti": str(uuid.uuid4()),
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(
        self, path: str, *, header: dict[str, Any] | None = None, kid: str = "ec", **changes: Any
    ) -> str:
        """A token for a path, signed with the key `kid`; `header` and `changes` override, `None` removes."""
        key = self.keys[kid]
        alg = {"EC": {"P-384": "ES384", "P-256": "ES256"}.get(getattr(key, "curve_name", "")), "RSA": "RS384"}
        full = {"alg": alg[key.key_type], "typ": "JWT", "kid": kid} | (header or {})
        full = {name: value for name, value in full.items() if value is not None}
        registry = jws.JWSRegistry(algorithms=[full["alg"]], strict_check_header=False)
        payload = json.dumps(self.claims(path, **changes))
        return jws.serialize_compact(full, payload, key, registry=registry)

    def headers(self, path: str, **options: Any) -> dict[str, str]:
        """The Authorization header of a call to a path."""
        return {"Authorization": f"Bearer {self.token(path, **options)}"}

    def unsigned(self, path: str) -> str:
        """A token with ``alg: none``."""
        return f"{segment({'alg': 'none', 'typ': 'JWT', 'kid': 'ec'})}.{segment(self.claims(path))}."

    def symmetric(self, path: str, algorithm: str, kid: str) -> str:
        """A token "signed" with our public key as the secret of an HMAC (algorithm confusion)."""
        header = {"alg": algorithm, "typ": "JWT", "kid": kid}
        signed = f"{segment(header)}.{segment(self.claims(path))}"
        mac = hmac.digest(self.keys[kid].as_pem(private=False), signed.encode(), f"sha{algorithm[2:]}")
        return f"{signed}.{segment(mac)}"

    def file(self, directory: Path, **changes: Any) -> Path:
        """A file of trusted clients that lists this EHR by its `jku`."""
        return clients_file(directory, {"name": "main-ehr", "issuer": self.issuer, "jku": self.jku} | changes)


@contextmanager
def published(ehr: Ehr) -> Iterator[Ehr]:
    """Serve the EHR's keys."""
    with serving(ehr.app) as url:
        ehr.url = url
        yield ehr


def clients_file(directory: Path, *clients: dict[str, Any]) -> Path:
    """Write a file of trusted clients; members that are `None` are left out."""
    lines = []
    for client in clients:
        lines.append("[[client]]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in client.items() if value is not None]
    path = directory / "clients.toml"
    # At once: a server that watches the file must not find half of it on a slow machine.
    part = directory / ".clients.toml.part"
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return part.replace(path)


def protected(clients: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a server where callers must authenticate."""
    return {"client_auth": "required", "trusted_clients": clients, "public_base_url": BASE} | changes
