"""The closures and brand marks of a drawn shoe: where they sit and how they look.

A closure is drawn in the unit square `(u, v)` of a `Slot` of the shoe, so that one drawing serves every category and
every heel. Closures on the side of a shoe share it: each has a preferred place and they push each other apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from simec_vision.datamodules.shoe_parts import CLOSURE, Last, Palette, Part, Points, arc


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


def rectangle(left: float, bottom: float, right: float, top: float) -> Points:
    """A rectangle with points along its edges, so that it bends with the shoe."""
    edge = np.linspace(0, 1, 5)
    corners = [(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)]
    sides = [np.outer(1 - edge, a) + np.outer(edge, b) for a, b in pairwise(corners)]
    return [(float(u), float(v)) for u, v in np.concatenate(sides)]


def piped(line: Points) -> Iterable[Piece]:
    """A panel with an edge that stands out against it and against the shoe."""
    return Piece(line, "facing"), Piece(line, "strap", 0.012)


def laces() -> Iterable[Piece]:
    """A facing with crossed laces and a bow."""
    yield from piped(rectangle(0.02, 0.22, 0.98, 1.02))
    for low in (0.3, 0.52, 0.74):
        yield Piece([(0.16, low), (0.84, low + 0.22)], "strap", 0.024)
        yield Piece([(0.84, low), (0.16, low + 0.22)], "strap", 0.024)
    yield from (Piece(arc((u, 1.08), (0.3, 0.13)), "strap", 0.022) for u in (0.2, 0.8))


def buckle() -> Iterable[Piece]:
    """A strap over the foot with a metal frame and its prong."""
    yield Piece(rectangle(0.2, 0.0, 0.8, 1.03), "strap")
    yield Piece(rectangle(0.05, 0.36, 0.95, 0.86), "shadow", 0.05)
    yield Piece(rectangle(0.05, 0.36, 0.95, 0.86), "metal", 0.034)
    yield Piece([(0.5, 0.36), (0.5, 0.86)], "metal", 0.022)
    yield from (Piece(arc((0.5, v), (0.07, 0.035)), "facing") for v in (0.1, 0.22))


def ankle_strap() -> Iterable[Piece]:
    """A strap all around the ankle with a round button."""
    yield Piece(arc((0.5, 0.5), (0.5, 0.42), 0, 180), "shadow", 0.042)
    yield Piece(arc((0.5, 0.5), (0.5, 0.42), 180, 360), "strap", 0.06)
    yield Piece(arc((0.66, 0.12), (0.075, 0.2)), "metal")


def zipper() -> Iterable[Piece]:
    """Two tapes, the teeth between them and the slider with its pull."""
    yield from piped(rectangle(0.09, 0.02, 0.91, 1.0))
    for step in range(9):
        low = 0.07 + 0.1 * step
        yield Piece([(0.28, low), (0.58, low)], "metal", 0.014)
        yield Piece([(0.42, low + 0.05), (0.72, low + 0.05)], "metal", 0.014)
    yield Piece(rectangle(0.34, 0.66, 0.66, 0.84), "metal")
    yield Piece(rectangle(0.42, 0.4, 0.58, 0.68), "strap")


def elastic_gore() -> Iterable[Piece]:
    """A ribbed elastic insert, wide at the top line."""
    yield from piped(
        [*rectangle(0.0, 0.6, 1.0, 1.0)[:15], (0.95, 0.4), (0.68, 0.12), (0.32, 0.12), (0.05, 0.4), (0.0, 0.6)]
    )
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
        yield Piece(rectangle(left, 0.03, left + 0.46, 0.5), "facing")
        yield Piece(rectangle(left + 0.02, 0.2, left + 0.44, 1.06), "strap")
        yield from (Piece([(left + 0.1, v), (left + 0.34, v)], "facing", 0.008) for v in (0.32, 0.42, 0.52))


CLOSURE_PIECES: dict[str, tuple[Piece, ...]] = {
    "Lace up": tuple(laces()),
    "Buckle": tuple(buckle()),
    "Ankle Strap": tuple(ankle_strap()),
    "Zipper": tuple(zipper()),
    "Slip-On": tuple(elastic_gore()),
    "Pull-on": tuple(pull_tab()),
    "Hook and Loop": tuple(hook_and_loop()),
}


# --- places -----------------------------------------------------------------------------------------------------------

SIDE_PLACES = {"Zipper": 0.15, "Slip-On": 0.31, "Lace up": 0.47, "Hook and Loop": 0.54, "Buckle": 0.6}  # preferred s

LOW_CUT = ((0.0, 0.28), (0.1, 0.235), (0.24, 0.235), (0.34, 0.31), (0.43, 0.29), (0.55, 0.22), (0.72, 0.16))


@dataclass(frozen=True)
class Side:
    """The side of a category's upper: from where to where it holds closures, how wide each is, and its top line."""

    start: float
    end: float
    width: float
    top: Points


SIDES = {
    "Shoes": Side(0.06, 0.74, 0.2, LOW_CUT),
    "Boots": Side(0.04, 0.74, 0.2, ((0.0, 0.5), (0.26, 0.5), (0.38, 0.36), (0.5, 0.25), (0.72, 0.17))),
    "Sandals": Side(0.06, 0.74, 0.2, ((0.0, 0.28), (0.36, 0.28), (0.43, 0.28), (0.55, 0.225), (0.72, 0.17))),
    "Slippers": Side(0.34, 0.8, 0.153, ((0.34, 0.32), (0.4, 0.32), (0.55, 0.265), (0.7, 0.21), (0.86, 0.175))),
}

EDGE_SLOTS: dict[str, dict[str, Slot]] = {  # closures that sit on the edge of the opening
    "Pull-on": {
        "Shoes": Slot(-0.05, 0.14, 0.13, ((0.0, 0.46),)),
        "Boots": Slot(-0.06, 0.14, 0.46, ((0.0, 0.78),)),
        "Sandals": Slot(-0.05, 0.14, 0.13, ((0.0, 0.46),)),
        "Slippers": Slot(0.24, 0.14, 0.17, ((0.0, 0.5),)),
    },
    "Ankle Strap": {
        "Shoes": Slot(-0.005, 0.36, 0.235, ((0.0, 0.39), (0.36, 0.42))),
        "Boots": Slot(-0.03, 0.41, 0.3, ((0.0, 0.44), (0.36, 0.46))),
        "Sandals": Slot(-0.015, 0.38, 0.25, ((0.0, 0.39), (0.36, 0.42))),
        "Slippers": Slot(0.0, 0.36, 0.22, ((0.0, 0.36), (0.36, 0.42))),
    },
}


def push_apart(centres: np.ndarray, side: Side) -> np.ndarray:
    """Move ascending centres (closure,) until neighbours are a width apart and all lie on the side."""
    steps = side.width * np.arange(len(centres))
    spread = np.maximum.accumulate(np.maximum(centres - steps, side.start + side.width / 2))
    return np.minimum(spread, side.end - side.width * (len(centres) - 0.5)) + steps


def slots(closures: Sequence[str], category: str, shift: float) -> dict[str, Slot]:
    """The slot of every closure, in the order in which they are drawn; `shift` moves the preferred places (in s)."""
    side = SIDES[category]
    sides = sorted((name for name in closures if name in SIDE_PLACES), key=SIDE_PLACES.__getitem__)
    centres = push_apart(np.array([SIDE_PLACES[name] + shift for name in sides]), side)
    placed = {name: Slot(c - side.width / 2, side.width, 0.0, side.top) for name, c in zip(sides, centres, strict=True)}
    return placed | {name: EDGE_SLOTS[name][category] for name in EDGE_SLOTS if name in closures}


def closure_parts(closures: Sequence[str], category: str, last: Last, palette: Palette, shift: float) -> list[Part]:
    """The parts of all closures of a shoe."""
    return [
        Part(last.place(slot.fit(np.asarray(piece.points))), getattr(palette, piece.tone), CLOSURE, piece.width)
        for name, slot in slots(closures, category, shift).items()
        for piece in CLOSURE_PIECES[name]
    ]


def closure_room(category: str, last: Last) -> np.ndarray:
    """Corners (point, 2) in shoe units of the room that closures may take around the upper, whether they do or not."""
    slots = [by_category[category] for by_category in EDGE_SLOTS.values()]
    return np.concatenate([last.place(slot.fit(np.array([(0, 0), (0, 1), (1, 1), (1, 0)]))) for slot in slots])


# --- brand marks ------------------------------------------------------------------------------------------------------


def star(corners: int = 5) -> Points:
    """A star in the unit square."""
    angles = np.pi / 2 + np.pi * np.arange(2 * corners) / corners
    radii = np.where(np.arange(2 * corners) % 2, 0.22, 0.55)
    return [
        (0.5 + r * float(np.cos(a)), 0.5 + r * float(np.sin(a))) for r, a in zip(radii.tolist(), angles, strict=True)
    ]


MARK_PIECES: dict[str, tuple[Piece, ...]] = {
    "none": (),
    "swoosh": (Piece([(-0.1, 0.6), (0.15, 0.05), (0.45, 0.1), (1.2, 0.85), (0.45, 0.38), (0.15, 0.33)], "mark"),),
    "star": (Piece(star(), "mark"),),
    "stripes": tuple(Piece([(u, 0.0), (u + 0.15, 1.0)], "mark", 0.02) for u in (0.05, 0.4, 0.75)),
    "dot": (Piece(arc((0.5, 0.5), (0.42, 0.42)), "mark"),),
    "letter": (
        Piece([(0.1, 0.0), (0.5, 1.0), (0.9, 0.0)], "mark", 0.022),
        Piece([(0.28, 0.4), (0.72, 0.4)], "mark", 0.02),
    ),
    "ring": (Piece(arc((0.5, 0.5), (0.4, 0.4)), "mark", 0.022),),
    "cross": tuple(Piece([(0.05, v), (0.95, 1 - v)], "mark", 0.026) for v in (0.05, 0.95)),
}

MARK_SLOT = Slot(0.78, 0.11, 0.022, ((0.0, 0.132),))


def mark_parts(brand_mark: str, last: Last, palette: Palette) -> list[Part]:
    """The brand mark, on the side of the toes."""
    return [
        Part(last.place(MARK_SLOT.fit(np.asarray(piece.points))), palette.mark, width=piece.width)
        for piece in MARK_PIECES[brand_mark]
    ]
