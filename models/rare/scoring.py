"""From a phenotype to scored candidates: both stages, with whatever overlay is asked for.

The one path that serving, training and evaluation share; explanations and the alarm build on its result.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from models.rare.encoder import Encoder, pattern
from models.rare.features import FeatureMaker
from models.rare.first_stage import CANDIDATES, candidates, first_stage
from models.rare.knowledge import RareKnowledge
from models.rare.matching import Match, Matcher
from models.rare.panel import Columns, Overlay, compare, overlay_of
from models.rare.phenotype import Phenotype, Query, resolve
from models.rare.terms import F32, I32


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The candidates of one patient: `chosen` [C] columns, best first by the first stage's score `first`
    [C]; how each finding fits them (`match` of these columns), how near the learned pattern is [C], and
    the disease `owner` [C] of each."""

    phenotype: Phenotype
    query: Query
    columns: Columns
    chosen: I32
    match: Match
    first: F32
    pattern: F32

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
            np.ascontiguousarray(encoder.points(knowledge.segment).T)
            if encoder is not None
            else np.zeros((1, 0), dtype=np.float32)
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
    ) -> Shortlist:
        """The candidates of a patient: the first stage."""
        query = resolve(phenotype, self.knowledge.terms)
        columns = compare(self.matcher, overlay, query)
        if not len(query.present):
            nothing, none = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int32)
            return Shortlist(phenotype, query, columns, none, columns.match.of(none), nothing, nothing)
        cosine = pattern(self._encoder, self._points, columns, query.present)
        score = first_stage(columns, cosine)
        chosen = candidates(score, count)
        match = columns.match.of(chosen)
        return Shortlist(phenotype, query, columns, chosen, match, score[chosen], cosine[chosen])

    def widened(self, shortlist: Shortlist, diseases: Collection[int]) -> Shortlist:
        """The shortlist with some diseases among the candidates, whatever the first stage thought of them."""
        columns = shortlist.columns
        wanted = np.flatnonzero(np.isin(columns.owner, list(diseases)) & columns.alive)
        more = np.setdiff1d(wanted, shortlist.chosen).astype(np.int32)
        if not len(more) or not len(shortlist.query.present):
            return shortlist
        cosine = pattern(self._encoder, self._points, columns, shortlist.query.present)
        return replace(
            shortlist,
            chosen=np.concatenate([shortlist.chosen, more]),
            match=columns.match.of(np.concatenate([shortlist.chosen, more])),
            first=np.concatenate([shortlist.first, first_stage(columns, cosine)[more]]),
            pattern=np.concatenate([shortlist.pattern, cosine[more]]),
        )

    def features(self, shortlist: Shortlist) -> F32:
        """What the second stage sees of the candidates [C, F]."""
        return self._maker.make(
            shortlist.columns,
            shortlist.chosen,
            shortlist.match,
            shortlist.query,
            shortlist.phenotype,
            shortlist.pattern,
            shortlist.first,
        )
