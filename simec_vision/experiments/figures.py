"""Figures of experiments of tables: curves, and maps of embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.results import LINES


@dataclass(frozen=True)
class Curves:
    """One panel of curves.

    Args:
        title: What stands above.
        x: Name of what varies.
        y: Name of what is measured.
        ours: Curve → x → mean and standard deviation.
        theirs: Curve → x → the original's number, drawn as a thin line in the colour of ours.
        logarithmic: Axes that are logarithmic, such as ``xy``.
    """

    title: str
    x: str
    y: str
    ours: Mapping[str, Mapping[float, tuple[float, float]]]
    theirs: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    logarithmic: str = ""


@dataclass(frozen=True)
class Map:
    """One panel of items by two coordinates.

    Args:
        title: What stands above.
        points: Shape ``(item, 2)``.
        colours: A number or class of each item, shape ``(item,)``.
        texts: What is written in place of a dot, if anything.
        faint: Which items are pale, such as held-out ones, shape ``(item,)``.
        names: What the classes are called, in ascending order; a legend tells them, once for all panels.
    """

    title: str
    points: NDArray[Any]
    colours: NDArray[Any]
    texts: Sequence[str] | None = None
    faint: NDArray[np.bool_] | None = None
    names: Sequence[str] = ()


def draw_curves(panels: Sequence[Curves], path: str | Path, columns: int = 3) -> None:
    """Draw panels of curves, ours with their spread, the original's thin; the PNG appears whole or not at all."""
    from simec_vision.explain.charts import new_figure, save

    columns, rows = min(columns, len(panels)), -(-len(panels) // columns)
    figure = new_figure(4.6 * columns + 1.2, 3.4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    named = list(dict.fromkeys(name for panel in panels for name in panel.ours))
    looks = dict(zip(named, LINES * 5, strict=False))
    for axis, panel in zip(axes, panels, strict=False):
        _curves(axis, panel, looks)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9)
    save(figure, path)


def _curves(axis: Any, panel: Curves, looks: Mapping[str, tuple[str, str]]) -> None:
    from simec_vision.explain.charts import INK, plain

    for name, cells in panel.ours.items():
        x = sorted(cells)
        mean, std = (np.array([cells[at][part] for at in x]) for part in (0, 1))
        colour, dashes = looks[name]
        axis.plot(x, mean, color=colour, linestyle=dashes, linewidth=2, marker="o", markersize=3.5, label=name)
        if std.any():
            axis.fill_between(x, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
        given = panel.theirs.get(name, {})
        axis.plot(sorted(given), [given[at] for at in sorted(given)], color=colour, linestyle=dashes, linewidth=0.8)
    for which in panel.logarithmic:
        getattr(axis, f"set_{which}scale")("log")
    if "x" in panel.logarithmic:
        low, high = axis.get_xlim()
        _ticks(axis.xaxis, max(LEAST_WIDE, high / low))
    if "y" in panel.logarithmic:
        low, high = axis.get_ylim()
        _ticks(axis.yaxis, high / low)
    plain(axis, "both")
    axis.set_xlabel(panel.x, fontsize=9.5, color=INK)
    axis.set_ylabel(panel.y, fontsize=9.5, color=INK)
    axis.set_title(panel.title, fontsize=10.5, color=INK, loc="left")


LEAST_WIDE, MOST_WIDE = 5, 1e3
"""Largest over smallest number on a logarithmic axis from which, and up to which, 1, 2, 5, 10, … are marked."""


def _ticks(axis: Any, width: float) -> None:
    """Mark 1, 2, 5, 10, … along a logarithmic axis; powers of 10 along a wide one, round numbers along a narrow one."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

    steps = (1.0,) if width > MOST_WIDE else (1.0, 2.0, 5.0)
    axis.set_major_locator(MaxNLocator(5) if width < LEAST_WIDE else LogLocator(subs=steps))
    if width < LEAST_WIDE:
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_maps(panels: Sequence[Map], path: str | Path, columns: int = 4, size: float = 3.2) -> None:
    """Draw panels of items by two coordinates; the PNG appears whole or not at all."""
    from simec_vision.explain.charts import INK, new_figure, save

    columns, rows = min(columns, len(panels)), -(-len(panels) // columns)
    figure = new_figure(size * columns, (size + 0.2) * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _map(axis, panel)
        axis.set_title(panel.title, fontsize=10, color=INK)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    names = next((panel.names for panel in panels if panel.names), ())
    if names:
        _name_classes(figure, names)
    save(figure, path)


MOST_CLASSES = 10
"""Up to so many values of a map's colours are classes, each of its own colour."""


def _name_classes(figure: Any, names: Sequence[str]) -> None:
    """Say once which colour is which class."""
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
    dots = [Line2D([], [], color=colormaps["tab10"](code), **dot) for code in range(len(names))]
    figure.legend(dots, [*names], loc="outside right center", frameon=False, fontsize=9)


def _map(axis: Any, panel: Map) -> None:
    points, colours = np.asarray(panel.points), np.asarray(panel.colours)
    discrete = len(np.unique(colours)) <= MOST_CLASSES
    codes = np.unique(colours, return_inverse=True)[1] if discrete else colours
    look = {"cmap": "tab10", "vmin": 0, "vmax": 9} if discrete else {"cmap": "viridis"}
    alpha = np.where(panel.faint, 0.35, 0.9) if panel.faint is not None else 0.9
    if panel.texts is None:
        small = max(3.0, min(30.0, 6000 / len(points)))
        axis.scatter(*points[:, :2].T, c=codes, s=small, alpha=alpha, linewidths=0, **look)
    else:
        axis.scatter(*points[:, :2].T, c=codes, s=0, **look)
        paint = axis.collections[0].to_rgba(codes)
        strength = np.broadcast_to(alpha, len(points))
        size = max(5.0, min(11.0, 60 / len(points) ** 0.5))
        for place, text, colour, shade in zip(points, panel.texts, paint, strength, strict=True):
            axis.text(*place[:2], text, color=colour, alpha=shade, fontsize=size, ha="center", va="center")
    axis.margins(0.08)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_color("#DDDDDD")
