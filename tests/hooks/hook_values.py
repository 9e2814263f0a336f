"""Hand-made charts and assessments, and hypothesis strategies over the contract, for the tests of hooks."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import strategies as st

from fhir_adapters.chart import Encounter, Finding, Order, PatientChart, ReadIssue, Subject, Unmapped
from models.assessment import (
    SEVERITIES,
    Assessment,
    Contribution,
    Counterfactual,
    CriticalValue,
    Escalation,
    Fact,
    Missing,
    NextStep,
    OrderConcern,
    Prediction,
    Recommendation,
    RedFlag,
    Score,
    ScorePart,
)

AT = datetime(2026, 11, 21, 5, 40, tzinfo=UTC)
RULES = Path(__file__).parents[2] / "models" / "rules" / "data"
ACTIONS = [row["id"] for row in tomllib.loads((RULES / "actions.toml").read_text("utf-8"))["action"]]


def chart(**changes) -> PatientChart:
    values = {
        "subject": Subject("p1", "female", 20000),
        "at": AT,
        "encounter": None,
        "findings": (),
        "problems": (),
        "measurements": {},
        "coded": {},
    }
    return PatientChart(**(values | changes))


def assessment(**changes) -> Assessment:
    values = {
        "severity": "no-disease",
        "severity_probabilities": (1.0, 0.0, 0.0, 0.0, 0.0),
        "immediate": False,
        "immediate_probability": 0.01,
        "escalation": Escalation("none", "engines-agree"),
        "scores": (),
        "red_flags": (),
        "critical_values": (),
        "recommendations": (),
        "order_concerns": (),
        "common": (),
        "rare": (),
        "rare_alarm": False,
        "rare_alarm_probability": 0.0,
        "explanation": (),
        "missing": (),
        "model": "rules-2026.11",
        "knowledge": "rules-2026.11",
    }
    return Assessment(**(values | changes))


def measured(loinc: str, label: str, value: float, unit: str, hours: float = 0.5) -> Fact:
    return Fact(
        "measurement", loinc, label, (f"Observation/{loinc}",), value, unit, time=AT - timedelta(hours=hours)
    )


def finding(hpo: str, label: str, source: str = "Condition/c") -> Fact:
    return Fact("finding", hpo, label, (source,))


def news2(value: int, band: str, urgency: str | None, *facts: Fact, stale=False, missing=()) -> Score:
    points = [3] * len(facts)
    if facts:
        points[-1] = value - 3 * (len(facts) - 1)
    parts = tuple(ScorePart(f"p{n}", points[n], fact) for n, fact in enumerate(facts))
    return Score(
        "news2",
        value,
        20,
        band,
        not missing,
        parts,
        missing,
        urgency,
        stale,
        facts[0].time if facts else None,
        "RCP NEWS2 2017",
    )


# -- strategies ---------------------------------------------------------------------------------

nasty = st.sampled_from(
    [
        "[click](http://evil.com)",
        "![x](https://e.vil/a.png)",
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "# Heading\n\n## another",
        "www.evil.com",
        "https://evil.com/?a=b",
        "ftp://evil.com",
        "//evil.com",
        "mail a@evil.com now",
        "mailto:a@evil.com",
        "evil.com",
        "<http://evil.com>",
        "&lt;b&gt; &#60;i&#62;",
        "a | b | c",
        "`code` ~~gone~~ **bold** _it_",
        "- list\n- list",
        "1. one\n2. two",
        "> quote",
        "---\n===",
        "[ref]: http://evil.com",
        "\u202eevil\u202c \u200b\u2066x",
        "Potassium {value} {0} %s",
        "\\[x\\](http://evil.com)",
        "\\",
        "http\\://evil.com",
        "[x]\n(http://evil.com)",
        "\ud800 lone",
        "\x00\x1b[31m",
        "[^1]",
        "$$x$$",
        "- [ ] task",
        "# h",
    ]
)
labels = st.one_of(
    st.text(min_size=1, max_size=40).filter(lambda t: t.strip() != ""),
    nasty,
    st.builds(lambda a, b: a + b, nasty, nasty),
    st.sampled_from(["Lactate", "Chest pain", "Fiebre"]),
)
ids = st.sampled_from(["p-a", "p-b", "p-c", "p-d", "p-e", "p-f"])
urgencies = st.sampled_from(["immediate", "urgent", "soon", "routine"])
action_ids = st.sampled_from([*ACTIONS, "not-yet-known"])
times = st.one_of(st.none(), st.integers(0, 60 * 24 * 40).map(lambda m: AT - timedelta(minutes=m)))
facts = st.builds(
    Fact,
    kind=st.sampled_from(
        ["measurement", "coded", "finding", "problem", "medication", "allergy", "demographic"]
    ),
    code=st.sampled_from([f"c{n}" for n in range(12)]),
    label=labels,
    sources=st.lists(
        st.one_of(st.sampled_from(["Observation/1", "Observation/2", "Condition/1"]), labels), max_size=3
    ).map(tuple),
    value=st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    unit=st.one_of(st.none(), st.sampled_from(["mmol/L", "mm[Hg]", "{score}"]), labels),
    text_value=st.one_of(st.none(), st.just("voice"), labels),
    state=st.sampled_from(["present", "absent", "uncertain"]),
    time=times,
)
fact_lists = st.lists(facts, max_size=6).map(tuple)
actions_lists = st.lists(action_ids, max_size=6).map(tuple)
sources = st.one_of(st.just(""), st.just("NICE NG51"), labels)
red_flags = st.builds(
    RedFlag, ids, urgencies, fact_lists, st.just(("A41.9",)), actions_lists, sources, st.booleans()
)
scores = st.builds(
    Score,
    id=st.sampled_from(["news2", "qsofa", "unknown-score"]),
    value=st.integers(0, 20).map(float),
    maximum=st.one_of(st.none(), st.just(20.0)),
    band=st.sampled_from(["high", "low", "new-band"]),
    complete=st.booleans(),
    parts=st.lists(st.builds(ScorePart, ids, st.integers(0, 3), st.one_of(st.none(), facts)), max_size=5).map(
        tuple
    ),
    missing=st.lists(st.sampled_from(["spo2", "new-thing"]), max_size=2, unique=True).map(tuple),
    urgency=st.one_of(st.none(), urgencies),
    stale=st.booleans(),
    observed_at=times,
    source=sources,
)
critical_values = st.builds(
    CriticalValue,
    ids,
    facts,
    st.sampled_from(["low", "high"]),
    st.floats(0.1, 500),
    urgencies,
    actions_lists,
    sources,
    st.booleans(),
)
recommendations = st.builds(
    Recommendation, action_ids, urgencies, st.lists(ids, max_size=3).map(tuple), st.one_of(st.none(), labels)
)
concerns = st.builds(
    OrderConcern,
    kind=st.sampled_from(
        ["duplicate", "allergy", "contraindicated", "missing", "harmful-in-diagnosis", "separating-test"]
    ),
    rule=st.one_of(ids, st.sampled_from(["harm-nsaid-ulcer", "harm-thrombolytic-brain-tumour"])),
    order=st.sampled_from(["ServiceRequest/a", "MedicationRequest/b", "MedicationRequest/c", "entry[3]"]),
    order_label=labels,
    urgency=urgencies,
    facts=fact_lists,
    actions=actions_lists,
    source=sources,
    diagnoses=st.lists(ids, max_size=3, unique=True).map(tuple),
)
predictions = st.builds(
    Prediction, id=ids, label=labels, probability=st.floats(0, 1), codings=st.just(()), rationale=st.just("")
)
differentials = st.lists(
    st.builds(
        Prediction,
        id=ids,
        label=labels,
        label_es=labels,
        probability=st.floats(0, 1),
        codings=st.just((("http://hl7.org/fhir/sid/icd-10", "A41", ""),)),
        in_set=st.booleans(),
        recommend=actions_lists,
    ),
    unique_by=lambda one: one.id,
    max_size=6,
).map(lambda found: tuple(sorted(found, key=lambda one: -one.probability)))
counterfactuals = st.builds(
    Counterfactual,
    fact=facts,
    target=st.one_of(ids, st.just("immediate-attention")),
    before=st.floats(0, 1),
    after=st.floats(0, 1),
    value=st.one_of(st.none(), st.floats(0, 500)),
    state=st.sampled_from([None, "present", "absent", "unknown"]),
)
next_steps = st.one_of(
    st.builds(
        NextStep, st.just("ask"), labels, labels, st.floats(0, 2), st.lists(ids, max_size=2).map(tuple)
    ),
    st.builds(
        NextStep, st.just("test"), action_ids, labels, st.floats(0, 2), st.lists(ids, max_size=2).map(tuple)
    ),
)
issues = st.builds(
    ReadIssue,
    code=st.sampled_from(["unknown-unit", "impossible-value", "fetch-failed", "truncated", "other-patient"]),
    reference=st.one_of(st.sampled_from(["Observation/1", "Condition?patient=1"]), labels),
    path=labels,
)
assessments = st.builds(
    assessment,
    severity=st.sampled_from(SEVERITIES),
    immediate=st.booleans(),
    immediate_probability=st.floats(0, 1),
    escalation=st.sampled_from(["none", "red-flag", "rare-disease-alarm", "precaution", "atypical-case"]).map(
        lambda code: Escalation(code, "x")
    ),
    scores=st.lists(scores, unique_by=lambda v: v.id, max_size=3).map(tuple),
    red_flags=st.lists(red_flags, unique_by=lambda v: v.id, max_size=5).map(tuple),
    critical_values=st.lists(critical_values, unique_by=lambda v: v.id, max_size=4).map(tuple),
    recommendations=st.lists(recommendations, max_size=8).map(tuple),
    order_concerns=st.lists(concerns, unique_by=lambda c: (c.rule, c.order), max_size=6).map(tuple),
    common=differentials,
    set_size=st.one_of(st.none(), st.integers(0, 40)),
    coverage=st.one_of(st.none(), st.just(0.9)),
    similarity=st.one_of(st.none(), st.floats(0, 1)),
    counterfactuals=st.lists(counterfactuals, max_size=3).map(tuple),
    next_steps=st.lists(next_steps, max_size=5).map(tuple),
    rare=st.lists(predictions, max_size=4).map(tuple),
    rare_alarm=st.booleans(),
    explanation=st.lists(
        st.builds(
            Contribution, st.sampled_from(["immediate-attention", "p-a", "p-b"]), facts, st.floats(-1, 1)
        ),
        max_size=5,
    ).map(tuple),
    missing=st.lists(
        st.builds(Missing, st.sampled_from(["spo2", "new-thing"]), st.just(("news2",))), max_size=2
    ).map(tuple),
    knowledge=labels,
)
charts = st.builds(
    chart,
    findings=st.sampled_from(
        [(), (Finding("HP:0012735", "Cough", "present", "complaint", ("Condition/cough",)),)]
    ),
    encounter=st.one_of(
        st.none(),
        st.sampled_from(["emergency", "ambulatory"]).map(lambda setting: Encounter("Encounter/e", setting)),
    ),
    orders=st.just(
        (
            Order("ServiceRequest", "ServiceRequest/a", "Lactate", True),
            Order("MedicationRequest", "MedicationRequest/b", "Amoxicillin", True),
        )
    ),
    issues=st.lists(issues, max_size=4).map(tuple),
    unmapped=st.lists(st.just(Unmapped("Condition/9", "s", "c")), max_size=2).map(tuple),
    sections_missing=st.lists(st.sampled_from(["AllergyIntolerance", "Condition", "New"]), unique=True).map(
        tuple
    ),
)
