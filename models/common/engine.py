"""The common-disease engine: one chart in, the differential with its reasons, doubts and next steps out.

Responsible for what is shown of the ensemble: which diseases are listed, the clinical facts behind each
with their sources, whether the chart resembles anything known.  Pure and deterministic.
"""

from collections.abc import Sequence
from operator import methodcaller
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from fhir_adapters.chart import FamilyCondition, PatientChart, Problem
from fhir_adapters.features import FeatureReader, Features, FeatureSchema, Item
from fhir_adapters.hpo import Ontology
from models.assessment import (
    SEVERITIES,
    Contribution,
    Counterfactual,
    Fact,
    NextStep,
    Prediction,
    Severity,
)
from models.common.alternatives import counterfactuals
from models.common.disease import DiseaseInfo
from models.common.ensemble import Ensemble, Outcome, Stack
from models.common.members import Arrays, Places
from models.common.next_steps import NextSteps
from models.rules.analytes import Analyte
from models.rules.facts import fact_of

LISTED_AT_LEAST, LISTED_AT_MOST = 15, 40
"""Diseases listed; between these, those that are at least `LISTED_PROBABILITY` probable or in the set."""
LISTED_PROBABILITY = 0.005
EXPLAINED = 3
"""Diseases whose facts are worked out."""
IMMEDIATE = "immediate-attention"


class Differential(msgspec.Struct, frozen=True):
    """What the engine holds of one chart.

    `immediate_logit` includes `rules_weight` times the rules' logit; `contributions` to immediate
    attention are the learned members' only.  `set_size` counts the diseases of the conformal set.
    """

    predictions: tuple[Prediction, ...]
    other_probability: float
    severity: Severity
    severity_probabilities: tuple[float, float, float, float, float]
    immediate_logit: float
    rules_weight: float
    contributions: tuple[Contribution, ...]
    counterfactuals: tuple[Counterfactual, ...]
    next_steps: tuple[NextStep, ...]
    set_size: int
    coverage: float
    similarity: float


class CommonEngine:
    """The engine of one model bundle; immutable, shared by all requests of a process."""

    def __init__(
        self,
        *,
        schema: FeatureSchema,
        ontology: Ontology,
        diseases: Sequence[DiseaseInfo],
        arrays: Arrays,
        stack: dict[str, Any],
        analytes: dict[str, Analyte],
    ) -> None:
        self.reader = FeatureReader(schema, ontology)
        self.diseases = tuple(diseases)
        self._codings = [disease.codings for disease in diseases]
        reader = self.reader
        places = Places(
            reader.at_risks,
            reader.at_values,
            reader.at_measured,
            reader.at_results,
            reader.at_person,
            reader.at_bands,
        )
        mix = np.array([disease.severity for disease in diseases])
        categories = [tuple(dict.fromkeys((d.icd10, d.icd10cm[:3]))) for d in diseases]
        self.ensemble = Ensemble(arrays, msgspec.convert(stack, Stack), places, mix, categories)
        chance = arrays["knowledge.chance"].astype(np.float32, order="C")
        self._explains = explaining(chance)
        self._next_steps = NextSteps(schema, chance, arrays, stack_tests(arrays), self.diseases)
        self._analytes = analytes
        self._quantiles = np.array(self.ensemble.stack.similarity)
        self._levels = np.linspace(0, 1, len(self._quantiles))

    def assess(self, chart: PatientChart, rules_logit: float, *, alternatives: bool = True) -> Differential:
        """Assess one chart; `rules_logit` is the published rules' logit of immediate attention.

        Without `alternatives` no counterfactuals are worked out; everything else is the same.
        """
        features = self.reader.read(chart)
        outcome = self.ensemble.run(features, rules_logit)
        order = np.argsort(-outcome.disease, kind="stable")
        stack = self.ensemble.stack
        in_set = outcome.disease >= stack.set_threshold
        size = int(np.count_nonzero(in_set))
        listed = self._listed(outcome, order, in_set)
        shown = listed[:EXPLAINED]
        facts, owner = self._facts(features)
        grouped = _regroup(outcome, owner)
        amounts, baseline = self.ensemble.explain(grouped, len(facts), shown, immediate=True)
        predictions = self._predictions(outcome, listed, in_set, baseline.tolist())
        similarity = self._similarity(features, outcome, order)
        changes: tuple[Counterfactual, ...] = ()
        if alternatives:
            changes = counterfactuals(self, chart, grouped, facts, amounts[:, 0], int(order[0]))
        return Differential(
            predictions=predictions,
            other_probability=max(0.0, 1.0 - sum([item.probability for item in predictions])),
            severity=SEVERITIES[int(outcome.severity.argmax())],
            severity_probabilities=tuple(outcome.severity.tolist()),
            immediate_logit=outcome.immediate_logit,
            rules_weight=stack.immediate[0],
            contributions=self._contributions(facts, amounts, shown),
            counterfactuals=changes,
            next_steps=self._next_steps.best(features, outcome.disease, order, self.diseases),
            set_size=size,
            coverage=stack.coverage,
            similarity=similarity,
        )

    def _listed(
        self, outcome: Outcome, order: NDArray[np.intp], in_set: NDArray[np.bool_]
    ) -> NDArray[np.intp]:
        probability = outcome.disease[order]
        wanted = int(np.count_nonzero((probability >= LISTED_PROBABILITY) | in_set[order]))
        return order[: min(max(wanted, LISTED_AT_LEAST), LISTED_AT_MOST)]

    def _predictions(
        self,
        outcome: Outcome,
        listed: NDArray[np.intp],
        in_set: NDArray[np.bool_],
        baseline: list[float],
    ) -> tuple[Prediction, ...]:
        """The diseases listed; those whose facts are not worked out have no baseline but their score."""
        found = []
        rows = zip(
            listed.tolist(),
            outcome.disease[listed].tolist(),
            outcome.margins[listed].tolist(),
            in_set[listed].tolist(),
            strict=True,
        )
        for place, (number, probability, score, inside) in enumerate(rows):
            disease = self.diseases[number]
            found.append(
                Prediction(
                    disease.id,
                    disease.en,
                    probability,
                    self._codings[number],
                    "",
                    disease.es,
                    score,
                    baseline[place] if place < EXPLAINED else score,
                    inside,
                    disease.immediate,
                    disease.recommend,
                )
            )
        return tuple(found)

    def _facts(self, features: Features) -> tuple[list[Fact], NDArray[np.intp]]:
        """The clinical facts, and the fact of each item: what one resource says is one fact.

        What it denies is a fact beside what it says, and of an encounter every reason is one of its own.
        """
        facts: list[Fact] = []
        owner = np.empty(len(features.items), dtype=np.intp)
        known: dict[tuple[str, ...], int] = {}
        for number, item in enumerate(features.items):
            fact = self._fact(item, features)
            if fact.sources and fact.kind in ("finding", "problem"):
                reason = any(map(_of_encounter, fact.sources))
                key = (fact.state, fact.label if reason else "", *fact.sources)
                held = known.get(key)
                if held is not None:
                    owner[number] = held
                    continue
                known[key] = len(facts)
            owner[number] = len(facts)
            facts.append(fact)
        return facts, owner

    def _fact(self, item: Item, features: Features) -> Fact:
        if isinstance(item, str):
            if item == "age" and features.age_years is not None:
                return Fact("demographic", "age", "Age", value=float(int(features.age_years)), unit="a")
            if item == "sex":
                return Fact("demographic", "sex", "Sex", text_value=features.sex)
            return Fact("demographic", item, item.capitalize())
        if isinstance(item, FamilyCondition):
            return Fact("family", item.icd10cm or item.hpo or "", item.label, item.sources)
        fact = fact_of(item, self._analytes)
        if isinstance(item, Problem) and item.status == "absent":
            return msgspec.structs.replace(fact, state="absent")
        return fact

    def _contributions(
        self, facts: list[Fact], amounts: NDArray[np.float64], shown: NDArray[np.intp]
    ) -> tuple[Contribution, ...]:
        found: list[Contribution] = []
        targets = [*[self.diseases[int(d)].id for d in shown], IMMEDIATE]
        orders = np.argsort(-np.abs(amounts), axis=0, kind="stable").T.tolist()
        for target, column, order in zip(targets, amounts.T.tolist(), orders, strict=True):
            found += [Contribution(target, facts[row], column[row]) for row in order if column[row] != 0.0]
        return tuple(found)

    def _similarity(self, features: Features, outcome: Outcome, order: NDArray[np.intp]) -> float:
        """How well one of the leading diseases explains what is present, as a share of known patients whom
        none explains as well.

        Drawn to a root so that 0.2 (the policy's default threshold) is reached by 2 % of known patients.
        """
        present = [stated.finding for stated in features.stated if stated.value > 0]
        if not present:
            return 1.0
        value = float(explained(self._explains, present, order[:EXPLAINERS]))
        share = float(np.interp(value, self._quantiles, self._levels))
        return float(share**SIMILARITY_POWER)


EXPLAINERS = 10
"""Leading diseases of which one should explain what is present."""
HARDLY = 0.003
"""Chance under which a finding is no better explained by one disease than by another."""


def explaining(chance: NDArray[np.floating]) -> NDArray[np.float32]:
    """What `explained` adds up: logarithms of P(finding | disease) [V, D], no lower than that of `HARDLY`."""
    return np.asarray(np.log(np.maximum(chance, HARDLY)), dtype=np.float32)


def explained(explains: NDArray[np.float32], present: Sequence[int], leading: NDArray[np.intp]) -> np.float32:
    """The mean log chance of what is present in the disease of `leading` that explains it best."""
    chances = explains.take(present, axis=0).take(leading, axis=1)
    return np.float32(chances.mean(axis=0).max())


_of_encounter = methodcaller("startswith", "Encounter/")
SIMILARITY_POWER = float(np.log(0.2) / np.log(0.02))


def stack_tests(arrays: Arrays) -> tuple[str, ...]:
    """The tests (action ids) of a bundle, in the order of the rows of ``knowledge.test``."""
    return tuple(str(name) for name in arrays["knowledge.test_names"])


def _regroup(outcome: Outcome, owner: NDArray[np.intp]) -> Outcome:
    """The outcome with features and evidence owned by facts instead of items."""
    if not len(owner):
        return outcome
    evidence = outcome.evidence
    # Of what no item owns (-1) the owner is none too.
    by_item = np.append(owner, -1)
    return msgspec.structs.replace(
        outcome,
        owner=by_item.take(outcome.owner, mode="wrap"),
        evidence=msgspec.structs.replace(
            evidence,
            items=owner.take(evidence.items),
            measured_items=owner.take(evidence.measured_items),
        ),
    )
