"""From options to objects: references, target similarities, encoder and model of a run."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import Encoder, PlainCNN
from simec_vision.heads import SimilarityHead, head_weight
from simec_vision.items import InputError, nearest, read_names
from simec_vision.losses import refuse_outside_unit_interval
from simec_vision.model import SimilarityModel
from simec_vision.similarities import Similarity, TargetSimilarity, choose_references

References = int | str | dict[str, int | str] | None
"""How many references, a file of their names, or one of these for each head."""

HeadStart = Literal["random", "eigen", "linear"]
"""Small random numbers, the eigendecomposition of the references' own similarities, or as a ``Linear`` starts."""

MOST_REFERENCES = 1000
"""References that are sampled unless told otherwise, if there are so many training items."""


def bind_targets(
    data: ImageDataModule, similarities: Mapping[str, Similarity], references: References, seed: int
) -> dict[str, TargetSimilarity]:
    """Choose each head's references among the training items that it knows, and bind its similarity to them.

    Args:
        data: The source of the items.
        similarities: Head name → what similar means.
        references: How many references, or which.
        seed: Seed of the sample.
    """
    if isinstance(references, dict) and set(references) - set(similarities):
        unknown = min(set(references) - set(similarities))
        raise InputError(f"Expected references for a head, got {unknown!r}: {nearest(unknown, list(similarities))}")
    chosen = {name: references.get(name) if isinstance(references, dict) else references for name in similarities}
    return {name: _bind(data, name, similarities[name], chosen[name], seed) for name in similarities}


def _bind(
    data: ImageDataModule, name: str, similarity: Similarity, references: int | str | None, seed: int
) -> TargetSimilarity:
    train = data.split("train")
    candidates = train[similarity.known(data.items)[train]]
    if len(candidates) == 0:
        raise InputError(
            f"Expected known similarities for head {name!r}, but none of the {len(train)} training items has one"
        )
    if references is None:
        references = min(MOST_REFERENCES, len(candidates))
    named = read_names(references) if isinstance(references, str) else references
    return similarity.bind(data.items, choose_references(data.items, candidates, named, seed))


def fitting_encoder(encoder: Encoder | None, data: ImageDataModule) -> Encoder:
    """Give an encoder for the images of a source: the user's own after a check, or a fast plain chain.

    Raises:
        InputError: if the user's encoder is for images of another size.
    """
    channels, height, width = data.size
    if encoder is None:
        return PlainCNN(size=(height, width), channels=channels)
    _check_sizes(encoder, channels, height, width)
    _check_runs(encoder, data)
    return encoder


def _check_sizes(encoder: Encoder, channels: int, height: int, width: int) -> None:
    for option, own in (("channels", channels), ("size", (height, width)), ("inputs", channels * height * width)):
        wanted = encoder.options.get(option, own)
        if tuple(np.broadcast_to(wanted, np.shape(own)).flat) != tuple(np.asarray(own).flat):
            given = height if option == "size" and height == width else own
            raise InputError(
                f"Expected an encoder for images of {height}×{width} pixels in {channels} channels, got "
                f"{type(encoder).__name__} with {option} {wanted}: add --encoder.{option} {given}"
            )


def _check_runs(encoder: Encoder, data: ImageDataModule) -> None:
    """Embed one image, as a network may take some sizes only."""
    encoder.eval()
    try:
        with torch.no_grad():
            encoder(data.normalised(np.arange(1)))
    except Exception as error:  # networks raise many kinds
        reason = " ".join(str(error).split())[:200]
        sizes = "channels, height and width = {}, {}, {}".format(*data.size)
        raise InputError(
            f"Expected an encoder that takes images of {sizes}, but {type(encoder).__name__} fails: {reason}"
        ) from error
    finally:
        encoder.train()


def check_held_out(data: ImageDataModule, *splits: str) -> None:
    """Make sure that there are items to validate and test on.

    Raises:
        InputError: naming the split that is empty, or in which no item has a label.
    """
    for name in splits:
        if len(data.subset(name)):
            continue
        if len(data.split(name)):
            last = ", or train to the end without them, by --choose last" if name == "validation" else ""
            raise InputError(
                f"Expected labels of items held out for {name}, got none of {len(data.split(name))}: label some{last}"
            )
        raise InputError(
            f"Expected items held out for {name}, got none: set data.validation above 0, "
            "or put some into the table's or the folder's splits"
        )


def check_targets(targets: Mapping[str, TargetSimilarity], loss: str) -> None:
    """Make sure that the references' own similarities suit the loss.

    Raises:
        InputError: for similarities outside [0, 1] and ``bce``, naming the head.
    """
    for name, target in targets.items() if loss == "bce" else ():
        try:
            for rows in target.gram_chunks():
                refuse_outside_unit_interval(rows)
        except InputError as error:
            raise InputError(f"Head {name!r}: {error}") from error


def build_model(
    data: ImageDataModule,
    encoder: Encoder,
    targets: Mapping[str, TargetSimilarity],
    head_start: HeadStart,
    head_frozen: bool,
) -> SimilarityModel:
    """Put heads behind an encoder; the model knows how its images are normalised and what its references are called."""
    heads = {
        name: SimilarityHead(encoder.embedding_dim, len(target), _start(target, encoder, head_start), head_frozen)
        for name, target in targets.items()
    }
    return SimilarityModel(encoder, heads, about(data, targets))


def _start(target: TargetSimilarity, encoder: Encoder, head_start: str) -> Tensor | None:
    if head_start == "linear":
        return nn.Linear(encoder.embedding_dim, len(target), bias=False).weight.detach()
    try:
        return head_weight(target.gram(), encoder.embedding_dim) if head_start == "eigen" else None
    except ValueError as error:
        raise InputError(f"Expected similarities of the references that head_start eigen can use. {error}") from error


def about(data: ImageDataModule, targets: Mapping[str, TargetSimilarity]) -> dict[str, object]:
    """Say as JSON values what the images of a model are, and what its references are called."""
    names = {name: data.items.names[target.references.numpy()].tolist() for name, target in targets.items()}
    normalisation = {"mean": list(data.normalisation.mean), "std": list(data.normalisation.std)}
    return {"image": list(data.size), "normalisation": normalisation, "references": names}


def check_images(model: Any, data: ImageDataModule) -> None:
    """Make sure that a model, which says so in ``about``, can take a source's images.

    Raises:
        InputError: if they have another size or number of channels.
    """
    expected = model.about.get("image")
    if expected and list(expected) != list(data.size):
        raise InputError(
            f"Expected images of shape (channel height width) = {tuple(expected)}, as the model was pretrained on, "
            f"got {tuple(data.size)}"
        )


def targets_of(
    model: SimilarityModel, options: Any, data: ImageDataModule, names: Iterable[str] | None = None
) -> dict[str, TargetSimilarity]:
    """Bind the similarities of a pretraining run to the references of its model.

    Args:
        model: The model of the run.
        options: Those of the run.
        data: The source of the items, which may be another one.
        names: Which heads; default: all.

    Raises:
        InputError: if there is no such head, naming the nearest, or a reference is not among the items.
    """
    similarities = options.similarities or options.data.similarities()
    names = list(model.heads if names is None else names)
    for name in names:
        model.head(name)  # names the nearest head if there is none
    return {name: similarities[name].bind(data.items, reference_index(model, name, data)) for name in names}


def reference_index(model: SimilarityModel, head: str, data: ImageDataModule) -> NDArray[np.int64]:
    """Find a head's references among the items of a source, shape ``(reference,)``."""
    return data.items.positions(model.about["references"][head])
