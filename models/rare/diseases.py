"""Who the ranked diseases are: ids, name, genes, family, onset, sex.  No evidence and no scoring."""

from dataclasses import dataclass

import numpy as np

from models.rare.evidence import blob, texts
from models.rare.terms import F32, I32, Arrays

ONSETS: tuple[tuple[str, float, float], ...] = (
    ("HP:0030674", -0.75, 0.0),
    ("HP:0003577", 0.0, 0.02),
    ("HP:0003623", 0.0, 0.077),
    ("HP:0003593", 0.077, 1.0),
    ("HP:0011463", 1.0, 5.0),
    ("HP:0003621", 5.0, 16.0),
    ("HP:0003581", 16.0, 40.0),
    ("HP:0003596", 40.0, 60.0),
    ("HP:0003584", 60.0, 110.0),
)
"""HPO onset class, from and to which age in years (HPO's definitions of the terms), in order of age."""


@dataclass(frozen=True, eq=False)
class Diseases:
    """D diseases.  `ids` are OMIM first, then ORPHA; `onset` [D, 9] the share of patients whose illness
    begins in each of `ONSETS`, zeros where nothing is known; `male` [D] the share of patients who are male,
    one half where the inheritance says nothing of it; `family` [D] numbers of `families`."""

    ids: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    genes: tuple[tuple[str, ...], ...]
    families: tuple[str, ...]
    family: I32
    onset: F32
    male: F32

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, arrays: Arrays) -> "Diseases":
        """The diseases stored under ``diseases.*``."""
        return cls(
            tuple(tuple(line.split()) for line in texts(arrays["diseases.ids"])),
            tuple(texts(arrays["diseases.names"])),
            tuple(tuple(line.split()) for line in texts(arrays["diseases.genes"])),
            tuple(texts(arrays["diseases.families"])),
            arrays["diseases.family"].astype(np.int32),
            arrays["diseases.onset"].astype(np.float32),
            arrays["diseases.male"].astype(np.float32),
        )

    def arrays(self) -> Arrays:
        """What `of` reads."""
        return {
            "diseases.ids": blob([" ".join(each) for each in self.ids]),
            "diseases.names": blob(self.names),
            "diseases.genes": blob([" ".join(each) for each in self.genes]),
            "diseases.families": blob(self.families),
            "diseases.family": self.family.astype(np.uint16),
            "diseases.onset": self.onset.astype(np.float16),
            "diseases.male": self.male.astype(np.float16),
        }
