"""How often one may call: a minute's worth at once, then evenly, for all processes of a machine together."""

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_server.auth.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_minute_s_worth_passes_at_once_and_then_one_at_a_time(tmp_path: Path) -> None:
    clock = Clock()
    rates = Rates(tmp_path / "rates", now=clock)
    assert [rates.take("a", 100) for _ in range(100)] == [0] * 100
    assert rates.take("a", 100) == 1
    assert rates.take("b", 100) == 0
    clock.now += 0.6
    assert rates.take("a", 100) == 0
    assert rates.take("a", 100) == 1
    clock.now += 60
    assert [rates.take("a", 100) for _ in range(100)] == [0] * 100
    assert rates.take("a", 100) == 1


def test_the_wait_that_is_told_is_enough_and_not_too_long(tmp_path: Path) -> None:
    clock = Clock()
    rates = Rates(tmp_path / "rates", now=clock)
    assert rates.take("a", 1) == 0
    wait = rates.take("a", 1)
    assert wait == 60
    clock.now += wait - 1
    assert rates.take("a", 1) == 1
    clock.now += 1
    assert rates.take("a", 1) == 0


def test_a_clock_that_is_set_back_locks_nobody_out(tmp_path: Path) -> None:
    clock = Clock()
    rates = Rates(tmp_path / "rates", now=clock)
    for _ in range(10):
        rates.take("a", 10)
    assert rates.take("a", 10) > 0
    clock.now -= 86_400
    assert rates.take("a", 10) == 0


def test_a_file_with_rubbish_in_it_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "rates"
    path.write_bytes(b"\xff" * 2_000_000)
    assert Rates(path).take("a", 1) == 0
    path.write_bytes(b"short")
    assert Rates(path).take("a", 1) == 0


def _take(path: Path, results: "multiprocessing.Queue[int]") -> None:
    rates = Rates(path)
    results.put(sum(rates.take("ehr", 200) == 0 for _ in range(150)))


def test_worker_processes_count_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_take, args=(tmp_path / "rates", results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    passed = sum(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(30)
    # 200 at once and what became due while the processes started one after the other: 3.3 a second.
    assert 200 <= passed < 400


@pytest.mark.parametrize("callers", [5_000])
def test_many_callers_do_not_disturb_each_other(tmp_path: Path, callers: int) -> None:
    rates = Rates(tmp_path / "rates", now=Clock())
    assert [rates.take(f"caller-{n}", 1) for n in range(callers)] == [0] * callers
    again = [rates.take(f"caller-{n}", 1) for n in range(callers)]
    assert again == [60] * callers


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 50))
def test_never_more_than_a_minute_s_worth_and_what_became_due(pauses: list[float], rate: int) -> None:
    import tempfile  # noqa: PLC0415 - hypothesis shares one tmp_path between examples

    clock = Clock()
    began = clock.now
    with tempfile.TemporaryDirectory() as directory:
        rates = Rates(Path(directory) / "rates", now=clock)
        passed = 0
        for pause in pauses:
            clock.now += pause
            passed += rates.take("a", rate) == 0
        rates.close()
    assert passed <= rate + (clock.now - began) * rate / 60 + 1e-6
