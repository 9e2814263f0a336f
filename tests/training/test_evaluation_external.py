"""External figures: the same numbers as the development set's reference scorer, and honest skips."""

import gzip
import importlib.util
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from cds_server.fhir_api.parameters import assessment_parameters
from fhir_adapters.chart_builder import ChartBuilder, moment_of
from fhir_adapters.decode import read_bundle
from models.assessment import SEVERITIES, Assessment, Prediction
from models.engine import Engine
from training.evaluation.answers import FAILED, Answer, Runner, answer_of, groups_of, moment, ranked
from training.evaluation.differential import Pathologies, differential_figures
from training.evaluation.external import (
    evaluate_external,
    load_set,
    rank_correlation,
    score_ddxplus,
    score_ktas,
    specificity_at,
)

SHARED = Path(__file__).resolve().parents[3] / "shared"
CLINICAL, SCORER = SHARED / "clinical", SHARED / "bench" / "clinical_bench.py"
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
beside = pytest.mark.skipif(
    not (CLINICAL.is_dir() and SCORER.is_file()),
    reason="the development sets and their scorer (../shared/clinical, ../shared/bench) are not beside "
    "this repository",
)


@pytest.fixture(scope="module")
def builder() -> ChartBuilder:
    return ChartBuilder.load()


@pytest.fixture(scope="module")
def engine(builder: ChartBuilder) -> Engine:
    return Engine.load(builder.tables.ontology)


@pytest.fixture(scope="module")
def scorer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("clinical_bench", SCORER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def invented(labels: Sequence[Mapping[str, Any]], codes: Sequence[str], seed: int) -> list[Answer]:
    """Answers that are neither all right nor all wrong, some failed and some tied, from a seed."""
    rng = np.random.default_rng(seed)
    found = []
    for label in labels:
        if rng.random() < 0.03:
            found.append(FAILED)
            continue
        ill = label.get("critical", label.get("immediate"))
        chance = round(float(np.clip(rng.beta(3, 4) + 0.2 * bool(ill), 0, 1)), 2)
        named = list(rng.choice(np.array(codes), 25)) + label["icd10_accept"][: rng.integers(0, 2)]
        coded = [
            (str(code), round(float(p), 2))
            for code, p in zip(named, rng.random(len(named)) ** 4, strict=True)
        ]
        severity = SEVERITIES[int(rng.integers(0, 5))]
        found.append(Answer(severity, chance > 0.5, chance, ranked(coded)))
    return found


def as_read(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers in the shape that the reference scorer extracts."""
    return [
        {
            "dx": list(answer.differential),
            "severity": answer.severity,
            "alert": answer.immediate,
            "alert_p": answer.probability,
            "sev_p": {},
            "failed": answer.failed,
        }
        for answer in answers
    ]


def contains(ours: Any, theirs: Any, path: str = "") -> None:
    """Every number of theirs is in ours, equal to the last shown decimal."""
    if isinstance(theirs, dict):
        for key, value in theirs.items():
            assert key in ours, f"{path}.{key} is missing"
            contains(ours[key], value, f"{path}.{key}")
    else:
        assert ours == theirs, path


@beside
def test_emergency_visits_score_as_the_reference_scores_them(scorer: ModuleType) -> None:
    _, labels = load_set(CLINICAL, "ktas")
    codes = sorted({code + tail for label in labels for code in label["icd10_accept"] for tail in ("", ".1")})
    answers = invented(labels, codes, seed=1)
    contains(score_ktas(labels, answers), scorer.score_ktas(labels, as_read(answers)))


@beside
def test_presentations_score_as_the_reference_scores_them(scorer: ModuleType) -> None:
    _, labels = load_set(CLINICAL, "ddxplus")
    table = json.loads((SHARED / "bench" / "ddx_icd.json").read_text(encoding="utf-8"))
    codes = sorted({code for row in table.values() for code in (*row["accept"], row["group"] + ".0", "Z99")})
    answers = invented(labels, codes, seed=1)
    ours = score_ddxplus(labels, answers, Pathologies.of(table))
    contains(ours, scorer.score_ddxplus(labels, as_read(answers)))


def with_differential(assessment: Assessment) -> Assessment:
    """The rules' assessment with a differential as the ensemble gives one."""
    icd10, icd10cm = "http://hl7.org/fhir/sid/icd-10", "http://hl7.org/fhir/sid/icd-10-cm"
    snomed = ("http://snomed.info/sct", "22298006", "")
    heart = Prediction(
        "mi", "MI", 0.61234567, ((icd10, "I21", ""), (icd10cm, "I21.4", ""), snomed), in_set=True
    )
    lung = Prediction("pe", "PE", 0.2, ((icd10, "I26", ""), (icd10cm, "I26.99", "")))
    angina = Prediction("sa", "Angina", 0.1, ((icd10, "I20", ""), (icd10cm, "I21.9", "")))
    return msgspec.structs.replace(
        assessment,
        common=(heart, lung, angina),
        coverage=0.9,
        set_size=1,
        immediate_probability=0.123456789,
    )


@beside
def test_an_answer_is_read_as_a_caller_reads_the_answer_of_assess(
    scorer: ModuleType, builder: ChartBuilder, engine: Engine
) -> None:
    bundles, _ = load_set(CLINICAL, "ktas")
    for body in bundles[:8]:
        found = read_bundle(body)
        chart = builder.build(found, at=moment(moment_of(found), NOW), patient_id=None, retrospective=True)
        assessment = with_differential(engine.assess(chart))
        sent = json.loads(
            json.dumps(assessment_parameters(chart, assessment, language="en", names=builder.name_of))
        )
        theirs, ours = scorer.extract(sent), answer_of(assessment)
        assert list(ours.differential) == theirs["dx"]
        assert list(groups_of(ours.differential)) == scorer.groups3(theirs["dx"])
        assert (ours.severity, ours.immediate, ours.probability) == (
            theirs["severity"],
            theirs["alert"],
            theirs["alert_p"],
        )
        assert ours.conformal == {"I21"}


@beside
def test_a_run_over_all_three_sets_answers_every_case(
    tmp_path: Path, builder: ChartBuilder, engine: Engine
) -> None:
    clinical = small_copy(tmp_path, cases=12)
    found = evaluate_external(
        Runner(builder, lambda chart: with_differential(engine.assess(chart)), NOW), clinical
    )
    assert [found[name]["n"] for name in ("ktas", "ddxplus", "synthea")] == [12, 12, 2]
    assert sum(found[name]["failures"] for name in found) == 0
    assert found["synthea"]["with_differential"] == 2
    assert found["ddxplus"]["conformal"]["mean_size"] == 1


@beside
def test_a_case_on_which_the_engine_fails_counts_as_wrong(tmp_path: Path, builder: ChartBuilder) -> None:
    def fail(_: object) -> Assessment:
        raise ZeroDivisionError

    found = evaluate_external(Runner(builder, fail, NOW), small_copy(tmp_path, cases=12))
    assert found["ddxplus"]["failures"] == 12
    assert found["ddxplus"]["failure_reasons"] == {"ZeroDivisionError": 12}
    assert found["ddxplus"]["top10"] == 0
    assert found["ddxplus"]["severity_accuracy_lenient"] == 0
    assert found["ktas"]["critical"]["alert_rate"] == 0


def small_copy(tmp_path: Path, cases: int) -> Path:
    """The first cases of every set, with the code table where it is looked for."""
    clinical = tmp_path / "clinical"
    (clinical / "synthea").mkdir(parents=True)
    (tmp_path / "bench").mkdir()
    table = SHARED / "bench" / "ddx_icd.json"
    (tmp_path / "bench" / table.name).write_bytes(table.read_bytes())
    for name in ("ktas", "ddxplus"):
        bundles, _ = load_set(CLINICAL, name)
        (clinical / f"{name}_bundles.ndjson.gz").write_bytes(
            gzip.compress(b"\n".join(bundles[:cases]) + b"\n")
        )
        lines = (CLINICAL / f"{name}_labels.jsonl").read_bytes().splitlines(keepends=True)
        (clinical / f"{name}_labels.jsonl").write_bytes(b"".join(lines[:cases]))
    for path in sorted((CLINICAL / "synthea").iterdir())[:2]:
        (clinical / "synthea" / path.name).write_bytes(path.read_bytes())
    return clinical


def test_absent_sets_are_skipped_with_the_reason(
    tmp_path: Path, builder: ChartBuilder, engine: Engine
) -> None:
    found = evaluate_external(Runner(builder, engine.assess, NOW), tmp_path)
    assert "ktas_bundles.ndjson.gz" in found["ktas"]["skipped"]
    assert "ddxplus_bundles.ndjson.gz" in found["ddxplus"]["skipped"]
    assert "synthea" in found["synthea"]["skipped"]


def test_groups_merge_codes_and_keep_the_highest_probability() -> None:
    assert groups_of((("I21.4", 0.5), ("E11.9", 0.3), ("I21", 0.2))) == (("I21", 0.5), ("E11", 0.3))


def test_a_hand_made_differential_scores_as_counted_by_hand() -> None:
    pathologies = Pathologies.of(
        {"MI": {"group": "I21", "accept": ["I21", "I22"]}, "PE": {"group": "I26", "accept": ["I26"]}}
    )
    labels = [
        {
            "pathology": "MI",
            "icd10_group": "I21",
            "icd10_accept": ["I21", "I22"],
            "differential": [["MI", 0.9]],
        },
        {
            "pathology": "PE",
            "icd10_group": "I26",
            "icd10_accept": ["I26"],
            "differential": [["PE", 0.6], ["MI", 0.4]],
        },
    ]
    answers = [
        Answer("acute-disease", True, 0.9, (("I22.1", 0.7), ("I26", 0.2), ("J45", 0.1))),
        Answer("acute-disease", True, 0.9, (("J45", 0.6), ("I21", 0.3), ("I26", 0.005))),
    ]
    found, ranks = differential_figures(labels, answers, pathologies)
    assert ranks.tolist() == [1, 3]
    assert (found["top1"], found["top3"], found["mrr"]) == (0.5, 1.0, 0.6667)
    # First: MI and PE named, MI wanted; second: MI named, MI and PE wanted.  Openly asthma is named too.
    # The second's pulmonary embolism counts among the set's diseases alone (0.005 of 0.305) only.
    assert found["ddf1_closed"] == 0.8333
    assert found["ddf1_open"] == 0.5


def test_specificity_is_taken_at_the_highest_cut_that_is_sensitive_enough() -> None:
    true, chance = np.array([True, True, False, False, False]), np.array([0.9, 0.4, 0.5, 0.4, 0.1])
    assert specificity_at(true, chance, 0.5) == 1.0
    assert specificity_at(true, chance, 0.8) == 0.3333


def test_rank_correlation_takes_mean_ranks_for_ties() -> None:
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([10, 20, 20, 30])) == pytest.approx(1.0)
    assert np.isnan(rank_correlation(np.array([1, 1]), np.array([1, 2])))
