"""How to deal with few patients in immediate need: compared by what is left after calibration.

Plain fitting, cost weights and oversampling change the probabilities that members give; the pool is
calibrated on untouched patients afterwards.  What counts is calibration error, log loss, and the share of
patients in need who are called at the policy's threshold, on patients that nothing was fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.policy import PolicySettings
from training.datasets.progress import bars
from training.ensemble.cohort import Cohort, Simulator, split
from training.ensemble.config import EnsembleConfig
from training.ensemble.members import fit_boosted, fit_forest, fit_network
from training.ensemble.stacking import fit_logistic, fit_temperature
from training.evaluation.measures import auroc, calibration_error
from training.likelihood import likelihood_arrays, likelihood_margins

PLAIN, COST, OVER, BALANCED = "plain", "cost weights", "oversampling", "oversampling to balance"


@dataclass(frozen=True)
class Strategy:
    """Figures of one strategy on the test patients.

    `ece_before` and `recall_before` are of the members' mean log-odds as fitted; the others of the
    calibrated pool.  `alert_rate` is the share of all patients called.
    """

    name: str
    ece_before: float
    recall_before: float
    ece: float
    recall: float
    alert_rate: float
    auroc: float
    log_loss: float


def imbalance_study(
    simulator: Simulator, config: EnsembleConfig, console: Console | None = None
) -> tuple[Strategy, ...]:
    """Fit the members for immediate attention once per strategy; the same patients for all.

    `config.patients` patients are simulated; `config.critical_weight` is the weight of cost weights and
    the factor of the first oversampling.
    """
    cohort = simulator.cohort(config.patients, config.seed)
    parts = [cohort.take(rows) for rows in split(config.patients)]
    training = parts[0].labels.immediate
    even = float((~training).sum() / max(training.sum(), 1))
    plans = ((PLAIN, 1.0, 1.0), (COST, config.critical_weight, 1.0), (OVER, 1.0, config.critical_weight))
    # Only immediate attention is looked at: the other boosters need not be good.
    boosted = msgspec.structs.replace(config.boosted, rounds=1, severity_rounds=1)
    found = []
    with bars(console) as shown:
        bar = shown.start("Comparing", len(plans) + 1)
        for name, weight, factor in (*plans, (BALANCED, 1.0, even)):
            changed = msgspec.structs.replace(config, critical_weight=weight, boosted=boosted)
            taken = parts[0].take(oversampled(training, factor, config.seed))
            found.append(_measure(name, simulator, taken, parts[1], parts[2], changed))
            bar.advance()
    return tuple(found)


def oversampled(positive: NDArray[np.bool_], factor: float, seed: int) -> NDArray[np.int64]:
    """Row numbers in which positive rows stand `factor` times on average, the others once."""
    rng = np.random.default_rng(seed)
    copies = np.ones(len(positive), dtype=np.int64)
    more = np.maximum(factor, 1.0) + rng.random(int(positive.sum())) - 1e-12
    copies[positive] = np.floor(more).astype(np.int64)
    return np.repeat(np.arange(len(positive)), copies)


def _measure(
    name: str,
    simulator: Simulator,
    training: Cohort,
    calibration: Cohort,
    test: Cohort,
    config: EnsembleConfig,
) -> Strategy:
    classes = len(simulator.tables.ids)
    own = likelihood_margins(likelihood_arrays(simulator.tables), training.rows, simulator.reader)
    temperature = fit_temperature(own.astype(np.float64), training.labels.disease.astype(np.int64))
    base = (own / temperature).astype(np.float32)
    members = (
        fit_boosted(training, base, config, classes, config.seed),
        fit_network(training, base, config, classes, config.seed),
        fit_forest(training, base, config, classes, config.seed),
    )

    def margins(cohort: Cohort) -> list[NDArray[np.float32]]:
        return [member.margins(cohort.rows).immediate for member in members]

    said, true = margins(test), test.labels.immediate
    before = _chance(np.mean(said, axis=0, dtype=np.float64))
    pool = fit_logistic(margins(calibration), calibration.labels.immediate)
    after = _chance(pool.margins(said))
    threshold = PolicySettings().immediate_threshold
    sure = np.clip(np.where(true, after, 1 - after), 1e-6, 1.0)
    return Strategy(
        name,
        calibration_error(true, before),
        _recall(true, before > threshold),
        calibration_error(true, after),
        _recall(true, after > threshold),
        float((after > threshold).mean()),
        auroc(true, after),
        float(-np.log(sure).mean()),
    )


def _chance(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logit)))


def _recall(true: NDArray[np.bool_], called: NDArray[np.bool_]) -> float:
    return float(called[true].mean()) if true.any() else float("nan")


def table(strategies: Sequence[Strategy]) -> str:
    """The comparison as a Markdown table."""
    head = "| strategy | ECE as fitted | recall as fitted | ECE | recall | alerts | AUROC | log loss |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for one in strategies:
        figures = (
            one.ece_before, one.recall_before, one.ece, one.recall, one.alert_rate, one.auroc, one.log_loss
        )  # fmt: skip
        lines.append(f"| {one.name} | {' | '.join(f'{value:.4f}' for value in figures)} |")
    return "\n".join(lines)
