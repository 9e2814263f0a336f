"""What a training run is made with; every default is the one the shipped bundle was made with."""

import msgspec


class BoostedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """XGBoost, on top of the likelihood's margins.  `rounds` trees for every class."""

    rounds: int = 6
    depth: int = 5
    rate: float = 0.3
    subsample: float = 0.7
    columns: float = 0.5
    child_weight: float = 2.0
    penalty: float = 2.0
    bins: int = 32
    severity_rounds: int = 20
    immediate_rounds: int = 50


class ForestConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The random forest."""

    trees: int = 32
    leaves: int = 800
    depth: int = 10
    smallest_leaf: int = 4


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The neural net: one hidden layer, added to the likelihood's margins.

    `input_dropout` is the share of features hidden from it at every step.
    """

    hidden: int = 256
    epochs: int = 10
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-4
    dropout: float = 0.25
    input_dropout: float = 0.1


class EnsembleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole run.

    `patients` simulated patients are split 80/10/10 into training, calibration and test; `reads` of the
    calibration part are also written as FHIR and read back, for what the published rules say of them.
    `critical_weight` is how much more a patient who needs attention within minutes weighs in fitting.
    `coverage` is the share of patients whose true disease the conformal set holds.
    """

    patients: int = 120_000
    seed: int = 20_261
    folds: int = 5
    reads: int = 6_000
    critical_weight: float = 2.0
    coverage: float = 0.9
    threads: int = 2
    boosted: BoostedConfig = BoostedConfig()
    forest: ForestConfig = ForestConfig()
    network: NetworkConfig = NetworkConfig()
