"""Why is an image similar to a reference, or to another image: the score distributed over its pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from simec_vision.explain.canonize import canonize, check_same
from simec_vision.explain.refusal import refusal
from simec_vision.items import InputError

if TYPE_CHECKING:
    from simec_vision.explain.presets import Preset
    from simec_vision.model import SimilarityModel

CHUNK = 64
"""Images that are explained at once."""
COMPARED = 4
"""Images on which the twin must agree with the encoder."""


@dataclass(frozen=True)
class Explanation:
    """A score and its distribution over the pixels.

    Args:
        relevance: Shape ``(batch, channel, height, width)``, in units of the score; positive where a pixel makes the
            images more similar, negative where less.
        score: What is explained, shape ``(batch,)``.
        delta: (relevance sum − score) / ∣score∣, shape ``(batch,)``: what biases and ε took. 0 = nothing is lost, −0.3
            of a positive score = 30 % of it are not in the relevance; not finite where the score is 0.
    """

    relevance: Tensor
    score: Tensor
    delta: Tensor


def explain(
    model: "SimilarityModel",
    images: Tensor,
    head: str,
    reference: int | Tensor,
    preset: "str | Preset" = "a_flat",
    chunk: int = CHUNK,
) -> Explanation:
    """Explain why images are predicted to be similar to references, by LRP (Bach et al. 2015; Captum).

    The score is embedding · head weight of the reference. The model is left as it is, whatever its mode; what is
    explained is its evaluation mode, in full precision.

    Args:
        model: A model with an encoder that :func:`~simec_vision.explain.canonize` understands.
        images: Normalised images, shape ``(batch, channel, height, width)``.
        head: Which similarity.
        reference: Index of the reference in the head, the same for all images, or one per image, shape ``(batch,)``.
        preset: Which rule for which layer: a name, or rows of your own (:mod:`simec_vision.explain.presets`).
        chunk: How many images are explained at once; only memory and speed depend on it.

    Returns:
        Relevance, score and delta, without gradients, on the model's device.

    Raises:
        InputError: if there is no such head, reference or preset, or the images have another shape.
        CannotExplain: if the encoder does something that has no rule.
    """
    weight = model.head(head).weight
    with _undisturbed(weight.device):
        index = _reference_index(reference, len(images), weight.shape[0], head).to(weight.device)
        twin = _twin(model.encoder, images)
        return _explain_readout(twin, images, weight.detach()[index], preset, chunk)


def explain_pair(
    model: "SimilarityModel",
    images: Tensor,
    others: Tensor,
    preset: "str | Preset" = "a_flat",
    chunk: int = CHUNK,
) -> Explanation:
    """Explain why each image is similar to the other one of its pair: score = embed(image) · embed(other).

    The other embedding counts as constant, as if it were a row of a head; swap the images to see the other side.

    Args:
        model: A model with an encoder that :func:`~simec_vision.explain.canonize` understands.
        images: Normalised images that get the relevance, shape ``(batch, channel, height, width)``.
        others: The other image of every pair, same shape.
        preset: Which rule for which layer: a name, or rows of your own (:mod:`simec_vision.explain.presets`).
        chunk: How many images are explained at once; only memory and speed depend on it.

    Returns:
        Relevance, score and delta, without gradients, on the model's device.

    Raises:
        InputError: if there is no such preset, or the images have another shape.
        CannotExplain: if the encoder does something that has no rule.
    """
    if len(images) != len(others):
        raise InputError(f"Expected as many others as images ({len(images)}), got {len(others)}")
    with _undisturbed(next(model.parameters()).device):
        twin = _twin(model.encoder, images)
        _check_images(twin, others, "others")
        readouts = torch.cat([twin(_like_weights(part, twin)) for part in others.split(chunk)])
        return _explain_readout(twin, images, readouts, preset, chunk)


class Readout(nn.Linear):
    """One linear output per image, each image with its own weight: output_i = Σ_d embedding_id · weight_id.

    Args:
        weight: Shape ``(batch, embedding)``.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[1], 1, bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map embeddings ``(batch, embedding)`` to scores ``(batch, 1)``."""
        if input.shape != self.weight.shape:
            shapes = f"{tuple(self.weight.shape)}, got {tuple(input.shape)}"
            raise InputError(f"Expected the encoder to give embeddings of shape (batch, embedding) = {shapes}")
        return (input * self.weight).sum(dim=1, keepdim=True)


def _explain_readout(
    twin: nn.Sequential, images: Tensor, readouts: Tensor, preset: "str | Preset", chunk: int
) -> Explanation:
    """Explain score_i = embedding_i · readout_i, any linear readout of the embedding, shape ``(batch, embedding)``."""
    parts = [
        _explain_chunk(twin, _like_weights(some, twin), _like_weights(readout, twin), preset)
        for some, readout in zip(images.split(chunk), readouts.split(chunk), strict=True)
    ]
    relevance, score = (torch.cat(each) for each in zip(*parts, strict=True))
    return Explanation(relevance, score, (relevance.sum(dim=(1, 2, 3)) - score) / score.abs())


def _explain_chunk(
    twin: nn.Sequential, images: Tensor, readouts: Tensor, preset: "str | Preset"
) -> tuple[Tensor, Tensor]:
    from simec_vision.explain.engine import propagate  # Captum takes long to import

    chain = nn.Sequential(*twin, Readout(readouts))
    return propagate(chain, images, preset), chain(images).squeeze(1)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Shut out the caller's inference mode, gradients and mixed precision."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _like_weights(values: Tensor, twin: nn.Module) -> Tensor:
    """Copy values to the type and device of the twin's weights, as an ordinary tensor."""
    weight = next(twin.parameters())
    return values.detach().clone().to(weight.device, weight.dtype)


def _twin(encoder: nn.Module, images: Tensor) -> nn.Sequential:
    twin = canonize(encoder)
    if next(twin.parameters(), None) is None:
        raise refusal("", "an encoder without weights")
    _check_images(twin, images, "images")
    check_same(encoder, twin, images[:COMPARED])
    return twin


def _check_images(twin: nn.Sequential, images: Tensor, argument: str) -> None:
    first = next((layer for layer in twin if isinstance(layer, nn.Conv2d)), None)
    channels = images.shape[1:2] if first is None else (first.in_channels,)
    shape = ", ".join(["batch", *map(str, channels), "height", "width"])
    expected = f"Expected normalised {argument} of shape (batch, channel, height, width) = ({shape})"
    if images.ndim != 4 or tuple(images.shape[1:2]) != tuple(channels) or len(images) == 0:
        raise InputError(f"{expected}, got {tuple(images.shape)}")
    if not images.is_floating_point() or not images.isfinite().all():
        raise InputError(f"{expected} as finite floating-point numbers, got {images.dtype}")
    try:
        twin(_like_weights(images[:1], twin))
    except RuntimeError as error:
        raise InputError(f"{expected} as the encoder takes them, got {tuple(images.shape)}: {error}") from error


def _reference_index(reference: int | Tensor, count: int, references: int, head: str) -> Tensor:
    index = torch.as_tensor(reference)
    index = index.expand(count) if index.ndim == 0 else index
    whole = not (index.is_floating_point() or index.is_complex() or index.dtype is torch.bool)
    if tuple(index.shape) != (count,) or not whole:
        got = f"got {tuple(index.shape)} of {index.dtype}"
        raise InputError(f"Expected reference as one index, or of shape (batch) = ({count}), {got}")
    if count and not 0 <= int(index.min()) <= int(index.max()) < references:
        wrong = index[(index < 0) | (index >= references)][0]
        raise InputError(f"Expected reference between 0 and {references - 1}, head {head!r} has no {int(wrong)}")
    return index.long()
