"""Simulated patients: they are what the knowledge says, anew with every seed, the same with the same."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from ensemble_helpers import simulator
from numpy.typing import NDArray
from scipy.stats import chisquare, kstest

from training.simulation import population
from training.simulation.population import AGE_ENDS, Patients, case_weights, normals, sample
from training.simulation.tables import Tables, own_chances
from training.simulation.worlds import another_world

MANY = 10_000
ALMOST_NEVER = 1e-5
"""How improbable a frequency may be of which the tables are true."""


@pytest.fixture(scope="module")
def tables() -> Tables:
    return simulator().tables


@pytest.fixture(scope="module")
def visitors(tables: Tables) -> Patients:
    """Patients of the knowledge as it is, not of another world."""
    return sample(tables, MANY, np.random.default_rng(5))


def number_of(tables: Tables, disease: str) -> int:
    return tables.ids.index(disease)


def only(tables: Tables, disease: str, count: int, seed: int = 3, **changes: Any) -> Patients:
    """Patients who all have one disease."""
    rate = np.zeros_like(tables.rate)
    rate[:, number_of(tables, disease)] = 1.0
    return sample(dataclasses.replace(tables, rate=rate, **changes), count, np.random.default_rng(seed))


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without atypical presentations, second diseases and findings of another cause."""
    for name in ("ATYPICAL", "SECOND", "STRAY"):
        monkeypatch.setattr(population, name, 0.0)


def fits(observed: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Pearson's test, with rare categories put together."""
    expected = expected / expected.sum() * observed.sum()
    rare = expected < 5
    seen = np.append(observed[~rare], observed[rare].sum())
    hoped = np.append(expected[~rare], expected[rare].sum())
    if hoped[-1] == 0:
        assert seen[-1] == 0
        seen, hoped = seen[:-1], hoped[:-1]
    return len(seen) == 1 or bool(chisquare(seen, hoped).pvalue > ALMOST_NEVER)


def test_diseases_come_as_often_as_the_case_mix_has_them(tables: Tables, visitors: Patients) -> None:
    for setting in (0, 1):
        seen = np.bincount(visitors.disease[visitors.setting == setting], minlength=len(tables.ids))
        assert fits(seen, case_weights(tables, setting))
    assert abs(visitors.setting.mean() - 0.5) < 0.02


def test_a_disease_without_visits_never_comes(tables: Tables) -> None:
    rate = tables.rate.copy()
    rate[:, 10:] = 0.0
    patients = sample(dataclasses.replace(tables, rate=rate), 2000, np.random.default_rng(1))
    assert patients.disease.max() < 10


def test_grades_and_severities_are_mixed_as_listed(tables: Tables, visitors: Patients) -> None:
    pairs = visitors.setting.astype(int) * len(tables.ids) + visitors.disease
    most = np.bincount(pairs).argsort()[-12:]
    for setting, disease in zip(most // len(tables.ids), most % len(tables.ids), strict=True):
        here = (visitors.setting == setting) & (visitors.disease == disease)
        assert fits(np.bincount(visitors.grade[here], minlength=4), tables.weight[setting, disease])
    assert (visitors.severity == tables.severity[visitors.disease, visitors.grade]).all()
    # What comes to an emergency department is graver.
    acute = visitors.setting == 1
    assert visitors.immediate[acute].mean() > visitors.immediate[~acute].mean()


def test_who_needs_attention_at_once_follows_the_grade_and_the_vital_signs(tables: Tables) -> None:
    patients = only(tables, "community-acquired-pneumonia", 4000)
    chance = tables.immediate[number_of(tables, "community-acquired-pneumonia")]
    for grade in np.unique(patients.grade):
        here = patients.grade == grade
        # A symmetric nudge by the vital signs moves a small chance up a little.
        assert abs(patients.immediate[here].mean() - chance[grade]) < 0.06 + 0.1 * chance[grade]
    keys = [analyte.key for analyte in tables.schema.analytes]
    pulse = patients.values[:, keys.index("heart-rate")]
    assert pulse[patients.immediate].mean() > pulse[~patients.immediate].mean()


def test_nobody_has_a_disease_at_an_age_or_of_a_sex_that_does_not_get_it(
    tables: Tables, visitors: Patients
) -> None:
    band = np.searchsorted(AGE_ENDS, visitors.age, side="right")
    assert (tables.age[visitors.disease, band] > 0).all()
    assert visitors.age.min() >= 0 and visitors.age.max() <= 100
    share = tables.female[visitors.disease]
    assert visitors.female[share == 1].all()
    assert not visitors.female[share == 0].any()


@pytest.mark.parametrize(
    ("disease", "female"), [("testicular-torsion", False), ("prostate-cancer", False), ("vaginitis", True)]
)
def test_sex_specific_diseases_are_of_one_sex(tables: Tables, disease: str, female: bool) -> None:
    assert (only(tables, disease, 300).female == female).all()


@pytest.mark.parametrize("disease", ["labour-term", "ectopic-pregnancy", "pre-eclampsia"])
def test_obstetric_diseases_are_of_the_pregnant(tables: Tables, disease: str) -> None:
    patients = only(tables, disease, 1000)
    names = [name for name, _ in tables.schema.risks]
    pregnant = patients.risks[:, names.index("pregnancy")] | patients.risks[:, names.index("postpartum")]
    fertile = patients.age < 51
    assert fertile.mean() > 0.9
    assert pregnant[fertile].mean() > 0.97


def test_nobody_else_is_pregnant_without_being_able_to(tables: Tables, visitors: Patients) -> None:
    names = [name for name, _ in tables.schema.risks]
    fertile = visitors.female & (visitors.age >= 12) & (visitors.age < 51)
    for name in ("pregnancy", "postpartum"):
        assert not visitors.risks[~fertile, names.index(name)].any()


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("disease", ["community-acquired-pneumonia", "migraine", "acute-appendicitis"])
def test_findings_come_as_often_as_the_tables_have_them(tables: Tables, disease: str) -> None:
    patients = only(tables, disease, 3000, risk_chance=np.zeros_like(tables.risk_chance))
    number = number_of(tables, disease)
    specific = np.array([not kinds for kinds in tables.children])
    specific[tables.schema.findings.index("HP:0001945")] = False  # a high temperature makes a fever
    z: list[float] = []
    for grade in np.unique(patients.grade):
        here = patients.grade == grade
        count = int(here.sum())
        chance = tables.chance[number, grade].astype(np.float64)
        likely = specific & (chance * count > 10) & ((1 - chance) * count > 10)
        spread = np.sqrt(chance * (1 - chance) / count)
        z += ((patients.present[here].mean(axis=0) - chance) / spread)[likely].tolist()
    assert len(z) > 30
    assert max(map(abs, z)) < 5
    # They go together within a patient, so that the deviations do too; each by itself is as listed.
    assert np.mean(np.square(z)) < 2.5


def test_general_findings_are_present_with_their_kinds(tables: Tables, visitors: Patients) -> None:
    for number, higher in enumerate(tables.schema.above):
        for general in higher:
            assert (visitors.present[:, general] >= visitors.present[:, number]).all()


def test_disturbances_are_few(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = only(tables, "migraine", 2000).present.sum(axis=1).mean()
    for name in ("ATYPICAL", "SECOND", "STRAY"):
        monkeypatch.setattr(population, name, 0.0)
    assert 0 < usual - only(tables, "migraine", 2000).present.sum(axis=1).mean() < 1.0


@pytest.mark.parametrize("key", ["leukocytes", "urea-nitrogen"])
def test_measurements_are_distributed_as_listed(tables: Tables, key: str) -> None:
    disease = "community-acquired-pneumonia"
    patients = only(tables, disease, 2000, risk_shift=np.zeros_like(tables.risk_shift))
    keys = [analyte.key for analyte in tables.schema.analytes]
    place, number = keys.index(key), number_of(tables, disease)
    normal, _ = normals(tables, place, patients.age, patients.female)
    moved = np.log(patients.values[:, place] / normal) - tables.shift[number, patients.grade, place]
    assert kstest(moved / tables.spread[number, patients.grade, place], "norm").pvalue > ALMOST_NEVER


def test_vital_signs_of_one_patient_go_together(tables: Tables) -> None:
    patients = only(tables, "common-cold", 3000)
    keys = [analyte.key for analyte in tables.schema.analytes]
    adults = patients.age > 18
    systolic, diastolic, pulse, temperature = (
        patients.values[adults, keys.index(key)]
        for key in ("systolic", "diastolic", "heart-rate", "temperature")
    )
    assert np.corrcoef(systolic, diastolic)[0, 1] > 0.5
    assert np.corrcoef(pulse, temperature)[0, 1] > 0.2


def test_the_same_seed_gives_the_same_cohort_and_another_one_another() -> None:
    world = simulator()
    first, second, third = world.cohort(150, 1), world.cohort(150, 1), world.cohort(150, 2)
    for name in ("features", "said", "denied"):
        assert (getattr(first.rows, name) != getattr(second.rows, name)).nnz == 0
    for name in ("disease", "severity", "immediate", "setting", "age", "female"):
        assert (getattr(first.labels, name) == getattr(second.labels, name)).all()
    assert (first.labels.disease != third.labels.disease).any()


# --- worlds


def test_another_world_has_other_chances_of_the_same_diseases(tables: Tables) -> None:
    one, other = (another_world(tables, np.random.default_rng(seed)) for seed in (1, 2))
    assert one.ids == tables.ids and (one.age == tables.age).all()
    # A disease is as much more or less frequent in one setting as in the other.
    factor = np.log(one.rate / np.where(tables.rate > 0, tables.rate, np.nan))
    assert np.nanmax(np.abs(factor[0] - factor[1])) < 1e-9
    assert 1.7 < np.nanstd(factor) < 2.3
    assert (one.chance != tables.chance).mean() > 0.5
    assert (one.chance != other.chance).mean() > 0.5
    assert (another_world(tables, np.random.default_rng(1)).chance == one.chance).all()
    # Measurements move only where a disease says something of them.
    still = ~np.broadcast_to(tables.listed[:, None, :], tables.shift.shape)
    assert (one.shift[still] == tables.shift[still]).all()
    assert (one.shift[~still] != tables.shift[~still]).mean() > 0.9


def test_a_listed_chance_stays_near_what_is_listed(tables: Tables) -> None:
    world = another_world(tables, np.random.default_rng(4))
    leaf = np.array([not kinds for kinds in tables.children])
    listed = (tables.doubt > 0)[:, None, :] & leaf & (tables.raw_chance > 0.02) & (tables.raw_chance < 0.95)

    def logit(chance: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.log(chance / (1 - chance)).astype(np.float64)

    moved = logit(world.chance) - logit(tables.raw_chance)
    doubt = np.broadcast_to(tables.doubt[:, None, :], moved.shape)
    z = (moved / np.where(doubt == 0, 1, doubt))[listed]
    assert abs(z.mean()) < 0.1 and 0.9 < z.std() < 1.1


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_in_every_world_the_general_is_at_least_as_frequent_as_its_kinds(
    tables: Tables, seed: int | None
) -> None:
    world = tables if seed is None else another_world(tables, np.random.default_rng(seed))
    for number, kinds in enumerate(world.children):
        if kinds:
            most = world.chance[:, :, list(kinds)].max(axis=2)
            assert (world.chance[:, :, number] >= most - 1e-6).all()
    assert (world.own >= 0).all() and (world.own <= 1).all()
    assert (world.chance > 0).all() and (world.chance < 1).all()


def test_a_general_finding_arises_by_itself_as_often_as_its_kinds_leave_open() -> None:
    chance = np.array([[[0.2, 0.3, 0.6]]])
    none = np.zeros((1, 1, 3))
    own = own_chances(chance, none, ((0, 1), (2,)), ((), (), (0, 1)))
    # Kinds together: the greater of 0.3 and 0.8 (1 - 0.8 * 0.7) = 0.352; the rest by itself.
    implied = 0.8 * (1 - 0.8 * 0.7)
    assert own[0, 0].tolist() == pytest.approx([0.2, 0.3, (0.6 - implied) / (1 - implied)])
    low = np.array([[[0.2, 0.3, 0.1]]])
    own = own_chances(low, none, ((0, 1), (2,)), ((), (), (0, 1)))
    assert low[0, 0, 2] == pytest.approx(implied) and own[0, 0, 2] == pytest.approx(0.0, abs=1e-9)
    assert math.isclose(low[0, 0, 0], 0.2)


def test_what_any_visitor_may_have_makes_no_finding_a_sign_of_every_disease(tables: Tables) -> None:
    """Three dozen kinds of pain, each rare in other visitors, do not make every patient one in pain."""
    place = tables.schema.findings.index("HP:0012531")
    silent = [n for n in range(len(tables.ids)) if tables.doubt[n, place] == 0]
    pain = tables.chance[silent, 0, place]
    assert np.median(pain) < 2 * tables.background[place]


def test_a_chart_word_is_no_kind_of_what_it_is_cut_from(tables: Tables) -> None:
    schema = tables.schema
    palpitations, arrhythmia = (schema.findings.index(key) for key in ("HP:0001962", "HP:0011675"))
    fibrillation = schema.findings.index("HP:0005110")
    assert arrhythmia not in schema.above[palpitations]
    assert arrhythmia in schema.above[fibrillation]


def test_people_name_what_troubles_them_and_not_what_an_examiner_finds(tables: Tables) -> None:
    findings = tables.schema.findings
    weight = {key: float(tables.complaint[findings.index(key)]) for key in ("HP:0100749", "HP:0030148")}
    assert weight["HP:0100749"] > 10 * weight["HP:0030148"]
