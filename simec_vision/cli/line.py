"""The command ``evaluate line``: the loss along the straight line between two solutions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.cli.building import check_held_out, check_images, targets_of
from simec_vision.cli.runs import open_run, with_option, write_text
from simec_vision.cli.saved import command_of, images_of, load_pretrained, pretrained_run, run_options
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import build_encoder
from simec_vision.files import write_json
from simec_vision.finetuning import Classifier
from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError
from simec_vision.losses import ELEMENTWISE, known_mean, known_sums
from simec_vision.model import SimilarityModel

BATCH = 256

Loss = Callable[[Any, NDArray[np.int64]], float]
"""A model's mean loss over some items."""


def evaluate_line(
    config: str,
    model: str | None = None,
    other: str | None = None,
    data: ImageDataModule | None = None,
    points: int = 31,
    low: float = -1.0,
    high: float = 2.0,
    images: int = 2000,
    seed: int = 0,
    out: str | None = None,
) -> None:
    """Measure the loss at weights (1 − α) · model + α · other, from below one solution to beyond the other.

    After Goodfellow et al. 2015 (arXiv 1412.6544). Two pretrainings are compared by their loss of predicted
    similarities, two fine-tunings by cross-entropy on the images that the second one was tuned on. Statistics of batch
    normalisation are taken along the line, too; a variance that would be negative beyond a solution is 0 there.

    Args:
        config: All options as YAML, for the output folder.
        model: Run folder of the solution at α = 0, of the same command, encoder and references or classes as the
            other; default: the other's random start is drawn anew.
        other: Run folder of the solution at α = 1; default: the newest pretraining under runs/, pretrained first if
            there is none.
        data: Other images than those of the run at α = 1.
        points: How many α, evenly spaced.
        low: Smallest α.
        high: Largest α.
        images: Training and held-out images, at most so many each.
        seed: Seed of their choice.
        out: Folder, new or empty; default: the next free runs/line.
    """
    if points < 2 or not low < high or images < 1:
        raise InputError(
            f"Expected at least 2 points, low below high and at least 1 image, got {points}, {low}, {high} and {images}"
        )
    run = pretrained_run(other, or_classifier=True)
    start = None if model is None else pretrained_run(model, or_classifier=True)
    options = run_options(run)
    data = images_of(options, data)
    check_images(load_pretrained(run), data)
    first, second, loss = _solutions(start, run, options, data, seed)
    check_held_out(data, "test")
    random = np.random.default_rng(seed)
    items = {name: random.permutation(data.subset(name))[:images] for name in ("train", "test")}
    folder = open_run(out, "line")
    alphas = np.linspace(low, high, points).tolist()
    rows = [{"alpha": alpha, **_losses(first, second, alpha, items, loss)} for alpha in alphas]
    write_text(folder / "config.yaml", with_option(config, "other", str(run)))
    write_json(folder / "summary.json", {"model": str(start or "random"), "other": str(run), "line": rows})
    _draw(rows, folder / "line.png")
    told = [f"α {row['alpha']:+.2f}: train {row['train']:.4f}, test {row['test']:.4f}" for row in rows]
    print("\n".join([*told, f"Saved {folder}"]))


def _solutions(
    start: Path | None, run: Path, options: Any, data: ImageDataModule, seed: int
) -> tuple[Any, Any, Loss]:  # fmt: skip
    """Load both models and say how their loss is measured.

    Raises:
        InputError: if they are not of one kind and size.
    """
    kinds = [command_of(each) for each in (start or run, run)]
    if kinds[0] != kinds[1] or kinds[0] == "pretrain autoencoder":
        raise InputError(f"Expected two pretrainings on similarities or two fine-tunings, got {' and '.join(kinds)}")
    kind: Any = Classifier if kinds[0] == "finetune" else SimilarityModel
    second = kind.load(run / "model").eval()
    first = _random(second, seed).eval() if start is None else kind.load(start / "model").eval()
    mine, theirs = ({name: tuple(part.shape) for name, part in each.state_dict().items()} for each in (first, second))
    for name in {**mine, **theirs}:
        if mine.get(name) != theirs.get(name):
            sizes = f"{mine.get(name, 'none')} and {theirs.get(name, 'none')}"
            raise InputError(f"Expected two models of the same sizes, got {name} of {sizes}")
    return first, second, (_classifier_loss if kind is Classifier else _similarity_loss)(second, options, data)


def _random(model: Any, seed: int) -> Any:
    """Give a model of the same make with random weights."""
    torch.manual_seed(seed)
    encoder = build_encoder(type(model.encoder).__name__, getattr(model.encoder, "options", {}))
    if isinstance(model, Classifier):
        return Classifier(encoder, model.linear.in_features, model.classes, model.about, float(model.scale))
    heads = [(name, model.head(name)) for name in model.heads]
    return SimilarityModel(encoder, {name: SimilarityHead(h.embedding_dim, h.num_references) for name, h in heads})


def _classifier_loss(classifier: Classifier, options: Any, data: ImageDataModule) -> Loss:
    label = classifier.about.get("label", data.label)
    classes = data.use_labels(label, options.labels, options.seed, options.per_class)
    if set(classifier.classes) != set(classes):
        raise InputError(f"Expected data with the classes {classifier.classes}, got {classes}")
    codes = torch.tensor([classifier.classes.index(name) for name in classes])

    def loss(model: Any, items: NDArray[np.int64]) -> float:
        labels = codes[data.labels[torch.from_numpy(items)]]
        return float(F.cross_entropy(model(data.normalised(items)), labels, reduction="sum"))

    return loss


def _similarity_loss(model: SimilarityModel, options: Any, data: ImageDataModule) -> Loss:
    elementwise = ELEMENTWISE[options.objective.loss]
    targets = targets_of(model, options, data)

    def loss(model: Any, items: NDArray[np.int64]) -> float:
        index = torch.from_numpy(items)
        predicted = model(data.normalised(items))
        losses = [known_mean(*known_sums(elementwise, predicted[name], t(index))) for name, t in targets.items()]
        return float(torch.stack(losses).sum()) * len(items)

    return loss


@torch.no_grad()
def _losses(
    first: nn.Module, second: nn.Module, alpha: float, items: Mapping[str, NDArray[np.int64]], loss: Loss
) -> dict[str, float]:
    """Measure the mean loss of each split's items at a place on the line."""
    weights = {
        name: _between(name, part, other, alpha)
        for (name, part), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    }

    def at_place(*arguments: Any) -> Any:
        return torch.func.functional_call(first, weights, arguments)

    return {name: _mean(at_place, index, loss) for name, index in items.items()}


def _between(name: str, part: Tensor, other: Tensor, alpha: float) -> Tensor:
    if not part.is_floating_point():
        return part
    place = torch.lerp(part, other, alpha)
    return place.clamp(min=0) if name.endswith("running_var") else place


def _mean(model: Any, items: NDArray[np.int64], loss: Loss) -> float:
    parts = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    return sum(loss(model, part) for part in parts) / len(items)


def _draw(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw both losses along the line, with the two solutions marked."""
    from simec_vision.explain.charts import FAINT, INK, SERIES, new_figure, plain, save

    figure = new_figure(6.5, 3.6)
    axis = figure.subplots()
    for place in (0, 1):
        axis.axvline(place, color=FAINT, linewidth=1.2)
    for name, colour in zip(("train", "test"), SERIES, strict=False):
        axis.plot([row["alpha"] for row in rows], [row[name] for row in rows], color=colour, linewidth=2, label=name)
    plain(axis, "y")
    losses = [row[name] for row in rows for name in ("train", "test")]
    if max(losses) > 20 * min(losses) > 0:
        axis.set_yscale("log")
    axis.set_xlabel("α: weights (1 − α) · model + α · other", fontsize=9.5, color=INK)
    axis.set_ylabel("loss", fontsize=9.5, color=INK)
    axis.legend(frameon=False, fontsize=9)
    save(figure, path)
