import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simec_vision.encoders import MLP, CifarCNN, PlainCNN, PooledResidualNet, ResidualNet, ShoeCNN, TorchvisionEncoder
from simec_vision.explain import CannotExplain, canonize
from simec_vision.explain.layers import Add, Rearrange, ScaleShift
from simec_vision.explain.refusal import EXPLAINABLE
from simec_vision.explain.twin import layers_of

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A small network whose forward method is a function of the module and the images."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.block = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3, padding=1), "linear": nn.Linear(64, 5), **parts})
        self.run = forward

    def forward(self, images):
        return self.run(self, images)


def kinds(twin):
    return [type(each.layer) for each in layers_of(twin)]


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
    assert kinds(assert_same(net, IMAGES)) == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, Rearrange, nn.Linear]


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
    assert kinds(assert_same(network.train(), IMAGES)) == [nn.Conv2d, nn.ReLU]


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
    assert not {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, ScaleShift}.intersection(kinds(twin))


class Residual(nn.Module):
    def __init__(self, spelling):
        super().__init__()
        self.conv, self.spelling = nn.Conv2d(3, 3, 3, padding=1), spelling

    def forward(self, x):
        return SUMS[self.spelling](F.relu(self.conv(x)), x)


def added_in_place(out, x):
    out += x
    return out


SUMS = {
    "+": lambda out, x: out + x,
    "+=": added_in_place,
    "add": lambda out, x: torch.add(out, x),
    "named": lambda out, x: torch.add(input=out, other=x),
    "add_": lambda out, x: out.add_(x),
    "sum of squeezed": lambda out, x: out + x.unsqueeze(1).squeeze(1),
}


@pytest.mark.parametrize("spelling", SUMS)
def test_additions_become_layers(spelling):
    twin = assert_same(nn.Sequential(nn.Identity(), Residual(spelling)), IMAGES)
    assert Add in kinds(twin)
    assert "1.conv" in [each.place for each in layers_of(twin)]


def shuffled(x):
    batch, channels, height, width = x.size()
    x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
    return x.view(batch, -1, height, width)


def gated(x, gate):
    return x * gate(F.adaptive_avg_pool2d(x, 1))


OPERATIONS = {
    "concatenation": lambda x: torch.cat([x, F.relu(x)], dim=1),
    "stack": lambda x: torch.stack((x, x), 2).flatten(1, 2),
    "shuffle": shuffled,
    "channel_shuffle": lambda x: F.channel_shuffle(x, 2) if hasattr(F, "channel_shuffle") else shuffled(x),
    "chunk": lambda x: torch.cat((x.chunk(2, dim=1)[1], F.relu(x.chunk(2, dim=1)[0])), 1),
    "split": lambda x: x.split(2, dim=1)[1] + torch.split(x, 2, 1)[0],
    "slices": lambda x: x[:, 1:3] + x[:, ::2],
    "halves": lambda x: x[:, : x.shape[1] // 2] + x[:, x.size(1) // 2 :],
    "permute": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,), eps=1e-3).permute(0, 3, 1, 2),
    "mean": lambda x: x.mean((2, 3), keepdim=True) + torch.mean(x, dim=[2, 3], keepdim=True),
    "max": lambda x: F.adaptive_max_pool2d(x, (3, 5)),
    "gate": lambda x: gated(x, torch.sigmoid),
    "gate first": lambda x: F.adaptive_avg_pool2d(x, 1).sigmoid() * x,
    "hard gate": lambda x: gated(x, F.hardsigmoid),
    "gate in place": lambda x: x.mul_(torch.sigmoid(x)),
    "doubled gate": lambda x: x * (2 * torch.sigmoid(x.mean((2, 3)))[:, :, None, None]),
    "constants": lambda x: 0.5 * ((1 - x) / 4 + 3) * 2 - 1,
    "smooth": lambda x: F.silu(F.gelu(F.hardswish(F.leaky_relu(F.elu(F.relu6(F.mish(x))), 0.2)), approximate="tanh")),
    "in place seen later": lambda x: F.relu_(x) + x,
    "in place without a name": lambda x: (F.relu(x, inplace=True), x)[1],
    "size": lambda x: x.reshape(x.shape[0], x.shape[1], x.size(2) * x.size(-1)).unflatten(2, (8, 8)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_become_layers(name):
    net = Net(lambda self, x: OPERATIONS[name](self.block["conv"](x)))
    assert_same(net, IMAGES)


LAYERS = {
    "residual": Residual("+"),
    "layer norm": nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.LayerNorm(6), nn.Linear(6, 5)),
    "silu": nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True), nn.Hardswish(), nn.ELU(0.5), nn.Tanh()),
    "leaky": nn.Sequential(nn.Conv2d(3, 2, 3), nn.LeakyReLU(0.3), nn.GELU("tanh"), nn.ReLU6(), nn.Mish()),
    "flatten from 2": nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(2), nn.Linear(36, 2), nn.Unflatten(1, (2, 1))),
    "shuffle": nn.Sequential(nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.PixelShuffle(2), nn.PixelUnshuffle(2)),
    "residual net": ResidualNet(4, width=2),
    "pooled residual net": PooledResidualNet(4, widths=(2, 3, 4)),
    "bn alone": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()),
    "bn before padding": nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 6, 3, padding=1)),
    "bn across the next linear layer": nn.Sequential(nn.BatchNorm2d(3), nn.Linear(8, 4)),
    "bn across a linear layer": nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.BatchNorm2d(3)),
    "bn of a sequence": nn.Sequential(nn.Flatten(2), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(64, 2)),
    "same conv in a row": nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 2),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_keep_their_function(name, dtype):
    network = randomised(copy.deepcopy(LAYERS[name])).to(dtype)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert_same(network, images, 1e-5 if dtype is torch.float32 else 1e-12)


def test_layer_used_twice_becomes_two():
    twin = assert_same(nn.Sequential(*[nn.Conv2d(3, 3, 3)] * 2), IMAGES)
    layers = layers_of(twin)
    assert [each.place for each in layers] == ["0", "0_1"]
    assert layers[0].layer is not layers[1].layer


def test_dead_branches_are_left_out():
    twin = assert_same(Net(lambda self, x: (self.block["conv"](x), x.flatten(1))[1]), IMAGES)
    assert kinds(twin) == [Rearrange]


def test_batchnorm_is_not_folded_where_others_look_on():
    network = Net(lambda self, x: (lambda y: self.block["bn"](y) + y)(self.block["conv"](x)), bn=nn.BatchNorm2d(4))
    assert kinds(assert_same(randomised(network), IMAGES)) == [nn.Conv2d, ScaleShift, Add]


@pytest.mark.parametrize("sign", [1, -1])
def test_batchnorm_passes_a_max_pool_only_with_positive_scales(sign):
    network = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU()))
    network[2].weight.data.abs_()[1] *= sign
    passed = [nn.Conv2d, nn.MaxPool2d, nn.ReLU] if sign > 0 else [nn.Conv2d, nn.MaxPool2d, ScaleShift, nn.ReLU]
    assert kinds(assert_same(network, IMAGES)) == passed


@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), nn.Sequential(*[nn.MaxPool2d(2)] * 2)])
def test_batchnorm_passes_padded_and_several_max_pools(pool):
    network = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.BatchNorm2d(4)))
    network[2].weight.data.abs_()[0] = 0
    assert ScaleShift not in kinds(assert_same(network, IMAGES))


def test_batchnorm_does_not_pass_a_max_pool_that_others_look_at():
    parts = {"pool": nn.MaxPool2d(2), "bn": nn.BatchNorm2d(4)}
    network = Net(
        lambda self, x: (lambda y: self.block["bn"](y) + y)(self.block["pool"](self.block["conv"](x))), **parts
    )
    assert kinds(assert_same(network, IMAGES)) == [nn.Conv2d, nn.MaxPool2d, ScaleShift, Add]


def test_constants_of_the_network_are_scales_and_shifts():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.rand(3, 1, 1))
            self.scale, self.conv = nn.Parameter(torch.rand(3, 1, 1)), nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv((x - self.mean) * self.scale / 0.3)

    layers = layers_of(assert_same(Normalised(), IMAGES))
    assert [type(each.layer) for each in layers] == [ScaleShift] * 3 + [nn.Conv2d]
    assert [each.sees_pixels for each in layers] == [False] * 3 + [True]


def test_places_are_those_of_the_network():
    twin = canonize(ResidualNet(4, width=2))
    places = [each.place for each in layers_of(twin)]
    assert {"layers.0.0", "layers.3.add", "layers.3.branch.1.2", "layers.9"} <= set(places)
    assert [each.place for each in layers_of(twin) if each.sees_pixels] == ["layers.0.0"]
    assert len(set(places)) == len(places)


def test_names_of_the_network_do_not_collide_with_the_twins():
    net = nn.Sequential()
    for name in ("graph", "code", "images", "add"):
        net.add_module(name, nn.Conv2d(3, 3, 3, padding=1))
    assert_same(nn.Sequential(net, Residual("add")), IMAGES)


def test_auxiliary_outputs_are_off():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.softplus = nn.Conv2d(3, 2, 3), nn.Softplus()

        def forward(self, x):
            y = self.conv(x)
            return (y, self.softplus(y)) if self.training else y

    assert kinds(assert_same(Two().train(), IMAGES)) == [nn.Conv2d]


def head(function, **parts):
    return Net(lambda self, x: function(self, self.block["linear"](maps(self, x).flatten(1))), **parts)


REFUSED = {
    "sigmoid function": (head(lambda self, y: F.sigmoid(y)), "`sigmoid` used otherwise than as a gate"),
    "sigmoid method": (head(lambda self, y: y.sigmoid()), "`sigmoid`"),
    "sigmoid": (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Sigmoid()), "Cannot explain 2: Sigmoid used"),
    "sigmoid then linear": (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Sigmoid(), nn.Linear(2, 2)), "2: Sigmoid used"),
    "sigmoid mlp": (MLP(192, 4, (5,), "sigmoid"), r"Cannot explain layers\.2: Sigmoid"),
    "gate of gates": (head(lambda self, y: y.sigmoid() * y.sigmoid()), r"multiplication \(`mul`\) of two maps"),
    "square": (head(lambda self, y: y * y), r"multiplication \(`mul`\) of two maps"),
    "difference": (head(lambda self, y: y - F.relu(y)), r"subtraction \(`sub`\) of two maps"),
    "quotient": (head(lambda self, y: y / (y + 1)), r"division \(`truediv`\) by a map"),
    "by size": (head(lambda self, y: y / y.shape[1]), "with a size of the image"),
    "alpha": (head(lambda self, y: torch.add(y, y, alpha=2)), "with alpha"),
    "softplus": (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Softplus()), "Cannot explain 1: Softplus"),
    "softmax": (nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Softmax(1)), "2: Softmax"),
    "attention": (nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(64, 2)), "1: TransformerEncoderLayer"),
    "vision transformer": (
        TorchvisionEncoder("vit_b_32", 4), r"layers\.encoder\..*: MultiheadAttention"),
    "normalised": (head(lambda self, y: F.normalize(y)), "`normalize`"),
    "exponential": (head(lambda self, y: y.exp()), "`exp`"),
    "own weights": (
        Net(lambda self, x: F.conv2d(x, self.block["conv"].weight)), "`conv2d`"),
    "own convolution": (
        nn.Sequential(type("Standardised", (nn.Conv2d,), {"forward": lambda s, x: F.conv2d(x, s.weight * 2)})(3, 2, 3)),
        "multiplication .* of weights"),
    "weights alone": (Net(lambda self, x: F.relu(self.block["conv"].bias) + x), "`relu` of weights"),
    "control flow": (Net(lambda self, x: x.flatten(1) if x.sum() > 0 else x), "depends on its input's values"),
    "always drops": (head(lambda self, y: F.dropout(y)), "`dropout` that also drops in evaluation mode"),
    "indices": (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "0: MaxPool2d that returns indices"),
    "pooling by size": (Net(lambda self, x: F.avg_pool2d(x, x.shape[2])), "size depends on the image"),
    "mean of the batch": (head(lambda self, y: y.mean(0)), "`mean` over the images of a batch"),
    "several outputs": (head(lambda self, y: (y, y)), "an output that is not one tensor"),
    "size as output": (Net(lambda self, x: x.shape[0]), "an output that is not one tensor"),
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
    assert EXPLAINABLE in str(refused.value)


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x

    with pytest.raises(CannotExplain, match=r"several inputs \(x, y\)"):
        canonize(Two())


def test_hook_that_changes_the_output_is_noticed():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    network[0].register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(CannotExplain, match="more than its layers say"):
        canonize(network, IMAGES)


def test_images_that_depend_on_each_other_are_noticed():
    class Mixing(nn.Module):
        def forward(self, x):
            return x + torch.cat([x[1:], x[:1]])

    with pytest.raises(CannotExplain, match="depends on the other images"):
        canonize(nn.Sequential(nn.Conv2d(3, 2, 3), Mixing()), IMAGES)


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
