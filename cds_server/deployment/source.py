"""Where the model bundle of this server comes from, and who may have signed it.

Turns the settings into one value that can be asked two things: has something changed there, and what
does it hold.  Every reason not to use a bundle becomes a `ModelRefused` that an operator can act on.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import models
from cds_server.settings import NO_BUNDLE, Settings
from models.bundle_files import BundleInvalid
from models.bundle_seal import MANIFEST, KeysInvalid, read_trusted_keys, unseal

if TYPE_CHECKING:
    from models.bundle import Bundle

ARTIFACTS = Path(models.__file__).parent / "artifacts"
SHIPPED_BUNDLE = ARTIFACTS / "common"
SHIPPED_KEYS = ARTIFACTS / "trusted_keys.json"

Fingerprint = tuple[tuple[str, int, int, int], ...]


class ModelRefused(Exception):
    """A bundle that this server does not use; `fault` names the kind, `reason` says why, without paths."""

    def __init__(self, fault: str, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A bundle's path (`None`: published rules only) and the file of the keys that are trusted."""

    path: Path | None
    keys: Path

    @classmethod
    def of(cls, settings: Settings) -> "BundleSource":
        """What the settings name: a path, nothing, or by default the bundle shipped with the product."""
        keys = settings.trusted_model_keys or SHIPPED_KEYS
        if settings.model_bundle == NO_BUNDLE:
            return cls(None, keys)
        if settings.model_bundle:
            return cls(Path(settings.model_bundle), keys)
        return cls(SHIPPED_BUNDLE if (SHIPPED_BUNDLE / MANIFEST).is_file() else None, keys)

    def fingerprint(self) -> Fingerprint:
        """Name, size, time and inode of every file concerned: differs when there is something to load."""
        if self.path is None:
            return ()
        found = [_stated(self.keys), _stated(self.path)]
        with contextlib.suppress(OSError):  # an archive, or nothing
            found += sorted(_stated(entry) for entry in self.path.iterdir())
        return tuple(found)

    def verify(self) -> None:
        """Check signature and digests only, which needs no numpy.  Raises `ModelRefused`."""
        if self.path is None:
            return
        try:
            unseal(self.path, read_trusted_keys(self.keys))
        except (BundleInvalid, KeysInvalid) as fault:
            raise ModelRefused(type(fault).__name__, str(fault)) from None

    def load(self, ontology: str) -> "Bundle | None":
        """The verified bundle, for the HPO release `ontology`; `None` without one.  Raises `ModelRefused`."""
        if self.path is None:
            return None
        from models.bundle import load_bundle  # noqa: PLC0415 brings numpy, which `verify` does without

        try:
            # Read each time: a key may be added for the very bundle that comes next.
            return load_bundle(self.path, read_trusted_keys(self.keys), ontology=ontology)
        except (BundleInvalid, KeysInvalid) as fault:
            raise ModelRefused(type(fault).__name__, str(fault)) from None


def _stated(path: Path) -> tuple[str, int, int, int]:
    try:
        state = path.stat()
    except OSError:
        return (path.name, -1, 0, 0)
    return (path.name, state.st_size, state.st_mtime_ns, state.st_ino)
