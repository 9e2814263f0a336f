"""Family history as the rare-disease engine takes it: relatives' diseases as evidence, the rest to be shown.

Responsible for what a relative's record means in the knowledge: a disease by its code or its exact name, a
finding that the patient has too.  Relatives who are none by blood are left out.  Pure.
"""

from collections.abc import Iterable

from fhir_adapters.hpo import Ontology
from fhir_adapters.phenotype_profile import FamilyTerm, PhenotypeProfile
from models.rare.assessment import Relative
from models.rare.disease_names import DiseaseNames, normal
from models.rare.engine import RareEngine
from models.rare.phenotype import Inherited
from models.rare.relatives import relations, strongest

ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"


class FamilyReader:
    """Reads family histories for one engine; immutable.  `names` are those of its knowledge."""

    def __init__(self, engine: RareEngine, names: DiseaseNames, ontology: Ontology) -> None:
        self._engine = engine
        self._names = names
        self._ontology = ontology
        self._own = {normal(name): disease for disease, name in engine.site_names.items()}
        self._relations = relations()

    def read(self, profile: PhenotypeProfile) -> tuple[tuple[Relative, ...], tuple[Inherited, ...]]:
        """The relatives that name a disease or share a finding, and the diseases as evidence."""
        relatives: dict[Relative, None] = {}
        found: list[Inherited] = []
        for term in profile.family:
            relation = self._relations.of(term.relationship)
            if relation is None:
                continue
            diseases = self._diseases(term)
            shared = self._shared(term, profile.observed_ids)
            if diseases or shared:
                relatives[
                    Relative(relation.name, term.text or term.label, term.sources, diseases, shared)
                ] = None
                found += [Inherited(disease, relation.nats) for disease in diseases]
        return tuple(relatives), strongest(found)

    def _diseases(self, term: FamilyTerm) -> tuple[str, ...]:
        """What a relative has by its codes, else by what it is called; the first id of each disease."""
        numbers: dict[int, None] = {}
        for code in term.codes:
            system, _, value = code.rpartition("|")
            numbers.update(dict.fromkeys(self._names.coded(system, value)))
        if not numbers and term.icd10cm:
            numbers.update(dict.fromkeys(self._names.coded(ICD10CM, term.icd10cm)))
        if numbers:
            return self._ids(numbers)
        # What is a finding too ("deafness", "migraine") is no rare disease by its name alone.
        for name in (term.text, term.label) if term.hpo is None else ():
            own = self._own.get(normal(name)) if name else None
            if own is not None:
                return (own,)
            named = self._names.named(name) if name else ()
            if named:
                return self._ids(named)
        return ()

    def _ids(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple([self._engine.ids(number)[0] for number in numbers])

    def _shared(self, term: FamilyTerm, observed: Iterable[str]) -> tuple[str, ...]:
        hpo = term.hpo
        if hpo is None or not self._ontology.is_phenotype(hpo):
            return ()
        above = self._ontology.ancestors
        return tuple([one for one in observed if one == hpo or hpo in above(one) or one in above(hpo)])
