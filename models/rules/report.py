"""The red flags as a Markdown table for clinicians to read and criticise (``docs/rules-red-flags.md``).

    python -m models.rules.report > docs/rules-red-flags.md

Responsible for saying in words what ``data/red_flags.toml`` asks for; it judges nothing and is not used
while serving.
"""

import re
import sys
from typing import Any

from models.rules import tables
from models.rules.analytes import load_analytes
from models.rules.red_flags import FILE

INTRODUCTION = """# Red flags

Generated from `models/rules/data/red_flags.toml` by `python -m models.rules.report`; do not edit by hand.

*Immediate* asks for somebody within minutes, *urgent* within the hour or the day, *soon* within days to
weeks. A flag is one step less urgent when all it rests on is uncertain or was read from free text. *acute*
before an ICD-10-CM code is an active problem of this illness (the reason for contact, or recorded within a
week or since the encounter began); *active* is one on record however old; *ever* counts past ones too.
Findings are HPO terms and count with everything below them. Ages are shown in days up to a year, then in
years. Grade A: the named guideline says it; B: consensus or customary teaching; C: estimate of this project.
The combination of codes that stands for a guideline's wording is always this project's reading.
"""
_VALUE = re.compile(r"(\S+) (<=|>=|<|>) (\S+) (\S+)\Z")
_OPERATORS = {"<=": "≤", ">=": "≥", "<": "<", ">": ">"}
_CONSCIOUSNESS = "67775-7"


def report(raw: dict[str, Any] | None = None) -> str:
    """The whole page as Markdown; `raw` is the content of the rule file (the packaged one by default)."""
    data = tables.read_toml(FILE) if raw is None else raw
    labels = {code: analyte.label for code, analyte in load_analytes().items()}
    lines = [
        INTRODUCTION,
        "| id | urgency | who | what must be met | suspects | source |",
        "|---|---|---|---|---|---|",
    ]
    for flag in data["red_flag"]:
        cells = (
            f"`{flag['id']}`",
            flag["urgency"],
            _population(flag.get("population", {})),
            _condition(flag["when"], labels),
            " ".join(flag["suspects"]),
            f"{flag['source']} ({flag['grade']})",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## Groups of terms", "", "| group | met by |", "|---|---|"]
    for name, group in data["group"].items():
        members = group.get("any") or group["of"]
        least = group.get("at_least", 1)
        words = "; ".join(_term(term, labels) for term in members)
        lines.append(f"| {_title(name)} | {f'at least {least} of: ' if least > 1 else ''}{words} |")
    return "\n".join(lines) + "\n"


def _condition(when: dict[str, Any], labels: dict[str, str]) -> str:
    parts: list[str] = []
    for item in when.get("all", ()):
        parts.append(_term(item, labels) if isinstance(item, str) else _clause(item, labels))
    if "any" in when:
        parts.append(_clause({"any": when["any"]}, labels))
    if "of" in when:
        parts.append(_clause({"at_least": when["at_least"], "of": when["of"]}, labels))
    text = " **and** ".join(parts)
    none = when.get("none", ())
    return f"{text} **but not** {' nor '.join(_term(term, labels) for term in none)}" if none else text


def _clause(item: dict[str, Any], labels: dict[str, str]) -> str:
    choices = item.get("any") or item["of"]
    words = [
        _term(choice, labels)
        if isinstance(choice, str)
        else " with ".join(_term(term, labels) for term in choice["all"])
        for choice in choices
    ]
    if "at_least" in item:
        return f"at least {item['at_least']} of ({'; '.join(words)})"
    return words[0] if len(words) == 1 else f"one of ({'; '.join(words)})"


def _term(term: str, labels: dict[str, str]) -> str:
    kind, _, body = term.partition(":")
    if kind == "group":
        return _title(body)
    if kind in ("finding", "known", "absent"):
        name = body.partition(" ")[2].lower()
        return {"finding": name, "known": f"{name} (ever)", "absent": f"no {name}"}[kind]
    if kind == "measurement":
        match = _VALUE.match(body)
        if match is None:
            return body
        code, operator, limit, unit = match.groups()
        return f"{labels[code].lower()} {_OPERATORS[operator]} {limit} {unit}"
    if kind == "coded":
        code, _, key = body.partition("=")
        return f"consciousness: {key}" if code == _CONSCIOUSNESS else body
    words = {
        "acute": "acute",
        "problem": "active",
        "history": "ever",
        "medication": "drug",
        "allergy": "allergy",
    }
    return f"{words[kind]} {body}"


def _title(name: str) -> str:
    return f"*{name.replace('-', ' ')}*"


def _population(who: dict[str, Any]) -> str:
    parts: list[str] = []
    low, high = who.get("age_min_days"), who.get("age_max_days")
    if low and high is not None:
        parts.append(f"{_age(low)} to {_age(high)}")
    elif low:
        parts.append(f"from {_age(low)}")
    elif high is not None:
        parts.append(f"to {_age(high)}")
    if "sex" in who:
        parts.append(who["sex"])
    if "pregnant" in who:
        words = {
            "yes": "pregnant",
            "possible": "may be pregnant",
            "postpartum": "after birth",
            "no": "not pregnant",
        }
        parts.append(words[who["pregnant"]])
    if "gestation_min_weeks" in who:
        parts.append(f"from {who['gestation_min_weeks']:g} weeks")
    return ", ".join(parts) or "everybody"


def _age(days: int) -> str:
    return f"{days} d" if days < 366 else f"{days / 365.25:.3g} a"


def main() -> None:
    """Print the page."""
    sys.stdout.write(report())


if __name__ == "__main__":
    main()
