"""A model bundle: everything the common ensemble was trained to, as one signed, immutable value.

Responsible for writing and loading bundles: ``features.json`` (how charts are read), ``diseases.json``
(what can be named), ``stack.json`` (parameters of pooling, calibration and conformal sets),
``arrays.npz`` (weights and trees), ``model_card.md`` and, where it carries the rare-disease engine,
``rare.npz`` (its knowledge and model), under the seal of `models.bundle_seal`.  Beside
the knowledge loaders the one place in this room that touches files, and only at the path it is given.
Which arrays there must be is the business of those who read them.
"""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray

from fhir_adapters.features import FeatureSchema
from models.bundle_files import (
    TOTAL_LIMIT,
    ZIP_FAULTS,
    BundleDigestMismatch,
    BundleInvalid,
    BundleSchemaMismatch,
    BundleSignatureInvalid,
    BundleUnreadable,
    write_archive,
    write_directory,
)
from models.bundle_seal import MANIFEST, SIGNATURE, Manifest, bundle_id, canonical, seal, sha256, unseal
from models.common.disease import DiseaseInfo

__all__ = [
    "Bundle", "BundleDigestMismatch", "BundleInvalid", "BundleSchemaMismatch", "BundleSignatureInvalid",
    "BundleUnreadable", "Manifest", "add_rare", "load_bundle", "pack_bundle", "write_bundle",
]  # fmt: skip

FEATURES, DISEASES, STACK = "features.json", "diseases.json", "stack.json"
ARRAYS, MODEL_CARD = "arrays.npz", "model_card.md"
RARE = "rare.npz"
_CONTENTS = (FEATURES, DISEASES, STACK, ARRAYS, MODEL_CARD)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle; immutable (the arrays are read-only), shared by all calls of a process.

    `diseases` are in the order of the arrays' disease columns; `arrays` have names like
    ``"likelihood.present"``.  `rare` are the arrays of `models.rare.engine.RareEngine`, if it carries any.
    `id` is what audit events call it: ``common-1.0.0+0123456789ab``.
    """

    manifest: Manifest
    schema: FeatureSchema
    diseases: tuple[DiseaseInfo, ...]
    stack: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    model_card: str = ""
    rare: dict[str, NDArray[Any]] | None = None
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", bundle_id(self.manifest))


def load_bundle(path: Path, trusted: Sequence[Ed25519PublicKey], *, ontology: str | None = None) -> Bundle:
    """Verify and load the bundle at `path`, a directory or a .zip archive.

    Args:
        path: of the bundle; read once, what was verified is what is used.
        trusted: the public keys whose signature is accepted.
        ontology: HPO release of the running terminology, which the bundle must be made for.

    Raises `BundleInvalid`, as the subclass that says what is wrong.
    """
    sealed = unseal(path, trusted)
    return _interpreted(sealed.manifest, sealed.files, ontology)


def write_bundle(
    directory: Path,
    *,
    name: str,
    version: str,
    created: str,
    knowledge_release: str,
    training_data_digest: str,
    code_revision: str,
    metrics: Mapping[str, float],
    licences: Mapping[str, str],
    schema: FeatureSchema,
    diseases: Sequence[DiseaseInfo],
    stack: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    model_card: str,
    private_key: Ed25519PrivateKey,
) -> Bundle:
    """Write and sign a bundle, replacing the one at `directory`; the same arguments give the same bytes.

    The fields of the manifest are those of `Manifest`; digests and the ontology's release are filled in.
    Returns the bundle as `load_bundle` gives it.  Raises `BundleInvalid` when it could not be loaded
    again (an array of objects, a figure that is not finite, a name with spaces), and `OSError`.
    """
    endless = [key for key, value in metrics.items() if not math.isfinite(value)]
    if endless:
        raise BundleUnreadable(f"metrics: {endless[0]} is not a finite number: leave it out")
    files = {
        FEATURES: canonical(schema),
        DISEASES: canonical(list(diseases)),
        STACK: canonical(stack),
        ARRAYS: _packed(arrays),
        MODEL_CARD: model_card.encode(),
    }
    manifest = Manifest(
        name=name,
        version=version,
        created=created,
        knowledge_release=knowledge_release,
        ontology=schema.ontology,
        feature_digest=sha256(files[FEATURES]),
        training_data_digest=training_data_digest,
        code_revision=code_revision,
        metrics={key: float(value) for key, value in metrics.items()},
        licences=dict(licences),
        files={file: sha256(data) for file, data in files.items()},
    )
    sealed = seal(manifest, private_key)
    checked = _decoded(sealed[MANIFEST], Manifest, MANIFEST)
    bundle = _interpreted(checked, files, None)
    write_directory(directory, {**files, **sealed})
    return bundle


def pack_bundle(directory: Path, archive: Path, trusted: Sequence[Ed25519PublicKey]) -> str:
    """Verify the bundle in a directory and write it as one .zip archive; returns its id.

    Raises `BundleInvalid` and `OSError`.
    """
    if not directory.is_dir():
        raise BundleUnreadable("there is no directory with a model bundle at this path")
    sealed = unseal(directory, trusted)
    files = dict(sealed.files)
    for name in (MANIFEST, SIGNATURE):
        files[name] = (directory / name).read_bytes()
    write_archive(archive, files)
    return bundle_id(unseal(archive, trusted).manifest)


def add_rare(
    path: Path,
    out: Path,
    trusted: Sequence[Ed25519PublicKey],
    rare: bytes,
    licences: Mapping[str, str],
    private_key: Ed25519PrivateKey,
) -> Bundle:
    """Write the bundle at `path` anew to the directory `out`, with the rare-disease engine as one more part.

    Args:
        path: a bundle signed by a trusted key; it stays as it is unless `out` is the same directory.
        out: directory of the new bundle.
        trusted: keys whose signature on the old bundle is accepted.
        rare: ``rare.npz`` as training wrote it.
        licences: source → what it may be used for, added to the manifest's (HPO's attribution).
        private_key: signs the new bundle.

    Raises `BundleInvalid` and `OSError`.
    """
    sealed = unseal(path, trusted)
    files = {**sealed.files, RARE: rare}
    manifest = msgspec.structs.replace(
        sealed.manifest,
        licences={**sealed.manifest.licences, **licences},
        files={file: sha256(data) for file, data in files.items()},
    )
    bundle = _interpreted(manifest, files, None)
    write_directory(out, {**files, **seal(manifest, private_key)})
    return bundle


def _interpreted(manifest: Manifest, files: Mapping[str, bytes], ontology: str | None) -> Bundle:
    """The value that proven bytes stand for."""
    for name in _CONTENTS:
        if name not in files:
            raise BundleUnreadable(f"{name} is not among the files of the manifest")
    diseases = _decoded(files[DISEASES], tuple[DiseaseInfo, ...], DISEASES)
    if not diseases or len({disease.id for disease in diseases}) != len(diseases):
        raise BundleUnreadable(f"{DISEASES} names no disease, or one twice")
    return Bundle(
        manifest=manifest,
        schema=_schema(files[FEATURES], manifest, ontology),
        diseases=diseases,
        stack=_decoded(files[STACK], dict[str, Any], STACK),
        arrays=_unpacked(files[ARRAYS]),
        model_card=_text(files[MODEL_CARD]),
        rare=_unpacked(files[RARE]) if RARE in files else None,
    )


def _schema(data: bytes, manifest: Manifest, ontology: str | None) -> FeatureSchema:
    """The feature schema, if it is one that the running code reads as the training code did."""
    if sha256(data) != manifest.feature_digest:
        raise BundleSchemaMismatch(f"{FEATURES} is not the schema that the manifest states")
    try:
        schema = msgspec.json.decode(data, type=FeatureSchema)
    except msgspec.MsgspecError as fault:
        raise BundleSchemaMismatch(f"{FEATURES} is of another version of this software: {fault}") from None
    # A member that one side does not know, or a default that is new, shows in the way back.
    if sha256(canonical(schema)) != manifest.feature_digest:
        raise BundleSchemaMismatch(
            f"{FEATURES} means something else to this version of the software: train the bundle anew with it"
        )
    if schema.ontology != manifest.ontology or (ontology is not None and schema.ontology != ontology):
        raise BundleSchemaMismatch(
            f"made for HPO {schema.ontology} (manifest: {manifest.ontology}), this software has "
            f"{ontology or manifest.ontology}: use the bundle and the software of one release"
        )
    return schema


def _decoded(data: bytes, kind: type[_T], name: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise BundleUnreadable(f"{name} is not as this version of the software has it: {fault}") from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleUnreadable(f"{MODEL_CARD} is not UTF-8") from None


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    try:
        # In order of name, so that the same arrays give the same bytes.
        np.savez_compressed(buffer, allow_pickle=False, **{name: arrays[name] for name in sorted(arrays)})
    except ValueError as fault:
        raise BundleUnreadable(f"{ARRAYS}: only arrays of numbers and texts can be kept ({fault})") from None
    return buffer.getvalue()


def _unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays, read-only.  Signed, and still bounded: a slip of the trainer must not fill a server."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > TOTAL_LIMIT:
                raise BundleUnreadable(f"{ARRAYS} unpacks to more than {TOTAL_LIMIT} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays: dict[str, NDArray[Any]] = {name: stored[name] for name in stored.files}
    except (*ZIP_FAULTS, OSError, KeyError, MemoryError) as fault:
        raise BundleUnreadable(
            f"{ARRAYS} holds something else than arrays ({type(fault).__name__})"
        ) from None
    for array in arrays.values():
        array.flags.writeable = False
    return arrays
