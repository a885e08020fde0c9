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
from simec_vision.cli.building import check_images, targets_of
from simec_vision.cli.figures import BEST, Look
from simec_vision.cli.questions import Explained, about_head, about_pairs, about_rather, localisation
from simec_vision.cli.relevance_files import open_files, write_relevance
from simec_vision.cli.runs import open_run, with_option, write_text
from simec_vision.cli.saved import images_of, pretrained_run, run_options
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.explain.heatmaps import Colours, Scale
from simec_vision.files import replacing, write_json
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel
from simec_vision.similarities import TargetSimilarity

CANDIDATES = 200
"""Items among which different ones are looked for."""


@dataclass(frozen=True)
class Also:
    """What is drawn beside similarities to references.

    Args:
        pairs: Pairs of the images.
        rather: Why to one reference rather than to another.
        cells: Which cells of two images go together, and how finely.
    """

    pairs: bool = True
    rather: bool = False
    cells: Cells | None = None


def explain_run(
    config: str,
    model: str | None = None,
    head: str | None = None,
    images: int | str | list[str] = 4,
    references: int | str | list[str] = 3,
    preset: str = BEST,
    pairs: bool = True,
    rather: bool = False,
    bilrp: bool = False,
    cells: int = 17,
    directions: int | None = None,
    colours: Colours = "seismic",
    scale: Scale = "row",
    format: Literal["png", "pdf"] = "png",
    seed: int = 0,
    split: Literal["train", "validation", "test"] | None = None,
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
        preset: Which rule for which layer; a_flat is the original's (docs/evidence.md compares them).
        pairs: Draw all pairs of the images by the inner product of their embeddings, too.
        rather: Draw why images are more similar to one reference than to another, for each two of the references, too.
        bilrp: Draw which cell of an image goes with which cell of another, for each two of the images, too (BiLRP).
        cells: Cells along the longer side of an image, for bilrp.
        directions: Explain with bilrp only the part of the inner product along so many leading directions of the
            held-out embeddings, which is faster; default: all of it.
        colours: seismic, as in the original, or balanced, which the colour-blind can tell apart.
        scale: Heatmaps that share their colours, those of a row, as in the original, none (image), or all of a figure.
        format: Format of the figures, png or pdf.
        seed: Seed of the choice of images and references.
        split: Write the relevance of all images of this split to the references, in files of 64 images, and draw
            nothing. Several processes share them, and what --out already holds is not made again.
        data: Other images than those of the pretraining.
        out: Folder, new or empty; default: the next free runs/explain.
    """
    from simec_vision.explain.presets import rows_of  # Captum takes long to import

    rows_of(preset)  # names the nearest if there is no such preset
    source = pretrained_run(model)
    pretrained = SimilarityModel.load(source / "model").eval()
    options = run_options(source)
    data = images_of(options, data)
    check_images(pretrained, data)
    names = list(pretrained.heads) if head is None else [head]
    targets = targets_of(pretrained, options, data, names)
    if split is not None:
        asked = Explained(pretrained, data, data.split(split), preset, Look())
        places = _references(data, targets, _names(references), seed)
        folder = open_files(out, with_option(config, "model", str(source)))
        paths = write_relevance(asked, places, folder)
        print(f"Wrote {len(paths)} files of relevance in {folder}")
        return
    chosen = _chosen_items(data, targets, _names(images), seed)
    wanted = Cells(cells, directions).checked(pretrained, data, len(chosen)) if bilrp else None
    asked = Explained(pretrained, data, chosen, preset, Look(colours, scale, format))
    places = _references(data, targets, _names(references), seed)
    if rather and min(map(len, places.values())) < 2:
        raise InputError("Expected --references to be at least 2 for --rather, got 1")
    folder = open_run(out, "explain")
    summary = draw(asked, targets, places, Also(pairs, rather, wanted), folder)
    write_text(folder / "config.yaml", with_option(config, "model", str(source)))
    write_json(folder / "summary.json", summary)
    print("Drew " + ", ".join(str(folder / name) for name in summary["files"]))


def _names(given: int | str | list[str]) -> int | list[str]:
    names = given.split(",") if isinstance(given, str) else given
    if isinstance(names, list) and not names:
        raise InputError("Expected how many images and references, or their names, got an empty list")
    return names


def draw_defaults(
    model: SimilarityModel, data: ImageDataModule, targets: Mapping[str, TargetSimilarity], folder: Path
) -> list[Path]:
    """Draw four held-out images against three references of every head (fewer if there are), and all their pairs."""
    chosen = _chosen_items(data, targets, min(4, len(data.split("test"))), seed=0)
    references = min(3, *(len(target) for target in targets.values()))
    asked = Explained(model.eval(), data, chosen, BEST, Look())
    summary = draw(asked, targets, _references(data, targets, references, seed=0), Also(), folder)
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
    asked: Explained,
    targets: Mapping[str, TargetSimilarity],
    references: Mapping[str, NDArray[np.int64]],
    also: Also,
    folder: Path,
) -> dict[str, Any]:
    """Explain all, and then draw; write the figures and ``relevance.npz``.

    Args:
        asked: Which images, and how they are explained.
        targets: Head → what similar means.
        references: Head → positions of its references.
        also: What is drawn beside similarities to references.
        folder: Where to.

    Returns:
        ``explained`` (a row per image and reference: ``score``, ``delta``, …), ``files``, ``localisation`` where the
        data know the truth, and ``bilrp`` (a row per two images: ``score``, ``baseline``, ``kept``, ``delta``) where it
        is wanted.
    """
    abouts = [about_head, *([about_rather] if also.rather else [])]
    pictures = [about(asked, name, targets[name], references[name]) for about in abouts for name in targets]
    pictures += [about_pairs(asked)] if also.pairs else []
    connected = [about_bilrp(asked, also.cells)] if also.cells else []
    localised = localisation(asked.model, asked.data, list(targets), asked.preset)
    files = {f"{picture.name}.{asked.look.format}": picture for picture in [*pictures, *connected]}
    for name, picture in files.items():
        picture.draw(folder / name)
    arrays = {"images": asked.data.items.names[asked.items], **{each.name: each.relevance for each in files.values()}}
    with replacing(folder / "relevance.npz") as partial:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    return {
        "explained": [row for picture in pictures for row in picture.rows],
        "files": [*files, "relevance.npz"],
        **{picture.name: picture.rows for picture in connected},
        **({"localisation": localised} if localised else {}),
    }


def _references(
    data: ImageDataModule, targets: Mapping[str, TargetSimilarity], references: int | list[str], seed: int
) -> dict[str, NDArray[np.int64]]:
    return {name: _chosen_references(data, target, references, seed) for name, target in targets.items()}


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
