"""Figures about rankings and alarms, defined as in the reference scorer of the benchmark.

Ids of one disease are collapsed before ranks are counted; micro is the mean over cases, macro the mean
over diseases; intervals are a bootstrap over diseases; a case that is not ranked has an infinite rank.
"""

import math
import random
import statistics
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

Ranks = Sequence[tuple[float, str]]
"""Rank and disease of each case."""
TOPS = (1, 3, 10, 30)


def rank_of(ids: Iterable[str], right: frozenset[str], same: Mapping[str, str], limit: int = 100) -> float:
    """The rank of the first right id among the first `limit` ids.

    Args:
        ids: ranked ids; only the first `limit` count, as the reference scorer reads an answer.
        right: ids of the true disease, as `same` names them.
        same: id → the name of its class of equivalent ids.
        limit: length of an answer.
    """
    seen: dict[str, None] = {}
    for number, each in enumerate(ids):
        if number >= limit:
            break
        seen.setdefault(same.get(each, each))
    return next((place for place, each in enumerate(seen, start=1) if each in right), math.inf)


def ranking(ranks: Ranks, draws: int = 200, seed: int = 5) -> dict[str, object]:
    """Micro and macro shares at `TOPS`, median rank, and 95 % intervals of top-1 and top-10."""
    by: dict[str, list[float]] = defaultdict(list)
    for rank, disease in ranks:
        by[disease].append(rank)
    found: dict[str, object] = {"n": len(ranks), "diseases": len(by)}
    if not ranks:
        return found
    for top in TOPS:
        found[f"micro{top}"] = sum(rank <= top for rank, _ in ranks) / len(ranks)
        found[f"macro{top}"] = _macro(list(by.values()), top)
    median = statistics.median(rank for rank, _ in ranks)
    found["median_rank"] = median if math.isfinite(median) else None
    names, rng = list(by), random.Random(seed)  # noqa: S311 - statistics, not secrets
    drawn: dict[str, list[float]] = defaultdict(list)
    for _ in range(draws):
        sample = [by[rng.choice(names)] for _ in names]
        total = sum(map(len, sample))
        for top in (1, 10):
            drawn[f"micro{top}"].append(sum(rank <= top for each in sample for rank in each) / total)
            drawn[f"macro{top}"].append(_macro(sample, top))
    for name, values in drawn.items():
        found[f"{name}_ci"] = (quantile(values, 0.025), quantile(values, 0.975))
    return found


def _macro(by: Sequence[Sequence[float]], top: int) -> float:
    return sum(sum(rank <= top for rank in each) / len(each) for each in by) / len(by)


def quantile(values: Sequence[float], q: float) -> float:
    """The value at a quantile, as the reference scorer takes it."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else math.nan


def sensitivity(
    positives: Sequence[float], negatives: Sequence[float], false_alarms: float
) -> tuple[float, float]:
    """The share of positives above the threshold that `false_alarms` of the negatives pass, and it."""
    ordered = sorted(negatives, reverse=True)
    threshold = ordered[min(len(ordered) - 1, int(false_alarms * len(ordered)))]
    return sum(each > threshold for each in positives) / max(len(positives), 1), threshold


def calibration_error(positives: Sequence[float], negatives: Sequence[float], *, balanced: bool) -> float:
    """Expected calibration error over ten bins; `balanced` lets both kinds weigh the same."""
    weights = (0.5 / len(positives), 0.5 / len(negatives)) if balanced else (1.0, 1.0)
    bins: dict[int, float] = defaultdict(float)
    for each in positives:
        bins[min(int(each * 10), 9)] += weights[0] * (each - 1)
    for each in negatives:
        bins[min(int(each * 10), 9)] += weights[1] * each
    total = weights[0] * len(positives) + weights[1] * len(negatives)
    return sum(abs(value) for value in bins.values()) / total


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The chance that a positive is above a negative."""
    ordered = sorted(negatives)
    wins = sum(bisect_left(ordered, p) + bisect_right(ordered, p) for p in positives) / 2
    return wins / (len(positives) * len(negatives)) if positives and negatives else math.nan
