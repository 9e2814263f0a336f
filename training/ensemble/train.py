"""One training run: members on five folds, the pool on what they had not seen, calibration, conformal sets.

Responsible for the order of things; what comes out is a `Trained` that `bundle` writes and `training.
evaluation` judges.  Seeds are fixed: the same configuration, knowledge and machine give the same figures.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
from crepes import ConformalClassifier
from crepes.extras import hinge
from numpy.typing import NDArray

from fhir_adapters.features import FeatureReader
from models.assessment import SEVERITIES
from models.common.engine import EXPLAINERS, HARDLY, explained, explaining
from models.common.implied import Implied
from training.ensemble.cohort import Cohort, Labels
from training.ensemble.config import EnsembleConfig
from training.ensemble.folds import F32, Say, on_all, out_of_fold
from training.ensemble.members import Boosted, Forest, Margins, Net, weights_of
from training.ensemble.stacking import (
    Pool,
    doubted,
    fit_logistic,
    fit_pool,
    fit_temperature,
    fit_tempering,
    softmax,
)
from training.likelihood import likelihood_arrays, likelihood_margins, prior_margins, rate_margins
from training.simulation.tables import F64, Tables

SIMILARITY_STEPS = 101


@dataclass(frozen=True)
class Data:
    """The three parts of a run; `rules_*` are the logits that the published rules give (nan: not asked)."""

    train: Cohort
    calibrate: Cohort
    test: Cohort
    rules_calibrate: F64
    rules_test: F64


@dataclass(frozen=True)
class Trained:
    """Members fitted on the training part, and the pools over them."""

    likelihood: dict[str, F32]
    tempering: float
    boosted: Boosted
    network: Net
    forest: Forest
    disease: Pool
    severity: Pool
    immediate: Pool
    disease_temperature: float
    severity_temperature: float
    set_threshold: float
    similarity: tuple[float, ...]
    mix: F64

    def pooled(self, members: dict[str, Margins], rules: F64) -> tuple[F64, F64, F64, F64]:
        """Pooled disease margins, and the probabilities of disease, severity and immediate attention."""
        margins = self.disease.margins([members[name].disease for name in MEMBERS])
        disease = softmax(margins / self.disease_temperature)
        implied = np.log(disease @ self.mix + 1e-4).astype(np.float32)
        severity = softmax(
            self.severity.margins([implied, *[members[name].severity for name in MEMBERS[1:]]])
            / self.severity_temperature
        )
        learned = [members[name].immediate for name in MEMBERS]
        logit = self.immediate.margins([rules.astype(np.float32), *learned])
        return margins, disease, severity, 1 / (1 + np.exp(-logit))


MEMBERS = ("likelihood", "boosted", "network", "forest")


def train(tables: Tables, reader: FeatureReader, data: Data, config: EnsembleConfig, say: Say) -> Trained:
    """Fit everything.  `reader` is the `FeatureReader` of the rows; `say` is told what is going on."""
    started = time.monotonic()

    def tell(text: str) -> None:
        say(f"[{time.monotonic() - started:5.0f} s] {text}")

    classes = len(tables.ids)
    mix = severity_mix(tables)
    likelihood = likelihood_arrays(tables)
    own = likelihood_margins(likelihood, data.train.rows, reader)
    own, tempering = _tempered(likelihood, own, data.train, tell)
    base = (tempering * own).astype(np.float32)
    outside = out_of_fold(data.train, base, config, classes, tell)
    outside["likelihood"] = likelihood_member(likelihood, own)
    weight = weights_of(data.train.labels, config.critical_weight)
    labels = data.train.labels
    disease = doubted(
        fit_pool([outside[name].disease for name in MEMBERS], labels.disease.astype(np.int64), weight)
    )
    tell("pool: " + ", ".join(f"{n} {w:.2f}" for n, w in zip(MEMBERS, disease.weights, strict=True)))
    pooled = softmax(disease.margins([outside[name].disease for name in MEMBERS]))
    implied = np.log(pooled @ mix + 1e-4).astype(np.float32)
    severity = fit_pool(
        [implied, *[outside[name].severity for name in MEMBERS[1:]]],
        labels.severity.astype(np.int64),
        weight,
    )
    boosted, network, forest = on_all(data.train, base, config, classes)
    tell("members fitted on the whole training part")
    members = member_margins(likelihood, boosted, network, forest, data.calibrate, reader)
    truth = data.calibrate.labels
    margins = disease.margins([members[name].disease for name in MEMBERS])
    temperature = fit_temperature(margins, truth.disease.astype(np.int64))
    probability = softmax(margins / temperature)
    implied = np.log(probability @ mix + 1e-4).astype(np.float32)
    severity_margins = severity.margins([implied, *[members[name].severity for name in MEMBERS[1:]]])
    immediate = _immediate(members, data.rules_calibrate, truth)
    threshold = conformal_threshold(probability, truth.disease, config.coverage)
    tell(f"calibrated: temperature {temperature:.2f}, conformal threshold {threshold:.4f}")
    return Trained(
        likelihood,
        tempering,
        boosted,
        network,
        forest,
        disease,
        severity,
        immediate,
        temperature,
        fit_temperature(severity_margins, truth.severity.astype(np.int64)),
        threshold,
        similarity_quantiles(tables, data.calibrate, probability),
        mix,
    )


TEMPERED_ON = 20_000
"""Patients on whom the exponents of rates, ages and evidence are fitted."""


def _tempered(likelihood: dict[str, F32], own: F32, cohort: Cohort, tell: Say) -> tuple[F32, float]:
    """The margins with rates and ages at weights of their own, and the exponent of the whole.

    Changes `likelihood` in place: the prior, so that one exponent serves it and the evidence, and that
    exponent.
    """
    rate = rate_margins(likelihood, cohort.rows)
    age = prior_margins(likelihood, cohort.rows) - rate
    evidence = own - rate - age
    part = np.linspace(0, len(cohort) - 1, min(len(cohort), TEMPERED_ON)).astype(np.int64)
    frequent, aged, tempering = fit_tempering(
        [one[part].astype(np.float64) for one in (rate, age, evidence)],
        cohort.labels.disease[part].astype(np.int64),
    )
    tell(
        f"likelihood of the knowledge: rates to the {frequent:.2f}, ages {aged:.2f}, evidence {tempering:.2f}"
    )
    table = likelihood["likelihood.prior"]
    rates = table[:, -1:]
    table = np.float32(frequent / tempering) * rates + np.float32(aged / tempering) * (table - rates)
    likelihood["likelihood.prior"] = table
    likelihood["likelihood.tempering"] = np.array(tempering, dtype=np.float32)
    return evidence + np.float32(frequent / tempering) * rate + np.float32(aged / tempering) * age, tempering


def likelihood_member(likelihood: dict[str, F32], own: F32) -> Margins:
    """The likelihood's margins [N, D] as those of a member; of severity it says nothing of its own."""
    implied = Implied.of(likelihood).logit(own).astype(np.float32)
    return Margins(own, np.zeros((len(own), len(SEVERITIES)), dtype=np.float32), implied)


def member_margins(
    likelihood: dict[str, F32],
    boosted: Boosted,
    network: Net,
    forest: Forest,
    cohort: Cohort,
    reader: FeatureReader,
) -> dict[str, Margins]:
    """What each member says of a cohort."""
    own = likelihood_margins(likelihood, cohort.rows, reader)
    return {
        "likelihood": likelihood_member(likelihood, own),
        "boosted": boosted.margins(cohort.rows),
        "network": network.margins(cohort.rows),
        "forest": forest.margins(cohort.rows),
    }


RULES_SHARE = 0.5
"""Weight of the published rules beside the learned members in the logit of immediate attention.  It is not
learned: simulated patients need attention because our knowledge base says so, and cannot tell how much
better scores that were validated on real ones are.  Half each; grade C."""


def _immediate(members: dict[str, Margins], rules: F64, truth: Labels) -> Pool:
    """The pool for immediate attention: learned members and rules, each calibrated, then weighed.

    Fitted on the calibration patients; the rules take part where they have read the charts.
    """
    learned = [members[name].immediate for name in MEMBERS]
    pool = doubted(fit_logistic(learned, truth.immediate))
    scale = fit_logistic([pool.margins(learned).astype(np.float32)], truth.immediate)
    pool = Pool(pool.weights * scale.weights[0], pool.bias * scale.weights[0] + scale.bias)
    asked = ~np.isnan(rules)
    if not asked.any():
        return Pool(np.concatenate([[0.0], pool.weights]), pool.bias)
    said = rules[asked].astype(np.float32)
    own = fit_logistic([said], truth.immediate[asked])
    weights = np.concatenate([RULES_SHARE * own.weights, (1 - RULES_SHARE) * pool.weights])
    bias = RULES_SHARE * own.bias + (1 - RULES_SHARE) * pool.bias
    together = Pool(weights, bias).margins([said, *[member[asked] for member in learned]])
    scale = fit_logistic([together.astype(np.float32)], truth.immediate[asked])
    return Pool(weights * scale.weights[0], bias * scale.weights[0] + scale.bias)


def severity_mix(tables: Tables) -> F64:
    """Share of each severity class by disease [D, 5]."""
    mix = np.zeros((len(tables.ids), len(SEVERITIES)))
    weight = tables.weight.mean(axis=0)
    for grade in range(weight.shape[1]):
        np.add.at(mix, (np.arange(len(mix)), tables.severity[:, grade]), weight[:, grade])
    return mix


def conformal_threshold(probability: F64, disease: NDArray[np.int32], coverage: float) -> float:
    """The least probability of a disease in the set (split conformal; crepes, hinge nonconformity).

    A set of all diseases at least that probable holds the true one in `coverage` of such patients.
    """
    names = np.arange(probability.shape[1])
    classifier = ConformalClassifier().fit(hinge(probability, names, disease))
    scores = np.sort(np.asarray(classifier.alphas))[::-1]
    rank = int(np.floor((1 - coverage) * (len(scores) + 1)))
    # Of so few patients only the set of all diseases promises as much.
    return float(1 - scores[rank - 1]) if rank else 0.0


def resemblance(tables: Tables, cohort: Cohort, probability: F64) -> F64:
    """How well one of the leading diseases explains what is present in each patient who has something [n]."""
    explains = explaining(tables.mean_chance())
    leading = np.argsort(-probability, axis=1, kind="stable")[:, :EXPLAINERS]
    said = cohort.rows.said
    rows = [
        (row, said.indices[said.indptr[row] : said.indptr[row + 1]])
        for row in np.flatnonzero(np.diff(said.indptr))
    ]
    return np.array([explained(explains, findings, leading[row]) for row, findings in rows], dtype=np.float64)


def similarity_quantiles(tables: Tables, cohort: Cohort, probability: F64) -> tuple[float, ...]:
    """Quantiles of `resemblance` over patients like those of training."""
    values = resemblance(tables, cohort, probability)
    if not len(values):
        return (math.log(HARDLY), 0.0)
    return tuple(float(v) for v in np.quantile(values, np.linspace(0, 1, SIMILARITY_STEPS)))
