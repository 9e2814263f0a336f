"""The words of a suspected rare disease in both languages: families, what fits, what is missing.

Everything is plain text (`fhir_api` sends it as it is); a caller that writes Markdown passes `escape` as
`finish`.  Decides nothing about which diseases are told.
"""

from collections.abc import Callable, Iterable, Sequence

from hooks import wording
from hooks.context import CallContext
from hooks.differential_words import percent
from hooks.markdown import plain
from models.assessment import Fact, RareOpinion
from models.rare.assessment import Family, RareCandidate, Relative, Reported

MOST_FITTING = 4
MOST_MISSING = 3
MOST_AGAINST = 2
_LONGEST_NAME = 80
Finish = Callable[[str], str]


class RareWords:
    """What is said of one opinion; made for one call."""

    def __init__(self, context: CallContext, opinion: RareOpinion, finish: Finish = plain) -> None:
        self._context = context
        self._assessed = opinion.assessed
        self._labels = dict(opinion.labels)
        self._facts = {fact.code: fact for fact in opinion.findings}
        self._relatives = opinion.relatives
        self._related_parents = opinion.related_parents
        self._finish = finish

    def finding(self, hpo: str) -> str:
        """A finding inside a sentence: our bedside word, the terminology's name, else HPO's."""
        context = self._context
        fact = self._facts.get(hpo) or Fact("finding", hpo, self._labels.get(hpo, hpo))
        name = wording.name_of(fact, context.texts, context.names)
        return self._finish(plain(wording.mid_sentence(name), _LONGEST_NAME))

    def name(self, candidate: RareCandidate) -> str:
        """A disease as the registries name it."""
        return self._finish(plain(candidate.name, _LONGEST_NAME))

    def fitting(self, candidate: RareCandidate) -> list[str]:
        """HPO ids of the patient that the disease is known for, the most telling first."""
        return [one.hpo for one in candidate.matched if one.gain > 0 and one.reported is not None]

    def reasons(self, candidate: RareCandidate) -> list[str]:
        """``fits: ...``, ``not known here: ...``, ``speaks against it: ...``, ``in the family: ...``, how
        many cases the site enrolled; empty for nothing."""
        texts = self._context.texts
        parts = (
            ("fits", [self.finding(hpo) for hpo in self.fitting(candidate)[:MOST_FITTING]]),
            ("missing", [self.counted(one) for one in candidate.missing[:MOST_MISSING]]),
            ("against", [self.counted(one) for one in candidate.contradicting[:MOST_AGAINST]]),
        )
        found = [texts[f"rare.{key}"].format(findings=", ".join(names)) for key, names in parts if names]
        affected = [self.relation(one) for one in self.relatives_with(candidate)]
        if affected:
            relations = ", ".join(dict.fromkeys(affected))
            found.append(texts["rare.in_the_family"].format(relations=relations))
        if candidate.enrolled:
            key = "rare.enrolled_one" if candidate.enrolled == 1 else "rare.enrolled"
            found.append(texts[key].format(n=texts.number(candidate.enrolled)))
        return found

    def relatives_with(self, candidate: RareCandidate) -> list[Relative]:
        """The relatives whose record names this disease."""
        ids = set(candidate.ids)
        return [one for one in self._relatives if not ids.isdisjoint(one.diseases)]

    def relation(self, relative: Relative) -> str:
        """``mother``."""
        return self._context.texts[f"rare.relation.{relative.relation}"]

    def relative(self, relative: Relative) -> str:
        """``mother: Marfan syndrome, recorded in FamilyMemberHistory/1; in common with the patient: ...``."""
        texts = self._context.texts
        line = texts["rare.relative"].format(
            relation=self.relation(relative),
            name=self._finish(plain(relative.name, _LONGEST_NAME)),
            sources=", ".join([self._finish(plain(source, 60)) for source in relative.sources[:2]]),
        )
        if relative.shared:
            line += "; " + texts["rare.relative_shares"].format(findings=self.list(relative.shared))
        return line

    def family_history(self, most: int) -> list[str]:
        """What of the family matters here, relatives with a named disease first; empty for nothing."""
        ordered = sorted(self._relatives, key=lambda one: not one.diseases)
        lines = [self.relative(one) for one in ordered[:most]]
        if self._related_parents:
            sources = ", ".join([self._finish(plain(one, 60)) for one in self._related_parents[:2]])
            lines.append(self._context.texts["rare.related_parents"].format(sources=sources))
        return lines

    def counted(self, reported: Reported) -> str:
        """A finding of a disease with how often it was counted."""
        texts = self._context.texts
        name = self.finding(reported.hpo)
        if round(reported.of) < 2 or round(reported.seen) < 1:
            return name
        seen, of = texts.number(round(reported.seen)), texts.number(round(reported.of))
        return texts["rare.counted"].format(finding=name, seen=seen, of=of)

    def family(self, family: Family) -> str:
        """A family by its leading member: ``**Loeys-Dietz syndrome 1** and 6 related types (18 %)``."""
        texts = self._context.texts
        key = "rare.family" if len(family.members) == 1 else "rare.family_types"
        return texts[key].format(
            name=self.name(self.leading(family)),
            n=len(family.members) - 1,
            percent=percent(family.probability, texts),
        )

    def leading(self, family: Family) -> RareCandidate:
        """The most probable member."""
        return self._assessed.candidates[family.members[0]]

    def questions(self, most: int) -> list[str]:
        """The findings that would change the order most."""
        return [self.finding(one.hpo) for one in self._assessed.questions[:most]]

    def list(self, findings: Iterable[str]) -> str:
        """Findings in a sentence."""
        return wording.join([self.finding(hpo) for hpo in findings], self._context.texts)


def references(candidate: RareCandidate, most: int) -> list[str]:
    """Papers behind what fits, the most telling first."""
    found: dict[str, None] = {}
    for match in candidate.matched:
        if match.reported is not None and match.gain > 0:
            found.update(dict.fromkeys([r for r in match.reported.references if r.startswith("PMID:")][:1]))
    return list(found)[:most]


def told_first(candidates: Sequence[RareCandidate], opinion: RareOpinion) -> list[Fact]:
    """The findings present, those that speak most for the leading disease first."""
    order = {one.hpo: place for place, one in enumerate(candidates[0].matched)} if candidates else {}
    present = [fact for fact in opinion.findings if fact.state == "present"]
    return sorted(present, key=lambda fact: (order.get(fact.code, len(order)), fact.code))
