"""The simple form, in and out, as documented types: what `/docs` shows is what is checked.

Only shapes and ranges that a form must keep; what the values mean is read by the same chart builder as
any FHIR record (`cds_server.api.bundle`).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"\S"}),
]
Code = Annotated[str, StringConstraints(pattern=r"^(HP:\d{7}|\d{6,18}|[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?)$")]
Severity = Literal["no-disease", "mild-discomfort", "mild-disease", "acute-disease", "chronic-disease"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class _Named(_Strict):
    """Something that must have a name or a code; the description says so too."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [member], "properties": {member: {"type": "string"}}}
                for member in ("name", "code")
            ]
        }
    )


class Symptom(_Named):
    """A sign or symptom, by name or by code."""

    name: Name | None = Field(None, description="In English or Spanish, e.g. 'chest pain'.")
    code: Code | None = Field(
        None, description="HPO (HP:0100749), SNOMED CT (29857009) or ICD-10-CM (R07.9)."
    )
    intensity: float = Field(
        5,
        ge=0,
        le=10,
        description="0 to 10. 0 says the symptom is absent, anything above that it is present.",
    )

    @model_validator(mode="after")
    def _named(self) -> "Symptom":
        if self.name is None and self.code is None:
            raise ValueError("a symptom needs a name or a code")
        return self


class HistoryItem(_Named):
    """A disease or condition the patient has or had."""

    name: Name | None = Field(None, description="In English or Spanish, e.g. 'type 2 diabetes'.")
    code: Code | None = Field(None, description="ICD-10-CM (E11.9) or SNOMED CT (44054006).")
    active: bool = Field(True, description="false for what is over.")

    @model_validator(mode="after")
    def _named(self) -> "HistoryItem":
        if self.name is None and self.code is None:
            raise ValueError("a history item needs a name or a code")
        return self


class Vitals(_Strict):
    """Vital signs, all measured now; leave out what was not measured."""

    temperature_c: float | None = Field(None, description="Body temperature, °C.")
    heart_rate: float | None = Field(None, description="Beats per minute.")
    respiratory_rate: float | None = Field(None, description="Breaths per minute.")
    systolic_bp: float | None = Field(None, description="mmHg.")
    diastolic_bp: float | None = Field(None, description="mmHg.")
    spo2: float | None = Field(None, description="Oxygen saturation by pulse oximetry, %.")
    oxygen_flow_l_min: float | None = Field(
        None, ge=0, description="Supplemental oxygen, L/min; 0 is room air."
    )
    consciousness: Literal["alert", "confused", "voice", "pain", "unresponsive"] | None = Field(
        None, description="ACVPU."
    )
    pain: float | None = Field(None, ge=0, le=10, description="Pain, 0 to 10.")
    weight_kg: float | None = Field(None, gt=0, description="Body weight, kg.")


class PredictRequest(_Strict):
    """A patient in a few words."""

    age: float | None = Field(None, ge=0, le=130, description="Years; decimals for infants (0.1 is 5 weeks).")
    sex: Literal["female", "male", "other", "unknown"] = "unknown"
    pregnant: bool | None = Field(None, description="Leave out when not known.")
    symptoms: list[Symptom] = Field(default_factory=list, max_length=200)
    history: list[HistoryItem] = Field(default_factory=list, max_length=200)
    vitals: Vitals | None = None
    setting: Literal["emergency", "inpatient", "ambulatory", "home", "virtual"] | None = Field(
        None, description="Where the patient is seen."
    )
    language: Literal["en", "es"] | None = Field(None, description="Of the texts; else Accept-Language.")


class Decision(BaseModel):
    """A yes or no with its probability."""

    decision: bool
    probability: float = Field(ge=0, le=1)


class CodedText(BaseModel):
    """A code of ours with its text."""

    code: str
    text: str


class Candidate(BaseModel):
    """One disease of a differential."""

    id: str = Field(description="Its name in contributions, what_changes and what_next.")
    name: str = Field(description="In the language of the answer.")
    probability: float = Field(ge=0, le=1, description="Calibrated.")
    in_set: bool = Field(False, description="Whether it belongs to the set that `differential` speaks of.")
    codes: list[dict[str, str]] = Field(description="ICD-10, ICD-10-CM, SNOMED CT; OMIM, ORPHA.")
    rationale: str | None = Field(None, description="The facts for it and the strongest against it.")


class Change(BaseModel):
    """What would change if one fact were otherwise."""

    target: str = Field(description="A disease of `common`, or immediate-attention.")
    text: str | None = Field(description="In words; null when the rounded figures are the same.")
    before: float = Field(ge=0, le=1)
    after: float = Field(ge=0, le=1)


class Step(BaseModel):
    """Something to find out next."""

    kind: Literal["ask", "test"]
    code: str = Field(description="A finding to ask or look for, or a test.")
    text: str
    gain: float = Field(description="Expected information about which disease it is, bits.")
    separates: list[str] = Field(description="The two diseases it tells apart best.")


class Differential(BaseModel):
    """What the list of common diseases rests on, and what would help."""

    text: str = Field(description="What it rests on and how far it reaches, in words.")
    coverage: float | None = Field(description="Share of such patients whose true disease is in the set.")
    set_size: int | None = Field(description="Diseases in the set, listed or not.")
    other_probability: float = Field(description="What the diseases not listed share.")
    similarity: float | None = Field(description="To the patients the model was trained on, 0 to 1.")
    what_changes: list[Change]
    what_next: list[Step]
    not_known: list[str] = Field(description="What the model does not know of this patient, in words.")


class Recommended(BaseModel):
    """Something to do."""

    id: str
    text: str
    urgency: Literal["immediate", "urgent", "soon", "routine"]
    because: list[str]


class PredictResponse(BaseModel):
    """The assessment; the same content as the FHIR `Parameters` of `$assess`."""

    severity: CodedText
    severity_probabilities: dict[Severity, float]
    immediate_attention: Decision
    common: list[Candidate] = Field(description="Common diseases by falling probability.")
    differential: Differential | None = Field(description="About `common`; null while it is empty.")
    rare: list[Candidate] = Field(description="Rare diseases by falling probability.")
    rare_alarm: Decision
    escalation: CodedText
    explanation: dict[str, list[dict[str, Any]]] = Field(
        description="Red flags, scores, critical values, and how much each fact moved each target."
    )
    recommendations: list[Recommended]
    missing_information: list[CodedText]
    unreadable: list[dict[str, str]]
    model: str
    knowledge: str
