"""Figures of the command ``explain``: what is drawn, where to, and what it looks like."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.explain.heatmaps import Colours, Scale

BEST = "epsilon_gamma_baseline"
"""The preset of figures unless another is asked for: most relevance on the truth of drawn shoes (docs/evidence.md)."""


@dataclass(frozen=True)
class Look:
    """What figures look like.

    Args:
        colours: Red and blue.
        scale: Which heatmaps share their colours.
        format: Ending of the files.
    """

    colours: Colours = "seismic"
    scale: Scale = "row"
    format: str = "png"


@dataclass(frozen=True)
class Picture:
    """A figure that is explained but not yet drawn.

    Args:
        name: The head that is explained, ``all_pairs`` or ``bilrp``.
        rows: What the summary says of every heatmap.
        relevance: Shape ``(row, column, channel, height, width)``; of ``bilrp`` the factors.
        draw: Draws it to a file.
    """

    name: str
    rows: list[dict[str, Any]]
    relevance: NDArray[np.float32]
    draw: Callable[[Path], None]
