"""The model card of a bundle: the template ``model_card.md`` filled with what a run knows of itself.

Responsible for wording figures; where a figure was not measured the card says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

TEMPLATE = "model_card.md"
NOT_MEASURED = "not measured"
_GROUPS = {"sex": "sex", "age_band": "age band", "setting": "setting"}


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside figures; digests in hexadecimal, `created` an ISO date."""

    version: str
    created: str
    revision: str
    knowledge: str
    ontology: str
    diseases: int
    features: int
    sources: tuple[dict[str, str | int], ...]
    data_digest: str
    coverage: float
    critical_weight: float


def model_card(facts: CardFacts, report: dict[str, Any]) -> str:
    """The card; `report` is that of `training.evaluation.report.build_report`."""
    internal, external = report["internal"], report["external"]
    template = Template(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.substitute(
        version=facts.version,
        created=facts.created,
        revision=facts.revision,
        knowledge=facts.knowledge,
        ontology=facts.ontology,
        diseases=facts.diseases,
        features=facts.features,
        analyte_words="vital signs and laboratory values as distances from the normal of age and sex",
        training_data=training_data(facts.sources),
        sources="; ".join(_source(source) for source in facts.sources),
        data_digest=facts.data_digest,
        coverage=f"{100 * facts.coverage:g} %",
        critical_weight=f"{facts.critical_weight:g}",
        fairness=_fairness(internal),
        internal_about=_about(internal),
        internal_table=_table(report["goals"], "internal"),
        external_process=_external_process(external),
        notes="\n".join(f"- {note}" for note in report["notes"]) or f"- {NOT_MEASURED}",
        external_table=f"{NOT_MEASURED.capitalize()} in this run."
        if external is None
        else _table(report["goals"], "external"),
    )


def training_data(sources: Iterable[dict[str, str | int]]) -> str:
    """What was trained on, in one phrase; simulated patients in capitals, because no one may overlook it."""
    found = []
    for source in sources:
        count = f"{int(source['patients']):,}"
        if source["source"] == "simulated":
            found.append(f"{count} SIMULATED PATIENTS")
        else:
            found.append(f"{count} patients of a dataset ({source['source']})")
    return " and ".join(found)


def _source(source: dict[str, str | int]) -> str:
    rest = [f"{name} {value}" for name, value in source.items() if name not in ("source", "patients")]
    return f"{source['source']}: {int(source['patients']):,} patients ({', '.join(rest)})"


def _about(internal: dict[str, Any] | None) -> str:
    if internal is None:
        return NOT_MEASURED
    return "; decisions ".join(internal["about"].values())


def _table(goals: Iterable[dict[str, Any]], part: str) -> str:
    lines = ["| measure | figure | 95 % interval | goal |", "|---|---|---|---|"]
    for row in goals:
        if row["part"] != part:
            continue
        value = NOT_MEASURED if row["value"] is None else f"{row['value']:.3f}"
        interval = "" if not row["interval"] else f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}"
        bound = "at least" if row["better"] == "higher" else "at most"
        lines.append(f"| {row['label']} | {value} | {interval} | {bound} {row['reach']:g} |")
    return "\n".join(lines)


def _fairness(internal: dict[str, Any] | None) -> str:
    """Recall of patients in need by group, from the report's subgroups."""
    if internal is None:
        return f"Figures by group: {NOT_MEASURED}."
    lines = [
        "| group | patients | in need | recall of those in need | false calls | top-5 |",
        "|---|---|---|---|---|---|",
    ]
    for kind, word in _GROUPS.items():
        for name, row in internal["subgroups"].get(kind, {}).get("groups", {}).items():
            figures = [_figure(row.get(key)) for key in ("tpr", "fpr", "top5")]
            cells = [f"{word}: {name}", str(row["n"]), str(row["positives"]), *figures]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else NOT_MEASURED


def _external_process(external: dict[str, Any] | None) -> str:
    if external is None:
        return (
            "Not part of this run. `cds-server evaluate` measures a bundle on two public development sets "
            "(real emergency visits with expert triage levels, and synthetic presentations); its report is "
            "the place to look."
        )
    measured = [f"{name} ({part['n']} cases)" for name, part in external.items() if "n" in part]
    skipped = [f"{name}: {part['skipped']}" for name, part in external.items() if "skipped" in part]
    text = (
        "By the developers, on development splits of public data: "
        + (", ".join(measured) or "none")
        + ". No independent party has validated this version; no site has, on data of its own."
    )
    return text + ("" if not skipped else " Not measured: " + "; ".join(skipped) + ".")
