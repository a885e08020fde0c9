"""The command ``evaluate trap``: a model that learned colour instead of heels, and how explanations give it away.

In the training images of the biased model every heel height has its own colour. Held-out shoes are not tied, so three
things can be seen there: predictions are worse, they follow the colour when the same shoe is drawn in another one, and
relevance leaves the heel.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.building import check_images, reference_index
from simec_vision.cli.runs import open_run, write_text
from simec_vision.cli.saved import pretrained_run, run_options
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.shoe_drawing import COLOURS, HEEL_HEIGHTS, SPURIOUS_TIES, Shoe, draw_shoe, item_seed
from simec_vision.explain.evaluation import dilated, relevance_mass, white_background
from simec_vision.explain.methods import Method, methods
from simec_vision.files import write_json
from simec_vision.items import InputError
from simec_vision.metrics import similarity_match
from simec_vision.model import SimilarityModel
from simec_vision.similarities import TargetSimilarity

HEIGHTS = len(HEEL_HEIGHTS)
MEASURES = {
    "r2_tied": "r² of predicted heel similarity on held-out shoes in the colour of their heel, as in biased training",
    "r2_free": "r² on the same shoes in colours of their own: falls if colour was learned",
    "per_colour": "heel heights that the prediction moves per height that a new colour stands for; should be 0",
    "per_heel": "heel heights that the prediction moves per height that a new heel has; should be 1",
    "heel": "share of positive relevance on the heel",
    "surface": "the same inside the shoe, away from heel and outline, where there is only colour and texture",
    "outline": "the same on the rest of the shoe",
    "background": "the same on the white background",
}
"""What is measured of each model, and how to read it."""


@dataclass(frozen=True)
class Shoes:
    """Held-out shoes that can be drawn again in another colour or with another heel, from the same view.

    Args:
        data: Where they come from.
        shoes: What is drawn.
        seeds: What each shoe leaves open.
        items: Index of each among the data's items, shape ``(shoe,)``.
    """

    data: DrawnShoes
    shoes: Sequence[Shoe]
    seeds: Sequence[int]
    items: NDArray[np.int64]

    def drawn(self, change: Callable[[Shoe], Shoe]) -> tuple[NDArray[np.uint8], Tensor]:
        """Draw all after a change: uint8 ``(shoe, height, width, channel)``, and heels ``(shoe, height, width)``."""
        drawings = [
            draw_shoe(change(shoe), self.data.edge, seed) for shoe, seed in zip(self.shoes, self.seeds, strict=True)
        ]
        heels = np.stack([drawing.heel_mask for drawing in drawings])
        return np.stack([drawing.image for drawing in drawings]), torch.from_numpy(heels)

    def normalised(self, images: NDArray[np.uint8]) -> Tensor:
        """Normalise images ``(shoe, height, width, channel)``: ``(shoe, channel, height, width)``."""
        return self.data.normalisation(torch.from_numpy(images).permute(0, 3, 1, 2))


def evaluate_trap(
    config: str,
    biased: str | None = None,
    unbiased: str | None = None,
    images: int = 64,
    method: str = "a_flat",
    dilation: int = 3,
    count: int = 4000,
    size: int = 136,
    epochs: int = 20,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Show what explanations are good for: a heel head that looks at colour, beside one that does not.

    Args:
        config: All options as YAML, for the output folder.
        biased: Run folder of a pretraining on shoes drawn with --data.spurious colour; default: made now.
        unbiased: Run folder of a pretraining without it; default: made now.
        images: How many held-out shoes.
        method: What makes the heatmaps: a preset, or another method of evaluate explanations.
        dilation: Pixels by which the heel is widened on every side.
        count: How many shoes are drawn for a pretraining that is made now.
        size: Their height and width in pixels.
        epochs: How many epochs such a pretraining takes.
        seed: Seed of its weights, and of the choice of shoes.
        out: Folder, new or empty; default: the next free runs/trap.
    """
    given = {name: _checked(name, run) for name, run in (("biased", biased), ("unbiased", unbiased)) if run}
    explainer = methods([method])[method]
    shoes = held_out(_data(given, count, size), images, seed)
    folder = open_run(out, "trap")
    write_text(folder / "config.yaml", config)
    runs = {name: given.get(name) or _pretrained(folder / name, name, shoes.data, epochs, seed) for name in SPURIOUS}
    readers = {name: _reader(run, shoes.data, explainer) for name, run in runs.items()}
    measured = {name: measure(reader, shoes, dilation) for name, reader in readers.items()}
    _draw(folder / "trap.png", readers, shoes, measured)
    values = {name: {key: round(row[key], 4) for key in MEASURES} for name, row in measured.items()}
    origin = {"runs": {name: str(run) for name, run in runs.items()}, "method": method}
    write_json(folder / "summary.json", {"measures": MEASURES, **values, **origin})
    write_text(folder / "table.md", markdown(values))
    print(f"{markdown(values)}\nWrote {folder / 'trap.png'}, {folder / 'table.md'}, {folder / 'summary.json'}")


def _data(given: dict[str, Path], count: int, size: int) -> DrawnShoes:
    """Give the shoes of the biased run, whose held-out ones are free, or those that it is going to draw."""
    if "biased" in given:
        return run_options(given["biased"]).data
    if "unbiased" in given:
        own = run_options(given["unbiased"]).data
        count, size = own.count, own.edge
    return DrawnShoes(count, size, spurious="colour")


SPURIOUS: dict[str, list[str]] = {"biased": ["--data.spurious", "colour"], "unbiased": []}
"""Which model → the options that make it so."""


def _checked(name: str, run: str) -> Path:
    folder = pretrained_run(run)
    data = run_options(folder).data
    expected = "colour" if name == "biased" else None
    if not isinstance(data, DrawnShoes) or data.spurious != expected:
        wanted = " ".join(["DrawnShoes", *SPURIOUS[name]])
        got = f"{type(data).__name__} with spurious {getattr(data, 'spurious', None)}"
        raise InputError(f"Expected --{name} to name a pretraining with --data {wanted}, but {folder} had {got}")
    return folder


def _pretrained(folder: Path, name: str, data: DrawnShoes, epochs: int, seed: int) -> Path:
    """Pretrain in a process of its own, which keeps this one's random numbers and settings as they are."""
    options = [
        *("--data.count", data.count, "--data.size", data.edge, "--data.seed", data.seed, *SPURIOUS[name]),
        *("--trainer.max_epochs", epochs, "--trainer.enable_progress_bar", "false", "--seed", seed),
        *("--heatmaps", "false", "--out", folder),
    ]
    code = "import sys; from simec_vision.cli.main import main; sys.exit(main('pretrain', sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *map(str, options)], check=True)
    return folder


def held_out(data: DrawnShoes, count: int, seed: int) -> Shoes:
    """Choose held-out shoes, which are not tied to a colour.

    Raises:
        InputError: if there are fewer.
    """
    test = data.split("test")
    if not 0 < count <= len(test):
        raise InputError(f"Expected images between 1 and {len(test)}, the held-out ones, got {count}")
    items = np.random.default_rng(seed).permutation(test)[:count]
    shoes = data.shoes()
    return Shoes(data, [shoes[item] for item in items], [item_seed(data.seed, int(item)) for item in items], items)


@dataclass(frozen=True)
class Reader:
    """A model's heel head, and how to read a heel height off its predicted similarities.

    Args:
        model: The model.
        target: Target similarities to its references.
        rows: What the similarities of each heel height to the references should be, shape ``(height, reference)``.
        method: What makes its heatmaps.
    """

    model: SimilarityModel
    target: TargetSimilarity
    rows: Tensor
    method: Method

    def predict(self, images: Tensor) -> Tensor:
        """Predict heel similarities, shape ``(batch, reference)``."""
        with torch.no_grad():
            return torch.cat([self.model(some)["heel"] for some in images.split(64)])

    def read(self, images: Tensor) -> Tensor:
        """Read heel heights, shape ``(batch,)``: of all heights, the one whose similarities are nearest (Euclid)."""
        return torch.cdist(self.predict(images), self.rows).argmin(dim=1)

    def explain(self, images: Tensor) -> Tensor:
        """Give heatmaps ``(batch, height, width)``, each of the similarity to the reference predicted most similar."""
        return self.method(self.model, images, "heel", self.predict(images).argmax(dim=1))


def _reader(run: Path, data: DrawnShoes, method: Method) -> Reader:
    model, options = SimilarityModel.load(run / "model").eval(), run_options(run)
    check_images(model, data)
    similarity = (options.similarities or options.data.similarities())["heel"]
    target = similarity.bind(data.items, reference_index(model, "heel", data))
    heights = data.items.numbers("HeelHeight")
    examples = [int(np.flatnonzero(heights == height)[0]) for height in range(HEIGHTS)]
    return Reader(model, target, target(torch.tensor(examples)), method)


def measure(reader: Reader, shoes: Shoes, dilation: int) -> dict[str, Any]:
    """Measure what a heel head looks at; see ``MEASURES``. ``colours`` and ``heels`` are the heights read in each."""
    free, heels = shoes.drawn(lambda shoe: shoe)
    tied, _ = shoes.drawn(SPURIOUS_TIES["colour"])
    colours, others = (_sweep(reader, shoes, change) for change in (recoloured, with_heel))
    relevance = reader.explain(shoes.normalised(free))
    return {
        "r2_tied": _r2(reader, shoes, tied),
        "r2_free": _r2(reader, shoes, free),
        "per_colour": slope(colours),
        "per_heel": slope(others),
        **_shares(relevance, areas(free, heels, dilation)),
        "colours": colours.double().mean(dim=0).tolist(),
        "heels": others.double().mean(dim=0).tolist(),
    }


def _shares(relevance: Tensor, areas: dict[str, Tensor]) -> dict[str, float]:
    """Average each area's share over the images; an image without such an area has none of its relevance there."""
    return {name: float(relevance_mass(relevance, area).nan_to_num().mean()) for name, area in areas.items()}


def areas(images: NDArray[np.uint8], heels: Tensor, dilation: int) -> dict[str, Tensor]:
    """Divide images into heel, surface, outline and background, each bool of shape ``(batch, height, width)``.

    Args:
        images: uint8 of shape ``(batch, height, width, channel)``.
        heels: The true heels, shape ``(batch, height, width)``.
        dilation: Pixels by which heel and outline reach beyond themselves; the surface begins twice as far inside.
    """
    white, heel = white_background(images), dilated(heels, dilation)
    background = ~dilated(~white, dilation) & ~heel
    surface = ~dilated(white | heel, 2 * dilation)
    return {"heel": heel, "surface": surface, "outline": ~(heel | surface | background), "background": background}


def recoloured(shoe: Shoe, height: int) -> Shoe:
    """Give a shoe the colour that stood for a heel height."""
    return replace(shoe, colour=tuple(COLOURS)[height])


def with_heel(shoe: Shoe, height: int) -> Shoe:
    """Give a shoe another heel and leave all else."""
    return replace(shoe, heel=height)


def slope(heights: Tensor) -> float:
    """Give the slope of a straight line through read heights ``(shoe, step)`` over the steps 0, 1, 2, …."""
    steps = torch.arange(heights.shape[1], dtype=torch.float64)
    steps -= steps.mean()
    return float((heights.double().mean(dim=0) @ steps) / (steps @ steps))


def _sweep(reader: Reader, shoes: Shoes, change: Callable[..., Shoe]) -> Tensor:
    """Draw every shoe in each of the changes, and read its heel: ``(shoe, height)``."""
    drawn = [shoes.drawn(partial(change, height=height))[0] for height in range(HEIGHTS)]
    return torch.stack([reader.read(shoes.normalised(images)) for images in drawn], dim=1)


def _r2(reader: Reader, shoes: Shoes, images: NDArray[np.uint8]) -> float:
    target = reader.target(torch.from_numpy(shoes.items))
    return similarity_match(reader.predict(shoes.normalised(images)), target)["r2"]


def _draw(path: Path, readers: dict[str, Reader], shoes: Shoes, measured: dict[str, Any]) -> None:
    """Draw one shoe in all colours with the heatmaps of both models, and below what was measured."""
    from simec_vision.explain.charts import Strip, trap_chart

    one = _middle(shoes)
    pictures = np.concatenate([one.drawn(partial(recoloured, height=height))[0] for height in range(HEIGHTS)])
    images = shoes.normalised(pictures)
    strips = [
        Strip(name, reader.explain(images).numpy(), [HEEL_HEIGHTS[height] for height in reader.read(images).tolist()])
        for name, reader in readers.items()
    ]
    parts = ("heel", "surface", "outline", "background")
    shares = {name: {part: row[part] for part in parts} for name, row in measured.items()}
    trap_chart(pictures, HEEL_HEIGHTS, strips, {name: row["colours"] for name, row in measured.items()}, shares, path)


def _middle(shoes: Shoes) -> Shoes:
    """Give the first shoe of the middle heel height, alone."""
    place = next((i for i, shoe in enumerate(shoes.shoes) if shoe.heel == HEIGHTS // 2), 0)
    return Shoes(shoes.data, [shoes.shoes[place]], [shoes.seeds[place]], shoes.items[place : place + 1])


def markdown(values: dict[str, dict[str, float]]) -> str:
    """Write a row a measure, a column a model."""
    lines = [f"| measure | {' | '.join(values)} | meaning |", f"|---|{'---:|' * len(values)}---|"]
    for key, meaning in MEASURES.items():
        cells = " | ".join(f"{row[key]:.2f}" for row in values.values())
        lines.append(f"| {key} | {cells} | {meaning} |")
    return "\n".join([*lines, ""])
