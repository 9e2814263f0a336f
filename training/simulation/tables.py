"""The knowledge base as arrays: probabilities, distributions and rates in the order of the features.

Responsible for turning disease files into what sampling and likelihoods index.  Two things happen to a
listed probability on the way: it is drawn towards one half by as much as its evidence grade leaves it
uncertain, and a general finding becomes at least as frequent as the kinds of it.

Shapes: D diseases, G grades (4, unused ones have weight 0), V findings, A analytes, R risks, K results.
"""

import csv
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fhir_adapters.features import FeatureSchema
from fhir_adapters.terminology.analytes import AnalyteTable
from models.assessment import SEVERITIES
from models.knowledge.loader import DATA
from models.knowledge.schema import AGE_BANDS, Disease, Knowledge

GRADES = 4
UNCERTAINTY = {"A": 0.4, "B": 0.8, "C": 1.2}
"""Standard deviation, in logits, of a listed probability by evidence grade.  Grade C: set by this project."""
VAGUE_SHIFT, VAGUE_SPREAD = 0.4, 0.4
"""How uncertain the mean of a measurement in a disease is: as a share of its shift, and of the healthy
spread.  Both add to the spread between patients, so that no reading proves more than what is known of it."""
PAIN_SPREAD = 2.3
"""Least standard deviation of a pain score between patients with one disease."""
OMITTED = {"symptom": 0.0015, "sign": 0.0008, "test": 0.0005}
"""What a finding that a file does not list is more frequent than in other visitors (omissions)."""
CALM = 0.3
"""Share of the backgrounds that visitors have who come without a complaint."""
UNLISTED_COMPLAINT = {"symptom": 0.03, "sign": 0.01, "test": 0.0005}
"""Weight as a complaint of what ``complaints.csv`` does not list.  Grade C: set by this project."""
VISITORS = np.array([0.01, 0.012, 0.028, 0.10, 0.09, 0.07, 0.27, 0.24, 0.12, 0.06])
"""Share of visitors by age band.  Grade C: estimate of this project, both settings together."""

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    """All arrays; see the module for the letters of the shapes.

    `own` is the chance that a finding arises by itself given that none of its kinds did, `chance` the
    chance that it is present at all.  `shift` is in raw units (logarithms for lognormal analytes),
    `spread` its standard deviation.  `emergency_grades`/`primary_grades` are the weights by setting.
    """

    schema: FeatureSchema
    ids: tuple[str, ...]
    rate: F64  # [2, D]: primary care, emergency; visits per 10,000
    age: F64  # [D, 10]
    female: F64  # [D]
    pregnancy: F64  # [D]
    weight: F64  # [2, D, G]
    severity: NDArray[np.int64]  # [D, G]
    immediate: F64  # [D, G]
    chance: F32  # [D, G, V]
    own: F32  # [D, G, V]
    background: F32  # [V]
    shift: F32  # [D, G, A]
    spread: F32  # [D, G, A]
    raw_chance: F32  # [D, G, V] as listed, before anything is drawn towards one half
    raw_spread: F32  # [D, G, A] between patients of one disease, without what is uncertain of its mean
    doubt: F32  # [D, V] standard deviation of a listed chance, in logits; 0 where nothing is listed
    healthy: F64  # [A] spread of the healthy, in raw units
    visitor: NDArray[np.bool_]  # [D] comes without a complaint (check-ups, vaccinations)
    exclusion: NDArray[np.bool_]  # [D] a diagnosis of exclusion
    listed: NDArray[np.bool_]  # [D, A]
    laboratory: NDArray[np.bool_]  # [A]
    result: F32  # [D, G, K], nan where the disease says nothing
    odds: F64  # [D, R]
    prevalence: F64  # [R, 4]
    risk_female: F64  # [R]
    drugs: tuple[tuple[tuple[str, float], ...], ...]
    duration: F64  # [D, 2] days
    finding_pairs: dict[int, tuple[tuple[int, int, float], ...]]
    depth: tuple[tuple[int, ...], ...]
    children: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    complaint: F32  # [V] how readily a finding is named as the reason for the visit
    ordered: F64  # [2, A]
    plausible: F64  # [A, 2] what the chart reader takes for a possible value
    risk_shift: F64  # [R, A]
    risk_chance: F64  # [R, V]

    def mean_chance(self) -> F64:
        """P(finding | disease) over grades and both settings [V, D]."""
        return np.asarray(np.einsum("dg,dgv->vd", self.weight.mean(axis=0), self.chance))


def build_tables(knowledge: Knowledge, schema: FeatureSchema) -> Tables:
    """The arrays of a knowledge base, in the order of `schema`."""
    number = {key: place for place, key in enumerate(schema.findings)}
    analytes = {analyte.key: place for place, analyte in enumerate(schema.analytes)}
    risks = {name: place for place, (name, _) in enumerate(schema.risks)}
    diseases = knowledge.diseases
    background = np.array([row.background for row in knowledge.findings])
    usual = _usual(knowledge, background)
    chance, raw, doubt = _chances(knowledge, number, background, usual)
    shift, raw_spread, listed = _distributions(diseases, schema, analytes)
    healthy = np.array([np.log(a.spread) if a.log else a.spread for a in schema.analytes])
    uncertain = np.where(listed[:, None, :], (VAGUE_SHIFT * shift) ** 2 + (VAGUE_SPREAD * healthy) ** 2, 0.0)
    spread = np.sqrt(raw_spread**2 + uncertain)
    odds = np.ones((len(diseases), len(risks)))
    for d, disease in enumerate(diseases):
        for risk, ratio, _ in disease.risks:
            odds[d, risks[risk]] = ratio
    depth, children = _order(schema)
    own = own_chances(chance, usual[:, None, :], depth, children)
    risk_shift, risk_chance = _modifiers(risks, analytes, number, schema)
    return Tables(
        schema=schema,
        ids=tuple(disease.id for disease in diseases),
        rate=np.array([[d.rate.primary_care for d in diseases], [d.rate.emergency for d in diseases]]),
        age=np.array([disease.rate.age for disease in diseases]),
        female=np.array([disease.rate.female for disease in diseases]),
        pregnancy=np.array([disease.rate.pregnancy for disease in diseases]),
        weight=_weights(diseases),
        severity=np.array([_padded([SEVERITIES.index(x.severity) for x in d.grades]) for d in diseases]),
        immediate=np.array([_padded([x.immediate for x in d.grades]) for d in diseases]),
        chance=chance.astype(np.float32),
        own=own.astype(np.float32),
        background=background.astype(np.float32),
        shift=shift.astype(np.float32),
        spread=spread.astype(np.float32),
        raw_chance=raw.astype(np.float32),
        raw_spread=raw_spread.astype(np.float32),
        doubt=doubt.astype(np.float32),
        healthy=healthy,
        visitor=np.array([disease.group == "healthy" for disease in diseases]),
        exclusion=np.array([disease.group == "nonspecific" for disease in diseases]),
        listed=listed,
        laboratory=np.array([analyte.kind == "laboratory" for analyte in knowledge.analytes]),
        result=_results(diseases, schema).astype(np.float32),
        odds=odds,
        prevalence=np.array([risk.prevalence for risk in knowledge.risks]),
        risk_female=np.array([risk.female for risk in knowledge.risks]),
        drugs=tuple(risk.drugs for risk in knowledge.risks),
        duration=np.array([disease.duration_days for disease in diseases], dtype=float),
        finding_pairs=_pairs(diseases, number),
        depth=depth,
        children=children,
        kinds=tuple(row.kind for row in knowledge.findings),
        complaint=_complaints(knowledge),
        ordered=np.array(
            [
                [analyte.ordered_primary_care for analyte in knowledge.analytes],
                [analyte.ordered_emergency for analyte in knowledge.analytes],
            ]
        ),
        plausible=np.array([_plausible(analyte.loinc) for analyte in schema.analytes]),
        risk_shift=risk_shift,
        risk_chance=risk_chance,
    )


def _usual(knowledge: Knowledge, background: F64) -> F64:
    """Chance of a finding that a disease's file does not list [D, V]."""
    omitted = np.array([OMITTED[row.kind] for row in knowledge.findings])
    return np.array(
        [
            CALM * background if disease.group == "healthy" else background + omitted
            for disease in knowledge.diseases
        ]
    )


def _chances(
    knowledge: Knowledge, number: dict[str, int], background: F64, usual: F64
) -> tuple[F64, F64, F64]:
    """Chances softened by their uncertainty [D, G, V], as listed, and how uncertain they are [D, V]."""
    shape = (len(knowledge.diseases), GRADES, len(number))
    raw = np.broadcast_to(background, shape).copy()
    chance = np.broadcast_to(usual[:, None, :], shape).copy()
    doubt = np.zeros((shape[0], shape[2]))
    for d, disease in enumerate(knowledge.diseases):
        for key, _, value, source in disease.findings:
            place, grade = number[key], disease.sources[source][0]
            doubt[d, place] = UNCERTAINTY[grade]
            for g in range(GRADES):
                raw[d, g, place] = _at(value, min(g, len(disease.grades) - 1))
                soft = _softened(raw[d, g, place], grade)
                # What is listed as rarer than in other visitors is not drawn above them.
                rare = raw[d, g, place] < background[place]
                chance[d, g, place] = min(soft, background[place]) if rare else soft
    return np.clip(chance, 0.0003, 0.985), np.clip(raw, 0.0003, 0.99), doubt


def _distributions(
    diseases: tuple[Disease, ...], schema: FeatureSchema, analytes: dict[str, int]
) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Shift from normal and spread of every measurement [D, G, A], and what each disease lists [D, A]."""
    healthy = np.array([np.log(a.spread) if a.log else a.spread for a in schema.analytes])
    shift = np.zeros((len(diseases), GRADES, len(analytes)))
    spread = np.broadcast_to(healthy, shift.shape).copy()
    listed = np.zeros((len(diseases), len(analytes)), dtype=bool)
    for d, disease in enumerate(diseases):
        last = len(disease.grades) - 1
        for key, value, sd, _ in disease.vitals:
            place = analytes[key]
            listed[d, place] = True
            shift[d, :, place] = [_at(value, min(g, last)) for g in range(GRADES)]
            spread[d, :, place] = max(sd, PAIN_SPREAD) if key == "pain" else sd
        for key, value, sd, _ in disease.labs:
            place = analytes[key]
            analyte = schema.analytes[place]
            median = np.array([_at(value, min(g, last)) for g in range(GRADES)])
            listed[d, place] = True
            if analyte.log:
                shift[d, :, place] = np.log(median / np.sqrt(analyte.male * analyte.female))
                spread[d, :, place] = np.log(sd)
            else:
                shift[d, :, place] = median - (analyte.male + analyte.female) / 2
                spread[d, :, place] = sd
    # Within a disease patients differ at least as much as the healthy do.
    return shift, np.maximum(spread, 0.9 * healthy), listed


def _results(diseases: tuple[Disease, ...], schema: FeatureSchema) -> F64:
    """Chance of a positive answer of each coded test [D, G, K]; nan where the disease says nothing."""
    places = {code: place for place, code in enumerate(schema.results)}
    result = np.full((len(diseases), GRADES, len(places)), np.nan)
    for d, disease in enumerate(diseases):
        for code, _, value, _ in disease.results:
            last = len(disease.grades) - 1
            result[d, :, places[code]] = [_at(value, min(g, last)) for g in range(GRADES)]
    return result


def _pairs(
    diseases: tuple[Disease, ...], number: dict[str, int]
) -> dict[int, tuple[tuple[int, int, float], ...]]:
    """The correlated pairs of findings of each disease that has some."""
    pairs: dict[int, tuple[tuple[int, int, float], ...]] = {}
    for d, disease in enumerate(diseases):
        found = [
            (number[one], number[other], rho)
            for one, other, rho in disease.correlations
            if one in number and other in number
        ]
        if found:
            pairs[d] = tuple(found)
    return pairs


def _plausible(loinc: str) -> tuple[float, float]:
    found = _analyte_table().by_loinc[loinc]
    return found.low, found.high


@cache
def _analyte_table() -> AnalyteTable:
    return AnalyteTable.load()


def _complaints(knowledge: Knowledge) -> F32:
    """How readily each finding is named as the reason to come; what is not listed rarely is."""
    weights = [knowledge.complaints.get(row.key, UNLISTED_COMPLAINT[row.kind]) for row in knowledge.findings]
    return np.array(weights, dtype=np.float32)


def _at(value: float | tuple[float, ...], grade: int) -> float:
    if isinstance(value, tuple):
        return value[min(grade, len(value) - 1)]
    return value


def _softened(chance: float, grade: str) -> float:
    """The mean of a probability known with the uncertainty of its evidence grade (probit approximation)."""
    chance = min(max(chance, 0.001), 0.99)
    logit = np.log(chance / (1 - chance)) / np.sqrt(1 + np.pi / 8 * UNCERTAINTY[grade] ** 2)
    return float(1 / (1 + np.exp(-logit)))


def _padded(values: list[float] | list[int]) -> list[float]:
    return [*values, *[values[-1]] * (GRADES - len(values))]


def _weights(diseases: tuple[Disease, ...]) -> F64:
    """Weights of the grades by setting: who comes to an emergency department is the more ill."""
    weights = np.zeros((2, len(diseases), GRADES))
    for d, disease in enumerate(diseases):
        for g, grade in enumerate(disease.grades):
            weights[0, d, g] = grade.weight * (1.3 - grade.immediate)
            weights[1, d, g] = grade.weight * (0.8 + grade.immediate)
    return np.asarray(weights / weights.sum(axis=2, keepdims=True))


def _order(schema: FeatureSchema) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Levels of findings, the most specific first, and the direct kinds of each finding."""
    above = schema.above
    children: list[list[int]] = [[] for _ in above]
    for number, higher in enumerate(above):
        skip = {top for parent in higher for top in above[parent]}
        for parent in higher:
            if parent not in skip:
                children[parent].append(number)
    level = [0] * len(above)

    def height(number: int) -> int:
        return 1 + max((height(child) for child in children[number]), default=-1)

    for number in range(len(above)):
        level[number] = height(number)
    levels = tuple(
        tuple(n for n in range(len(above)) if level[n] == depth) for depth in range(max(level) + 1)
    )
    return levels, tuple(tuple(found) for found in children)


def own_chances(
    chance: F64,
    usual: F64,
    depth: tuple[tuple[int, ...], ...],
    children: tuple[tuple[int, ...], ...],
) -> F64:
    """Chances of arising by itself [D, G, V]; raises `chance` in place where kinds of a finding ask for more.

    Only what a disease adds to the `usual` chance of a kind [D, 1, V] counts: the many kinds of pain that any
    visitor may have do not make pain a sign of every disease.
    """
    own = chance.copy()
    for level in depth[1:]:
        for number in level:
            below = list(children[number])
            added = np.clip(chance[:, :, below] - usual[..., below], 0, 1)
            implied = 1 - np.prod(1 - added, axis=2)
            # Kinds of one finding go together: less than independent ones would give.
            implied = np.maximum(added.max(axis=2), 0.8 * implied)
            most = chance[:, :, below].max(axis=2)
            chance[:, :, number] = np.maximum(chance[:, :, number], np.maximum(implied, most))
            own[:, :, number] = np.clip((chance[:, :, number] - implied) / (1 - implied + 1e-9), 0, 1)
    return own


def _modifiers(
    risks: dict[str, int], analytes: dict[str, int], number: dict[str, int], schema: FeatureSchema
) -> tuple[F64, F64]:
    shift, chance = np.zeros((len(risks), len(analytes))), np.zeros((len(risks), len(number)))
    lines = DATA.joinpath("modifiers.csv").read_text(encoding="utf-8").splitlines()
    for row in csv.DictReader(lines):
        risk, value = risks[row["risk"]], float(row["value"])
        if row["effect"] == "chance":
            chance[risk, number[row["target"]]] = value
        else:
            place = analytes[row["target"]]
            log = schema.analytes[place].log
            if log != (row["effect"] == "factor"):
                raise ValueError(f"modifiers.csv: {row['target']} takes a {'factor' if log else 'shift'}")
            shift[risk, place] = np.log(value) if log else value
    return shift, chance


def band_edges() -> list[tuple[float, float]]:
    """Youngest and oldest age (years) of each band; the last ends at 100."""
    edges, start = [], 0.0
    for _, end in AGE_BANDS:
        edges.append((start, min(end, 100.0)))
        start = end
    return edges
