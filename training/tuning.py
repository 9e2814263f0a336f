"""Searches the settings of the ensemble with Optuna: resumable, pruned, shared by several processes.

The objective is the mean log loss of the disease pool on patients that neither members nor pool have
seen (nor their worlds, where the cohort has enough of them), plus a penalty for patients in immediate
need who are missed at the policy's threshold.  A trial that is worse than the median of the others after
a fold is given up.  What a trial proposes depends on its number and on what is in the study, not on the
process, so one process alone repeats itself.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from numpy.typing import NDArray
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from models.policy import PolicySettings
from training.ensemble.cohort import Cohort, Simulator
from training.ensemble.config import EnsembleConfig
from training.ensemble.config_file import with_fields
from training.ensemble.folds import folds_of
from training.ensemble.members import Margins, fit_boosted, fit_forest, fit_network, weights_of
from training.ensemble.stacking import fit_logistic, fit_pool, fit_temperature, softmax
from training.likelihood import likelihood_arrays, likelihood_margins

STUDY = "common-ensemble"
DEFAULT_STORAGE = "sqlite:///var/optuna/study.db"
RECALL_WANTED = 0.95
RECALL_PENALTY = 2.0
"""What each point of recall under `RECALL_WANTED` costs, in nats of log loss.  Grade C: a missed critical
patient weighs most."""
_BUSY_SECONDS = 120
_HEARTBEAT = 60
"""Seconds between signs of life of a trial; one whose process died counts as failed after some of them."""


@dataclass(frozen=True)
class Knob:
    """One field that is searched, by its dotted name: whole numbers or not, linearly or by order."""

    name: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    def suggest(self, trial: optuna.Trial) -> float:
        """What the sampler proposes."""
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


SPACE = (
    Knob("critical_weight", 1.0, 4.0, log=True),
    Knob("boosted.rounds", 4, 16, whole=True),
    Knob("boosted.depth", 3, 7, whole=True),
    Knob("boosted.rate", 0.08, 0.5, log=True),
    Knob("boosted.subsample", 0.5, 1.0),
    Knob("boosted.columns", 0.2, 0.8),
    Knob("boosted.child_weight", 0.5, 8.0, log=True),
    Knob("boosted.penalty", 0.5, 8.0, log=True),
    Knob("forest.trees", 30, 90, whole=True),
    Knob("forest.leaves", 400, 2000, whole=True, log=True),
    Knob("forest.depth", 8, 20, whole=True),
    Knob("forest.smallest_leaf", 2, 12, whole=True, log=True),
    Knob("network.hidden", 64, 320, whole=True, log=True),
    Knob("network.epochs", 4, 14, whole=True),
    Knob("network.rate", 5e-4, 5e-3, log=True),
    Knob("network.decay", 1e-6, 1e-2, log=True),
    Knob("network.dropout", 0.0, 0.5),
    Knob("network.input_dropout", 0.0, 0.3),
)
"""What is searched.  Upper bounds stay near twice the defaults: size and speed of a bundle follow them."""


class StudyUnusable(ValueError):
    """The storage cannot be used, or holds a study of something else; the message says what to do."""


@dataclass(frozen=True)
class Score:
    """The figures of some folds: mean log loss, share of patients in need who are called, and the sum."""

    log_loss: float
    recall: float

    @property
    def value(self) -> float:
        """What is made small."""
        return self.log_loss + RECALL_PENALTY * max(0.0, RECALL_WANTED - self.recall)


def open_study(storage: str, about: dict[str, Any], config: EnsembleConfig) -> optuna.Study:
    """The study in `storage`, made if need be.

    Args:
        storage: SQLAlchemy URL; the directory of an SQLite file is made.
        about: what trials are compared on (patients, seed, folds, knowledge); must be the study's.
        config: tried first.

    Raises `StudyUnusable`.
    """
    try:
        url = make_url(storage)
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = {"connect_args": {"timeout": _BUSY_SECONDS}} if url.get_backend_name() == "sqlite" else {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # progress is shown by the caller
        with warnings.catch_warnings():
            # Called experimental for years; without it the trials of a process that died never end.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            backend = optuna.storages.RDBStorage(
                storage, engine_kwargs=arguments, heartbeat_interval=_HEARTBEAT, grace_period=4 * _HEARTBEAT
            )
        study = optuna.create_study(
            study_name=STUDY,
            storage=backend,
            direction="minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
        )
    except (ArgumentError, OSError, optuna.exceptions.StorageInternalError) as fault:
        raise StudyUnusable(
            f"the study's storage cannot be used ({type(fault).__name__}): check --storage"
        ) from fault
    held = study.user_attrs.get("about")
    if held is None:
        study.set_user_attr("about", about)
        study.enqueue_trial(_of_config(config), skip_if_exists=True)
    elif held != about:
        apart = ", ".join(sorted(name for name in about if held.get(name) != about[name]))
        raise StudyUnusable(
            f"the study there is about something else ({apart}): give the same, or another --storage"
        )
    return study


def _of_config(config: EnsembleConfig) -> dict[str, float]:
    plain = msgspec.to_builtins(config)
    found = {}
    for knob in SPACE:
        table, _, name = knob.name.rpartition(".")
        value = (plain[table] if table else plain)[name]
        found[knob.name] = min(max(value, knob.low), knob.high)
    return found


def tune(
    study: optuna.Study,
    simulator: Simulator,
    config: EnsembleConfig,
    trials: int,
    done: Callable[[optuna.trial.FrozenTrial], None],
) -> None:
    """Try `trials` more settings on `config.patients` simulated patients; `done` is told of each.

    Other processes may work on the same study at the same time.
    """
    cohort = simulator.cohort(config.patients, config.seed)
    base = likelihood_margins(likelihood_arrays(simulator.tables), cohort.rows, simulator.reader)
    tempering = 1 / fit_temperature(base.astype(np.float64), cohort.labels.disease.astype(np.int64))
    tempered = (tempering * base).astype(np.float32)

    def objective(trial: optuna.Trial) -> float:
        study.sampler = optuna.samplers.TPESampler(
            seed=config.seed + trial.number, multivariate=False, constant_liar=True
        )
        tried = with_fields(config, {knob.name: knob.suggest(trial) for knob in SPACE})
        score = _score(trial, simulator, tried, cohort, base, tempered)
        trial.set_user_attr("log_loss", score.log_loss)
        trial.set_user_attr("recall", score.recall)
        return score.value

    study.optimize(objective, n_trials=trials, callbacks=[lambda _, trial: done(trial)])


def best_config(study: optuna.Study, config: EnsembleConfig) -> EnsembleConfig | None:
    """`config` with the fields of the best finished trial; `None` when none has finished."""
    finished = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return with_fields(config, study.best_params) if finished else None


def _score(
    trial: optuna.Trial,
    simulator: Simulator,
    config: EnsembleConfig,
    cohort: Cohort,
    base: NDArray[np.float32],
    tempered: NDArray[np.float32],
) -> Score:
    """The score over all folds; raises `optuna.TrialPruned` when the trial is given up."""
    losses: list[float] = []
    recalls: list[float] = []
    for number, (inside, outside) in enumerate(folds_of(cohort, config)):
        found = _fold(simulator, config, cohort, base, tempered, inside, outside, config.seed + number)
        losses.append(found.log_loss)
        recalls.append(found.recall)
        total = Score(float(np.mean(losses)), float(np.nanmean(recalls)))
        trial.report(total.value, number)
        if number + 1 < config.folds and trial.should_prune():
            raise optuna.TrialPruned
    return total


def _fold(
    simulator: Simulator,
    config: EnsembleConfig,
    cohort: Cohort,
    base: NDArray[np.float32],
    tempered: NDArray[np.float32],
    inside: NDArray[np.int64],
    outside: NDArray[np.int64],
    seed: int,
) -> Score:
    """Members from the patients inside; pools from one half of those outside, judged on the other."""
    classes = len(simulator.tables.ids)
    part, rest = cohort.take(inside), cohort.take(outside)
    fitted = (
        fit_boosted(part, tempered[inside], config, classes, seed),
        fit_network(part, tempered[inside], config, classes, seed),
        fit_forest(part, tempered[inside], config, classes, seed),
    )
    members = [member.margins(rest.rows) for member in fitted]
    disease = [base[outside], *[member.disease for member in members]]
    chance = np.empty(len(rest))
    urgent = np.empty(len(rest))
    half = np.arange(len(rest)) % 2 == 0
    for learn, judge in ((half, ~half), (~half, half)):
        chance[judge] = _true_chance(disease, rest, learn, judge, config.critical_weight)
        urgent[judge] = _urgent(members, rest, learn, judge)
    called = urgent > PolicySettings().immediate_threshold
    need = rest.labels.immediate
    recall = float(called[need].mean()) if need.any() else float("nan")
    return Score(float(-np.log(np.maximum(chance, 1e-6)).mean()), recall)


def _true_chance(
    disease: list[NDArray[np.float32]],
    cohort: Cohort,
    learn: NDArray[np.bool_],
    judge: NDArray[np.bool_],
    critical_weight: float,
) -> NDArray[np.float64]:
    labels = cohort.labels.disease.astype(np.int64)
    weight = weights_of(cohort.labels, critical_weight)
    pool = fit_pool([member[learn] for member in disease], labels[learn], weight[learn])
    temperature = fit_temperature(pool.margins([member[learn] for member in disease]), labels[learn])
    probability = softmax(pool.margins([member[judge] for member in disease]) / temperature)
    return np.asarray(probability[np.arange(len(probability)), labels[judge]])


def _urgent(
    members: list[Margins], cohort: Cohort, learn: NDArray[np.bool_], judge: NDArray[np.bool_]
) -> NDArray[np.float64]:
    pool = fit_logistic([member.immediate[learn] for member in members], cohort.labels.immediate[learn])
    return np.asarray(1 / (1 + np.exp(-pool.margins([member.immediate[judge] for member in members]))))
