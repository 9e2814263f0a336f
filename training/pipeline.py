"""One training run from patients to a registered, signed bundle.

Responsible for the order of things and for what is kept of a run in MLflow; every step is a module of its
own.  The command and the retraining test both come through here.
"""

import base64
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from models.assessment import SEVERITIES
from models.bundle import Bundle
from models.engine import Engine
from training.datasets.progress import Bars, bars
from training.ensemble.assemble import Assembled, assemble
from training.ensemble.build import NAME, Origin, build_bundle
from training.ensemble.cohort import Simulator
from training.ensemble.config import EnsembleConfig
from training.ensemble.config_file import check_config, config_toml, flat_config
from training.ensemble.figures import key_figures, without_need
from training.ensemble.heldout import held_out
from training.ensemble.parts import disease_infos
from training.ensemble.train import Trained, train
from training.evaluation import plots
from training.evaluation.answers import Runner
from training.evaluation.external import evaluate_external
from training.evaluation.internal import evaluate_internal
from training.evaluation.predictions import HeldOut, save_heldout
from training.evaluation.report import build_report, flat_metrics
from training.evaluation.run import write as write_report
from training.registry.log import log_files, log_metrics, log_params
from training.registry.store import Store
from training.registry.versions import BUNDLE, Version, next_version, register

HELD_OUT = "heldout.npz"
BOOTSTRAPS = 100
_STEPS = 5
"""What `train` tells beside the folds."""


@dataclass(frozen=True)
class Plan:
    """What to train and where to put it.

    out: directory of the bundle, replaced when there is one.
    datasets: directories of `training.datasets`, beside `config.patients` simulated patients.
    version: of the bundle; by default the next of the registry.
    now: the moment of the run (aware); its day is the bundle's.
    clinical: directory of the external sets, to be measured on; `None` leaves them out.
    """

    config: EnsembleConfig
    out: Path
    key: Ed25519PrivateKey
    now: datetime
    revision: str
    datasets: tuple[Path, ...] = ()
    version: str | None = None
    clinical: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The written bundle, its version in the registry, the key figures and the whole report."""

    bundle: Bundle
    version: Version
    figures: dict[str, float]
    report: dict[str, Any]


def run_training(plan: Plan, simulator: Simulator, store: Store, console: Console | None = None) -> Outcome:
    """Train, measure, write, log and register; progress is shown on `console`.

    Raises `ConfigInvalid`, `TrainingDataInvalid`, what loading datasets raises, and `OSError`.
    """
    config = check_config(plan.config)
    version = plan.version or next_version(store)
    tags = {"knowledge": simulator.knowledge.digest, "revision": plan.revision, "version": version}
    with (
        store.run(f"train-{version}", tags) as run,
        tempfile.TemporaryDirectory(prefix="cds-train-") as scratch,
    ):
        log_params(store, run, {**flat_config(config), **tags})
        work = Path(scratch)
        (work / "config.toml").write_text(config_toml(config), encoding="utf-8")
        with bars(console) as shown:
            assembled = assemble(simulator, config, plan.datasets, shown)
            _log_data(store, run, assembled, work)
            trained = _train(simulator, assembled, config, shown, work)
        heldout, real = held_out(
            trained,
            assembled,
            simulator.reader,
            disease_infos(simulator.knowledge, simulator.tables, trained),
            config.coverage,
            config.critical_weight,
        )
        told = assembled.need_is_known
        judged = heldout if heldout is not None else real
        internal = None if judged is None else _judge(judged, told or judged is heldout, BOOTSTRAPS)
        extra = {} if heldout is None or real is None else _real_figures(real, told)
        origin = Origin(
            version, plan.now.astimezone().date(), plan.revision, assembled.sources, assembled.digest
        )

        def build(report: dict[str, Any]) -> Bundle:
            return build_bundle(
                plan.out, simulator, trained, config, origin, report, plan.key, key_figures(internal) | extra
            )

        report = build_report(model=f"{NAME}-{version}", internal=internal, external=None)
        if plan.clinical is not None:
            # Measured by the engine with the very bundle; only figures are added to it afterwards.
            external = _external(simulator, build(report), plan.clinical, plan.now)
            report = build_report(model=f"{NAME}-{version}", internal=internal, external=external)
        bundle = build(report)
        figures = key_figures(internal) | extra
        if judged is not None:
            save_heldout(work / HELD_OUT, judged)
        write_report(report, work / "evaluation")
        _write_plots(report, work / "plots")
        log_metrics(store, run, flat_metrics(report) | figures)
        log_files(store, run, work)
        log_files(store, run, plan.out, BUNDLE)
        version_tags = {"knowledge": simulator.knowledge.digest, "data": assembled.digest}
        version_tags |= {
            name: f"{figures[name]:.4f}" for name in ("top1", "critical_recall") if name in figures
        }
        return Outcome(bundle, register(store, run, bundle, version_tags), figures, report)


def _judge(heldout: HeldOut, need_is_known: bool, bootstraps: int) -> dict[str, Any]:
    internal = evaluate_internal(heldout, times=bootstraps)
    return internal if need_is_known else without_need(internal)


def _real_figures(real: HeldOut, need_is_known: bool) -> dict[str, float]:
    """The key figures on real visits, where simulated ones fill the report; names begin with ``real.``."""
    internal = _judge(real, need_is_known, 1)
    return {f"real.{name}": value for name, value in key_figures(internal).items()}


def _train(
    simulator: Simulator, assembled: Assembled, config: EnsembleConfig, shown: Bars, work: Path
) -> Trained:
    bar = shown.start("Training", config.folds + _STEPS)
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        bar.advance()

    trained = train(simulator.tables, simulator.reader, assembled.data, config, say)
    bar.advance(config.folds + _STEPS - len(told))
    (work / "training.log").write_text("\n".join(told) + "\n", encoding="utf-8")
    return trained


def _log_data(store: Store, run: str, assembled: Assembled, work: Path) -> None:
    data = assembled.data
    sizes = {"train": len(data.train), "calibrate": len(data.calibrate), "test": len(data.test)}
    about = {"digest": assembled.digest, "sources": assembled.sources, "parts": sizes}
    (work / "data.json").write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1) + b"\n")
    log_params(store, run, {f"rows.{name}": count for name, count in sizes.items()})
    log_params(store, run, {"data.digest": assembled.digest})
    for number, source in enumerate(assembled.sources):
        log_params(store, run, {f"data.{number}.{name}": value for name, value in source.items()})


def _external(simulator: Simulator, bundle: Bundle, clinical: Path, now: datetime) -> dict[str, Any]:
    engine = Engine.load(simulator.builder.tables.ontology, bundle=bundle)
    return evaluate_external(Runner(simulator.builder, engine.assess, now), clinical)


def _write_plots(report: dict[str, Any], directory: Path) -> None:
    internal = report["internal"]
    if internal is None:
        return
    directory.mkdir()
    curves = {
        "first disease": internal["disease_reliability"],
        "immediate attention": internal["immediate"]["curves"]["reliability"],
    }
    drawn: Sequence[tuple[str, Callable[[], str]]] = (
        ("calibration", lambda: plots.reliability(curves)),
        ("severity-confusion", lambda: plots.confusion(internal["severity"]["confusion"], SEVERITIES)),
    )
    for name, draw in drawn:
        data = draw().partition("base64,")[2]
        (directory / f"{name}.svg").write_bytes(base64.b64decode(data))
