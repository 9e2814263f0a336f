"""What the rare-disease engine holds of a chart: its phenotype, ranked diseases and the alarm.

Responsible for what goes into the engine (the phenotype of the chart, evidence to leave out, what an
emergency explains already) and for the form in which its answer enters an `Assessment`.  Works out reasons
only where somebody will read them.  Pure.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from fhir_adapters.chart import PatientChart
from fhir_adapters.hpo import Ontology
from fhir_adapters.phenotype import PhenotypeReader
from fhir_adapters.phenotype_profile import PhenotypeProfile, PhenotypeTerm
from models.assessment import Fact, Prediction, RareOpinion, RedFlag
from models.rare.assessment import RareAssessment, RareCandidate
from models.rare.disease_names import DiseaseNames
from models.rare.engine import RareEngine
from models.rare.enrolment import EnrolledCase
from models.rare.phenotype import Inherited, Phenotype, Sex
from models.rare_family import FamilyReader

EXPLAINED = 5
"""Leading candidates whose reasons are worked out."""
LISTED = 150
SYSTEMS = {"OMIM": "https://omim.org", "ORPHA": "http://www.orpha.net"}
_SEX: dict[str, Sex] = {"male": "MALE", "female": "FEMALE"}


class Held(msgspec.Struct, frozen=True):
    """The probability of the alarm; predictions and reasons where there are any."""

    probability: float = 0.0
    predictions: tuple[Prediction, ...] = ()
    opinion: RareOpinion | None = None


NOTHING = Held()


class RareReader:
    """The rare-disease engine over charts; immutable, shared by all requests."""

    def __init__(
        self,
        engine: RareEngine,
        phenotypes: PhenotypeReader,
        ontology: Ontology,
        names: DiseaseNames | None = None,
    ) -> None:
        self.engine = engine
        self._phenotypes = phenotypes
        self._ontology = ontology
        self._names = names if names is not None else DiseaseNames(engine.knowledge.diseases)
        self._family = FamilyReader(engine, self._names, ontology)

    def enrolled(self, cases: Sequence[EnrolledCase]) -> "RareReader":
        """This reader with an engine that knows confirmed cases (all of them)."""
        return RareReader(self.engine.enrolled(cases), self._phenotypes, self._ontology, self._names)

    @property
    def release(self) -> str:
        """The release of HPO that the knowledge was made from."""
        return self.engine.knowledge.release

    def hold(
        self, chart: PatientChart, red_flags: Iterable[RedFlag], threshold: float, *, thorough: bool
    ) -> Held:
        """What the engine holds of a chart.

        Args:
            chart: the patient.
            red_flags: those that are met; what an emergency rests on is no sign of a rare disease.
            threshold: probability above which the alarm rings.
            thorough: list diseases and reasons without an alarm too.
        """
        profile = self._phenotypes.read(chart)
        if not profile.present:
            return NOTHING
        unread = frozenset(_references(chart.exclude_evidence))
        relatives, inherited = self._family.read(profile)
        phenotype = _phenotype(profile, profile.present, inherited)
        shortlist = self.engine.shortlist(phenotype, unread)
        alarm = self.engine.alarm(shortlist, alarm_from=threshold)
        aside: tuple[str, ...] = ()
        if alarm.decision:
            acute = _acute(profile, red_flags)
            if acute:
                aside = tuple([term.hpo for term in acute])
                rest = [term for term in profile.present if term not in acute]
                without = self.engine.shortlist(_phenotype(profile, rest, inherited), unread)
                alarm = self.engine.alarm(without, alarm_from=threshold)
        if not alarm.decision and not thorough:
            return Held(alarm.probability)
        found = self.engine.assess(
            phenotype,
            unread,
            limit=LISTED,
            explained=EXPLAINED,
            alarm_from=threshold,
            shortlist=shortlist,
            alarm=alarm,
        )
        if not found.candidates:
            return NOTHING
        opinion = RareOpinion(
            found,
            _facts(profile, chart),
            self._labels(found),
            aside,
            tuple(sorted(unread)),
            relatives,
            profile.consanguinity_sources,
        )
        return Held(alarm.probability, tuple([_prediction(one) for one in found.candidates]), opinion)

    def _labels(self, found: RareAssessment) -> tuple[tuple[str, str], ...]:
        """HPO's own name of every finding that the answer speaks of."""
        ids = sorted(set(_named(found)))
        return tuple([(one, self._ontology.label(one)) for one in ids if one in self._ontology])


def _references(excluded: Iterable[str]) -> Iterator[str]:
    """``PMID:123`` for that and for the bare number; other references as they are."""
    for each in excluded:
        text = each.strip()
        yield f"PMID:{text}" if text.isdigit() else text


def _phenotype(
    profile: PhenotypeProfile, present: Iterable[PhenotypeTerm], inherited: tuple[Inherited, ...]
) -> Phenotype:
    return Phenotype(
        tuple([term.hpo for term in present]),
        profile.excluded_ids,
        _SEX.get(profile.sex or ""),
        profile.age_years,
        profile.onset_years,
        inherited,
    )


def _acute(profile: PhenotypeProfile, red_flags: Iterable[RedFlag]) -> tuple[PhenotypeTerm, ...]:
    """The terms that an emergency now rests on: a common explanation that comes first.

    A value or problem behind it stands for the term read from it, unless several were (free text).
    """
    codes: set[str] = set()
    sources: set[str] = set()
    for flag in red_flags:
        if flag.urgency in ("immediate", "urgent") and not flag.stale:
            for fact in flag.facts:
                codes.add(fact.code)
                if fact.kind != "finding":
                    sources.update(fact.sources)
    terms = Counter([source for term in profile.present for source in term.sources])
    sources = {source for source in sources if terms[source] == 1}
    found = []
    for term in profile.present:
        if term.hpo in codes or (term.sources and sources.issuperset(term.sources)):
            found.append(term)
    return tuple(found)


def _facts(profile: PhenotypeProfile, chart: PatientChart) -> tuple[Fact, ...]:
    since = {finding.hpo: finding.time for finding in chart.findings if finding.state == "present"}
    present = [
        Fact("finding", term.hpo, term.label, term.sources, time=since.get(term.hpo))
        for term in profile.present
    ]
    absent = [Fact("finding", t.hpo, t.label, t.sources, state="absent") for t in profile.excluded]
    return (*present, *absent)


def _prediction(candidate: RareCandidate) -> Prediction:
    codings = []
    for each in candidate.ids:
        registry, _, number = each.partition(":")
        if registry in SYSTEMS:
            codings.append((SYSTEMS[registry], number, candidate.name))
    return Prediction(
        candidate.ids[0],
        candidate.name,
        candidate.probability,
        tuple(codings),
        score=candidate.score,
        baseline=candidate.baseline,
    )


def _named(found: RareAssessment) -> Iterator[str]:
    for candidate in found.candidates:
        for match in candidate.matched:
            yield match.hpo
            if match.reported is not None:
                yield match.reported.hpo
        for reported in (*candidate.missing, *candidate.contradicting):
            yield reported.hpo
    for question in found.questions:
        yield question.hpo
    for like in found.resembles:
        yield from (*like.shares, *like.differs, *like.beyond)
