"""The meta-learner: how much each member counts, learned on predictions for patients no member had seen.

A log-linear pool: the pooled margin of a disease is the weighted sum of the members' margins plus a bias
of its own, and the probabilities are its softmax.  Few parameters, so that it stays additive (the
explanation of a pooled margin is the weighted sum of the members' explanations) and transfers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Weights [M] of the members and bias [C]."""

    weights: F64
    bias: F64

    def margins(self, members: list[F32]) -> F64:
        """The pooled margins [N, C]."""
        total = np.zeros_like(members[0], dtype=np.float64)
        for weight, member in zip(self.weights, members, strict=True):
            total += weight * member
        return np.asarray(total + self.bias)


def softmax(margins: F64) -> F64:
    """Rows of probabilities."""
    power = np.exp(margins - margins.max(axis=1, keepdims=True))
    return np.asarray(power / power.sum(axis=1, keepdims=True))


def fit_pool(members: list[F32], labels: NDArray[np.int64], weight: F32, penalty: float = 20.0) -> Pool:
    """Weights (never negative) and biases (drawn to 0 by `penalty`) of the least weighted log loss."""
    stacked = [torch.from_numpy(np.ascontiguousarray(member, dtype=np.float32)) for member in members]
    target = torch.from_numpy(labels.astype(np.int64))
    importance = torch.from_numpy(weight)
    raw = torch.full((len(members),), -0.5, requires_grad=True)
    bias = torch.zeros(members[0].shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([raw, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        weights = torch.nn.functional.softplus(raw)
        total = bias + sum(w * member for w, member in zip(weights, stacked, strict=True))
        loss = torch.nn.functional.cross_entropy(total, target, reduction="none")
        value = (loss * importance).sum() / importance.sum() + penalty * (bias**2).sum() / len(target)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    weights = torch.nn.functional.softplus(raw).detach().numpy().astype(np.float64)
    return Pool(weights, bias.detach().numpy().astype(np.float64))


def fit_logistic(members: list[F32], labels: NDArray[np.bool_], penalty: float = 1.0) -> Pool:
    """The same for a yes/no question: weights [M] (never negative) and one bias."""
    stacked = torch.from_numpy(np.stack(members, axis=1).astype(np.float32))
    target = torch.from_numpy(labels.astype(np.float32))
    raw = torch.full((len(members),), -0.5, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw, bias], max_iter=80, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logit = stacked @ torch.nn.functional.softplus(raw) + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(logit, target)
        value = value + penalty * (bias**2).sum() / len(target)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    weights = torch.nn.functional.softplus(raw).detach().numpy().astype(np.float64)
    return Pool(weights, bias.detach().numpy().astype(np.float64))


def fit_temperature(margins: F64, labels: NDArray[np.int64]) -> float:
    """The temperature of the least log loss."""
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        probability = softmax(margins / np.exp(log_temperature))
        return float(-np.log(np.maximum(probability[rows, labels], 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded").x))


def fit_tempering(parts: Sequence[F64], labels: NDArray[np.int64]) -> tuple[float, ...]:
    """Exponents of the parts [N, C] of a log posterior with the least log loss.

    Statements of one chart go together, so taken as independent they say too much; how frequent a disease
    is, is known less well than at which age it occurs.
    """
    rows = np.arange(len(labels))

    def loss(logarithms: F64) -> float:
        total = sum(np.exp(one) * part for one, part in zip(logarithms, parts, strict=True))
        probability = softmax(np.asarray(total))
        return float(-np.log(np.maximum(probability[rows, labels], 1e-12)).mean())

    found = minimize(loss, np.zeros(len(parts)), method="Nelder-Mead", options={"xatol": 0.01, "fatol": 1e-5})
    return tuple(float(one) for one in np.exp(found.x))


LEARNED_SHARE = 0.5
"""What trees, net and forest count for beside the likelihood, of what simulated patients would have it (one
temperature is fitted afterwards).  They learned the simulator's ways beside the knowledge, and simulated
patients cannot tell how much of that holds for people.  Half; grade C."""


def doubted(pool: Pool) -> Pool:
    """A pool whose first member is the knowledge itself; the others count for `LEARNED_SHARE` of theirs."""
    share = np.full(len(pool.weights), LEARNED_SHARE)
    share[0] = 1.0
    return Pool(pool.weights * share, pool.bias * LEARNED_SHARE)
