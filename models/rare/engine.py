"""The rare-disease engine: one phenotype in, ranked diseases with reasons, questions and the alarm out.

Responsible for what is shown of the scores.  Pure and deterministic: the same phenotype, knowledge and
enrolled cases give the same answer.  Reads no charts, stores nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.rare.alarm import ALARM_FEATURES, Alarm, AlarmReader
from models.rare.assessment import Family, RareAlarm, RareAssessment, RareCandidate, Share
from models.rare.encoder import Encoder
from models.rare.enrolment import EnrolledCase, enrolled_profile
from models.rare.evidence import Profile
from models.rare.features import FEATURES
from models.rare.knowledge import RareKnowledge, RareKnowledgeInvalid
from models.rare.panel import Overlay, overlay_of
from models.rare.phenotype import Phenotype
from models.rare.questions import questions
from models.rare.reasons import account, contradicting, matched, missing
from models.rare.reranker import Reranker
from models.rare.resemblance import nearest
from models.rare.scoring import Scorer, Shortlist
from models.rare.terms import I32

ALARM_FROM = 0.7
"""Probability above which the alarm rings (ARCHITECTURE, escalation policy; a site may set another)."""
EXPLAINED = 3
"""Candidates whose reasons are worked out."""
LISTED = 100
FAMILY_HISTORY = "family-history"
"""The share of a score that comes from relatives (`models.rare.relatives`), beside the trained features'."""
RESEMBLING = 3
"""Leading diseases whose papers are compared with the patient."""

Ranked = tuple[Shortlist, NDArray[np.float32], I32]
"""The candidates, their scores, and their places from the best to the worst."""


class RareEngine:
    """The engine of one knowledge and one trained model; immutable, shared by all requests."""

    def __init__(self, scorer: Scorer, reranker: Reranker, alarm: Alarm) -> None:
        self.scorer = scorer
        self.knowledge = scorer.knowledge
        self._reranker = reranker
        self._alarm = alarm
        self._reader = AlarmReader(scorer.knowledge.terms)
        self._cases: tuple[EnrolledCase, ...] = ()
        self._by_disease: dict[int, list[EnrolledCase]] = {}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "RareEngine":
        """The engine whose arrays a bundle carries.  Raises `RareKnowledgeInvalid`."""
        knowledge = RareKnowledge.of(arrays)
        try:
            given = dict(arrays)
            return cls(Scorer(knowledge, Encoder.of(given)), Reranker.of(given), Alarm.of(given))
        except KeyError as missing_array:
            raise RareKnowledgeInvalid(f"no array {missing_array}: train the rare engine anew") from None

    def enrolled(self, cases: Sequence[EnrolledCase]) -> "RareEngine":
        """This engine with confirmed cases (all of them: what is not named is not enrolled)."""
        other = RareEngine(self.scorer, self._reranker, self._alarm)
        numbers = self._numbers
        names: dict[str, int] = {}
        other._cases = tuple(cases)
        other._by_disease = {}
        for case in cases:
            number = numbers.get(case.disease)
            if number is None:
                number = names.setdefault(case.disease, len(self.knowledge.diseases) + len(names))
            other._by_disease.setdefault(number, []).append(case)
        return other

    def ids(self, number: int) -> tuple[str, ...]:
        """The ids of a disease; of one beyond the knowledge the id it was enrolled under."""
        if number < len(self.knowledge.diseases):
            return self.knowledge.diseases.ids[number]
        return (self._by_disease[number][0].disease,)

    def number(self, disease: str) -> int | None:
        """The number of a disease by any of its ids, or by the one it was enrolled under."""
        known = self._numbers.get(disease)
        return known if known is not None else self._own_numbers.get(disease)

    @property
    def site_names(self) -> dict[str, str]:
        """What the site calls the diseases that it enrolled beyond the knowledge: id → name."""
        return {disease: self._own_name(number) for disease, number in self._own_numbers.items()}

    def _own_name(self, number: int) -> str:
        cases = self._by_disease[number]
        return next((case.name for case in cases if case.name), cases[0].disease)

    @cached_property
    def _own_numbers(self) -> dict[str, int]:
        known = len(self.knowledge.diseases)
        return {cases[0].disease: n for n, cases in self._by_disease.items() if n >= known}

    @cached_property
    def _count(self) -> int:
        """How many diseases are ranked, enrolled ones included."""
        known = len(self.knowledge.diseases)
        return known + sum([number >= known for number in self._by_disease])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {one: number for number, ids in enumerate(self.knowledge.diseases.ids) for one in ids}

    @cached_property
    def _enrolled_profiles(self) -> dict[int, Profile]:
        known = len(self.knowledge.diseases)
        return {
            number: enrolled_profile(
                cases, self.knowledge.terms, self.knowledge.evidence, number if number < known else -1
            )
            for number, cases in self._by_disease.items()
        }

    @cached_property
    def _enrolled_overlay(self) -> Overlay | None:
        return overlay_of(self._enrolled_profiles, self.knowledge.terms)

    def _overlay(self, unread: frozenset[str]) -> Overlay | None:
        if not unread:
            return self._enrolled_overlay
        left = {
            number: [case for case in cases if case.reference not in unread]
            for number, cases in self._by_disease.items()
        }
        known, terms = len(self.knowledge.diseases), self.knowledge.terms
        profiles = self.knowledge.without(unread)
        for number, cases in left.items():
            if cases:
                profiles[number] = enrolled_profile(
                    cases, terms, self.knowledge.evidence, number if number < known else -1, unread
                )
        return overlay_of(profiles, terms)

    def rank(self, phenotype: Phenotype, exclude_evidence: frozenset[str] = frozenset()) -> Ranked:
        """The candidates, their scores, and their places from the best to the worst."""
        if phenotype.inherited:
            shortlist, scores = self._with_family(phenotype, exclude_evidence)
        else:
            shortlist = self.scorer.shortlist(phenotype, self._overlay(exclude_evidence))
            scores = self._reranker.score(shortlist.features)
        return shortlist, scores, np.lexsort((shortlist.owner, -scores)).astype(np.int32)

    def _with_family(
        self, phenotype: Phenotype, exclude_evidence: frozenset[str]
    ) -> tuple[Shortlist, NDArray[np.float32]]:
        """Candidates and scores with what relatives' diseases add: their likelihood ratio in the units of the
        score, so that the odds of the softmax change by just that ratio."""
        nats: dict[int, float] = {}
        for one in phenotype.inherited:
            number = self.number(one.disease)
            if number is not None:
                nats[number] = max(one.nats, nats.get(number, 0.0))
        overlay = self._overlay(exclude_evidence)
        shortlist = self.scorer.shortlist(phenotype, overlay, asked=nats)
        scores = self._reranker.score(shortlist.features)
        if not nats:
            return shortlist, scores
        added = np.array([nats.get(owner, 0.0) for owner in shortlist.owner.tolist()], dtype=np.float32)
        added *= np.float32(self._reranker.temperature)
        return replace(shortlist, inherited=added), scores + added

    def alarm(
        self,
        phenotype: Phenotype,
        exclude_evidence: frozenset[str] = frozenset(),
        *,
        alarm_from: float = ALARM_FROM,
        ranked: Ranked | None = None,
    ) -> RareAlarm:
        """Only whether to suspect a rare disease (arguments as for `assess`)."""
        shortlist, scores, _ = ranked or self.rank(phenotype, exclude_evidence)
        if not len(scores):
            return RareAlarm(False, 0.0, alarm_from, False, 0.0, ())
        return self._rung(shortlist, self._reranker.probabilities(scores)[1], alarm_from)

    def assess(
        self,
        phenotype: Phenotype,
        exclude_evidence: frozenset[str] = frozenset(),
        *,
        limit: int = LISTED,
        explained: int = EXPLAINED,
        alarm_from: float = ALARM_FROM,
        ranked: Ranked | None = None,
    ) -> RareAssessment:
        """Assess one phenotype.

        Args:
            phenotype: the patient; with nothing present there are no candidates and no alarm.
            exclude_evidence: references (``"PMID:123"``, an enrolment) to answer without.
            limit: candidates listed at most.
            explained: leading candidates whose reasons are worked out.
            alarm_from: probability above which the alarm rings.
            ranked: what `rank` gave for the same phenotype and evidence, if it was asked already.
        """
        shortlist, scores, order = ranked or self.rank(phenotype, exclude_evidence)
        terms = self.knowledge.terms
        if not len(shortlist.query.present):
            return self._nothing(shortlist, alarm_from)
        probability, none = self._reranker.probabilities(scores)
        listed = order[:limit]
        candidates = tuple(
            self._candidate(shortlist, int(place), float(scores[place]), float(probability[place]),
                            exclude_evidence if rank < explained else None)
            for rank, place in enumerate(listed)
        )  # fmt: skip
        leading = [int(n) for n in shortlist.owner[order[:RESEMBLING]] if n < len(self.knowledge.diseases)]
        seen = [case for case in self._cases if case.reference not in exclude_evidence]
        return RareAssessment(
            candidates,
            none,
            max(0.0, 1.0 - none - sum(each.probability for each in candidates)),
            _families(candidates),
            questions(shortlist, order, probability, terms),
            nearest(shortlist.query, leading, exclude_evidence, seen, self.knowledge),
            self._rung(shortlist, none, alarm_from),
            shortlist.query.unknown,
            self.knowledge.release,
            self.knowledge.attribution,
            self._count,
        )

    def _candidate(
        self,
        shortlist: Shortlist,
        place: int,
        score: float,
        probability: float,
        unread: frozenset[str] | None,
    ) -> RareCandidate:
        """One candidate; `unread` is None for those that are only listed."""
        number, diseases = int(shortlist.owner[place]), self.knowledge.diseases
        cases = self._by_disease.get(number, [])
        if number < len(diseases):
            name, genes = diseases.names[number], diseases.genes[number]
            family = diseases.families[int(diseases.family[number])]
        else:
            genes = ()
            name = family = self._own_name(number)
        ids = self.ids(number)
        if unread is None:
            return RareCandidate(ids, name, genes, family, probability, score, len(cases))
        terms = self.knowledge.terms
        read = [case for case in cases if case.reference not in unread]
        known = account(self.knowledge.evidence, number, unread, read, terms)
        amounts, baseline = self._reranker.explain(shortlist.features[place])
        shares = [
            Share(name_, float(amount)) for name_, amount in zip(FEATURES, amounts, strict=True) if amount
        ]
        if shortlist.inherited is not None and shortlist.inherited[place]:
            shares.append(Share(FAMILY_HISTORY, float(shortlist.inherited[place])))
        return RareCandidate(
            ids, name, genes, family, probability, score, len(read), True, baseline,
            tuple(sorted(shares, key=lambda each: (-abs(each.amount), each.feature))),
            matched(shortlist, place, known, terms),
            missing(shortlist.query, known, terms),
            contradicting(shortlist.query, known, terms),
        )  # fmt: skip

    def _rung(self, shortlist: Shortlist, none: float, threshold: float) -> RareAlarm:
        features = self._reader.read(shortlist.own)  # relatives ring no alarm
        shares = [
            Share(name, float(amount))
            for name, amount in zip(ALARM_FEATURES, self._alarm.contributions(features), strict=True)
            if amount
        ]
        probability = self._alarm.probability(features)
        return RareAlarm(
            probability > threshold,
            probability,
            threshold,
            probability > threshold and none > 0.5,
            self._alarm.bias,
            tuple(sorted(shares, key=lambda each: (-abs(each.amount), each.feature))),
        )

    def _nothing(self, shortlist: Shortlist, threshold: float) -> RareAssessment:
        quiet = RareAlarm(False, 0.0, threshold, False, 0.0, ())
        return RareAssessment(
            (), 1.0, 0.0, (), (), (), quiet, shortlist.query.unknown, self.knowledge.release,
            self.knowledge.attribution,
        )  # fmt: skip


def _families(candidates: Sequence[RareCandidate]) -> tuple[Family, ...]:
    """The candidates by family, the most probable family first."""
    members: dict[str, list[int]] = {}
    for place, candidate in enumerate(candidates):
        members.setdefault(candidate.family, []).append(place)
    found = [
        Family(name, sum(candidates[place].probability for place in places), tuple(places))
        for name, places in members.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.probability, each.members)))
