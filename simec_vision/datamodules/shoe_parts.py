"""The parts of a drawn shoe as polygons and strokes, before any view is chosen.

A shoe is built in *last coordinates* `(s, t)`, as a shoemaker builds it on a last: `s` runs along the foot-bed from the
back of the heel (0) to the tip of the toe (1), `t` is the height above the foot-bed. `Last.place` turns them into shoe
units `(x, y)`: the length of a flat shoe is 1, y points up and the ground is y = 0. A closure is drawn in the unit square
`(u, v)` of a `Slot` of the shoe, so that one drawing serves every category and every heel.
"""

from collections.abc import Iterable, Sequence
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
    metal: Colour


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
        incline = np.clip((s - 0.08) / 0.6, 0, 1)
        fall = 0.45 * incline + 0.55 * incline**2 * (3 - 2 * incline)
        bed = self.sole + self.lift * (1 - fall * (1 - np.clip((t - 0.28) / 0.3, 0, 1)))
        spring = 0.03 * np.clip((s - 0.8) / 0.2, 0, 1) ** 2
        return np.stack([s - incline * (0.6 - np.sqrt(0.36 - self.lift**2)), bed + spring + t], axis=1)


@dataclass(frozen=True)
class Slot:
    """The place of a closure: s = left + u * width, t between the floor (v = 0) and the ceiling above s (v = 1)."""

    left: float
    width: float
    floor: float
    ceiling: Points

    def fit(self, points: np.ndarray) -> np.ndarray:
        """Map points (point, 2) of the unit square to last coordinates (point, 2)."""
        s = self.left + points[:, 0] * self.width
        ceiling = np.interp(s, *np.transpose(self.ceiling))
        return np.stack([s, self.floor + points[:, 1] * (ceiling - self.floor)], axis=1)


@dataclass(frozen=True)
class Piece:
    """A part of a closure, drawn in the unit square of its slot; the tone names a colour of the palette."""

    points: Points
    tone: str
    width: float = 0.0


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


def rectangle(left: float, bottom: float, right: float, top: float) -> Points:
    """A rectangle with points along its edges, so that it bends with the shoe."""
    edge = np.linspace(0, 1, 5)
    corners = [(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)]
    sides = [np.outer(1 - edge, a) + np.outer(edge, b) for a, b in zip(corners[:-1], corners[1:], strict=True)]
    return [(float(u), float(v)) for u, v in np.concatenate(sides)]


def arc(centre: tuple[float, float], radii: tuple[float, float], start: float = 0, end: float = 360) -> Points:
    """An arc of an ellipse; angles in degrees, counter-clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 17))
    return [(centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a))) for a in angles]


SHAPES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {  # closed along the foot-bed, in last coordinates
    "Shoes": (
        ((0.0, 0.0), (-0.02, 0.1), (-0.005, 0.2), (0.0, 0.3), (0.06, 0.3), (0.12, 0.235), (0.24, 0.235), (0.32, 0.29))
        + ((0.37, 0.335), (0.43, 0.3), (0.55, 0.225), (0.7, 0.165), (0.86, 0.15), (0.97, 0.115), (1.01, 0.04), (1, 0)),
    ),
    "Boots": (
        ((0.0, 0.0), (-0.025, 0.1), (-0.005, 0.25), (0.0, 0.4), (-0.03, 0.64), (-0.03, 0.65), (0.18, 0.635), (0.37, 0.65))
        + ((0.38, 0.64), (0.355, 0.45), (0.385, 0.34), (0.5, 0.255), (0.7, 0.175), (0.86, 0.155), (0.97, 0.115))
        + ((1.01, 0.04), (1.0, 0.0)),
    ),
    "Sandals": (
        ((0.0, 0.0), (-0.02, 0.1), (-0.01, 0.2), (-0.01, 0.3), (0.03, 0.3), (0.05, 0.18), (0.12, 0.06), (0.2, 0.0)),
        ((0.4, 0.0), (0.37, 0.14), (0.36, 0.28), (0.42, 0.285), (0.48, 0.255), (0.5, 0.14), (0.52, 0.0)),
        ((0.66, 0.0), (0.66, 0.1), (0.68, 0.17), (0.75, 0.175), (0.84, 0.15), (0.88, 0.08), (0.88, 0.0)),
    ),
    "Slippers": (
        ((0.37, 0.0), (0.33, 0.1), (0.31, 0.22), (0.33, 0.32), (0.4, 0.335), (0.55, 0.27), (0.7, 0.21), (0.86, 0.18))
        + ((0.98, 0.125), (1.02, 0.04), (1.0, 0.0)),
    ),
}


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor < 1) or lighten (factor > 1) a colour."""
    red, green, blue = (max(0, min(255, round(value * factor))) for value in colour)
    return red, green, blue


def outline(shape: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The closed outline (point, 2) of a shape in last coordinates: its smooth top and the foot-bed below it."""
    return np.concatenate([smooth(shape), along(shape[-1][0], shape[0][0])])


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
    straps = [Part(last.place(outline(shape) + lean), shade(palette.upper, 0.6)) for shape in SHAPES["Sandals"][1:]]
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


# --- closures ---------------------------------------------------------------------------------------------------------


def laces() -> Iterable[Piece]:
    """A facing with crossed laces, eyelets and a bow."""
    yield Piece(rectangle(0.02, 0.22, 0.98, 1.02), "facing")
    for low in (0.3, 0.52, 0.74):
        yield Piece([(0.16, low), (0.84, low + 0.22)], "strap", 0.024)
        yield Piece([(0.84, low), (0.16, low + 0.22)], "strap", 0.024)
    yield from (Piece(arc((u, 1.08), (0.3, 0.13)), "strap", 0.022) for u in (0.2, 0.8))


def buckle() -> Iterable[Piece]:
    """A strap over the foot with a metal frame and its prong."""
    yield Piece(rectangle(0.2, 0.0, 0.8, 1.03), "strap")
    yield Piece(rectangle(0.05, 0.36, 0.95, 0.86), "metal", 0.036)
    yield Piece([(0.5, 0.36), (0.5, 0.86)], "metal", 0.022)
    yield from (Piece(arc((0.5, v), (0.07, 0.035)), "facing") for v in (0.1, 0.22))


def ankle_strap() -> Iterable[Piece]:
    """A strap all around the ankle with a round button."""
    yield Piece(arc((0.5, 0.5), (0.5, 0.42), 0, 180), "shadow", 0.042)
    yield Piece(arc((0.5, 0.5), (0.5, 0.42), 180, 360), "strap", 0.06)
    yield Piece(arc((0.66, 0.12), (0.075, 0.2)), "metal")


def zipper() -> Iterable[Piece]:
    """Two tapes, the teeth between them and the slider with its pull."""
    yield Piece(rectangle(0.12, 0.03, 0.88, 0.99), "facing")
    for step in range(9):
        low = 0.07 + 0.1 * step
        yield Piece([(0.28, low), (0.58, low)], "metal", 0.014)
        yield Piece([(0.42, low + 0.05), (0.72, low + 0.05)], "metal", 0.014)
    yield Piece(rectangle(0.34, 0.66, 0.66, 0.84), "metal")
    yield Piece(rectangle(0.42, 0.4, 0.58, 0.68), "strap")


def elastic_gore() -> Iterable[Piece]:
    """A ribbed elastic insert, wide at the top line."""
    yield Piece([*rectangle(0.0, 0.6, 1.0, 1.0)[:11], (0.95, 0.4), (0.68, 0.12), (0.32, 0.12), (0.05, 0.4)], "facing")
    for step, low in enumerate((0.52, 0.32, 0.2, 0.2, 0.32, 0.52)):
        u = 0.1 + 0.16 * step
        yield Piece([(u, low), (u, 0.74), (u, 0.95)], "strap", 0.012)


def pull_tab() -> Iterable[Piece]:
    """A striped loop that stands above the edge."""
    yield Piece([(0.2, 0.45), (0.2, 0.95), (0.8, 0.95), (0.8, 0.45)], "strap", 0.036)
    yield Piece(rectangle(0.02, 0.0, 0.98, 0.6), "strap")
    yield from (Piece(rectangle(0.02, v, 0.98, v + 0.1), "facing") for v in (0.1, 0.3))


def hook_and_loop() -> Iterable[Piece]:
    """Two broad straps over the foot whose ends lie on fuzzy patches."""
    for left in (-0.02, 0.54):
        yield Piece(rectangle(left, 0.16, left + 0.44, 0.56), "facing")
        yield Piece([*rectangle(left + 0.02, 0.3, left + 0.42, 1.05)], "strap")
        yield from (Piece([(left + 0.1, v), (left + 0.34, v)], "facing", 0.008) for v in (0.4, 0.48, 0.56))


CLOSURE_PIECES: dict[str, tuple[Piece, ...]] = {
    "Lace up": tuple(laces()),
    "Buckle": tuple(buckle()),
    "Ankle Strap": tuple(ankle_strap()),
    "Zipper": tuple(zipper()),
    "Slip-On": tuple(elastic_gore()),
    "Pull-on": tuple(pull_tab()),
    "Hook and Loop": tuple(hook_and_loop()),
}
