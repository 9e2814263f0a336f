"""The registered model ``common-ensemble``: its versions, who is champion, and putting one in use.

`champion` is the version in use, `challenger` the newest trained one that may replace it.  Promoting
verifies the signature before a file is moved, copies the bundle at once to the path that servers watch,
and only then changes the aliases.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from models.bundle import Bundle, load_bundle
from models.bundle_files import write_archive, write_directory
from models.bundle_seal import MANIFEST, SIGNATURE
from training.registry.store import Store

MODEL = "common-ensemble"
CHAMPION, CHALLENGER = "champion", "challenger"
BUNDLE = "bundle"
"""Where the bundle lies among the artifacts of its run."""
_ARCHIVE = ".zip"


class VersionUnknown(LookupError):
    """No such version; the message lists what there is."""


@dataclass(frozen=True)
class Version:
    """One version: its number, the run that made it, its aliases and tags; `created` in UTC."""

    number: int
    run: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    created: datetime

    @property
    def bundle(self) -> str:
        """The id of its bundle."""
        return self.tags.get("bundle", "")


def versions(store: Store) -> tuple[Version, ...]:
    """All versions, oldest first; none when nothing was registered."""
    aliases = _aliases(store)
    found = [_version(row, aliases) for row in store.client.search_model_versions(f"name='{MODEL}'")]
    return tuple(sorted(found, key=lambda version: version.number))


def find(store: Store, name: str) -> Version:
    """A version by number or alias; raises `VersionUnknown`."""
    known = versions(store)
    for version in known:
        if name == str(version.number) or name in version.aliases:
            return version
    listed = ", ".join([str(version.number) for version in known]) or "none"
    raise VersionUnknown(f"no version {name!r} of {MODEL}: there are {listed}, champion and challenger")


def next_version(store: Store) -> str:
    """What the next bundle is called if nobody names it: ``1.<versions so far>.0``."""
    numbers = [version.number for version in versions(store)]
    return f"1.{max(numbers, default=0)}.0"


def register(store: Store, run: str, bundle: Bundle, tags: dict[str, str]) -> Version:
    """Register the bundle among the run's artifacts as challenger; the first version also as champion."""
    client = store.client
    try:
        client.get_registered_model(MODEL)
    except MlflowException:
        client.create_registered_model(MODEL, description="Bundles of the common-disease ensemble.")
    source = f"{client.get_run(run).info.artifact_uri}/{BUNDLE}"
    row = client.create_model_version(
        MODEL,
        source,
        run_id=run,
        tags={"bundle": bundle.id, **tags},
        description=f"{bundle.manifest.name} {bundle.manifest.version}",
        await_creation_for=0,
    )
    client.set_registered_model_alias(MODEL, CHALLENGER, row.version)
    if CHAMPION not in _aliases(store):
        client.set_registered_model_alias(MODEL, CHAMPION, row.version)
    return find(store, str(row.version))


def fetch(store: Store, version: Version, directory: Path) -> Path:
    """Copy the version's bundle below `directory`; returns where it lies."""
    return Path(store.client.download_artifacts(version.run, BUNDLE, str(directory)))


def promote(
    store: Store, version: Version, target: Path, trusted: Sequence[Ed25519PublicKey], *, now: datetime
) -> Bundle:
    """Put a version where servers look for it, and make it the champion.

    Args:
        target: the path that servers watch; one that ends in ``.zip`` gets an archive, else a directory.
        trusted: the keys that those servers trust; a bundle of another signer is not promoted.
        now: written down as the time of promotion.

    Raises `models.bundle.BundleInvalid` and `OSError`; nothing is changed then.
    """
    with tempfile.TemporaryDirectory(prefix="cds-promote-") as scratch:
        place = fetch(store, version, Path(scratch))
        bundle = load_bundle(place, trusted)
        names = (*bundle.manifest.files, MANIFEST, SIGNATURE)
        contents = {name: (place / name).read_bytes() for name in names}
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == _ARCHIVE:
        write_archive(target, contents)
    else:
        write_directory(target, contents)
    client = store.client
    client.set_registered_model_alias(MODEL, CHAMPION, str(version.number))
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(MODEL, CHALLENGER)
    client.set_model_version_tag(MODEL, str(version.number), "promoted", now.isoformat(timespec="seconds"))
    return bundle


def _aliases(store: Store) -> dict[str, int]:
    try:
        return {
            name: int(number) for name, number in store.client.get_registered_model(MODEL).aliases.items()
        }
    except MlflowException:
        return {}


def _version(row: ModelVersion, aliases: dict[str, int]) -> Version:
    number = int(row.version)
    return Version(
        number,
        str(row.run_id),
        tuple(sorted(name for name, target in aliases.items() if target == number)),
        dict(row.tags),
        datetime.fromtimestamp(row.creation_timestamp / 1000, UTC),
    )
