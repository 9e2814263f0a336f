"""The `Assessment`: everything the engines say about one chart, as values and without a word for people.

Texts live in `hooks/texts`; an assessment carries stable ids (``"news2"``, ``"red-flag.thunderclap"``)
and the facts behind them.  Deterministic: the same chart and bundle give the same bytes
(`msgspec.json.encode` of it).  Nothing here computes.
"""

from datetime import datetime
from typing import Literal

import msgspec

from models.rare.assessment import RareAssessment, Relative

Severity = Literal["no-disease", "mild-discomfort", "mild-disease", "acute-disease", "chronic-disease"]
SEVERITIES: tuple[Severity, ...] = (
    "no-disease",
    "mild-discomfort",
    "mild-disease",
    "acute-disease",
    "chronic-disease",
)
EscalationCode = Literal["none", "red-flag", "rare-disease-alarm", "precaution", "atypical-case"]
Urgency = Literal["immediate", "urgent", "soon", "routine"]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """One clinical fact a statement rests on.

    `kind` says which vocabulary `code` is of: ``measurement`` and ``coded`` LOINC, ``finding`` HPO,
    ``problem`` ICD-10-CM, ``medication`` ATC, ``allergy`` ATC, ``demographic`` one of ``age``,
    ``sex``, ``pregnancy``.  `value`/`unit` are canonical for measurements, `text_value` is the key of
    a coded value.  `sources` are the FHIR references behind it.
    """

    kind: Literal[
        "measurement",
        "coded",
        "finding",
        "problem",
        "medication",
        "allergy",
        "demographic",
        "family",
        "immunization",
        "procedure",
    ]
    code: str
    label: str
    sources: tuple[str, ...] = ()
    value: float | None = None
    unit: str | None = None
    text_value: str | None = None
    state: Literal["present", "absent", "uncertain"] = "present"
    time: datetime | None = None


class ScorePart(msgspec.Struct, frozen=True, gc=False):
    """The points one parameter of a score gave; `fact` is `None` when the parameter was not measured."""

    parameter: str
    points: int
    fact: Fact | None = None


class Score(msgspec.Struct, frozen=True, gc=False):
    """A published score.

    `value` is the sum over the parameters that could be scored, `complete` whether all could,
    `missing` the ids of those that could not (texts: ``parameter.<id>``).  `band` is the publication's
    own risk band (texts: ``score.<id>.band.<band>``).  `stale` marks a score from measurements older
    than the window for acute decisions; such a score never escalates on its own.
    """

    id: str
    value: float
    maximum: float | None
    band: str
    complete: bool
    parts: tuple[ScorePart, ...]
    missing: tuple[str, ...] = ()
    urgency: Urgency | None = None
    stale: bool = False
    observed_at: datetime | None = None
    source: str = ""


class RedFlag(msgspec.Struct, frozen=True, gc=False):
    """A red-flag combination that is met (texts: ``red-flag.<id>.summary`` and ``.detail``)."""

    id: str
    urgency: Urgency
    facts: tuple[Fact, ...]
    suspects: tuple[str, ...]
    actions: tuple[str, ...]
    source: str
    stale: bool = False


class CriticalValue(msgspec.Struct, frozen=True, gc=False):
    """A laboratory value or vital sign beyond a published critical limit."""

    id: str
    fact: Fact
    direction: Literal["low", "high"]
    limit: float
    urgency: Urgency
    actions: tuple[str, ...]
    source: str
    stale: bool = False


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """Something to do, as the id of an action of `models/rules/data/actions.toml`.

    `because` lists the ids (scores, red flags, critical values, diagnoses) that ask for it, gravest first.
    `already` is the reference of a recent result or open order that already answers it.
    """

    action: str
    urgency: Urgency
    because: tuple[str, ...]
    already: str | None = None


class OrderConcern(msgspec.Struct, frozen=True, gc=False):
    """Something to say about an order being picked (`order-select`).

    `kind`: ``duplicate`` (a recent result or open order already answers it; `facts` holds it),
    ``allergy``, ``contraindicated`` (drug against a problem, pregnancy or measurement), ``missing``
    (a rule asks for a test that is not among the drafts).  Texts: ``order.<rule>``.
    ``harmful-in-diagnosis``: a drug that does harm in a leading disease of the differential (`rule` is a
    row of ``drug_harms.csv``, which holds the sentence); ``separating-test``: the test that would tell
    leading diseases apart best (`order` empty).  Both name the diseases (`Prediction.id`) in `diagnoses`.
    """

    kind: Literal[
        "duplicate",
        "allergy",
        "contraindicated",
        "missing",
        "harmful-in-diagnosis",
        "separating-test",
    ]
    rule: str
    order: str
    order_label: str
    urgency: Urgency
    facts: tuple[Fact, ...]
    actions: tuple[str, ...] = ()
    source: str = ""
    diagnoses: tuple[str, ...] = ()


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One disease of a differential.  `codings` are ``(system, code, display)``.

    `label`/`label_es` are its names in both languages.  `probability` is calibrated; `score` is the
    evidence in log-odds that it was made from and `baseline` the score of a patient about whom nothing
    is recorded: `baseline` plus the `Contribution` amounts of this `id` is `score`.  `in_set` says
    whether it belongs to the conformal set, `immediate` the chance of needing attention within minutes
    if this is the disease, `recommend` the ids of actions to consider first.
    """

    id: str
    label: str
    probability: float
    codings: tuple[tuple[str, str, str], ...]
    rationale: str = ""
    label_es: str = ""
    score: float = 0.0
    baseline: float = 0.0
    in_set: bool = False
    immediate: float = 0.0
    recommend: tuple[str, ...] = ()


class Counterfactual(msgspec.Struct, frozen=True, gc=False):
    """What would change if one fact were otherwise: "if SpO2 were 97 % ...".

    `fact` is the fact as it is; `value` (canonical unit) or `state` what it is imagined to be.  `target`
    is a disease id or ``immediate-attention``, `before`/`after` its probability.
    """

    fact: Fact
    target: str
    before: float
    after: float
    value: float | None = None
    state: Literal["present", "absent", "unknown"] | None = None


class NextStep(msgspec.Struct, frozen=True, gc=False):
    """Something to find out next, by how much it would tell the leading diagnoses apart.

    `kind` is ``ask`` (a finding to ask or look for, `code` its key) or ``test`` (an action to order,
    `code` its id).  `gain` is the expected information in bits about which disease it is;
    `separates` are the ids of the two leading diseases it speaks most differently about.
    """

    kind: Literal["ask", "test"]
    code: str
    label: str
    gain: float
    separates: tuple[str, ...] = ()


class Contribution(msgspec.Struct, frozen=True, gc=False):
    """How much one fact moved one output (`target`: ``immediate-attention`` or a disease id), signed."""

    target: str
    fact: Fact
    amount: float


class Escalation(msgspec.Struct, frozen=True, gc=False):
    """The policy's decision: its code, the rule that fired and the ids of the statements behind it."""

    code: EscalationCode
    rule: str
    because: tuple[str, ...] = ()


class Missing(msgspec.Struct, frozen=True, gc=False):
    """Something the assessment did without (texts: ``missing.<id>``), and what it would have been for."""

    id: str
    needed_for: tuple[str, ...]


class RareOpinion(msgspec.Struct, frozen=True):
    """Why the rare-disease engine holds what it holds.

    `assessed` is its whole answer: its `candidates` are those of `Assessment.rare` in the same order.
    `findings` is the phenotype it was asked about, with sources; `labels` the HPO name of every finding it
    speaks of.  `set_aside` are findings that an emergency explains, which the alarm did not count;
    `excluded` the evidence it was asked to do without.  `relatives` is the family history that names a
    disease or shares a finding; `related_parents` are the resources that say the parents are related by
    blood.  Relatives' diseases count in the scores (share ``family-history``), all else is shown only.
    """

    assessed: RareAssessment
    findings: tuple[Fact, ...]
    labels: tuple[tuple[str, str], ...]
    set_aside: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    relatives: tuple[Relative, ...] = ()
    related_parents: tuple[str, ...] = ()


class Assessment(msgspec.Struct, frozen=True):
    """The whole answer.  `severity_probabilities` follows `SEVERITIES` and sums to 1.

    `immediate` is the decision, `immediate_probability` its calibrated probability.  `model` is the id
    of the model bundle, `knowledge` of the rule data.  `common` and `rare` are sorted by falling
    probability; `other_probability` is what the diseases not listed in `common` share.

    The true disease is among those marked `in_set` in `coverage` (for example 0.9) of such patients
    (`set_size` counts them all, listed or not; both are `None` without a learned engine).
    `similarity` (0 to 1) says how much the chart resembles the patients the engine was trained on.

    `rare` and `rare_opinion` are filled when the alarm is on or a thorough assessment was asked for.
    """

    severity: Severity
    severity_probabilities: tuple[float, float, float, float, float]
    immediate: bool
    immediate_probability: float
    escalation: Escalation
    scores: tuple[Score, ...]
    red_flags: tuple[RedFlag, ...]
    critical_values: tuple[CriticalValue, ...]
    recommendations: tuple[Recommendation, ...]
    order_concerns: tuple[OrderConcern, ...]
    common: tuple[Prediction, ...]
    rare: tuple[Prediction, ...]
    rare_alarm: bool
    rare_alarm_probability: float
    explanation: tuple[Contribution, ...]
    missing: tuple[Missing, ...]
    model: str
    knowledge: str
    other_probability: float = 0.0
    coverage: float | None = None
    set_size: int | None = None
    similarity: float | None = None
    counterfactuals: tuple[Counterfactual, ...] = ()
    next_steps: tuple[NextStep, ...] = ()
    rare_opinion: RareOpinion | None = None
