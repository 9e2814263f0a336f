"""Looks for a new model bundle and for enrolled cases, and puts them in place while the server answers.

A call takes the knowledge once, at its beginning, so calls in flight finish with the model they began
with, and replacing one reference is all there is to a swap.  A bundle that is refused changes nothing
but what `/health/ready`, the metrics and the log say.  The cases that count (`cds_server.rare`) go with
every bundle.  Each worker process looks for itself.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog

from cds_server.audit import AuditUnavailable
from cds_server.audit.settings_change import promotion, refusal
from cds_server.decisions.archive import BundleArchive
from cds_server.deployment.loading import with_bundle_of
from cds_server.deployment.source import BundleSource, Fingerprint, ModelRefused
from cds_server.rare.in_use import EnrolledCases
from cds_server.state import House, Refusal
from cds_server.tasks import cancelled

_log = structlog.get_logger(__name__)
_SETTLING = 1.0
"""Seconds without a change after which a copy counts as complete (half the interval, if that is less)."""


class Watch:
    """The watcher of one process.  `seen` is the fingerprint taken before the bundle was loaded.

    Enrolled cases are read when it is made, so that no answer is given without them.  Each bundle taken in
    use goes into the `archive`, for replays, unless nothing is kept to be replayed.
    """

    def __init__(
        self,
        house: House,
        source: BundleSource,
        seen: Fingerprint,
        cases: EnrolledCases,
        archive: BundleArchive,
    ) -> None:
        self._house = house
        self._source = source
        self._seen = seen
        self._cases = cases
        self._cases_seen = cases.fingerprint()
        self._archive = archive
        house.knowledge, house.enrolled = cases.applied(house.knowledge)
        self._every = house.settings.model_reload_seconds
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def start(self) -> None:
        """Begin, unless there is nothing to look for."""
        house = self._house
        house.metrics.deployed(house.knowledge.bundle)
        house.metrics.enrolled(house.enrolled)
        if self._source.path is None:
            return
        self._thread = ThreadPoolExecutor(1, "deploy")
        self._keep(self._house.knowledge.bundle)
        if not self._every:
            return
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking; returns when a bundle being loaded is let go."""
        await cancelled(self._task)
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def _keep(self, bundle: str | None) -> None:
        if self._thread is not None and self._house.settings.store_decisions:
            self._thread.submit(self._archive.keep, bundle)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self._look()
            await self._look_for_cases()

    async def _look_for_cases(self) -> None:
        loop, house = asyncio.get_running_loop(), self._house
        found = await loop.run_in_executor(self._thread, self._cases.fingerprint)
        if found == self._cases_seen:
            return
        self._cases_seen = found
        house.knowledge, house.enrolled = await loop.run_in_executor(
            self._thread, self._cases.applied, house.knowledge
        )
        house.metrics.enrolled(house.enrolled)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._source.fingerprint)
        if found == self._seen:
            return
        while True:  # somebody is copying files; half a bundle would be refused for nothing
            await asyncio.sleep(min(_SETTLING, self._every / 2))
            later = await loop.run_in_executor(self._thread, self._source.fingerprint)
            if later == found:
                break
            found = later
        self._seen = found
        house = self._house
        try:
            knowledge = await loop.run_in_executor(
                self._thread, with_bundle_of, self._source, house.knowledge
            )
        except ModelRefused as refused:
            house.refused = Refusal(refused.fault, refused.reason, house.clock())
            house.metrics.model_refused()
            _log.error(
                "model.refused", fault=refused.fault, reason=refused.reason, kept=house.knowledge.bundle
            )
            try:
                await house.trail.record(refusal(refused.fault, house.knowledge.bundle, house.clock()))
            except AuditUnavailable:
                _log.error("model.refusal_not_recorded", fault=refused.fault)
            return
        before, house.knowledge, house.refused = house.knowledge.bundle, knowledge, None
        self._keep(knowledge.bundle)
        house.metrics.deployed(knowledge.bundle)
        house.metrics.reloads.labels("loaded").inc()
        _log.info("model.loaded", bundle=knowledge.bundle, before=before)
        try:
            await house.trail.record(promotion(before, knowledge.bundle, house.clock()))
        except AuditUnavailable:
            # The answers that follow cannot be recorded either, so none of this model leaves unrecorded.
            _log.error("model.not_recorded", bundle=knowledge.bundle)
