"""The knowledge a decision was made with: the model bundle of that day, and the cases enrolled then.

Both are named in what was kept of the decision, and both are proven: a bundle by its signature and id, the
cases by the digest in the knowledge id.  What cannot be had is said; it is never replaced by something else.
"""

from typing import TypeVar

from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.opening import NoReplay
from cds_server.decisions.stored import Circumstances
from cds_server.deployment.loading import with_bundle_of
from cds_server.deployment.source import ModelRefused
from cds_server.rare.record import identity_in
from cds_server.rare.store import CasesGone, EnrolmentStore
from cds_server.state import Knowledge

_K = TypeVar("_K")
_MOST_VARIANTS = 8
"""Sets of cases kept at one time: decisions are replayed in order, and cases change seldom."""


class PastKnowledge:
    """Finds knowledge of the past; `base` gives the terminology, and its engine where the bundle is the same.

    `bundles` is how many others are kept once they were loaded.
    """

    def __init__(
        self, archive: BundleArchive, cases: EnrolmentStore, base: Knowledge, *, bundles: int = 8
    ) -> None:
        self._archive = archive
        self._cases = cases
        self._base = base.with_enrolled((), "") if base.enrolled.cases else base
        self._most = bundles
        self._loaded: dict[str | None, Knowledge] = {}
        self._variants: dict[tuple[str | None, str], Knowledge] = {}

    def knowledge(self, then: Circumstances) -> Knowledge:
        """The knowledge of a decision.  Blocks for a second when a bundle is loaded.  Raises `NoReplay`."""
        bare = self._with_bundle(then.bundle)
        identity = identity_in(then.knowledge)
        if not identity:
            return bare
        try:
            # Asked each time: a case that was erased since must not be used from memory.
            cases = self._cases.then(identity)
        except CasesGone as gone:
            self._variants.clear()
            raise NoReplay(gone.reason, gone.detail) from None
        key = (then.bundle, identity)
        if key not in self._variants:
            _make_room(self._variants, _MOST_VARIANTS)
            self._variants[key] = bare.with_enrolled(cases, identity)
        return self._variants[key]

    def _with_bundle(self, bundle: str | None) -> Knowledge:
        if bundle == self._base.bundle:
            return self._base
        if bundle not in self._loaded:
            loaded = self._load(bundle)
            if len(self._loaded) >= self._most:
                self._variants.clear()  # each holds its bundle
            _make_room(self._loaded, self._most)
            self._loaded[bundle] = loaded
        return self._loaded[bundle]

    def _load(self, bundle: str | None) -> Knowledge:
        if bundle is None:
            return self._base.with_bundle(None)
        source = self._archive.find(bundle)
        if source is None:
            raise NoReplay("bundle-missing", bundle)
        try:
            return with_bundle_of(source, self._base)
        except ModelRefused as refused:
            raise NoReplay("bundle-refused", f"{refused.fault}: {refused.reason}") from refused


def _make_room(kept: dict[_K, Knowledge], most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]
