"""Certificate authorities made for a test, and what they sign: the certificates of databases and callers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A certificate authority of its own; `file` is its certificate (PEM), for those who trust it."""

    def __init__(self, directory: Path, name: str = "hospital") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            _builder(self._name, self._key, datetime.now(UTC) + _HOUR)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, *, addresses: Sequence[str] = (), name: str = "database", expired: bool = False
    ) -> Issued:
        """A certificate for IP addresses (a server's), or for a common name alone (a caller's)."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = datetime.now(UTC) + (-_HOUR if expired else _HOUR)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        building = _builder(subject, key, until).issuer_name(self._name)
        if addresses:
            names = [x509.IPAddress(ip_address(address)) for address in addresses]
            building = building.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = building.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(made.public_bytes(serialization.Encoding.PEM), private)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - 2 * _HOUR)
        .not_valid_after(until)
    )
