"""What the running server holds, typed: loaded once at start, passed to the slices, closed at the end."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from cds_server.audit import AuditTrail, digest
from cds_server.audit.asking import Asking
from cds_server.audit.refusals import RefusedAccesses
from cds_server.audit.upkeep import Upkeep
from cds_server.auth.clients import TrustedClients
from cds_server.auth.rates import Rates
from cds_server.auth.replay import ReplayGuard
from cds_server.auth.users import UserTokens
from cds_server.clock import Clock
from cds_server.decisions.keeper import Keeper
from cds_server.feedback.store import FeedbackStore
from cds_server.monitoring.metrics import Metrics
from cds_server.people import AuthorityNames
from cds_server.privacy import Pseudonymiser
from cds_server.rare.status import NOTHING_ENROLLED, EnrolledState
from cds_server.settings import Settings
from cds_server.smart.parts import SmartParts
from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.client import FhirClient, FhirLimits
from fhir_adapters.origin import AllowList
from hooks.cards import CardSettings
from hooks.texts import load as load_texts
from models.bundle import Bundle
from models.engine import Engine
from models.rare.enrolment import EnrolledCase

_T = TypeVar("_T")
_LARGE_TO_HASH = 131_072
"""Bytes from which handing a body to the hashing thread costs less than hashing it here."""


@dataclass(frozen=True, slots=True)
class Enrolments:
    """The site's confirmed cases that count, and the `identity` under which answers name them."""

    cases: tuple[EnrolledCase, ...] = ()
    identity: str = ""


NO_CASES = Enrolments()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The loaded terminology and engines; immutable, so one may serve several applications.

    `bundle` is the id of the model bundle the engine was made with, `None` for published rules only;
    `enrolled` the site's cases that its rare-disease engine knows, kept from bundle to bundle.
    """

    builder: ChartBuilder
    engine: Engine
    bundle: str | None = None
    enrolled: Enrolments = NO_CASES

    @classmethod
    def load(cls, bundle: Bundle | None = None) -> "Knowledge":
        """Load and validate all packaged knowledge; raises what its loaders raise, naming file and row."""
        builder = ChartBuilder.load()
        load_texts()
        return cls._of(builder, bundle)

    def with_bundle(self, bundle: Bundle | None) -> "Knowledge":
        """The same terminology and cases, an engine of another bundle; raises what loading it raises."""
        other = self._of(self.builder, bundle)
        if not self.enrolled.cases:
            return other
        return other.with_enrolled(self.enrolled.cases, self.enrolled.identity)

    def with_enrolled(self, cases: tuple[EnrolledCase, ...], identity: str) -> "Knowledge":
        """The same with these cases enrolled, all that count; `identity` as answers are to name them."""
        return replace(
            self, engine=self.engine.enrolled(cases, identity), enrolled=Enrolments(cases, identity)
        )

    @classmethod
    def _of(cls, builder: ChartBuilder, bundle: Bundle | None) -> "Knowledge":
        engine = Engine.load(builder.tables.ontology, bundle=bundle)
        return cls(builder, engine, bundle.id if bundle is not None else None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The newest model bundle, which is not used: kind of fault, reason, and since when (UTC)."""

    fault: str
    reason: str
    since: datetime


@dataclass(slots=True)
class House:
    """Everything a request handler may need.

    `knowledge` is replaced when a new model bundle arrives: a call takes it once and keeps what it took.
    `refused` is set while the bundle at the configured path is not the one in use; `enrolled` says how the
    record of enrolled cases was found.  `software` names this build (`decisions.software`).
    """

    settings: Settings
    clock: Clock
    knowledge: Knowledge
    trail: AuditTrail
    engine: AsyncEngine
    asking: Asking
    upkeep: Upkeep
    pseudonymiser: Pseudonymiser
    authority_names: AuthorityNames
    feedback: FeedbackStore
    metrics: Metrics
    fhir_servers: AllowList
    card_settings: CardSettings
    smart: SmartParts
    users: UserTokens | None
    clients: TrustedClients
    replay: ReplayGuard
    rates: Rates
    keeper: Keeper
    refusals: RefusedAccesses
    software: str
    refused: Refusal | None = None
    enrolled: EnrolledState = NOTHING_ENROLLED
    _hasher: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "digest"))
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "assess"))
    _fhir: FhirClient | None = None

    @property
    def fhir(self) -> FhirClient:
        """The FHIR client, made at its first use: a site that always prefetches never pays for TLS."""
        if self._fhir is None:
            settings = self.settings
            limits = FhirLimits(
                budget=settings.fhir_time_budget_ms / 1000,
                pages=settings.fhir_max_pages,
                response_bytes=settings.fhir_max_response_bytes,
            )
            self._fhir = FhirClient(limits, ca_file=settings.fhir_ca_file)
        return self._fhir

    async def apart(self, size: int, work: Callable[[], _T]) -> _T:
        """Do pure work: here when its input is small, in a thread when it would hold others up."""
        if size <= self.settings.inline_body_bytes:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def digest(self, body: bytes) -> Awaitable[str]:
        """The digest of a body, begun now; a large one on the side, where it needs no interpreter lock."""
        loop = asyncio.get_running_loop()
        if len(body) > _LARGE_TO_HASH:
            return loop.run_in_executor(self._hasher, digest, body)
        done: asyncio.Future[str] = loop.create_future()
        done.set_result(digest(body))
        return done

    async def close(self) -> None:
        """Close connections and the thread, then the audit trail, last because others may still record."""
        if self._fhir is not None:
            await self._fhir.close()
        await self.smart.close()
        if self.users is not None:
            await self.users.close()
        await self.clients.close()
        await self.replay.close()
        self.rates.close()
        self._thread.shutdown(wait=True)
        self._hasher.shutdown(wait=True)
        await self.refusals.close()
        await self.trail.close()
        await self.upkeep.close()
        await self.engine.dispose()
