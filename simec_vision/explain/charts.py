"""Charts of numbers about explanations; what shows images is drawn by :mod:`~simec_vision.explain.heatmaps`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simec_vision.explain.heatmaps import DPI, INK
from simec_vision.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Colours that the colour-blind tell apart (Okabe & Ito 2008)."""
FAINT = "#DDDDDD"


@dataclass(frozen=True)
class Panel:
    """One panel of bars.

    Args:
        title: What is measured.
        note: How to read it, such as ``higher is better``.
        values: Row → series → value; a row without a value has no bar.
        spread: The same for the half width of an error bar.
        line: A value to compare with for each series, such as chance.
    """

    title: str
    note: str
    values: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, Mapping[str, float]]
    line: Mapping[str, float]


def bar_panels(panels: Sequence[Panel], rows: Sequence[str], series: Sequence[str], path: str | Path) -> None:
    """Draw panels of horizontal bars side by side, one row a method, one colour a series.

    Args:
        panels: What is drawn.
        rows: Names of the rows, from the top.
        series: Names of the series, such as heads.
        path: The PNG file; it appears whole or not at all.
    """
    figure = new_figure(3.0 + 2.3 * len(panels), 1.3 + 0.16 * len(rows) * (1 + len(series)))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _bars(axis, panel, rows, series)
    axes[0].set_yticks(range(len(rows)), [row.replace("_", " ") for row in rows])
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(series), frameon=False, fontsize=9)
    save(figure, path)


def _bars(axis: Any, panel: Panel, rows: Sequence[str], series: Sequence[str]) -> None:
    height = 0.8 / len(series)
    for place, name in enumerate(series):
        centres = [row + (place - (len(series) - 1) / 2) * height for row in range(len(rows))]
        values = [panel.values.get(row, {}).get(name, float("nan")) for row in rows]
        spread = [panel.spread.get(row, {}).get(name, 0.0) for row in rows]
        colour = SERIES[place % len(SERIES)]
        error = {"ecolor": INK, "elinewidth": 0.8}
        axis.barh(centres, values, 0.9 * height, xerr=spread, color=colour, label=name, error_kw=error)
        if name in panel.line:
            axis.axvline(panel.line[name], color=colour, linestyle=":", linewidth=1.2)
    plain(axis, "x")
    axis.tick_params(axis="y", length=0)
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set_title(panel.title, fontsize=10, color=INK)
    axis.set_xlabel(panel.note, fontsize=8.5, color=INK)


def new_figure(width: float, height: float) -> "Figure":
    """Make a figure of so many inches, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def plain(axis: Any, grid: str) -> None:
    """Take the frame off a chart, and give it faint lines along an axis."""
    for side in axis.spines.values():
        side.set_visible(False)
    axis.grid(axis=grid, color=FAINT, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=9, labelcolor=INK, color=FAINT)


def save(figure: "Figure", path: str | Path) -> None:
    """Write a PNG file, whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=DPI)
