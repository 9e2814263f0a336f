"""Text of the record can never become anything but text in a card's Markdown."""

import unicodedata

import pytest
from hook_values import labels, nasty
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hooks.markdown import escape, plain

try:  # the automatic linking of GitHub-flavoured Markdown
    import linkify_it  # noqa: F401

    LINKIFY = True
except ImportError:
    LINKIFY = False

PLAIN = MarkdownIt("gfm-like", {"linkify": LINKIFY, "html": True})
HARMLESS_TYPES = {
    "text",
    "text_special",
    "inline",
    "paragraph_open",
    "paragraph_close",
    "bullet_list_open",
    "bullet_list_close",
    "list_item_open",
    "list_item_close",
    "strong_open",
    "strong_close",
}


def kinds(source: str) -> set[str]:
    found: set[str] = set()
    for token in PLAIN.parse(source):
        found.add(token.type)
        found.update(child.type for child in token.children or ())
    return found


texts = st.one_of(
    labels,
    st.text(max_size=60),
    st.text(alphabet="[]()<>!#*_`~|&\\:/.@-+=>1a \n\t", max_size=40),
    st.lists(nasty, max_size=3).map("".join),
)


@given(texts)
@example("**[x](http://a.b)**")
@example("a@b.com www.a.com http://a.com //a.com")
@example("- - 1. # x")
@example("+ x")
@example("= =")
@example("&#91;x&#93;(http://a.com)")
def test_record_text_stays_text_wherever_our_templates_put_it(text):
    safe = escape(text)
    assert kinds(f"x {safe} y") <= HARMLESS_TYPES
    assert kinds(f"- {safe}") <= HARMLESS_TYPES
    assert kinds(f"- {safe}, {safe}: {safe}") <= HARMLESS_TYPES
    assert kinds(f"- a ({safe})") <= HARMLESS_TYPES


@given(texts)
def test_record_text_cannot_leave_its_table_cell(text):
    tokens = PLAIN.parse(f"| a | b |\n|---|---|\n| {escape(text)} | z |\n| q | r |")
    cells = [t for t in tokens if t.type in {"td_open", "th_open"}]
    assert len(cells) == 6
    contents = [t.content for t in tokens if t.type == "inline"]
    assert contents[3] == "z"
    assert contents[4:] == ["q", "r"]
    for token in tokens:
        assert {child.type for child in token.children or ()} <= {"text", "text_special"}


@given(texts)
def test_nothing_that_renderers_link_by_themselves_is_left(text):
    safe = escape(text)
    for trigger in ("://", "//", "@"):
        assert trigger not in safe
    assert "<" not in safe
    lowered = safe.lower()
    position = lowered.find("www.")
    while position >= 0:
        after = lowered[position + 4 : position + 5]
        assert not after.isalpha()
        position = lowered.find("www.", position + 1)


@given(texts)
def test_plain_text_is_one_short_line_without_invisible_characters(text):
    line = plain(text)
    assert len(line) <= 160
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for c in line)
    line.encode("utf-8")


@pytest.mark.parametrize(
    "text",
    ["Lactate", "Dolor torácico", "Troponin I, high-sensitivity (ng/L)", "37.5 °C", "4.2 mmol/L", "×10⁹/L"],
)
def test_ordinary_labels_are_left_as_they_are(text):
    assert escape(text) == text


def test_the_words_survive_escaping():
    shown = PLAIN.renderInline(escape('5 < 6 & *pain* [sic] | "x"')).replace("&quot;", '"')
    assert shown == '5 &lt; 6 &amp; *pain* [sic] | "x"'
