import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simec_vision.encoders import MLP, CifarCNN, PlainCNN, ResidualNet, ShoeCNN, TorchvisionEncoder
from simec_vision.explain import CannotExplain, canonize

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A small network whose forward method is a function of the module and the images."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.block = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3, padding=1), "linear": nn.Linear(64, 5), **parts})
        self.run = forward

    def forward(self, images):
        return self.run(self, images)


def maps(net, images):
    return F.max_pool2d(F.relu(net.block["conv"](images)), 2)


def randomised(network):
    """Give batch normalisation statistics and weights of all kinds, some of them negative."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.3)
            if module.affine:
                module.weight.data.copy_(torch.randn(module.num_features, generator=generator))
                module.bias.data.copy_(torch.randn(module.num_features, generator=generator))
    return network


def assert_same(network, images, tolerance=1e-5):
    twin = canonize(network, images)
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(images)
        assert (twin(images) - expected).abs().max() <= tolerance * expected.abs().max()
    return twin


FLATTENED = {
    "torch.flatten": lambda x: torch.flatten(x, 1),
    "flatten(1)": lambda x: x.flatten(1),
    "flatten(start_dim)": lambda x: x.flatten(start_dim=1),
    "view(size)": lambda x: x.view(x.size(0), -1),
    "view(shape)": lambda x: x.contiguous().view(x.shape[0], -1),
    "view(tuple)": lambda x: x.view((x.size()[0], -1)),
    "reshape": lambda x: x.reshape(-1, 64),
    "torch.reshape": lambda x: torch.reshape(x, (x.shape[0], -1)),
    "named input": lambda x: torch.flatten(input=x, start_dim=1),
    "named shape": lambda x: torch.reshape(input=x, shape=(x.size(dim=0), -1)),
    "named size": lambda x: x.view(size=(-1, 64)),
}


@pytest.mark.parametrize("spelling", FLATTENED)
def test_flatten_in_any_spelling(spelling):
    net = Net(lambda self, x: self.block["linear"](FLATTENED[spelling](maps(self, x))))
    assert [type(layer) for layer in assert_same(net, IMAGES)] == [
        nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Flatten, nn.Linear,
    ]  # fmt: skip


FUNCTIONS = {
    "relu": lambda x: torch.relu(x),
    "relu_": lambda x: x.relu_(),
    "F.relu": lambda x: F.relu(x),
    "named": lambda x: F.avg_pool2d(input=F.relu(input=x), kernel_size=2, stride=1),
    "named adaptive": lambda x: F.adaptive_avg_pool2d(input=x, output_size=(4, 4)),
    "inplace": lambda x: F.relu(x, inplace=True),
    "tanh": lambda x: torch.tanh(F.tanh(x.tanh())),
    "max_pool": lambda x: F.max_pool2d(x, 3, stride=1, padding=1, ceil_mode=True),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, (8, 8)),
    "dropout": lambda x: F.dropout2d(F.dropout(x, 0.5, training=False), training=False),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_become_layers(function):
    net = Net(lambda self, x: F.max_pool2d(FUNCTIONS[function](self.block["conv"](x)), 2).flatten(1))
    assert_same(net, IMAGES)


@pytest.mark.parametrize(
    "encoder", [CifarCNN(6, size=8), ShoeCNN(6, size=20), PlainCNN(6, size=16, widths=(4, 5)), PlainCNN(6, size=68)],
    ids=["cifar", "shoe", "plain", "plain-strided"],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encoders_of_the_package(encoder, dtype):
    size = encoder.options["size"]
    encoder = randomised(copy.deepcopy(encoder)).to(dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-12
    assert_same(encoder, torch.randn(2, 3, size, size, dtype=dtype), tolerance)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_dense_encoder_of_the_package(activation):
    assert_same(MLP(192, 4, (6, 5), activation), IMAGES)


def test_what_does_nothing_in_evaluation_is_left_out():
    nothing = [nn.Identity(), nn.Dropout(0.9), nn.Dropout2d(), nn.AlphaDropout()]
    network = nn.Sequential(nothing[0], nn.Conv2d(3, 4, 3), *nothing, nn.ReLU(inplace=True), nn.Dropout(inplace=True))
    assert [type(layer) for layer in assert_same(network.train(), IMAGES)] == [nn.Conv2d, nn.ReLU]


def test_plain_torchvision_network():
    assert_same(TorchvisionEncoder("alexnet", 4).layers, torch.randn(1, 3, 64, 64))


def test_lone_layer_and_parametrised_layer():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 3))
    assert_same(conv, IMAGES)
    assert_same(nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect"), conv2(4)), IMAGES)


def conv2(channels, **options):
    return nn.Conv2d(channels, 6, 3, **options)


BATCHNORMED = {
    "conv-bn": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
    "conv-bn-bn": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(), nn.BatchNorm2d(4)),
    "bn-conv": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
    "bn-conv in groups": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), conv2(4, groups=2, dilation=2, stride=2, bias=False)
    ),
    "bn-conv reflecting": lambda: nn.Sequential(nn.BatchNorm2d(3), conv2(3, padding=1, padding_mode="reflect")),
    "linear-bn": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False), nn.BatchNorm1d(5), nn.Tanh()),
    "bn-linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 4)
    ),
    "flatten-bn-linear": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(), nn.Linear(192, 5)),
}


@pytest.mark.parametrize("name", BATCHNORMED)
def test_batchnorm_is_folded(name):
    network = randomised(BATCHNORMED[name]()).double()
    twin = assert_same(network, IMAGES.double(), 1e-12)
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout) for layer in twin)


class Residual(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.conv, self.inplace = nn.Conv2d(3, 3, 3, padding=1), inplace

    def forward(self, x):
        out = F.relu(self.conv(x))
        if self.inplace:
            out += x
            return out
        return out + x


def head(function, **parts):
    return Net(lambda self, x: function(self, self.block["linear"](maps(self, x).flatten(1))), **parts)


REFUSED = {
    "residual": (nn.Sequential(nn.Identity(), Residual(False)), r"Cannot explain 1: addition \(`i?add`\)"),
    "in place": (nn.Sequential(nn.Identity(), Residual(True)), r"Cannot explain 1: addition \(`i?add`\)"),
    "residual net": (ResidualNet(4, width=2), r"layers\.\d: addition"),
    "resnet18": (TorchvisionEncoder("resnet18", 4), r"layers\.layer1\.0: addition"),
    "concatenation": (head(lambda self, y: torch.cat([y, y], 1)), r"concatenation \(`cat`\)"),
    "sigmoid function": (head(lambda self, y: F.sigmoid(y)), "`sigmoid`"),
    "sigmoid method": (head(lambda self, y: y.sigmoid()), "`sigmoid`"),
    "gelu": (nn.Sequential(nn.Conv2d(3, 2, 3), nn.GELU()), "Cannot explain 1: GELU"),
    "sigmoid": (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Sigmoid()), "Cannot explain 2: Sigmoid"),
    "sigmoid mlp": (MLP(192, 4, (5,), "sigmoid"), r"Cannot explain layers\.2: Sigmoid"),
    "same conv in a row": (nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 2), "0: Conv2d used twice"),
    "gelu function": (head(lambda self, y: F.gelu(y)), "`gelu`"),
    "leaky": (nn.Sequential(nn.Conv2d(3, 2, 3), nn.LeakyReLU()), "1: LeakyReLU"),
    "relu6": (nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU6()), "1: ReLU6"),
    "softmax": (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Softmax(1)), "2: Softmax"),
    "normalised": (head(lambda self, y: F.normalize(y)), "`normalize`"),
    "scaled": (head(lambda self, y: y * 2), r"multiplication \(`mul`\)"),
    "reused conv": (
        Net(lambda self, x: self.block["same"](self.block["same"](x)), same=nn.Conv2d(3, 3, 3)),
        r"block\.same: Conv2d used twice \(first as block\.same\)",
    ),
    "dead branch": (Net(lambda self, x: (self.block["conv"](x), x.flatten(1))[1]), "a branch"),
    "own weights": (
        Net(lambda self, x: F.conv2d(x, self.block["conv"].weight)), "`conv2d`"),
    "own convolution": (
        nn.Sequential(type("Standardised", (nn.Conv2d,), {"forward": lambda s, x: F.conv2d(x, s.weight * 2)})(3, 2, 3)),
        "multiplication",
    ),
    "control flow": (Net(lambda self, x: x.flatten(1) if x.sum() > 0 else x), "depends on its input's values"),
    "always drops": (head(lambda self, y: F.dropout(y)), "`dropout` that also drops in evaluation mode"),
    "flatten from 2": (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(2)), "1: Flatten of axes 2 to -1"),
    "view": (head(lambda self, y: y.view(-1, 5, 1)), r"`view` to another shape"),
    "indices": (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "0: MaxPool2d that returns indices"),
    "pooling by size": (Net(lambda self, x: F.avg_pool2d(x, x.shape[2])), "size depends on the image"),
    "bn alone": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()), "2: BatchNorm2d neither"),
    "bn before padding": (
        randomised(nn.Sequential(nn.BatchNorm2d(3), conv2(3, padding=1))), "0: BatchNorm2d before .* pads with zeros"),
    "bn across a linear layer": (
        nn.Sequential(nn.Linear(8, 3), nn.BatchNorm2d(3)), "1: BatchNorm2d neither"),
    "bn across the next linear layer": (
        nn.Sequential(nn.BatchNorm2d(3), nn.Linear(8, 4)), "0: BatchNorm2d neither"),
    "bn of the batch": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "without running statistics"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_and_place(name):
    network, message = REFUSED[name]
    with pytest.raises(CannotExplain, match=message) as refused:
        canonize(network)
    assert isinstance(refused.value, ValueError)
    assert "\n" not in str(refused.value)
    assert "Explained can be a chain of Conv2d" in str(refused.value)


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x

    with pytest.raises(CannotExplain, match=r"2 inputs \(x, y\)"):
        canonize(Two())


def test_hook_that_changes_the_output_is_noticed():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    network[0].register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(CannotExplain, match="more than its layers say"):
        canonize(network, IMAGES)


def test_weights_that_diverged_are_noticed():
    network = nn.Sequential(nn.Conv2d(3, 2, 3))
    network[0].weight.data.fill_(torch.nan)
    with pytest.raises(CannotExplain, match="not finite"):
        canonize(network, IMAGES)


def test_reused_activation_is_fine():
    relu = nn.ReLU(inplace=True)
    assert_same(nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu), IMAGES)


def test_twin_shares_nothing_and_needs_no_gradients():
    network = randomised(PlainCNN(4, size=16, widths=(3, 4))).train()
    seed = torch.get_rng_state()
    before = copy.deepcopy(network.state_dict())
    twin = canonize(network, torch.randn(2, 3, 16, 16, generator=torch.Generator()))
    for parameter in twin.parameters():
        assert not parameter.requires_grad
        parameter.data.zero_()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert all(module.training for module in network.modules())
    assert not any(module.training for module in twin.modules())
    assert torch.equal(torch.get_rng_state(), seed)


def test_half_precision_becomes_full():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    twin = canonize(randomised(network).bfloat16(), IMAGES)
    assert {parameter.dtype for parameter in twin.parameters()} == {torch.float32}
