"""Which drug class is harmful in which disease (``data/drug_harms.csv``), read and checked.

Responsible for turning the rows into `DrugHarm` values with errors that name the row; whether one
applies to a patient is decided by `models.order_guidance`.  A row speaks of a *suspected* disease (of
the differential); a disease on record is the matter of ``order_rules.toml``, and `said_by` names the
rules there that say the same, so that nothing is said twice.
"""

import csv
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib import resources

import msgspec

from models.assessment import Urgency
from models.rules import tables
from models.rules.errors import RulesInvalid

FILE = "drug_harms.csv"
COLUMNS = (
    "id",
    "atc",
    "diseases",
    "below_age",
    "effect",
    "urgency",
    "alternative",
    "said_by",
    "en",
    "es",
    "source",
)
URGENCIES: Mapping[str, Urgency] = {"critical": "immediate", "warning": "urgent", "note": "soon"}
LONGEST_SENTENCE = 120
"""Characters of a sentence of a row: what is read at a glance while ordering."""
_OLDEST = 120.0
_DATA = resources.files("models.knowledge").joinpath("data")
PACKAGED = _DATA.joinpath(FILE)
"""The packaged table; its content is part of the digest of what the rules know."""
Wrong = Callable[[str, str], RulesInvalid]
# What would mean something to Markdown on a card.
_MARKS = frozenset("<>`|\\*_[]#")


class DrugHarm(msgspec.Struct, frozen=True, gc=False):
    """One row: drugs (ATC prefixes) that do harm in a disease (any of `diseases`, ids of the knowledge).

    `below_age` (years, exclusive) limits it to younger patients; `effect` is the key of the harm in words
    (texts: ``harm.<effect>``); `alternative` an action to do first or instead, or empty; `en` and `es`
    say why in one sentence.
    """

    id: str
    drugs: tuple[str, ...]
    diseases: frozenset[str]
    below_age: float | None
    effect: str
    urgency: Urgency
    alternative: str
    said_by: frozenset[str]
    en: str
    es: str
    source: str

    def sentence(self, language: str) -> str:
        """Why, in ``en`` or ``es``."""
        return self.es if language == "es" else self.en


class Known(msgspec.Struct, frozen=True):
    """The ids that a row may name: diseases, actions and order rules."""

    diseases: Collection[str]
    actions: Collection[str]
    order_rules: Collection[str]

    @classmethod
    def packaged(cls) -> "Known":
        """What the packaged data hold (a disease is the name of its file)."""
        diseases = _DATA.joinpath("diseases")
        names = [entry.name for entry in diseases.iterdir() if entry.name.endswith(".toml")]
        return cls(
            frozenset([name.removesuffix(".toml") for name in names]),
            frozenset([row["id"] for row in tables.read_toml("actions.toml")["action"]]),
            frozenset([row["id"] for row in tables.read_toml("order_rules.toml")["rule"]]),
        )


@cache
def packaged() -> Mapping[str, DrugHarm]:
    """The packaged rows by id, in the order of the file; raises `RulesInvalid`.  Read once per process."""
    return read(PACKAGED.read_text(encoding="utf-8"), Known.packaged())


def read(text: str, known: Known) -> Mapping[str, DrugHarm]:
    """Read and check the text of a ``drug_harms.csv``.

    Raises:
        RulesInvalid: naming the row (1 is the header) and the column that is wrong.
    """
    reader = csv.reader(text.splitlines())
    header = tuple(next(reader, ()))
    if header != COLUMNS:
        raise RulesInvalid(FILE, "row 1", f"the header is {header}, expected {COLUMNS}")
    found: dict[str, DrugHarm] = {}
    for number, cells in enumerate(reader, start=2):
        where = f"row {number}"
        if len(cells) != len(COLUMNS):
            raise RulesInvalid(FILE, where, f"{len(cells)} cells, expected {len(COLUMNS)}")
        row = dict(zip(COLUMNS, [cell.strip() for cell in cells], strict=True))
        _check(row, known, where)
        if row["id"] in found:
            raise RulesInvalid(FILE, where, f"column id: {row['id']!r} stands twice")
        found[row["id"]] = DrugHarm(
            row["id"],
            tuple(row["atc"].split()),
            frozenset(row["diseases"].split()),
            float(row["below_age"]) if row["below_age"] else None,
            row["effect"],
            URGENCIES[row["urgency"]],
            row["alternative"],
            frozenset(row["said_by"].split()),
            row["en"],
            row["es"],
            row["source"],
        )
    if not found:
        raise RulesInvalid(FILE, "row 2", "no rows")
    return found


def _check(row: dict[str, str], known: Known, where: str) -> None:
    def wrong(column: str, message: str) -> RulesInvalid:
        return RulesInvalid(FILE, where, f"column {column}: {message}")

    for column in ("atc", "diseases", "source"):
        if not row[column]:
            raise wrong(column, "it is empty")
    if row["urgency"] not in URGENCIES:
        raise wrong("urgency", f"{row['urgency']!r} is not one of {', '.join(URGENCIES)}")
    _check_ids(row, known, wrong)
    _check_age(row["below_age"], wrong)
    _check_words(row, wrong)


def _check_ids(row: dict[str, str], known: Known, wrong: Wrong) -> None:
    for column in ("id", "effect"):
        if not tables.KEBAB.match(row[column]):
            raise wrong(column, f"{row[column]!r} is not kebab-case")
    # Rules of all files are told apart by their id alone (texts, audit, `OrderConcern.rule`).
    if row["id"] in known.order_rules:
        raise wrong("id", f"order_rules.toml has a rule {row['id']!r} already")
    for code in row["atc"].split():
        if not tables.ATC.match(code):
            raise wrong("atc", f"{code!r} is not spelt as an ATC code")
    for column, ids in (
        ("diseases", known.diseases),
        ("alternative", known.actions),
        ("said_by", known.order_rules),
    ):
        for name in row[column].split():
            if name not in ids:
                raise wrong(column, f"there is no {name!r}")
    if len(row["alternative"].split()) > 1:
        raise wrong("alternative", "one action at most")


def _check_age(text: str, wrong: Wrong) -> None:
    if not text:
        return
    try:
        age = float(text)
    except ValueError:
        raise wrong("below_age", f"{text!r} is not a number of years") from None
    if not 0 < age < _OLDEST:
        raise wrong("below_age", f"{text!r} is no age")


def _check_words(row: dict[str, str], wrong: Wrong) -> None:
    for column in ("en", "es"):
        text = row[column]
        if not text.endswith(".") or len(text) > LONGEST_SENTENCE:
            raise wrong(column, f"a sentence of at most {LONGEST_SENTENCE} characters with its full stop")
        if not _MARKS.isdisjoint(text):
            raise wrong(column, "it holds a character that means something to Markdown")
    if row["en"] == row["es"]:
        raise wrong("es", "it is the English sentence")
