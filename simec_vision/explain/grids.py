"""Many heatmaps side by side: references, pairs of images, one reference rather than another, methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simec_vision.explain.heatmaps import (
    INK,
    Colours,
    Scale,
    check_look,
    checked_maps,
    draw_picture,
    figure_grid,
    finish,
    fitting,
    overlay,
    save_figure,
)
from simec_vision.items import InputError

METHOD_CELL = 1.15
"""Inches of a picture where many methods stand side by side."""


def picture_rows(rows: Mapping[str, NDArray[np.uint8]], path: str | Path) -> None:
    """Draw rows of pictures under each other, such as images and what an auto-encoder gives back.

    Args:
        rows: What stands above the first picture of a row → uint8 of shape ``(picture, height, width, channel)``.
        path: The PNG or PDF file; it appears whole or not at all.
    """
    shape = next(iter(rows.values())).shape
    figure, axes = figure_grid(len(rows), shape[0], shape[1:])
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            draw_picture(axis, picture)
        line[0].set_title(name, fontsize=9, color=INK, loc="left", pad=2.5)
    save_figure(figure, path)


def reference_grid(
    images: NDArray[np.uint8],
    reference_images: NDArray[np.uint8],
    relevance: ArrayLike,
    predicted: ArrayLike,
    true: ArrayLike | None,
    path: str | Path,
    title: str = "",
    image_labels: Sequence[str] | None = None,
    reference_labels: Sequence[str] | None = None,
    scale: Scale = "row",
    colours: Colours = "seismic",
) -> None:
    """Draw references down the side, images across, and in each cell why this image is similar to that reference.

    Args:
        images: uint8 of shape ``(batch, height, width, channel)``.
        reference_images: uint8 of shape ``(reference, height, width, channel)``.
        relevance: Shape ``(reference, batch, channel, height, width)``.
        predicted: Predicted similarities, shape ``(reference, batch)``.
        true: Target similarities, same shape, NaN where unknown; default: not shown.
        path: The PNG or PDF file; it appears whole or not at all.
        title: Name of the similarity.
        image_labels: What stands above each image.
        reference_labels: What stands above each reference.
        scale: Colours are relative to the largest relevance of the ``row``, as in the original, of each ``image``, or
            of ``all``.
        colours: What red and blue look like.

    Raises:
        InputError: if the shapes do not fit together, or the path ends in something else.
    """
    shape = (len(reference_images), len(images))
    tables = [_table(predicted, shape, "predicted"), *([] if true is None else [_table(true, shape, "true")])]
    titles = [[_title(*cell) for cell in row] for row in np.stack(tables, axis=2)]
    corner = [(title, "reference ↓   image →")]
    words = "predicted similarity" if true is None else "true / predicted similarity"
    beside, labels = reference_images[:, None], [[label] for label in reference_labels or ()]
    figure, axes = _cells(images, beside, relevance, titles, path, corner, scale, colours, image_labels, labels)
    finish(figure, axes, path, words, colours)


def rather_grid(
    images: NDArray[np.uint8],
    reference_images: NDArray[np.uint8],
    other_images: NDArray[np.uint8],
    relevance: ArrayLike,
    predicted: ArrayLike,
    others: ArrayLike,
    path: str | Path,
    title: str = "",
    scale: Scale = "row",
    colours: Colours = "seismic",
) -> None:
    """Draw pairs of references A and B down the side, images across, and why an image is more similar to A than to B.

    Args:
        images: uint8 of shape ``(batch, height, width, channel)``.
        reference_images: A of every pair, uint8 of shape ``(pair, height, width, channel)``.
        other_images: B of every pair, same shape.
        relevance: Of the difference of the similarities, shape ``(pair, batch, channel, height, width)``.
        predicted: Predicted similarities to A, shape ``(pair, batch)``.
        others: Predicted similarities to B, same shape.
        path: The PNG or PDF file; it appears whole or not at all.
        title: Name of the similarity.
        scale: Colours are relative to the largest relevance of the ``row``, of each ``image``, or of ``all``.
        colours: What red and blue look like.

    Raises:
        InputError: if the shapes do not fit together, or the path ends in something else.
    """
    shape = (len(reference_images), len(images))
    tables = _table(predicted, shape, "predicted"), _table(others, shape, "others")
    titles = [[f"{_title(a)} − {_title(b)}".replace("− −", "+ ") for a, b in row] for row in np.stack(tables, axis=2)]
    corner = [(title, "A ↓"), ("rather", "than B ↓")]
    beside = np.stack([reference_images, other_images], axis=1)
    figure, axes = _cells(images, beside, relevance, titles, path, corner, scale, colours)
    finish(figure, axes, path, "similarity to A − similarity to B", colours, ("speaks for B", "speaks for A"))


def pair_grid(
    images: NDArray[np.uint8],
    relevance: ArrayLike,
    scores: ArrayLike,
    path: str | Path,
    labels: Sequence[str] | None = None,
    scale: Scale = "row",
    colours: Colours = "seismic",
) -> None:
    """Draw all pairs of images: in row i and column j, why image j is similar to image i, in the pixels of j.

    Args:
        images: uint8 of shape ``(image, height, width, channel)``.
        relevance: Shape ``(image, image, channel, height, width)``.
        scores: Inner products of the embeddings, shape ``(image, image)``.
        path: The PNG or PDF file; it appears whole or not at all.
        labels: What stands above each image.
        scale: Colours are relative to the largest relevance of the ``row``, as in the original, of each ``image``, or
            of ``all``.
        colours: What red and blue look like.

    Raises:
        InputError: if the shapes do not fit together, or the path ends in something else.
    """
    count = len(images)
    titles = [[_title(product) for product in row] for row in _table(scores, (count, count), "scores")]
    corner = [("pairs", "similar to ↓   seen in →")]
    beside = [[label] for label in labels or ()]
    figure, axes = _cells(images, images[:, None], relevance, titles, path, corner, scale, colours, labels, beside)
    for place in range(count):
        _frame(axes[place + 1, place + 1])
    finish(figure, axes, path, "inner product of the embeddings; framed: with itself", colours)


def method_grid(
    images: NDArray[np.uint8], heatmaps: Mapping[str, ArrayLike], labels: Sequence[str], path: str | Path
) -> None:
    """Draw images down the side, methods across, and in each cell the method's heatmap on a scale of its own.

    Args:
        images: uint8 of shape ``(batch, height, width, channel)``.
        heatmaps: Method → shape ``(batch, height, width)``.
        labels: What stands above each image.
        path: The PNG file; it appears whole or not at all.

    Raises:
        InputError: if the shapes do not fit together.
    """
    columns = len(heatmaps) + 1
    figure, axes = figure_grid(len(images), columns, images[0].shape, width=METHOD_CELL * columns)
    _pictures(axes[:, 0], images, labels)
    for column, (name, relevance) in zip(axes[:, 1:].T, heatmaps.items(), strict=True):
        maps = checked_maps(np.asarray(relevance)[:, None], (len(images),), images[0])
        for place, (axis, image) in enumerate(zip(column, images, strict=True)):
            draw_picture(axis, overlay(image, maps[place]), "" if place else fill(name.replace("_", " "), 11))
    finish(figure, axes, path, "each heatmap relative to its own largest magnitude")


def _cells(
    images: NDArray[np.uint8], beside: NDArray[np.uint8], relevance: ArrayLike, titles: list[list[str]],
    path: str | Path, corner: Sequence[tuple[str, str]], scale: Scale, colours: Colours,
    above: Sequence[str] | None = None, labels: Sequence[Sequence[str]] = (),
) -> tuple[Any, NDArray[Any]]:  # fmt: skip
    """Lay out a figure: images across, ``beside`` ``(row, column, height, width, channel)`` at the left, heatmaps.

    Returns:
        The figure and its axes ``(row, column)``.
    """
    check_look(path, scale, colours)
    rows, extra = beside.shape[:2]
    maps = checked_maps(relevance, (rows, len(images)), images[0])
    figure, axes = figure_grid(rows + 1, extra + len(images), images[0].shape)
    for axis, words in zip(axes[0, :extra], corner, strict=True):
        _corner(axis, *words)
    _pictures(axes[0, extra:], images, above)
    for place, row in enumerate(beside):
        _pictures(axes[place + 1, :extra], row, labels[place] if labels else None)
    _heatmaps(axes[1:, extra:], images, maps, titles, scale, colours)
    return figure, axes


def _table(values: ArrayLike, shape: tuple[int, int], argument: str) -> NDArray[np.floating]:
    table = np.asarray(values)
    if table.shape != shape:
        raise InputError(f"Expected {argument} of shape (row, column) = {shape}, got {table.shape}")
    return table


def _title(predicted: float, true: float | None = None) -> str:
    known = "" if true is None else "unknown / " if np.isnan(true) else f"{true:.2f} / "
    return f"{known}{round(float(predicted), 2) + 0.0:.2f}".replace("-", "−")  # + 0.0 turns −0 into 0


def _pictures(axes: NDArray[Any], images: NDArray[np.uint8], labels: Sequence[str] | None) -> None:
    for axis, image, label in zip(axes, images, labels or [""] * len(images), strict=True):
        draw_picture(axis, image, label)


def _heatmaps(
    axes: NDArray[Any],
    images: NDArray[np.uint8],
    maps: NDArray[np.floating],
    titles: list[list[str]],
    scale: Scale,
    colours: Colours,
) -> None:
    largest = np.abs(maps.sum(axis=2)).max(axis=(2, 3))
    shared = {"image": largest, "row": largest.max(axis=1, keepdims=True), "all": largest.max(keepdims=True)}[scale]
    shared = np.broadcast_to(shared, largest.shape)
    for row, column in np.ndindex(largest.shape):
        picture = overlay(images[column], maps[row, column], float(shared[row, column]), colours)
        draw_picture(axes[row, column], picture, titles[row][column])


def _frame(axis: Any) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set(color=INK, linewidth=1.2)


def _corner(axis: Any, title: str, words: str) -> None:
    style = {"ha": "center", "va": "center", "color": INK, "transform": axis.transAxes, "in_layout": False}
    axis.text(0.5, 0.6, title, fontsize=fitting(axis, 12, len(title) + 2), weight="bold", **style)
    axis.text(0.5, 0.4, words, fontsize=fitting(axis, 7.5, len(words)), **style)
