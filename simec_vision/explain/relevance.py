"""Why is an image similar to a reference, or to another image: the score distributed over its pixels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from simec_vision.explain.agreement import check_close, tolerance
from simec_vision.explain.canonize import canonize, check_plain
from simec_vision.explain.evaluating import evaluating
from simec_vision.explain.images import check_images, like_weights
from simec_vision.explain.refusal import refusal
from simec_vision.items import InputError

if TYPE_CHECKING:
    from simec_vision.explain.presets import Preset
    from simec_vision.model import SimilarityModel

CHUNK = 64
"""Images that are explained at once."""
COMPARED = 4
"""Images on which the twin's embedding must agree with the encoder's; the score must agree on all."""


@dataclass(frozen=True)
class Explanation:
    """A score and its distribution over the pixels.

    Args:
        relevance: Shape ``(batch, channel, height, width)``, in units of the score; positive where a pixel makes the
            images more similar, negative where less.
        score: What is explained, shape ``(batch,)``.
        delta: (relevance sum − score) / score, shape ``(batch,)``: what biases and ε took. 0 = nothing is lost, −0.3 =
            30 % of the score are not in the relevance, 0.3 = the relevance has 30 % more; not finite where the score
            is 0.
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
        CannotExplain: if the encoder does something that has no rule, or the model predicts something else.
    """
    weight = model.head(head).weight
    with _undisturbed(model):
        index = _reference_index(reference, len(images), weight.shape[0], head).to(weight.device)
        twin = _twin(model.encoder, images)
        question = _Question(
            images, weight.detach()[index], lambda rows: _predicted(model, images[rows], head, index[rows])
        )
        return _explain_readout(model, twin, question, preset, chunk)


def _predicted(model: "SimilarityModel", images: Tensor, head: str, reference: Tensor) -> Tensor:
    return model(like_weights(images, model))[head].gather(1, reference[:, None]).squeeze(1)


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
        CannotExplain: if the encoder does something that has no rule, or the model embeds differently.
    """
    if len(images) != len(others):
        raise InputError(f"Expected as many others as images ({len(images)}), got {len(others)}")
    with _undisturbed(model):
        twin = _twin(model.encoder, images)
        check_images(model.encoder, others, "others")
        readouts = torch.cat([twin(like_weights(part, twin)) for part in others.split(_whole(chunk))])
        question = _Question(images, readouts, lambda rows: _pair_score(model, images[rows], others[rows]))
        return _explain_readout(model, twin, question, preset, chunk)


def _pair_score(model: "SimilarityModel", images: Tensor, others: Tensor) -> Tensor:
    return (model.embed(like_weights(images, model)) * model.embed(like_weights(others, model))).sum(dim=1)


@dataclass(frozen=True)
class _Question:
    """What is explained.

    Args:
        images: Shape ``(batch, channel, height, width)``.
        readouts: score_i = embedding_i · readout_i, shape ``(batch, embedding)``.
        told: Gives the score of some rows as the model itself computes it.
    """

    images: Tensor
    readouts: Tensor
    told: Callable[[slice], Tensor]


class Readout(nn.Linear):
    """One linear output per image, each image with its own weight: output_i = Σ_d embedding_id · weight_id.

    Args:
        weight: Shape ``(batch, embedding)``.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[-1], 1, bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map embeddings ``(batch, embedding)`` to scores ``(batch, 1)``."""
        if input.ndim != 2 or input.shape != self.weight.shape:
            shapes = f"{(len(input), *self.weight.shape[1:2])}, got {tuple(input.shape)}"
            raise InputError(f"Expected the encoder to give embeddings of shape (batch, embedding) = {shapes}")
        return (input * self.weight).sum(dim=1, keepdim=True)


def _explain_readout(
    model: nn.Module, twin: nn.Sequential, question: _Question, preset: "str | Preset", chunk: int
) -> Explanation:
    """Explain score_i = embedding_i · readout_i, any linear readout of the embedding, shape ``(batch, embedding)``."""
    starts = range(0, len(question.images), _whole(chunk))
    parts = [_explain_rows(model, twin, question, slice(start, start + chunk), preset) for start in starts]
    relevance, score = (torch.cat(each) for each in zip(*parts, strict=True))
    return Explanation(relevance, score, (relevance.sum(dim=(1, 2, 3)) - score) / score)


def _explain_rows(
    model: nn.Module, twin: nn.Sequential, question: _Question, rows: slice, preset: "str | Preset"
) -> tuple[Tensor, Tensor]:
    from simec_vision.explain.engine import propagate  # Captum takes long to import

    images, readout = (like_weights(values[rows], twin) for values in (question.images, question.readouts))
    embedding = twin(images)
    score = Readout(readout)(embedding).squeeze(1)
    check_close(score, question.told(rows), (embedding * readout).abs().sum(dim=1), tolerance(model))
    return propagate(nn.Sequential(*twin, Readout(readout)), images, preset), score


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation, and shut out the caller's inference mode, gradients and mixed precision."""
    check_plain(model)
    device = next(model.parameters()).device
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False), evaluating(model):
        yield


def _twin(encoder: nn.Module, images: Tensor) -> nn.Sequential:
    twin = canonize(encoder, images[:COMPARED])
    if next(twin.parameters(), None) is None:
        raise refusal("", "an encoder without weights")
    return twin


def _whole(chunk: int) -> int:
    if chunk < 1:
        raise InputError(f"Expected chunk as a number of images, 1 or more, got {chunk}")
    return chunk


def _reference_index(reference: int | Tensor, count: int, references: int, head: str) -> Tensor:
    index = reference if isinstance(reference, Tensor) else _as_index(reference)
    index = index.expand(count) if index.ndim == 0 else index
    whole = not (index.is_floating_point() or index.is_complex() or index.dtype is torch.bool)
    if tuple(index.shape) != (count,) or not whole:
        got = f"got {tuple(index.shape)} of {index.dtype}"
        raise InputError(f"Expected reference as one index, or of shape (batch) = ({count}), {got}")
    if count and not 0 <= int(index.min()) <= int(index.max()) < references:
        wrong = index[(index < 0) | (index >= references)][0]
        raise InputError(f"Expected reference between 0 and {references - 1}, head {head!r} has no {int(wrong)}")
    return index.long()


def _as_index(reference: object) -> Tensor:
    try:
        return torch.as_tensor(reference)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Expected reference as one index or a tensor with one per image, got {reference!r}"
        ) from error
