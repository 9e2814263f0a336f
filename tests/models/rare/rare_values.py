"""A small knowledge for tests: real HPO ids, invented diseases and references."""

import numpy as np

from models.rare.alarm import ALARM_FEATURES
from models.rare.diseases import Diseases
from models.rare.engine import RareEngine
from models.rare.evidence import COUNTED, UNSTATED, WORDED, Evidence
from models.rare.features import FEATURES
from models.rare.knowledge import RareKnowledge
from models.rare.segment import build_segment
from models.rare.terms import Arrays, Terms

# HP id → parents, all below 118.
TREE: dict[int, tuple[int, ...]] = {
    118: (),
    707: (118,),
    478: (118,),
    1574: (118,),
    12638: (707,),
    1250: (12638,),
    2197: (1250,),
    1249: (12638,),
    1263: (12638,),
    2315: (12638,),
    504: (478,),
    505: (504,),
    518: (478,),
    951: (1574,),
    989: (951,),
    7530: (951,),
    982: (951,),
}
FORMER = {6887: 1249}
# Disease: lines (term, seen, of, kind, reference).
LINES: tuple[tuple[tuple[int, float, float, int, str], ...], ...] = (
    (
        (2197, 8, 10, COUNTED, "PMID:1"),
        (1249, 9, 10, COUNTED, "PMID:1"),
        (518, 1, 4, COUNTED, "PMID:2"),
        (1263, 3, 4, COUNTED, "PMID:1;PMID:2"),
    ),
    (
        (1250, 0.545, 0, WORDED, "ORPHA:2"),
        (2315, 0.17, 0, WORDED, "ORPHA:2"),
        (505, 0.9, 0, WORDED, "ORPHA:2"),
    ),
    ((7530, 1, 1, COUNTED, "PMID:3"), (989, 0, 0, UNSTATED, "OMIM:3"), (1249, 0, 5, COUNTED, "PMID:3")),
    ((982, 4, 4, COUNTED, "PMID:4"), (518, 2, 4, COUNTED, "PMID:4")),
    ((505, 2, 2, COUNTED, "PMID:5"), (2315, 0, 0, UNSTATED, "OMIM:5")),
)
NAMES = ("Alpha syndrome 1", "Alpha syndrome 2", "Beta keratoderma", "Gamma disease", "Delta disease")


def terms() -> Terms:
    """The terms of `TREE`, with information content by how many diseases have each."""
    ids = sorted(TREE)
    number = {each: place for place, each in enumerate(ids)}

    def closure(each: int) -> set[int]:
        return {each}.union(*[closure(parent) for parent in TREE[each]])

    chains = {each: sorted(closure(each), key=lambda t: (len(closure(t)), t)) for each in ids}
    carriers = dict.fromkeys(ids, 0)
    for lines in LINES:
        for term in {above for line in lines for above in closure(line[0])}:
            carriers[term] += 1
    ic = np.array([-np.log((carriers[each] + 0.1) / (len(LINES) + 0.2)) for each in ids], dtype=np.float32)
    starts = np.concatenate([[0], np.cumsum([len(chains[each]) for each in ids])]).astype(np.int32)
    return Terms(
        np.array(ids, dtype=np.int32),
        np.array(sorted(FORMER), dtype=np.int32),
        np.array([number[FORMER[old]] for old in sorted(FORMER)], dtype=np.int32),
        starts,
        np.array([number[a] for each in ids for a in chains[each]], dtype=np.int32),
        np.maximum(ic, 0),
        np.array([max(carriers[each], 0.2) / len(LINES) for each in ids], dtype=np.float32),
        np.array([0.1 if each in (2315, 12638, 707, 118) else 0.0 for each in ids], dtype=np.float32),
        np.array([sum(1 << n for n, s in enumerate((707, 478, 1574)) if s in closure(each)) for each in ids],
                 dtype=np.int32),
    )  # fmt: skip


def knowledge(without: frozenset[str] = frozenset()) -> RareKnowledge:
    """The knowledge; `without` builds it as if some references had never existed."""
    known = terms()
    number = {int(each): place for place, each in enumerate(known.ids)}
    rows = []
    for disease, lines in enumerate(LINES):
        for term, seen, of, kind, reference in lines:
            left = [each for each in reference.split(";") if each not in without]
            if left:
                kind = kind if len(left) == len(reference.split(";")) else UNSTATED  # noqa: PLW2901
                rows.append((disease, number[term], ";".join(left), seen, of, kind))
    references = sorted({row[2] for row in rows})
    evidence = Evidence(
        np.searchsorted([row[0] for row in rows], np.arange(len(LINES) + 1)).astype(np.int32),
        np.array([row[1] for row in rows], dtype=np.int32),
        np.array([references.index(row[2]) for row in rows], dtype=np.int32),
        np.array([row[3] for row in rows], dtype=np.float32),
        np.array([row[4] for row in rows], dtype=np.float32),
        np.array([row[5] for row in rows], dtype=np.uint8),
        np.zeros(len(rows), dtype=np.uint8),
        tuple(references),
    )
    onset = np.zeros((len(LINES), 9), dtype=np.float32)
    onset[0, 3] = onset[2, 6] = 1.0
    diseases = Diseases(
        tuple((f"OMIM:{n + 1}", f"ORPHA:{n + 1}") for n in range(len(LINES))),
        NAMES,
        tuple(() for _ in LINES),
        ("alpha syndrome", "beta keratoderma", "delta disease", "gamma disease"),
        np.array([0, 0, 1, 3, 2], dtype=np.int32),
        onset,
        np.array([0.5, 0.5, 0.5, 0.95, 0.5], dtype=np.float32),
    )
    profiles = [evidence.profile(disease) for disease in range(len(LINES))]
    return RareKnowledge(
        "2025-01-16", "HPO, cited", known, diseases, evidence, build_segment(profiles, known)
    )


def model() -> Arrays:
    """A small made-up model: weights and two trees that do something with every kind of feature."""
    rng = np.random.default_rng(3)
    width, size = len(FEATURES), len(TREE)
    at = sorted([FEATURES.index("likelihood"), FEATURES.index("denied-worst"), FEATURES.index("onset")])
    # Tree 0 asks likelihood, then denied-worst; tree 1 asks onset.  Nodes by feature, leaves last.
    node = {feature: place for place, feature in enumerate(at)}
    first = node[FEATURES.index("likelihood")]
    second, third = node[FEATURES.index("denied-worst")], node[FEATURES.index("onset")]
    left, right = np.arange(8), np.arange(8)
    left[first], right[first] = 3, second
    left[second], right[second] = 4, 5
    left[third], right[third] = 6, 7
    threshold = np.zeros(8, dtype=np.float32)
    threshold[first], threshold[second], threshold[third] = 1.0, 0.4, 0.5
    return {
        "encoder.vectors": rng.normal(size=(size, 8)).astype(np.float32),
        "encoder.patient_weight": np.ones(size, dtype=np.float32),
        "encoder.disease_weight": np.ones(size, dtype=np.float32),
        "encoder.patient_in": rng.normal(size=(8, 4)).astype(np.float32),
        "encoder.patient_out": rng.normal(size=(4, 8)).astype(np.float32) * 0.1,
        "encoder.disease_in": rng.normal(size=(8, 4)).astype(np.float32),
        "encoder.disease_out": rng.normal(size=(4, 8)).astype(np.float32) * 0.1,
        "reranker.weight": np.where(np.arange(width) == FEATURES.index("likelihood"), 1.0, 0.05),
        "reranker.roots": np.array([first, third]),
        "reranker.starts": np.searchsorted(np.array(at), np.arange(width + 1)),
        "reranker.threshold": threshold,
        "reranker.left": left,
        "reranker.right": right,
        "reranker.zero_left": np.ones(8, dtype=bool),
        "reranker.depth": np.array(2),
        "reranker.value": np.array([0, 0, 0, -0.5, 0.7, -0.9, 0.1, 0.4], dtype=np.float32),
        "reranker.temperature": np.array(1.5),
        "reranker.none": np.array(0.5),
        "reranker.none_slope": np.array(0.1),
        "alarm.knots": np.ones((len(ALARM_FEATURES), 2), dtype=np.float32),
        "alarm.scale": np.ones(len(ALARM_FEATURES), dtype=np.float32),
        "alarm.weight": rng.normal(size=(len(ALARM_FEATURES), 3)).astype(np.float32) * 0.05,
        "alarm.bias": np.array(-0.3),
    }


def engine(without: frozenset[str] = frozenset()) -> RareEngine:
    """The engine of both."""
    return RareEngine.of({**knowledge(without).arrays(), **model()})
