"""The first stage: one score for every disease, and the candidates that are worth a closer look."""

import numpy as np

from models.rare.matching import UNIT
from models.rare.panel import Columns
from models.rare.terms import F32, I32

CANDIDATES = 150
INFORMATION, EXACT, DENIED, PATTERN = (np.float32(w) for w in (0.5, 0.5, 0.25, 10.0))
"""Weights beside that of the likelihood ratio (1), set so that the right disease is among the candidates;
the second stage learns its own.  Grade C."""


def first_stage(columns: Columns, pattern: F32) -> F32:
    """The fused score [columns] of likelihood, information in common, exactness and pattern."""
    match = columns.match
    score = match.gain.sum(axis=0, dtype=np.int32) * UNIT
    score += match.shared.sum(axis=0, dtype=np.int32) * (INFORMATION * UNIT)
    score += EXACT * match.exact_ic
    score += match.denied.sum(axis=0, dtype=np.int32) * (DENIED * UNIT)
    score += PATTERN * pattern
    return np.where(columns.alive, score, -np.inf).astype(np.float32)


def candidates(score: F32, count: int = CANDIDATES) -> I32:
    """The columns of the best scores, best first; among equals the lower column."""
    size = min(count, len(score))
    # Everything that ties with the last one competes by its number; columns left out are at -inf.
    last = np.partition(score, len(score) - size)[len(score) - size]
    near = np.flatnonzero(score >= max(last, np.finfo(np.float32).min))
    return near[np.lexsort((near, -score[near]))][:size].astype(np.int32)
