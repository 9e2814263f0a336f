"""Tuning: a study that goes on where it stopped, alone or shared, and gives up what leads nowhere."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState
from retraining_support import TINY, small_simulator
from typer.testing import CliRunner

from cds_server.cli import app
from training.ensemble.cohort import Simulator
from training.ensemble.config_file import config_toml, flat_config, read_config
from training.ensemble.imbalance import oversampled
from training.tuning import RECALL_PENALTY, SPACE, Score, StudyUnusable, best_config, open_study, tune

SMALL = msgspec.structs.replace(TINY, patients=250)
ABOUT = {"patients": 250}


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Twelve diseases; relative paths are the test's."""
    for name in [name for name in os.environ if name.startswith("CDS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(Simulator, "load", small_simulator)
    monkeypatch.chdir(tmp_path)
    yield


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def trials_of(path: Path, *rounds: int) -> list[FrozenTrial]:
    """All trials of a study that was stopped and continued after so many trials each time."""
    seen: list[int] = []
    for count in rounds:
        study = open_study(url(path), ABOUT, SMALL)
        tune(study, small_simulator(), SMALL, count, lambda trial: seen.append(trial.number))
    assert seen == list(range(sum(rounds)))
    return study.trials


def test_a_study_goes_on_where_it_stopped_as_if_it_had_not(tmp_path: Path) -> None:
    whole = trials_of(tmp_path / "a.db", 3)
    parts = trials_of(tmp_path / "b.db", 2, 1)
    assert [trial.params for trial in whole] == [trial.params for trial in parts]
    assert [trial.values for trial in whole] == [trial.values for trial in parts]
    # The settings that one starts from are tried first (as far as the search reaches them).
    first = whole[0].params
    for knob in SPACE:
        given = flat_config(SMALL)[knob.name]
        assert first[knob.name] == pytest.approx(min(max(given, knob.low), knob.high))
    study = open_study(url(tmp_path / "a.db"), ABOUT, SMALL)
    best = best_config(study, SMALL)
    assert best is not None and best.patients == 250
    assert flat_config(best)["boosted.depth"] == study.best_params["boosted.depth"]


def _work(path: Path) -> None:
    study = open_study(url(path), ABOUT, SMALL)
    tune(study, small_simulator(), SMALL, 2, lambda _: None)


def test_several_processes_share_a_study(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    open_study(url(path), ABOUT, SMALL)
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=_work, args=(path,))
    other.start()
    study = open_study(url(path), ABOUT, SMALL)
    until = time.monotonic() + 120
    while not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        assert other.is_alive() and time.monotonic() < until, "the other process has begun no trial"
        time.sleep(0.05)
    tune(study, small_simulator(), SMALL, 1, lambda _: None)
    other.join(120)
    assert other.exitcode == 0
    trials = open_study(url(path), ABOUT, SMALL).trials
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert len({str(trial.params) for trial in trials}) == 3


def test_a_study_of_something_else_is_not_mixed_in(tmp_path: Path) -> None:
    open_study(url(tmp_path / "a.db"), ABOUT, SMALL)
    with pytest.raises(StudyUnusable, match=r"something else \(patients\)"):
        open_study(url(tmp_path / "a.db"), {"patients": 9}, SMALL)
    with pytest.raises(StudyUnusable, match="check --storage"):
        open_study("not a url", ABOUT, SMALL)
    assert best_config(open_study(url(tmp_path / "b.db"), ABOUT, SMALL), SMALL) is None


def test_missing_patients_in_need_costs_more_than_it_gains() -> None:
    assert Score(1.0, 0.99).value == 1.0
    assert Score(1.0, 0.85).value == pytest.approx(1.0 + RECALL_PENALTY * 0.1)


def test_tuning_from_the_command_line_writes_settings_for_training(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(config_toml(TINY))
    words = [
        "tune",
        "--trials",
        "1",
        "--patients",
        "250",
        "--folds",
        "2",
        "--threads",
        "1",
        "-c",
        "tiny.toml",
    ]
    for count in (1, 2):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert f"Best of {count} trials on 250 simulated patients" in done.stdout
    best = read_config(tmp_path / "var" / "optuna" / "best.toml")
    assert best.patients == TINY.patients and best.folds == TINY.folds
    assert (tmp_path / "var" / "optuna" / "study.db").is_file()
    other = CliRunner().invoke(app, [*words, "--seed", "3"])
    assert other.exit_code == 1 and "something else (seed)" in other.output


def test_oversampling_takes_patients_in_need_as_often_as_asked() -> None:
    need = np.zeros(1000, dtype=bool)
    need[:400] = True
    rows = oversampled(need, 2.5, seed=1)
    assert need[rows].sum() == pytest.approx(1000, abs=60)
    assert (~need[rows]).sum() == 600
    assert oversampled(need, 1.0, seed=1).tolist() == list(range(1000))
