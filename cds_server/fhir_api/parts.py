"""The smallest pieces of a `Parameters` resource: strings that are never empty, decimals, and facts."""

from collections.abc import Iterable
from typing import Any

from hooks.texts import Texts
from hooks.wording import Names, name_of
from models.assessment import Fact

Part = dict[str, Any]

_FACT_SYSTEMS = {
    "measurement": "http://loinc.org",
    "coded": "http://loinc.org",
    "finding": "http://human-phenotype-ontology.org",
    "problem": "http://hl7.org/fhir/sid/icd-10-cm",
    "medication": "http://www.whocc.no/atc",
    "allergy": "http://www.whocc.no/atc",
}


def decimal(value: float) -> float:
    """A number with as many digits as mean something."""
    return round(value, 6)


def string_part(name: str, value: str) -> list[Part]:
    """A string part, or none: FHIR strings are never empty."""
    return [{"name": name, "valueString": value}] if value.strip() else []


def string_parts(name: str, values: Iterable[str]) -> list[Part]:
    return [part for value in values for part in string_part(name, value)]


def fact_part(fact: Fact, texts: Texts, names: Names) -> Part:
    label = name_of(fact, texts, names) or fact.label
    parts: list[Part] = [*string_part("label", label)]
    system = _FACT_SYSTEMS.get(fact.kind)
    if system and fact.code:
        parts.append({"name": "code", "valueCoding": {"system": system, "code": fact.code}})
    if fact.value is not None:
        quantity: dict[str, Any] = {"value": fact.value}
        if fact.unit:
            quantity |= {"unit": fact.unit, "system": "http://unitsofmeasure.org", "code": fact.unit}
        parts.append({"name": "value", "valueQuantity": quantity})
    parts += string_part("value-text", fact.text_value or "")
    if fact.state != "present":
        parts.append({"name": "state", "valueCode": fact.state})
    if fact.time is not None:
        parts.append({"name": "time", "valueDateTime": fact.time.isoformat(timespec="seconds")})
    parts += string_parts("source", fact.sources)
    return {"name": "fact", "part": parts}
