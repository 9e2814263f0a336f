"""Spool files as a crash leaves them: torn, damaged, half replayed, many."""

import multiprocessing
from pathlib import Path

import pytest
from audit_helpers import decision, rows, stored_ids, trail, until
from hypothesis import given
from hypothesis import strategies as st

from cds_server.audit import events
from cds_server.audit.spool import Spool, frame, unframe


def leftover(directory: Path, ids: list[str], *, tail: bytes = b"") -> Path:
    """A segment as a dead process left it, with `tail` at its end."""
    directory.mkdir(exist_ok=True)
    path = directory / "00000000000000000001-1-000001.spool"
    path.write_bytes(b"".join(frame(events.encode(decision(i))) for i in ids) + tail)
    return path


@given(
    st.binary(max_size=200).map(lambda b: b.replace(b"\n", b"")), st.integers(0, 10_000), st.integers(1, 255)
)
def test_any_changed_byte_of_a_line_is_noticed(payload: bytes, place: int, change: int) -> None:
    line = frame(payload)[:-1]
    assert unframe(line) == payload
    altered = bytearray(line)
    altered[place % len(line)] ^= change
    assert unframe(bytes(altered)) is None


@pytest.mark.parametrize("cut", [1, 9, 60, -2, -1])
async def test_a_torn_last_record_is_kept_aside_and_blocks_nothing(
    sqlite_url: str, tmp_path: Path, cut: int
) -> None:
    spool = tmp_path / "spool"
    torn = frame(events.encode(decision("torn")))[:cut]
    leftover(spool, ["a", "b"], tail=torn)
    async with trail(sqlite_url, spool) as audit:
        await until(lambda: not list(spool.glob("*.spool")))
        assert audit.state().damaged == 1
        assert audit.state().spool_depth == 0
        await audit.record(decision("c"))
    assert await stored_ids(sqlite_url) == ["a", "b", "c"]
    [aside] = spool.glob("*.damaged")
    assert aside.read_bytes() == torn + b"\n"


@pytest.mark.parametrize(
    "damage",
    [b"garbage\n", b"\n", b"\x00" * 4096 + b"\n", frame(b"{}"), frame(b'{"kind":"unheard-of"}'), b"\r\r\n"],
)
async def test_a_damaged_line_in_the_middle_costs_only_itself(
    sqlite_url: str, tmp_path: Path, damage: bytes
) -> None:
    spool = tmp_path / "spool"
    path = leftover(spool, ["a"], tail=damage)
    path.write_bytes(path.read_bytes() + frame(events.encode(decision("b"))))
    async with trail(sqlite_url, spool) as audit:
        await until(lambda: not list(spool.glob("*.spool")))
        assert audit.state().damaged == 1
    assert await stored_ids(sqlite_url) == ["a", "b"]


async def test_a_spool_that_was_half_replayed_before_the_crash_doubles_nothing(
    database_url: str, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    async with trail(database_url, spool) as audit:
        await audit.record(decision("a"))
    leftover(spool, ["a", "b"])
    async with trail(database_url, spool) as audit:
        await until(lambda: not list(spool.glob("*.spool")))
    assert await stored_ids(database_url) == ["a", "b"]
    assert await rows(database_url, "SELECT count(*) FROM shown_cards") == [(2,)]


def test_a_replay_goes_on_where_the_mark_says_and_ignores_a_mark_that_cannot_be(tmp_path: Path) -> None:
    path = leftover(tmp_path, ["a", "b", "c"])
    first = Spool(tmp_path)
    assert first.adopt() == 3
    [segment] = first.adopted
    chunk = first.read(segment, limit=10)  # less than a line: a line at least
    assert [events.identity(events.decode(p)) for p in chunk.payloads] == ["a"]
    first.advance(segment, chunk)
    first.close()
    second = Spool(tmp_path)
    assert second.adopt() == 2
    second.close()
    path.with_suffix(".position").write_text("7")  # in the middle of a line
    third = Spool(tmp_path)
    assert third.adopt() == 3
    third.close()


def test_segments_rotate_and_read_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new", segment_bytes=1000)
    ids = [f"{n:03d}" for n in range(40)]
    for i in ids:
        spool.append([events.encode(decision(i))])
    assert len(spool.own) > 5
    assert spool.depth == 40
    spool.close()
    heir = Spool(tmp_path / "new")
    assert heir.adopt() == 40
    read = []
    while heir.adopted:
        segment = heir.adopted[0]
        chunk = heir.read(segment, 1 << 20)
        read += [events.identity(events.decode(p)) for p in chunk.payloads]
        heir.advance(segment, chunk)
        heir.retire(segment)
    assert read == ids
    assert list((tmp_path / "new").iterdir()) == []


def _adopt_all(directory: Path, queue: "multiprocessing.Queue[int]", barrier: object) -> None:
    spool = Spool(directory)
    barrier.wait()  # type: ignore[attr-defined]
    queue.put(spool.adopt())
    barrier.wait()  # type: ignore[attr-defined]


def test_of_several_processes_one_adopts_a_segment(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    for n in range(20):
        (directory / f"{n:020d}-1-000001.spool").write_bytes(frame(events.encode(decision(f"{n}"))))
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[int] = context.Queue()
    barrier = context.Barrier(4)
    workers = [context.Process(target=_adopt_all, args=(directory, queue, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    counts = [queue.get(timeout=20) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(counts) == 20


def test_spool_files_are_for_the_owner_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([b"{}"])
    spool.set_aside("x", [b"{}"])
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "spool").iterdir()}
    assert modes == {0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    spool.close()
