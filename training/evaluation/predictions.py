"""What an evaluation is made of: predictions and the truth about the same patients, and their file.

Responsible for the shapes and for refusing arrays that do not fit together; who made them, and every
figure computed from them, is elsewhere.  One ``.npz`` file carries a whole `HeldOut`, so that training
can write it and `cds-server evaluate` can be run again without training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from models.assessment import SEVERITIES
from models.common.disease import DiseaseInfo
from models.knowledge.schema import AGE_BANDS

SETTINGS = ("primary-care", "emergency")
BANDS = tuple(name for name, _ in AGE_BANDS)
_ENDS = np.array([end for _, end in AGE_BANDS])
_FORMAT = 1
_TOLERANCE = 1e-3


class EvaluationDataInvalid(ValueError):
    """Arrays that do not fit together, or a file that is none; the message names the field and the fix."""


@dataclass(frozen=True)
class Predictions:
    """What one model says of N patients; N rows, D diseases in the order of `Truth.diseases`.

    disease: calibrated probabilities [N, D], float32, rows summing to 1 (or less: the rest is "other").
    severity: probabilities [N, 5] in the order of `SEVERITIES`; `severity_decision` the class decided [N].
    immediate: probability of needing immediate attention [N]; `immediate_decision` the product's own
        decision [N], whatever threshold or rule made it.
    in_set: the conformal set [N, D] with its promised `coverage`; `None` for a model without one.
    """

    name: str
    disease: NDArray[np.float32]
    severity: NDArray[np.float32]
    severity_decision: NDArray[np.int8]
    immediate: NDArray[np.float32]
    immediate_decision: NDArray[np.bool_]
    in_set: NDArray[np.bool_] | None = None
    coverage: float = 0.9

    def __post_init__(self) -> None:
        """Raises `EvaluationDataInvalid` when shapes disagree or a probability is none."""
        if self.disease.ndim != 2:
            raise EvaluationDataInvalid(f"{self.name}: disease must be [N, D], has {self.disease.ndim} axes")
        count, width = self.disease.shape
        _shape(self.name, "severity", self.severity, (count, len(SEVERITIES)))
        _shape(self.name, "severity_decision", self.severity_decision, (count,))
        _shape(self.name, "immediate", self.immediate, (count,))
        _shape(self.name, "immediate_decision", self.immediate_decision, (count,))
        if self.in_set is not None:
            _shape(self.name, "in_set", self.in_set, (count, width))
        if not 0.0 < self.coverage < 1.0:
            raise EvaluationDataInvalid(f"{self.name}: coverage must lie between 0 and 1, is {self.coverage}")
        for field in ("disease", "severity", "immediate"):
            values = getattr(self, field)
            if not np.isfinite(values).all() or values.min(initial=0.0) < 0 or values.max(initial=0.0) > 1:
                raise EvaluationDataInvalid(f"{self.name}: {field} must hold probabilities from 0 to 1")
        for field in ("disease", "severity"):
            if getattr(self, field).sum(axis=1).max(initial=0.0) > 1 + _TOLERANCE:
                raise EvaluationDataInvalid(f"{self.name}: rows of {field} must not sum to more than 1")
        _range(self.name, "severity_decision", self.severity_decision, 0, len(SEVERITIES))

    def __len__(self) -> int:
        return len(self.disease)


@dataclass(frozen=True)
class Truth:
    """What is true of N patients.

    disease, severity: column of `diseases` and of `SEVERITIES` [N]; immediate: truly needs it [N].
    setting: index in `SETTINGS`; age_band: index in `BANDS`, -1 unknown; sex: 1 female, -1 male, 0 unknown.
    diseases: ids [D]; critical: diseases that are dangerous to miss [D].
    """

    disease: NDArray[np.int32]
    severity: NDArray[np.int8]
    immediate: NDArray[np.bool_]
    setting: NDArray[np.int8]
    age_band: NDArray[np.int8]
    sex: NDArray[np.int8]
    diseases: tuple[str, ...]
    critical: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Raises `EvaluationDataInvalid` when shapes disagree or an index is out of range."""
        for field in ("disease", "severity", "immediate", "setting", "age_band", "sex"):
            _shape("truth", field, getattr(self, field), (len(self.disease),))
        _shape("truth", "critical", self.critical, (len(self.diseases),))
        _range("truth", "disease", self.disease, 0, len(self.diseases))
        _range("truth", "severity", self.severity, 0, len(SEVERITIES))
        _range("truth", "setting", self.setting, 0, len(SETTINGS))
        _range("truth", "age_band", self.age_band, -1, len(BANDS))
        _range("truth", "sex", self.sex, -1, 2)

    def __len__(self) -> int:
        return len(self.disease)

    def groups(self) -> dict[str, NDArray[np.str_]]:
        """The group of every patient, by sex, age band and setting; ``"unknown"`` where not known."""
        sexes = {1: "female", -1: "male", 0: "unknown"}
        return {
            "sex": np.array([sexes[int(value)] for value in self.sex], dtype=np.str_),
            "age_band": np.array([BANDS[value] if value >= 0 else "unknown" for value in self.age_band]),
            "setting": np.array([SETTINGS[value] for value in self.setting], dtype=np.str_),
        }


def age_bands(age: NDArray[np.float64]) -> NDArray[np.int8]:
    """The index in `BANDS` of ages in years."""
    return np.minimum(np.searchsorted(_ENDS, age, side="right"), len(_ENDS) - 1).astype(np.int8)


def truth_of(
    diseases: Sequence[DiseaseInfo],
    *,
    disease: NDArray[np.int32],
    severity: NDArray[np.int8],
    immediate: NDArray[np.bool_],
    setting: NDArray[np.int8],
    age: NDArray[np.float64],
    female: NDArray[np.bool_],
) -> Truth:
    """The `Truth` from simulated labels; `age` in years, `setting` 0 primary care and 1 emergency."""
    return Truth(
        disease=np.asarray(disease, dtype=np.int32),
        severity=np.asarray(severity, dtype=np.int8),
        immediate=np.asarray(immediate, dtype=bool),
        setting=np.asarray(setting, dtype=np.int8),
        age_band=age_bands(age),
        sex=np.where(female, 1, -1).astype(np.int8),
        diseases=tuple(info.id for info in diseases),
        critical=np.array([info.critical for info in diseases], dtype=bool),
    )


@dataclass(frozen=True)
class HeldOut:
    """Everything the internal part of the report is made of.

    `reference` is the simulator's own likelihood (an approximation of what nothing can beat);
    `ablations` are the ensemble without a member, or a member alone, each named for readers.
    `about` says where it comes from (seed, number trained on, versions), and is shown as it is.
    """

    truth: Truth
    ensemble: Predictions
    reference: Predictions | None = None
    ablations: tuple[Predictions, ...] = ()
    about: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raises `EvaluationDataInvalid` when a model speaks of other patients or diseases."""
        for model in self.models():
            if model.disease.shape != (len(self.truth), len(self.truth.diseases)):
                raise EvaluationDataInvalid(
                    f"{model.name}: disease is {model.disease.shape}, the truth is about "
                    f"({len(self.truth)}, {len(self.truth.diseases)}): give the same patients and diseases"
                )
        names = [model.name for model in self.models()]
        if len(set(names)) != len(names):
            raise EvaluationDataInvalid(f"every model needs a name of its own: {', '.join(names)}")

    def models(self) -> tuple[Predictions, ...]:
        """The ensemble first, then the reference where there is one, then the ablations."""
        reference = () if self.reference is None else (self.reference,)
        return (self.ensemble, *reference, *self.ablations)


def save_heldout(path: Path, heldout: HeldOut) -> None:
    """Write one ``.npz`` file; the same arrays give the same bytes."""
    truth = heldout.truth
    arrays: dict[str, Any] = {
        f"truth.{field.name}": getattr(truth, field.name)
        for field in fields(truth)
        if field.name != "diseases"
    }
    models = heldout.models()
    for number, model in enumerate(models):
        for field in fields(model):
            value = getattr(model, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"model.{number}.{field.name}"] = value
    head = {
        "format": _FORMAT,
        "diseases": truth.diseases,
        "models": [[model.name, model.coverage] for model in models],
        "reference": heldout.reference is not None,
        "about": heldout.about,
    }
    arrays["head"] = np.array(json.dumps(head, ensure_ascii=False))
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_heldout(path: Path) -> HeldOut:
    """Read what `save_heldout` wrote; raises `EvaluationDataInvalid` for any other file."""
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        head = json.loads(str(arrays["head"]))
    except (OSError, ValueError, KeyError, BadZipFile) as fault:
        raise EvaluationDataInvalid(
            f"{path.name} is not a file of held-out predictions ({type(fault).__name__}): "
            "write one with training.evaluation.predictions.save_heldout"
        ) from fault
    if head.get("format") != _FORMAT:
        raise EvaluationDataInvalid(f"{path.name}: format {head.get('format')!r}, expected {_FORMAT}")
    truth = Truth(
        diseases=tuple(head["diseases"]),
        **{field.name: arrays[f"truth.{field.name}"] for field in fields(Truth) if field.name != "diseases"},
    )
    models = [
        Predictions(name=name, coverage=coverage, **_of_model(arrays, number))
        for number, (name, coverage) in enumerate(head["models"])
    ]
    rest = models[1:]
    reference = rest.pop(0) if head["reference"] else None
    about = tuple((str(key), str(value)) for key, value in head["about"])
    return HeldOut(truth, models[0], reference, tuple(rest), about)


def _of_model(arrays: dict[str, Any], number: int) -> dict[str, Any]:
    prefix = f"model.{number}."
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _shape(owner: str, field: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise EvaluationDataInvalid(f"{owner}: {field} must have the shape {shape}, has {array.shape}")


def _range(owner: str, field: str, array: NDArray[Any], low: int, end: int) -> None:
    if len(array) and (array.min() < low or array.max() >= end):
        raise EvaluationDataInvalid(f"{owner}: {field} must lie from {low} to {end - 1}")
