"""Drawings of BiLRP: two images and the strongest connections of their cells. Red makes more similar, blue less."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from simec_vision.explain.heatmaps import INK, WIDTH, Colours, check_look, colour_map, figure_grid, grey, save_figure
from simec_vision.items import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simec_vision.explain.bilrp import Strongest

COLUMNS = 2
"""Pairs beside each other, where there is more than one."""
GAP, APART = 0.35, 0.1
"""Space between two images in widths of the first, and between pairs in inches."""
SHADE = {"seismic": 0.35, "balanced": 0.5}
"""Distance from 0 in a colour map that makes the clearest lines."""
STEPS = np.linspace(0, 1, 33)[:, None]
"""Points along a connection, 0 in the image and 1 in the other."""


def connection_grid(
    images: Sequence[NDArray[np.uint8]],
    others: Sequence[NDArray[np.uint8]],
    strongest: "Sequence[Strongest]",
    path: str | Path,
    titles: Sequence[str] | None = None,
    scale: Literal["image", "all"] = "image",
    colours: Colours = "seismic",
) -> None:
    """Draw pairs of images side by side in grey, and what connects their cells (after Eberle et al. 2020, Fig. 1).

    A connection of relevance r has the colour of its sign; width and opacity grow with |r|, so that many weak ones do
    not hide the strong ones.

    Args:
        images: One uint8 image of shape ``(height, width, channel)`` per pair.
        others: The other image of every pair.
        strongest: The connections of every pair, such as ``bilrp(…).strongest(100, pair)``.
        path: The PNG or PDF file; it appears whole or not at all.
        titles: What stands above each pair.
        scale: Strength is relative to the strongest connection of each pair (``image``), or of ``all``.
        colours: What red and blue look like.

    Raises:
        InputError: if there are not as many of one as of the other, or cells lie outside of an image.
    """
    check_look(path, scale, colours)
    titles = titles or [""] * len(images)
    _check_pairs(images, others, strongest, titles)
    columns = min(COLUMNS, len(images))
    figure, axes = _panels(-(-len(images) // columns), columns, _panel(images[0], others[0]))
    largest = max(_largest(each) for each in strongest) if scale == "all" else None
    for axis, image, other, each, title in zip(axes.flat, images, others, strongest, titles, strict=False):
        axis.imshow(_side_by_side(image, other), extent=(0, *_panel(image, other)[::-1], 0), interpolation="nearest")
        start = _panel(image, other)[1] - other.shape[1]
        _connect(axis, each, (image.shape, other.shape), start, largest or _largest(each), colours)
        axis.set_title(title, fontsize=9, color=INK, pad=3)
    _legend(figure, colours)
    save_figure(figure, path)


def _panels(rows: int, columns: int, shape: tuple[int, int]) -> tuple["Figure", NDArray[Any]]:
    figure, axes = figure_grid(rows, columns, (1, 1))
    width = WIDTH / COLUMNS
    figure.set_size_inches(columns * width, rows * (width * shape[0] / shape[1] + 0.3) + 0.4)
    figure.get_layout_engine().set(w_pad=APART, h_pad=0.06)  # type: ignore[union-attr,call-arg]
    return figure, axes


def _panel(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width of two images side by side, in pixels."""
    return max(image.shape[0], other.shape[0]), round(image.shape[1] * (1 + GAP)) + other.shape[1]


def _side_by_side(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Paint both images in pale grey on white: one picture, as the edges of two would show in a PDF."""
    canvas = np.ones((*_panel(image, other), 1))
    for left, each in ((0, image), (canvas.shape[1] - other.shape[1], other)):
        height, width = each.shape[:2]
        canvas[:height, left : left + width] = 1 - 0.6 * (1 - grey(each))
    return np.repeat(canvas, 3, axis=2)


def _connect(
    axis: Any,
    strongest: "Strongest",
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    start: int,
    largest: float,
    colours: Colours,
) -> None:
    from matplotlib.collections import LineCollection

    relevance = _array(strongest.relevance)[::-1]  # the strongest last, on top
    strength = np.abs(relevance) / largest
    first = _centres(strongest.mine, strongest.pool, shapes[0])[::-1]
    second = _centres(strongest.others, strongest.pool, shapes[1])[::-1] + np.array([start, 0.0])
    shades = _shades(relevance, colours)
    shades[:, 3] = 0.7 * np.clip(strength, 0, 1) ** 2
    axis.add_collection(LineCollection(_curves(first, second), colors=shades, linewidths=0.3 + 1.2 * strength))
    for ends in (first, second):
        axis.scatter(*ends.T, s=1 + 9 * strength, c=shades, linewidths=0, zorder=3)


def _shades(relevance: NDArray[Any], colours: Colours) -> NDArray[np.float64]:
    return np.asarray(colour_map(colours)(0.5 + SHADE[colours] * np.sign(relevance)))


def _legend(figure: "Figure", colours: Colours) -> None:
    from matplotlib.lines import Line2D

    red, blue = _shades(np.array([1.0, -1.0]), colours)
    words = {"makes the images less similar": blue, "more similar": red}
    lines = [Line2D([], [], color=shade, linewidth=1.5, label=word) for word, shade in words.items()]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK)


def _curves(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Leave and arrive horizontally: x runs evenly, y follows 3t² − 2t³."""
    smooth = STEPS**2 * (3 - 2 * STEPS)
    return [a + (b - a) * np.concatenate([STEPS, smooth], axis=1) for a, b in zip(first, second, strict=True)]


def _centres(cells: Any, pool: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Give x and y of the middle of cells (row, column); those at the border may be smaller."""
    size = np.array(shape[:2])
    corner = _array(cells) * pool
    if (corner < 0).any() or (corner >= size).any():
        wrong = _array(cells)[((corner < 0) | (corner >= size)).any(axis=1)][0].tolist()
        raise InputError(f"Expected cells of {pool} pixels in an image of {shape[0]} × {shape[1]}, got cell {wrong}")
    return ((corner + np.minimum(corner + pool, size)) / 2)[:, ::-1]


def _largest(strongest: "Strongest") -> float:
    return float(np.abs(_array(strongest.relevance)).max()) or 1.0


def _array(values: Any) -> NDArray[Any]:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def _check_pairs(*sequences: Sequence[Any]) -> None:
    lengths = [len(each) for each in sequences]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        counts = ", ".join(map(str, lengths))
        raise InputError(f"Expected as many images, others, connections and titles, at least one, got {counts}")
