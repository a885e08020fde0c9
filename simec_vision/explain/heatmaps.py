"""Heatmaps. Red makes images more similar, blue less; ``grids``, ``charts`` and ``connections`` draw upon this."""

from pathlib import Path
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
    backdrop = 1 - 0.75 * (1 - strength) * (1 - grey(image))
    return opacity * colour_map(colours)((scaled + 1) / 2)[..., :3] + (1 - opacity) * backdrop


def colour_map(colours: Colours) -> "Colormap":
    """Give the colours from −1 at 0 to 1 at 1."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("balanced", BALANCED) if colours == "balanced" else colormaps[colours]


def grey(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Average the channels of an image: ``(height, width, 1)`` in [0, 1]."""
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
    check_look(path, "row", colours)
    maps = checked_maps(relevance, (), image)
    figure, axes = figure_grid(1, 2, image.shape)
    draw_picture(axes[0, 0], image)
    draw_picture(axes[0, 1], overlay(image, maps, colours=colours), title)
    finish(figure, axes, path, "", colours)


def checked_maps(relevance: ArrayLike, leading: tuple[int, ...], image: NDArray[np.uint8]) -> NDArray[np.floating]:
    """Give relevance of shape ``(*leading, channel, height, width)`` as an array.

    Raises:
        InputError: if it is of another shape, or not finite.
    """
    maps = np.asarray(relevance)
    expected = (*leading, *maps.shape[len(leading) : len(leading) + 1], *image.shape[:2])
    if maps.ndim != len(leading) + 3 or maps.shape != expected:
        axes = "(…, channel, height, width)"
        sizes = ", ".join(map(str, (*leading, "channel", *image.shape[:2])))
        raise InputError(f"Expected relevance of shape {axes} = ({sizes}), like the images, got {maps.shape}")
    if not np.isfinite(maps).all():
        raise InputError("Expected a finite relevance, got NaN or infinity: nothing of it could be drawn truthfully")
    return maps


def figure_grid(
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


def draw_picture(axis: Any, image: NDArray[Any], title: str = "") -> None:
    """Show an image ``(height, width, channel)`` with something above it."""
    axis.imshow(np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image, interpolation="nearest")
    axis.set_title(title, fontsize=fitting(axis, 9, 16), color=INK, pad=2.5)


def fitting(axis: Any, points: float, letters: int) -> float:
    """Give a font size in points that lets so many letters stand above a picture, however small it is."""
    across = axis.figure.get_size_inches()[0] / axis.get_subplotspec().get_gridspec().ncols
    return min(points, 72 * across / (0.55 * letters))


def finish(
    figure: "Figure",
    axes: NDArray[Any],
    path: str | Path,
    words: str,
    colours: Colours = "seismic",
    ends: tuple[str, str] = ("less similar", "more similar"),
) -> None:
    """Write a figure, below it the colours from −1 to 1 with what their ends mean, and some words."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    mappable = ScalarMappable(Normalize(-1, 1), colour_map(colours))
    bar = figure.colorbar(mappable, ax=axes, location="bottom", fraction=0.02, shrink=0.4, aspect=40, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, labelcolor=INK, pad=2)
    bar.set_ticks([-1, 1], labels=ends)
    bar.set_label(words, fontsize=8.5, color=INK, labelpad=1)
    save_figure(figure, path)


def check_look(path: str | Path, scale: str, colours: str) -> None:
    """Check what a figure shall look like.

    Raises:
        InputError: if there is no such scale, colours or format.
    """
    for value, known, what in (
        (scale, get_args(Scale), "scale"),
        (colours, get_args(Colours), "colours"),
        (Path(path).suffix[1:], FORMATS, "the ending of the path"),
    ):
        if value not in known:
            raise InputError(f"Expected {what} to be one of {', '.join(known)}, got {value!r}")


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write PNG or PDF by the path's ending; no time of writing, so that the same figure is the same file."""
    kind = Path(path).suffix[1:]
    with replacing(path) as partial:
        figure.savefig(partial, format=kind, dpi=DPI, metadata={"CreationDate": None} if kind == "pdf" else None)
