"""Trains the set encoder of `models.rare.encoder` in torch, on simulated patients.

A prototypical network: each disease's prototype is the encoder's point of its profile, and a patient must
be nearer to the prototype of the own disease than to all 11,000 others.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

from models.rare.knowledge import RareKnowledge
from models.rare.phenotype import resolve
from models.rare.terms import Arrays
from training.rare.simulate import Simulator


@dataclass(frozen=True)
class EmbeddingConfig:
    """Settings of the encoder's training."""

    dimensions: int = 64
    hidden: int = 128
    patients: int = 40_000
    batch: int = 384
    epochs: int = 5
    rate: float = 4e-3
    seed: int = 71
    unread: float = 0.4
    """Share of a profile's annotations hidden at every step: prototypes must hold without any one paper."""


class _Net(nn.Module):
    def __init__(self, above: torch.Tensor, ic: torch.Tensor, config: EmbeddingConfig) -> None:
        super().__init__()
        k, h = config.dimensions, config.hidden
        self.above = above
        self.base = nn.Parameter(torch.randn(above.shape[0], k) / k**0.5)
        start = torch.log(torch.expm1(ic.clamp(min=0.05)))
        self.patient_weight = nn.Parameter(start.clone())
        self.disease_weight = nn.Parameter(start.clone())
        self.layers = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(shape) * scale)
                for name, shape, scale in (
                    ("patient_in", (k, h), k**-0.5),
                    ("patient_out", (h, k), 0.02),
                    ("disease_in", (k, h), k**-0.5),
                    ("disease_out", (h, k), 0.02),
                )
            }
        )
        self.scale = nn.Parameter(torch.tensor(2.5))

    def vectors(self) -> torch.Tensor:
        found: torch.Tensor = torch.sparse.mm(self.above, self.base)
        return found

    def through(self, x: torch.Tensor, who: str) -> torch.Tensor:
        x = nn.functional.normalize(x, dim=1, eps=1e-6)
        x = x + torch.relu(x @ self.layers[f"{who}_in"]) @ self.layers[f"{who}_out"]
        return nn.functional.normalize(x, dim=1, eps=1e-6)


def train_encoder(knowledge: RareKnowledge, config: EmbeddingConfig, progress: Progress) -> Arrays:
    """The arrays of a trained encoder (``encoder.*``); the same seed gives the same arrays."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(config.seed)
    simulator = Simulator(knowledge)
    sets, labels = [], []
    task = progress.add_task("patients for the encoder", total=config.patients)
    for patient in simulator.patients(config.patients, rng):
        present = resolve(patient.phenotype, knowledge.terms).present
        if len(present):
            sets.append(torch.from_numpy(present.astype(np.int64)))
            labels.append(patient.disease)
        progress.advance(task)
    net = _Net(_ancestors(knowledge), torch.from_numpy(knowledge.terms.ic.copy()), config)
    profile = _profiles(knowledge)
    label = torch.tensor(labels)
    steps = config.epochs * (len(sets) // config.batch)
    optimiser = torch.optim.Adam(net.parameters(), lr=config.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.rate, total_steps=steps)
    task = progress.add_task("training the encoder", total=steps)
    for _ in range(config.epochs):
        order = rng.permutation(len(sets))
        for first in range(0, len(order) - config.batch + 1, config.batch):
            chosen = order[first : first + config.batch].tolist()
            bags = [sets[n] for n in chosen]
            offsets = torch.tensor(np.cumsum([0] + [len(bag) for bag in bags[:-1]]))
            vectors = net.vectors()
            flat = torch.cat(bags)
            weight = nn.functional.softplus(net.patient_weight)[flat]
            summed = nn.functional.embedding_bag(
                flat, vectors, offsets, mode="sum", per_sample_weights=weight
            )
            patients = net.through(summed, "patient")
            table = vectors * nn.functional.softplus(net.disease_weight)[:, None]
            read = torch.rand(len(profile.values())) >= config.unread
            seen = torch.sparse_csr_tensor(
                profile.crow_indices(), profile.col_indices(), profile.values() * read, profile.shape
            )
            diseases = net.through(torch.sparse.mm(seen, table), "disease")
            logits = torch.exp(net.scale) * patients @ diseases.T
            loss = nn.functional.cross_entropy(logits, label[chosen], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            progress.advance(task)
            progress.update(task, description=f"training the encoder (loss {loss.item():.2f})")
    with torch.no_grad():
        arrays: Arrays = {
            "encoder.vectors": net.vectors().numpy().astype(np.float16),
            "encoder.patient_weight": nn.functional.softplus(net.patient_weight).numpy().astype(np.float32),
            "encoder.disease_weight": nn.functional.softplus(net.disease_weight).numpy().astype(np.float32),
        }
        for name, value in net.layers.items():
            arrays[f"encoder.{name}"] = value.numpy().astype(np.float32)
    return arrays


def _ancestors(knowledge: RareKnowledge) -> torch.Tensor:
    """Each term as a mixture of itself and its ancestors [T, T], sparse; nearer ones weigh more."""
    terms = knowledge.terms
    rows = np.repeat(np.arange(len(terms)), np.diff(terms.starts))
    depth = terms.ic[terms.above] / np.maximum(terms.ic[rows], 0.1)
    values = (0.05 + depth**2).astype(np.float32)
    values /= np.sqrt(np.bincount(rows, values**2, len(terms)))[rows].astype(np.float32)
    return _sparse(rows, terms.above, values, (len(terms), len(terms)))


def _profiles(knowledge: RareKnowledge) -> torch.Tensor:
    segment = knowledge.segment
    rows = np.repeat(np.arange(segment.size), np.diff(segment.starts))
    return _sparse(rows, segment.terms, segment.chance, (segment.size, len(knowledge.terms)))


def _sparse(
    rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], shape: tuple[int, int]
) -> torch.Tensor:
    index = torch.from_numpy(np.stack([rows, columns]).astype(np.int64))
    with warnings.catch_warnings():
        # torch announces at each first use that its sparse tensors are young.
        warnings.simplefilter("ignore", UserWarning)
        made = torch.sparse_coo_tensor(index, torch.from_numpy(values.astype(np.float32)), shape)
        return made.coalesce().to_sparse_csr()
