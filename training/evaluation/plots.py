"""The plots of the report, each as an SVG data URI: no file, no script, the same bytes for the same data.

Pictures only: every number in them stands in the report's JSON too.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by people who do not see red and green as different.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE: Any = {
    "svg.hashsalt": "cds-server evaluation",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
}
Curve = Sequence[Mapping[str, Any]]


def _draw(draw: Any, width: float, height: float) -> str:
    """Draw with `draw(figure)` and give the picture as a data URI."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(held.getvalue()).decode()


def reliability(curves: Mapping[str, Curve]) -> str:
    """Reliability curves by name: what was said against what was seen, with the counts below."""

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot((0, 1), (0, 1), color="#888888", linestyle=":", linewidth=1)
        for name, curve in curves.items():
            said = [row["said"] for row in curve]
            top.plot(said, [row["seen"] for row in curve], marker="o", markersize=3, label=name)
            bottom.plot(said, [row["n"] for row in curve], marker="o", markersize=3)
        top.set(ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
        top.legend(frameon=False, fontsize=8)
        bottom.set(xlabel="probability given", ylabel="patients", yscale="log")

    return _draw(draw, 5.0, 4.6)


def confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A confusion matrix: rows true, columns decided, shaded by share of the row."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        counts = np.array(matrix, dtype=np.float64)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1)
        axes.invert_yaxis()
        for row in range(len(names)):
            for column in range(len(names)):
                dark = shares[row, column] > 0.55
                text = f"{int(counts[row, column])}\n{100 * shares[row, column]:.0f} %"
                colour = "white" if dark else "black"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=30, ha="right")
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        axes.set(xlabel="decided", ylabel="true")

    return _draw(draw, 5.4, 4.6)


def roc_and_pr(curves: Mapping[str, Mapping[str, Any]]) -> str:
    """ROC and precision-recall curves by name; curves are given at evenly spaced points."""

    def draw(figure: Figure) -> None:
        roc, pr = figure.subplots(1, 2)
        roc.plot((0, 1), (0, 1), color="#888888", linestyle=":", linewidth=1)
        for name, curve in curves.items():
            if "roc" not in curve:
                continue
            grid = np.linspace(0, 1, len(curve["roc"]))
            roc.plot(grid, curve["roc"], label=name, linewidth=1.2)
            pr.plot(grid, curve["pr"], label=name, linewidth=1.2)
        roc.set(xlabel="false-positive rate", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.01))
        pr.set(xlabel="sensitivity", ylabel="positive predictive value", xlim=(0, 1), ylim=(0, 1.01))
        if roc.get_legend_handles_labels()[0]:
            roc.legend(frameon=False, fontsize=8, loc="lower right")

    return _draw(draw, 8.4, 3.6)


def groups(table: Mapping[str, Mapping[str, Any]], figures: Mapping[str, str]) -> str:
    """Bars of some figures (key: name shown) for every group."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        names = list(table)
        places = np.arange(len(names))
        width = 0.8 / len(figures)
        for number, (key, label) in enumerate(figures.items()):
            heights = [table[name].get(key) or 0.0 for name in names]
            axes.bar(places + (number - (len(figures) - 1) / 2) * width, heights, width * 0.92, label=label)
        axes.set_xticks(places, [f"{name}\n(n {table[name]['n']})" for name in names], fontsize=8)
        axes.set(ylim=(0, 1), ylabel="rate")
        axes.legend(
            frameon=False, fontsize=8, ncols=len(figures), loc="upper center", bbox_to_anchor=(0.5, 1.14)
        )

    return _draw(draw, min(10.0, 3.2 + 0.9 * len(table)), 3.2)


def set_sizes(sizes: Mapping[str, int]) -> str:
    """How many patients have a conformal set of which size."""

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.bar(range(len(sizes)), list(sizes.values()), color=COLOURS[0])
        axes.set_xticks(range(len(sizes)), list(sizes))
        axes.set(xlabel="diseases in the set", ylabel="patients")

    return _draw(draw, 5.0, 2.8)


def ablations(rows: Sequence[Mapping[str, Any]]) -> str:
    """How much the disease log loss rises without (or with nothing but) a member, with its interval."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            loss = row["disease_log_loss"]
            rise = -loss["difference"]
            axes.barh(place, rise, color=COLOURS[0] if rise > 0 else COLOURS[1], height=0.6)
            if loss["ci95"]:
                low, high = -loss["ci95"][1], -loss["ci95"][0]
                axes.plot((low, high), (place, place), color="black", linewidth=1.4)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.invert_yaxis()
        axes.set(xlabel="log loss above the ensemble's (more is worse)")

    return _draw(draw, 7.0, 1.2 + 0.45 * len(rows))
