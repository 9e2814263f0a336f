"""The EHRs this server is registered with as a SMART app: the allow list of launches, validated on load.

A TOML file (``CDS_SMART_EHRS``), one ``[[ehr]]`` each; docs/smart.md explains every member.  An `iss`
that is not in it is refused before anything is fetched.
"""

import re
import tomllib
from pathlib import Path
from typing import Literal, Self

import msgspec

from cds_server.auth.outbound import AddressRefused, check_address
from cds_server.auth.principal import Role
from cds_server.settings import Settings
from fhir_adapters.origin import AllowList, ServerBase, ServerNotAllowed

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*\Z")  # RFC 6749, 3.3
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,512}\Z")
_SECRET = re.compile(r"[\x20-\x7e]{1,512}\Z")  # RFC 6749, appendix A.2
_ROLES_OF_A_LAUNCH = (Role.CLINICIAN, Role.CLINICIAN_ADMIN)

Algorithm = Literal["ES384", "RS384"]
"""SMART App Launch 2.2, client-confidential-asymmetric: clients support at least one of the two."""


class EhrsInvalid(ValueError):
    """The file of EHRs does not hold; names the entry, the member, and how to put it right."""


class Backend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SMART Backend Services registration: always by key, never by secret."""

    client_id: str
    scope: str = "system/*.rs"
    algorithm: Algorithm = "ES384"


class Ehr(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One EHR; the members are those of the file."""

    name: str
    iss: str
    client_id: str = ""
    title: str = ""
    issuer: str | None = None
    client_auth: Literal["private_key_jwt", "client_secret_basic"] = "private_key_jwt"
    algorithm: Algorithm = "ES384"
    client_secret_file: str | None = None
    scope: str = "launch openid fhirUser patient/*.rs"
    standalone_scope: str = "launch/patient openid fhirUser patient/*.rs"
    standalone: bool = True
    own_callback: bool = False
    roles: tuple[str, ...] = (Role.CLINICIAN,)
    backend: Backend | None = None

    @property
    def base(self) -> ServerBase:
        """The FHIR server."""
        return ServerBase.parse(self.iss)

    @property
    def label(self) -> str:
        """What people call it."""
        return self.title or self.name

    @property
    def callback_path(self) -> str:
        """Where its authorization server sends browsers back to."""
        return f"/smart/callback/{self.name}" if self.own_callback else "/smart/callback"

    def granted_roles(self) -> frozenset[Role]:
        """Roles of a practitioner who came in by a launch."""
        return frozenset(Role(role) for role in self.roles)

    def secret(self) -> str:
        """The client secret, read from its file; one line, kept nowhere.

        Raises:
            EhrsInvalid: there is none to be read.
        """
        try:
            text = Path(self.client_secret_file or "").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise EhrsInvalid(f"client_secret_file cannot be read ({type(fault).__name__})") from None
        if not _SECRET.match(text):
            raise EhrsInvalid("client_secret_file does not hold one line with a secret")
        return text


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ehr: tuple[Ehr, ...]


class Ehrs(msgspec.Struct, frozen=True):
    """All registered EHRs."""

    entries: tuple[Ehr, ...] = ()

    @classmethod
    def load(cls, path: Path, *, readable: AllowList) -> Self:
        """Read and check the file.

        Args:
            readable: the FHIR servers the site lets us read (``CDS_FHIR_SERVER_ALLOWLIST``).

        Raises:
            EhrsInvalid: cannot be read, is not TOML, or an entry does not hold.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise EhrsInvalid(
                f"CDS_SMART_EHRS: {path.name} cannot be read ({type(fault).__name__})"
            ) from None
        return cls.parse(text, readable=readable)

    @classmethod
    def parse(cls, text: str, *, readable: AllowList) -> Self:
        """See `load`."""
        try:
            entries = msgspec.convert(tomllib.loads(text), _File).ehr
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as fault:
            raise EhrsInvalid(f"CDS_SMART_EHRS: {fault}") from None
        for entry in entries:
            _check(entry, readable)
        for what, values in (
            ("name", [entry.name for entry in entries]),
            ("iss", [entry.base.url for entry in entries]),
        ):
            if len(set(values)) != len(values):
                raise EhrsInvalid(f"CDS_SMART_EHRS: two entries have the same {what}")
        shared = [entry.name for entry in entries if not entry.own_callback and entry.client_id]
        if len(shared) > 1:
            # RFC 9700, 4.4.2.2: distinct redirect URIs keep one authorization server's codes from another's.
            raise EhrsInvalid(
                f"CDS_SMART_EHRS: {', '.join(shared)} would share /smart/callback; set own_callback = true "
                "for all but one and register /smart/callback/NAME there, so that a code of one EHR never "
                "reaches another"
            )
        return cls(entries)

    def by_iss(self, iss: str) -> Ehr | None:
        """The EHR a launch names by its FHIR base URL, or `None`: nothing may be asked of it then."""
        try:
            wanted = ServerBase.parse(iss)
        except ServerNotAllowed:
            return None
        return next((entry for entry in self.entries if entry.base == wanted), None)

    def by_name(self, name: str) -> Ehr | None:
        """The EHR of a name."""
        return next((entry for entry in self.entries if entry.name == name), None)


def _check(entry: Ehr, readable: AllowList) -> None:
    try:
        if not _NAME.match(entry.name):
            raise EhrsInvalid("name must be lower-case letters, digits and hyphens; it is part of a path")
        _check_iss(entry, readable)
        _check_client(entry)
        _check_scopes(entry)
        if not entry.roles or any(role not in _ROLES_OF_A_LAUNCH for role in entry.roles):
            raise EhrsInvalid(f"roles must be of {', '.join(_ROLES_OF_A_LAUNCH)}")
    except EhrsInvalid as fault:
        raise EhrsInvalid(f"CDS_SMART_EHRS, ehr {entry.name[:40]!r}: {fault}") from None


def _check_iss(entry: Ehr, readable: AllowList) -> None:
    try:
        check_address(entry.iss, origin=entry.iss)
        readable.admit(entry.iss)
    except AddressRefused as fault:
        raise EhrsInvalid(f"iss: {fault}") from None
    except ServerNotAllowed as fault:
        raise EhrsInvalid(f"iss: {fault}; add it to CDS_FHIR_SERVER_ALLOWLIST") from None


def _check_client(entry: Ehr) -> None:
    if not entry.client_id and entry.backend is None:
        raise EhrsInvalid(
            "client_id is missing (the one the EHR gave this app), and there is no [ehr.backend]"
        )
    ids = {
        "client_id": entry.client_id,
        "backend.client_id": entry.backend.client_id if entry.backend else "",
    }
    for name, client_id in ids.items():
        if client_id and not _PRINTABLE.match(client_id):
            raise EhrsInvalid(f"{name} must be printable ASCII without spaces")
    if entry.client_auth == "client_secret_basic":
        entry.secret()
    elif entry.client_secret_file is not None:
        raise EhrsInvalid('client_secret_file is only for client_auth = "client_secret_basic"')


def _check_scopes(entry: Ehr) -> None:
    for name, scope in (("scope", entry.scope), ("standalone_scope", entry.standalone_scope)):
        if not _SCOPES.match(scope):
            raise EhrsInvalid(f"{name} must be scopes with one space between")
        if not {"openid", "fhirUser"} <= set(scope.split()):
            raise EhrsInvalid(f"{name} must hold openid and fhirUser: who is logged in must be known")
    if "launch" not in entry.scope.split():
        raise EhrsInvalid("scope must hold launch")
    if entry.backend is not None and not _SCOPES.match(entry.backend.scope):
        raise EhrsInvalid("backend.scope must be scopes with one space between")


def registered(settings: Settings) -> Ehrs:
    """The EHRs of a site's settings.

    Raises:
        EhrsInvalid: the file does not hold.
    """
    if settings.smart_ehrs is None:
        return Ehrs()
    return Ehrs.load(settings.smart_ehrs, readable=settings.fhir_servers)
