"""Heatmaps: the only file that draws. Red makes two images more similar, blue less."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND = "red: makes them more similar    blue: less similar"
INK = "#222222"
CELL = 1.45
"""Inches of a heatmap's edge."""


def overlay(
    image: NDArray[np.uint8], relevance: NDArray[np.floating], largest: float | None = None
) -> NDArray[np.float64]:
    """Lay a relevance over its image in grey.

    As in the original: relevance is summed over channels and divided by its largest magnitude, a; it is coloured by
    ``seismic`` with opacity min(1.5 |a|, 1) over the grey image, whose own opacity on white is 0.75 (1 − |a|).

    Args:
        image: uint8 of shape ``(height, width, channel)``.
        relevance: Shape ``(channel, height, width)``.
        largest: What counts as 1; default: the largest magnitude in this relevance.

    Returns:
        Colours in [0, 1], shape ``(height, width, 3)``.
    """
    from matplotlib import colormaps

    summed = np.asarray(relevance, dtype=np.float64).sum(axis=0)
    scaled = np.clip(summed / (largest or np.abs(summed).max() or 1.0), -1, 1)
    strength = np.abs(scaled)[..., None]
    opacity = np.minimum(1.5 * strength / (strength.max() or 1.0), 1)
    grey = image.astype(np.float64).mean(axis=2, keepdims=True) / 255
    backdrop = 1 - 0.75 * (1 - strength) * (1 - grey)
    return opacity * colormaps["seismic"]((scaled + 1) / 2)[..., :3] + (1 - opacity) * backdrop


def reference_grid(
    images: NDArray[np.uint8],
    reference_images: NDArray[np.uint8],
    relevance: ArrayLike,
    predicted: ArrayLike,
    true: ArrayLike | None,
    path: str | Path,
    title: str = "",
) -> None:
    """Draw references down the side, images across, and in each cell why this image is similar to that reference.

    Args:
        images: uint8 of shape ``(batch, height, width, channel)``.
        reference_images: uint8 of shape ``(reference, height, width, channel)``.
        relevance: Shape ``(reference, batch, channel, height, width)``.
        predicted: Predicted similarities, shape ``(reference, batch)``.
        true: Target similarities, same shape, NaN where unknown; default: not shown.
        path: The PNG file; it appears whole or not at all.
        title: Name of the similarity.
    """
    maps, scores = np.asarray(relevance), np.asarray(predicted)
    known = None if true is None else np.asarray(true)
    figure, axes = _grid(len(reference_images) + 1, len(images) + 1)
    _corner(axes[0, 0], title, "reference ↓    image →")
    for column, image in enumerate(images):
        _picture(axes[0, column + 1], image)
    for row, reference in enumerate(reference_images):
        _picture(axes[row + 1, 0], reference)
        largest = float(np.abs(maps[row].sum(axis=1)).max())
        for column, image in enumerate(images):
            axis = axes[row + 1, column + 1]
            _picture(axis, overlay(image, maps[row, column], largest))
            _score(axis, scores[row, column], None if known is None else known[row, column])
    _finish(figure, path, LEGEND if known is None else f"true / predicted similarity    {LEGEND}")


def pair_grid(images: NDArray[np.uint8], relevance: ArrayLike, scores: ArrayLike, path: str | Path) -> None:
    """Draw all pairs of images: in row i and column j, why image j is similar to image i, in the pixels of j.

    Args:
        images: uint8 of shape ``(image, height, width, channel)``.
        relevance: Shape ``(image, image, channel, height, width)``.
        scores: Inner products of the embeddings, shape ``(image, image)``.
        path: The PNG file; it appears whole or not at all.
    """
    maps, products = np.asarray(relevance), np.asarray(scores)
    figure, axes = _grid(len(images) + 1, len(images) + 1)
    _corner(axes[0, 0], "pairs", "similar to ↓    seen in →")
    for place, image in enumerate(images):
        _picture(axes[0, place + 1], image)
        _picture(axes[place + 1, 0], image)
    for row in range(len(images)):
        largest = float(np.abs(maps[row].sum(axis=1)).max())
        for column, image in enumerate(images):
            axis = axes[row + 1, column + 1]
            _picture(axis, overlay(image, maps[row, column], largest), frame=row == column)
            _score(axis, products[row, column], None)
    _finish(figure, path, f"inner product of the embeddings    {LEGEND}")


def _grid(rows: int, columns: int) -> tuple["Figure", NDArray[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * CELL, rows * (CELL + 0.16) + 0.3), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0.0, hspace=0.0)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _picture(axis: Any, image: NDArray[Any], frame: bool = False) -> None:
    shown = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    axis.imshow(shown, interpolation="nearest")
    if frame:
        axis.set_axis_on()
        axis.set(xticks=[], yticks=[])
        for side in axis.spines.values():
            side.set(color=INK, linewidth=1.2)


def _corner(axis: Any, title: str, axes_words: str) -> None:
    axis.text(
        0.5, 0.62, title, ha="center", va="center", fontsize=11, weight="bold", color=INK, transform=axis.transAxes
    )
    axis.text(0.5, 0.36, axes_words, ha="center", va="center", fontsize=6.5, color=INK, transform=axis.transAxes)


def _score(axis: Any, predicted: float, true: float | None) -> None:
    known = "" if true is None else "unknown / " if np.isnan(true) else f"{true:.2f} / "
    axis.set_title(f"{known}{predicted:.2f}", fontsize=8, color=INK, pad=2)


def _finish(figure: "Figure", path: str | Path, words: str) -> None:
    figure.supxlabel(words, fontsize=8, color=INK)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.png")
    try:
        figure.savefig(partial, dpi=110)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_sheet(images: Sequence[NDArray[np.uint8]], columns: int, path: str | Path) -> None:
    """Draw a contact sheet of images of one size, row by row."""
    rows = -(-len(images) // columns)
    figure, axes = _grid(rows, columns)
    for axis, image in zip(axes.flat, images, strict=False):
        _picture(axis, image)
    _finish(figure, path, "")
