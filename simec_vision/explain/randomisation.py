"""Does a heatmap depend on what was learned? Layer by layer, weights become random (Adebayo et al. 2018)."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from simec_vision.explain.evaluation import rank_correlation

if TYPE_CHECKING:
    from simec_vision.explain.methods import Method
    from simec_vision.model import SimilarityModel


def randomisation_curve(
    method: "Method", model: "SimilarityModel", images: Tensor, head: str, reference: Tensor, seed: int = 0
) -> dict[str, float]:
    """Compare the heatmaps of a model with those of copies whose layers are random, from the head down to the pixels.

    Args:
        method: What gives a heatmap.
        model: The model; it is left as it is.
        images: Normalised images, shape ``(batch, channel, height, width)``.
        head: Which similarity.
        reference: Index of each image's reference, shape ``(batch,)``.
        seed: Seed of the random weights.

    Returns:
        Place of the layer up to which all is random → mean rank correlation with the model's own heatmaps. Heatmaps
        that explain the model lose it; those that stay alike show the image instead.
    """
    own = method(model, images, head, reference)
    return {
        place: float(rank_correlation(own, method(other, images, head, reference)).nanmean())
        for place, other in randomised_models(model, head, seed)
    }


def randomised_models(model: "SimilarityModel", head: str, seed: int = 0) -> Iterator[tuple[str, "SimilarityModel"]]:
    """Yield a copy of a model in which the head is random, then one more layer below at a time, till all is random.

    Every parameter is drawn anew from a normal distribution of its own mean and standard deviation, so that maps keep
    their scale.

    Args:
        model: The model; it is left as it is.
        head: The head with which to begin.
        seed: Seed of the weights.

    Yields:
        Place of the layer that became random, and the copy, which is changed further when the next one is asked for.
    """
    other, generator = copy.deepcopy(model).eval(), torch.Generator().manual_seed(seed)
    for place, layer in _from_the_top(other, head):
        for parameter in layer.parameters(recurse=False):
            _randomise(parameter, generator)
        yield place, other


def _from_the_top(model: "SimilarityModel", head: str) -> list[tuple[str, nn.Module]]:
    """List the head and, last first, the encoder's layers that have parameters of their own."""
    layers = [
        (f"encoder.{place}".rstrip("."), layer)
        for place, layer in model.encoder.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    return [(f"heads.{head}", model.head(head)), *reversed(layers)]


def _randomise(parameter: nn.Parameter, generator: torch.Generator) -> None:
    with torch.no_grad():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        spread = parameter.double().std() if parameter.numel() > 1 else parameter.double().abs().sum()
        parameter.copy_(parameter.double().mean() + noise.to(parameter.device) * spread)
