"""The application: what is loaded at start, which slice answers which path, what surrounds them all.

Puts the pieces together and does nothing else.  `create_app` is the one way to get an application, for
`cds_server.serve`, for the command line's ``--offline`` and for tests.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NoReturn

import structlog
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cds_server.aggregates import endpoints as aggregates
from cds_server.api import endpoints as simple_form
from cds_server.api.description import describe
from cds_server.api.page import documentation_route
from cds_server.audit import AuditTrail
from cds_server.audit.asking import Asking
from cds_server.audit.reader import AuditReader
from cds_server.audit.refusals import RefusedAccesses
from cds_server.audit.sealing import Sealer
from cds_server.audit.settings_change import changes
from cds_server.audit.upkeep import Upkeep
from cds_server.auth.callers import gate_options
from cds_server.auth.clients import TrustedClients, load_clients
from cds_server.auth.gate import Gate
from cds_server.auth.rates import Rates
from cds_server.auth.replay import ReplayGuard
from cds_server.auth.unproven import Unproven
from cds_server.auth.users import user_tokens
from cds_server.cds_hooks import endpoints as cds_hooks
from cds_server.clock import Clock, utc_now
from cds_server.console import endpoints as console
from cds_server.db import migrate
from cds_server.db.engine import create_engine
from cds_server.db.urls import is_sqlite, sqlite_path
from cds_server.decisions.archive import BundleArchive
from cds_server.decisions.keeper import Keeper
from cds_server.decisions.keys import DataKeys
from cds_server.decisions.software import software
from cds_server.deployment.clients_watch import ClientsWatch
from cds_server.deployment.loading import at_start
from cds_server.deployment.source import BundleSource
from cds_server.deployment.watch import Watch
from cds_server.feedback.store import FeedbackStore
from cds_server.fhir_api import audit_search, past_routes
from cds_server.fhir_api import endpoints as fhir_api
from cds_server.middleware import LARGE_BODY, BodyLimit, Budget, Cors, RequestBoundary
from cds_server.monitoring import endpoints as monitoring
from cds_server.monitoring.metrics import Metrics
from cds_server.privacy import Cipher, Pseudonymiser, SiteKeys
from cds_server.rare.in_use import EnrolledCases
from cds_server.rare.store import EnrolmentStore
from cds_server.security_headers import SecurityHeaders
from cds_server.settings import Settings, split
from cds_server.site_keys import site_keys, site_signer
from cds_server.smart import endpoints as smart
from cds_server.smart.parts import smart_parts
from cds_server.state import House, Knowledge
from hooks.cards import CardSettings

_log = structlog.get_logger(__name__)


class Application(FastAPI):
    """The FastAPI application, with a short way for hook calls.

    They are raw ASGI endpoints that need none of the framework's layers between; the same boundary, CORS
    and body limit surround both ways.
    """

    hook_calls: ASGIApp
    hook_routes: list[BaseRoute]

    def every_route(self) -> list[BaseRoute]:
        """All there is to call, whichever way it goes; a router that was included as its routes."""
        found = [*self.hook_routes]
        for route in self.router.routes:
            included = getattr(route, "original_router", None)
            found += included.routes if included is not None else [route]
        return found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/cds-services"):
            scope["app"] = self
            await self.hook_calls(scope, receive, send)
        elif scope["type"] == "lifespan":
            await super().__call__(scope, receive, _plainly(send))
        else:
            await super().__call__(scope, receive, send)


def create_app(
    settings: Settings, *, knowledge: Knowledge | None = None, clock: Clock = utc_now
) -> Application:
    """Load everything and return the application; it starts and stops with its lifespan.

    Args:
        settings: of this process.
        knowledge: already loaded terminology and engines, to be shared; loaded here when `None`.  When
            the settings name a model bundle (or none), its engine gives way to that one's.
        clock: the one source of the time.

    Raises what loading raises: data files, keys, trusted clients, model bundle and settings are checked
    here, not at the first call.
    """
    source = BundleSource.of(settings)
    seen = source.fingerprint()
    if knowledge is None or settings.model_bundle:
        knowledge = at_start(source, knowledge)
    keys = site_keys(settings)
    house = _house(settings, knowledge, clock, keys)
    archive = BundleArchive(settings.archive_dir, source)
    record = EnrolmentStore(settings.var_dir, Cipher(keys.cipher))
    cases = EnrolledCases(record)
    watch = Watch(house, source, seen, cases, archive)
    clients_watch = ClientsWatch(house)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _check_schema(settings.database_url)
        await house.trail.start()
        await house.trail.record_all(
            changes(settings, house.knowledge.bundle, house.pseudonymiser, house.clock())
        )
        await clients_watch.start()
        house.upkeep.start()
        watch.start()
        try:
            yield
        finally:
            await clients_watch.stop()
            await watch.stop()
            await house.upkeep.stop()
            await house.close()

    app = Application(
        title="cds-server",
        summary="FHIR-native clinical decision support over CDS Hooks",
        description=(
            "CDS Hooks clients start at `/cds-services`; FHIR clients at `/fhir/metadata`; for forms there "
            "is `/api/v1/predict` below. What was decided is read by auditors and clinicians at "
            "`/fhir/AuditEvent` and `/fhir/RiskAssessment/{id}`. Every refusal is a FHIR OperationOutcome."
        ),
        lifespan=lifespan,
        redirect_slashes=False,
        # The framework's pages load their scripts from other hosts; `cds_server.api.page` needs none.
        docs_url=None,
        redoc_url=None,
    )
    app.state.house = house
    app.router.routes[:0] = [
        *fhir_api.routes(house),
        *audit_search.routes(house),
        *past_routes.routes(house, lambda: DataKeys(keys.master, now=clock), archive, record),
        *console.routes(house),
        *monitoring.routes(house),
        *smart.routes(house),
        *aggregates.routes(house),
    ]
    app.include_router(simple_form.router(house))
    app.router.routes.append(documentation_route(describe(app)))
    app.add_exception_handler(HTTPException, _to_the_boundary)
    limit: dict[str, Any] = {
        "max_bytes": settings.max_body_bytes,
        "large_bytes": min(settings.inline_body_bytes, LARGE_BODY),
        "budget": Budget(settings.in_flight_bytes),
        "seconds": settings.body_timeout_ms / 1000,
    }
    cors: dict[str, Any] = {"origins": settings.allowed_origins, "local": settings.local_origins_allowed}
    app.hook_routes = cds_hooks.routes(house)
    hook_router = Router(app.hook_routes, redirect_slashes=False)
    safe = SecurityHeaders(
        https=settings.base_url.startswith("https://"), frame_ancestors=split(settings.frame_ancestors)
    )
    gate = gate_options(house)
    app.hook_calls = RequestBoundary(Cors(Gate(BodyLimit(hook_router, **limit), **gate), **cors), safe=safe)
    # Added last is outermost.
    app.add_middleware(BodyLimit, **limit)
    app.add_middleware(Gate, **gate)
    app.add_middleware(Cors, **cors)
    app.add_middleware(RequestBoundary, safe=safe)
    return app


def _house(settings: Settings, knowledge: Knowledge, clock: Clock, keys: SiteKeys) -> House:
    data_keys = DataKeys(keys.master, now=clock)
    signer = site_signer(settings)
    trail = AuditTrail(settings.database_url, settings.var_dir / "spool", signer=signer)
    engine = create_engine(
        settings.database_url, pool_size=settings.database_pool, timeout=settings.database_timeout_ms / 1000
    )
    pseudonymiser = Pseudonymiser(keys.pseudonym)
    cipher = Cipher(keys.cipher)
    metrics = Metrics()
    interval = timedelta(seconds=settings.audit_checkpoint_seconds)
    sealer = Sealer(engine, signer, settings.var_dir, interval=interval, clock=clock)
    return House(
        settings=settings,
        clock=clock,
        knowledge=knowledge,
        trail=trail,
        engine=engine,
        asking=Asking(AuditReader(engine), trail, pseudonymiser, clock),
        upkeep=Upkeep(
            trail, sealer, engine, interval=interval, events=settings.audit_checkpoint_events, clock=clock
        ),
        pseudonymiser=pseudonymiser,
        feedback=FeedbackStore(trail, cipher, data_keys, now=clock),
        metrics=metrics,
        fhir_servers=settings.fhir_servers,
        card_settings=CardSettings(max_cards=settings.max_cards),
        keeper=Keeper(data_keys, on=settings.store_decisions),
        refusals=RefusedAccesses(trail, clock),
        software=software(),
        clients=load_clients(settings.trusted_clients) if settings.trusted_clients else TrustedClients(),
        replay=ReplayGuard(
            settings.database_url, now=lambda: clock().timestamp(), on_unshared=metrics.replay_unshared.inc
        ),
        rates=Rates(settings.var_dir / "rates"),
        unproven=Unproven(
            Rates(settings.var_dir / "rates-unproven"),
            per_minute=settings.unproven_rate,
            anonymous_per_minute=settings.client_rate,
        ),
        smart=smart_parts(settings, cipher, clock),
        users=user_tokens(settings, clock),
    )


async def _check_schema(database_url: str) -> None:
    """Refuse to start on an old or missing schema; a database that is away is what the spool is for."""
    if is_sqlite(database_url) and not sqlite_path(database_url).exists():
        raise migrate.SchemaOutdated("there is no database yet: cds-server db upgrade")
    engine = create_engine(database_url, pool_size=1)
    try:
        await migrate.check(engine)
    except (SQLAlchemyError, OSError) as error:
        _log.warning("database.away_at_start", error=type(error).__name__)
    finally:
        await engine.dispose()


def _plainly(send: Send) -> Send:
    """Tell an operator who forgot the migration one line; a traceback stays for what is a defect."""

    async def shortened(message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            _, found, reason = message["message"].strip().rpartition("\n")[2].partition("SchemaOutdated: ")
            if found:
                message = {**message, "message": reason}
        await send(message)

    return shortened


async def _to_the_boundary(_: Request, error: Exception) -> NoReturn:
    """Hand the router's own errors to `RequestBoundary`, where all errors become answers."""
    raise error
