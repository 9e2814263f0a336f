"""Turns text from the record into text that is safe inside our Markdown, and nothing else.

Displays, labels, units and references come from other systems and may hold anything.  Inside a card
they must read as the same words and can never become a link, an image, HTML, a heading, a list or a
table cell of their own, in any renderer of GitHub-flavoured Markdown, with or without automatic
linking.  `escape` is for Markdown, `plain` for the members that are plain text (summaries, labels).
"""

import re
import unicodedata

MAX_LENGTH = 160
"""Longer record text is cut; the source reference leads to the whole."""

# Nothing in here means anything to Markdown: the usual label passes without further work.
_HARMLESS = re.compile(r"[A-Za-z0-9À-ÖØ-öø-ÿ%](?:[A-Za-z0-9À-ÖØ-öø-ÿ ,%µ°×⁰-⁹²³¹]|[/()-](?![/-])|[.](?=\d))*")

# Entities rather than backslashes for the HTML characters: also safe where Markdown is not rendered.
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {char: "\\" + char for char in "\\`*_[]#|~!$"}
)
_SPACES = re.compile(r"\s+")
# What renderers turn into links by themselves: "www.a.b", "a.com", "x://", "//a", "a@b".
_DOT = re.compile(r"(?<=\w)([.。．。])(?=[^\W\d])")
_SCHEME = re.compile(r"([:/])(?=/)")
_LINE_START = re.compile(r"^(?:([-+:=])|(\d+)([.)])(?=\s|$))")


def plain(text: str, limit: int = MAX_LENGTH) -> str:
    """Text of the record as one line, without control, format (bidirectional) or unpaired characters."""
    if _HARMLESS.fullmatch(text) is None:
        text = text[: 8 * limit]
        # What is printable holds nothing of the categories C and Z but the plain space.
        if not text.isprintable():
            text = "".join(
                char if unicodedata.category(char)[0] not in "CZ" else " " if char.isspace() else ""
                for char in text
            )
        text = _SPACES.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def escape(text: str, limit: int = MAX_LENGTH) -> str:
    """Text of the record as inline Markdown that shows the same words and does nothing else.

    Automatic linking works on the text after backslashes are gone, so what looks like an address is
    broken visibly: ``a.com`` becomes ``a. com``, ``x://`` becomes ``x: / /``, ``@`` becomes ``(at)``.
    """
    if len(text) <= limit and _HARMLESS.fullmatch(text) is not None:
        return text
    text = plain(text, limit)
    text = _DOT.sub(r"\1 ", text.replace("@", " (at) ").replace("＠", " (at) "))
    text = _SCHEME.sub(r"\1 ", text).strip()
    text = text.translate(_ESCAPES)
    return _LINE_START.sub(lambda m: "\\" + m[1] if m[1] else m[2] + "\\" + m[3], text)
