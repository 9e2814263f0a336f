"""The server's metrics: what happened and how long it took.  Labels are ids of ours, never of a patient.

With several workers `cds_server.serve` sets ``PROMETHEUS_MULTIPROC_DIR`` before this is imported, and
any worker's `/metrics` answers for all of them.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from cds_server.audit import AuditState
from cds_server.rare.status import EnrolledState
from fhir_adapters.chart import PatientChart

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_LATENCY = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_INDICATORS = ("info", "warning", "critical")


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.seconds = Histogram(
            "cds_call_seconds",
            "Time from the last byte of the request to its durable audit event.",
            ("service",),
            buckets=_LATENCY,
            registry=registry,
        )
        self.calls = Counter("cds_calls", "Answered calls.", ("service", "status"), registry=registry)
        self.cards = Counter("cds_cards", "Cards shown.", ("service", "indicator"), registry=registry)
        self.escalations = Counter(
            "cds_escalations", "Decisions by escalation.", ("service", "escalation"), registry=registry
        )
        self.issues = Counter(
            "cds_read_issues", "Parts of records that could not be used.", ("code",), registry=registry
        )
        self.unmapped = Counter("cds_unmapped_codes", "Codes that no table knows.", registry=registry)
        self.coded = Counter("cds_coded_elements", "Coded elements read.", registry=registry)
        self.resources = Counter("cds_resources_read", "FHIR resources read.", registry=registry)
        self.feedback = Counter(
            "cds_feedback", "Feedback on cards by outcome.", ("service", "outcome"), registry=registry
        )
        self._spool = Gauge(
            "cds_audit_spool_depth",
            "Audit events waiting for the database.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._database = Gauge(
            "cds_audit_database_up",
            "1 while audit events go to the database (lowest of all workers).",
            registry=registry,
            multiprocess_mode="livemin" if MULTIPROCESS_VARIABLE in os.environ else "all",
        )

        self._bundle = Gauge(
            "cds_model_bundle",
            "Workers that answer with a model bundle.",
            ("bundle",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._answering: str | None = None
        self._refused = Gauge(
            "cds_model_bundle_refused",
            "1 while the bundle at the configured path is refused and another one answers.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.reloads = Counter(
            "cds_model_reloads",
            "New model bundles noticed, by what became of them.",
            ("result",),
            registry=registry,
        )

        self._enrolled = Gauge(
            "cds_rare_enrolled_cases",
            "Enrolled cases of rare diseases that count (lowest of all workers).",
            registry=registry,
            multiprocess_mode="livemin" if MULTIPROCESS_VARIABLE in os.environ else "all",
        )
        self._enrolled_damaged = Gauge(
            "cds_rare_enrolled_damaged",
            "1 while a part of the record of enrolled cases cannot be used.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.clients_refused = Gauge(
            "cds_trusted_clients_refused",
            "1 while the file of trusted clients does not hold and a former state of it is in use.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.callers_refused = Counter(
            "cds_callers_refused",
            "Calls turned away at the gate, by the kind of reason.",
            ("category",),
            registry=registry,
        )
        self.replay_unshared = Counter(
            "cds_replay_unshared",
            "Client tokens checked for replay by this process alone, the database being away.",
            registry=registry,
        )

    def deployed(self, bundle: str | None) -> None:
        """This bundle answers from now on (`None`: the published rules alone)."""
        if self._answering is not None:
            self._bundle.labels(self._answering).set(0)
        self._answering = bundle or "none"
        self._bundle.labels(self._answering).set(1)
        self._refused.set(0)

    def enrolled(self, state: EnrolledState) -> None:
        """Take over how the record of enrolled cases was found."""
        self._enrolled.set(state.cases)
        self._enrolled_damaged.set(bool(state.reason))

    def model_refused(self) -> None:
        """A new bundle was refused."""
        self.reloads.labels("refused").inc()
        self._refused.set(1)

    def answered(self, service: str, status: int, seconds: float) -> None:
        """Count one call of a service."""
        self.calls.labels(service, status).inc()
        self.seconds.labels(service).observe(seconds)

    def read(self, chart: PatientChart) -> None:
        """Count what a chart was read from, and what of it could not be used."""
        self.resources.inc(chart.resources_read)
        self.coded.inc(chart.coded_total)
        if chart.unmapped:
            self.unmapped.inc(len(chart.unmapped))
        for issue in chart.issues:
            self.issues.labels(issue.code).inc()

    def audit(self, state: AuditState) -> None:
        """Take over the state of the audit trail."""
        self._spool.set(state.spool_depth)
        self._database.set(state.database_up)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format; of all workers when there are several."""
        if MULTIPROCESS_VARIABLE in os.environ:
            combined = CollectorRegistry()
            MultiProcessCollector(combined)  # type: ignore[no-untyped-call]
            return generate_latest(combined)
        return generate_latest(self._registry)
