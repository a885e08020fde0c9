"""The command ``evaluate embedding``: what an encoder's embeddings are good for, without further training."""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.cli.building import check_held_out, check_images, targets_of
from simec_vision.cli.runs import open_run, with_option, write_text
from simec_vision.cli.saved import command_of, images_of, load_pretrained, pretrained_run, run_options
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.files import write_json
from simec_vision.finetuning import Mirrored, embed_all
from simec_vision.items import InputError
from simec_vision.metrics import (
    PROBE_STRENGTHS,
    UNCHOSEN,
    SimilarityMatch,
    embedding_match,
    linear_probe_accuracy,
    nearest_neighbour_accuracy,
    retrieval,
)
from simec_vision.model import SimilarityModel

BATCH = 256


def evaluate_embedding(
    config: str,
    model: str | None = None,
    data: ImageDataModule | None = None,
    label: str | None = None,
    per_class: list[int] = [1, 5, 20, 100],  # noqa: B006  # never changed, and the parser shows it
    tries: int = 10,
    neighbours: int = 5,
    at: list[int] = [1, 10, 100],  # noqa: B006
    matched: int = 1000,
    probe: int | None = 10_000,
    mirrored: bool = False,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Measure embeddings on held-out images: neighbours, linear probe, similarities, retrieval, kernel PCA.

    Args:
        config: All options as YAML, for the output folder.
        model: Run folder of a pretraining, an auto-encoder or a fine-tuning; default: the newest pretraining under
            runs/, pretrained first if there is none.
        data: Other images than those of the run.
        label: The attribute that is the class; default: that of a fine-tuning, else what the data suggest, Category for
            shoes.
        per_class: How many labelled images of each class nearest neighbours are looked for among.
        tries: How often these images are drawn.
        neighbours: Neighbours that vote, at most as many as there are of a class.
        at: How many of the most similar images count for precision@k.
        matched: Held-out images that are compared pairwise with kernel PCA, at most.
        probe: Labelled images that a linear probe is fitted on, at most; null takes all.
        mirrored: Embed an image as the mean of its own embedding and its mirror image's; predicted similarities are
            those of the images as they are.
        seed: Seed of all draws.
        out: Folder, new or empty; default: the next free runs/embedding.
    """
    _check_options(per_class, tries, neighbours, at, matched, probe, seed)
    source = pretrained_run(model, or_classifier=True)
    pretrained, options = load_pretrained(source), run_options(source)
    data = images_of(options, data)
    check_images(pretrained, data)
    label = label or getattr(options, "label", None) or data.label
    data.use_labels(label)
    check_held_out(data, "test")
    folder = open_run(out, "embedding")
    encoder = Mirrored(pretrained.encoder) if mirrored else pretrained.encoder
    splits = [name for name in ("train", "validation", "test") if len(data.subset(name))]
    parts = {name: embedded(encoder, data, data.subset(name)) for name in splits}
    random = np.random.default_rng(seed)
    summary: dict[str, Any] = {"model": str(source), "label": label, "pretraining": pretrained.name}
    summary |= {"mirrored": True} if mirrored else {}
    summary["neighbours"] = _neighbours(parts, per_class, tries, neighbours, random)
    summary["probe"] = _probe(parts, probe, random)
    summary["retrieval"] = retrieval(*parts["test"], at)
    summary["kernel_pca"] = _kernel_pca(data, parts["test"][0], data.subset("test"), matched)
    if command_of(source) == "pretrain":
        summary["similarity"] = _similarities(SimilarityModel.load(source / "model"), options, data)
    write_text(folder / "config.yaml", with_option(config, "model", str(source)))
    write_json(folder / "summary.json", summary)
    print("\n".join([*_told(summary), f"Saved {folder}"]))


def _check_options(
    per_class: Sequence[int], tries: int, neighbours: int, at: Sequence[int], matched: int, probe: int | None, seed: int
) -> None:  # fmt: skip
    for name, values in (("per_class", per_class), ("at", at)):
        if not values or min(values) < 1:
            raise InputError(f"Expected {name} as a list of numbers of at least 1, got {list(values)}")
    numbers = {"tries": (tries, 1), "neighbours": (neighbours, 1), "matched": (matched, 3), "seed": (seed, 0)}
    for name, (value, least) in {**numbers, "probe": (10 if probe is None else probe, 10)}.items():
        if value < least:
            raise InputError(f"Expected {name} of at least {least}, got {value}")


def embedded(encoder: nn.Module, data: ImageDataModule, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Embed items as they are, not augmented: embeddings ``(item, embedding)`` and labels ``(item,)``."""
    chunks = torch.from_numpy(index).split(BATCH)
    return embed_all(encoder, ((data.normalised(part.numpy()), data.labels[part]) for part in chunks))


Parts = Mapping[str, tuple[Tensor, Tensor]]


def _neighbours(
    parts: Parts, per_class: Sequence[int], tries: int, neighbours: int, random: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Classify test images by their nearest among some of each class, several times."""
    (embeddings, labels), test = parts["train"], parts["test"]
    smallest = int(labels.unique(return_counts=True)[1].min())
    if min(per_class) > smallest:
        raise InputError(
            f"Expected per_class of at most {smallest}, the images of the smallest class, got {min(per_class)}"
        )
    result = {}
    for count in (count for count in per_class if count <= smallest):
        accuracies = []
        for _ in range(tries):
            some = torch.from_numpy(some_of_each(labels.numpy(), count, random))
            accuracies.append(
                nearest_neighbour_accuracy(embeddings[some], labels[some], *test, neighbours=min(neighbours, count))
            )
        result[str(count)] = {"mean": fmean(accuracies), "std": pstdev(accuracies), "tries": tries}
    return result


def some_of_each(labels: NDArray[np.int64], count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw so many items of each class, without repetition: positions among the labels."""
    order = random.permutation(len(labels))
    return np.concatenate([order[labels[order] == code][:count] for code in np.unique(labels)])


def _probe(parts: Parts, most: int | None, random: np.random.Generator) -> dict[str, float]:
    """Fit a linear probe on some training images; validation images, where there are any, choose its strength."""
    embeddings, labels = parts["train"]
    some = torch.from_numpy(random.permutation(len(labels))[:most])
    validation = parts.get("validation")
    strengths = PROBE_STRENGTHS if validation else UNCHOSEN
    fitted = linear_probe_accuracy((embeddings[some], labels[some]), validation, parts["test"], strengths)
    return {**fitted, "labels": len(some)}


def _kernel_pca(
    data: ImageDataModule, embeddings: Tensor, items: NDArray[np.int64], most: int
) -> dict[str, float]:  # fmt: skip
    """Compare distances of embeddings with those of kernel PCA on the pixels, with as many components."""
    from sklearn.decomposition import KernelPCA

    count = min(most, len(items))
    pixels = data.normalised(items[:count]).flatten(1).numpy()
    components = min(embeddings.shape[1], count - 1)
    other = KernelPCA(components, kernel="linear").fit_transform(pixels.astype(np.float64))
    return {**embedding_match(embeddings[:count], torch.from_numpy(other)), "items": count, "components": components}


@torch.no_grad()
def _similarities(model: SimilarityModel, options: Any, data: ImageDataModule) -> dict[str, dict[str, float]]:
    """Compare each head's predictions, and dot products of embeddings, with target similarities of test images."""
    shown = torch.sigmoid if options.objective.loss == "bce" else torch.nn.Identity()
    result: dict[str, dict[str, float]] = {}
    model.eval()
    test = data.split("test")
    for name, target in targets_of(model, options, data).items():
        references = target.references.numpy()
        others = torch.cat([model.embed(data.normalised(part)) for part in _chunks(references)])
        matches = {kind: SimilarityMatch(len(test) * len(references)) for kind in ("", "dot_product")}
        for part in _chunks(test):
            index, embedding = torch.from_numpy(part), model.embed(data.normalised(part))
            rows = target(index)
            matches[""].update(shown(model.head(name)(embedding)), rows, index)
            matches["dot_product"].update(embedding @ others.T, rows, index)
        for kind, match in matches.items():
            result[f"{name}/{kind}" if kind else name] = match.compute()
    return result


def _chunks(index: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [index[start : start + BATCH] for start in range(0, len(index), BATCH)]


def _told(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        f"nearest neighbours, {count} a class: {cell['mean']:.4f} ± {cell['std']:.4f}"
        for count, cell in summary["neighbours"].items()
    ]
    lines.append(f"linear probe, {summary['probe']['labels']} labels: {summary['probe']['accuracy']:.4f}")
    lines.append("retrieval: " + ", ".join(f"{name} {value:.4f}" for name, value in summary["retrieval"].items()))
    for name, match in [("kernel PCA of pixels", summary["kernel_pca"]), *summary.get("similarity", {}).items()]:
        lines.append(
            f"{name}: " + ", ".join(f"{measure} {match[measure]:.4f}" for measure in ("mse", "r2", "spearman"))
        )
    return lines
