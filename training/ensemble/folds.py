"""Fitting the members: on each of the folds, for what they say of patients they have not seen, and on all."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from models.assessment import SEVERITIES
from training.ensemble.cohort import Cohort, world_of
from training.ensemble.config import EnsembleConfig
from training.ensemble.members import Boosted, Forest, Margins, Net, fit_boosted, fit_forest, fit_network

F32 = NDArray[np.float32]
Say = Callable[[str], None]

FITS: dict[str, Callable[[Cohort, F32, EnsembleConfig, int, int], Boosted | Net | Forest]] = {
    "boosted": fit_boosted,
    "network": fit_network,
    "forest": fit_forest,
}


def _fit(
    name: str, cohort: Cohort, base: F32, config: EnsembleConfig, classes: int, seed: int
) -> Boosted | Net | Forest:
    return FITS[name](cohort, base, config, classes, seed)


def _fit_and_tell(
    name: str,
    parts: tuple[Cohort, F32, Cohort],
    config: EnsembleConfig,
    classes: int,
    number: int,
    outside: NDArray[np.int64],
) -> tuple[str, int, NDArray[np.int64], Margins]:
    """What one member fitted on the inside of a fold says of its outside."""
    inside, base, rest = parts
    fitted = _fit(name, inside, base, config, classes, config.seed + number)
    return name, number, outside, fitted.margins(rest.rows)


def _side_by_side(config: EnsembleConfig) -> tuple[Parallel, EnsembleConfig]:
    """A pool of processes, and the configuration of one of them.

    Members hardly use a second core each; one process a core halves the time on two.
    """
    return (
        Parallel(n_jobs=config.threads, return_as="generator_unordered", max_nbytes="1M"),
        msgspec.structs.replace(config, threads=1),
    )


def out_of_fold(
    cohort: Cohort, base: F32, config: EnsembleConfig, classes: int, tell: Say
) -> dict[str, Margins]:
    """What members fitted on the other folds say of each patient."""
    count = len(cohort)
    found = {
        name: Margins(
            np.zeros((count, classes), dtype=np.float32),
            np.zeros((count, len(SEVERITIES)), dtype=np.float32),
            np.zeros(count, dtype=np.float32),
        )
        for name in FITS
    }
    pool, alone = _side_by_side(config)
    jobs = (
        delayed(_fit_and_tell)(
            name,
            (cohort.take(inside), base[inside], cohort.take(outside)),
            alone,
            classes,
            number,
            outside,
        )
        for number, (inside, outside) in enumerate(folds_of(cohort, config), start=1)
        for name in FITS
    )
    left = dict.fromkeys(range(1, config.folds + 1), len(FITS))
    for name, number, outside, margins in pool(jobs):
        found[name].disease[outside] = margins.disease
        found[name].severity[outside] = margins.severity
        found[name].immediate[outside] = margins.immediate
        left[number] -= 1
        if not left[number]:
            tell(f"fold {number} of {config.folds}")
    return found


def on_all(cohort: Cohort, base: F32, config: EnsembleConfig, classes: int) -> tuple[Boosted, Net, Forest]:
    """The members fitted on the whole training part."""
    pool, alone = _side_by_side(config)
    jobs = [delayed(_named_fit)(name, cohort, base, alone, classes) for name in FITS]
    fitted: dict[str, Any] = dict(pool(jobs))
    return fitted["boosted"], fitted["network"], fitted["forest"]


def _named_fit(
    name: str, cohort: Cohort, base: F32, config: EnsembleConfig, classes: int
) -> tuple[str, Boosted | Net | Forest]:
    return name, _fit(name, cohort, base, config, classes, config.seed)


def folds_of(cohort: Cohort, config: EnsembleConfig) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Stratified by disease, and by whole worlds where there are enough: a fold is of unseen worlds."""
    worlds = world_of(len(cohort))
    labels = cohort.labels.disease
    if cohort.simulated and len(np.unique(worlds)) >= 2 * config.folds:
        grouped = StratifiedGroupKFold(config.folds, shuffle=True, random_state=config.seed)
        yield from grouped.split(labels, labels, worlds)
        return
    plain = StratifiedKFold(config.folds, shuffle=True, random_state=config.seed)
    yield from plain.split(labels, labels)
