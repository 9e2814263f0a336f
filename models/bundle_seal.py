"""The seal of a model bundle: manifest, digests and the Ed25519 signature, and the keys that are trusted.

Responsible for deciding whether bytes are the ones a trusted person signed, before anybody interprets
them.  Makes no keys (that takes randomness, see ``cds-server bundle keys new``) and knows nothing of
models.  Signed are the bytes of ``manifest.json``, which holds the SHA-256 of every other file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from models.bundle_files import (
    TOTAL_LIMIT,
    BundleDigestMismatch,
    BundleSignatureInvalid,
    BundleUnreadable,
    Source,
    open_bundle,
)

MANIFEST, SIGNATURE = "manifest.json", "signature.json"
_SMALL = 1024 * 1024
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
_KeyId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]
_Date = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}([T ][0-9:.]+(Z|[+-]\d{2}:\d{2})?)?$")]


class KeysInvalid(Exception):
    """A key file that cannot be used; the text says why and what to do, never what is in it."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle is and what it was made from.

    `created` is an ISO date, `knowledge_release` the digest of the knowledge base, `ontology` the HPO
    release, `feature_digest` the SHA-256 of ``features.json``, `files` the SHA-256 of every file except
    the manifest and its signature.  `metrics` are the figures of the model card, `licences` says for each
    source what it may be used for.
    """

    name: _Name
    version: _Name
    created: _Date
    knowledge_release: str
    ontology: str
    feature_digest: _Digest
    training_data_digest: str
    code_revision: str
    metrics: dict[str, float]
    licences: dict[str, str]
    files: dict[str, _Digest]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signed ``manifest.json`` (`key_id`) and the 64 bytes of the signature, in hexadecimal."""

    algorithm: Literal["Ed25519"]
    key: _KeyId
    signature: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}$")]


class TrustedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public key in hexadecimal, with its `key_id` and a word on whose it is."""

    id: _KeyId
    public: _Digest
    note: str = ""


class TrustedKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of trusted keys."""

    keys: tuple[TrustedKey, ...]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A bundle's bytes, proven: the manifest and all files that it lists."""

    manifest: Manifest
    files: Mapping[str, bytes]


def canonical(value: object) -> bytes:
    """JSON with sorted members and no spaces: the same value gives the same bytes."""
    return msgspec.json.encode(value, order="sorted")


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def bundle_id(manifest: Manifest) -> str:
    """What audit events, cards and logs call a bundle: ``common-1.0.0+0123456789ab``."""
    return f"{manifest.name}-{manifest.version}+{sha256(canonical(manifest))[:12]}"


def key_id(key: Ed25519PublicKey) -> str:
    """What a public key is called in signatures and messages: 16 hexadecimal digits of its SHA-256."""
    return sha256(key.public_bytes_raw())[:16]


def seal(manifest: Manifest, key: Ed25519PrivateKey) -> dict[str, bytes]:
    """``manifest.json`` and ``signature.json``."""
    data = canonical(manifest)
    signature = Signature("Ed25519", key_id(key.public_key()), key.sign(data).hex())
    return {MANIFEST: data, SIGNATURE: canonical(signature)}


def unseal(path: Path, trusted: Sequence[Ed25519PublicKey]) -> Sealed:
    """The proven bytes of the bundle at `path`: signature first, then digests; nothing is interpreted.

    Raises `BundleUnreadable`, `BundleSignatureInvalid` or `BundleDigestMismatch`.
    """
    with open_bundle(path) as source:
        names = source.names()
        for name in (MANIFEST, SIGNATURE):
            if name not in names:
                raise BundleUnreadable(f"{name} is missing: this is no model bundle, or not all of it")
        data = source.read(MANIFEST, _SMALL)
        _check_signature(data, source.read(SIGNATURE, _SMALL), trusted)
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            raise BundleUnreadable(f"manifest.json is of another version of this software: {fault}") from None
        if canonical(manifest) != data:
            raise BundleUnreadable("manifest.json is not in canonical form: write it with write_bundle")
        return Sealed(manifest, _check_digests(source, names, manifest))


def _check_signature(data: bytes, signed: bytes, trusted: Sequence[Ed25519PublicKey]) -> None:
    try:
        signature = msgspec.json.decode(signed, type=Signature)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BundleSignatureInvalid("signature.json holds no Ed25519 signature") from None
    if canonical(signature) != signed:
        raise BundleSignatureInvalid("signature.json was changed: copy the bundle again")
    key = next((key for key in trusted if key_id(key) == signature.key), None)
    if key is None:
        known = ", ".join(key_id(key) for key in trusted) or "none"
        raise BundleSignatureInvalid(
            f"signed by key {signature.key}, which is not trusted here (trusted: {known}): if the signer is "
            "right, add the public key to the file named by CDS_TRUSTED_MODEL_KEYS"
        )
    try:
        key.verify(bytes.fromhex(signature.signature), data)
    except InvalidSignature:
        raise BundleSignatureInvalid(
            "manifest.json is not what was signed: the bundle was changed or damaged; copy it again"
        ) from None


def _check_digests(source: Source, names: frozenset[str], manifest: Manifest) -> dict[str, bytes]:
    unsigned = sorted(names - manifest.files.keys() - {MANIFEST, SIGNATURE})
    if unsigned:
        raise BundleDigestMismatch(f"{unsigned[0]} is in the bundle but was not signed: remove it")
    files: dict[str, bytes] = {}
    left = TOTAL_LIMIT
    for name, expected in sorted(manifest.files.items()):
        if name not in names:
            raise BundleDigestMismatch(f"{name} is missing: copy the bundle again")
        data = source.read(name, left)
        left -= len(data)
        if sha256(data) != expected:
            raise BundleDigestMismatch(f"{name} is not the file that was signed: copy the bundle again")
        files[name] = data
    return files


def read_trusted_keys(path: Path) -> tuple[Ed25519PublicKey, ...]:
    """The trusted public keys in a file like ``models/artifacts/trusted_keys.json``.

    Raises `KeysInvalid`.
    """
    try:
        listed = msgspec.json.decode(path.read_bytes(), type=TrustedKeys).keys
    except OSError as fault:
        raise KeysInvalid(f"the file of trusted keys cannot be read: {fault.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise KeysInvalid(f"not a file of trusted keys: {fault}") from None
    found = []
    for entry in listed:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(entry.public))
        if key_id(key) != entry.id:
            raise KeysInvalid(f"the id {entry.id} does not belong to its public key: copy both again")
        found.append(key)
    return tuple(found)


def trusted_keys_json(keys: Sequence[tuple[Ed25519PublicKey, str]]) -> bytes:
    """A file of trusted keys, from public keys with a note on whose each is."""
    listed = tuple(TrustedKey(key_id(key), key.public_bytes_raw().hex(), note) for key, note in keys)
    return msgspec.json.format(canonical(TrustedKeys(listed)), indent=2) + b"\n"


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key that signs, from an unencrypted PKCS#8 PEM file.  Raises `KeysInvalid`."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as fault:
        raise KeysInvalid(f"the signing key cannot be read: {fault.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeysInvalid("not an unencrypted private key in PEM form") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysInvalid("not an Ed25519 key: make one with `cds-server bundle keys new`")
    return key
