"""Trains the rare-disease engine: knowledge, encoder, second stage with its calibration, alarm.

Responsible for the order of the steps and for what is handed on.  The same configuration, sources and
machine give the same arrays.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from scipy.optimize import minimize

from models.rare.encoder import Encoder
from models.rare.scoring import Scorer
from models.rare.terms import Arrays
from training.rare.alarm import alarm_rows, fit_alarm, published_rows, rare_patients
from training.rare.boosting import BoostConfig, Fitted, Groups, fit, joined
from training.rare.build import Built, build
from training.rare.cases import Case
from training.rare.embedding import EmbeddingConfig, train_encoder
from training.rare.groups import published, simulated
from training.rare.visitors import Visitors, everyday_patients
from training.revision import code_revision

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class RareConfig:
    """Settings of a training run; `simulated_weight` is the weight of all simulated patients together
    against that of all published cases."""

    seed: int = 20261
    everyday: int = 5_000
    simulated: int = 5_000
    simulated_weight: float = 0.5
    alarm_patients: int = 4_000
    folds: int = 5
    encoder: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    boost: BoostConfig = field(default_factory=BoostConfig)


@dataclass(frozen=True, eq=False)
class Trained:
    """`arrays` serve; `folds` [K] are the second stages and alarms that have not seen the diseases of a fold,
    with `fold_of` disease (OMIM id) → fold, for figures on the published cases."""

    arrays: Arrays
    built: Built
    folds: tuple[Arrays, ...]
    fold_of: dict[str, int]


def train(config: RareConfig, cases: Sequence[Case], console: Console) -> Trained:
    """Train the engine; `cases` (with their own paper unread) may be empty: then on simulated ones only."""
    with Progress(console=console) as progress:
        visitors = everyday_patients(config.everyday, config.seed, progress)
    built = build(visitors.share, console)
    knowledge = built.knowledge
    with Progress(console=console) as progress:
        encoder = train_encoder(knowledge, config.encoder, progress)
        scorer = Scorer(knowledge, Encoder.of(encoder))
        rng = np.random.default_rng(config.seed)
        made = simulated(scorer, config.simulated, rng, progress)
        fold_of = folds_of(cases, config.folds, config.seed)
        labels = {disease: number for number, disease in enumerate(sorted(fold_of))}
        parts = [made]
        if cases:
            parts.append(published(scorer, cases, labels, rng, progress))
        reranker, folds = second_stage(parts, labels, fold_of, config, progress)
        alarm, alarms = alarm_of(scorer, visitors, cases, fold_of, config, progress)
        folds = tuple(one | other for one, other in zip(folds, alarms, strict=True))
    return Trained({**knowledge.arrays(), **encoder, **reranker, **alarm}, built, folds, fold_of)


def folds_of(cases: Sequence[Case], count: int, seed: int) -> dict[str, int]:
    """The fold of each disease, so that all its cases are on one side."""
    diseases = sorted({case.dx[0] for case in cases})
    shuffled = np.random.default_rng(seed).permutation(len(diseases))
    return {disease: int(place) % count for disease, place in zip(diseases, shuffled, strict=True)}


def second_stage(
    parts: list[Groups],
    labels: dict[str, int],
    fold_of: dict[str, int],
    config: RareConfig,
    progress: Progress,
) -> tuple[Arrays, tuple[Arrays, ...]]:
    """The re-ranker fitted on everything, and one for each fold; both calibrated out of fold."""
    made = parts[0]
    task = progress.add_task("second stage", total=config.folds + 1)
    fold_of_label = np.zeros(len(labels) + 1, dtype=np.int64)
    for disease, number in labels.items():
        fold_of_label[number] = fold_of[disease]
    # Simulated patients are dealt to the folds too, so that their calibration is out of fold as well.
    dealt = np.random.default_rng(config.seed).integers(config.folds, size=len(made.right))
    folds = [dealt] + [fold_of_label[part.label] for part in parts[1:]]

    def fitted(without: int) -> Fitted:
        chosen = [
            part.chosen(np.flatnonzero(fold != without)) for part, fold in zip(parts, folds, strict=True)
        ]
        if len(chosen) > 1:
            share = config.simulated_weight * chosen[1].weight.sum() / len(chosen[0].weight)
            chosen[0] = replace(chosen[0], weight=np.full(len(chosen[0].weight), share))
        return fit(joined(chosen), config.boost)

    by_fold, held, scores = [], [], []
    for fold in range(config.folds):
        model = fitted(fold)
        by_fold.append(model)
        for part, dealt_to in zip(parts, folds, strict=True):
            mine = np.flatnonzero(dealt_to == fold)
            if len(mine):
                held.append(part.chosen(mine))
                scores.append(model.score(held[-1].features))
        progress.advance(task)
    calibration = calibrated(np.concatenate(scores), joined(held))
    final = fitted(-1)
    progress.advance(task)
    return final.arrays() | calibration, tuple(model.arrays() | calibration for model in by_fold)


def calibrated(scores: F64, groups: Groups) -> Arrays:
    """Temperature of the scores and the share of "none of these", fitted on held-out patients."""
    starts, sizes = groups.starts[:-1], np.diff(groups.starts)
    best = np.maximum.reduceat(scores, starts)
    known = groups.right >= 0
    weight = groups.weight / groups.weight.sum()

    def loss(parameters: F64) -> float:
        temperature, none, slope = np.exp(parameters[0]), parameters[1], parameters[2]
        logits = scores / temperature
        rest = none + slope * best / temperature
        top = np.maximum(np.maximum.reduceat(logits, starts), rest)
        total = np.add.reduceat(np.exp(logits - np.repeat(top, sizes)), starts) + np.exp(rest - top)
        right = np.where(known, logits[np.where(known, groups.right, 0)], rest)
        return float(-(weight * (right - top - np.log(total))).sum())

    best_fit = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"maxiter": 600, "xatol": 1e-4})
    return {
        "reranker.temperature": np.array(np.exp(best_fit.x[0])),
        "reranker.none": np.array(best_fit.x[1]),
        "reranker.none_slope": np.array(best_fit.x[2]),
    }


def alarm_of(
    scorer: Scorer,
    visitors: Visitors,
    cases: Sequence[Case],
    fold_of: dict[str, int],
    config: RareConfig,
    progress: Progress,
) -> tuple[Arrays, tuple[Arrays, ...]]:
    """The alarm, and one for each fold: simulated patients of both kinds, and published cases if any."""
    rng = np.random.default_rng(config.seed + 1)
    rare = rare_patients(scorer, config.alarm_patients, rng)
    everyday = [(phenotype, frozenset[str]()) for phenotype in visitors.phenotypes[: config.alarm_patients]]
    rows = (
        alarm_rows(scorer, rare, progress, "rare patients for the alarm"),
        alarm_rows(scorer, everyday, progress, "everyday patients for the alarm"),
    )
    published = published_rows(scorer, cases, progress) if cases else None
    if published is None:
        return fit_alarm(*rows), (fit_alarm(*rows),) * config.folds
    left_out = [{disease for disease, of in fold_of.items() if of == fold} for fold in range(config.folds)]
    return fit_alarm(*rows, published), tuple(fit_alarm(*rows, published.without(each)) for each in left_out)


def facts(trained: Trained, config: RareConfig, cases: Sequence[Case]) -> dict[str, Any]:
    """What stands beside the arrays: what they were made from."""
    knowledge = trained.built.knowledge
    return {
        "release": knowledge.release,
        "attribution": knowledge.attribution,
        "knowledge": trained.built.counts,
        "published_cases": len(cases),
        "published_diseases": len(trained.fold_of),
        "published_note": "with their own paper unread; none of them is in the knowledge",
        "settings": asdict(config),
        "code": code_revision(),
    }
