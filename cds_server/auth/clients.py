"""The CDS clients a site trusts: the file that lists them, checked field by field when it is read.

One ``[[client]]`` table per EHR (or per tenant of one issuer).  Reading it fetches nothing; reading it anew
keeps what was fetched for clients whose keys still come from the same place.  An example::

    [[client]]
    name = "main-ehr"
    issuer = "https://ehr.hospital.example"
    jku = "https://ehr.hospital.example/.well-known/jwks.json"
    tenants = ["north"]
    fhir_servers = ["https://ehr.hospital.example/north/fhir"]
    rate_per_minute = 12000
"""

import json
import ssl
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from cds_server.auth.jwks import KeySource, RemoteKeys
from cds_server.auth.key_files import FileKeys
from cds_server.auth.outbound import AddressRefused, Outbound, ServerUnreachable, check_address
from cds_server.auth.principal import Role
from fhir_adapters.origin import ServerBase, ServerNotAllowed

_CLIENT_ROLES = frozenset({Role.CDS_CLIENT, Role.CLINICIAN, Role.DATA_SCIENTIST, Role.AUDITOR, Role.OPERATOR})
_LARGEST_FILE = 1_000_000

Print = tuple[int, int, int] | None
"""What tells one state of a file from another without reading it; `None`: not there."""


class ClientsFileInvalid(Exception):
    """The file of trusted clients does not hold.  `faults` name field and fix, one per line of the text."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        super().__init__(
            "\n".join([f"The file of trusted clients {path} does not hold:", *(f"  {f}" for f in faults)])
        )
        self.faults = faults


class ClientEntry(BaseModel):
    """One client as the file describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    issuer: str = Field(min_length=1, max_length=255)
    jku: str | None = None
    jwks_file: Path | None = None
    ca_file: Path | None = None
    tenants: tuple[str, ...] = ()
    fhir_servers: tuple[str, ...] = ()
    rate_per_minute: int | None = Field(default=None, ge=1, le=10_000_000)
    roles: frozenset[Role] = frozenset({Role.CDS_CLIENT})

    @field_validator("issuer")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable() or value != value.strip():
            raise ValueError("write it exactly as the client's tokens carry it in 'iss'")
        return value

    @field_validator("jku")
    @classmethod
    def _fetchable(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                check_address(value, origin=value)
            except AddressRefused as fault:
                raise ValueError(f"{fault}: write a URL such as https://ehr.example/jwks.json") from None
        return value

    @field_validator("tenants")
    @classmethod
    def _tenants(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value) or not all(value):
            raise ValueError("each tenant once, none empty")
        return value

    @field_validator("fhir_servers")
    @classmethod
    def _servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            bases = tuple(ServerBase.parse(url).url for url in value)
        except ServerNotAllowed as fault:
            raise ValueError(f"{fault}: write base URLs such as https://ehr.example/fhir") from None
        if len(set(bases)) != len(bases):
            raise ValueError("each FHIR server once")
        return bases

    @field_validator("roles")
    @classmethod
    def _roles(cls, value: frozenset[Role]) -> frozenset[Role]:
        if not value or not value <= _CLIENT_ROLES:
            raise ValueError(f"at least one of {', '.join(sorted(_CLIENT_ROLES))}")
        return value

    @model_validator(mode="after")
    def _keys_come_from_somewhere(self) -> Self:
        if self.jku is None and self.jwks_file is None:
            raise ValueError(
                "jku or jwks_file: give the URL of the client's public keys, or a file of them when they "
                "were exchanged by hand (both: the tokens may name the URL, the keys are read from the file)"
            )
        if self.ca_file is not None and (self.jku is None or self.jwks_file is not None):
            raise ValueError("ca_file: is for fetching from jku; leave it out when the keys come from a file")
        return self

    def canonical(self) -> str:
        """All it says, in one way: two entries that mean the same have the same text."""
        said = self.model_dump(mode="json")
        # No list in it has an order that means something, and those of sets have another in each process.
        ordered = {name: sorted(value, key=str) for name, value in said.items() if isinstance(value, list)}
        return json.dumps(said | ordered, sort_keys=True)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    client: tuple[ClientEntry, ...]


@dataclass(frozen=True, slots=True)
class TrustedClient:
    """A client with where its keys come from.

    Attributes:
        servers: the FHIR servers its patients are on, in the form of `ServerBase.url`; none: any that
            no other client lists.
        rate: in calls a minute, `None` for the site's default.
        place: where the keys come from; of one place there is one `keys`, which remembers what it fetched.
        described: the entry's text, which tells whether it was changed.
    """

    name: str
    issuer: str
    jku: str | None
    tenants: frozenset[str]
    servers: tuple[str, ...]
    rate: int | None
    roles: frozenset[Role]
    keys: KeySource = field(compare=False)
    place: "_Place"
    described: str

    def admits(self, tenant: object) -> bool:
        """Whether a token with that `tenant` claim is this client's.

        A tenant that is not listed is another hospital of the same vendor, so it is refused also where
        no tenant is listed at all.
        """
        return isinstance(tenant, str) and tenant in self.tenants if self.tenants else tenant is None


class TrustedClients:
    """All clients of a site, found by their issuer and tenant.

    Args:
        outbounds: what keys are fetched over, by file of CAs.
        files: what was read, as it was found.
        former: the clients until now; calls of theirs may be under way.
    """

    def __init__(
        self,
        clients: tuple[TrustedClient, ...] = (),
        outbounds: "Mapping[_Authorities, Outbound] | None" = None,
        files: Mapping[Path, Print] | None = None,
        former: tuple[TrustedClient, ...] = (),
    ) -> None:
        self.clients = clients
        self.outbounds = dict(outbounds or {})
        self._files = dict(files or {})
        by_issuer: defaultdict[str, list[TrustedClient]] = defaultdict(list)
        for client in clients:
            by_issuer[client.issuer].append(client)
        self._by_issuer: Mapping[str, list[TrustedClient]] = by_issuer
        self._former = TrustedClients(former) if former else None

    def knows(self, issuer: str) -> bool:
        """Whether any client has that issuer."""
        return issuer in self._by_issuer

    def find(self, issuer: str, tenant: object) -> TrustedClient | None:
        """The client of an issuer and a tenant."""
        candidates = self._by_issuer.get(issuer, ())
        return next((client for client in candidates if client.admits(tenant)), None)

    def rate_of(self, issuer: str, tenant: str | None) -> int | None:
        """The rate the file gives a client, in calls a minute."""
        client = self.find(issuer, tenant)
        return client.rate if client is not None else None

    def prints(self) -> dict[Path, Print]:
        """How the files that were read are found now."""
        return {path: _print(path) for path in self._files}

    def current(self) -> bool:
        """Whether those files are still as they were."""
        return self.prints() == self._files

    def described(self) -> dict[str, str]:
        """What the file says of each client, by name."""
        return {client.name: client.described for client in self.clients}

    def servers_of(self, issuer: str, tenant: str | None) -> tuple[str, ...] | None:
        """The FHIR servers of a client, as its entry lists them; none: it may name any that nobody lists.

        A call that was let in before its client was taken out ends under the entry it was let in with; `None`
        when that is not known any more.
        """
        client = self.find(issuer, tenant)
        if client is None:
            return self._former.servers_of(issuer, tenant) if self._former is not None else None
        return client.servers

    def listed(self, server: str) -> bool:
        """Whether any entry lists the server."""
        return any(server in client.servers for client in self.clients)

    async def close(self) -> None:
        """Close the connections keys were fetched over."""
        for outbound in self.outbounds.values():
            await outbound.close()


def load_clients(path: Path, former: TrustedClients | None = None) -> TrustedClients:
    """Read and check the file of trusted clients; paths in it are relative to it.  Fetches nothing.

    Args:
        former: those in use until now, whose keys and connections go on where their place is the same.

    Raises:
        ClientsFileInvalid: with everything that is wrong, each with its field and what to write.
    """
    former = former or TrustedClients()
    files = {path: _print(path)}  # first: a file that is replaced meanwhile is read once more
    entries = read_entries(path)
    faults: list[str] = []
    clients = []
    outbounds: dict[_Authorities, Outbound] = {}
    known = {client.place: client.keys for client in former.clients}
    for entry in entries:
        place = _place(entry, path.parent, files)
        try:
            keys = known.get(place)
            if keys is None:
                keys = known[place] = _keys(place, outbounds, former)
        except ServerUnreachable as fault:
            faults.append(f"client {entry.name}: jwks_file: {fault}: give a readable JWK Set of public keys")
            continue
        if place.authorities in former.outbounds:
            outbounds.setdefault(place.authorities, former.outbounds[place.authorities])
        clients.append(_client(entry, place, keys))
    if faults:
        raise ClientsFileInvalid(path, faults)
    return TrustedClients(tuple(clients), outbounds, files, former.clients)


def read_entries(path: Path) -> tuple[ClientEntry, ...]:
    """The entries of the file, checked one by one and against each other; raises as `load_clients` does."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ClientsFileInvalid(path, [f"larger than {_LARGEST_FILE} bytes"])
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise ClientsFileInvalid(path, [f"cannot be read: {fault.strerror}"]) from None
    except UnicodeDecodeError:
        raise ClientsFileInvalid(path, ["write it in UTF-8"]) from None
    except tomllib.TOMLDecodeError as fault:
        raise ClientsFileInvalid(path, [f"not TOML: {fault}"]) from None
    except RecursionError:
        raise ClientsFileInvalid(path, ["nested too deeply"]) from None
    try:
        entries = _File.model_validate(document).client
    except ValidationError as error:
        raise ClientsFileInvalid(path, [_fault(one, document) for one in error.errors()]) from None
    faults = _together(entries, path.parent) if entries else ["write at least one [[client]] table"]
    if faults:
        raise ClientsFileInvalid(path, faults)
    return entries


@dataclass(frozen=True, slots=True)
class _Authorities:
    """A file of CAs in one state; without a path, the system's."""

    path: Path | None = None
    found: Print = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where keys come from: a file, or an address that is asked with these CAs."""

    file: Path | None
    jku: str | None
    authorities: _Authorities


def _place(entry: ClientEntry, directory: Path, files: dict[Path, Print]) -> _Place:
    if entry.jwks_file is not None:
        return _Place(directory / entry.jwks_file, None, _Authorities())
    if entry.ca_file is None:
        return _Place(None, entry.jku, _Authorities())
    path = directory / entry.ca_file
    return _Place(None, entry.jku, _Authorities(path, files.setdefault(path, _print(path))))


def _keys(place: _Place, outbounds: dict[_Authorities, Outbound], former: TrustedClients) -> KeySource:
    if place.file is not None:
        return FileKeys(place.file)
    authorities = place.authorities
    if authorities not in outbounds:
        outbounds[authorities] = former.outbounds.get(authorities) or Outbound(ca_file=authorities.path)
    return RemoteKeys(outbounds[authorities], partial(_at, place.jku or ""))


def _client(entry: ClientEntry, place: _Place, keys: KeySource) -> TrustedClient:
    return TrustedClient(
        name=entry.name,
        issuer=entry.issuer,
        jku=entry.jku,
        tenants=frozenset(entry.tenants),
        servers=entry.fhir_servers,
        rate=entry.rate_per_minute,
        roles=entry.roles,
        keys=keys,
        place=place,
        described=entry.canonical(),
    )


def _print(path: Path) -> Print:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


async def _at(url: str) -> str:
    return url


def _together(entries: tuple[ClientEntry, ...], directory: Path) -> list[str]:
    faults = []
    names: set[str] = set()
    held: dict[str, dict[str | None, str]] = {}
    for entry in entries:
        if entry.name in names:
            faults.append(f"client {entry.name}: name: used twice; give each client its own")
        names.add(entry.name)
        mine = held.setdefault(entry.issuer, {})
        for tenant in entry.tenants or (None,):
            if tenant in mine:
                what = f"tenant {tenant!r}" if tenant else "the issuer without a tenant"
                faults.append(f"client {entry.name}: issuer: {what} is already client {mine[tenant]}'s")
            mine.setdefault(tenant, entry.name)
        if entry.ca_file is not None and (fault := _no_authorities(directory / entry.ca_file)):
            faults.append(f"client {entry.name}: ca_file: {entry.ca_file} {fault}")
    return faults


def _no_authorities(path: Path) -> str | None:
    """What keeps a file from being one of CAs."""
    if not path.is_file():
        return "is not a file beside this one"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(path))
    except (OSError, ValueError):  # an SSLError is an OSError
        return "holds no certificate in PEM"
    return None


def _fault(error: ErrorDetails, document: Mapping[str, Any]) -> str:
    """A complaint: the client it is about, its field, and the fix where the type alone does not say it."""
    location = [str(step) for step in error["loc"]]
    where = "the file"
    if len(location) > 1 and location[0] == "client" and location[1].isdigit():
        number = int(location[1])
        name = (
            document["client"][number].get("name") if isinstance(document["client"][number], dict) else None
        )
        where = (
            f"client {name}"
            if isinstance(name, str) and name.isprintable()
            else f"client number {number + 1}"
        )
        location = location[2:]
    field = ".".join(location)
    kind = error["type"]
    fix = {
        "missing": "required: add it"
        if field != "client"
        else "required: write at least one [[client]] table",
        "extra_forbidden": f"not a field; known are {', '.join(ClientEntry.model_fields)}"
        if where != "the file"
        else "not a field; the file holds [[client]] tables",
        "string_pattern_mismatch": "letters, digits, '.', '_', '-'; at most 64, the first a letter or digit",
    }.get(kind, error["msg"].removeprefix("Value error, "))
    return f"{where}: {field}: {fix}" if field else f"{where}: {fix}"
