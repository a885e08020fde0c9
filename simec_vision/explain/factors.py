"""Factors: one relevance map per embedding dimension, what BiLRP needs of an image (:mod:`simec_vision.explain.bilrp`).

For a given image, relevance propagation is linear in what it starts with: one forward pass serves all dimensions.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from simec_vision.explain.agreement import check_close, tolerance
from simec_vision.explain.answering import embedded, in_evaluation, twin_of, with_bounds
from simec_vision.explain.images import like_weights
from simec_vision.explain.twin import Placed, layers_of
from simec_vision.items import InputError

if TYPE_CHECKING:
    from simec_vision.explain.presets import Preset
    from simec_vision.explain.propagation import Rule
    from simec_vision.model import SimilarityModel

MAPS = 3 * 2**23
"""Bytes of the largest map on its way, which decide how many directions are propagated at once.

Not for want of memory: maps that fit the cache and that the allocator keeps for the next layer are twice as fast.
"""

FEATURES = 2**28
"""Bytes of what the last layer hands on to those before it, for as many directions as are computed at once."""


@dataclass(frozen=True)
class Factors:
    """What BiLRP needs of every image, computed once and good for all pairs: ``factors[[0, 0, 1]]`` picks images.

    Args:
        maps: Shape ``(image, direction, row, column)``: the image's score along a direction,
            (embedding − baseline) · direction, distributed over its cells.
        embedding: Shape ``(image, embedding)``.
        baseline: Embedding of the baseline that relevance is measured from, same shape; 0 for presets without one.
        directions: Orthonormal columns, shape ``(embedding, direction)``: the identity, unless projected.
        pool: Height and width of a cell in pixels; cells at the lower and right border may be smaller.
    """

    maps: Tensor
    embedding: Tensor
    baseline: Tensor
    directions: Tensor
    pool: int

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: "int | slice | list[int] | Tensor") -> "Factors":
        """Pick images, some of them repeatedly; one number gives one image."""
        index = [index] if isinstance(index, int) else index
        return Factors(self.maps[index], self.embedding[index], self.baseline[index], self.directions, self.pool)

    def projected(self) -> Tensor:
        """Project what differs from the baseline on the directions: ``(image, direction)``."""
        return self.changed() @ self.directions

    def changed(self) -> Tensor:
        """Subtract the baseline's embedding from that of the images: ``(image, embedding)``."""
        return self.embedding - self.baseline


def factors(
    model: "SimilarityModel",
    images: Tensor,
    preset: "str | Preset" = "a_flat",
    pool: int = 4,
    directions: Tensor | None = None,
    chunk: int | None = None,
) -> Factors:
    """Compute what BiLRP needs of images: for every direction the relevance of their cells.

    The relevance at the embedding is embedding ⊙ direction, undamped; without directions, one dimension each. From
    there it follows the preset and is summed over channels and cells. A preset that is measured from a baseline starts
    with what differs from the baseline's embedding. The arguments are those of BiLRP,
    :func:`~simec_vision.explain.bilrp`.
    """
    with in_evaluation(model):
        twin = twin_of(model.encoder, images)
        rules = with_bounds(preset, model, images)
        _check_sizes(pool, chunk, images)
        embedding = torch.cat([_embedded(model, twin, image) for image in images.split(1)])
        along = _directions(directions, embedding)
        parts = [
            _image_factors(twin, like_weights(image, twin), each, along, rules, pool, chunk)
            for image, each in zip(images.split(1), embedding, strict=True)
        ]
        maps, baseline = (torch.stack(each) for each in zip(*parts, strict=True))
        return Factors(maps, embedding, baseline, along, pool)


def leading_directions(rows: Tensor, count: int) -> Tensor:
    """Find the directions along which embeddings, or the rows of a head's weight, are longest.

    The leading right singular vectors; rows are not centred, as inner products are not.

    Args:
        rows: Shape ``(row, embedding)``.
        count: How many directions.

    Returns:
        Orthonormal columns, shape ``(embedding, direction)``.

    Raises:
        InputError: if there are fewer directions than that.
    """
    if rows.ndim != 2 or not 1 <= count <= min(rows.shape):
        raise InputError(
            f"Expected rows of shape (row, embedding) with at least {count} of both, and at least 1 direction, "
            f"got {tuple(rows.shape)}"
        )
    return torch.linalg.svd(rows.detach(), full_matrices=False).Vh[:count].T


def _embedded(model: "SimilarityModel", twin: fx.GraphModule, image: Tensor) -> Tensor:
    (embedding,) = embedded(twin, image)
    expected = model.embed(like_weights(image, model))
    check_close(embedding, expected, expected.abs().max(), tolerance(model))
    return embedding


def _check_sizes(pool: int, chunk: int | None, images: Tensor) -> None:
    height, width = images.shape[2:]
    if not isinstance(pool, int) or not 1 <= pool <= min(height, width):
        raise InputError(
            f"Expected pool, the pixels along a cell, between 1 and {min(height, width)} for images of "
            f"{height} × {width}, got {pool}"
        )
    if chunk is not None and chunk < 1:
        raise InputError(f"Expected chunk, the directions at once, to be at least 1, got {chunk}")


def _directions(directions: Tensor | None, embedding: Tensor) -> Tensor:
    """Give orthonormal columns ``(embedding, direction)`` of the embeddings' type and device."""
    dim = embedding.shape[1]
    if directions is None:
        return torch.eye(dim, dtype=embedding.dtype, device=embedding.device)
    if directions.ndim != 2 or directions.shape[0] != dim or not 1 <= directions.shape[1] <= dim:
        shape = f"(embedding, direction) = ({dim}, at most {dim})"
        raise InputError(
            f"Expected directions of shape {shape}, got {tuple(directions.shape)}: take leading_directions"
        )
    along = directions.detach().to(embedding)
    gap = float((along.T @ along - torch.eye(along.shape[1]).to(along)).abs().max())
    if not gap < 1e-3:
        raise InputError(
            f"Expected orthonormal directions, got columns whose products are off by {gap:.1g}: take leading_directions"
        )
    return along


def _image_factors(
    twin: fx.GraphModule, image: Tensor, embedding: Tensor, along: Tensor, preset: "Preset", pool: int,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Give the cells of every direction ``(direction, row, column)``, and the embedding of the baseline."""
    from simec_vision.explain.informed import informed  # Captum takes long to import

    layers = layers_of(twin)
    rules, base = informed(twin, layers, _formulas(layers, preset), image)
    baseline = torch.zeros_like(embedding) if base is None else base[0]
    start = (embedding - baseline) * along.T
    chunk = chunk or _directions_at_once(twin, image)
    maps = [_cells(relevance, pool) for relevance in _propagated(twin, image, start, chunk, layers, rules)]
    return torch.cat(maps), baseline


def _cells(relevance: Tensor, pool: int) -> Tensor:
    """Sum relevance ``(direction, channel, height, width)`` over channels and over cells of pool × pool pixels."""
    return F.avg_pool2d(relevance.sum(dim=1), pool, ceil_mode=True, divisor_override=1)


def _directions_at_once(twin: nn.Module, image: Tensor) -> int:
    """Count the directions whose relevance at the largest layer fits into :data:`MAPS`."""
    sizes = [image.numel()]
    with ExitStack() as hooks:
        for module in twin.modules():
            hook = module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
            hooks.callback(hook.remove)
        twin(image)
    return max(1, MAPS // (max(sizes) * image.element_size()))


def _propagated(
    twin: fx.GraphModule, image: Tensor, start: Tensor, chunk: int, layers: list[Placed], rules: "Sequence[Rule]"
) -> Iterator[Tensor]:
    """Propagate many relevances of one embedding back to the pixels of its image, through one forward pass.

    Rules only look at the image's own activations, and map relevance linearly. So what the last layer hands on is
    computed for many directions at once, which spares reading its weights, often most of a network's, for each chunk.

    Args:
        twin: What :func:`~simec_vision.explain.canonize` made.
        image: Shape ``(1, channel, height, width)``.
        start: Relevances at the embedding, shape ``(direction, embedding)``.
        chunk: How many of them go through the other layers at once.
        layers: The twin's layers.
        rules: One for each.

    Yields:
        For each chunk the relevance of the pixels, shape ``(direction, channel, height, width)``.
    """
    leaf, seen = image.detach().clone().requires_grad_(), list[Tensor]()
    with torch.enable_grad(), ExitStack() as hooks:
        for each, rule in zip(layers, rules, strict=True):
            hooks.callback(each.layer.register_forward_hook(rule.forward_hook).remove)
        last = layers[-1].layer
        hooks.callback(last.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs)).remove)
        embedding = twin(leaf)
    if len(seen) != 1 or not seen[0].requires_grad:  # a layer of several inputs, or that is called several times
        seen = [embedding]
    for block in start.split(max(chunk, FEATURES // (4 * seen[0].numel()))):
        before = block[:, None] if seen[0] is embedding else _handed_back(embedding, seen[0], block[:, None])
        for part in before.split(chunk):
            yield _handed_back(seen[0], leaf, part)[:, 0]


def _handed_back(output: Tensor, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Propagate relevances ``(direction, 1, …)`` of an output back to its inputs; ``(direction, 1, …)``, too."""
    return torch.autograd.grad(output, inputs, relevance, retain_graph=True, is_grads_batched=True)[0]


def _formulas(layers: list[Placed], preset: "Preset") -> "list[Rule]":
    """Choose a rule for every layer; Captum's own rules keep what they see, so they cannot serve many relevances."""
    from simec_vision.explain.presets import rules_for  # Captum takes long to import
    from simec_vision.explain.propagation import Rule

    rules = rules_for(layers, preset)
    for rule in rules:
        if not isinstance(rule, Rule):
            raise InputError(
                f"Expected rules of simec_vision.explain.rules for BiLRP, got Captum's {type(rule).__name__}"
            )
    return [rule for rule in rules if isinstance(rule, Rule)]
