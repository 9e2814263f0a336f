"""The model bundles that were in use, each kept once, so that a decision can be recomputed with its own.

A bundle lies in the archive as one sealed .zip file named by its id.  What is taken out is verified like
any other bundle before it is used.
"""

import os
import re
import shutil
from pathlib import Path

import structlog

from cds_server.deployment.source import SHIPPED_BUNDLE, BundleSource
from models.bundle import pack_bundle
from models.bundle_files import BundleInvalid
from models.bundle_seal import KeysInvalid, bundle_id, read_trusted_keys, unseal

_log = structlog.get_logger(__name__)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9.+_-]{0,199}\Z")


class BundleArchive:
    """The archive in one directory; `source` is the bundle in use now and the keys that are trusted."""

    def __init__(self, directory: Path, source: BundleSource) -> None:
        self._directory = directory
        self._source = source

    def keep(self, identity: str | None) -> None:
        """Keep the bundle in use, whose id is `identity`, unless it is kept already.  Blocks.

        Never raises for a disk or a bundle: the server answers all the same, and the log says that
        decisions made with this bundle cannot be replayed.
        """
        if identity is None or self._source.path is None:
            return
        try:
            target = self._file(identity)
            if target is None or target.exists():
                return
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = target.with_name(f".{os.getpid()}-{target.name}")
            try:
                if self._copied(self._source.path, part) == identity:
                    part.replace(target)
                else:
                    _log.warning("bundle.not_archived", bundle=identity, reason="another one is at its path")
            finally:
                part.unlink(missing_ok=True)
        except (BundleInvalid, KeysInvalid, OSError) as fault:
            _log.error("bundle.not_archived", bundle=identity, reason=type(fault).__name__)

    def find(self, identity: str) -> BundleSource | None:
        """Where the bundle of that id can be loaded from; `None` when it is nowhere.  Blocks."""
        kept = self._file(identity)
        for path in (kept, self._source.path, SHIPPED_BUNDLE):
            if path is None or not path.exists():
                continue
            try:
                sealed = unseal(path, read_trusted_keys(self._source.keys))
            except (BundleInvalid, KeysInvalid):
                continue
            if bundle_id(sealed.manifest) == identity:
                return BundleSource(path, self._source.keys)
        return None

    def _copied(self, path: Path, part: Path) -> str:
        """Writes the bundle at `path` to one file; returns the id of what was written."""
        trusted = read_trusted_keys(self._source.keys)
        if path.is_dir():
            return pack_bundle(path, part, trusted)
        shutil.copyfile(path, part)
        return bundle_id(unseal(part, trusted).manifest)

    def _file(self, identity: str) -> Path | None:
        return self._directory / f"{identity}.zip" if _PLAIN.match(identity) else None
