"""Synthetic side views of shoes whose heel height and closures are known, down to the pixel.

A `Shoe` says what is drawn; `draw_shoe` draws it from a random view and in a random finish, and marks the pixels of
the heel and of the closures, so that an explanation of "similar heels" or "similar closures" can be checked against
the truth. Heel, closures, category, colour, brand mark and texture are independent of each other, unless a spurious
tie is asked for.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TypeVar

import numpy as np

from simec_vision.datamodules.shoe_closures import CLOSURE_PIECES, MARK_PIECES, closure_parts, closure_room, mark_parts
from simec_vision.datamodules.shoe_painting import TEXTURE_WEIGHTS, photograph
from simec_vision.datamodules.shoe_parts import (
    HEEL_TYPES,
    SHAPES,
    Colour,
    Last,
    Palette,
    Part,
    heel,
    luminance,
    shade,
    sole,
    uppers,
)

HEEL_HEIGHTS = ("Flat", "Under 1in", "1in - 1 3/4in", "2in - 2 3/4in", "3in - 3 3/4in", "4in - 4 3/4in", "5in & over")
CATEGORIES = tuple(SHAPES)
CLOSURES = tuple(CLOSURE_PIECES)
BRAND_MARKS = tuple(MARK_PIECES)
TEXTURES = tuple(TEXTURE_WEIGHTS)
COLOURS: dict[str, Colour] = {
    "black": (44, 43, 48),
    "white": (232, 230, 226),
    "brown": (112, 70, 42),
    "tan": (203, 160, 108),
    "red": (186, 38, 44),
    "pink": (236, 150, 176),
    "navy": (42, 58, 112),
    "teal": (44, 142, 148),
    "green": (86, 128, 62),
    "yellow": (236, 190, 62),
}

LIFTS = (0.0, 0.068, 0.13, 0.2, 0.27, 0.345, 0.42)  # height of each heel, in shoe lengths
LIFT_JITTER = 0.01
SOLE_COLOURS: tuple[Colour, ...] = ((226, 223, 215), (52, 50, 52), (166, 118, 70), (120, 116, 112))
STRAPS_ON_DARK: tuple[Colour, ...] = ((238, 234, 222), (226, 198, 148), (196, 202, 210))
STRAPS_ON_LIGHT: tuple[Colour, ...] = ((38, 36, 40), (92, 54, 34), (40, 52, 92))
METALS: tuple[Colour, ...] = ((216, 172, 62), (186, 190, 198))
SMALLEST_POOL = 500  # fewer shoes are drawn before a pool of processes has started
CHUNK = 50  # shoes a process draws at a time

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Shoe:
    """What is drawn.

    Attributes:
        category: One of CATEGORIES.
        heel: Index into HEEL_HEIGHTS.
        closure: One to three of CLOSURES.
        colour: A key of COLOURS.
        brand_mark: One of BRAND_MARKS.
        texture: One of TEXTURES.
    """

    category: str
    heel: int
    closure: tuple[str, ...]
    colour: str
    brand_mark: str
    texture: str = "plain"


@dataclass(frozen=True)
class Drawing:
    """A drawn shoe.

    Attributes:
        image: RGB picture of shape (height, width, 3), uint8, on white.
        heel_mask: Visible pixels of the heel (height, width), bool; of a flat shoe the rear piece of the sole.
        closure_mask: Visible pixels of the closures (height, width), bool.
    """

    image: np.ndarray
    heel_mask: np.ndarray
    closure_mask: np.ndarray


SPURIOUS_TIES: dict[str, Callable[[Shoe], Shoe]] = {
    "colour": lambda shoe: replace(shoe, colour=tuple(COLOURS)[shoe.heel]),
    "brand_mark": lambda shoe: replace(shoe, brand_mark=BRAND_MARKS[shoe.heel]),
}
"""What ties an attribute one-to-one to the heel: every heel height has its own."""


# --- what is drawn ----------------------------------------------------------------------------------------------------


def sample_shoes(count: int, seed: int) -> list[Shoe]:
    """Sample shoes whose attributes are independent of each other.

    Args:
        count: Number of shoes.
        seed: Seed of the sample.
    """
    rng = np.random.default_rng(seed)
    return [sample_shoe(rng) for _ in range(count)]


def sample_shoe(rng: np.random.Generator) -> Shoe:
    """Sample one shoe; one, two or three closures with probability 0.4, 0.4 and 0.2."""
    closures = np.sort(rng.permutation(len(CLOSURES))[: rng.choice((1, 2, 3), p=(0.4, 0.4, 0.2))])
    return Shoe(
        category=pick(CATEGORIES, rng),
        heel=int(rng.integers(len(HEEL_HEIGHTS))),
        closure=tuple(CLOSURES[i] for i in closures),
        colour=pick(tuple(COLOURS), rng),
        brand_mark=pick(BRAND_MARKS, rng),
        texture=pick(TEXTURES, rng),
    )


def pick(choices: Sequence[Choice], rng: np.random.Generator) -> Choice:
    """One of the choices, all equally likely."""
    return choices[int(rng.integers(len(choices)))]


def draw_shoe(shoe: Shoe, size: int = 136, seed: int = 0) -> Drawing:
    """Draw one shoe.

    Args:
        shoe: What to draw.
        size: Height and width of the picture in pixels, at least 32.
        seed: Governs what the shoe leaves open: view, heel type, finish, light and noise.

    Raises:
        ValueError: If `size` is below 32 pixels.
    """
    if size < 32:
        raise ValueError(f"Expected size of at least 32 pixels, got {size}. Draw larger and downscale the images.")
    rng = np.random.default_rng(seed)
    parts, frame = build(shoe, rng)
    return Drawing(*photograph(parts, frame, shoe.texture, size, rng))


def draw_shoes(
    shoes: Sequence[Shoe], size: int = 136, seed: int = 0, processes: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw many shoes; shoe i depends on `(seed, i)` only, not on the number of processes.

    Args:
        shoes: What to draw.
        size: Height and width of the pictures in pixels.
        seed: Seed of the set.
        processes: Number of processes; None takes one per core. Small sets are drawn in this process.

    Returns:
        Images (item, height, width, 3) uint8, heel masks (item, height, width) bool and closure masks (item, height,
        width) bool.
    """
    starts = range(0, len(shoes), CHUNK)
    chunks = [shoes[start : start + CHUNK] for start in starts]
    images = np.empty((len(shoes), size, size, 3), dtype=np.uint8)
    heel_masks, closure_masks = np.empty((2, len(shoes), size, size), dtype=bool)
    with process_map(processes, len(shoes)) as mapped:
        for start, drawn in zip(starts, mapped(draw_chunk, chunks, starts, repeat(size), repeat(seed)), strict=True):
            there = slice(start, start + CHUNK)
            images[there], heel_masks[there], closure_masks[there] = drawn
    return images, heel_masks, closure_masks


@contextmanager
def process_map(processes: int | None, items: int) -> Iterator[Callable[..., Iterable]]:
    """A `map` over processes; the builtin one where a pool would take longer to start than to be of use."""
    processes = processes or os.cpu_count() or 1
    if processes == 1 or items < SMALLEST_POOL:
        yield map
        return
    with ProcessPoolExecutor(processes) as pool:
        yield pool.map


def draw_chunk(shoes: Sequence[Shoe], start: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw consecutive shoes of a set, the first of which has the index `start`."""
    drawings = [draw_shoe(shoe, size, item_seed(seed, start + i)) for i, shoe in enumerate(shoes)]
    return (
        np.stack([drawing.image for drawing in drawings]),
        np.stack([drawing.heel_mask for drawing in drawings]),
        np.stack([drawing.closure_mask for drawing in drawings]),
    )


def item_seed(seed: int, index: int) -> int:
    """The seed with which `draw_shoes` draws the item at this index."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])


# --- assembly ---------------------------------------------------------------------------------------------------------


def build(shoe: Shoe, rng: np.random.Generator) -> tuple[list[Part], np.ndarray]:
    """All parts of a shoe in shoe units, back to front, and points (point, 2) that the picture must show.

    These leave room for every closure, so that closures do not move the shoe in the picture.
    """
    lift = LIFTS[shoe.heel] + rng.uniform(-LIFT_JITTER, LIFT_JITTER) * (shoe.heel > 0)
    last = Last(lift, sole=rng.uniform(0.026, 0.042))
    palette = sample_palette(COLOURS[shoe.colour], rng)
    ground = [heel(last, pick(HEEL_TYPES, rng), palette), sole(last, palette)]
    closures = closure_parts(shoe.closure, shoe.category, last, palette, shift=rng.uniform(-0.015, 0.015))
    body = [*(ground if lift else ground[::-1]), *uppers(shoe.category, last, palette)]
    frame = np.concatenate([*(part.points for part in body), closure_room(shoe.category, last)])
    return [*body, *mark_parts(shoe.brand_mark, last, palette), *closures], frame


def sample_palette(colour: Colour, rng: np.random.Generator) -> Palette:
    """Colours that go with the colour of the upper: it varies in lightness, closures and mark stand out against it."""
    dark = luminance(colour) < 110
    straps, facings = (STRAPS_ON_DARK, STRAPS_ON_LIGHT) if dark else (STRAPS_ON_LIGHT, STRAPS_ON_DARK)
    strap, sole_colour = pick(straps, rng), pick(SOLE_COLOURS, rng)
    return Palette(
        upper=shade(colour, rng.uniform(0.92, 1.08)),
        sole=sole_colour,
        heel=pick((sole_colour, shade(colour, 0.8), (58, 46, 42)), rng),
        strap=strap,
        facing=pick(facings, rng),
        shadow=shade(strap, 0.6),
        metal=pick(METALS, rng),
        mark=pick(straps, rng),
    )
