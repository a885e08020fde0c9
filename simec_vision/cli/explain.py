"""The command ``explain``: heatmaps of why an image is similar to a reference, and of all pairs of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simec_vision.cli.bilrp import Cells, about_bilrp
from simec_vision.cli.building import check_images, reference_index
from simec_vision.cli.figures import Look, Picture
from simec_vision.cli.runs import open_run, with_option, write_text
from simec_vision.cli.saved import pretrained_run, run_options
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.explain import explain, explain_pair
from simec_vision.explain.heatmaps import Colours, Scale
from simec_vision.files import replacing, write_json
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel
from simec_vision.similarities import Similarity, TargetSimilarity

CANDIDATES = 200
"""Items among which different ones are looked for."""


@dataclass(frozen=True)
class Question:
    """What is explained: which images, how similar to which references.

    Args:
        items: Index of the images among the items.
        references: Position of each reference in its head.
        preset: Which rule for which layer.
    """

    items: NDArray[np.int64]
    references: NDArray[np.int64]
    preset: str


def explain_run(
    config: str,
    model: str | None = None,
    head: str | None = None,
    images: int | str | list[str] = 4,
    references: int | str | list[str] = 3,
    preset: str = "a_flat",
    pairs: bool = True,
    bilrp: bool = False,
    cells: int = 17,
    directions: int | None = None,
    colours: Colours = "seismic",
    scale: Scale = "row",
    format: Literal["png", "pdf"] = "png",
    seed: int = 0,
    data: ImageDataModule | None = None,
    out: str | None = None,
) -> None:
    """Draw why images are similar to references, by layer-wise relevance propagation through a pretrained model.

    Args:
        config: All options as YAML, for the output folder.
        model: Run folder of the pretraining; default: the newest under runs/, pretrained first if there is none.
        head: Which similarity is explained; default: all.
        images: How many held-out images, chosen to differ, or their names, with commas between them.
        references: How many references, chosen to differ, or their names, with commas between them.
        preset: Which rule for which layer: a_flat, the original's.
        pairs: Draw all pairs of the images by the inner product of their embeddings, too.
        bilrp: Draw which cell of an image goes with which cell of another, for each two of the images, too (BiLRP).
        cells: Cells along the longer side of an image, for bilrp.
        directions: Explain with bilrp only the part of the inner product along so many leading directions of the
            held-out embeddings, which is faster; default: all of it.
        colours: seismic, as in the original, or balanced, which the colour-blind can tell apart.
        scale: Heatmaps that share their colours, those of a row, as in the original, none (image), or all of a figure.
        format: Format of the figures, png or pdf.
        seed: Seed of the choice of images and references.
        data: Other images than those of the pretraining.
        out: Folder, new or empty; default: the next free runs/explain.
    """
    source = pretrained_run(model)
    pretrained = SimilarityModel.load(source / "model").eval()
    options = run_options(source)
    data = data or options.data
    check_images(pretrained, data)
    names = list(pretrained.heads) if head is None else [head]
    targets = _targets(pretrained, data, options.similarities or options.data.similarities(), names)
    chosen = _chosen_items(data, targets, _names(images), seed)
    wanted = Cells(cells, directions).checked(pretrained, data, len(chosen)) if bilrp else None
    folder, look = open_run(out, "explain"), Look(colours, scale, format)
    summary = draw(pretrained, data, targets, chosen, _names(references), preset, pairs, wanted, seed, folder, look)
    write_text(folder / "config.yaml", with_option(config, "model", str(source)))
    write_json(folder / "summary.json", summary)
    print("Drew " + ", ".join(str(folder / name) for name in summary["files"]))


def _names(given: int | str | list[str]) -> int | list[str]:
    names = given.split(",") if isinstance(given, str) else given
    if isinstance(names, list) and not names:
        raise InputError("Expected how many images and references, or their names, got an empty list")
    return names


def _targets(
    model: SimilarityModel, data: ImageDataModule, similarities: Mapping[str, Similarity], names: list[str]
) -> dict[str, TargetSimilarity]:
    for name in names:
        model.head(name)  # names the nearest head if there is none
    return {name: similarities[name].bind(data.items, reference_index(model, name, data)) for name in names}


def draw_defaults(
    model: SimilarityModel, data: ImageDataModule, targets: Mapping[str, TargetSimilarity], folder: Path
) -> list[Path]:
    """Draw four held-out images against three references of every head (fewer if there are), and all their pairs."""
    chosen = _chosen_items(data, targets, min(4, len(data.split("test"))), seed=0)
    references = min(3, *(len(target) for target in targets.values()))
    summary = draw(model.eval(), data, targets, chosen, references, "a_flat", True, None, 0, folder, Look())
    write_json(folder / "summary.json", summary)
    return [folder / name for name in summary["files"]]


def _chosen_items(
    data: ImageDataModule, targets: Mapping[str, TargetSimilarity], images: int | list[str], seed: int
) -> NDArray[np.int64]:
    if not isinstance(images, int):
        return data.items.positions(images)
    candidates = np.random.default_rng(seed).permutation(data.split("test"))[:CANDIDATES]
    rows = torch.cat([target(torch.from_numpy(candidates)) for target in targets.values()], dim=1)
    return candidates[different(rows, images)]


def different(rows: Tensor, count: int) -> NDArray[np.int64]:
    """Choose items that differ: each next one is farthest from those chosen before, by its target similarities.

    Args:
        rows: Target similarities of the candidates, shape ``(candidate, reference)``, NaN where unknown.
        count: How many to choose.

    Returns:
        Positions among the candidates, shape ``(count,)``.

    Raises:
        InputError: if there are fewer candidates.
    """
    if not 0 < count <= len(rows):
        raise InputError(f"Expected from 1 to {len(rows)} items, as there are so many to choose from, got {count}")
    known = rows.nan_to_num(0.5)
    nearest = torch.cdist(known[:1], known, compute_mode="donot_use_mm_for_euclid_dist")[0]
    chosen = [0]
    while len(chosen) < count:
        nearest[chosen] = -1  # nothing is chosen twice, not even where all that is left is like something chosen
        chosen.append(int(nearest.argmax()))
        more = torch.cdist(known[chosen[-1:]], known, compute_mode="donot_use_mm_for_euclid_dist")[0]
        nearest = torch.minimum(nearest, more)
    return np.array(chosen)


def draw(
    model: SimilarityModel, data: ImageDataModule, targets: Mapping[str, TargetSimilarity], items: NDArray[np.int64],
    references: int | list[str], preset: str, pairs: bool, cells: Cells | None, seed: int, folder: Path, look: Look,
) -> dict[str, Any]:  # fmt: skip
    """Explain all, and then draw; write the figures and ``relevance.npz``.

    Returns:
        ``explained`` (a row per image and reference: ``score``, ``delta``, …), ``files``, ``localisation`` where the
        data know the truth, and ``bilrp`` (a row per two images: ``score``, ``kept``, ``delta``) where it is wanted.
    """
    questions = {
        name: Question(items, _chosen_references(data, target, references, seed), preset)
        for name, target in targets.items()
    }
    images = data.normalised(items)
    pictures = [_about_head(model, data, name, targets[name], asked, images, look) for name, asked in questions.items()]
    pictures += [_about_pairs(model, data, items, images, preset, look)] if pairs else []
    connected = [about_bilrp(model, data, items, preset, cells, look)] if cells else []
    localised = localisation(model, data, list(targets), preset)
    files = {f"{picture.name}.{look.format}": picture for picture in [*pictures, *connected]}
    for name, picture in files.items():
        picture.draw(folder / name)
    arrays = {"images": data.items.names[items], **{picture.name: picture.relevance for picture in files.values()}}
    with replacing(folder / "relevance.npz") as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    return {
        "explained": [row for picture in pictures for row in picture.rows],
        "files": [*files, "relevance.npz"],
        **{picture.name: picture.rows for picture in connected},
        **({"localisation": localised} if localised else {}),
    }


def _chosen_references(
    data: ImageDataModule, target: TargetSimilarity, references: int | list[str], seed: int
) -> NDArray[np.int64]:
    own = target.references.numpy()
    if isinstance(references, int):
        candidates = np.random.default_rng(seed).permutation(len(own))[:CANDIDATES]
        return candidates[different(target(torch.from_numpy(own[candidates])), references)]
    places = {item: place for place, item in enumerate(own.tolist())}
    wanted = data.items.positions(references)
    for item in wanted.tolist():
        if item not in places:
            raise InputError(
                f"Expected a reference of the model, but {str(data.items.names[item])!r} is none of its {len(own)}"
            )
    return np.array([places[item] for item in wanted.tolist()])


def _about_head(
    model: SimilarityModel, data: ImageDataModule, head: str, target: TargetSimilarity, question: Question,
    images: Tensor, look: Look,
) -> Picture:  # fmt: skip
    from simec_vision.explain.heatmaps import reference_grid

    count, places = len(images), torch.from_numpy(question.references)
    reference = places.repeat_interleave(count)  # (reference · image)
    told = explain(model, images.repeat(len(places), 1, 1, 1), head=head, reference=reference, preset=question.preset)
    shape = (len(places), count)
    relevance = told.relevance.reshape(*shape, *images.shape[1:]).numpy()
    true = target(torch.from_numpy(question.items), places).T.reshape(-1)
    items = target.references.numpy()[question.references]
    names = [(str(data.items.names[r]), str(data.items.names[i])) for r in items for i in question.items]
    rows = [
        {"head": head, "reference": r, "image": i, "true": _json(true[k]), **_row(told, k)}
        for k, (r, i) in enumerate(names)
    ]
    pictures = (data.images(question.items), data.images(items), relevance)
    similarities = (told.score.reshape(shape), true.reshape(shape))

    def draw_head(path: Path) -> None:
        reference_grid(*pictures, *similarities, path, title=head, scale=look.scale, colours=look.colours)

    return Picture(head, rows, relevance, draw_head)


def _row(told: Any, k: int) -> dict[str, float]:
    return {"score": float(told.score[k]), "delta": float(told.delta[k])}


def _json(value: Tensor) -> float | None:
    return None if torch.isnan(value) else float(value)


def _about_pairs(
    model: SimilarityModel, data: ImageDataModule, items: NDArray[np.int64], images: Tensor, preset: str, look: Look
) -> Picture:
    from simec_vision.explain.heatmaps import pair_grid

    count = len(images)
    mine, theirs = images.repeat(count, 1, 1, 1), images.repeat_interleave(count, dim=0)  # row: the other image
    told = explain_pair(model, mine, theirs, preset=preset)
    relevance = told.relevance.reshape(count, count, *images.shape[1:]).numpy()
    names = data.items.names[items].tolist()
    rows = [
        {"head": None, "reference": names[k // count], "image": names[k % count], "true": None, **_row(told, k)}
        for k in range(count * count)
    ]
    pictures, scores = data.images(items), told.score.reshape(count, count)

    def draw_pairs(path: Path) -> None:
        pair_grid(pictures, relevance, scores, path, scale=look.scale, colours=look.colours)

    return Picture("all_pairs", rows, relevance, draw_pairs)


def localisation(
    model: SimilarityModel, data: ImageDataModule, heads: list[str], preset: str, count: int = 32
) -> dict[str, Any]:
    """Measure how much relevance lies where the truth is, on data that know it (``masks``).

    Every held-out image is explained towards the reference that it is predicted to be most similar to. Positive
    relevance, summed over channels, is compared with the masks (relevance mass accuracy, Arras et al. 2022).

    Returns:
        ``<head>``: for each mask, over the images in which it is not empty, the mean share of positive relevance
        ``mass`` inside, the mask's share ``area`` of the image, and their ratio ``gain``; empty where the data have no
        masks.
    """
    masks_of = getattr(data, "masks", None)
    if masks_of is None:
        return {}
    items = data.split("test")[:count]
    images, masks = data.normalised(items), masks_of(items)
    return {head: _localised(model, head, images, masks, preset) for head in heads}


def _localised(
    model: SimilarityModel, head: str, images: Tensor, masks: Mapping[str, NDArray[np.bool_]], preset: str
) -> dict[str, dict[str, float]]:
    with torch.no_grad():
        nearest = model(images)[head].argmax(dim=1)
    relevance = explain(model, images, head=head, reference=nearest, preset=preset).relevance.sum(dim=1).clamp(min=0)
    inside = {name: torch.from_numpy(mask).flatten(1) for name, mask in masks.items() if mask.any()}
    return {name: _share(relevance.flatten(1), mask) for name, mask in inside.items()}


def _share(relevance: Tensor, mask: Tensor) -> dict[str, float]:
    there = mask.any(dim=1)
    relevance, mask = relevance[there], mask[there].to(relevance.dtype)
    mass = float(((relevance * mask).sum(dim=1) / relevance.sum(dim=1).clamp(min=1e-12)).mean())
    area = float(mask.mean())
    return {"mass": round(mass, 4), "area": round(area, 4), "gain": round(mass / area, 2)}
