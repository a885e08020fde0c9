"""Encoders: image → embedding. Every one knows its ``embedding_dim`` and the options that rebuild it.

The plain chains (:class:`CifarCNN`, :class:`ShoeCNN`, :class:`PlainCNN`, :class:`MLP`) are made of modules in one row,
which explanations read layer by layer; :class:`ResidualNet`, :class:`PooledResidualNet` and :class:`TorchvisionEncoder`
are not, and are explained as well.
"""

from abc import ABC
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from simec_vision.items import InputError, nearest

Size = int | tuple[int, int]
"""Height and width of images in pixels, or one number for both."""


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check_size(encoder: str, size: Size, smallest: int) -> None:
    """Make sure that an image leaves at least one pixel behind an encoder's pools."""
    height, width = _pair(size)
    if min(height, width) < smallest:
        raise InputError(
            f"Expected images of at least {smallest}×{smallest} pixels for this {encoder}, got {height}×{width}: "
            "enlarge the images, or choose MLP"
        )


def dense_layers(encoder: nn.Module) -> list[nn.Linear]:
    """Give an encoder's dense layers, the first to the last."""
    return [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]


class Encoder(nn.Module, ABC):
    """Map images ``(batch, channel, height, width)`` to embeddings ``(batch, embedding)``.

    Args:
        layers: What does it.
        embedding_dim: Length of an embedding.
        options: The arguments that build the same encoder again.
    """

    def __init__(self, layers: nn.Module, embedding_dim: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.layers = layers
        self.embedding_dim = embedding_dim
        self.options = options

    def forward(self, images: Tensor) -> Tensor:
        """Embed images ``(batch, channel, height, width)``: ``(batch, embedding)``."""
        return self.layers(images)


class CifarCNN(Encoder):
    """The original's CNN for CIFAR-10: two convolutions, two dense tanh layers (notebook 08 of Horn's simec, 2020).

    conv 16 5×5, ReLU, max-pool 2, conv 8 3×3, ReLU, max-pool 2, dense 512 tanh, dense tanh.

    Args:
        embedding_dim: Length of an embedding, every entry in [−1, 1].
        size: Height and width of the images in pixels, or one number for both.
        channels: Channels of the images.

    Raises:
        InputError: for images smaller than 4×4 pixels.
    """

    def __init__(self, embedding_dim: int = 512, size: Size = 32, channels: int = 3) -> None:
        _check_size("CifarCNN", size, 4)
        height, width = _pair(size)
        layers = nn.Sequential(
            *(nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(8 * (height // 4) * (width // 4), 512), nn.Tanh(), nn.Linear(512, embedding_dim), nn.Tanh()),
        )
        super().__init__(layers, embedding_dim, {"embedding_dim": embedding_dim, "size": size, "channels": channels})


class ShoeCNN(Encoder):
    """The original's CNN for UT-Zappos50K: four convolutions, one linear layer (notebook 09 of Horn's simec, 2020).

    Twice: conv 3×3 with padding, ReLU, conv 3×3 without, ReLU, max-pool 2, dropout .25 (32, then 64 channels); dense.

    Args:
        embedding_dim: Length of an embedding.
        size: Height and width of the images in pixels, or one number for both.
        channels: Channels of the images.

    Raises:
        InputError: for images smaller than 10×10 pixels.
    """

    def __init__(self, embedding_dim: int = 512, size: Size = 136, channels: int = 3) -> None:
        _check_size("ShoeCNN", size, 10)
        blocks = [_shoe_block(channels, 32), _shoe_block(32, 64)]
        height, width = (((side - 2) // 2 - 2) // 2 for side in _pair(size))
        layers = nn.Sequential(*blocks[0], *blocks[1], nn.Flatten(), nn.Linear(64 * height * width, embedding_dim))
        super().__init__(layers, embedding_dim, {"embedding_dim": embedding_dim, "size": size, "channels": channels})


def _shoe_block(before: int, after: int) -> list[nn.Module]:
    convolutions = [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.Conv2d(after, after, 3), nn.ReLU()]
    return [*convolutions, nn.MaxPool2d(2), nn.Dropout(0.25)]


class PlainCNN(Encoder):
    """A fast plain chain: per stage a 3×3 convolution, batch normalisation, max-pool 2 and ReLU, then one linear layer.

    The first convolution is 5×5, or 6×6 with stride 2 where the images are larger than 64 pixels, which makes it
    several times faster than :class:`ShoeCNN`; for speed it has a bias instead of a normalisation, and ReLU follows the
    pool, which gives the same as the other way round. The last map keeps its position (no global pooling), as height
    matters.

    Args:
        embedding_dim: Length of an embedding.
        size: Height and width of the images in pixels, or one number for both.
        channels: Channels of the images.
        widths: Channels of each stage.
        dropout: Share of the last map that is dropped in training.

    Raises:
        InputError: for images that are too small, by default smaller than 16×16 pixels, or no widths.
    """

    def __init__(
        self,
        embedding_dim: int = 128,
        size: Size = 136,
        channels: int = 3,
        widths: Sequence[int] = (16, 32, 64, 96),
        dropout: float = 0.1,
    ) -> None:
        if not widths:
            raise InputError("Expected widths of at least one stage of PlainCNN, got none")
        stride = 2 if max(_pair(size)) > 64 else 1
        _check_size(f"PlainCNN of {len(widths)} stages", size, stride * 2 ** len(widths))
        # A kernel that the stride divides covers every pixel equally often, or heatmaps would show a grid.
        first = nn.Conv2d(channels, widths[0], 6 if stride == 2 else 5, stride=stride, padding=2)
        layers: list[nn.Module] = [first, nn.MaxPool2d(2), nn.ReLU()]
        for before, after in pairwise(widths):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.MaxPool2d(2), nn.ReLU()]
        height, width = (side // stride // 2 ** len(widths) for side in _pair(size))
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * height * width, embedding_dim)]
        options = {"embedding_dim": embedding_dim, "size": size, "channels": channels, "widths": list(widths)}
        super().__init__(nn.Sequential(*layers), embedding_dim, options | {"dropout": dropout})


class _Residual(nn.Module):
    """Add a branch to its input."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.branch(maps)


def _normalised(before: int, after: int, pool: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
    pooled = [nn.MaxPool2d(pool)] if pool > 1 else []
    return nn.Sequential(convolution, *pooled, nn.BatchNorm2d(after), nn.ReLU())


class ResidualNet(Encoder):
    """A small residual net with few, wide stages, made for training in minutes (after Page 2018, "ResNet-9").

    Args:
        embedding_dim: Length of an embedding.
        width: Channels of the first stage; later ones have 2, 4 and 8 times as many.
        channels: Channels of the images.
    """

    def __init__(self, embedding_dim: int = 256, width: int = 32, channels: int = 3) -> None:
        stages: list[nn.Module] = [_normalised(channels, width)]
        for stage, residual in ((1, True), (2, False), (3, True)):
            before, after = width * 2 ** (stage - 1), width * 2**stage
            stages += [_normalised(before, after), nn.MaxPool2d(2)]
            branch = nn.Sequential(_normalised(after, after), _normalised(after, after))
            stages += [_Residual(branch)] if residual else []
        stages += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, embedding_dim)]
        options = {"embedding_dim": embedding_dim, "width": width, "channels": channels}
        super().__init__(nn.Sequential(*stages), embedding_dim, options)


class PooledResidualNet(Encoder):
    """A residual net that normalises behind its pools, more accurate in the time of :class:`ResidualNet`.

    First a 3×3 convolution of half the first stage's channels. Then per stage a 3×3 convolution, max-pool 2, batch
    normalisation and ReLU, and a residual branch of one convolution, normalisation and ReLU; at the end the maximum
    over the map (the order and, about, the widths are those of Jordan 2024, arXiv 2404.00498).

    Args:
        embedding_dim: Length of an embedding.
        widths: Channels of each stage, each of which halves height and width of the map.
        channels: Channels of the images.

    Raises:
        InputError: for no widths, or one below 2.
    """

    def __init__(self, embedding_dim: int = 256, widths: Sequence[int] = (64, 192, 256), channels: int = 3) -> None:
        if not widths or min(widths) < 2:
            raise InputError(
                f"Expected widths of one stage or more of PooledResidualNet, each at least 2, got {[*widths]}"
            )
        stages: list[nn.Module] = [_normalised(channels, widths[0] // 2)]
        for before, after in pairwise((widths[0] // 2, *widths)):
            stages += [_normalised(before, after, pool=2), _Residual(_normalised(after, after))]
        stages += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], embedding_dim)]
        options = {"embedding_dim": embedding_dim, "widths": [*widths], "channels": channels}
        super().__init__(nn.Sequential(*stages), embedding_dim, options)


class TorchvisionEncoder(Encoder):
    """Any torchvision classification network by name, its last linear layer replaced by one to the embedding.

    Args:
        name: torchvision's name of the network, such as ``resnet18`` or ``vgg11_bn``.
        embedding_dim: Length of an embedding.
        weights: torchvision's name of pretrained weights, such as ``DEFAULT``, which are downloaded into torch's cache
            unless they are there; default: random weights. A saved model has its own weights and is loaded without
            them, but resuming or repeating a run makes the encoder anew and needs them again.
        transform_input: Of ``googlenet`` and ``inception_v3`` alone: take images normalised as ImageNet's and normalise
            them as these networks' pretrained weights expect it; default: where ``weights`` are given.

    Raises:
        InputError: if torchvision has no such network or weights, naming the nearest it has, or the network no
            ``transform_input``.
    """

    def __init__(
        self,
        name: str = "resnet18",
        embedding_dim: int = 256,
        weights: str | None = None,
        transform_input: bool | None = None,
    ) -> None:
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            raise InputError(f"Expected the name of a torchvision network, got {name!r}: {nearest(name, known)}")
        if weights is not None:
            choices = [choice.name for choice in models.get_model_weights(name)] + ["DEFAULT"]
            if weights.rpartition(".")[2] not in choices:
                raise InputError(f"Expected weights of {name}, got {weights!r}: {nearest(weights, choices)}")
        options: dict[str, Any] = {"name": name, "embedding_dim": embedding_dim}
        inception = name in ("googlenet", "inception_v3")
        if transform_input is not None and not inception:
            raise InputError(f"Expected transform_input of googlenet or inception_v3 only, got it of {name}")
        extra = {"init_weights": True} if inception and weights is None else {}
        network = models.get_model(name, weights=weights, **extra)
        if inception:
            options["transform_input"] = weights is not None if transform_input is None else transform_input
            network.transform_input = options["transform_input"]
            # Auxiliary classifiers say nothing of embeddings, and would be weights without a gradient.
            network.aux_logits = False
            for auxiliary in {"aux1", "aux2", "AuxLogits"} & dict(network.named_children()).keys():
                setattr(network, auxiliary, None)
        _replace_last_linear(network, embedding_dim)
        # A saved model has its weights beside these options; loading it must not download any.
        super().__init__(network, embedding_dim, options)


def _replace_last_linear(network: nn.Module, embedding_dim: int) -> None:
    """Put a linear layer to the embedding in the place of the network's last linear (or 1×1 convolution) layer.

    A ReLU behind it, as SqueezeNet has, goes: embeddings may be negative.
    """
    layers = [*network.named_modules()]
    last = max(number for number, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d))
    for place, layer in layers[last + 1 :]:
        if isinstance(layer, nn.ReLU):
            network.set_submodule(place, nn.Identity())
    place, layer = layers[last]
    if isinstance(layer, nn.Linear):
        network.set_submodule(place, nn.Linear(layer.in_features, embedding_dim))
    elif isinstance(layer, nn.Conv2d):
        network.set_submodule(place, nn.Conv2d(layer.in_channels, embedding_dim, 1))


class MLP(Encoder):
    """Dense layers on the flattened image or on a feature vector.

    Args:
        inputs: Numbers in an image or a feature vector (channel · height · width).
        embedding_dim: Length of an embedding.
        hidden: Width of each hidden layer; none makes a linear encoder.
        activation: ``tanh``, ``relu`` or ``sigmoid``, after every hidden layer, or a list of one for each.
        embedding_activation: The same for the embedding, or ``none``.

    Raises:
        InputError: for an activation that is not known, or a list of another length than ``hidden``.
    """

    def __init__(
        self,
        inputs: int = 3072,
        embedding_dim: int = 64,
        hidden: Sequence[int] = (512,),
        activation: str | Sequence[str] = "tanh",
        embedding_activation: str = "none",
    ) -> None:
        activations = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}
        chosen = [activation] * len(hidden) if isinstance(activation, str) else [*activation]
        asked = chosen if chosen or not isinstance(activation, str) else [activation]
        for name, known in ((embedding_activation, ["none", *activations]), *((one, [*activations]) for one in asked)):
            if name not in known:
                raise InputError(f"Expected an activation, got {name!r}: {nearest(name, known)}")
        if len(chosen) != len(hidden):
            raise InputError(f"Expected one activation for each of {len(hidden)} hidden layers, got {len(chosen)}")
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after, name in zip((inputs, *hidden), hidden, chosen, strict=False):
            layers += [nn.Linear(before, after), activations[name]()]
        layers.append(nn.Linear((inputs, *hidden)[-1], embedding_dim))
        if embedding_activation != "none":
            layers.append(activations[embedding_activation]())
        named = activation if isinstance(activation, str) else chosen
        options = {"inputs": inputs, "embedding_dim": embedding_dim, "hidden": list(hidden), "activation": named}
        super().__init__(
            nn.Sequential(*layers), embedding_dim, {**options, "embedding_activation": embedding_activation}
        )


ENCODERS: dict[str, type[Encoder]] = {
    kind.__name__: kind
    for kind in (CifarCNN, ShoeCNN, PlainCNN, ResidualNet, PooledResidualNet, TorchvisionEncoder, MLP)
}
"""The encoders by their class names, which saved models and options use."""


def build_encoder(kind: str, options: dict[str, Any]) -> Encoder:
    """Build an encoder from its class name and options.

    Raises:
        InputError: if there is no such encoder or option.
    """
    if kind not in ENCODERS:
        raise InputError(f"Expected an encoder, got {kind!r}: {nearest(kind, [*ENCODERS])}")
    try:
        return ENCODERS[kind](**options)
    except TypeError as error:
        raise InputError(f"Expected options of {kind}: {error}") from error
