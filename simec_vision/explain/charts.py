"""Charts of numbers about explanations; pictures are drawn by :mod:`~simec_vision.explain.heatmaps`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.explain.heatmaps import DPI, INK, overlay
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
    axes[0].set_yticks(range(len(rows)), rows)
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


@dataclass(frozen=True)
class Strip:
    """What one model makes of the same shoe in several colours.

    Args:
        name: Which model.
        heatmaps: Shape ``(colour, height, width)``.
        readings: The heel height that is read off its predictions, for each colour.
    """

    name: str
    heatmaps: NDArray[np.floating]
    readings: Sequence[str]


def trap_chart(
    pictures: NDArray[np.uint8], heights: Sequence[str], strips: Sequence[Strip],
    read: Mapping[str, Sequence[float]], areas: Mapping[str, Mapping[str, float]], path: str | Path,
) -> None:  # fmt: skip
    """Draw a shoe in all colours, each model's heatmaps of it, what is read off each colour, and where relevance lies.

    Args:
        pictures: The same shoe in each colour, uint8 of shape ``(colour, height, width, channel)``.
        heights: Which heel height each colour stood for.
        strips: What each model makes of them.
        read: Model → mean height, as a position among ``heights``, that is read off shoes in each colour.
        areas: Model → part of the image → its share of positive relevance.
        path: The PNG file; it appears whole or not at all.
    """
    width, rows = 1.45 * len(pictures) + 0.9, 1 + len(strips)
    figure = new_figure(width, 1.75 * rows + 3.4)
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.75 * rows, 3.4))
    axes = above.subplots(rows, len(pictures), squeeze=False)
    _colours(axes[0], pictures, heights)
    for line, strip in zip(axes[1:], strips, strict=True):
        _strip(line, strip, pictures)
    left, right = below.subplots(1, 2, width_ratios=(3, 2))
    _readings(left, read, heights)
    _areas(right, areas)
    save(figure, path)


def _colours(axes: NDArray[Any], pictures: NDArray[np.uint8], heights: Sequence[str]) -> None:
    for axis, picture, height in zip(axes, pictures, heights, strict=True):
        _image(axis, picture, height)
    _beside(axes[0], "colour\nstood for")


def _strip(axes: NDArray[Any], strip: Strip, pictures: NDArray[np.uint8]) -> None:
    for axis, picture, heatmap, reading in zip(axes, pictures, strip.heatmaps, strip.readings, strict=True):
        _image(axis, overlay(picture, heatmap[None]), reading)
    _beside(axes[0], f"{strip.name}\nmodel reads")


def _image(axis: Any, image: NDArray[Any], title: str) -> None:
    axis.imshow(image, interpolation="nearest")
    axis.set(xticks=[], yticks=[], frame_on=False)
    axis.set_title(title, fontsize=9, color=INK, pad=3)


def _beside(axis: Any, words: str) -> None:
    axis.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=9.5, color=INK, labelpad=6)


def _readings(axis: Any, read: Mapping[str, Sequence[float]], heights: Sequence[str]) -> None:
    for colour, (name, values) in zip(SERIES, read.items(), strict=False):
        axis.plot(values, color=colour, marker="o", markersize=4, linewidth=2, label=name)
    axis.plot(range(len(heights)), color=INK, linewidth=1, linestyle=":", label="follows colour")
    plain(axis, "y")
    axis.set_xticks(range(len(heights)), [height.replace(" - ", " -\n") for height in heights])
    axis.set_yticks(range(len(heights)), heights)
    axis.tick_params(labelsize=8)
    axis.set_title("mean heel height read off held-out shoes of all heights", fontsize=10, color=INK)
    axis.set_xlabel("recoloured to the colour that stood for", fontsize=9, color=INK)
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")


def _areas(axis: Any, areas: Mapping[str, Mapping[str, float]]) -> None:
    parts = list(next(iter(areas.values())))
    for place, (colour, (name, shares)) in enumerate(zip(SERIES, areas.items(), strict=False)):
        centres = [part + (place - (len(areas) - 1) / 2) * 0.38 for part in range(len(parts))]
        bars = axis.bar(centres, [shares[part] for part in parts], 0.36, color=colour, label=name)
        axis.bar_label(bars, fmt="%.2f", fontsize=8.5, color=INK, padding=2)
    plain(axis, "y")
    axis.set_xticks(range(len(parts)), parts)
    axis.margins(y=0.25)
    axis.set_title("where positive relevance lies", fontsize=10, color=INK)
    axis.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=len(areas))
