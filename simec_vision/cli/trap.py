"""The command ``evaluate trap``: a model that learned colour instead of heels, and how explanations give it away.

In the training images of the biased model every heel height has its own colour. Held-out shoes are not tied, so three
things can be seen there: predictions are worse, they follow the colour when the same shoe is drawn in another one, and
relevance leaves the heel.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.figures import BEST
from simec_vision.cli.runs import open_run, write_text
from simec_vision.cli.saved import pretrain_apart, pretrained_run, run_options
from simec_vision.cli.shoe_reading import (
    HEIGHTS,
    Reader,
    Shoes,
    held_out,
    middle_shoe,
    reader_of,
    recoloured,
    slope,
    sweep,
    with_heel,
)
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.shoe_drawing import HEEL_HEIGHTS, SPURIOUS_TIES
from simec_vision.explain.evaluation import dilated, relevance_mass, white_background
from simec_vision.explain.methods import methods
from simec_vision.files import write_json
from simec_vision.items import InputError
from simec_vision.metrics import similarity_match

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


def evaluate_trap(
    config: str,
    biased: str | None = None,
    unbiased: str | None = None,
    images: int = 64,
    method: str = BEST,
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
    readers = {name: reader_of(run, shoes.data, explainer) for name, run in runs.items()}
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
    """Pretrain on such shoes, in a process of its own."""
    options = [
        *("--data.count", data.count, "--data.size", data.edge, "--data.seed", data.seed, *SPURIOUS[name]),
        *("--trainer.max_epochs", epochs, "--trainer.enable_progress_bar", "false", "--seed", seed),
        *("--heatmaps", "false", "--out", folder),
    ]
    pretrain_apart([*map(str, options)], "Expected two pretrainings to compare, but one of them failed")
    return folder


def measure(reader: Reader, shoes: Shoes, dilation: int) -> dict[str, Any]:
    """Measure what a heel head looks at; see ``MEASURES``. ``colours`` and ``heels`` are the heights read in each."""
    free, heels = shoes.drawn(lambda shoe: shoe)
    tied, _ = shoes.drawn(SPURIOUS_TIES["colour"])
    colours, others = (sweep(reader, shoes, change) for change in (recoloured, with_heel))
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


def _r2(reader: Reader, shoes: Shoes, images: NDArray[np.uint8]) -> float:
    target = reader.target(torch.from_numpy(shoes.items))
    return similarity_match(reader.predict(shoes.normalised(images)), target)["r2"]


def _draw(path: Path, readers: dict[str, Reader], shoes: Shoes, measured: dict[str, Any]) -> None:
    """Draw one shoe in all colours with the heatmaps of both models, and below what was measured."""
    from simec_vision.explain.charts import Strip, trap_chart

    one = middle_shoe(shoes)
    pictures = np.concatenate([one.drawn(partial(recoloured, height=height))[0] for height in range(HEIGHTS)])
    images = shoes.normalised(pictures)
    strips = [
        Strip(name, reader.explain(images).numpy(), [HEEL_HEIGHTS[height] for height in reader.read(images).tolist()])
        for name, reader in readers.items()
    ]
    parts = ("heel", "surface", "outline", "background")
    shares = {name: {part: row[part] for part in parts} for name, row in measured.items()}
    trap_chart(pictures, HEEL_HEIGHTS, strips, {name: row["colours"] for name, row in measured.items()}, shares, path)


def markdown(values: dict[str, dict[str, float]]) -> str:
    """Write a row a measure, a column a model."""
    lines = [f"| measure | {' | '.join(values)} | meaning |", f"|---|{'---:|' * len(values)}---|"]
    for key, meaning in MEASURES.items():
        cells = " | ".join(f"{row[key]:.2f}" for row in values.values())
        lines.append(f"| {key} | {cells} | {meaning} |")
    return "\n".join([*lines, ""])
