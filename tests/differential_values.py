"""A hand-made differential (pneumonia before bronchitis) for the tests of cards, `$assess` and the form."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_adapters.chart import Finding, PatientChart, Subject
from models.assessment import (
    Assessment,
    Contribution,
    Counterfactual,
    Escalation,
    Fact,
    NextStep,
    Prediction,
)

AT = datetime(2026, 11, 21, 5, 40, tzinfo=UTC)
ICD10, ICD10CM, SNOMED = (
    "http://hl7.org/fhir/sid/icd-10",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "http://snomed.info/sct",
)
SPANISH = {
    "8310-5": "Temperatura corporal",
    "59408-5": "Saturación de oxígeno",
    "1988-5": "Proteína C reactiva",
    "HP:0012735": "Tos",
    "HP:0030830": "Crepitantes",
    "HP:0033771": "Dolor torácico pleurítico",
    "HP:0031245": "Tos productiva",
}


def names(fact: Fact, language: str) -> str:
    """What the terminology of the server would call a fact."""
    return SPANISH.get(fact.code, fact.label) if language == "es" else fact.label


def measured(loinc: str, label: str, value: float, unit: str, hours: float = 0.5) -> Fact:
    """A measurement some hours ago."""
    time = AT - timedelta(hours=hours)
    return Fact("measurement", loinc, label, (f"Observation/{loinc}",), value, unit, time=time)


def finding(hpo: str, label: str, source: str, state: Any = "present") -> Fact:
    """A finding of the record."""
    return Fact("finding", hpo, label, (source,), state=state)


TEMPERATURE = measured("8310-5", "Body temperature", 39.4, "Cel")
SPO2 = measured("59408-5", "Oxygen saturation", 93, "%")
CRP = measured("1988-5", "C-reactive protein", 120, "mg/L", hours=30)
COUGH = finding("HP:0012735", "Cough", "Condition/cough")
CRACKLES = finding("HP:0030830", "Crackles", "Condition/crackles")
NO_PAIN = finding("HP:0033771", "Pleuritic chest pain", "Condition/pain", "absent")
AGE = Fact("demographic", "age", "Age", (), 67, "a")


def disease(name: str, en: str, es: str, probability: float, icd10: str, **more: Any) -> Prediction:
    """A prediction with its ICD-10, ICD-10-CM and SNOMED CT codes."""
    codings = ((ICD10, icd10, en), (ICD10CM, f"{icd10}.9", en), (SNOMED, "233604007", en))
    return Prediction(name, en, probability, codings, label_es=es, **more)


PNEUMONIA = disease(
    "community-acquired-pneumonia", "Community-acquired pneumonia", "Neumonía adquirida en la comunidad",
    0.62, "J18", in_set=True, recommend=("chest-x-ray", "crp", "blood-cultures", "safety-netting"),
)  # fmt: skip
BRONCHITIS = disease("acute-bronchitis", "Acute bronchitis", "Bronquitis aguda", 0.18, "J20", in_set=True)
INFLUENZA = disease("influenza", "Influenza", "Gripe", 0.06, "J11", in_set=True)
EMBOLISM = disease("pulmonary-embolism", "Pulmonary embolism", "Embolia pulmonar", 0.03, "I26")
CROHN = disease("crohn-disease", "Crohn disease", "Enfermedad de Crohn", 0.021, "K50")
HEALTHY = disease("healthy-checkup", "Health check-up", "Revisión de salud", 0.9, "Z00")
COMMON = (PNEUMONIA, BRONCHITIS, INFLUENZA, EMBOLISM, CROHN)
EXPLANATION = (
    Contribution(PNEUMONIA.id, CRACKLES, 1.1),
    Contribution(PNEUMONIA.id, TEMPERATURE, 1.4),
    Contribution(PNEUMONIA.id, COUGH, 0.8),
    Contribution(PNEUMONIA.id, AGE, 0.5),
    Contribution(PNEUMONIA.id, NO_PAIN, -0.4),
    Contribution(PNEUMONIA.id, CRP, -0.2),
    Contribution(BRONCHITIS.id, COUGH, 0.9),
    Contribution(BRONCHITIS.id, CRP, -0.7),
    Contribution(INFLUENZA.id, TEMPERATURE, 0.8),
    Contribution(INFLUENZA.id, CRACKLES, -0.8),
    Contribution("immediate-attention", SPO2, 0.8),
)
COUNTERFACTUALS = (
    Counterfactual(SPO2, PNEUMONIA.id, 0.62, 0.41, 97.0),
    Counterfactual(CRACKLES, PNEUMONIA.id, 0.62, 0.3, state="absent"),
    Counterfactual(COUGH, PNEUMONIA.id, 0.62, 0.5, state="unknown"),
)
NEXT_STEPS = (
    NextStep("ask", "HP:0031245", "Productive cough", 0.2, (PNEUMONIA.id, BRONCHITIS.id)),
    NextStep("ask", "ICD:R10.82", "Rebound tenderness", 0.1, (PNEUMONIA.id, INFLUENZA.id)),
    NextStep("test", "procalcitonin", "procalcitonin", 0.15, (PNEUMONIA.id, BRONCHITIS.id)),
    NextStep("test", "chest-x-ray", "chest-x-ray", 0.4, (PNEUMONIA.id, BRONCHITIS.id)),
)


def ill_chart(**changes: Any) -> PatientChart:
    """A woman of 54 who came with a cough."""
    values: dict[str, Any] = {
        "subject": Subject("p1", "female", 20000),
        "at": AT,
        "encounter": None,
        "findings": (Finding("HP:0012735", "Cough", "present", "complaint", ("Condition/cough",)),),
        "problems": (),
        "measurements": {},
        "coded": {},
    }
    return PatientChart(**(values | changes))


def ill(**changes: Any) -> Assessment:
    """What a learned engine says of her; no rule speaks."""
    values: dict[str, Any] = {
        "severity": "acute-disease",
        "severity_probabilities": (0.02, 0.08, 0.2, 0.65, 0.05),
        "immediate": False,
        "immediate_probability": 0.12,
        "escalation": Escalation("none", "engines-agree"),
        "scores": (),
        "red_flags": (),
        "critical_values": (),
        "recommendations": (),
        "order_concerns": (),
        "common": COMMON,
        "rare": (),
        "rare_alarm": False,
        "rare_alarm_probability": 0.0,
        "explanation": EXPLANATION,
        "missing": (),
        "model": "common-1.0+0123456789ab",
        "knowledge": "rules-1+sha256.0123456789",
        "other_probability": 0.089,
        "coverage": 0.9,
        "set_size": 3,
        "similarity": 0.6,
        "counterfactuals": COUNTERFACTUALS,
        "next_steps": NEXT_STEPS,
    }
    return Assessment(**(values | changes))
