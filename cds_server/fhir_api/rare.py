"""The rare-disease engine's reasons in `$assess`: what fits, what is missing, families, what to check next.

Only a change of form.  Every finding carries its HPO code, every disease's finding its references.
"""

from cds_server.fhir_api.differential import FINDING_SYSTEM, coding_of
from cds_server.fhir_api.parts import Part, decimal, fact_part, string_part, string_parts
from hooks.context import CallContext
from hooks.rare_words import RareWords
from models.assessment import Prediction, RareOpinion
from models.rare.assessment import (
    Family,
    Matched,
    Question,
    RareCandidate,
    Relative,
    Reported,
    Resemblance,
    Share,
)


class RareParts:
    """The parts of one opinion."""

    def __init__(self, context: CallContext, opinion: RareOpinion) -> None:
        self._context = context
        self._opinion = opinion
        self._words = RareWords(context, opinion)
        self._facts = {fact.code: fact for fact in opinion.findings}

    def rationales(self) -> dict[str, str]:
        """Why each explained disease stands where it stands, by the id of its prediction."""
        found = {}
        for prediction, candidate in self._pairs():
            reasons = self._words.reasons(candidate)
            if reasons:
                text = "; ".join(reasons)
                found[prediction.id] = text[0].upper() + text[1:]
        return found

    def alarm(self) -> list[Part]:
        """What the decision rests on, beside decision and probability."""
        alarm = self._opinion.assessed.alarm
        return [
            {"name": "none-known", "valueBoolean": alarm.none_known},
            {"name": "threshold", "valueDecimal": decimal(alarm.threshold)},
            {"name": "baseline", "valueDecimal": decimal(alarm.baseline)},
            *[_share(one) for one in alarm.shares],
            *[self._coded("set-aside", hpo) for hpo in self._opinion.set_aside],
        ]

    def parameter(self) -> Part:
        """`rare-explanation`: phenotype, leading diseases, families, questions, resemblances, source."""
        opinion, assessed = self._opinion, self._opinion.assessed
        texts, names = self._context.texts, self._context.names
        phenotype = [{**fact_part(fact, texts, names), "name": "finding"} for fact in opinion.findings]
        parts: list[Part] = [
            *phenotype,
            *[self._candidate(p, c) for p, c in self._pairs() if c.explained],
            *[self._family(one) for one in assessed.families if len(one.members) > 1],
            *[self._question(one) for one in assessed.questions],
            *[self._resemblance(one) for one in assessed.resembles],
            *[self._relative(one) for one in opinion.relatives],
            *string_parts("related-parents", opinion.related_parents),
            {"name": "none-of-these", "valueDecimal": decimal(assessed.none_probability)},
            {"name": "rest-probability", "valueDecimal": decimal(assessed.rest_probability)},
            *string_parts("unknown-finding", assessed.unknown),
            *string_parts("excluded-evidence", opinion.excluded),
            *string_part("release", assessed.release),
            *string_part("attribution", assessed.attribution),
        ]
        return {"name": "rare-explanation", "part": parts}

    def _pairs(self) -> list[tuple[Prediction, RareCandidate]]:
        return list(zip(self._context.assessment.rare, self._opinion.assessed.candidates, strict=True))

    def _candidate(self, prediction: Prediction, candidate: RareCandidate) -> Part:
        parts: list[Part] = [
            *[{"name": "code", "valueCoding": coding_of(one)} for one in prediction.codings],
            *string_part("name", self._words.name(candidate)),
            {"name": "score", "valueDecimal": decimal(candidate.score)},
            {"name": "baseline", "valueDecimal": decimal(candidate.baseline)},
            *[_share(one) for one in candidate.shares],
            *[self._matched(one) for one in candidate.matched],
            *[self._reported("missing", one) for one in candidate.missing],
            *[self._reported("contradicting", one) for one in candidate.contradicting],
            *string_parts("gene", candidate.genes),
            *([{"name": "enrolled", "valueInteger": candidate.enrolled}] if candidate.enrolled else []),
        ]
        return {"name": "candidate", "part": parts}

    def _matched(self, one: Matched) -> Part:
        fact = self._facts.get(one.hpo)
        parts: list[Part] = [
            self._coded("code", one.hpo),
            {"name": "exact", "valueBoolean": one.exact},
            {"name": "gain", "valueDecimal": decimal(one.gain)},
            *string_parts("source", fact.sources if fact is not None else ()),
        ]
        if one.reported is not None:
            parts.append(self._reported("reported", one.reported))
        return {"name": "matched", "part": parts}

    def _reported(self, name: str, one: Reported) -> Part:
        parts: list[Part] = [
            self._coded("code", one.hpo),
            {"name": "frequency", "valueDecimal": decimal(one.frequency)},
        ]
        if one.of:
            parts.append({"name": "seen", "valueDecimal": decimal(one.seen)})
            parts.append({"name": "of", "valueDecimal": decimal(one.of)})
        return {"name": name, "part": [*parts, *string_parts("reference", one.references)]}

    def _family(self, family: Family) -> Part:
        members = [self._context.assessment.rare[place].id for place in family.members]
        return {
            "name": "family",
            "part": [
                *string_part("name", family.name),
                {"name": "probability", "valueDecimal": decimal(family.probability)},
                *string_parts("member", members),
            ],
        }

    def _relative(self, one: Relative) -> Part:
        parts: list[Part] = [
            {"name": "relation", "valueCode": one.relation},
            *string_part("name", one.name),
            *string_parts("disease", one.diseases),
            *[self._coded("shared", hpo) for hpo in one.shared],
            *string_parts("source", one.sources),
            *string_part("text", self._words.relative(one)),
        ]
        return {"name": "relative", "part": parts}

    def _question(self, one: Question) -> Part:
        rare = self._context.assessment.rare
        return {
            "name": "question",
            "part": [
                self._coded("code", one.hpo),
                {"name": "gain", "valueDecimal": decimal(one.gain)},
                *string_part("if-present", rare[one.present].id if one.present < len(rare) else ""),
                *string_part("if-absent", rare[one.absent].id if one.absent < len(rare) else ""),
            ],
        }

    def _resemblance(self, one: Resemblance) -> Part:
        parts: list[Part] = [
            *string_part("reference", one.reference),
            *string_part("disease", one.disease),
            {"name": "similarity", "valueDecimal": decimal(one.similarity)},
        ]
        for name, ids in (("shares", one.shares), ("differs", one.differs), ("beyond", one.beyond)):
            parts += [self._coded(name, hpo) for hpo in ids]
        return {"name": "resembles", "part": parts}

    def _coded(self, name: str, hpo: str) -> Part:
        coding = {"system": FINDING_SYSTEM, "code": hpo, "display": self._words.finding(hpo)}
        return {"name": name, "valueCoding": coding}


def _share(one: Share) -> Part:
    parts: list[Part] = [
        {"name": "feature", "valueString": one.feature},
        {"name": "amount", "valueDecimal": decimal(one.amount)},
    ]
    return {"name": "share", "part": parts}
