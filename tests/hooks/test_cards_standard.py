"""Every card keeps the standard, whatever the assessment: CDS Hooks checklist, sections A and G."""

import json
from uuid import UUID

import msgspec
import pytest
from hook_values import assessment, assessments, chart, charts
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hooks import diagnostic_assessment, order_review
from hooks.cards import (
    Action,
    Card,
    CardInvalid,
    CardResponse,
    CardSettings,
    Coding,
    Link,
    Source,
    Suggestion,
    build_card,
    fit_summary,
)

SERVICES = [diagnostic_assessment.cards, order_review.cards]
LANGUAGES = st.sampled_from(["en", "es"])
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})
CARD = {
    "summary", "indicator", "source", "uuid", "detail", "suggestions", "selectionBehavior", "overrideReasons",
    "links",
}  # fmt: skip
# Without shrinking: the values are wide, and a failing one is named anyway.
relaxed = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def empties(value, path="") -> list[str]:
    """Every null or empty member below `value`."""
    if value is None or value in ("", [], {}):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in empties(item, f"{path}/{key}")]


@pytest.mark.parametrize("service", SERVICES)
@given(chart=charts, assessment=assessments, language=LANGUAGES)
@relaxed
def test_every_card_keeps_the_standard(service, chart, assessment, language):
    cards = service(chart, assessment, language=language, seed="call-1", base_url="https://cds.example/x")
    assert len(cards) <= 3
    sent = json.loads(msgspec.json.encode(CardResponse(cards)))["cards"]
    uuids = []
    for card in sent:
        assert empties(card) == []
        assert set(card) <= CARD
        assert 0 < len(card["summary"]) < 140
        assert "\n" not in card["summary"]
        assert card["indicator"] in {"info", "warning", "critical"}
        assert card["source"]["label"]
        assert card["source"]["url"] == "https://cds.example/x"
        assert set(card["source"]["topic"]) == {"code", "system", "display"}
        UUID(card["uuid"])
        uuids.append(card["uuid"])
        assert {frozenset(r) for r in card["overrideReasons"]} == {frozenset({"code", "system", "display"})}
        assert ("selectionBehavior" in card) == ("suggestions" in card)
        if "suggestions" in card:
            assert card["selectionBehavior"] in {"any", "at-most-one"}
        for suggestion in card.get("suggestions", []):
            assert set(suggestion) <= {"label", "uuid", "isRecommended", "actions"}
            assert suggestion["label"]
            UUID(suggestion["uuid"])
            uuids.append(suggestion["uuid"])
            for action in suggestion["actions"]:
                assert action["description"]
                if action["type"] == "create":
                    assert "id" not in action["resource"]
                    assert "resourceId" not in action
                else:
                    assert action["type"] == "delete"
                    assert "resource" not in action
                    assert action["resourceId"] in {"ServiceRequest/a", "MedicationRequest/b"}
    assert len(set(uuids)) == len(uuids)
    order = ["critical", "warning", "info"]
    ranks = [order.index(card["indicator"]) for card in sent]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("service", SERVICES)
@given(chart=charts, assessment=assessments, language=LANGUAGES)
@relaxed
def test_no_link_image_html_or_heading_comes_out_of_the_record(service, chart, assessment, language):
    allowed = {
        "paragraph_open", "paragraph_close", "inline", "text", "text_special", "strong_open", "strong_close",
        "em_open", "em_close", "softbreak", "bullet_list_open", "bullet_list_close", "list_item_open",
        "list_item_close", "table_open", "table_close", "thead_open", "thead_close", "tbody_open",
        "tbody_close", "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close",
    }  # fmt: skip
    for card in service(chart, assessment, language=language, seed="s"):
        for token in MARKDOWN.parse(card.detail or ""):
            assert token.type in allowed
            assert {child.type for child in token.children or ()} <= allowed


@pytest.mark.parametrize("service", SERVICES)
@given(chart=charts, assessment=assessments, language=LANGUAGES)
@relaxed
def test_same_input_gives_the_same_bytes(service, chart, assessment, language):
    first = service(chart, assessment, language=language, seed="s")
    second = service(chart, assessment, language=language, seed="s")
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    other = service(chart, assessment, language=language, seed="t")
    assert {card.uuid for card in first}.isdisjoint(card.uuid for card in other)


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_to_say_gives_no_cards(service):
    cards = service(chart(), assessment(), language="en", seed="s")
    assert msgspec.json.encode(CardResponse(cards)) == b'{"cards":[]}'


@given(st.text(max_size=400))
def test_a_summary_is_cut_below_140_characters_at_a_word(text):
    cut = fit_summary(text)
    assert len(cut) < 140
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))


def test_a_long_summary_ends_with_a_whole_word():
    words = " ".join(["potassium"] * 30)
    assert fit_summary(words).removesuffix("…").split()[-1] == "potassium"


def card(**changes) -> Card:
    values = {
        "seed": "s",
        "key": "k",
        "summary": "x",
        "indicator": "info",
        "detail": "",
        "source": Source("l"),
    }
    return build_card(**(values | changes))


def test_a_card_without_extras_sends_only_what_it_has():
    assert set(json.loads(msgspec.json.encode(card()))) == {"summary", "indicator", "source", "uuid"}


def test_several_recommended_suggestions_need_selection_any():
    both = [Suggestion("a", isRecommended=True), Suggestion("b", isRecommended=True)]
    assert card(suggestions=both).selectionBehavior == "any"
    with pytest.raises(CardInvalid):
        card(suggestions=both, selection_behavior="at-most-one")


def test_an_absolute_link_has_no_app_context():
    with pytest.raises(CardInvalid):
        card(links=(Link("l", "https://a.example", "absolute", appContext="x"),))
    assert card(links=(Link("l", "https://a.example", "smart", appContext="x"),)).links


def test_an_empty_summary_is_refused():
    with pytest.raises(CardInvalid):
        card(summary=" ")


def test_wire_members_are_named_as_the_standard_has_them():
    full = Card(
        "s", "info", Source("l", "https://u", "https://i", Coding("c", "s", "d")), "u", "d",
        (Suggestion("l", "u", True, (Action("create", "d", {"a": 1}), Action("delete", "d", None, "A/1"))),),
        "any", (Coding("c", "s", "d"),), (Link("l", "https://u", "smart", "x"),),
    )  # fmt: skip
    sent = json.loads(msgspec.json.encode(full))
    assert set(sent) == CARD
    assert set(sent["source"]) == {"label", "url", "icon", "topic"}
    assert set(sent["suggestions"][0]) == {"label", "uuid", "isRecommended", "actions"}
    assert set(sent["suggestions"][0]["actions"][1]) == {"type", "description", "resourceId"}
    assert set(sent["links"][0]) == {"label", "url", "type", "appContext"}


@given(assessment=assessments, most=st.integers(1, 5))
@relaxed
def test_a_site_may_allow_fewer_cards(assessment, most):
    site = CardSettings(max_cards=most)
    assert (
        len(diagnostic_assessment.cards(chart(), assessment, language="en", seed="s", settings=site)) <= most
    )
