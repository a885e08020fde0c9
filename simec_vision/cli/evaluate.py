"""The command ``evaluate explanations``: how good heatmaps are, several methods side by side, in numbers."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.building import check_images
from simec_vision.cli.evaluation_report import Results, write_report
from simec_vision.cli.runs import open_run, with_option, write_text
from simec_vision.cli.saved import images_of, pretrained_run, run_options
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.explain.evaluation import (
    dilated,
    rank_correlation,
    relevance_mass,
    relevance_rank,
    relevance_share,
    white_background,
)
from simec_vision.explain.flipping import area_under, flipping_curve, pair_flipping_curve
from simec_vision.explain.methods import Method, pair_model
from simec_vision.explain.methods import methods as named_methods
from simec_vision.explain.randomisation import randomisation_curve
from simec_vision.explain.refusal import CannotExplain
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel

PAIR = "pair of images"
ORDERS: tuple[Literal["most"], Literal["least"]] = ("most", "least")
SHOWN = 2
"""Images of every head in the picture of all methods."""


@dataclass(frozen=True)
class Settings:
    """How heatmaps are measured.

    Args:
        dilation: Pixels by which the true masks, and the object on its white background, are widened on every side.
        pool: Height and width in pixels of the regions that are flipped.
        replacement: What flipped regions are replaced by: the blurred image, or its mean colour.
        randomised: How many of the images are explained with random weights; 0 leaves that check out.
        pairs: How many of the images are explained as pairs, each with the other image whose embedding is most similar;
            0 leaves pairs out.
    """

    dilation: int = 3
    pool: int = 8
    replacement: Literal["blur", "mean"] = "blur"
    randomised: int = 8
    pairs: int = 16

    def __post_init__(self) -> None:
        if min(self.dilation, self.randomised, self.pairs) < 0 or self.pool < 1:
            raise InputError(
                f"Expected dilation, randomised and pairs of at least 0 and pool of at least 1, got {self.dilation}, "
                f"{self.randomised}, {self.pairs} and {self.pool}"
            )


@dataclass(frozen=True)
class Case:
    """Images that are explained, and what is known about them.

    Args:
        model: The model.
        pictures: uint8 of shape ``(batch, height, width, channel)``.
        images: Normalised, shape ``(batch, channel, height, width)``.
        references: Head → the reference that each image is predicted to be most similar to, shape ``(batch,)``.
        masks: Head → where its relevance should be, shape ``(batch, height, width)``; heads without truth are missing.
        changes: Head → how much pixels change when its attribute is drawn anew, same shape, for data that can.
        background: Where nothing is, shape ``(batch, height, width)``.
        seed: Seed of the images' choice and of random weights.
    """

    model: SimilarityModel
    pictures: NDArray[np.uint8]
    images: Tensor
    references: dict[str, Tensor]
    masks: dict[str, Tensor]
    changes: dict[str, Tensor]
    background: Tensor
    seed: int


def evaluate_explanations(
    config: str,
    model: str | list[str] | None = None,
    head: str | None = None,
    methods: list[str] | None = None,
    images: int = 32,
    seeds: list[int] = [0],  # noqa: B006  # never changed, and the parser shows it
    settings: Settings = Settings(),
    data: ImageDataModule | None = None,
    out: str | None = None,
) -> None:
    """Measure explanations: does relevance lie where it should, does the score depend on it, does it on the weights.

    Every held-out image is explained towards the reference that it is predicted to be most similar to.

    Args:
        config: All options as YAML, for the output folder.
        model: Run folder of the pretraining, or several; default: the newest under runs/, pretrained first if there is
            none.
        head: Which similarity is explained; default: all.
        methods: Which methods are compared; default: all presets, Captum's methods, random and edges.
        images: How many held-out images.
        seeds: Seeds of the choice of images and of random weights; more than one show how much results vary.
        settings: How heatmaps are measured.
        data: Other images than those of the pretraining.
        out: Folder, new or empty; default: the next free runs/explanations.
    """
    table = named_methods(methods)
    if not table or not seeds or model == []:
        raise InputError("Expected at least one model, one of methods and one of seeds, got an empty list")
    runs = [pretrained_run(name) for name in ([model] if model is None or isinstance(model, str) else model)]
    results = Results(models=[str(run) for run in runs], seeds=seeds, images=images)
    cases = _cases(runs, seeds, images, head, settings, data)
    first = next(cases)  # before there is a folder: here the user's mistakes come out
    folder = open_run(out, "explanations")
    _measure(table, first, settings, results)
    shown = _pictures(table, first, results)
    for case in cases:
        _measure(table, case, settings, results)
    named = [str(run) for run in runs]
    write_text(folder / "config.yaml", with_option(config, "model", named if isinstance(model, list) else named[0]))
    print(write_report(folder, results, shown))


def _cases(
    runs: Sequence[Path], seeds: Sequence[int], count: int, head: str | None, settings: Settings,
    data: ImageDataModule | None,
) -> Iterator[Case]:  # fmt: skip
    for run in runs:
        model = SimilarityModel.load(run / "model").eval()
        source = data or images_of(run_options(run))
        check_images(model, source)
        heads = list(model.heads) if head is None else [head]
        for name in heads:
            model.head(name)  # names the nearest head if there is none
        _check_pool(settings.pool, source)
        for seed in seeds:
            yield _case(model, source, heads, count, seed, settings.dilation)


def _check_pool(pool: int, data: ImageDataModule) -> None:
    if pool > min(data.size[1:]):
        raise InputError(f"Expected settings.pool between 1 and {min(data.size[1:])}, the images' side, got {pool}")


def _case(
    model: SimilarityModel, data: ImageDataModule, heads: Sequence[str], count: int, seed: int, dilation: int
) -> Case:
    held_out = data.split("test")
    if not 0 < count <= len(held_out):
        raise InputError(f"Expected images between 1 and {len(held_out)}, the held-out ones, got {count}")
    items = np.random.default_rng(seed).permutation(held_out)[:count]
    pictures, images = data.images(items), data.normalised(items)
    with torch.no_grad():
        nearest = {name: predicted.argmax(dim=1) for name, predicted in model(images).items() if name in heads}
    masks = {name: dilated(mask, dilation) for name, mask in _known(data, "masks", items, heads).items()}
    changes = _known(data, "changes", items, heads)
    background = ~dilated(~white_background(pictures), dilation)
    return Case(model, pictures, images, {name: nearest[name] for name in heads}, masks, changes, background, seed)


def _known(data: ImageDataModule, truth: str, items: NDArray[np.int64], heads: Sequence[str]) -> dict[str, Tensor]:
    """Ask data for what they know of items, head by head; empty where they know nothing."""
    tell = getattr(data, truth, None)
    told = {} if tell is None else tell(items)
    return {name: torch.from_numpy(told[name]) for name in heads if name in told}


def _measure(table: Mapping[str, Method], case: Case, settings: Settings, results: Results) -> None:
    """Measure every method on a case; one that cannot explain this network is kept with its reason."""
    for head, mask in case.masks.items():
        results.chance.setdefault(head, []).append(float(mask.float().mean()))
    for head, change in case.changes.items():
        results.drawn.setdefault(head, []).append(_mean(relevance_mass(change, case.masks[head])))
    for name, method in table.items():
        torch.manual_seed(case.seed)
        try:
            _measure_method(name, method, case, settings, results)
        except CannotExplain as error:
            results.failed[name] = str(error)
            print(f"{name}: failed: {error}", flush=True)


def _measure_method(name: str, method: Method, case: Case, settings: Settings, results: Results) -> None:
    started = time.perf_counter()
    maps = {head: method(case.model, case.images, head, places) for head, places in case.references.items()}
    seconds = (time.perf_counter() - started) / (len(maps) * len(case.images))
    for head in maps:
        values = _localised(maps, head, case) | {"seconds": seconds}
        values |= _flipped(name, maps[head], head, case, settings, results)
        values |= _randomised(name, method, head, case, settings, results)
        results.add(name, head, values)
    if min(settings.pairs, len(case.images)) > 1:
        results.add(name, PAIR, _pairs(name, method, case, settings, results))
    print(f"{name}: " + "; ".join(f"{head} {results.told(name, head)}" for head in results.values[name]), flush=True)


def _localised(maps: Mapping[str, Tensor], head: str, case: Case) -> dict[str, float]:
    own = maps[head].cpu()
    values = {"background": _mean(relevance_share(own, case.background))}
    if head in case.masks:
        mask = case.masks[head]
        values |= {"mass": _mean(relevance_mass(own, mask)), "rank": _mean(relevance_rank(own, mask))}
    others = [_mean(rank_correlation(own, maps[other].cpu())) for other in maps if other != head]
    return values | ({"heads": sum(others) / len(others)} if others else {})


def _flipped(
    name: str, heatmaps: Tensor, head: str, case: Case, settings: Settings, results: Results
) -> dict[str, float]:  # fmt: skip
    areas: dict[str, float] = {}
    for first in ORDERS:
        curves = flipping_curve(
            case.model, case.images, heatmaps, head, case.references[head], first, settings.pool, settings.replacement
        )
        results.curves.setdefault(f"{name}/{head}/{first}", []).append(curves.mean(dim=0).cpu().numpy())
        areas[first] = _mean(area_under(curves))
    return areas | {"gap": areas["least"] - areas["most"]}


def _pairs(name: str, method: Method, case: Case, settings: Settings, results: Results) -> dict[str, float]:
    """Explain each image and the other one most similar to it, from both sides, and flip regions of both."""
    images, background = case.images[: settings.pairs], case.background[: settings.pairs]
    model = pair_model(case.model, images)
    weight = model.head("pair").weight.detach()
    other = (weight @ weight.T).fill_diagonal_(-torch.inf).argmax(dim=1)
    mine = method(model, images, "pair", other)
    theirs = method(pair_model(model, images), images[other], "pair", torch.arange(len(images)))
    areas: dict[str, float] = {}
    for first in ORDERS:
        curves = pair_flipping_curve(
            model, images, images[other], mine, theirs, first, settings.pool, settings.replacement
        )
        curve = curves.mean(dim=0) / curves[:, 0].mean()
        results.curves.setdefault(f"{name}/{PAIR}/{first}", []).append(curve.cpu().numpy())
        areas[first] = float(area_under(curve))
    share = _mean(relevance_share(mine.cpu(), background))
    return areas | {"gap": areas["least"] - areas["most"], "background": share}


def _randomised(
    name: str, method: Method, head: str, case: Case, settings: Settings, results: Results
) -> dict[str, float]:  # fmt: skip
    some = slice(0, settings.randomised)
    if len(case.images[some]) == 0:
        return {}
    curve = randomisation_curve(method, case.model, case.images[some], head, case.references[head][some], case.seed)
    results.cascades.setdefault(f"{name}/{head}", []).append(curve)
    return {"randomised": list(curve.values())[-1]}


def _pictures(table: Mapping[str, Method], case: Case, results: Results) -> dict[str, Any]:
    """Explain a few images by every method that works, for the picture: the same images for every head."""
    some = slice(0, SHOWN)
    heads, pictures = list(case.references), case.pictures[some]
    maps = {
        name: torch.cat([method(case.model, case.images[some], head, case.references[head][some]) for head in heads])
        for name, method in table.items()
        if name not in results.failed
    }
    labels = [head for head in heads for _ in pictures]
    return {"images": np.concatenate([pictures] * len(heads)), "heatmaps": maps, "labels": labels}


def _mean(values: Tensor) -> float:
    return float(values.nanmean())
