"""ICD-10-CM codes that are HPO terms although the condition tables give none (``icd10cm_phenotypes.csv``).

Responsible for loading and looking up.  The table serves the phenotype for life only; what a chart counts as
a finding of today is decided by `fhir_adapters.terminology.concepts`.
"""

from typing import NamedTuple

from fhir_adapters.hpo import Ontology
from fhir_adapters.terminology.codes import icd10_form
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import read_rows, required

FILE = "icd10cm_phenotypes.csv"
COLUMNS = ("icd10cm", "title", "hpo", "label", "scope", "source")


class ProblemTerm(NamedTuple):
    """The HPO term of a code; `exact` when refuting the code refutes the term."""

    hpo: str
    exact: bool


class ProblemTerms:
    """HPO terms by ICD-10-CM code; a code without a row takes the nearest row above it."""

    __slots__ = ("_rows",)

    def __init__(self, rows: dict[str, ProblemTerm]) -> None:
        self._rows = rows

    @classmethod
    def load(cls, ontology: Ontology) -> "ProblemTerms":
        """Read and check the packaged table; raises `TerminologyInvalid` naming file and row."""
        rows: dict[str, ProblemTerm] = {}
        for number, cells in read_rows(FILE, COLUMNS):
            required(FILE, number, cells, *COLUMNS)
            code, term = cells["icd10cm"], cells["hpo"]
            if icd10_form(code) != code or code in rows:
                raise TerminologyInvalid(FILE, number, f"{code!r} is no ICD-10-CM code, or is repeated")
            if not ontology.is_phenotype(term):
                raise TerminologyInvalid(FILE, number, f"{term!r} is not a current HPO phenotype")
            if ontology.label(term) != cells["label"]:
                raise TerminologyInvalid(FILE, number, f"{cells['label']!r} is not the label of {term}")
            if cells["scope"] not in ("exact", "broader"):
                raise TerminologyInvalid(FILE, number, "column scope is exact or broader")
            rows[code] = ProblemTerm(term, cells["scope"] == "exact")
        return cls(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def lookup(self, code: str) -> ProblemTerm | None:
        """The term of an ICD-10-CM code (with dot), `None` when neither it nor a code above it has one."""
        found = self._rows.get(code)
        if found is not None:
            return found
        shorter = code
        while len(shorter) > 3:
            shorter = shorter[:-1].rstrip(".")
            found = self._rows.get(shorter)
            if found is not None:
                return ProblemTerm(found.hpo, False)
        return None
