"""What the diseases of relatives say of a patient: how far they raise the same disease's odds, and why.

A step beside the trained model: a log likelihood ratio from Mendel's risk for the relation, bounded
(``data/relatives.toml`` has the figures and their sources), never learned and never for nothing recorded.
What relatives have in common with the patient is shown and not counted.  Reads no chart.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from models.rare.disease_names import FamilyDataInvalid
from models.rare.phenotype import Inherited

FILE = "relatives.toml"
MOST = 60
_MODES = ("dominant", "recessive", "linked")


@dataclass(frozen=True, slots=True)
class Relation:
    """How somebody is related by blood: the key of its words, and what the same disease in them weighs
    (`nats`, natural logarithm of a likelihood ratio)."""

    name: str
    nats: float


@dataclass(frozen=True, slots=True)
class Relations:
    """Relations by v3-RoleCode, SNOMED CT concept or word (all in capitals); `None`: not by blood."""

    by_code: Mapping[str, Relation | None]
    other: Relation

    def of(self, code: str) -> Relation | None:
        """The relation of a code as the chart has it, or `None` for one that is not by blood."""
        return self.by_code.get(code.upper(), self.other)


@cache
def relations() -> Relations:
    """The packaged table.  Raises `FamilyDataInvalid` naming the relation that is wrong."""
    text = resources.files("models.rare").joinpath("data", FILE).read_text(encoding="utf-8")
    return read_relations(text)


def read_relations(text: str) -> Relations:
    """The table of a text.  Raises `FamilyDataInvalid`."""
    try:
        tree = tomllib.loads(text)
        modes = {mode: float(tree["modes"][mode]) for mode in _MODES}
        limit = float(tree["limit"]["nats"])
        rows, strangers = tree["relation"], tree["not_by_blood"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as fault:
        raise FamilyDataInvalid(f"{FILE}: {fault}") from None
    if not math.isclose(sum(modes.values()), 1) or not 0 < limit <= 5:
        raise FamilyDataInvalid(f"{FILE}: modes add up to 1, the limit is above 0 and at most 5 nats")
    by_code: dict[str, Relation | None] = {}
    for row in rows:
        name = row.get("relation", "?")
        risks = row.get("risk", {})
        if set(risks) != set(_MODES) or not all(0 <= risk <= 1 for risk in risks.values()):
            raise FamilyDataInvalid(f"{FILE}: {name}: a risk between 0 and 1 for each mode")
        if not row.get("source"):
            raise FamilyDataInvalid(f"{FILE}: {name}: no source")
        relation = Relation(name, _nats(sum(modes[mode] * risks[mode] for mode in _MODES), limit))
        _enter(by_code, row, relation, name)
    _enter(by_code, strangers, None, "not_by_blood")
    other = by_code.get("FAMMEMB")
    if other is None:
        raise FamilyDataInvalid(f"{FILE}: no relation for FAMMEMB")
    return Relations(by_code, other)


def _enter(
    by_code: dict[str, Relation | None], row: Mapping[str, list[str]], relation: Relation | None, name: str
) -> None:
    for code in (*row.get("codes", ()), *row.get("snomed", ()), *row.get("words", ())):
        if code.upper() in by_code:
            raise FamilyDataInvalid(f"{FILE}: {name}: {code} occurs twice")
        by_code[code.upper()] = relation


def _nats(risk: float, limit: float) -> float:
    """`limit` for a risk of one half, less or more by the odds of the risk, within 0 and `limit`."""
    if risk >= 1:
        return limit
    return min(limit, max(0.0, limit + math.log(risk / (1 - risk)))) if risk > 0 else 0.0


def strongest(found: Iterable[Inherited]) -> tuple[Inherited, ...]:
    """Each disease once with the greatest weight: relatives of one family are no independent evidence.

    `MOST` at most, the greatest weights first kept, so that a record cannot ask for half of the knowledge.
    """
    best: dict[str, float] = {}
    for one in found:
        best[one.disease] = max(one.nats, best.get(one.disease, 0.0))
    kept = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:MOST]
    return tuple([Inherited(disease, nats) for disease, nats in kept if nats > 0])
