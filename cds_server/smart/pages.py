"""The app's pages as HTML: plain documents that need no script and load one stylesheet of ours.

Everything from outside is escaped here; the cards' Markdown is rendered without HTML.  Patient and tokens
appear in no address.  Landmarks, headings and labels are for screen readers as much as for eyes, and no
meaning is carried by colour alone (WCAG 2.2 AA).
"""

from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from typing import Any

import msgspec
from markdown_it import MarkdownIt

from cds_server.smart.words import Words

STYLE_PATH = "/app/style.css"
_markdown = MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False}).disable("image")
_INDICATORS = frozenset({"critical", "warning", "info"})


class Frame(msgspec.Struct, frozen=True):
    """What every page has around its content: language, the server's path prefix, who is signed in."""

    language: str
    words: Words
    prefix: str
    who: str | None = None
    ehr: str = ""
    csrf: str = ""

    def __repr__(self) -> str:
        return "<Frame>"


class Banner(msgspec.Struct, frozen=True):
    """The patient as a person recognises them; members the EHR did not give are `None`."""

    name: str | None = None
    birth_date: str | None = None
    sex: str | None = None

    def __repr__(self) -> str:
        return "<Banner>"


def stylesheet() -> bytes:
    """The stylesheet of all pages."""
    return resources.files("cds_server.smart").joinpath("style.css").read_bytes()


def page(frame: Frame, content: str, *, title: str | None = None) -> bytes:
    """A whole document."""
    words = frame.words
    heading = title or words["title"]
    other = "en" if frame.language == "es" else "es"
    who = ""
    if frame.who is not None:
        signed_in = escape(words["signed_in"].format(name=frame.who, ehr=frame.ehr))
        who = (
            f'<p class="who">{signed_in}</p>\n'
            f'<form method="post" action="{escape(frame.prefix)}/smart/logout">'
            f'<input type="hidden" name="csrf" value="{escape(frame.csrf)}">'
            f"<button>{escape(words['log_out'])}</button></form>\n"
        )
    return (
        f'<!DOCTYPE html>\n<html lang="{frame.language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n"
        f'<link rel="stylesheet" href="{escape(frame.prefix)}{STYLE_PATH}">\n'
        f'</head>\n<body>\n<header>\n<a class="skip" href="#content">{escape(words["skip"])}</a>\n'
        f"<p><strong>{escape(words['title'])}</strong></p>\n"
        f'<p><a href="{escape(frame.prefix)}/app/?lang={other}" lang="{other}" hreflang="{other}">'
        f"{escape(words['other_language'])}</a></p>\n{who}</header>\n"
        f'<main id="content">\n<h1>{escape(heading)}</h1>\n{content}</main>\n'
        f"<footer><p>{escape(words['footer'])}</p></footer>\n</body>\n</html>\n"
    ).encode("utf-8", "replace")


def note(text: str) -> str:
    """A remark that assistive technology reads out."""
    return f'<p class="note" role="status">{escape(text)}</p>\n'


def choice(frame: Frame, launches: Iterable[tuple[str, str]]) -> str:
    """For somebody who is not signed in: how to begin, with a link (address, label) for each EHR."""
    words = frame.words
    items = "".join(
        f'<li><a href="{escape(address)}">{escape(words["sign_in_at"].format(ehr=label))}</a></li>\n'
        for address, label in launches
    )
    if not items:
        return f"<p>{escape(words['choose_none'])}</p>\n"
    return f"<p>{escape(words['choose_text'])}</p>\n<ul>\n{items}</ul>\n"


def refused(frame: Frame, told: str) -> bytes:
    """A sign-in that did not work."""
    words = frame.words
    back = f'<p><a href="{escape(frame.prefix)}/app/">{escape(words["back"])}</a></p>\n'
    return page(frame, note(words[f"refused_{told}"]) + back, title=words["refused_title"])


def banner(frame: Frame, patient: Banner) -> str:
    """Who the patient is, as long as the page is about one."""
    words = frame.words
    sex = words.get(f"sex_{patient.sex}", words["sex_unknown"])
    born = f"{words['born'].format(date=patient.birth_date)} · " if patient.birth_date else ""
    return (
        '<section class="patient" aria-labelledby="patient">\n'
        f'<h2 id="patient">{escape(words["patient"])}</h2>\n'
        f'<p class="name">{escape(patient.name or words["patient_unknown"])}</p>\n'
        f"<p>{escape(born + sex)}</p></section>\n"
    )


def findings(frame: Frame, cards: Iterable[Mapping[str, Any]]) -> str:
    """The texts of CDS Hooks cards, or that there is nothing to say."""
    words = frame.words
    articles = "".join(_card(words, card) for card in cards)
    again = f'<p><a href="{escape(frame.prefix)}/app/">{escape(words["assess_again"])}</a></p>\n'
    return (
        f'<section aria-labelledby="findings"><h2 id="findings">{escape(words["findings"])}</h2>\n'
        f"{articles or note(words['findings_none'])}{again}</section>\n"
    )


def _card(words: Words, card: Mapping[str, Any]) -> str:
    indicator = card["indicator"] if card["indicator"] in _INDICATORS else "info"
    detail: str = _markdown.render(card.get("detail") or "")
    return (
        f'<article class="{indicator}">\n<p class="indicator">{escape(words[f"indicator_{indicator}"])}</p>\n'
        f"<h3>{escape(card['summary'])}</h3>\n{detail}{_suggestions(words, card.get('suggestions') or ())}"
        f"<p>{escape(words['source'].format(label=card['source']['label']))}</p>\n</article>\n"
    )


def _suggestions(words: Words, suggestions: Iterable[Mapping[str, Any]]) -> str:
    items = "".join(
        f"<li>{escape(one['label'])}"
        f"{escape(' (' + words['recommended'] + ')') if one.get('isRecommended') else ''}</li>\n"
        for one in suggestions
    )
    return f"<p>{escape(words['suggestions'])}</p>\n<ul>\n{items}</ul>\n" if items else ""
