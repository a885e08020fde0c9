"""Heatmaps; with ``charts`` and ``connections`` beside it all that draws. Red makes images more similar, blue less."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simec_vision.files import replacing
from simec_vision.items import InputError

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Scale = Literal["row", "image", "all"]
"""Which heatmaps share their colours: those of a row, as in the original, none, or all of the figure."""
Colours = Literal["seismic", "balanced"]
"""``seismic`` is the original's. The red and the blue of ``balanced`` are equally light, and the colour-blind can tell
them apart, the better the stronger they are. White is 0 in both."""
BALANCED = ("#2b4fd0", "white", "#c1121f")
FORMATS = ("png", "pdf")

INK = "#222222"
WIDTH, CELL = 9.0, 1.8
"""Inches: a figure is as wide as WIDTH, unless its pictures would be wider than CELL."""
METHOD_CELL = 1.15
"""Inches of a picture where many methods stand side by side."""
DPI = 120


def overlay(
    image: NDArray[np.uint8],
    relevance: NDArray[np.floating],
    largest: float | None = None,
    colours: Colours = "seismic",
) -> NDArray[np.float64]:
    """Lay a relevance over its image in grey.

    As in the original: relevance is summed over channels and divided by its largest magnitude, a; it is coloured with
    opacity min(1.5 |a|, 1) over the grey image, whose own opacity on white is 0.75 (1 − |a|).

    Args:
        image: uint8 of shape ``(height, width, channel)``.
        relevance: Shape ``(channel, height, width)``.
        largest: What counts as 1, to compare several heatmaps; default: the largest magnitude in this relevance.
        colours: What red and blue look like.

    Returns:
        Colours in [0, 1], shape ``(height, width, 3)``.
    """
    summed = np.asarray(relevance, dtype=np.float64).sum(axis=0)
    scaled = np.clip(summed / (largest or np.abs(summed).max() or 1.0), -1, 1)
    strength = np.abs(scaled)[..., None]
    opacity = np.minimum(1.5 * strength, 1)
    backdrop = 1 - 0.75 * (1 - strength) * (1 - _grey(image))
    return opacity * colour_map(colours)((scaled + 1) / 2)[..., :3] + (1 - opacity) * backdrop


def colour_map(colours: Colours) -> "Colormap":
    """Give the colours from −1 at 0 to 1 at 1."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("balanced", BALANCED) if colours == "balanced" else colormaps[colours]


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    return image.astype(np.float64).mean(axis=2, keepdims=True) / 255


def draw_heatmap(
    image: NDArray[np.uint8],
    relevance: ArrayLike,
    path: str | Path,
    title: str = "",
    colours: Colours = "seismic",
) -> None:
    """Draw one image and, beside it, its heatmap.

    Args:
        image: uint8 of shape ``(height, width, channel)``.
        relevance: Shape ``(channel, height, width)``.
        path: The PNG or PDF file; it appears whole or not at all.
        title: What stands above the heatmap.
        colours: What red and blue look like.

    Raises:
        InputError: if the relevance is of another size than the image.
    """
    _check_look(path, "row", colours)
    maps = _maps(relevance, (), image)
    figure, axes = _grid(1, 2, image.shape)
    _picture(axes[0, 0], image)
    _picture(axes[0, 1], overlay(image, maps, colours=colours), title)
    _finish(figure, axes, path, "", colours)


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
    _check_look(path, scale, colours)
    shape = (len(reference_images), len(images))
    maps, scores = _maps(relevance, shape, images[0]), _table(predicted, shape, "predicted")
    known = None if true is None else _table(true, shape, "true")
    figure, axes = _grid(shape[0] + 1, shape[1] + 1, images[0].shape)
    _corner(axes[0, 0], title, "reference ↓   image →")
    _pictures(axes[0, 1:], images, image_labels)
    _pictures(axes[1:, 0], reference_images, reference_labels)
    rows = scores if known is None else np.stack([scores, known], axis=2)
    titles = [[_title(*np.atleast_1d(cell)) for cell in row] for row in rows]
    _heatmaps(axes[1:, 1:], images, maps, titles, scale, colours)
    _finish(figure, axes, path, "predicted similarity" if known is None else "true / predicted similarity", colours)


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
    _check_look(path, scale, colours)
    count = len(images)
    maps, products = _maps(relevance, (count, count), images[0]), _table(scores, (count, count), "scores")
    figure, axes = _grid(count + 1, count + 1, images[0].shape)
    _corner(axes[0, 0], "pairs", "similar to ↓   seen in →")
    _pictures(axes[0, 1:], images, labels)
    _pictures(axes[1:, 0], images, labels)
    _heatmaps(axes[1:, 1:], images, maps, [[_title(product) for product in row] for row in products], scale, colours)
    for place in range(count):
        _frame(axes[place + 1, place + 1])
    _finish(figure, axes, path, "inner product of the embeddings; framed: with itself", colours)


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
    figure, axes = _grid(len(images), columns, images[0].shape, width=METHOD_CELL * columns)
    _pictures(axes[:, 0], images, labels)
    for column, (name, relevance) in zip(axes[:, 1:].T, heatmaps.items(), strict=True):
        maps = _maps(np.asarray(relevance)[:, None], (len(images),), images[0])
        for place, (axis, image) in enumerate(zip(column, images, strict=True)):
            _picture(axis, overlay(image, maps[place]), "" if place else fill(name.replace("_", " "), 11))
    _finish(figure, axes, path, "each heatmap relative to its own largest magnitude")


def save_sheet(images: Sequence[NDArray[np.uint8]], columns: int, path: str | Path) -> None:
    """Draw a contact sheet of images of one size, row by row."""
    figure, axes = _grid(-(-len(images) // columns), columns, images[0].shape)
    for axis, image in zip(axes.flat, images, strict=False):
        _picture(axis, image)
    _save(figure, path)


def _maps(relevance: ArrayLike, leading: tuple[int, ...], image: NDArray[np.uint8]) -> NDArray[np.floating]:
    maps = np.asarray(relevance)
    expected = (*leading, *maps.shape[len(leading) : len(leading) + 1], *image.shape[:2])
    if maps.ndim != len(leading) + 3 or maps.shape != expected:
        axes = "(…, channel, height, width)"
        sizes = ", ".join(map(str, (*leading, "channel", *image.shape[:2])))
        raise InputError(f"Expected relevance of shape {axes} = ({sizes}), like the images, got {maps.shape}")
    if not np.isfinite(maps).all():
        raise InputError("Expected a finite relevance, got NaN or infinity: nothing of it could be drawn truthfully")
    return maps


def _table(values: ArrayLike, shape: tuple[int, int], argument: str) -> NDArray[np.floating]:
    table = np.asarray(values)
    if table.shape != shape:
        raise InputError(f"Expected {argument} of shape (row, column) = {shape}, got {table.shape}")
    return table


def _title(predicted: float, true: float | None = None) -> str:
    known = "" if true is None else "unknown / " if np.isnan(true) else f"{true:.2f} / "
    return f"{known}{round(float(predicted), 2) + 0.0:.2f}".replace("-", "−")  # + 0.0 turns −0 into 0


def _grid(
    rows: int, columns: int, shape: tuple[float, ...], widest: float = CELL, width: float = WIDTH
) -> tuple["Figure", NDArray[Any]]:
    """Make axes for pictures ``(height, width, …)`` of a size that fills the figure, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cell = min(width / columns, widest)
    height = rows * (cell * shape[0] / shape[1] + 0.2) + 0.6
    figure = Figure(figsize=(columns * cell, height), layout="constrained", facecolor="white", dpi=DPI)
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.025, h_pad=0.025, wspace=0.0, hspace=0.0)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _picture(axis: Any, image: NDArray[Any], title: str = "") -> None:
    axis.imshow(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image, interpolation="nearest")
    axis.set_title(title, fontsize=_fitting(axis, 9, 16), color=INK, pad=2.5)


def _fitting(axis: Any, points: float, letters: int) -> float:
    """Give a font size in points that lets so many letters stand above a picture, however small it is."""
    across = axis.figure.get_size_inches()[0] / axis.get_subplotspec().get_gridspec().ncols
    return min(points, 72 * across / (0.55 * letters))


def _pictures(axes: NDArray[Any], images: NDArray[np.uint8], labels: Sequence[str] | None) -> None:
    for axis, image, label in zip(axes, images, labels or [""] * len(images), strict=True):
        _picture(axis, image, label)


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
        _picture(axes[row, column], picture, titles[row][column])


def _frame(axis: Any) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set(color=INK, linewidth=1.2)


def _corner(axis: Any, title: str, words: str) -> None:
    style = {"ha": "center", "va": "center", "color": INK, "transform": axis.transAxes, "in_layout": False}
    axis.text(0.5, 0.6, title, fontsize=_fitting(axis, 12, len(title) + 2), weight="bold", **style)
    axis.text(0.5, 0.4, words, fontsize=_fitting(axis, 7.5, len(words)), **style)


def _finish(figure: "Figure", axes: NDArray[Any], path: str | Path, words: str, colours: Colours = "seismic") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(-1, 1), colour_map(colours))
    bar = figure.colorbar(mappable, ax=axes, location="bottom", fraction=0.02, shrink=0.4, aspect=40, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, labelcolor=INK, pad=2)
    bar.set_ticks([-1, 1], labels=["less similar", "more similar"])
    bar.set_label(words, fontsize=8.5, color=INK, labelpad=1)
    _save(figure, path)


def _check_look(path: str | Path, scale: str, colours: str) -> None:
    for value, known, what in (
        (scale, get_args(Scale), "scale"),
        (colours, get_args(Colours), "colours"),
        (Path(path).suffix[1:], FORMATS, "the ending of the path"),
    ):
        if value not in known:
            raise InputError(f"Expected {what} to be one of {', '.join(known)}, got {value!r}")


def _save(figure: "Figure", path: str | Path) -> None:
    """Write PNG or PDF by the path's ending; no time of writing, so that the same figure is the same file."""
    kind = Path(path).suffix[1:]
    with replacing(path) as partial:
        figure.savefig(partial, format=kind, dpi=DPI, metadata={"CreationDate": None} if kind == "pdf" else None)
