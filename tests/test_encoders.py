import pytest
import torch

from simec_vision import InputError
from simec_vision.encoders import CifarCNN, PlainCNN, ShoeCNN, TorchvisionEncoder, build_encoder

SMALLEST = [
    (CifarCNN, {}, 4, "CifarCNN"),
    (ShoeCNN, {}, 10, "ShoeCNN"),
    (PlainCNN, {}, 16, "PlainCNN of 4 stages"),
    (PlainCNN, {"widths": (4, 8)}, 4, "PlainCNN of 2 stages"),
]


@pytest.mark.parametrize(("kind", "options", "smallest", "name"), SMALLEST)
def test_the_smallest_image_is_named_and_works(kind, options, smallest, name):
    assert kind(5, size=smallest, **options)(torch.randn(2, 3, smallest, smallest)).shape == (2, 5)
    message = rf"at least {smallest}×{smallest} pixels for this {name}, got {smallest}×{smallest - 1}"
    with pytest.raises(InputError, match=message):
        kind(5, size=(smallest, smallest - 1), **options)


def test_a_long_strip_is_halved_once_more():
    assert PlainCNN(5, size=(32, 65))(torch.randn(2, 3, 32, 65)).shape == (2, 5)
    with pytest.raises(InputError, match=r"at least 32×32 pixels .*, got 31×65"):
        PlainCNN(5, size=(31, 65))
    with pytest.raises(InputError, match="at least one stage"):
        build_encoder("PlainCNN", {"widths": []})


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_embeddings_of_torchvision_networks_have_both_signs(name):
    torch.manual_seed(0)
    embedding = TorchvisionEncoder(name, 32).eval()(torch.randn(4, 3, 64, 64))
    assert embedding.shape == (4, 32)
    assert embedding.min() < 0 < embedding.max()


def test_unknown_weights_are_named():
    with pytest.raises(InputError, match="weights of resnet18, got 'DEFAUL': did you mean 'DEFAULT'"):
        TorchvisionEncoder("resnet18", weights="DEFAUL")
