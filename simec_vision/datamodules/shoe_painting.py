"""From the parts of a shoe to a photograph of it: view, paint, light and camera."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from simec_vision.datamodules.shoe_parts import CLOSURE, HEEL, Colour, Part, luminance, shade

SUPERSAMPLING = 2
OPAQUE = [0] + [255] * 255


def photograph(
    parts: Sequence[Part], frame: np.ndarray, texture: str, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw parts, given in shoe units and back to front, so that the points (point, 2) of the frame are in the picture.

    Returns:
        The image (height, width, 3) uint8 and the visible pixels of heel and closures, each (height, width) bool.
    """
    canvas, labels = paint(view(parts, frame, size * SUPERSAMPLING, rng), texture, size * SUPERSAMPLING, rng)
    return finish(canvas, labels, rng), visible(labels, HEEL), visible(labels, CLOSURE)


def view(parts: Sequence[Part], frame: np.ndarray, size: int, rng: np.random.Generator) -> list[Part]:
    """Look at the shoe: mirror, shear, rotate, scale and move it into a picture of `size` pixels, y downwards."""
    matrix = sample_matrix(rng) * size
    corners = frame @ matrix.T
    extent = np.ptp(corners, axis=0)
    fit = min(1.0, 0.92 * size / extent.max())
    slack = np.minimum((size - fit * extent) / 2, 0.07 * size)
    offset = size / 2 - fit * (corners.min(axis=0) + extent / 2) + 0.7 * slack * rng.uniform(-1, 1, 2)
    unit = fit * float(np.sqrt(abs(np.linalg.det(matrix))))
    return [replace(part, points=part.points @ matrix.T * fit + offset, width=part.width * unit) for part in parts]


def sample_matrix(rng: np.random.Generator) -> np.ndarray:
    """The linear part of a view (2, 2), for a picture of size 1."""
    angle, scale = np.radians(rng.uniform(-6, 6)), 0.9 * rng.uniform(0.8, 1.0)
    side, lean = rng.choice((-1, 1)), rng.uniform(-0.06, 0.06)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * rotation @ np.array([[1, lean], [0, -1]]) @ np.diag([side, 1])


# --- painting ---------------------------------------------------------------------------------------------------------


def paint(parts: Sequence[Part], texture: str, size: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Paint the parts over each other, in colour and, the same way, as labels of what is visible."""
    canvas, labels = Image.new("RGB", (size, size), "white"), Image.new("L", (size, size))
    cloth = weave(next(part.fill for part in parts if part.textured), crop_pattern(texture, size, rng))
    brush, label_brush = ImageDraw.Draw(canvas), ImageDraw.Draw(labels)
    for part in parts:
        draw_part(label_brush, part, part.label, part.label)
        draw_part(brush, part, part.fill, shade(part.fill, 0.7))
        if part.textured:
            cover_with(cloth, canvas, part)
    return canvas, labels


def draw_part(draw: ImageDraw.ImageDraw, part: Part, fill: Colour | int, edge: Colour | int) -> None:
    """Draw a polygon with its edge, or a stroke."""
    points = part.points.ravel().tolist()
    if part.width:
        draw.line(points, fill, width=max(1, round(part.width)), joint="curve")
    else:
        draw.polygon(points, fill, outline=edge)


def weave(colour: Colour, weights: Image.Image) -> Image.Image:
    """A cloth of a colour with a pattern in a darker or, on dark, a lighter tone."""
    red, green, blue = colour
    tone = shade(colour, 0.72) if luminance(colour) > 70 else (red + 45, green + 45, blue + 45)
    return Image.composite(Image.new("RGB", weights.size, tone), Image.new("RGB", weights.size, colour), weights)


def cover_with(cloth: Image.Image, canvas: Image.Image, part: Part) -> None:
    """Cover a polygon with cloth and mark its edge."""
    mask = Image.new("L", canvas.size)
    draw_part(ImageDraw.Draw(mask), part, 255, 255)
    canvas.paste(cloth, mask=mask)
    ImageDraw.Draw(canvas).polygon(part.points.ravel().tolist(), outline=shade(part.fill, 0.5))


def crop_pattern(texture: str, size: int, rng: np.random.Generator) -> Image.Image:
    """A random window of a texture."""
    left, top = rng.integers(0, size // 2, 2).tolist()
    return pattern(texture, size).crop((left, top, left + size, top + size))


@cache
def pattern(texture: str, size: int) -> Image.Image:
    """A texture as weights between 0 and 255 on a canvas of one and a half times `size`."""
    y, x = np.mgrid[: size * 3 // 2, : size * 3 // 2] / size
    return Image.fromarray((255 * np.broadcast_to(TEXTURE_WEIGHTS[texture](x, y), x.shape)).astype(np.uint8))


def waves(phase: np.ndarray, period: float) -> np.ndarray:
    """A cosine between 0 and 1."""
    return 0.5 + 0.5 * np.cos(2 * np.pi * phase / period)


TEXTURE_WEIGHTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "stripes": lambda x, y: waves(x + 0.6 * y, 0.045) > 0.6,
    "dots": lambda x, y: waves(x + y, 0.055) * waves(x - y, 0.055) > 0.55,
    "quilted": lambda x, y: np.maximum(waves(x + y, 0.075), waves(x - y, 0.075)) > 0.93,
    "gradient": lambda x, y: waves(x + 0.3 * y, 1.3),
}


# --- light and camera -------------------------------------------------------------------------------------------------


def finish(canvas: Image.Image, labels: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Light the shoe, then take the picture: slight blur and Gaussian noise. Returns (height, width, 3) uint8."""
    small = canvas.reduce(SUPERSAMPLING)
    cover = labels.point(OPAQUE).reduce(SUPERSAMPLING)
    lit = Image.fromarray(light(np.asarray(small), np.asarray(cover), np.asarray(soften(cover)), rng))
    blurred = lit.filter(ImageFilter.BoxBlur(rng.uniform(0.0, 0.5) * small.width / 136))
    noise = rng.standard_normal((*blurred.size, 3), dtype=np.float32) * np.float32(rng.uniform(1, 4))
    return np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)


def soften(cover: Image.Image) -> Image.Image:
    """Spread the cover of the shoe: where little of it is left, a round body turns away from the light."""
    return cover.filter(ImageFilter.BoxBlur(0.045 * cover.width))


def light(image: np.ndarray, cover: np.ndarray, soft: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighten the middle of the shoe and one side of it; the white background keeps its colour."""
    ramp = np.linspace(-1, 1, len(image), dtype=np.float32)
    slope = rng.uniform(-0.12, 0.12, 2).astype(np.float32)
    tone = np.float32(rng.uniform(0.68, 0.78)) + soft.astype(np.float32) * np.float32(0.32 / 255)
    tone += ramp * slope[0] - ramp[:, None] * (abs(slope[1]) + np.float32(0.04))
    dimmed = 1 + np.minimum(tone - 1, np.float32(0.06)) * (cover / np.float32(255))
    return np.clip(image * dimmed[..., None], 0, 255).astype(np.uint8)


def visible(labels: Image.Image, label: int) -> np.ndarray:
    """Pixels (height, width) that belong for the most part to one kind of part."""
    only = [0] * 256
    only[label] = 255
    return np.asarray(labels.point(only).reduce(SUPERSAMPLING)) > 128
