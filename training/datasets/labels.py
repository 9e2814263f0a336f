"""From the codes of a diagnosis to a disease of the knowledge base.

Responsible for one question: which disease does this CodeableConcept name, if it names exactly one?  It
decides nothing about visits, dates or ranks (`diagnosis`).  A disease's own id counts most, then the exact
SNOMED CT concept, then the longest ICD-10 or ICD-10-CM code that the sent one lies under; where diseases
share that code, those whose main code it is, and those that the patient's age and sex do not make very
unlikely.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fhir_adapters.terminology.codes import icd10_form
from fhir_adapters.terminology.concepts import ConceptTable
from fhir_adapters.text import TextMatcher
from models.knowledge.loader import age_band
from models.knowledge.schema import Disease

DISEASE_SYSTEM = "urn:cds-server:disease"
"""Code system of the knowledge's own disease ids, for labels that no public code tells apart."""
UNLIKELY = 0.1
"""A disease this many times rarer at the patient's age and sex than the likeliest that shares the code is
not what the code means (constipation of a child, not of an adult).  Grade C: set by this project."""
_OPEN_INJURY = 7
"""Characters of an injury code with its encounter character (``S62.001A``): the last says which visit."""


@dataclass(frozen=True)
class Person:
    """What of a patient tells diseases of one code apart; `None` where it is not known."""

    age_years: float | None = None
    female: bool | None = None


@dataclass(frozen=True)
class Meaning:
    """What a diagnosis names: `diseases` of the knowledge (one: clear; several: cannot be told apart).

    `kind` is that of the code: a ``"disease"``, a ``"finding"`` (symptom codes), a ``"situation"``,
    ``"ignored"`` or ``"unknown"``.
    """

    diseases: frozenset[str]
    kind: str

    @property
    def disease(self) -> str | None:
        """The one disease, or `None`."""
        return next(iter(self.diseases)) if len(self.diseases) == 1 else None


NOBODY = Person()


class LabelMap:
    """Which disease a code means; built once, immutable."""

    def __init__(
        self,
        diseases: Iterable[Disease],
        concepts: ConceptTable,
        matcher: TextMatcher,
        finding_codes: Iterable[str] = (),
    ) -> None:
        """`finding_codes` are ICD codes that the knowledge lists as findings: a way to state a complaint."""
        self._diseases = {disease.id: disease for disease in diseases}
        self._concepts = concepts
        self._matcher = matcher
        self._finding_codes = frozenset(finding_codes)
        self._snomed = {d.snomed: d.id for d in self._diseases.values() if d.snomed is not None}
        self._codes = {d.id: [c.replace(".", "") for c in d.icd10cm] for d in self._diseases.values()}
        # By code without its dot: whose it is, and whether it is the main code of that disease.
        self._icd: dict[str, dict[str, bool]] = {}
        for disease in self._diseases.values():
            for codes in (disease.icd10cm, disease.icd10):
                for place, code in enumerate(codes):
                    self._enter(code.replace(".", ""), disease.id, main=place == 0)

    def _enter(self, code: str, disease: str, *, main: bool) -> None:
        held = self._icd.setdefault(code, {})
        held[disease] = held.get(disease, False) or main
        if len(code) == _OPEN_INJURY:
            self._enter(code[:-1], disease, main=main)

    def meaning(self, codings: Iterable[tuple[str, str]], person: Person = NOBODY) -> Meaning:
        """What ``(system, code)`` pairs of one diagnosis mean; the most specific statement decides."""
        best, found = -1, frozenset[str]()
        kinds: list[str] = []
        for system, code in codings:
            rank, diseases, kind = self._coding(system, code, person)
            kinds.append(kind)
            if not diseases or rank < best:
                continue
            # Two codings of one rank that say different things: it cannot be told.
            found = diseases if rank > best else found | diseases
            best = rank
        known = [kind for kind in kinds if kind != "unknown"]
        return Meaning(found, next(iter(known), "unknown"))

    def _coding(self, system: str, code: str, person: Person) -> tuple[int, frozenset[str], str]:
        """How specific a coding is, the diseases that it may mean, and its kind."""
        if system == DISEASE_SYSTEM:
            known = code in self._diseases
            return 100, frozenset((code,)) if known else frozenset(), "disease" if known else "unknown"
        concept = self._concepts.lookup(system, code)
        snomed = is_snomed(system)
        if snomed and code in self._snomed:
            return 90, frozenset((self._snomed[code],)), concept.kind if concept is not None else "disease"
        if concept is None:
            return -1, frozenset(), "unknown"
        icd = {concept.icd10cm} if concept.icd10cm is not None else set()
        if not snomed and (sent := icd10_form(code)) is not None:
            icd.add(sent)
        found: tuple[int, frozenset[str]] = (-1, frozenset())
        for spelled in sorted(icd):
            length, diseases = self._by_icd(spelled.replace(".", ""), person)
            if diseases and length > found[0]:
                found = (length, diseases)
        # What SNOMED CT is mapped to says less than an ICD code that was sent.
        rank = 20 * (not snomed) + found[0] if found[1] else -1
        return rank, found[1], concept.kind

    def _by_icd(self, code: str, person: Person) -> tuple[int, frozenset[str]]:
        for length in range(len(code), 2, -1):
            held = self._icd.get(code[:length])
            if held:
                likely = self._likely(held, person)
                main = {disease for disease in likely if held[disease]}
                return length, self._nearest(code, length, frozenset(main or likely))
        return -1, frozenset()

    def _nearest(self, code: str, length: int, diseases: frozenset[str]) -> frozenset[str]:
        """Of diseases that share a category those with a code in the sent one's own subdivision.

        ``I21.02`` is under the ``I21`` of both kinds of infarction, and beside ``I21.09`` of one of them.
        """
        for end in range(len(code) - 1, length, -1):
            near = {name for name in diseases if any(c.startswith(code[:end]) for c in self._codes[name])}
            if near:
                return frozenset(near)
        return diseases

    def _likely(self, diseases: Iterable[str], person: Person) -> set[str]:
        weights = {name: self._weight(self._diseases[name], person) for name in diseases}
        most = max(weights.values())
        return {name for name, weight in weights.items() if weight >= UNLIKELY * most}

    @staticmethod
    def _weight(disease: Disease, person: Person) -> float:
        """How the disease fits age and sex.  How common it is says nothing about what its code means."""
        weight = 1.0
        if person.age_years is not None:
            weight *= disease.rate.age[age_band(person.age_years)]
        if person.female is not None:
            weight *= disease.rate.female if person.female else 1 - disease.rate.female
        return weight

    def names_disease(self, codings: Iterable[tuple[str, str]], text: str | None) -> bool:
        """Whether a statement names a disease that can be a label (a diagnosis, not a symptom or sign).

        Such a statement of the visit at hand gives the answer away.  Symptom codes (ICD-10 chapter R and
        the like) do not, nor does a code that the knowledge itself lists as a finding.
        """
        pairs = list(codings)
        if pairs:
            if any(not is_snomed(system) and code in self._finding_codes for system, code in pairs):
                return False
            meaning = self.meaning(pairs)
            if meaning.kind != "unknown":
                return bool(meaning.diseases) and meaning.kind == "disease"
        said = [match for match in self._matcher.match(text) if not match.historical] if text else []
        own = [match for match in said if match.experiencer == "patient" and match.state == "present"]
        icd = "http://hl7.org/fhir/sid/icd-10-cm"
        named = [m for m in own if m.icd10cm is not None and self.names_disease([(icd, m.icd10cm)], None)]
        return bool(named) and len(named) == len(own)


def is_snomed(system: str) -> bool:
    """Whether a system URI is one of SNOMED CT's."""
    return "snomed.info/sct" in system or system.endswith("2.16.840.1.113883.6.96")
