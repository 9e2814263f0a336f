"""The escalation policy: one pure function and one table of reasons (ARCHITECTURE.md, "Escalation policy").

Responsible for turning what the rules found and what each engine holds into the severity, the
decision on immediate attention and the escalation with the reason that fired.  It computes no
probability and reads no chart.  The same function serves when only the rules vote.

1. A red flag or critical published score always escalates, whatever the engines say.
2. A rare candidate above the alarm threshold raises the rare-disease alarm.
3. Engines that agree on the severity give that severity.
4. Engines that disagree give the graver one, and the decision says so.
5. A chart that resembles nothing known is an atypical case for human review.
"""

from typing import Literal

import msgspec

from models.assessment import (
    CriticalValue,
    Escalation,
    EscalationCode,
    RedFlag,
    Score,
    Severity,
    Urgency,
)

GRAVITY: dict[Severity, int] = {
    "no-disease": 0,
    "mild-discomfort": 1,
    "mild-disease": 2,
    "chronic-disease": 3,
    "acute-disease": 4,
}
URGENCY_RANK: dict[Urgency, int] = {"immediate": 0, "urgent": 1, "soon": 2, "routine": 3}
Reason = Literal[
    "red-flag-immediate",
    "critical-score-immediate",
    "critical-value-immediate",
    "red-flag-urgent",
    "critical-score-urgent",
    "critical-value-urgent",
    "red-flag-soon",
    "rare-candidate-above-threshold",
    "engines-disagree",
    "resembles-nothing-known",
    "engines-agree",
]

# The one table of reasons, in the order in which they are tried.
REASONS: dict[Reason, tuple[EscalationCode, str]] = {
    "red-flag-immediate": ("red-flag", "policy rule 1: a red flag that needs attention now"),
    "critical-score-immediate": ("red-flag", "policy rule 1: a published score in its emergency band"),
    "critical-value-immediate": ("red-flag", "policy rule 1: a critical value that needs attention now"),
    "red-flag-urgent": ("red-flag", "policy rule 1: an urgent red flag"),
    "critical-score-urgent": ("red-flag", "policy rule 1: a published score in its urgent band"),
    "critical-value-urgent": ("red-flag", "policy rule 1: an urgent critical value"),
    "red-flag-soon": ("red-flag", "policy rule 1: a red flag to act on within days to weeks"),
    "rare-candidate-above-threshold": ("rare-disease-alarm", "policy rule 2"),
    "engines-disagree": ("precaution", "policy rule 4: the graver of the engines' severities"),
    "resembles-nothing-known": ("atypical-case", "policy rule 5: human review"),
    "engines-agree": ("none", "policy rule 3"),
}


class PolicySettingsInvalid(ValueError):
    """A policy setting lies outside its allowed range; the message names the setting and the range."""


RANGES: dict[str, tuple[float, float]] = {
    "rare_alarm_threshold": (0.3, 0.99),
    "immediate_threshold": (0.05, 0.9),
    "similarity_threshold": (0.0, 1.0),
}


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a site may set, each within `RANGES`; raises `PolicySettingsInvalid` outside of it.

    rare_alarm_threshold
        Calibrated confidence of a rare candidate above which the alarm is raised (ARCHITECTURE.md).
    immediate_threshold
        Probability above which immediate attention is advised although no rule forces it.  Set a priori
        from the costs, not from data: to miss a patient who cannot wait is held to be four times as
        bad as to call for one who can, so 1 / (1 + 4) = 0.2.  Trauma triage accepts still more
        over-triage for less under-triage (ACS-COT, Resources for Optimal Care of the Injured Patient).
        grade C: estimate of this project.
    similarity_threshold
        Similarity to the nearest known disease under which a chart counts as atypical.
    """

    rare_alarm_threshold: float = 0.7
    immediate_threshold: float = 0.2
    similarity_threshold: float = 0.2

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise PolicySettingsInvalid(f"{name} must lie between {low:g} and {high:g}")


class EngineVote(msgspec.Struct, frozen=True, gc=False):
    """What one engine holds: its severity, its probability of immediate attention, what it knows.

    `immediate_probability` is `None` for an engine that gives none.  `conformal_set_size` (diseases in
    the conformal set) and `similarity` (to the nearest known disease, 0 to 1) are `None` when the
    engine does not judge novelty.
    """

    engine: Literal["rules", "common", "rare"]
    severity: Severity
    immediate_probability: float | None = None
    conformal_set_size: int | None = None
    similarity: float | None = None


class RuleResults(msgspec.Struct, frozen=True):
    """What the rules found, as the policy reads it."""

    red_flags: tuple[RedFlag, ...] = ()
    scores: tuple[Score, ...] = ()
    critical_values: tuple[CriticalValue, ...] = ()


class Decision(msgspec.Struct, frozen=True):
    """The policy's answer.  `reason` is the key of `REASONS` that fired (also `escalation.rule`)."""

    severity: Severity
    immediate: bool
    immediate_probability: float
    escalation: Escalation
    reason: Reason
    rare_alarm: bool


def decide(
    settings: PolicySettings,
    rules: RuleResults,
    votes: tuple[EngineVote, ...],
    rare_alarm_probability: float = 0.0,
) -> Decision:
    """Apply the five rules in their order.

    `votes` holds at least the rules' own vote; `rare_alarm_probability` is the calibrated confidence
    of the best rare candidate (0 when there is none).  Stale scores, flags and values never escalate.
    """
    severities = [vote.severity for vote in votes] or ["no-disease"]
    severity: Severity = max(severities, key=lambda name: GRAVITY[name])
    probabilities = [vote.immediate_probability for vote in votes if vote.immediate_probability is not None]
    # The learned engine's probability already weighs the rules' evidence; it is the calibrated one.
    learned = [vote.immediate_probability for vote in votes if vote.engine == "common"]
    probability = next((p for p in learned if p is not None), max(probabilities, default=0.0))
    rare_alarm = rare_alarm_probability > settings.rare_alarm_threshold

    reason, because = _red_flag_reason(rules)
    if reason is not None and reason != "red-flag-soon":
        severity = "acute-disease"
    if reason is None:
        if rare_alarm:
            reason, because = "rare-candidate-above-threshold", ()
        elif len(set(severities)) > 1:
            reason, because = "engines-disagree", tuple(vote.engine for vote in votes)
        elif _atypical(settings, votes):
            reason, because = "resembles-nothing-known", ()
        else:
            reason, because = "engines-agree", ()
    # Precaution: one engine that calls is enough, whatever the other holds.
    called = any(value > settings.immediate_threshold for value in probabilities)
    immediate = reason.endswith("-immediate") or called
    return Decision(
        severity,
        immediate,
        probability,
        Escalation(REASONS[reason][0], reason, because),
        reason,
        rare_alarm,
    )


def _red_flag_reason(rules: RuleResults) -> tuple[Reason | None, tuple[str, ...]]:
    """Rule 1: the gravest reason, and the ids of everything that escalates, gravest first."""
    found: list[tuple[int, int, str]] = []
    for flag in rules.red_flags:
        if not flag.stale or flag.urgency == "soon":
            found.append((URGENCY_RANK[flag.urgency], 0, flag.id))
    for score in rules.scores:
        if not score.stale and score.urgency is not None:
            found.append((URGENCY_RANK[score.urgency], 1, score.id))
    for value in rules.critical_values:
        if not value.stale:
            found.append((URGENCY_RANK[value.urgency], 2, value.id))
    # A published score or a value is critical from "urgent" on; a red flag always escalates.
    found = [item for item in found if item[0] < 2 or (item[0] == 2 and item[1] == 0)]
    if not found:
        return None, ()
    found.sort()
    rank, kind, _ = found[0]
    because = tuple(dict.fromkeys(name for _, _, name in found))
    return _REASON_OF[(rank, kind)], because


_REASON_OF: dict[tuple[int, int], Reason] = {
    (0, 0): "red-flag-immediate",
    (0, 1): "critical-score-immediate",
    (0, 2): "critical-value-immediate",
    (1, 0): "red-flag-urgent",
    (1, 1): "critical-score-urgent",
    (1, 2): "critical-value-urgent",
    (2, 0): "red-flag-soon",
}


def _atypical(settings: PolicySettings, votes: tuple[EngineVote, ...]) -> bool:
    """Rule 5: an engine that judges novelty found nothing alike, and none found something alike."""
    judged = False
    for vote in votes:
        if vote.conformal_set_size is None and vote.similarity is None:
            continue
        judged = True
        empty = vote.conformal_set_size == 0
        unlike = vote.similarity is not None and vote.similarity < settings.similarity_threshold
        if not (empty or unlike):
            return False
    return judged
