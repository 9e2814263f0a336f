"""From a phenotype to scored candidates: both stages, with whatever overlay is asked for.

The one path that serving, training and evaluation share; explanations and the alarm build on its result.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from models.rare.encoder import Encoder, pattern
from models.rare.features import FEATURES, FeatureMaker
from models.rare.first_stage import CANDIDATES, candidates, first_stage
from models.rare.knowledge import RareKnowledge
from models.rare.matching import Matcher
from models.rare.panel import Columns, Overlay, compare, overlay_of
from models.rare.phenotype import Phenotype, Query, resolve
from models.rare.terms import F32, I32


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The candidates of one patient: `chosen` [C] columns, best first by the first stage's score `first`
    [C], `features` [C, F], and the disease `owner` [C] of each.

    The last `asked` candidates are there because a relative has the disease; `inherited` [C] is what
    relatives add to each score, `None` for nothing.
    """

    query: Query
    columns: Columns
    chosen: I32
    first: F32
    pattern: F32
    features: F32
    asked: int = 0
    inherited: F32 | None = None

    @property
    def own(self) -> "Shortlist":
        """The candidates that the patient's own findings gave."""
        if not self.asked:
            return self
        end = len(self.chosen) - self.asked
        parts = (self.chosen[:end], self.first[:end], self.pattern[:end], self.features[:end])
        return Shortlist(self.query, self.columns, *parts)

    @property
    def owner(self) -> I32:
        """The disease of each candidate; numbers from the knowledge's size on are enrolled."""
        return self.columns.owner[self.chosen]


class Scorer:
    """Knowledge and encoder, ready to compare patients with."""

    def __init__(self, knowledge: RareKnowledge, encoder: Encoder | None) -> None:
        self.knowledge = knowledge
        self.matcher = Matcher(knowledge.segment, knowledge.terms)
        self._encoder = encoder
        self._points = (
            encoder.points(knowledge.segment) if encoder is not None else np.zeros((0, 1), dtype=np.float32)
        )
        self._maker = FeatureMaker(knowledge.terms, knowledge.diseases)

    def unread(self, references: frozenset[str]) -> Overlay | None:
        """The overlay that answers as if some references had never been read."""
        if not references:
            return None
        return overlay_of(self.knowledge.without(references), self.knowledge.terms)

    def shortlist(
        self,
        phenotype: Phenotype,
        overlay: Overlay | None = None,
        count: int = CANDIDATES,
        asked: Collection[int] = (),
    ) -> Shortlist:
        """The candidates of a patient with their features; the diseases `asked` are among them."""
        query = resolve(phenotype, self.knowledge.terms)
        columns = compare(self.matcher, overlay, query)
        if not len(query.present):
            nothing = np.zeros(0, dtype=np.float32)
            none = np.zeros(0, dtype=np.int32)
            return Shortlist(query, columns, none, nothing, nothing, np.zeros((0, len(FEATURES)), np.float32))
        cosine = pattern(self._encoder, self._points, columns, query.present)
        score = first_stage(columns, cosine)
        chosen = candidates(score, count)
        found = len(chosen)
        if asked:
            wanted = np.flatnonzero(np.isin(columns.owner, list(asked)) & columns.alive)
            chosen = np.concatenate([chosen, np.setdiff1d(wanted, chosen)]).astype(np.int32)
        features = self._maker.make(columns, chosen, query, phenotype, cosine[chosen], score[chosen])
        return Shortlist(query, columns, chosen, score[chosen], cosine[chosen], features, len(chosen) - found)
