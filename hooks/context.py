"""What the parts of one hook call share: chart, assessment, language, and the footing of every card.

Holds the source and the "based on" line that all cards carry; decides nothing about what is said.
"""

from collections.abc import Iterable
from functools import cached_property, lru_cache

import msgspec

from fhir_adapters.chart import PatientChart
from hooks.cards import TOPIC_SYSTEM, CardSettings, Coding, Indicator, Source
from hooks.facts import saying_several
from hooks.markdown import escape
from hooks.priority import short_citation
from hooks.texts import Texts
from hooks.wording import Names
from models.assessment import Assessment

INDICATOR: tuple[Indicator, ...] = ("critical", "warning", "info", "info")
"""Indicator by urgency rank: immediate, urgent, soon, routine."""


@lru_cache(maxsize=512)
def _citations(sources: tuple[str, ...], most: int, estimate: str) -> str:
    """Publications as Markdown; kept, because they come from the rules and never from a patient."""
    short = dict.fromkeys([short_citation(source) for source in sources if source])
    named = [text.replace("(grade C)", f"({estimate})") for text in short if text]
    return escape("; ".join([text[1:-1] if text[0] == "(" else text for text in named][:most]), 300)


@lru_cache(maxsize=64)
def _version(knowledge: str) -> str:
    """``rules-1+sha256.5fc2166a09...`` as ``rules-1 5fc2166a``: enough to tell versions apart."""
    name, digest, *_ = [*knowledge.split("+"), ""]
    return escape(f"{name} {digest.rpartition('.')[2][:8]}".strip(), 40)


class CallContext(msgspec.Struct, frozen=True, dict=True):
    """One hook call.  `seed` is unique to it; `base_url` the server's absolute address or `None`."""

    chart: PatientChart
    assessment: Assessment
    texts: Texts
    names: Names
    seed: str
    base_url: str | None
    settings: CardSettings

    @cached_property
    def several(self) -> frozenset[str]:
        """The Conditions that hold more than one finding (`hooks.facts`)."""
        return saying_several(self.chart)

    def source(self, topic: str, *, learned: bool = False) -> Source:
        """The card's source with its topic (of ``urn:cds-server:topic``); `learned` for the model's."""
        key = "differential.source_label" if learned else "card.source_label"
        return Source(
            label=self.texts[key].format(label=self.settings.source_label),
            url=self.base_url,
            topic=Coding(code=topic, system=TOPIC_SYSTEM, display=self.texts[f"topic.{topic}"]),
        )

    def basis(self, sources: Iterable[str], *, most: int = 4) -> str:
        """Date of the data, version of the knowledge, publications (`most`), and the limits of the advice."""
        texts = self.texts
        assessment = self.assessment
        learned = bool(assessment.model) and not assessment.model.startswith("rules")
        cited = _citations(tuple(sources), most, texts["card.estimate"])
        basis = texts["card.basis_model" if learned else "card.basis"].format(
            at=texts.moment(self.chart.at),
            knowledge=_version(assessment.knowledge),
            model=escape(assessment.model) if learned else "",
        )
        if cited:
            basis = f"{basis} {texts['card.sources'].format(sources=cited)}"
        return f"*{basis} {texts['card.limits']}*"
