"""Small pieces of a page that is well-formed XML as well as HTML: tables, figures, numbers as text.

Everything that comes in is escaped here and nowhere else.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9rem; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { border-bottom: 1px solid #d8d8d8; padding: 0.25rem 0.7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, td.text { text-align: left; }
thead th { border-bottom: 2px solid #555; }
tr.missed td { background: #fdeceb; } tr.missed td.verdict { color: #a3140b; font-weight: 700; }
tr.unmeasured td { color: #666; }
.notes { background: #f4f1e4; border-left: 4px solid #b08900; padding: 0.5rem 1.2rem; }
figure { margin: 1rem 0; display: inline-block; max-width: 100%; } figure img { max-width: 100%; }
figcaption { font-size: 0.85rem; color: #444; }
.wide { overflow-x: auto; }
""".strip()
_NONE = "–"


def number(value: Any, digits: int = 3) -> str:
    """A figure as text: ``0.853``, whole numbers with a thousands comma, a dash for none."""
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def with_interval(value: Any, interval: Sequence[float] | None) -> str:
    """``0.853 (0.81–0.90)``."""
    if interval is None or value is None:
        return number(value)
    return f"{number(value)} ({number(interval[0])}–{number(interval[1])})"


def text(tag: str, content: str, **attributes: str) -> str:
    """An element that holds text."""
    return element(tag, escape(content), **attributes)


def element(tag: str, inner: str, **attributes: str) -> str:
    """An element around markup; attribute ``class_`` is written ``class``."""
    written = "".join(
        f' {name.rstrip("_")}="{escape(value, quote=True)}"' for name, value in attributes.items() if value
    )
    return f"<{tag}{written}>{inner}</{tag}>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of plain values, the first column naming the row."""
    return marked_table(caption, head, (("", row) for row in rows))


def marked_table(caption: str, head: Sequence[str], rows: Iterable[tuple[str, Sequence[Any]]]) -> str:
    """A table whose rows each have a CSS class (``""`` for none) beside their values."""
    cells = "".join(text("th", name, scope="col") for name in head)
    body = "\n".join(element("tr", "".join(_cell(value) for value in row), class_=mark) for mark, row in rows)
    inner = f"{text('caption', caption)}<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return element("div", element("table", inner), class_="wide")


def _cell(value: Any) -> str:
    shown = number(value)
    if shown in ("aim", "reached", "missed", "not measured"):
        return text("td", shown, class_="verdict")
    return text("td", shown, class_="text" if isinstance(value, str) and value[:1].isalpha() else "")


def picture(uri: str, caption: str) -> str:
    """A figure with its caption; the caption is what a screen reader says too."""
    image = f'<img src="{uri}" alt="{escape(caption, quote=True)}" />'
    return element("figure", image + text("figcaption", caption))


def bullets(lines: Iterable[str]) -> str:
    """A list of sentences."""
    return element("ul", "\n".join(text("li", line) for line in lines))
