"""Reads and writes a run's configuration as TOML, and says what in it cannot be.

The file holds the fields of `training.ensemble.config.EnsembleConfig` with the members as tables; what it
leaves out keeps its default.
"""

from pathlib import Path
from typing import Any

import msgspec

from training.ensemble.config import EnsembleConfig

RANGES: dict[str, tuple[float, float]] = {
    "patients": (0, 5_000_000),
    "seed": (0, 2**31 - 1),
    "folds": (2, 20),
    "reads": (0, 1_000_000),
    "critical_weight": (0.1, 100.0),
    "coverage": (0.5, 0.999),
    "threads": (1, 256),
    "boosted.rounds": (1, 1000),
    "boosted.depth": (1, 16),
    "boosted.rate": (0.001, 1.0),
    "boosted.subsample": (0.05, 1.0),
    "boosted.columns": (0.01, 1.0),
    "boosted.child_weight": (0.0, 1000.0),
    "boosted.penalty": (0.0, 1000.0),
    "boosted.bins": (2, 1024),
    "boosted.severity_rounds": (1, 5000),
    "boosted.immediate_rounds": (1, 5000),
    "forest.trees": (1, 2000),
    "forest.leaves": (2, 100_000),
    "forest.depth": (1, 64),
    "forest.smallest_leaf": (1, 10_000),
    "network.hidden": (1, 4096),
    "network.epochs": (1, 1000),
    "network.batch": (1, 100_000),
    "network.rate": (1e-6, 1.0),
    "network.decay": (0.0, 1.0),
    "network.dropout": (0.0, 0.95),
    "network.input_dropout": (0.0, 0.95),
}


class ConfigInvalid(ValueError):
    """A configuration that cannot be used; the message names the field and what it may be."""


def read_config(path: Path) -> EnsembleConfig:
    """The configuration in a TOML file.  Raises `ConfigInvalid`."""
    try:
        return check_config(msgspec.toml.decode(path.read_bytes(), type=EnsembleConfig))
    except OSError as fault:
        raise ConfigInvalid(f"{path.name} cannot be read: {fault.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ConfigInvalid(f"{path.name}: {fault}") from None


def check_config(config: EnsembleConfig) -> EnsembleConfig:
    """The same configuration; raises `ConfigInvalid` when a field is out of its range."""
    flat = flat_config(config)
    for name, (low, high) in RANGES.items():
        if not low <= flat[name] <= high:
            raise ConfigInvalid(f"{name} is {flat[name]:g}; it may be {low:g} to {high:g}")
    return config


def flat_config(config: EnsembleConfig) -> dict[str, float]:
    """Every field by its dotted name (``boosted.rounds``)."""
    found: dict[str, float] = {}
    for name, value in msgspec.to_builtins(config).items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": held for inner, held in value.items()}
        else:
            found[name] = value
    return found


def with_fields(config: EnsembleConfig, fields: dict[str, Any]) -> EnsembleConfig:
    """The configuration with some fields, by dotted name, changed.  Raises `ConfigInvalid`."""
    plain = msgspec.to_builtins(config)
    for name, value in fields.items():
        table, _, inner = name.rpartition(".")
        (plain[table] if table else plain)[inner] = value
    try:
        return check_config(msgspec.convert(plain, EnsembleConfig))
    except msgspec.ValidationError as fault:
        raise ConfigInvalid(str(fault)) from None


def config_toml(config: EnsembleConfig, comment: str = "") -> str:
    """The configuration as TOML, which `read_config` reads back to the same."""
    lines = [f"# {line}" for line in comment.splitlines()]
    plain = msgspec.to_builtins(config)
    lines += [f"{name} = {value!r}" for name, value in plain.items() if not isinstance(value, dict)]
    for name, table in plain.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{inner} = {value!r}" for inner, value in table.items())]
    return "\n".join(lines) + "\n"
