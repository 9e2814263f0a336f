"""What the rules do on the clinical development set: alerts, red flags and cards against the labels.

Measures only: no threshold, weight or rule is chosen by these figures (they are set from the
publications and estimates named in the data files), and nothing of the data set is kept.  Figures are
defined as in the reference scorer of the development set (``bench/clinical_bench.py``: the critical
cases of real emergency visits, the decision and the probability of immediate attention as
``/fhir/$assess`` sends them).  Needs the data set beside the repository and skips with a message
without it.

    python -m benchmarks.clinical_rules
    python -m benchmarks.clinical_rules --charts       # a line per flagged chart, to read them one by one
"""

import argparse
import gzip
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fhir_adapters.chart import PatientChart
from fhir_adapters.chart_builder import ChartBuilder, moment_of
from fhir_adapters.decode import read_bundle
from hooks import diagnostic_assessment
from models.assessment import Assessment
from models.engine import Engine

DATA = Path(__file__).resolve().parents[2] / "shared" / "clinical"
BOOTSTRAPS = 400
NOW = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
"""For a record that names no moment of its own."""


class Case:
    """One record with what the product says about it."""

    def __init__(self, bundle: dict[str, Any], builder: ChartBuilder, engine: Engine) -> None:
        found = read_bundle(json.dumps(bundle, ensure_ascii=False).encode())
        self.chart: PatientChart = builder.build(
            found, at=moment_of(found) or NOW, patient_id=None, retrospective=True
        )
        self.assessment: Assessment = engine.assess(self.chart)
        self.indicators = [
            card.indicator
            for card in diagnostic_assessment.cards(
                self.chart, self.assessment, language="en", seed="benchmark", names=builder.name_of
            )
        ]
        # The wire carries six decimals.
        self.probability = round(self.assessment.immediate_probability, 6)
        self.flags = {flag.id: flag.urgency for flag in self.assessment.red_flags}


def bundles(name: str) -> list[dict[str, Any]]:
    """The records of one set, in the order of its labels."""
    with gzip.open(DATA / f"{name}_bundles.ndjson.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def labels(name: str) -> list[dict[str, Any]]:
    """The labels of one set."""
    with (DATA / f"{name}_labels.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def outpatients() -> list[dict[str, Any]]:
    """The synthetic outpatient records, which have no labels and should hardly ever alert."""
    found = []
    for path in sorted((DATA / "synthea").iterdir()):
        with gzip.open(path, "rt", encoding="utf-8") as text:
            found.append(json.load(text))
    return found


def auroc(truth: Sequence[bool], scores: Sequence[float]) -> float:
    """The area under the ROC curve, ties counted half; `nan` when one class is empty."""
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    ranks = [0.0] * len(scores)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        for place in range(start, end):
            ranks[order[place]] = (start + end + 1) / 2
        start = end
    positives = sum(truth)
    negatives = len(truth) - positives
    if not positives or not negatives:
        return math.nan
    total = math.fsum(rank for rank, positive in zip(ranks, truth, strict=True) if positive)
    return (total - positives * (positives + 1) / 2) / (positives * negatives)


def calibration_error(truth: Sequence[bool], scores: Sequence[float], bins: int = 10) -> float:
    """The expected calibration error over bins of equal width."""
    held: dict[int, list[int]] = {}
    for index, score in enumerate(scores):
        held.setdefault(min(int(score * bins), bins - 1), []).append(index)
    error = 0.0
    for members in held.values():
        size = len(members)
        rate = sum(truth[index] for index in members) / size
        said = math.fsum(scores[index] for index in members) / size
        error += size / len(scores) * abs(rate - said)
    return error


def interval(measure: Callable[[list[int]], float], size: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of a figure over cases."""
    draw = random.Random(1)
    found = []
    for _ in range(BOOTSTRAPS):
        value = measure([draw.randrange(size) for _ in range(size)])
        if not math.isnan(value):
            found.append(value)
    found.sort()
    return found[int(0.025 * (len(found) - 1))], found[int(0.975 * (len(found) - 1))]


def table(target: str, truth: list[bool], cases: list[Case]) -> list[str]:
    """The figures of one label: how the probability ranks and what the decision costs."""
    scores = [case.probability for case in cases]
    alerts = [case.assessment.immediate for case in cases]
    pairs = list(zip(truth, alerts, strict=True))
    hits, misses = pairs.count((True, True)), pairs.count((True, False))
    false, quiet = pairs.count((False, True)), pairs.count((False, False))
    low, high = interval(
        lambda draw: auroc([truth[index] for index in draw], [scores[index] for index in draw]), len(truth)
    )
    return [
        f"| {target}, {sum(truth)} of {len(truth)} | |",
        "|---|---|",
        f"| AUROC of the probability (95 % interval) | {auroc(truth, scores):.3f} ({low:.3f}–{high:.3f}) |",
        f"| calibration error (ECE, 10 bins) | {calibration_error(truth, scores):.3f} |",
        f"| sensitivity of the decision | {_share(hits, hits + misses)} |",
        f"| specificity | {_share(quiet, quiet + false)} |",
        f"| positive predictive value | {_share(hits, hits + false)} |",
        f"| negative predictive value | {_share(quiet, quiet + misses)} |",
        f"| alert rate | {_share(hits + false, len(truth))} |",
        "",
    ]


def flag_table(truth: list[bool], cases: list[Case], most: int = 25) -> list[str]:
    """The red flags by frequency, and how often the chart they stand on was critical."""
    shown: Counter[tuple[str, str]] = Counter()
    right: Counter[tuple[str, str]] = Counter()
    for critical, case in zip(truth, cases, strict=True):
        for key in case.flags.items():
            shown[key] += 1
            right[key] += critical
    lines = ["| red flag | urgency | charts | of these critical |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {urgency} | {count} | {_share(right[name, urgency], count)} |"
        for (name, urgency), count in sorted(shown.items(), key=lambda item: (-item[1], item[0]))[:most]
    ]
    return [*lines, ""]


def load_table(name: str, cases: list[Case]) -> list[str]:
    """How much is said: red flags per chart, and charts with a card of each gravity."""
    size = len(cases)
    counts = Counter(min(len(case.flags), 4) for case in cases)
    urgent = sum(any(urgency != "soon" for urgency in case.flags.values()) for case in cases)
    immediate = sum("immediate" in case.flags.values() for case in cases)
    advised = sum(case.assessment.immediate for case in cases)
    spread = ", ".join(f"{'4+' if count == 4 else count}: {counts[count]}" for count in range(5))
    return [
        f"| {name}, {size} charts | |",
        "|---|---|",
        f"| red flags per chart, mean | {sum(len(case.flags) for case in cases) / size:.2f} |",
        f"| charts by number of red flags | {spread} |",
        f"| charts with an immediate red flag | {_share(immediate, size)} |",
        f"| charts with an immediate or urgent red flag | {_share(urgent, size)} |",
        f"| charts advised for immediate attention | {_share(advised, size)} |",
        f"| charts with a critical card | {_share(sum('critical' in c.indicators for c in cases), size)} |",
        f"| charts with a critical or warning card | "
        f"{_share(sum(not {'critical', 'warning'}.isdisjoint(c.indicators) for c in cases), size)} |",
        "",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f} ({part}/{whole})" if whole else "none"


def measure(charts: bool = False) -> str:
    """The whole report as Markdown; `charts` adds a line for every flagged chart."""
    builder = ChartBuilder.load()
    engine = Engine.load(builder.tables.ontology)
    lines: list[str] = []
    emergency, truth = [Case(bundle, builder, engine) for bundle in bundles("ktas")], labels("ktas")
    critical = [bool(label["critical"]) for label in truth]
    lines += ["### Real emergency visits (KTAS)", ""]
    lines += table("critical (expert level 1 or 2)", critical, emergency)
    lines += table(
        "intensive care, surgery or death", [bool(x["icu_surgery_death"]) for x in truth], emergency
    )
    lines += load_table("KTAS", emergency)
    lines += flag_table(critical, emergency)
    if charts:
        for label, case in zip(truth, emergency, strict=True):
            lines.append(
                _line(
                    label["id"],
                    f"level {label['ktas_expert']} {label['cc_text']!r} -> {label['diagnosis_text']!r}",
                    case,
                )
            )
    common, truth = [Case(bundle, builder, engine) for bundle in bundles("ddxplus")], labels("ddxplus")
    lines += ["", "### Synthetic common presentations (DDXPlus)", ""]
    grave = [bool(label["immediate"]) for label in truth]
    lines += table("severity 1 or 2", grave, common)
    lines += load_table("DDXPlus", common)
    lines += flag_table(grave, common)
    if charts:
        for label, case in zip(truth, common, strict=True):
            lines.append(_line(label["id"], f"severity {label['severity']} {label['pathology']!r}", case))
    lines += ["", "### Synthetic outpatients (Synthea)", ""]
    well = [Case(bundle, builder, engine) for bundle in outpatients()]
    lines += load_table("Synthea", well)
    if charts:
        lines += [_line(f"synthea-{number:02}", "", case) for number, case in enumerate(well)]
    return "\n".join(lines).rstrip() + "\n"


def _line(name: str, label: str, case: Case) -> str:
    found = case.assessment
    scores = [
        f"{score.id}={score.value:g}:{score.urgency}"
        for score in found.scores
        if score.urgency and not score.stale
    ]
    values = [
        f"{value.id}:{value.urgency}{'(stale)' if value.stale else ''}" for value in found.critical_values
    ]
    flags = [f"{name}:{urgency}" for name, urgency in case.flags.items()]
    parts = [name, label, f"p={case.probability}", found.escalation.rule, str(case.indicators)]
    return " ".join([*parts, *flags, "|", *scores, "|", *values])


def main() -> None:
    """Print the report, or why it cannot be made."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--charts", action="store_true", help="also a line per chart")
    chosen = options.parse_args()
    if not DATA.is_dir():
        print("skipped: the clinical development set (../shared/clinical) is not beside the repository")
        return
    print(measure(chosen.charts), end="")


if __name__ == "__main__":
    main()
