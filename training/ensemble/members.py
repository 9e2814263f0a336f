"""Fits the members: boosted trees and a neural net on top of the likelihood, and a random forest.

Every member answers three questions at once: which disease [N, D], which severity [N, 5], and whether
attention is needed within minutes [N].  Severity and immediate attention share trees only in the forest.
"""

from dataclasses import dataclass

import numpy as np
import torch
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from torch import nn

from training.ensemble.cohort import Cohort, Labels
from training.ensemble.config import BoostedConfig, EnsembleConfig, ForestConfig, NetworkConfig
from training.simulation.rows import Rows

F32 = NDArray[np.float32]
SEVERITY_COUNT = 5


@dataclass(frozen=True)
class Margins:
    """Outputs of one member: log-odds up to a constant per row (disease, severity), log-odds (immediate)."""

    disease: F32
    severity: F32
    immediate: F32

    def take(self, rows: NDArray[np.int64]) -> "Margins":
        """Some of the rows."""
        return Margins(self.disease[rows], self.severity[rows], self.immediate[rows])


def weights_of(labels: Labels, critical: float) -> F32:
    """Weight of each patient in fitting: who needs attention within minutes weighs `critical` times."""
    return np.where(labels.immediate, critical, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Boosted:
    """Three boosters; the disease booster adds to the likelihood's margins."""

    disease: xgboost.Booster
    severity: xgboost.Booster
    immediate: xgboost.Booster

    def margins(self, rows: Rows) -> Margins:
        """What the trees alone add (the likelihood is a member of its own)."""
        data = xgboost.DMatrix(rows.features)
        found = []
        for booster in (self.disease, self.severity, self.immediate):
            margin = booster.predict(data, output_margin=True)
            found.append(np.asarray(margin, dtype=np.float32))
        return Margins(*found)


def fit_boosted(cohort: Cohort, base: F32, config: EnsembleConfig, classes: int, seed: int) -> Boosted:
    """Fit the boosters; `base` are the tempered margins of the likelihood [N, D]."""
    boosted = config.boosted
    weight = weights_of(cohort.labels, config.critical_weight)
    data = xgboost.DMatrix(cohort.rows.features, label=cohort.labels.disease, weight=weight)
    data.set_base_margin(base)
    disease = xgboost.train(
        _params(boosted, config.threads, seed) | {"objective": "multi:softprob", "num_class": classes},
        data,
        num_boost_round=boosted.rounds,
    )
    data = xgboost.DMatrix(cohort.rows.features, label=cohort.labels.severity, weight=weight)
    severity = xgboost.train(
        _params(boosted, config.threads, seed) | {"objective": "multi:softprob", "num_class": SEVERITY_COUNT},
        data,
        num_boost_round=boosted.severity_rounds,
    )
    data.set_label(cohort.labels.immediate.astype(np.float32))
    immediate = xgboost.train(
        _params(boosted, config.threads, seed) | {"objective": "binary:logistic"},
        data,
        num_boost_round=boosted.immediate_rounds,
    )
    return Boosted(disease, severity, immediate)


def _params(config: BoostedConfig, threads: int, seed: int) -> dict[str, object]:
    return {
        "tree_method": "hist",
        "max_depth": config.depth,
        "learning_rate": config.rate,
        "subsample": config.subsample,
        "colsample_bytree": config.columns,
        "min_child_weight": config.child_weight,
        "reg_lambda": config.penalty,
        "max_bin": config.bins,
        "base_score": 0.5,
        "nthread": threads,
        "seed": seed,
    }


@dataclass(frozen=True)
class Forest:
    """A forest grown for the disease; its leaves also hold severity and immediate attention [leaf, 5 + 1]."""

    model: RandomForestClassifier
    extra: tuple[F32, ...]
    columns: NDArray[np.int64]  # the disease number of each class the forest saw
    usual: F32  # [D] log of the share of each disease among the patients it was grown on
    classes: int

    def margins(self, rows: Rows) -> Margins:
        """Logarithms of the mean leaf distributions; of diseases, against how frequent they are anyway.

        How frequent a disease is, is in the likelihood's prior; a patient of whom the forest knows
        nothing particular is no evidence for the frequent.
        """
        probability = np.full((len(rows), self.classes), 0.0, dtype=np.float32)
        probability[:, self.columns] = self.model.predict_proba(rows.features)
        leaves = self.model.apply(rows.features)
        extra = np.zeros((len(rows), SEVERITY_COUNT + 1), dtype=np.float32)
        for tree, table in enumerate(self.extra):
            extra += table[leaves[:, tree]]
        extra /= len(self.extra)
        return Margins(
            np.log(probability + FOREST_FLOOR) - self.usual,
            np.log(extra[:, :SEVERITY_COUNT] + FOREST_FLOOR),
            np.log((extra[:, -1] + FOREST_FLOOR) / (1 - extra[:, -1] + FOREST_FLOOR)),
        )


FOREST_FLOOR = 1e-3
"""Added to a share of the forest before its logarithm is taken."""


def fit_forest(cohort: Cohort, base: F32, config: EnsembleConfig, classes: int, seed: int) -> Forest:
    """Grow the forest; it takes no notice of `base` (its share of a disease stands by itself)."""
    del base
    forest: ForestConfig = config.forest
    weight = weights_of(cohort.labels, config.critical_weight)
    model = RandomForestClassifier(
        forest.trees,
        max_leaf_nodes=forest.leaves,
        max_depth=forest.depth,
        min_samples_leaf=forest.smallest_leaf,
        max_features="sqrt",
        n_jobs=config.threads,
        random_state=seed,
    ).fit(cohort.rows.features, cohort.labels.disease, sample_weight=weight)
    leaves = model.apply(cohort.rows.features)
    outcome = np.zeros((len(cohort), SEVERITY_COUNT + 1), dtype=np.float64)
    outcome[np.arange(len(cohort)), cohort.labels.severity] = 1
    outcome[:, -1] = cohort.labels.immediate
    extra = []
    for tree, estimator in enumerate(model.estimators_):
        total = np.zeros((estimator.tree_.node_count, SEVERITY_COUNT + 1))
        count = np.zeros(estimator.tree_.node_count)
        np.add.at(total, leaves[:, tree], outcome)
        np.add.at(count, leaves[:, tree], 1)
        extra.append((total / np.maximum(count, 1)[:, None]).astype(np.float32))
    share = np.bincount(cohort.labels.disease, weights=weight, minlength=classes) / weight.sum()
    usual = np.log(share + FOREST_FLOOR).astype(np.float32)
    return Forest(model, tuple(extra), model.classes_.astype(np.int64), usual, classes)


@dataclass(frozen=True)
class Net:
    """Weights of the net as arrays: `w1` [F, H], `b1` [H], `w2` [H, C], `b2` [C], centred per question."""

    w1: F32
    b1: F32
    w2: F32
    b2: F32
    classes: int

    def margins(self, rows: Rows) -> Margins:
        """What the net alone adds."""
        output = np.maximum(rows.features @ self.w1 + self.b1, 0) @ self.w2 + self.b2
        return Margins(
            output[:, : self.classes],
            output[:, self.classes : self.classes + SEVERITY_COUNT],
            output[:, -1],
        )


def fit_network(cohort: Cohort, base: F32, config: EnsembleConfig, classes: int, seed: int) -> Net:
    """Fit the net with Adam; `base` as for `fit_boosted`."""
    settings: NetworkConfig = config.network
    torch.manual_seed(seed)
    torch.set_num_threads(config.threads)
    features = cohort.rows.features
    first = nn.Linear(features.shape[1], settings.hidden)
    second = nn.Linear(settings.hidden, classes + SEVERITY_COUNT + 1)
    nn.init.zeros_(second.weight[:classes])
    drop = nn.Dropout(settings.dropout)
    parameters = [*first.parameters(), *second.parameters()]
    steps = settings.epochs * (len(cohort) // settings.batch + 1)
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=settings.rate, total_steps=steps)
    weight = weights_of(cohort.labels, config.critical_weight)
    rng = np.random.default_rng(seed)
    labels = cohort.labels
    for _ in range(settings.epochs):
        order = rng.permutation(len(cohort))
        for start in range(0, len(order), settings.batch):
            rows = order[start : start + settings.batch]
            inputs = torch.from_numpy(features[rows].toarray())
            # What one writer notes, the next leaves out.
            inputs = inputs * (torch.rand_like(inputs) >= settings.input_dropout)
            output = second(drop(torch.relu(first(inputs))))
            disease = output[:, :classes] + torch.from_numpy(base[rows])
            loss = nn.functional.cross_entropy(
                disease, torch.from_numpy(labels.disease[rows]).long(), reduction="none"
            )
            loss = loss + 0.5 * nn.functional.cross_entropy(
                output[:, classes:-1], torch.from_numpy(labels.severity[rows]).long(), reduction="none"
            )
            loss = loss + 0.5 * nn.functional.binary_cross_entropy_with_logits(
                output[:, -1], torch.from_numpy(labels.immediate[rows].astype(np.float32)), reduction="none"
            )
            optimiser.zero_grad()
            (loss * torch.from_numpy(weight[rows])).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    w2 = second.weight.detach().numpy().T.copy()
    b2 = second.bias.detach().numpy().copy()
    for part in (slice(0, classes), slice(classes, classes + SEVERITY_COUNT)):
        w2[:, part] -= w2[:, part].mean(axis=1, keepdims=True)
        b2[part] -= b2[part].mean()
    return Net(first.weight.detach().numpy().T.copy(), first.bias.detach().numpy().copy(), w2, b2, classes)
