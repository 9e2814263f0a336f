"""What every source of rows reads with: terminology, knowledge, feature schema, label codes.

Responsible for the last step that all sources share: chart to row, by the reader of serving.
"""

from collections import Counter
from datetime import datetime

from fhir_adapters.chart_builder import ChartBuilder
from fhir_adapters.collected import Resources
from fhir_adapters.features import FeatureReader, FeatureSchema
from models.assessment import SEVERITIES, Severity
from models.knowledge.loader import age_band, load_knowledge
from models.knowledge.schema import Disease, Knowledge
from training.datasets.format import Row
from training.datasets.labels import LabelMap
from training.feature_schema import build_schema


class DatasetContext:
    """Loaded once per run; immutable."""

    def __init__(self, builder: ChartBuilder, knowledge: Knowledge) -> None:
        self.builder = builder
        self.knowledge = knowledge
        self.schema: FeatureSchema = build_schema(knowledge, builder.tables.ontology)
        self.reader = FeatureReader(self.schema, builder.tables.ontology)
        codes = (row.key.removeprefix("ICD:") for row in knowledge.findings if row.key.startswith("ICD:"))
        self.labels = LabelMap(knowledge.diseases, builder.tables.concepts, builder.tables.matcher, codes)
        self._severity = {disease.id: usual_severity(disease) for disease in knowledge.diseases}

    @classmethod
    def load(cls) -> "DatasetContext":
        """With the packaged terminology and knowledge; raises what their loaders raise."""
        builder = ChartBuilder.load()
        return cls(builder, load_knowledge(builder.tables.ontology))

    def row(
        self,
        found: Resources,
        at: datetime,
        left_out: Counter[str],
        *,
        patient: str,
        visit: int,
        disease: str,
        severity: str | None,
        immediate: bool | None,
        encounter_id: str,
        settings: tuple[str, ...] | None = None,
    ) -> Row | str:
        """The row of a chart, or the reason why it is none.

        `at` is the decision (aware), `patient` the pseudonym, `visit` the number of the visit among the
        patient's.  `severity` is the label if known, else the disease's usual one is taken.  Read issues
        are counted in `left_out`.
        """
        chart = self.builder.build(found, at=at, patient_id=None, encounter_id=encounter_id)
        left_out.update(issue.code for issue in chart.issues)
        setting = chart.encounter.setting if chart.encounter is not None else "unknown"
        if settings is not None and setting not in settings:
            return "setting-not-wanted"
        features = self.reader.read(chart)
        if all(place >= self.reader.at_person for place in features.index):
            return "nothing-recorded"
        said = [stated for stated in features.stated if stated.value > 0]
        years = features.age_years
        return Row(
            patient=patient,
            visit=visit,
            index=features.index,
            value=features.values,
            said_index=tuple(stated.finding for stated in said),
            said_value=tuple(stated.value for stated in said),
            denied=tuple(sorted(stated.finding for stated in features.stated if stated.value < 0)),
            disease=disease,
            severity=severity or self._severity[disease],
            immediate=immediate,
            setting=setting,
            age_band=-1 if years is None else age_band(years),
            sex=features.sex,
        )


def usual_severity(disease: Disease) -> str:
    """The most probable severity class of a disease by the weights of its grades (the graver of equals)."""
    weights: dict[Severity, float] = {}
    for grade in disease.grades:
        weights[grade.severity] = weights.get(grade.severity, 0.0) + grade.weight
    return max(weights, key=lambda name: (weights[name], SEVERITIES.index(name)))
