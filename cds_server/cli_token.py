"""How a command proves to a server who calls: as a CDS client with its key, or with a token it was given.

Neither key nor token is ever printed, and neither goes over a connection that others can read.
"""

import json
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from cds_server.auth.outbound import on_this_machine
from cds_server.secret_files import SecretUnreadable, revealed

VALID_SECONDS = 30
"""Of a token made here; the least that `CDS_CLIENT_TOKEN_SECONDS` can be set to."""
_LEAST_RSA_BITS = 2048
_ALGORITHM_OF = {"secp256r1": "ES256", "secp384r1": "ES384"}

IssuerOption = Annotated[
    str | None,
    typer.Option("--issuer", help="Call as the CDS client with this 'iss' (docs/authentication.md)."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", help="Its private key: PEM, P-384, P-256 or RSA, no passphrase.")
]
KidOption = Annotated[
    str | None,
    typer.Option("--kid", help="Id of that key in its key set (default: the RFC 7638 thumbprint)."),
]
JkuOption = Annotated[str | None, typer.Option("--jku", help="Address of its key set, to be in the token.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", help="Its tenant, to be in the token.")]
AudienceOption = Annotated[
    str | None,
    typer.Option(
        "--audience",
        help="CDS_PUBLIC_BASE_URL of the server, where it is not the URL that is called.",
    ),
]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="Send the token in this file instead of making one.")
]


class ProofUnusable(Exception):
    """What was given makes no proof.  Quotes neither key nor token."""


class ClientKey:
    """A CDS client's private key; shows nothing of it.

    Raises:
        ProofUnusable: the file is no such key.
    """

    def __init__(self, path: Path) -> None:
        try:
            loaded = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as fault:
            raise ProofUnusable(f"--key {path}: {fault.strerror}") from None
        except TypeError:
            raise ProofUnusable(f"--key {path}: is under a passphrase; write it without one") from None
        except Exception:  # noqa: BLE001 the library raises many kinds, and may quote what it read
            raise ProofUnusable(f"--key {path}: not a private key in PEM") from None
        found: tuple[str | None, type[ECKey] | type[RSAKey]] = (None, ECKey)
        if isinstance(loaded, EllipticCurvePrivateKey):
            found = (_ALGORITHM_OF.get(loaded.curve.name), ECKey)
        elif isinstance(loaded, RSAPrivateKey) and loaded.key_size >= _LEAST_RSA_BITS:
            found = ("RS384", RSAKey)
        algorithm, kind = found
        if algorithm is None:
            raise ProofUnusable(
                f"--key {path}: P-384, P-256, or RSA of {_LEAST_RSA_BITS} bits or more is taken"
            )
        self.algorithm = algorithm
        self._key = kind.import_key(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.kid = self._key.thumbprint()

    def __repr__(self) -> str:
        return f"<ClientKey {self.algorithm} {self.kid}>"

    def key_set(self, kid: str | None = None) -> dict[str, Any]:
        """The public half as a JWK Set (RFC 7517, 5), as the server's file of clients can name it."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": kid or self.kid, "alg": self.algorithm, "use": "sig"}]}

    def token(self, claims: dict[str, Any], header: dict[str, Any]) -> str:
        """A signed token in compact form."""
        registry = jws.JWSRegistry(algorithms=[self.algorithm], strict_check_header=False)
        return jws.serialize_compact(
            {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **header},
            json.dumps(claims),
            self._key,
            registry=registry,
        )


class AsClient(httpx.Auth):
    """Each request with a token of its own (CDS Hooks 2.0.1, "Trusting CDS Clients"): they are good once.

    Args:
        called: the base URL that is called.
        audience: the base URL that the server knows as its own.
    """

    def __init__(
        self,
        key: ClientKey,
        issuer: str,
        *,
        called: str,
        audience: str,
        tenant: str | None = None,
        kid: str | None = None,
        jku: str | None = None,
    ) -> None:
        self._key = key
        self._prefix = urlsplit(called).path.rstrip("/")
        self._audience = audience.rstrip("/")
        self._claims = {"iss": issuer} | ({"tenant": tenant} if tenant else {})
        self._header = {name: value for name, value in (("kid", kid), ("jku", jku)) if value}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        now = int(datetime.now(UTC).timestamp())
        claims = self._claims | {
            "aud": self._audience + request.url.path.removeprefix(self._prefix),
            "iat": now,
            "exp": now + VALID_SECONDS,
            "jti": str(uuid.uuid4()),
        }
        request.headers["Authorization"] = f"Bearer {self._key.token(claims, self._header)}"
        yield request


class WithToken(httpx.Auth):
    """Each request with the same token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See `httpx.Auth`."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a command was given to prove who calls; nothing, or what makes one kind of proof."""

    issuer: str | None = None
    key: Path | None = None
    kid: str | None = None
    jku: str | None = None
    tenant: str | None = None
    audience: str | None = None
    token_file: Path | None = None

    @property
    def given(self) -> bool:
        """Whether there is anything."""
        return self != Credentials()

    def proof(self, called: str) -> httpx.Auth | None:
        """What is sent along to a server at the base URL `called`; `None` without credentials.

        Raises:
            ProofUnusable: the parts do not make a proof, or others could read it on its way.
        """
        if not self.given:
            return None
        if not called.startswith("https://") and not on_this_machine(called):
            raise ProofUnusable(f"{called} is not https: whoever listens could call in your name")
        if self.token_file is not None:
            if self != Credentials(token_file=self.token_file):
                raise ProofUnusable("--token-file is sent as it is: leave out what would make a token")
            return WithToken(_token(self.token_file))
        if self.issuer is None or self.key is None:
            raise ProofUnusable("a token is made of --issuer and --key together (or read from --token-file)")
        return AsClient(
            ClientKey(self.key),
            self.issuer,
            called=called,
            audience=self.audience or called,
            tenant=self.tenant,
            kid=self.kid,
            jku=self.jku,
        )


def _token(path: Path) -> str:
    try:
        token = revealed("--token-file", f"@{path}")
    except SecretUnreadable as fault:
        raise ProofUnusable(str(fault)) from None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ProofUnusable(f"--token-file names {path}: not a token (one word)")
    return token
