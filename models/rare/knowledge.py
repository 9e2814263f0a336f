"""The compiled knowledge of the rare-disease engine: terms, diseases, evidence and their inversion.

Responsible for holding it together and for reading it from arrays (of the model bundle).  The arrays are
compiled by `training.rare.build`; nothing here reads files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.rare.diseases import Diseases
from models.rare.evidence import Evidence, Profile, blob, texts
from models.rare.segment import Segment
from models.rare.terms import Arrays, Terms


class RareKnowledgeInvalid(Exception):
    """Arrays that are no knowledge of this version of the software; the text names what is missing."""


@dataclass(frozen=True, eq=False)
class RareKnowledge:
    """Everything HPO's annotations say, ready to be scored; immutable.

    `release` is HPO's, `attribution` the text its licence asks to be shown.
    """

    release: str
    attribution: str
    terms: Terms
    diseases: Diseases
    evidence: Evidence
    segment: Segment

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "RareKnowledge":
        """The knowledge stored in arrays as `arrays` gives them.  Raises `RareKnowledgeInvalid`."""
        given = dict(arrays)
        try:
            release, attribution = (
                texts(given["rare.release"])[0],
                "\n".join(texts(given["rare.attribution"])),
            )
            terms = Terms.of(given)
            diseases = Diseases.of(given)
            evidence = Evidence.of_arrays(given)
            segment = Segment.of(given)
        except KeyError as missing:
            raise RareKnowledgeInvalid(f"no array {missing}: build the knowledge anew") from None
        if not len(diseases) == segment.size == len(evidence.starts) - 1:
            raise RareKnowledgeInvalid("diseases, evidence and profiles are not of one build")
        return cls(release, attribution, terms, diseases, evidence, segment)

    def arrays(self) -> Arrays:
        """What `of` reads."""
        return {
            "rare.release": blob([self.release]),
            "rare.attribution": blob(self.attribution.split("\n")),
            **self.terms.arrays(),
            **self.diseases.arrays(),
            **self.evidence.arrays(),
            **self.segment.arrays(),
        }

    def without(self, references: Collection[str]) -> dict[int, Profile]:
        """What is left of the diseases that rest on some references when these go unread."""
        touched = sorted({int(d) for reference in references for d in self.evidence.citing(reference)})
        return {disease: self.evidence.profile(disease, references) for disease in touched}
