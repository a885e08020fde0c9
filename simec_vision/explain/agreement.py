"""A twin must give what the network gives: what is silently different (hooks, overridden methods) is refused here."""

import torch
from torch import Tensor, nn

from simec_vision.explain.evaluating import evaluating
from simec_vision.explain.images import like_weights
from simec_vision.explain.refusal import refusal

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference between network and twin, relative to the largest output, on the CPU."""
COARSE = 3e-2
"""The same for half precision, and on accelerators, which may multiply in TF32."""


def check_same(network: nn.Module, twin: nn.Module, images: Tensor) -> None:
    """Check that a twin gives what the network gives in evaluation mode, up to rounding.

    Raises:
        CannotExplain: if it does not, as for a network with hooks of its own; if an output is not finite, or depends
            on the other images of the batch.
    """
    images = like_weights(images, network)
    with evaluating(network), torch.no_grad():
        expected = network(images)
    with torch.no_grad():
        got = twin(like_weights(images, twin))
    if expected.shape != got.shape:
        raise refusal("", f"an output of shape {tuple(expected.shape)}, for which its layers give {tuple(got.shape)}")
    check_close(got, expected, expected.abs().max(), tolerance(network))
    _check_independent(twin, images, got)


def _check_independent(twin: nn.Module, images: Tensor, together: Tensor) -> None:
    """Check that what an image gives depends on no other image, or its relevance would lie on those, too."""
    with torch.no_grad():
        alone = twin(like_weights(images[:1], twin))
    gap = float((alone - together[:1]).abs().max() / together.abs().max().clamp(min=1e-12)) if len(alone) else 0.0
    if not gap <= COARSE:
        raise refusal("", "an output for an image that depends on the other images of the batch")


def check_close(got: Tensor, expected: Tensor, scale: Tensor, allowed: float) -> None:
    """Check that what a twin gives is what the network gives, relative to a scale, and finite.

    Raises:
        CannotExplain: if it is not.
    """
    if not expected.isfinite().all():
        raise refusal("", "an output that is not finite (NaN or infinite: diverged weights?)")
    gap = float(((got.double() - expected.double()).abs() / scale.double().clamp(min=1e-12)).max())
    if not gap <= allowed:
        raise refusal("", f"a network that does more than its layers say (hooks?), outputs differ by {gap:.1e} of 1")


def tolerance(network: nn.Module) -> float:
    """Say how far, relatively, a network's outputs may be from its twin's, from the type and device of its weights."""
    own = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    return TOLERANCE.get(own.dtype, COARSE) if own.device.type == "cpu" else COARSE
