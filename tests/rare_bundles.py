"""A tiny bundle with the shipped rare-disease engine in it, signed with the tests' key."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from bundle_helpers import KEY, TRUSTED, tiny_bundle

from models.bundle import RARE, Bundle, add_rare
from training.rare.artifact import SHIPPED

ARRAYS = SHIPPED / RARE


@cache
def both() -> Bundle:
    """Common diseases of the tiny ensemble, all rare ones."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        tiny_bundle(directory / "tiny")
        return add_rare(
            directory / "tiny", directory / "both", TRUSTED, ARRAYS.read_bytes(), {"HPO": "cite"}, KEY
        )
