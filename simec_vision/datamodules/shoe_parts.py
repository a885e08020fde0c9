"""The parts of a drawn shoe as polygons and strokes, before any view is chosen.

A shoe is built in *last coordinates* `(s, t)`, as a shoemaker builds it on a last: `s` runs along the foot-bed from the
back of the heel (0) to the tip of the toe (1), `t` is the height above the foot-bed. `Last.place` turns them into shoe
units `(x, y)`: the length of a flat shoe is 1, y points up and the ground is y = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

BODY, HEEL, CLOSURE = 1, 2, 3  # what a pixel belongs to; 0 is the background


@dataclass(frozen=True)
class Part:
    """A polygon (width 0) or a stroke of one colour.

    Attributes:
        points: Corners of shape (point, 2) in shoe units.
        fill: RGB colour.
        label: BODY, HEEL or CLOSURE.
        width: Width of the stroke in shoe units; 0 fills the polygon.
        textured: Whether the texture of the upper is laid on it.
    """

    points: np.ndarray
    fill: Colour
    label: int = BODY
    width: float = 0.0
    textured: bool = False


@dataclass(frozen=True)
class Palette:
    """The colours of one shoe."""

    upper: Colour
    sole: Colour
    heel: Colour
    strap: Colour
    facing: Colour
    shadow: Colour
    metal: Colour
    mark: Colour


def between(values: np.ndarray) -> np.ndarray:
    """Limit values to the range from 0 to 1 (for short arrays much faster than `np.clip`)."""
    return np.minimum(np.maximum(values, 0), 1)


@dataclass(frozen=True)
class Last:
    """The form on which a shoe is built: lifting its heel inclines the foot-bed and shortens the shoe.

    Attributes:
        lift: Height of the heel in shoe units; 0 for a flat shoe.
        sole: Thickness of the sole in shoe units.
    """

    lift: float
    sole: float

    def place(self, points: Points | np.ndarray) -> np.ndarray:
        """Map last coordinates (point, 2) to shoe units (point, 2); what lies far above the foot-bed stays level."""
        s, t = np.asarray(points, dtype=float).T
        incline = between((s - 0.08) / 0.6)
        fall = 0.45 * incline + 0.55 * incline**2 * (3 - 2 * incline)
        bed = self.sole + self.lift * (1 - fall * (1 - between((t - 0.28) / 0.3)))
        spring = 0.03 * between((s - 0.8) / 0.2) ** 2
        return np.array((s - incline * (0.6 - (0.36 - self.lift**2) ** 0.5), bed + spring + t)).T


# --- outlines ---------------------------------------------------------------------------------------------------------


@cache
def smooth(points: tuple[tuple[float, float], ...], rounds: int = 2) -> np.ndarray:
    """Round the corners of an open line by Chaikin's corner cutting; the ends stay. Returns (point, 2)."""
    line = np.asarray(points)
    for _ in range(rounds):
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], axis=1)
        line = np.concatenate([line[:1], cut.reshape(-1, 2), line[-1:]])
    return line


def along(start: float, end: float, t: float = 0.0, count: int = 20) -> Points:
    """Points at height `t` above the foot-bed, from s = start to s = end."""
    return [(s, t) for s in np.linspace(start, end, count).tolist()]


def arc(centre: tuple[float, float], radii: tuple[float, float], start: float = 0, end: float = 360) -> Points:
    """An arc of an ellipse; angles in degrees, counter-clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 17))
    return [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]


def knots(s: Sequence[float], t: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Pair the coordinates of a line."""
    return tuple(zip(s, t, strict=True))


SHAPES = {  # the uppers in last coordinates, from the heel over the top to the toe; the foot-bed closes them
    "Shoes": (
        knots(
            (0.0, -0.02, -0.005, 0.0, 0.06, 0.12, 0.24, 0.32, 0.37, 0.43, 0.55, 0.7, 0.86, 0.97, 1.01, 1.0),
            (0.0, 0.1, 0.2, 0.3, 0.3, 0.235, 0.235, 0.29, 0.335, 0.3, 0.225, 0.165, 0.15, 0.115, 0.04, 0.0),
        ),
    ),
    "Boots": (
        knots(
            (0.0, -0.025, -0.005, 0.0, -0.03, -0.03, 0.18, 0.37, 0.38, 0.355, 0.385, 0.5, 0.7, 0.86, 0.97, 1.01, 1.0),
            (0.0, 0.1, 0.25, 0.4, 0.64, 0.65, 0.635, 0.65, 0.64, 0.45, 0.34, 0.255, 0.175, 0.155, 0.115, 0.04, 0.0),
        ),
    ),
    "Sandals": (
        knots((0.0, -0.02, -0.01, -0.01, 0.035, 0.05, 0.1, 0.18), (0.0, 0.1, 0.2, 0.3, 0.3, 0.18, 0.06, 0.0)),
        knots(
            (-0.005, 0.0, 0.14, 0.3, 0.4, 0.42, 0.3, 0.14, 0.01), (0.24, 0.29, 0.25, 0.25, 0.28, 0.23, 0.2, 0.2, 0.23)
        ),
        knots((0.42, 0.4, 0.37, 0.35, 0.43, 0.5, 0.53, 0.55), (0.0, 0.12, 0.24, 0.29, 0.295, 0.255, 0.12, 0.0)),
        knots((0.66, 0.655, 0.66, 0.72, 0.8, 0.86, 0.88, 0.89), (0.0, 0.1, 0.18, 0.18, 0.165, 0.14, 0.08, 0.0)),
    ),
    "Slippers": (
        knots(
            (0.37, 0.33, 0.31, 0.33, 0.4, 0.55, 0.7, 0.86, 0.98, 1.02, 1.0),
            (0.0, 0.1, 0.22, 0.32, 0.335, 0.27, 0.21, 0.18, 0.125, 0.04, 0.0),
        ),
    ),
}


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor < 1) or lighten (factor > 1) a colour."""
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Perceived lightness between 0 and 255 (ITU-R BT.601)."""
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def outline(shape: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The closed outline (point, 2) of a shape in last coordinates: its smooth top and, if it ends there, the bed."""
    bed = along(shape[-1][0], shape[0][0]) if shape[-1][1] == 0 else []
    return np.concatenate([smooth(shape), np.reshape(bed, (-1, 2))])


def uppers(category: str, last: Last, palette: Palette) -> list[Part]:
    """What covers the foot, with the linings and trims that make the category."""
    parts = [Part(last.place(outline(shape)), palette.upper, textured=True) for shape in SHAPES[category]]
    return LININGS[category](last, palette) + parts + TRIMS[category](last, palette)


def no_parts(last: Last, palette: Palette) -> list[Part]:
    """Nothing to add."""
    return []


def collar(last: Last, palette: Palette) -> list[Part]:
    """The far side of the opening of a shoe, which shows above the near side, darker."""
    far = smooth(((0.0, 0.29), (0.1, 0.275), (0.25, 0.275), (0.35, 0.32), (0.3, 0.22), (0.1, 0.2), (0.0, 0.29)))
    return [Part(last.place(far), shade(palette.upper, 0.55))]


def far_straps(last: Last, palette: Palette) -> list[Part]:
    """The far sides of a sandal's straps and its cushioned foot-bed."""
    lean = np.array([0.035, -0.012])
    straps = [Part(last.place(outline(shape) + lean), shade(palette.upper, 0.6)) for shape in SHAPES["Sandals"][2:]]
    return [*straps, foot_bed(last)]


def foot_bed(last: Last, top: float = 0.025) -> Part:
    """The inner sole, which shows where the foot is not covered."""
    return Part(last.place([*along(0.0, 0.96, top), *along(0.98, -0.01, -0.005)]), (205, 172, 128))


def plush_bed(last: Last, palette: Palette) -> list[Part]:
    """The thick foot-bed of a slipper."""
    return [foot_bed(last, 0.045)]


def plush_trim(last: Last, palette: Palette) -> list[Part]:
    """The fluffy edge of a slipper's opening."""
    edge = ((0.36, 0.03), (0.33, 0.09), (0.315, 0.15), (0.305, 0.21), (0.31, 0.27), (0.335, 0.32), (0.38, 0.335))
    return [Part(last.place(arc(centre, (0.042, 0.042))), (238, 232, 220)) for centre in edge]


def seams(last: Last, palette: Palette) -> list[Part]:
    """The edge of the toe cap and of the heel counter."""
    lines = ((0.79, 0.0), (0.76, 0.08), (0.775, 0.158)), ((0.2, 0.0), (0.19, 0.1), (0.1, 0.17), (-0.008, 0.19))
    return [Part(last.place(smooth(line)), shade(palette.upper, 0.6), width=0.008) for line in lines]


LININGS = {"Shoes": collar, "Boots": no_parts, "Sandals": far_straps, "Slippers": plush_bed}
TRIMS = {"Shoes": seams, "Boots": seams, "Sandals": no_parts, "Slippers": plush_trim}


# --- sole and heel ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeelType:
    """The form of a heel: its reach along the sole, its edges on the ground and how its front curves in between."""

    reach: float
    back: float
    front: float
    curve: float


HEEL_TYPES = (
    HeelType(reach=0.27, back=0.015, front=0.25, curve=1.0),  # block
    HeelType(reach=0.26, back=0.04, front=0.17, curve=1.5),  # cone
    HeelType(reach=0.25, back=0.03, front=0.095, curve=3.0),  # stiletto
    HeelType(reach=0.62, back=0.0, front=0.56, curve=1.0),  # wedge
)


def sole(last: Last, palette: Palette) -> Part:
    """The sole: a band below the foot-bed."""
    return Part(last.place([*along(-0.015, 1.012, 0.0, 40), *along(0.995, -0.01, -last.sole, 40)]), palette.sole)


def heel(last: Last, kind: HeelType, palette: Palette) -> Part:
    """The heel, from the ground to the sole; for a flat shoe the rear piece of the sole."""
    if last.lift == 0:
        flat = [*along(-0.012, 0.26), *along(0.26, -0.01, -last.sole)]
        return Part(last.place(flat), palette.sole, HEEL)
    rise = np.linspace(0, 1, 9)
    front = kind.front + (kind.reach - kind.front) * rise**kind.curve
    s = np.concatenate([kind.back * (1 - rise), np.linspace(0, kind.reach, 9), front[::-1]])
    points = last.place(np.stack([s, np.full_like(s, -last.sole)], axis=1))
    points[:, 1] *= np.concatenate([rise, np.ones(9), rise[::-1]])
    return Part(points, palette.heel, HEEL)
