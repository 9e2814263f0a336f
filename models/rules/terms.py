"""The terms of the rules: what a rule file may ask of a chart, and which of it one chart fulfils.

A term is one string such as ``finding:HP:0100749``; `TermTable` gives each distinct term a number at
load and prepares lookups (HPO terms with all their descendants, ICD and ATC by prefix, measurements
by LOINC), so that `match` touches only what the chart holds.  It knows no rule, no urgency and no
action.

=====================================  ==========================================================
``finding:HP:… Label``                 present now, the term or a descendant of it
``known:HP:… Label``                   present at any time in the record
``absent:HP:… Label``                  said to be absent, the term or an ancestor of it
``acute:K35``                          an active problem of this ICD-10-CM prefix that speaks of this illness
``problem:D70``                        an active problem of this prefix, however long it has been on record
``history:…``                          the same with any status but absent
``measurement:8480-6 < 90 mm[Hg]``     the current value, in the unit of ``measurements.csv``
``coded:LOINC=key``                    the current coded value
``medication:ATC``, ``allergy:ATC``    an active drug or a recorded allergy of this class prefix
``group:name``                         at least one (or n) of the terms of a named group
=====================================  ==========================================================
"""

import re

from fhir_adapters.chart import PatientChart
from fhir_adapters.hpo import Ontology
from models.rules import tables
from models.rules.analytes import Analyte
from models.rules.currency import Currency
from models.rules.errors import RulesInvalid
from models.rules.lookups import Group, Limit, Lookups, Measured
from models.rules.matching import Hits, match

_MEASUREMENT = re.compile(r"(?P<loinc>\d+-\d) (?P<op><=|>=|<|>) (?P<value>-?\d+(\.\d+)?) (?P<unit>\S+)\Z")
_CODED = re.compile(r"(?P<loinc>\d+-\d)=(?P<value>[a-z0-9]+(-[a-z0-9]+)*)\Z")


class TermTable:
    """All terms of all rule files, numbered, with the lookups `match` needs.  Filled at load only."""

    def __init__(self, ontology: Ontology, analytes: dict[str, Analyte]) -> None:
        self._ontology = ontology
        self.analytes = analytes
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._lookups = Lookups()
        self._group_names: dict[str, int] = {}

    def number(self, term: str, file: str, entry: str) -> int:
        """The number of a term, which is checked and prepared when it is new; raises `RulesInvalid`."""
        known = self._numbers.get(term)
        if known is not None:
            return known
        kind, _, body = term.partition(":")
        index = len(self.names)
        if kind == "group":
            if body not in self._group_names:
                raise RulesInvalid(file, entry, f"there is no group {body!r}")
            return self._group_names[body]
        if kind in ("finding", "known", "absent"):
            self._finding(kind, body, index, file, entry)
        elif kind in ("acute", "problem", "history"):
            if not tables.ICD10CM_PREFIX.match(body):
                raise RulesInvalid(file, entry, f"{body!r} is not spelt as an ICD-10-CM code")
            by_prefix: dict[str, list[int]] = getattr(self._lookups, kind)
            by_prefix.setdefault(body, []).append(index)
        elif kind in ("medication", "allergy"):
            if not tables.ATC.match(body):
                raise RulesInvalid(file, entry, f"{body!r} is not spelt as an ATC code")
            by_class = self._lookups.medication if kind == "medication" else self._lookups.allergy
            by_class.setdefault(body, []).append(index)
        elif kind == "measurement":
            self._measurement(body, index, file, entry)
        elif kind == "coded":
            spelt = _CODED.match(body)
            if spelt is None or not tables.loinc_valid(spelt["loinc"]):
                raise RulesInvalid(file, entry, f"{term!r} is not spelt coded:LOINC=key")
            self._lookups.coded.setdefault(spelt["loinc"], {}).setdefault(spelt["value"], []).append(index)
        else:
            raise RulesInvalid(file, entry, f"unknown kind of term {kind!r}")
        self.names.append(term)
        self._numbers[term] = index
        return index

    def group(self, name: str, least: int, members: tuple[str, ...], file: str) -> None:
        """Define ``group:<name>``; its members are terms or groups defined before.  Raises `RulesInvalid`."""
        entry = f"group {name}"
        if not tables.KEBAB.match(name) or name in self._group_names:
            raise RulesInvalid(file, entry, "the name is not kebab-case or stands twice")
        numbers = tuple(self.number(term, file, entry) for term in members)
        if not 1 <= least <= len(numbers):
            raise RulesInvalid(file, entry, f"at least {least} of {len(numbers)} terms cannot be asked")
        index = len(self.names)
        self.names.append(f"group:{name}")
        self._group_names[name] = index
        lookups = self._lookups
        lookups.groups[index] = Group(index, least, numbers)
        below = set(numbers)
        while True:
            deeper = {
                m for number in below if number in lookups.groups for m in lookups.groups[number].members
            }
            if deeper <= below:
                break
            below |= deeper
        for member in below:
            lookups.parents[member] = (*lookups.parents.get(member, ()), index)

    def _finding(self, kind: str, body: str, index: int, file: str, entry: str) -> None:
        body, _, label = body.partition(" ")
        if not tables.HPO.match(body) or self._ontology.canonical(body) != body:
            raise RulesInvalid(file, entry, f"{body!r} is not a current HPO id")
        # The name beside the id keeps the files readable and a mistyped id from passing.
        if label != self._ontology.label(body):
            raise RulesInvalid(file, entry, f"{body} is called {self._ontology.label(body)!r}, not {label!r}")
        if kind == "absent":
            # "No skin finding at all" denies the rash; a denied child says nothing of its parent.
            for covered in {body, *self._ontology.ancestors(body)}:
                self._lookups.absent.setdefault(covered, []).append(index)
            return
        lookup = self._lookups.present if kind == "finding" else self._lookups.known
        for covered in {body, *self._ontology.descendants(body)}:
            lookup.setdefault(covered, []).append(index)

    def _measurement(self, body: str, index: int, file: str, entry: str) -> None:
        spelt = _MEASUREMENT.match(body)
        if spelt is None:
            raise RulesInvalid(file, entry, f"{body!r} is not spelt as LOINC op value unit")
        analyte = self.analytes.get(spelt["loinc"])
        if analyte is None or analyte.loinc != spelt["loinc"]:
            raise RulesInvalid(file, entry, f"{spelt['loinc']} has no row in measurements.csv")
        if analyte.unit != spelt["unit"]:
            raise RulesInvalid(file, entry, f"{spelt['loinc']} is in {analyte.unit}, not {spelt['unit']}")
        limit = Limit(spelt["op"].startswith("<"), spelt["op"].endswith("="), float(spelt["value"]), index)
        known = self._lookups.measured.get(analyte.loinc)
        limits = (limit,) if known is None else (*known.limits, limit)
        measured = Measured.of(analyte.window, analyte.factors, limits)
        for code in (analyte.loinc, *analyte.also):
            self._lookups.measured[code] = measured

    def common(self) -> frozenset[int]:
        """The terms that many charts meet: limits on measurements, and groups with such a term."""
        found = {limit.term for measured in self._lookups.measured.values() for limit in measured.limits}
        for index, group in self._lookups.groups.items():
            if not found.isdisjoint(group.members):
                found.add(index)
        return frozenset(found)

    def match(self, chart: PatientChart, currency: Currency) -> Hits:
        """Which terms the chart meets.  Cost grows with the chart, not with the number of rules."""
        return match(self._lookups, chart, currency)
