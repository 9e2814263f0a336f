"""The escalation policy: its five rules in their order, its settings, and that rules outvote engines."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.assessment import SEVERITIES, CriticalValue, Fact, RedFlag, Score, Urgency
from models.policy import (
    GRAVITY,
    RANGES,
    REASONS,
    EngineVote,
    PolicySettings,
    PolicySettingsInvalid,
    RuleResults,
    decide,
)

SETTINGS = PolicySettings()
FACT = Fact("finding", "HP:0100749", "Chest pain")
CALM = EngineVote("common", "no-disease", 0.01)


def flag(urgency: Urgency, stale: bool = False) -> RedFlag:
    return RedFlag("f", urgency, (FACT,), ("I21.9",), ("ecg",), "source", stale)


def score(urgency: Urgency | None, stale: bool = False) -> Score:
    return Score("news2", 9, 20, "high", True, (), urgency=urgency, stale=stale)


def critical(urgency: Urgency, stale: bool = False) -> CriticalValue:
    return CriticalValue("potassium-high", FACT, "high", 6.5, urgency, (), "source", stale)


@pytest.mark.parametrize(
    ("results", "reason", "code", "immediate"),
    [
        (RuleResults(red_flags=(flag("immediate"),)), "red-flag-immediate", "red-flag", True),
        (RuleResults(red_flags=(flag("urgent"),)), "red-flag-urgent", "red-flag", False),
        (RuleResults(red_flags=(flag("soon"),)), "red-flag-soon", "red-flag", False),
        (RuleResults(scores=(score("immediate"),)), "critical-score-immediate", "red-flag", True),
        (RuleResults(scores=(score("urgent"),)), "critical-score-urgent", "red-flag", False),
        (RuleResults(scores=(score("soon"),)), "engines-agree", "none", False),
        (RuleResults(scores=(score(None),)), "engines-agree", "none", False),
        (RuleResults(critical_values=(critical("immediate"),)), "critical-value-immediate", "red-flag", True),
        (RuleResults(critical_values=(critical("urgent"),)), "critical-value-urgent", "red-flag", False),
        (RuleResults(scores=(score("immediate", stale=True),)), "engines-agree", "none", False),
        (RuleResults(critical_values=(critical("immediate", stale=True),)), "engines-agree", "none", False),
        (RuleResults(red_flags=(flag("immediate", stale=True),)), "engines-agree", "none", False),
        (RuleResults(), "engines-agree", "none", False),
    ],
)
def test_each_rule_result_leads_to_its_reason(
    results: RuleResults, reason: str, code: str, immediate: bool
) -> None:
    decision = decide(SETTINGS, results, (EngineVote("rules", "no-disease", 0.01),))
    assert (decision.reason, decision.escalation.code, decision.immediate) == (reason, code, immediate)
    assert decision.escalation.rule == reason


@pytest.mark.parametrize("urgency", ["immediate", "urgent"])
def test_a_red_flag_escalates_whatever_the_engines_say(urgency: Urgency) -> None:
    votes = (
        EngineVote("rules", "no-disease", 0.0),
        CALM,
        EngineVote("rare", "no-disease", 0.0, similarity=0.99),
    )
    decision = decide(SETTINGS, RuleResults(red_flags=(flag(urgency),)), votes, rare_alarm_probability=0.95)
    assert decision.escalation.code == "red-flag"
    assert decision.severity == "acute-disease"
    assert decision.rare_alarm


def test_a_rare_candidate_above_the_threshold_raises_the_alarm_and_at_it_does_not() -> None:
    votes = (CALM, EngineVote("rare", "chronic-disease"))
    assert decide(SETTINGS, RuleResults(), votes, 0.71).escalation.code == "rare-disease-alarm"
    at_threshold = decide(SETTINGS, RuleResults(), votes, 0.7)
    assert at_threshold.escalation.code == "precaution"
    assert not at_threshold.rare_alarm


def test_the_site_sets_the_alarm_threshold() -> None:
    strict = PolicySettings(rare_alarm_threshold=0.9)
    assert decide(strict, RuleResults(), (CALM,), 0.8).escalation.code == "none"


def test_engines_that_agree_give_their_severity() -> None:
    votes = (EngineVote("rules", "mild-disease", 0.05), EngineVote("common", "mild-disease", 0.1))
    decision = decide(SETTINGS, RuleResults(), votes)
    assert (decision.severity, decision.escalation.code) == ("mild-disease", "none")
    assert decision.immediate_probability == 0.1


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(SEVERITIES, 2)))
def test_engines_that_disagree_give_the_graver_one_and_say_so(one: str, other: str) -> None:
    votes = (EngineVote("common", one), EngineVote("rare", other))  # type: ignore[arg-type]
    decision = decide(SETTINGS, RuleResults(), votes)
    assert decision.severity == max(one, other, key=lambda name: GRAVITY[name])  # type: ignore[index]
    assert decision.escalation.code == "precaution"
    assert decision.escalation.because == ("common", "rare")


@pytest.mark.parametrize(
    ("votes", "code"),
    [
        ((EngineVote("common", "mild-disease", conformal_set_size=0),), "atypical-case"),
        ((EngineVote("common", "mild-disease", similarity=0.1),), "atypical-case"),
        ((EngineVote("common", "mild-disease", conformal_set_size=3, similarity=0.6),), "none"),
        (
            (
                EngineVote("common", "mild-disease", conformal_set_size=0),
                EngineVote("rare", "mild-disease", similarity=0.9),
            ),
            "none",
        ),
        ((EngineVote("rules", "mild-disease"),), "none"),
        (
            (
                EngineVote("common", "mild-disease", conformal_set_size=0),
                EngineVote("rare", "acute-disease", similarity=0.0),
            ),
            "precaution",
        ),
    ],
)
def test_a_chart_that_resembles_nothing_known_is_atypical(votes: tuple[EngineVote, ...], code: str) -> None:
    assert decide(SETTINGS, RuleResults(), votes).escalation.code == code


def test_a_probability_above_the_threshold_advises_immediate_attention() -> None:
    above = EngineVote("rules", "acute-disease", SETTINGS.immediate_threshold + 1e-9)
    at = EngineVote("rules", "acute-disease", SETTINGS.immediate_threshold)
    assert decide(SETTINGS, RuleResults(), (above,)).immediate
    assert not decide(SETTINGS, RuleResults(), (at,)).immediate


def test_the_reasons_are_listed_gravest_first_and_each_once() -> None:
    results = RuleResults((flag("soon"), flag("urgent")), (score("immediate"),), (critical("urgent"),))
    decision = decide(SETTINGS, results, (CALM,))
    assert decision.escalation.because == ("news2", "f", "potassium-high")


@pytest.mark.parametrize("name", RANGES)
def test_a_setting_outside_its_range_is_refused_by_name(name: str) -> None:
    low, high = RANGES[name]
    for wrong in (low - 0.01, high + 0.01, float("nan")):
        with pytest.raises(PolicySettingsInvalid, match=name):
            PolicySettings(**{name: wrong})
    with pytest.raises(ValueError, match=name):
        msgspec.convert({name: high + 1}, PolicySettings)


@given(
    st.lists(
        st.builds(
            EngineVote,
            st.sampled_from(["rules", "common", "rare"]),
            st.sampled_from(SEVERITIES),
            st.one_of(st.none(), st.floats(0, 1)),
        ),
        min_size=1,
        max_size=3,
    ),
    st.floats(0, 1),
    st.sampled_from(["immediate", "urgent", "soon"]),
)
def test_adding_a_red_flag_never_makes_a_decision_milder(
    votes: list[EngineVote], rare: float, urgency: Urgency
) -> None:
    before = decide(SETTINGS, RuleResults(), tuple(votes), rare)
    after = decide(SETTINGS, RuleResults(red_flags=(flag(urgency),)), tuple(votes), rare)
    assert GRAVITY[after.severity] >= GRAVITY[before.severity]
    assert after.immediate >= before.immediate
    assert after.escalation.code == "red-flag"


def test_every_reason_has_a_code() -> None:
    assert {code for code, _ in REASONS.values()} == {
        "none",
        "red-flag",
        "rare-disease-alarm",
        "precaution",
        "atypical-case",
    }
