"""How any question about a score is answered: twin, chunks, the check against the model itself, delta."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from simec_vision.explain.agreement import check_close, tolerance
from simec_vision.explain.canonize import canonize
from simec_vision.explain.evaluating import evaluating
from simec_vision.explain.images import like_weights
from simec_vision.explain.readout import Readout, check_embedding
from simec_vision.explain.refusal import CannotExplain, refusal
from simec_vision.explain.tracing import check_plain
from simec_vision.items import InputError

if TYPE_CHECKING:
    from simec_vision.explain.presets import Preset

CHUNK = 64
"""Images that are explained at once."""
COMPARED = 4
"""Images on which the twin's embedding must agree with the encoder's; the score must agree on all."""
LARGEST_DELTA = 0.1
"""∣delta∣ above which presets that conserve relevance warn."""


class LostRelevanceWarning(UserWarning):
    """An explanation's relevance does not add up to the score."""


NO_BASELINE = torch.zeros(())


@dataclass(frozen=True)
class Explanation:
    """A score and its distribution over the pixels.

    Args:
        relevance: Shape ``(batch, channel, height, width)``, in units of the score; positive where a pixel makes the
            images more similar, negative where less.
        score: What is explained, shape ``(batch,)``.
        delta: (relevance sum + baseline − score) / score, shape ``(batch,)``: what biases and ε took. 0 = nothing is
            lost, −0.3 = 30 % of the score are not in the relevance, 0.3 = the relevance has 30 % more; not finite
            where the score is 0.
        baseline: Score of the baseline that relevance is measured from (:mod:`simec_vision.explain.baseline`), shape
            ``(batch,)``; 0 for presets without one.
    """

    relevance: Tensor
    score: Tensor
    delta: Tensor
    baseline: Tensor = NO_BASELINE


PARTS = tuple(field.name for field in fields(Explanation))


@dataclass(frozen=True)
class Question:
    """What is explained.

    Args:
        images: Shape ``(batch, channel, height, width)``.
        readout: Gives for some rows, and the encoder's twin, the weights of score_i = embedding_i · weight_i, shape
            ``(rows, embedding)``.
        told: Gives the score of some rows as the model itself computes it, shape ``(rows,)``.
    """

    images: Tensor
    readout: Callable[[slice, fx.GraphModule], Tensor]
    told: Callable[[slice], Tensor]


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation, and shut out the caller's inference mode, gradients and mixed precision."""
    check_plain(model)
    device = next(model.parameters()).device
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False), evaluating(model):
        yield


def embedded(twin: fx.GraphModule, *images: Tensor) -> tuple[Tensor, ...]:
    """Embed images by the twin; every result has shape ``(batch, embedding)``.

    Raises:
        InputError: if the embedding is no vector.
    """
    embeddings = tuple(twin(like_weights(each, twin)) for each in images)
    for each in embeddings:
        check_embedding(each, each)
    return embeddings


def answer(
    model: Any, question: Question, preset: "str | Preset", chunk: int, largest_delta: float | None
) -> Explanation:
    """Answer a question about a model with an ``encoder``, chunk by chunk.

    Raises:
        InputError: if something about the question is wrong.
        CannotExplain: if the model does something that has no rule, or gives another score than its layers, or the
            rules explode.
    """
    if chunk < 1:
        raise InputError(f"Expected chunk as a number of images, 1 or more, got {chunk}")
    twin = twin_of(model.encoder, question.images)
    limit = _limit(preset, largest_delta)
    rules = with_bounds(preset, model, question.images)
    starts = range(0, len(question.images), chunk)
    parts = [_answer_rows(model, twin, question, slice(start, start + chunk), rules, limit) for start in starts]
    return Explanation(*(torch.cat([getattr(part, name) for part in parts]) for name in PARTS))


def _answer_rows(
    model: nn.Module, twin: fx.GraphModule, question: Question, rows: slice, preset: "Preset", limit: float
) -> Explanation:
    from simec_vision.explain.engine import propagate_score  # Captum takes long to import

    readout = Readout(like_weights(question.readout(rows, twin), twin))
    images = like_weights(question.images[rows], twin)
    told = propagate_score(twin, images, readout, preset, watched=limit < torch.inf)
    check_close(told.score, question.told(rows), told.scale, tolerance(model))
    if not told.relevance.isfinite().all():
        raise CannotExplain(
            "Cannot explain the network by this preset: relevance became NaN or infinite, as ε- and γ-rules that "
            'ignore biases do in deep networks. Keep the biases, share them (bias="share"), or use another preset'
        )
    delta = (told.relevance.sum(dim=(1, 2, 3)) + told.baseline - told.score) / told.score
    _warn(delta, told.lost, limit)
    return Explanation(told.relevance, told.score, delta, told.baseline)


def twin_of(encoder: nn.Module, images: Tensor) -> fx.GraphModule:
    """Give an encoder's twin, compared with it on the first images."""
    twin = canonize(encoder, images[:COMPARED])
    if next(twin.parameters(), None) is None:
        raise refusal("", "an encoder without weights")
    return twin


def with_bounds(preset: "str | Preset", model: Any, images: Tensor) -> "Preset":
    """Fill in the bounds of the pixels, which the zᴮ-rule needs."""
    from simec_vision.explain.presets import bounded

    return bounded(preset, *pixel_bounds(getattr(model, "about", {}), images))


def pixel_bounds(about: Mapping[str, Any], images: Tensor) -> tuple[Tensor, Tensor]:
    """Give the lowest and highest value that a normalised pixel can have, each of shape ``(channel,)``.

    Args:
        about: What a model knows about itself; ``normalisation`` with ``mean`` and ``std`` says how pixels between 0
            and 1 were normalised. Without it the bounds are the lowest and highest value of these images.
        images: Normalised images, shape ``(batch, channel, height, width)``.
    """
    normalisation = about.get("normalisation")
    if not normalisation:
        return images.amin(dim=(0, 2, 3)), images.amax(dim=(0, 2, 3))
    mean, std = (torch.as_tensor(normalisation[name]).to(images) for name in ("mean", "std"))
    return -mean / std, (1 - mean) / std


def _limit(preset: "str | Preset", largest_delta: float | None) -> float:
    from simec_vision.explain.presets import CONSERVING

    if largest_delta is not None:
        return largest_delta
    return LARGEST_DELTA if isinstance(preset, str) and preset in CONSERVING else torch.inf


def _warn(delta: Tensor, lost: Mapping[str, Tensor], limit: float) -> None:
    size = delta.abs().nan_to_num(0, 0, 0)
    if not (size > limit).any():
        return
    worst = int(size.argmax())
    places = sorted(lost, key=lambda place: -abs(float(lost[place][worst])))[:3]
    layers = ", ".join(f"{place} ({float(lost[place][worst]):+.2g})" for place in places)
    count = int((size > limit).sum())
    warnings.warn(
        f"In {count} of {len(delta)} explanations the relevance differs from the score by more than {limit:g} of it "
        f"(delta {float(delta[worst]):+.2g} at worst). Most was changed by {layers}",
        LostRelevanceWarning,
        stacklevel=5,
    )
