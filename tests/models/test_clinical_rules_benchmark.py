"""The benchmark of the rules counts right, and healthy outpatients are left in peace."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import clinical_rules
from benchmarks.clinical_rules import DATA, Case, auroc, calibration_error, outpatients
from fhir_adapters.chart_builder import ChartBuilder
from models.engine import Engine


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.2, 0.7, 0.9])), min_size=1, max_size=30)
)
def test_the_area_under_the_curve_is_the_share_of_pairs_in_the_right_order(
    cases: list[tuple[bool, float]],
) -> None:
    truth, scores = [case[0] for case in cases], [case[1] for case in cases]
    ill = [score for positive, score in cases if positive]
    well = [score for positive, score in cases if not positive]
    if not ill or not well:
        assert math.isnan(auroc(truth, scores))
        return
    won = sum((a > b) + (a == b) / 2 for a, b in product(ill, well))
    assert auroc(truth, scores) == pytest.approx(won / (len(ill) * len(well)))


def test_the_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    assert calibration_error([True, False, True, True], [0.9, 0.1, 0.95, 0.15]) == pytest.approx(
        0.5 * abs(1 - 0.925) + 0.5 * abs(0.5 - 0.125)
    )


def test_without_the_data_set_the_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clinical_rules, "DATA", DATA.parent / "nowhere")
    monkeypatch.setattr("sys.argv", ["clinical_rules"])
    clinical_rules.main()
    assert "skipped" in capsys.readouterr().out


@pytest.mark.skipif(not DATA.is_dir(), reason="the clinical development set is not beside the repository")
def test_an_outpatient_with_nothing_acute_gets_no_alarming_card() -> None:
    builder = ChartBuilder.load()
    engine = Engine.load(builder.tables.ontology)
    for number, bundle in enumerate(outpatients()):
        case = Case(bundle, builder, engine)
        assert not case.assessment.immediate, number
        assert {"critical", "warning"}.isdisjoint(case.indicators), (number, case.flags)
