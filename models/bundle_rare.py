"""The rare-disease part that a bundle is to carry: where it is taken from.

Either what training wrote (``rare.npz`` with ``rare.json`` beside it), or another signed bundle that has
the part already, so that a new ensemble keeps the rare engine it was served with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from models.bundle import RARE
from models.bundle_files import BundleInvalid
from models.bundle_seal import MANIFEST, unseal

FACTS = "rare.json"
LICENCE = "Human Phenotype Ontology and annotations"


class RarePartMissing(BundleInvalid):
    """There is no rare-disease engine at a path; the text says what was looked for."""


class _Facts(msgspec.Struct, frozen=True):
    """What is read of ``rare.json``: the text that HPO's licence asks to be shown."""

    attribution: str


@dataclass(frozen=True, slots=True)
class RarePart:
    """The bytes of ``rare.npz``, and the licences that go into the manifest with them."""

    arrays: bytes
    licences: Mapping[str, str]


def rare_part(path: Path, trusted: Sequence[Ed25519PublicKey]) -> RarePart:
    """The part at a path: a bundle (directory or archive) signed by a trusted key, or a trained engine.

    Raises `BundleInvalid` for a bundle that does not hold, `RarePartMissing` where there is no part.
    """
    if path.is_file() or (path / MANIFEST).is_file():
        sealed = unseal(path, trusted)
        if RARE not in sealed.files:
            raise RarePartMissing(f"the bundle has no {RARE}")
        licences = sealed.manifest.licences
        return RarePart(sealed.files[RARE], {LICENCE: licences[LICENCE]} if LICENCE in licences else {})
    try:
        arrays = (path / RARE).read_bytes()
        facts = msgspec.json.decode((path / FACTS).read_bytes(), type=_Facts)
    except OSError as fault:
        raise RarePartMissing(
            f"{RARE} and {FACTS} cannot be read ({fault.strerror}): make them with `cds-server train rare`"
        ) from None
    except msgspec.MsgspecError:
        raise RarePartMissing(f"{FACTS} is not what training writes") from None
    return RarePart(arrays, {LICENCE: facts.attribution})
