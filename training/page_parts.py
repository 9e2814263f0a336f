"""Parts of a self-contained HTML page: style, tables, horizontal bars as inline SVG.

Responsible for markup only; escapes all text that it is given unless told that it is markup.  No script
and no foreign host, so that a page can be sent and kept as one file.
"""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1c2733;max-width:78rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin:1.4rem 0 .4rem}
.notice{border-left:5px solid #d1495b;background:#fdf1f2;padding:.7rem 1rem}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{border-bottom:1px solid #e1e5ea;padding:.25rem .5rem;text-align:left;vertical-align:top}
th{background:#f5f7f9}td.n,th.n{text-align:right;white-space:nowrap}
figure{margin:.8rem 0;overflow-x:auto}figcaption,.small{color:#5a6773;font-size:13px}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .3em 0 1em}
"""


def bars(rows: Sequence[tuple[str, tuple[float, ...]]], colours: Sequence[str]) -> str:
    """Horizontal bars, stacked where a row has several values, as an inline SVG."""
    left, width, step = 190, 560, 22
    top = max((sum(values) for _, values in rows), default=1.0) or 1.0
    parts = []
    for number, (label, values) in enumerate(rows):
        y, x = number * step, float(left)
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        for value, colour in zip(values, colours, strict=True):
            length = width * value / top
            parts.append(f'<rect x="{x:.1f}" y="{y + 3}" width="{length:.1f}" height="15" fill="{colour}"/>')
            x += length
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{sum(values):,.0f}</text>')
    height = len(rows) * step
    return (
        f'<svg viewBox="0 0 {left + width + 70} {height}" width="{left + width + 70}" height="{height}" '
        f'font-size="12" font-family="system-ui,sans-serif" role="img">{"".join(parts)}</svg>'
    )


def figure(svg: str, caption: str) -> str:
    """A drawing with its caption; both are markup of this project."""
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def legend(colours: Iterable[tuple[str, str]]) -> str:
    """What each colour means."""
    return "".join(
        f'<span class="key" style="background:{colour}"></span>{escape(name)}' for name, colour in colours
    )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Sequence[int],
    raw: Sequence[int] = (),
) -> str:
    """A table; columns of `numeric` are set right, those of `raw` hold markup, all others are escaped."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in numeric else ''}>"
            f"{value if place in raw and tag == 'td' else escape(value)}</{tag}>"
            for place, value in enumerate(row)
        )

    head = f"<tr>{cells(header, 'th')}</tr>" if any(header) else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def percent(part: float, whole: float) -> str:
    """A share in words; a dash where there is nothing to share."""
    return f"{100 * part / whole:.1f} %" if whole else "–"
