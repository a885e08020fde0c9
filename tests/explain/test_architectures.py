"""torchvision's networks, in their smallest variants: same output, no relevance lost, and the right gradient."""

import copy

import pytest
import torch
from torch import nn
from torchvision import models

from simec_vision import SimilarityHead, SimilarityModel
from simec_vision.encoders import TorchvisionEncoder
from simec_vision.explain import CannotExplain, canonize, explain
from simec_vision.explain.engine import propagate_score
from simec_vision.explain.layers import WEIGHTED
from simec_vision.explain.readout import Readout
from simec_vision.explain.rules import AlphaBeta, Epsilon
from tests.explain.test_canonize import randomised

SIZES = {
    "alexnet": 64, "vgg11_bn": 32, "resnet18": 32, "resnext50_32x4d": 32, "densenet121": 32, "googlenet": 32,
    "inception_v3": 75, "mobilenet_v2": 64, "mobilenet_v3_small": 32, "efficientnet_b0": 32, "regnet_y_400mf": 32,
    "regnet_x_400mf": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32, "convnext_tiny": 32, "mnasnet0_5": 32,
}  # fmt: skip
Z_PLUS = [((nn.Linear, nn.Conv2d), AlphaBeta(1, 0, "ignore"))]
SMALL_SUMS = {"mobilenet_v2": 1e-2}
"""Where some outputs are as small as ε, which takes its part: 5e-5 to 3.4e-3 of the score, by images and threads."""
EPSILON = [(WEIGHTED, Epsilon(1e-6, "ignore"))]


def network_of(name):
    torch.manual_seed(0)
    extra = {"init_weights": False} if name.startswith(("vgg", "googlenet", "inception")) else {}
    return randomised(models.get_model(name, weights=None, num_classes=7, **extra)).requires_grad_(False)


def without_biases(network, images):
    """Zero every bias and shift, which ignoring them then does not change; maps get a size of about 1.

    A random network's maps may become ever smaller, and 1e-6 is much for them.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 1.0
            module.weight.abs_().add_(0.5)
    network(images.repeat(4, 1, 1, 1) + torch.randn(8, *images.shape[1:], generator=torch.Generator().manual_seed(2)))
    for module in network.eval().modules():
        for name in ("bias", "running_mean"):
            if isinstance(getattr(module, name, None), torch.Tensor):
                getattr(module, name).zero_()
    return network


def relevance_of(twin, images, preset):
    """Explain ∥embedding∥², a score to which every entry of the embedding contributes."""
    told = propagate_score(twin, images, Readout(twin(images)), preset)
    return told.relevance, told.score


def largest_delta(twin, images, preset):
    relevance, score = relevance_of(twin, images, preset)
    return float(((relevance.sum(dim=(1, 2, 3)) - score) / score).abs().max())


@pytest.mark.parametrize("name", SIZES)
def test_architecture_is_explained(name):
    network, size = network_of(name), SIZES[name]
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    twin, expected = canonize(network.train()), network.eval()(images)
    assert (twin(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert largest_delta(twin, images, Z_PLUS) <= 1e-3
    assert largest_delta(twin, images, "epsilon_plus_flat") <= 1e-3
    assert_gradient(network, twin, images)
    assert largest_delta(canonize(without_biases(network, images)), 10 * images, EPSILON) <= SMALL_SUMS.get(name, 1e-3)


def assert_gradient(network, twin, images):
    """Check that gradient × input through the twin's layers is what autograd says of the network."""
    leaf = images.clone().requires_grad_()
    output = network(leaf)
    (gradient,) = torch.autograd.grad((output * output.detach()).sum(), leaf)
    relevance, _ = relevance_of(twin, images, "gradient_input")
    assert (relevance - images * gradient).abs().max() <= 1e-2 * (images * gradient).abs().max()


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_torchvision_encoder_is_explained(name):
    model = SimilarityModel(randomised(TorchvisionEncoder(name, 6)), {"heel": SimilarityHead(6, 3)})
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    told = explain(model, images, "heel", 1, preset="epsilon_plus_flat")
    assert told.delta.abs().max() < 1e-3
    assert torch.allclose(told.score, model.eval()(images)["heel"][:, 1], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "operation"), [("vit_b_32", "MultiheadAttention"), ("swin_t", r"features\.1\.0\.attn: ")]
)
def test_transformers_are_refused_by_name(name, operation):
    with pytest.raises(CannotExplain, match=operation):
        canonize(models.get_model(name, weights=None))
