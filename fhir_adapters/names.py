"""What a coded fact is called in a language: the terminology's own names, never the text an EHR sent.

Holds no texts of its own and no opinion on how a name is shown.
"""

from typing import Protocol

from fhir_adapters.building import Tables

_ATC = "http://www.whocc.no/atc"
_ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"


class Named(Protocol):
    """Anything with a kind, a code and an English label (a `Fact` of `models.assessment`)."""

    @property
    def kind(self) -> str:
        """Vocabulary of `code`: measurement and coded LOINC, finding HPO, problem ICD-10-CM, else ATC."""

    @property
    def code(self) -> str:
        """The code."""

    @property
    def label(self) -> str:
        """The English label the chart carries."""


def name_of(tables: Tables, fact: Named, language: str) -> str:
    """The name of a fact in ``"en"`` or ``"es"``; the English label where nothing was translated."""
    if language != "es":
        if fact.kind in ("measurement", "coded"):
            analyte = tables.analytes.by_loinc.get(fact.code)
            return analyte.name if analyte is not None else fact.label
        return fact.label
    found: str | None = None
    if fact.kind in ("measurement", "coded"):
        analyte = tables.analytes.by_loinc.get(fact.code)
        found = analyte.name_es if analyte is not None else None
    elif fact.kind == "finding":
        found = tables.ontology.label_es(fact.code) if fact.code in tables.ontology else None
    elif fact.kind == "problem":
        concept = tables.concepts.lookup(_ICD10CM, fact.code)
        found = concept.label_es if concept is not None else None
    elif fact.kind in ("medication", "allergy"):
        drug = tables.drugs.lookup((), fact.label) or tables.drugs.lookup(((_ATC, fact.code),), None)
        found = drug.label_es if drug is not None else None
    return found or fact.label
