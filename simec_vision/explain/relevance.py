"""Why is an image similar to a reference, or to another image: the score distributed over its pixels."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from simec_vision.explain.answering import CHUNK, Explanation, Question, answer, embedded, in_evaluation
from simec_vision.explain.images import check_images, like_weights
from simec_vision.items import InputError, nearest

if TYPE_CHECKING:
    from simec_vision.explain.presets import Preset
    from simec_vision.finetuning import Classifier
    from simec_vision.model import SimilarityModel


def explain(
    model: "SimilarityModel",
    images: Tensor,
    head: str,
    reference: int | Tensor,
    preset: "str | Preset" = "a_flat",
    chunk: int = CHUNK,
    largest_delta: float | None = None,
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
        largest_delta: Warn where ∣delta∣ is larger, naming the layers that lost most; default: 0.1 for presets that
            conserve relevance, never for others.

    Returns:
        Relevance, score, delta and baseline, without gradients, on the model's device.

    Raises:
        InputError: if there is no such head, reference or preset, or the images have another shape.
        CannotExplain: if the encoder does something that has no rule, or the model predicts something else.
    """
    weight = model.head(head).weight
    with in_evaluation(model):
        index = _index(reference, len(images), weight.shape[0], f"head {head!r}").to(weight.device)
        question = Question(
            images,
            lambda rows, _: weight.detach()[index[rows]],
            lambda rows: _predicted(model, images, head, index, rows),
        )
        return answer(model, question, preset, chunk, largest_delta)


def explain_difference(
    model: "SimilarityModel",
    images: Tensor,
    head: str,
    reference: int | Tensor,
    other_reference: int | Tensor,
    preset: "str | Preset" = "a_flat",
    chunk: int = CHUNK,
    largest_delta: float | None = None,
) -> Explanation:
    """Explain why images are more similar to one reference than to another one: A rather than B.

    The score is the difference of the two predicted similarities, embedding · (weight of A − weight of B).

    Args:
        model: A model with an encoder that :func:`~simec_vision.explain.canonize` understands.
        images: Normalised images, shape ``(batch, channel, height, width)``.
        head: Which similarity.
        reference: Index of A in the head, the same for all images, or one per image, shape ``(batch,)``.
        other_reference: Index of B, likewise.
        preset: Which rule for which layer: a name, or rows of your own (:mod:`simec_vision.explain.presets`).
        chunk: How many images are explained at once; only memory and speed depend on it.
        largest_delta: As in :func:`explain`.

    Returns:
        Relevance, score, delta and baseline, without gradients, on the model's device; positive where a pixel speaks
        for A.

    Raises:
        InputError: if there is no such head, reference or preset, or the images have another shape.
        CannotExplain: if the encoder does something that has no rule, or the model predicts something else.
    """
    weight = model.head(head).weight
    with in_evaluation(model):
        a, b = (
            _index(each, len(images), weight.shape[0], f"head {head!r}").to(weight.device)
            for each in (reference, other_reference)
        )
        question = Question(
            images,
            lambda rows, _: weight.detach()[a[rows]] - weight.detach()[b[rows]],
            lambda rows: _predicted(model, images, head, a, rows) - _predicted(model, images, head, b, rows),
        )
        return answer(model, question, preset, chunk, largest_delta)


def _predicted(model: "SimilarityModel", images: Tensor, head: str, reference: Tensor, rows: slice) -> Tensor:
    return model(like_weights(images[rows], model))[head].gather(1, reference[rows, None]).squeeze(1)


def explain_pair(
    model: "SimilarityModel",
    images: Tensor,
    others: Tensor,
    preset: "str | Preset" = "a_flat",
    chunk: int = CHUNK,
    similarity: Literal["dot", "cosine"] = "dot",
    largest_delta: float | None = None,
) -> Explanation:
    """Explain why each image is similar to the other one of its pair: score = embed(image) · embed(other).

    The other embedding counts as constant, as if it were a row of a head; swap the images to see the other side. With
    ``similarity="cosine"`` the score is embed(image) · embed(other) / (∥embed(image)∥ ∥embed(other)∥), and both norms
    count as constant, too: what is explained is the angle's numerator, in units of the cosine.

    Args:
        model: A model with an encoder that :func:`~simec_vision.explain.canonize` understands.
        images: Normalised images that get the relevance, shape ``(batch, channel, height, width)``.
        others: The other image of every pair, same shape.
        preset: Which rule for which layer: a name, or rows of your own (:mod:`simec_vision.explain.presets`).
        chunk: How many images are explained at once; only memory and speed depend on it.
        similarity: ``dot`` or ``cosine``.
        largest_delta: As in :func:`explain`.

    Returns:
        Relevance, score, delta and baseline, without gradients, on the model's device.

    Raises:
        InputError: if there is no such preset or similarity, or the images have another shape.
        CannotExplain: if the encoder does something that has no rule, or the model embeds differently.
    """
    if len(images) != len(others):
        raise InputError(f"Expected as many others as images ({len(images)}), got {len(others)}")
    if similarity not in SIMILARITIES:
        raise InputError(f"Expected a similarity, got {similarity!r}: {nearest(similarity, list(SIMILARITIES))}")
    readout, score = SIMILARITIES[similarity]
    with in_evaluation(model):
        check_images(model.encoder, others, "others")
        question = Question(
            images,
            lambda rows, twin: readout(*embedded(twin, images[rows], others[rows])),
            lambda rows: score(*(model.embed(like_weights(each[rows], model)) for each in (images, others))),
        )
        return answer(model, question, preset, chunk, largest_delta)


def _cosine_readout(embedding: Tensor, other: Tensor) -> Tensor:
    return F.normalize(other) / embedding.norm(dim=1, keepdim=True).clamp(min=1e-12)


SIMILARITIES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "dot": (lambda embedding, other: other, lambda embedding, other: (embedding * other).sum(dim=1)),
    "cosine": (_cosine_readout, lambda embedding, other: F.cosine_similarity(embedding, other)),
}
"""Of two images' embeddings ``(batch, embedding)``: what reads out the first one, and the score itself."""


def explain_class(
    classifier: "Classifier",
    images: Tensor,
    label: int | str | Tensor,
    preset: "str | Preset" = "a_flat",
    chunk: int = CHUNK,
    largest_delta: float | None = None,
) -> Explanation:
    """Explain the score of a class, which a classifier gives to images.

    The score is the class score without the class's bias, which is the same for every image.

    Args:
        classifier: A classifier with an encoder that :func:`~simec_vision.explain.canonize` understands.
        images: Normalised images, shape ``(batch, channel, height, width)``.
        label: Name or index of the class, the same for all images, or one index per image, shape ``(batch,)``.
        preset: Which rule for which layer: a name, or rows of your own (:mod:`simec_vision.explain.presets`).
        chunk: How many images are explained at once; only memory and speed depend on it.
        largest_delta: As in :func:`explain`.

    Returns:
        Relevance, score, delta and baseline, without gradients, on the classifier's device.

    Raises:
        InputError: if there is no such class or preset, or the images have another shape.
        CannotExplain: if the encoder does something that has no rule, or the classifier gives other scores.
    """
    weight, bias = classifier.linear.weight.detach() * classifier.scale, classifier.linear.bias.detach()
    with in_evaluation(classifier):
        given = _class_index(label, classifier.classes) if isinstance(label, str) else label
        index = _index(given, len(images), len(classifier.classes), "the classifier", "label").to(weight.device)

        def told(rows: slice) -> Tensor:
            scores = classifier(like_weights(images[rows], classifier)) - bias
            return scores.gather(1, index[rows, None]).squeeze(1)

        return answer(
            classifier, Question(images, lambda rows, _: weight[index[rows]], told), preset, chunk, largest_delta
        )


def _class_index(label: str, classes: list[str]) -> int:
    if label not in classes:
        raise InputError(f"Expected the name of a class, got {label!r}: {nearest(label, classes)}")
    return classes.index(label)


def _index(given: int | Tensor, count: int, number: int, owner: str, argument: str = "reference") -> Tensor:
    index = given if isinstance(given, Tensor) else _as_index(given, argument)
    index = index.expand(count) if index.ndim == 0 else index
    whole = not (index.is_floating_point() or index.is_complex() or index.dtype is torch.bool)
    if tuple(index.shape) != (count,) or not whole:
        got = f"got {tuple(index.shape)} of {index.dtype}"
        raise InputError(f"Expected {argument} as one index, or of shape (batch) = ({count}), {got}")
    if count and not 0 <= int(index.min()) <= int(index.max()) < number:
        wrong = index[(index < 0) | (index >= number)][0]
        raise InputError(f"Expected {argument} between 0 and {number - 1}, {owner} has no {int(wrong)}")
    return index.long()


def _as_index(given: object, argument: str) -> Tensor:
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"Expected {argument} as one index or a tensor with one per image, got {given!r}") from error
