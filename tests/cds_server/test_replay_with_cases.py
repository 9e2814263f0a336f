"""A decision replays with exactly the cases that were enrolled when it was made, or says why it cannot."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from audit_helpers import rows
from decisions_helpers import bundle_of_example, command, replays
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from rare_bundles import both
from server_helpers import Running, start
from test_rare_enrolled_server import FAST, NAME, assess, card, enroll, leading, until_it_counts
from test_rare_enrolled_server import command as rare

from cds_server.decisions.replay import Replay
from cds_server.deployment.source import SHIPPED_BUNDLE
from cds_server.privacy import Cipher, KeyRing
from cds_server.rare.record import FILE, EnrolmentInvalid, identity_in
from cds_server.rare.store import CasesGone, EnrolmentStore
from cds_server.state import Knowledge
from models.rare.enrolment import EnrolledCase
from models.rare.phenotype import Phenotype

IDENTICAL = ("identical", None)
NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def loaded(knowledge: Knowledge) -> Knowledge:
    return knowledge.with_bundle(both())


@pytest.fixture
def running(loaded: Knowledge, tmp_path: Path, _sqlite_template: Path) -> Iterator[Running]:
    with start(loaded, tmp_path, _sqlite_template, **FAST) as server:
        yield server


async def outcomes(running: Running, base: Knowledge) -> list[tuple[str, str | None]]:
    """Results and reasons, the oldest decision first."""
    return [(one.result, one.reason) for one in await found(running, base)]


async def found(running: Running, base: Knowledge) -> list[Replay]:
    return list(reversed(await replays(running.house.settings, base)))


def record(running: Running) -> Path:
    return running.house.settings.var_dir / FILE


async def test_each_decision_replays_with_the_cases_of_its_time(
    running: Running, loaded: Knowledge, tmp_path: Path
) -> None:
    assess(running.client)
    enroll(tmp_path)
    until_it_counts(running.client, 1)
    assert leading(assess(running.client)) == NAME
    assert NAME in card(running)["summary"]
    enroll(tmp_path, "SITE:2", "The other one")
    until_it_counts(running.client, 2)
    assess(running.client)
    rare(tmp_path, "undo", "enrolled:000001")
    until_it_counts(running.client, 1)
    assert leading(assess(running.client)) == "The other one"
    rare(tmp_path, "undo", "enrolled:000002")
    until_it_counts(running.client, 0)
    assert leading(assess(running.client)) not in (NAME, "The other one")
    again = await found(running, loaded)
    assert [(one.result, one.reason) for one in again] == [IDENTICAL] * 6
    assert not any(one.changed for one in again)
    # Whatever counts for who replays changes nothing either.
    enroll(tmp_path, "SITE:3", "A third one")
    until_it_counts(running.client, 1)
    assert await outcomes(running, running.house.knowledge) == [IDENTICAL] * 6


async def test_a_lost_line_is_no_replay_and_never_another_answer(
    running: Running, loaded: Knowledge, tmp_path: Path
) -> None:
    enroll(tmp_path)
    enroll(tmp_path, "SITE:2", "The other one")
    until_it_counts(running.client, 2)
    assess(running.client)
    whole = record(running).read_bytes()
    first, second = whole.splitlines(keepends=True)
    for left in (second, first, b"", first + second[:-60] + b"\n"):
        record(running).write_bytes(left)
        assert await outcomes(running, loaded) == [("unavailable", "cases-missing")]
    # The same findings enrolled anew are another record: nobody can tell that they were the same.
    record(running).write_bytes(first)
    enroll(tmp_path, "SITE:2", "The other one")
    assert await outcomes(running, loaded) == [("unavailable", "cases-missing")]
    record(running).unlink()
    record(running).mkdir()
    [one] = await found(running, loaded)
    assert one.reason == "cases-missing" and "cannot be read" in one.detail
    record(running).rmdir()
    record(running).write_bytes(whole)
    assert await outcomes(running, loaded) == [IDENTICAL]


async def test_a_decision_made_with_what_a_damaged_record_left_replays_with_just_that(
    running: Running, loaded: Knowledge, tmp_path: Path
) -> None:
    enroll(tmp_path)
    enroll(tmp_path, "SITE:2", "The other one")
    until_it_counts(running.client, 2)
    assess(running.client)
    whole = record(running).read_bytes()
    first, second = whole.splitlines(keepends=True)
    record(running).write_bytes(first[:90] + b"\n" + second)
    until_it_counts(running.client, 1)
    assert leading(assess(running.client)) == "The other one"
    assert await outcomes(running, loaded) == [("unavailable", "cases-missing"), IDENTICAL]


async def test_an_erased_case_is_gone_from_the_file_and_the_replay_says_so(
    running: Running, loaded: Knowledge, tmp_path: Path
) -> None:
    assess(running.client)
    enroll(tmp_path)
    until_it_counts(running.client, 1)
    assess(running.client)
    enroll(tmp_path, "SITE:2", "The other one")
    until_it_counts(running.client, 2)
    assess(running.client)
    rare(tmp_path, "undo", "enrolled:000001")
    until_it_counts(running.client, 1)
    assess(running.client)
    sealed = json.loads(record(running).read_bytes().splitlines()[0])["sealed"]
    done = command(running.house.settings, "rare", "erase", "enrolled:000001", "--yes")
    assert done.returncode == 0 and "erased" in done.stdout, done.stderr
    assert not any(sealed.encode() in path.read_bytes() for path in record(running).parent.iterdir())
    assert [path.name for path in record(running).parent.iterdir()] == [record(running).name]
    assert record(running).stat().st_mode & 0o777 == 0o600
    gone = ("unavailable", "cases-erased")
    assert await outcomes(running, loaded) == [IDENTICAL, gone, gone, IDENTICAL]
    assert (await found(running, loaded))[1].detail == "enrolled:000001"
    assert leading(assess(running.client)) == "The other one", "the others go on counting"
    assert "with a case that was erased since" in rare(tmp_path, "states")
    listed = rare(tmp_path, "list")
    assert "enrolled:000001" in listed and "erased" in listed and "SITE:1" not in listed
    enroll(tmp_path, "SITE:4", "New")
    assert "enrolled:000003" in rare(tmp_path, "list"), "no id is given twice"
    events = await rows(
        running.database_url, "SELECT payload FROM events WHERE action = 'case-erased' ORDER BY seq"
    )
    told = [json.loads(payload) for (payload,) in events]
    assert [dict(one["detail"])["result"] for one in told] == ["ordered", "done"]
    assert {one["entities"][0]["what"] for one in told} == {"enrolled:000001"}
    assert "SITE:1" not in json.dumps(told)
    changed = (
        "SELECT action, entity FROM events WHERE action IN ('case-enrolled', 'case-undone') ORDER BY seq"
    )
    assert await rows(running.database_url, changed) == [
        ("case-enrolled", "enrolled:000001"),
        ("case-enrolled", "enrolled:000002"),
        ("case-undone", "enrolled:000001"),
        ("case-enrolled", "enrolled:000003"),
    ]
    out = tmp_path / "erased.csv"
    command(running.house.settings, "audit", "export", str(out), "subtype=case-erased")
    assert out.read_text().count("enrolled:000001") == 2


async def test_cases_under_a_key_that_is_gone_are_said_to_be(
    loaded: Knowledge, tmp_path: Path, _sqlite_template: Path
) -> None:
    first, second = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
    enroll(tmp_path, CDS_CIPHER_KEY=first)
    with start(loaded, tmp_path, _sqlite_template, cipher_key=first) as server:
        assess(server.client)
        assert await outcomes(server, loaded) == [IDENTICAL]
        other = server.house.settings.model_copy(update={"cipher_key": SecretStr(second)})
        assert [one.reason for one in await replays(other, loaded)] == ["cases-sealed"]


async def test_the_command_replays_with_the_cases_of_then_and_with_those_of_now(
    start_server: Callable[..., Running],
) -> None:
    server = start_server(model_bundle=str(SHIPPED_BUNDLE), **FAST)
    settings = server.house.settings
    enroll(settings.var_dir)
    until_it_counts(server.client, 1)
    assert server.post("/fhir/$assess", bundle_of_example("rare-disease")).status_code == 200
    enroll(settings.var_dir, "SITE:2", "The other one")
    until_it_counts(server.client, 2)
    then = command(settings, "replay", "--last", "1", "--json")
    assert then.returncode == 0, then.stdout + then.stderr
    assert json.loads(then.stdout)["result"] == "identical"
    now = json.loads(command(settings, "replay", "--last", "1", "--json", "--current").stdout)
    assert now["result"] == "differs"
    assert now["changed"]["knowledge"][1].endswith(server.house.knowledge.enrolled.identity)
    assert set(now["changed"]) == {"knowledge"}, "the bundle in use is the same"
    rare(settings.var_dir, "undo", "enrolled:000002")
    now = json.loads(command(settings, "replay", "--last", "1", "--json", "--current").stdout)
    assert now["result"] == "identical", "again the same cases count"


def made(directory: Path) -> EnrolmentStore:
    return EnrolmentStore(directory, Cipher(KeyRing({1: b"k" * 32})))


def case(number: int) -> EnrolledCase:
    return EnrolledCase(f"SITE:{number}", Phenotype(("HP:0001250",), ()), "")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["enroll", "enroll", "undo", "erase"]), st.integers(1, 6)), max_size=14
    )
)
def test_every_state_a_record_was_in_gives_its_own_cases_or_says_which_was_erased(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    store = made(tmp_path_factory.mktemp("record"))
    states: dict[str, tuple[EnrolledCase, ...]] = {}
    erased: set[str] = set()
    for number, (step, which) in enumerate(steps):
        name = f"enrolled:{which:06d}"
        if step == "enroll":
            store.enroll(case(number), NOW)
        else:
            try:
                (store.undo if step == "undo" else store.erase)(name, NOW)
            except EnrolmentInvalid:
                continue
            erased |= {name} if step == "erase" else set()
        counting = store.counting()
        assert counting.whole
        if counting.identity:
            states[counting.identity] = counting.cases
    for identity, cases in states.items():
        assert identity_in(f"rules-1+hpo.2025+{identity}") == identity
        if erased & {one.reference for one in cases}:
            with pytest.raises(CasesGone) as gone:
                store.then(identity)
            assert gone.value.reason == "cases-erased"
        else:
            assert store.then(identity) == cases


def test_no_enrolment_is_lost_beside_erasures(tmp_path: Path) -> None:
    made(tmp_path).enroll(case(0), NOW)

    def enrolled(number: int) -> str:
        name = made(tmp_path).enroll(case(number), NOW)
        if number % 2:
            made(tmp_path).erase(name, NOW)
        return name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(enrolled, range(1, 41)))
    assert sorted(names) == [f"enrolled:{number:06d}" for number in range(2, 42)]
    left = [one.case.disease for one in made(tmp_path).all()]
    assert sorted(left) == sorted(f"SITE:{number}" for number in range(0, 41, 2))


def test_who_erases_or_exports_a_patient_is_told_of_cases_that_name_nobody(
    start_server: Callable[..., Running], tmp_path: Path
) -> None:
    settings = start_server(model_bundle="none").house.settings
    erase = ("privacy", "erase", "--patient", "zq-1", "--yes")
    assert "enrolled" not in command(settings, *erase).stdout
    enroll(settings.var_dir)
    for words in (erase, ("privacy", "export", "--patient", "zq-1", "--out", str(tmp_path / "x.zip"))):
        done = command(settings, *words)
        assert done.returncode == 0, done.stderr
        assert "diseases (1)" in done.stdout and "rare erase" in done.stdout
    assert command(settings, "rare", "erase", "enrolled:000001", "--yes").returncode == 0
    assert "enrolled" not in command(settings, *erase).stdout


def test_no_other_name_of_the_record_keeps_an_erased_case(tmp_path: Path) -> None:
    elsewhere = tmp_path / "volume"
    elsewhere.mkdir()
    store = made(tmp_path)
    store.enroll(case(1), NOW)
    store.enroll(case(2), NOW)
    store.path.replace(elsewhere / "record")
    store.path.symlink_to(elsewhere / "record")
    (elsewhere / "record").chmod(0o640)
    before = store.path.read_bytes()
    store.erase("enrolled:000001", NOW)
    assert store.path.is_symlink() and [path.name for path in elsewhere.iterdir()] == ["record"]
    sealed = json.loads(before.splitlines()[0])["sealed"]
    assert sealed.encode() not in (elsewhere / "record").read_bytes()
    assert (elsewhere / "record").stat().st_mode & 0o777 == 0o640, "who could read it still can"
    (elsewhere / "another").hardlink_to(elsewhere / "record")
    with pytest.raises(EnrolmentInvalid, match="hard links"):
        store.erase("enrolled:000002", NOW)
    assert [one.case.disease for one in store.all()] == ["SITE:2"]


def test_what_cannot_be_erased_is_said_and_changes_nothing(
    start_server: Callable[..., Running],
) -> None:
    settings = start_server(model_bundle="none").house.settings
    enroll(settings.var_dir)
    before = (settings.var_dir / FILE).read_bytes()
    for words in (("enrolled:000009", "--yes"), ("enrolled:000001",)):
        done = command(settings, "rare", "erase", *words)
        assert done.returncode != 0 and (settings.var_dir / FILE).read_bytes() == before
    with (settings.var_dir / FILE).open("ab") as file:
        file.write(b"not json\n")
    done = command(settings, "rare", "erase", "enrolled:000001", "--yes")
    assert done.returncode == 2 and "line 2" in done.stderr
