"""Auto-encoders: mirror images of encoders."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simec_vision.decoders import LinearAutoEncoder, MirrorAutoEncoder
from simec_vision.encoders import MLP, CifarCNN, Encoder, PlainCNN, ResidualNet, ShoeCNN
from simec_vision.items import InputError


@pytest.mark.parametrize(
    ("encoder", "size"),
    [
        (CifarCNN(16), (3, 32, 32)),
        (CifarCNN(16, size=(34, 30)), (3, 34, 30)),
        (ShoeCNN(16, size=23), (3, 23, 23)),
        (PlainCNN(16, size=70, widths=(4, 6)), (3, 70, 70)),
        (PlainCNN(16, size=33, channels=1, widths=(4, 6)), (1, 33, 33)),
        (MLP(12, 3, hidden=(5, 4)), (3, 2, 2)),
    ],
)
def test_images_come_back_in_their_size_and_every_weight_matters(encoder: Encoder, size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, *size)
    for kind in (MirrorAutoEncoder, LinearAutoEncoder):
        given = kind(encoder, size)(images)
        assert given.shape == images.shape
    autoencoder = MirrorAutoEncoder(encoder, size)
    autoencoder(images).square().mean().backward()
    weights = [weight for weight in autoencoder.parameters() if weight.ndim > 1]
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_the_original_decoder_written_out_gives_the_same() -> None:
    torch.manual_seed(0)
    encoder, images = CifarCNN(512), torch.randn(3, 3, 32, 32)
    autoencoder = MirrorAutoEncoder(encoder, (3, 32, 32))
    conv1, _, _, conv2, _, _, _, dense1, _, dense2, _ = encoder.layers
    maps, first = F.max_pool2d(conv1(images).relu(), 2, return_indices=True)
    maps, second = F.max_pool2d(conv2(maps).relu(), 2, return_indices=True)
    embedding = dense2(dense1(maps.flatten(1)).tanh()).tanh()
    back = [layer for layer in autoencoder.decoder.modules() if isinstance(layer, nn.Linear | nn.ConvTranspose2d)]
    by_shape = {tuple(layer.weight.shape): layer for layer in back if isinstance(layer, nn.ConvTranspose2d)}
    dense = [autoencoder.decoder[place][0] for place in ("9", "7")]
    maps = dense[1](dense[0](embedding).tanh()).tanh().view(-1, 8, 8, 8)
    maps = by_shape[8, 16, 3, 3](F.max_unpool2d(maps, second, 2)).relu()
    expected = by_shape[16, 3, 5, 5](F.max_unpool2d(maps, first, 2))
    assert torch.allclose(autoencoder(images), expected, atol=1e-6)


def test_networks_that_are_no_chain_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="ResidualNet has Sequential: take CifarCNN"):
        MirrorAutoEncoder(ResidualNet(8, width=4), (3, 32, 32))
