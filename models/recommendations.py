"""What to do next: the actions that scores, critical values and red flags ask for, each once.

Responsible for merging the reasons of an action, ordering by urgency, and marking what a recent
result or open order already answers.  Which actions a rule asks for is data of the rule.
"""

from fhir_adapters.chart import PatientChart
from models.assessment import Recommendation, Urgency
from models.policy import RuleResults
from models.rules.actions import PRIORITY_RANK, Actions
from models.rules.scores import ScoreRules

URGENCIES: tuple[Urgency, ...] = ("immediate", "urgent", "soon", "routine")
RANK: dict[Urgency, int] = {name: rank for rank, name in enumerate(URGENCIES)}


def recommend(
    chart: PatientChart,
    actions: Actions,
    score_rules: ScoreRules,
    results: RuleResults,
) -> tuple[Recommendation, ...]:
    """The recommendations, gravest first, then by the priority of the action and first mention.

    A stale score or value asks for nothing; a stale red flag (days to weeks anyway) still does.
    """
    reasons: dict[str, list[tuple[int, str]]] = {}
    for flag in results.red_flags:
        _note(reasons, flag.actions, RANK[flag.urgency], flag.id)
    for value in results.critical_values:
        if not value.stale:
            _note(reasons, value.actions, RANK[value.urgency], value.id)
    for score in results.scores:
        if not score.stale and score.urgency is not None:
            _note(reasons, score_rules.actions(score), RANK[score.urgency], score.id)
    found: list[tuple[int, int, int, str, tuple[str, ...]]] = []
    for place, (name, because) in enumerate(reasons.items()):
        action = actions.by_id.get(name)
        if action is None:
            continue
        because.sort(key=_rank)
        ids = tuple(dict.fromkeys([reason for _, reason in because]))
        found.append((because[0][0], PRIORITY_RANK[action.priority], place, name, ids))
    found.sort()
    at = chart.at
    return tuple(
        [
            Recommendation(name, URGENCIES[rank], ids, actions.already(name, chart, at))
            for rank, _, _, name, ids in found
        ]
    )


def _note(reasons: dict[str, list[tuple[int, str]]], names: tuple[str, ...], rank: int, reason: str) -> None:
    for name in names:
        reasons.setdefault(name, []).append((rank, reason))


def _rank(item: tuple[int, str]) -> int:
    return item[0]
