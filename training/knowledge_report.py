"""The knowledge base as one HTML page: what it covers, on what evidence, and that nobody has reviewed it.

Responsible for counting and showing what the files say; it judges nothing.  The page is self-contained
(inline style and SVG, no script, no foreign host), so that it can be sent to a clinician as it is.

    cds-server knowledge report --out knowledge.html
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from models.assessment import SEVERITIES
from models.knowledge.schema import AGE_BANDS, Disease, Grade, Knowledge
from training.page_parts import STYLE, bars, figure, legend, percent, table

GRADES: tuple[Grade, ...] = ("A", "B", "C")
FIELDS = ("findings", "vitals", "labs", "results", "risks", "medications", "timing", "tests")
_GRADE_COLOURS = {"A": "#1b7f5c", "B": "#3f7fbf", "C": "#b9c0c8"}
_SEVERITY_COLOURS = ("#b9c0c8", "#9fcbe3", "#5fa8d3", "#d1495b", "#7d5ba6")
_NOTICE = (
    "No clinician has reviewed this knowledge base. Most numbers are estimates of this project (grade C); "
    "they feed a simulator and a model, and must not be read as epidemiology or as advice."
)


@dataclass(frozen=True)
class Evidence:
    """How many numbers stand on each grade: `fields` by field of the files, `diseases` by disease id."""

    fields: dict[str, Counter[str]]
    diseases: dict[str, Counter[str]]

    @property
    def total(self) -> Counter[str]:
        """All numbers of all diseases."""
        return sum(self.fields.values(), Counter[str]())


def evidence(knowledge: Knowledge) -> Evidence:
    """Counts the rows of every disease (and its rate and severity mix) by the grade of their source."""
    fields: dict[str, Counter[str]] = {name: Counter() for name in (*FIELDS, "rate", "severity")}
    diseases: dict[str, Counter[str]] = {}
    for disease in knowledge.diseases:
        own: Counter[str] = Counter()
        for name, source in _sources(disease):
            grade = disease.sources[source][0]
            fields[name][grade] += 1
            own[grade] += 1
        diseases[disease.id] = own
    return Evidence(fields, diseases)


def _sources(disease: Disease) -> Iterable[tuple[str, str]]:
    for name in FIELDS:
        for row in getattr(disease, name):
            yield name, row[-1]
    yield "rate", disease.rate.source
    yield "severity", disease.severity_source


def report(knowledge: Knowledge) -> str:
    """The page as HTML; the same knowledge gives the same bytes."""
    found = evidence(knowledge)
    parts = (
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Clinical knowledge base</title><style>{STYLE}</style></head><body>",
        "<h1>Clinical knowledge base: coverage and evidence</h1>",
        f'<p class="notice"><strong>Not reviewed.</strong> {escape(_NOTICE)}</p>',
        _summary(knowledge, found),
        _coverage(knowledge),
        _evidence(found),
        _findings(knowledge),
        _severity(knowledge),
        _diseases(knowledge, found),
        "</body></html>",
    )
    return "\n".join(parts) + "\n"


def _summary(knowledge: Knowledge, found: Evidence) -> str:
    total = found.total
    share = ", ".join(f"{grade} {percent(total[grade], total.total())}" for grade in GRADES)
    rows = (
        ("Diseases and healthy or nonspecific states", f"{len(knowledge.diseases)}"),
        ("Findings (symptoms, signs, tests)", f"{len(knowledge.findings)}"),
        ("Risk factors", f"{len(knowledge.risks)}"),
        ("Measurements (vital signs, laboratory)", f"{len(knowledge.analytes)}"),
        ("Coded tests", f"{len({row[0] for d in knowledge.diseases for row in d.results})}"),
        ("Numbers with a source", f"{total.total():,} ({share})"),
        ("Human Phenotype Ontology", knowledge.ontology),
        ("Release (SHA-256 of the files)", knowledge.digest),
    )
    return table(("", ""), rows, numeric=())


def _coverage(knowledge: Knowledge) -> str:
    count = Counter[str](disease.group for disease in knowledge.diseases)
    rows = [
        (
            group,
            f"{number}",
            f"{sum(d.rate.primary_care for d in knowledge.diseases if d.group == group):,.0f}",
            f"{sum(d.rate.emergency for d in knowledge.diseases if d.group == group):,.0f}",
        )
        for group, number in count.most_common()
    ]
    total = (
        "all",
        f"{len(knowledge.diseases)}",
        f"{sum(d.rate.primary_care for d in knowledge.diseases):,.0f}",
        f"{sum(d.rate.emergency for d in knowledge.diseases):,.0f}",
    )
    chart = bars([(group, (float(number),)) for group, number in count.most_common()], ("#3f7fbf",))
    return (
        "<h2>Coverage by organ system</h2>"
        + figure(chart, "Number of diseases by organ system.")
        + table(
            ("organ system", "diseases", "visits per 10,000 in primary care", "in an emergency department"),
            [*rows, total],
            numeric=(1, 2, 3),
        )
    )


def _evidence(found: Evidence) -> str:
    chart = bars(
        [(name, tuple(float(count[grade]) for grade in GRADES)) for name, count in found.fields.items()],
        tuple(_GRADE_COLOURS[grade] for grade in GRADES),
    )
    rows = [
        (name, *(f"{count[grade]:,}" for grade in GRADES), percent(count["C"], count.total()))
        for name, count in (*found.fields.items(), ("all", found.total))
    ]
    return (
        "<h2>Evidence</h2><p>A: a published figure with its citation. B: a qualitative frequency of a named "
        "guideline or textbook, mapped by the scale of docs/knowledge-authoring.md. C: an estimate of this "
        "project.</p>"
        + figure(chart, legend(_GRADE_COLOURS.items()))
        + table(("numbers of", *GRADES, "share of C"), rows, numeric=(1, 2, 3, 4))
    )


def _findings(knowledge: Knowledge) -> str:
    kinds = Counter(row.kind for row in knowledge.findings)
    listed = Counter(min(len(disease.findings) // 5 * 5, 60) for disease in knowledge.diseases)
    chart = bars(
        [
            (f"{low}–{low + 4}" if low < 60 else "60 and more", (float(listed[low]),))
            for low in range(min(listed), 61, 5)
        ],
        ("#3f7fbf",),
    )
    return (
        "<h2>Findings</h2><p>"
        + ", ".join(f"{number} {kind}s" for kind, number in kinds.most_common())
        + ".</p>"
        + figure(chart, "Diseases by the number of findings that their file lists.")
    )


def _severity(knowledge: Knowledge) -> str:
    rows = []
    for name, setting in (("primary care", "primary_care"), ("emergency department", "emergency")):
        mix: dict[str, float] = dict.fromkeys(SEVERITIES, 0.0)
        immediate = 0.0
        for disease in knowledge.diseases:
            rate = getattr(disease.rate, setting)
            for grade in disease.grades:
                mix[grade.severity] += rate * grade.weight
                immediate += rate * grade.weight * grade.immediate
        total = sum(mix.values())
        rows.append((name, *(percent(mix[s], total) for s in SEVERITIES), percent(immediate, total)))
    return (
        "<h2>Severity</h2><p>Shares of visits as the files have them, before the simulator gives the graver "
        "degrees more weight in an emergency department.</p>"
        + table(
            ("setting", *SEVERITIES, "immediate attention"),
            rows,
            numeric=tuple(range(1, len(SEVERITIES) + 2)),
        )
    )


def _diseases(knowledge: Knowledge, found: Evidence) -> str:
    header = (
        "disease", "enfermedad", "ICD-10", "ICD-10-CM", "SNOMED CT", "primary care", "emergency", "peak age",
        "severity", "immediate", "findings", "A / B / C",
    )  # fmt: skip
    parts = [
        "<h2>Diseases</h2><p>Visits per 10,000 of the setting. The bar shows the severity mix; immediate is "
        f"the chance of triage level 1 or 2.</p><p>{legend(zip(SEVERITIES, _SEVERITY_COLOURS, strict=True))}"
        "</p>"
    ]
    for group in sorted({disease.group for disease in knowledge.diseases}):
        rows = [_disease(d, found.diseases[d.id]) for d in knowledge.diseases if d.group == group]
        parts.append(f"<h3>{escape(group)} ({len(rows)})</h3>")
        parts.append(table(header, rows, numeric=(5, 6, 9, 10, 11), raw=(8,)))
    return "\n".join(parts)


def _disease(disease: Disease, grades: Counter[str]) -> tuple[str, ...]:
    peak = max(range(len(AGE_BANDS)), key=lambda band: disease.rate.age[band])
    immediate = sum(grade.weight * grade.immediate for grade in disease.grades)
    return (
        disease.name.en,
        disease.name.es,
        " ".join(disease.icd10),
        " ".join(disease.icd10cm),
        disease.snomed or "",
        f"{disease.rate.primary_care:g}",
        f"{disease.rate.emergency:g}",
        AGE_BANDS[peak][0],
        _mix(disease),
        f"{100 * immediate:.1f} %",
        f"{len(disease.findings)}",
        " / ".join(f"{grades[grade]}" for grade in GRADES),
    )


def _mix(disease: Disease) -> str:
    """A small bar of the severity mix, with its words for a screen reader."""
    share: dict[str, float] = dict.fromkeys(SEVERITIES, 0.0)
    for grade in disease.grades:
        share[grade.severity] += grade.weight
    words = ", ".join(f"{name} {100 * share[name]:.0f} %" for name in SEVERITIES if share[name])
    x, boxes = 0.0, []
    for name, colour in zip(SEVERITIES, _SEVERITY_COLOURS, strict=True):
        width = 80 * share[name]
        boxes.append(f'<rect x="{x:.1f}" width="{width:.1f}" height="10" fill="{colour}"/>' if width else "")
        x += width
    return f'<svg width="80" height="10" role="img"><title>{escape(words)}</title>{"".join(boxes)}</svg>'
