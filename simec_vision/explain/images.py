"""Images as a network takes them."""

import torch
from torch import Tensor, nn

from simec_vision.items import InputError


def first_weight(network: nn.Module, otherwise: Tensor) -> Tensor:
    """Give a network's first floating-point weight, whose type and device are the network's, or else another tensor."""
    return next((p for p in network.parameters() if p.is_floating_point()), otherwise)


def like_weights(values: Tensor, network: nn.Module) -> Tensor:
    """Copy values to the type and device of a network's weights, as an ordinary tensor."""
    weight = first_weight(network, values)
    return values.detach().clone().to(weight.device, weight.dtype)


def background_colour(images: Tensor) -> Tensor:
    """Give the median colour of every image's outermost pixels: what is there where no object is.

    The median, as objects may touch the edge. Shape ``(batch, channel, 1, 1)``.
    """
    rows, columns = images[:, :, [0, -1]], images[:, :, 1:-1, [0, -1]]
    edge = torch.cat([rows.flatten(2), columns.flatten(2)], dim=2)
    return edge.median(dim=2).values[:, :, None, None]


def check_images(network: nn.Module, images: Tensor, argument: str = "images") -> None:
    """Check that images are finite and that a network in evaluation takes them; runs it on the first.

    Raises:
        InputError: if not, saying what was expected.
    """
    expected = f"Expected normalised {argument} of shape (batch, channel, height, width) = ({_axes(network, images)})"
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"{expected}, got {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"{expected} as floating-point numbers, got {images.dtype}")
    if not images.isfinite().all():
        raise InputError(f"{expected} as finite numbers, got NaN or infinite values; look at how they were normalised")
    try:
        with torch.no_grad():
            network(like_weights(images[:1], network))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{expected} as the encoder takes them, got {tuple(images.shape)}: {reason}") from error


def _axes(network: nn.Module, images: Tensor) -> str:
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    channels = "channel" if first is None else first.weight.shape[1] * first.groups
    return f"batch, {channels}, height, width"
