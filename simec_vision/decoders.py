"""Auto-encoders: an encoder and what makes images of its embeddings again."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.encoders import Encoder
from simec_vision.items import InputError

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid)
LAYERS = (nn.Conv2d, nn.Linear)
PASSED = (nn.Dropout, nn.BatchNorm2d, *ACTIVATIONS)


class LinearAutoEncoder(nn.Module):
    """Any encoder and one linear layer from embeddings to pixels.

    Args:
        encoder: Maps images to embeddings ``(batch, embedding)``.
        size: Channels, height and width of the images.
    """

    def __init__(self, encoder: Encoder, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder, self.size = encoder, size
        self.decoder = nn.Linear(encoder.embedding_dim, size[0] * size[1] * size[2])

    def forward(self, images: Tensor) -> Tensor:
        """Give images ``(batch, channel, height, width)`` back as they come out of their embeddings."""
        return self.decoder(self.encoder(images)).view(-1, *self.size)


class MirrorAutoEncoder(nn.Module):
    """An encoder that is a plain chain and its mirror image: transposed layers in the opposite order.

    As the original's (notebook 08 of Horn's simec, 2020): a max-pool is undone by putting the values back where the
    maxima were, which tells the decoder more than the embedding does; each layer has the activation of the layer that
    it mirrors (of the one before, where that has none), the last one none.

    Args:
        encoder: Its layers are convolutions, linear layers, max-pools, activations, batch normalisation, dropout and a
            flattening in one row: :class:`CifarCNN`, :class:`ShoeCNN`, :class:`PlainCNN`, :class:`MLP`.
        size: Channels, height and width of the images.

    Raises:
        InputError: for an encoder that is no such chain.
    """

    def __init__(self, encoder: Encoder, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self._before = _shapes(self._chain, size)
        steps = _steps(self._chain)
        self.decoder = nn.ModuleDict({str(place): _mirrored(*step) for place, step in steps.items()})

    @property
    def _chain(self) -> list[nn.Module]:
        layers = self.encoder.layers
        unknown = [layer for layer in layers.children() if not isinstance(layer, (*LAYERS, *PASSED, *RESHAPED))]
        if not isinstance(layers, nn.Sequential) or unknown:
            what = type(unknown[0] if unknown else layers).__name__
            raise InputError(
                "Expected an encoder that is a plain chain of layers for a full decoder, but "
                f"{type(self.encoder).__name__} has {what}: take CifarCNN, ShoeCNN, PlainCNN or MLP, or decoder linear"
            )
        return [*layers]

    def forward(self, images: Tensor) -> Tensor:
        """Give images ``(batch, channel, height, width)`` back as they come out of their embeddings."""
        maps, places = images, {}
        for number, layer in enumerate(self._chain):
            if isinstance(layer, nn.MaxPool2d):
                maps, places[number] = F.max_pool2d(
                    maps, layer.kernel_size, layer.stride, layer.padding, return_indices=True
                )
            else:
                maps = layer(maps)
        for number in reversed(range(len(self._before))):
            maps = self._back(number, maps, places)
        return maps

    def _back(self, number: int, maps: Tensor, places: dict[int, Tensor]) -> Tensor:
        """Undo one layer of the encoder."""
        layer: Any = self._chain[number]
        kind, shape = type(layer), self._before[number]
        if issubclass(kind, nn.MaxPool2d):
            window, stride, padding = layer.kernel_size, layer.stride, layer.padding
            return F.max_unpool2d(maps, places[number], window, stride, padding, list(shape[1:]))
        if isinstance(layer, nn.Flatten):
            return maps.reshape(-1, *shape)
        if str(number) not in self.decoder:
            return maps
        layers: Any = self.decoder[str(number)]
        transposed, *after = layers
        maps = transposed(maps, list(shape[1:])) if isinstance(layer, nn.Conv2d) else transposed(maps)
        for each in after:
            maps = each(maps)
        return maps


RESHAPED = (nn.MaxPool2d, nn.Flatten)

AUTO_ENCODERS: dict[str, Any] = {"full": MirrorAutoEncoder, "linear": LinearAutoEncoder}
"""Auto-encoders by the names of their decoders, which options use."""


@torch.no_grad()
def _shapes(chain: list[nn.Module], size: tuple[int, int, int]) -> list[tuple[int, ...]]:
    """Give the shape, of one image, of what each layer gets."""
    maps, shapes = torch.zeros(1, *size), []
    for layer in chain:
        shapes.append(tuple(maps.shape[1:]))
        maps = maps if isinstance(layer, nn.BatchNorm2d) else layer(maps)
    return shapes


def _steps(chain: list[nn.Module]) -> dict[int, tuple[nn.Module, bool, type[nn.Module] | None]]:
    """Give place of each layer with weights → the layer, whether its mirror image is normalised, and its activation."""
    steps: dict[int, tuple[nn.Module, bool, type[nn.Module] | None]] = {}
    activation: type[nn.Module] | None = None
    normalised = False
    for place, layer in enumerate(chain):
        if isinstance(layer, LAYERS):
            own = _next_activation(chain[place + 1 :]) or activation
            steps[place] = (layer, normalised and isinstance(layer, nn.Conv2d), own if steps else None)
            activation, normalised = own, False
        normalised |= isinstance(layer, nn.BatchNorm2d)
    return steps


def _next_activation(chain: list[nn.Module]) -> type[nn.Module] | None:
    """Find the activation before the next layer with weights."""
    for layer in chain:
        if isinstance(layer, LAYERS):
            return None
        if isinstance(layer, ACTIVATIONS):
            return type(layer)
    return None


def _mirrored(layer: nn.Module, normalised: bool, activation: type[nn.Module] | None) -> nn.ModuleList:
    """Make the layer that leads back, and what follows it."""
    if isinstance(layer, nn.Linear):
        back: nn.Module = nn.Linear(layer.out_features, layer.in_features)
        return nn.ModuleList([back, *([activation()] if activation else [])])
    assert isinstance(layer, nn.Conv2d)
    size: Any = (layer.kernel_size, layer.stride, layer.padding)
    back = nn.ConvTranspose2d(layer.out_channels, layer.in_channels, *size)
    after = [nn.BatchNorm2d(layer.in_channels)] if normalised else []
    return nn.ModuleList([back, *after, *([activation()] if activation else [])])
