"""One evaluation from start to finish: a model bundle, patients, external sets, files.

Responsible for the order of things and for the files; what a figure means is elsewhere.  The command and
the retraining pipeline both come through here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import models
from fhir_adapters.chart_builder import ChartBuilder
from models.bundle import Bundle, load_bundle
from models.bundle_seal import read_trusted_keys
from models.engine import Engine
from training.ensemble.cohort import Simulator
from training.evaluation.answers import Runner
from training.evaluation.external import evaluate_external
from training.evaluation.internal import evaluate_internal
from training.evaluation.markdown import write_markdown
from training.evaluation.page import render
from training.evaluation.predictions import HeldOut, load_heldout
from training.evaluation.report import HTML_NAME, JSON_NAME, build_report, report_json
from training.evaluation.simulated import SEED, simulated_heldout

ARTIFACTS = Path(models.__file__).parent / "artifacts"
SHIPPED_BUNDLE, SHIPPED_KEYS = ARTIFACTS / "common", ARTIFACTS / "trusted_keys.json"
CLINICAL = Path(__file__).resolve().parents[3] / "shared" / "clinical"
"""Where the development sets are looked for: beside the repository."""
BOOTSTRAPS = 200
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to evaluate and where to put it.

    bundle: `None` evaluates the published rules alone (external part only).
    patients: simulated patients of the internal part; 0 leaves it out.
    predictions: a file of held-out predictions to take in place of simulating.
    ablations: a file of held-out predictions of which only the ablations are shown.
    clinical: directory of the external sets; `None` leaves them out.
    now: the moment of a record that names none.
    """

    out: Path
    now: datetime
    bundle: Path | None = SHIPPED_BUNDLE
    keys: Path = SHIPPED_KEYS
    patients: int = 4000
    seed: int = SEED
    predictions: Path | None = None
    ablations: Path | None = None
    clinical: Path | None = CLINICAL
    markdown: Path | None = None
    bootstraps: int = BOOTSTRAPS


def evaluate(plan: Plan, say: Say = lambda _: None) -> dict[str, Any]:
    """Make the report and write it; returns it.

    Raises what loading the bundle raises (`BundleInvalid`, `KeysInvalid`) and `EvaluationDataInvalid`.
    """
    builder = ChartBuilder.load()
    bundle: Bundle | None = None
    if plan.bundle is not None:
        trusted = read_trusted_keys(plan.keys)
        bundle = load_bundle(plan.bundle, trusted, ontology=builder.tables.ontology.version)
    engine = Engine.load(builder.tables.ontology, bundle=bundle)
    heldout = _heldout(plan, engine, bundle, say)
    internal = None
    if heldout is not None:
        say(f"figures of {len(heldout.truth):,} simulated patients")
        internal = evaluate_internal(heldout, times=plan.bootstraps)
        if plan.predictions is not None:
            internal["about"]["predictions"] = f"as training saved them in {plan.predictions.name}"
        if plan.ablations is not None:
            other = evaluate_internal(load_heldout(plan.ablations), times=plan.bootstraps)
            internal["ablations"] = other["ablations"]
            internal["about"]["ablations"] = f"on the {other['n']:,} patients of {plan.ablations.name}"
    external = None
    if plan.clinical is not None:
        say("external sets")
        external = evaluate_external(Runner(builder, engine.assess, plan.now), plan.clinical)
    report = build_report(
        model=bundle.id if bundle is not None else engine.model_id, internal=internal, external=external
    )
    write(report, plan.out, plan.markdown)
    return report


def _heldout(plan: Plan, engine: Engine, bundle: Bundle | None, say: Say) -> HeldOut | None:
    if plan.predictions is not None:
        return load_heldout(plan.predictions)
    if bundle is None or not plan.patients:
        return None
    say(f"simulating {plan.patients:,} patients and assessing them one by one")
    return simulated_heldout(
        Simulator.load(),
        engine.assess,
        bundle.diseases,
        count=plan.patients,
        coverage=float(bundle.stack["coverage"]),
        seed=plan.seed,
        say=say,
    )


def write(report: dict[str, Any], directory: Path, markdown: Path | None = None) -> tuple[Path, Path]:
    """Write page and JSON into a directory (made if need be), and the tables into a document if asked."""
    directory.mkdir(parents=True, exist_ok=True)
    page, data = directory / HTML_NAME, directory / JSON_NAME
    data.write_text(report_json(report), encoding="utf-8")
    page.write_text(render(report), encoding="utf-8")
    if markdown is not None:
        write_markdown(report, markdown)
    return page, data
