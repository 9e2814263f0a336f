"""The rare-disease engine: one phenotype in, ranked diseases with reasons, questions and the alarm out.

Responsible for what is shown of the scores.  Pure and deterministic: the same phenotype, knowledge and
enrolled cases give the same answer.  Reads no charts, stores nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
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
from models.rare.terms import F32, I32

ALARM_FROM = 0.7
"""Probability above which the alarm rings (ARCHITECTURE, escalation policy; a site may set another)."""
EXPLAINED = 3
"""Candidates whose reasons are worked out."""
LISTED = 100
FAMILY_HISTORY = "family-history"
"""The share of a score that comes from relatives (`models.rare.relatives`), beside the trained features'."""
RESEMBLING = 3
"""Leading diseases whose papers are compared with the patient."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """Candidates of `shortlist` after the second stage: its `features` [C, F] and `scores` [C] of them, their
    places from the best to the worst in `order` [C], probabilities [C], and that of `none` of them;
    `inherited` [C] is what relatives add to each score, `None` for nothing."""

    shortlist: Shortlist
    features: F32
    scores: F32
    order: I32
    probability: NDArray[np.float64]
    none: float
    inherited: F32 | None = None


_NO_FEATURES = np.zeros((0, len(FEATURES)), dtype=np.float32)


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

    def shortlist(self, phenotype: Phenotype, exclude_evidence: frozenset[str] = frozenset()) -> Shortlist:
        """The first stage: all that `alarm` needs, at half of the cost of `rank`."""
        return self.scorer.shortlist(phenotype, self._overlay(exclude_evidence))

    def rank(self, shortlist: Shortlist) -> Ranked:
        """The second stage; diseases of relatives become candidates here, and raise their own odds."""
        nats = self._inherited(shortlist.phenotype)
        if nats:
            shortlist = self.scorer.widened(shortlist, nats)
        features = self.scorer.features(shortlist) if len(shortlist.chosen) else _NO_FEATURES
        scores, added = self._reranker.score(features), None
        if nats:
            # In the units of the score, so that the odds of the softmax change by just that ratio.
            added = np.array([nats.get(owner, 0.0) for owner in shortlist.owner.tolist()], dtype=np.float32)
            added *= np.float32(self._reranker.temperature)
            scores = scores + added
        order = np.lexsort((shortlist.owner, -scores)).astype(np.int32)
        return Ranked(shortlist, features, scores, order, *self._reranker.probabilities(scores), added)

    def _inherited(self, phenotype: Phenotype) -> dict[int, float]:
        """By disease, the log likelihood ratio that relatives with it give."""
        nats: dict[int, float] = {}
        for one in phenotype.inherited:
            number = self.number(one.disease)
            if number is not None:
                nats[number] = max(one.nats, nats.get(number, 0.0))
        return nats

    def alarm(self, shortlist: Shortlist, *, alarm_from: float = ALARM_FROM) -> RareAlarm:
        """Whether to suspect a rare disease.

        `none_known` is not decided here: it takes the second stage, which nobody needs without an alarm.
        """
        if not len(shortlist.chosen):
            return RareAlarm(False, 0.0, alarm_from, False, 0.0, ())
        features = self._reader.read(shortlist)
        amounts = self._alarm.contributions(features)
        shares = [
            Share(name, float(amount)) for name, amount in zip(ALARM_FEATURES, amounts, strict=True) if amount
        ]
        probability = self._alarm.probability(amounts)
        return RareAlarm(
            probability > alarm_from,
            probability,
            alarm_from,
            False,
            self._alarm.bias,
            tuple(sorted(shares, key=lambda each: (-abs(each.amount), each.feature))),
        )

    def assess(
        self,
        phenotype: Phenotype,
        exclude_evidence: frozenset[str] = frozenset(),
        *,
        limit: int = LISTED,
        explained: int = EXPLAINED,
        alarm_from: float = ALARM_FROM,
        shortlist: Shortlist | None = None,
        alarm: RareAlarm | None = None,
    ) -> RareAssessment:
        """Assess one phenotype.

        Args:
            phenotype: the patient; with nothing present there are no candidates and no alarm.
            exclude_evidence: references (``"PMID:123"``, an enrolment) to answer without.
            limit: candidates listed at most.
            explained: leading candidates whose reasons are worked out.
            alarm_from: probability above which the alarm rings.
            shortlist: what `shortlist` gave for the same phenotype and evidence, if it was asked already.
            alarm: what `alarm` gave, where it is decided on something else than this phenotype.
        """
        shortlist = shortlist or self.shortlist(phenotype, exclude_evidence)
        terms = self.knowledge.terms
        alarm = alarm or self.alarm(shortlist, alarm_from=alarm_from)
        ranked = self.rank(shortlist)
        shortlist = ranked.shortlist
        order, probability, none = ranked.order, ranked.probability, ranked.none
        if alarm.decision and none > 0.5:
            alarm = msgspec.structs.replace(alarm, none_known=True)
        candidates = tuple(
            self._candidate(ranked, int(place), exclude_evidence if rank < explained else None)
            for rank, place in enumerate(order[:limit].tolist())
        )
        leading = [int(n) for n in shortlist.owner[order[:RESEMBLING]] if n < len(self.knowledge.diseases)]
        any_present = bool(len(shortlist.query.present))
        seen = [case for case in self._cases if any_present and case.reference not in exclude_evidence]
        return RareAssessment(
            candidates,
            none,
            max(0.0, 1.0 - none - sum(each.probability for each in candidates)),
            _families(candidates),
            questions(shortlist, order, probability, terms),
            nearest(shortlist.query, leading, exclude_evidence, seen, self.knowledge),
            alarm,
            shortlist.query.unknown,
            self.knowledge.release,
            self.knowledge.attribution,
            self._count,
        )

    def _candidate(self, ranked: Ranked, place: int, unread: frozenset[str] | None) -> RareCandidate:
        """One candidate; `unread` is None for those that are only listed."""
        shortlist, diseases = ranked.shortlist, self.knowledge.diseases
        number = int(shortlist.columns.owner[shortlist.chosen[place]])
        score, probability = float(ranked.scores[place]), float(ranked.probability[place])
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
        amounts, baseline = self._reranker.explain(ranked.features[place])
        shares = [
            Share(name_, float(amount)) for name_, amount in zip(FEATURES, amounts, strict=True) if amount
        ]
        if ranked.inherited is not None and ranked.inherited[place]:
            shares.append(Share(FAMILY_HISTORY, float(ranked.inherited[place])))
        return RareCandidate(
            ids, name, genes, family, probability, score, len(read), True, baseline,
            tuple(sorted(shares, key=lambda each: (-abs(each.amount), each.feature))),
            matched(shortlist, place, known, terms),
            missing(shortlist.query, known, terms),
            contradicting(shortlist.query, known, terms),
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
