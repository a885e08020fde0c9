import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from simec_vision import SimilarityHead, SimilarityModel
from simec_vision.encoders import MLP, CifarCNN, PlainCNN, ShoeCNN
from simec_vision.explain import CannotExplain, Explanation, explain, explain_pair
from simec_vision.explain.presets import INPUT_LAYER
from simec_vision.explain.rules import AlphaBeta, Epsilon, Flat
from tests.explain import oracles

LOSSLESS = [(INPUT_LAYER, Flat()), (nn.Conv2d, AlphaBeta()), (nn.Linear, Epsilon(1e-12))]
"""a_flat without its ε: conserves relevance in a network without biases."""


def chain(bias=True, pool=nn.AvgPool2d):
    """Everything a plain chain can have; with the tanh, convolutions get signed inputs, too."""
    return nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 2, bias=bias), nn.Tanh(), nn.Conv2d(4, 4, 2, padding=1, bias=bias), nn.ReLU(), pool(2)),
        *(nn.Flatten(), nn.Linear(16, 6, bias=bias), nn.Tanh(), nn.Linear(6, 5, bias=bias)),
    )


def similarity_model(encoder=None, dim=5, dtype=torch.float64):
    torch.manual_seed(0)
    heads = {"heel": SimilarityHead(dim, 4), "closure": SimilarityHead(dim, 3)}
    return SimilarityModel(chain() if encoder is None else encoder, heads).to(dtype)


def pictures(count=3, dtype=torch.float64):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


def same(first: Explanation, second: Explanation):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("relevance", "score", "delta"))


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_a_flat_is_the_formulas_layer_by_layer(pool):
    model, images, reference = similarity_model(chain(pool=pool)), pictures(), torch.tensor([3, 0, 2])
    for parameter in model.encoder.parameters():  # larger weights: relevance must not vanish in ε
        parameter.data.mul_(2)
    explanation = explain(model, images, "heel", reference)
    weight = model.head("heel").weight.detach()
    for i in range(len(images)):
        expected = oracles.a_flat(list(model.encoder), images[i], weight[reference[i]])
        np.testing.assert_allclose(explanation.relevance[i], expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
        assert np.abs(expected).max() > 1e-6


def test_a_flat_with_batchnorm_is_the_formulas_layer_by_layer():
    encoder = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 5)),
    )
    model, images = similarity_model(encoder), pictures()
    for norm in (encoder[1], encoder[5]):
        for values in (norm.running_mean, norm.weight.data, norm.bias.data):
            values.normal_()
        norm.running_var.uniform_(0.3, 1.3)
    explanation, readout = explain(model, images, "heel", 2), model.head("heel").weight.detach()[2]
    for i in range(len(images)):
        expected = oracles.a_flat(oracles.without_batchnorm(encoder), images[i], readout)
        np.testing.assert_allclose(explanation.relevance[i], expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())
        assert np.abs(expected).max() > 1e-6


@pytest.mark.parametrize("pool", [nn.AvgPool2d, nn.MaxPool2d])
def test_epsilon_preset_conserves_without_biases(pool):
    model = similarity_model(chain(bias=False, pool=pool))
    for parameter in model.parameters():  # larger values: ε = 1e-6 must not matter
        parameter.data.mul_(3)
    for explanation in (
        explain(model, pictures(), "heel", 1, preset="epsilon"),
        explain_pair(model, pictures(), pictures().flip(0), preset="epsilon"),
    ):
        assert explanation.delta.abs().max() < 1e-3
        assert explanation.relevance.abs().max() > 1e-3


def test_score_is_the_predicted_similarity_and_delta_the_gap():
    model, images = similarity_model(), pictures()
    explanation = explain(model, images, "closure", 1)
    score = model(images)["closure"][:, 1].detach()
    assert torch.allclose(explanation.score, score, atol=1e-12)
    gap = explanation.relevance.sum(dim=(1, 2, 3)) - score
    assert torch.allclose(explanation.delta, gap / score, atol=1e-9)
    assert explanation.relevance.shape == images.shape


def test_nothing_is_lost_without_biases():
    # Positive maps and max-pooling: no cell of a pooled map is a sum of cancelling parts.
    encoder = nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 5, bias=False)),
    )
    model = similarity_model(encoder)
    for parameter in encoder[3].parameters():
        parameter.data.abs_()  # every output that has relevance has a positive contribution
    explanation = explain(model, pictures(6), "heel", 2, preset=LOSSLESS)
    assert explanation.delta.abs().max() < 1e-8
    assert explain(model, pictures(6), "heel", 2).delta.abs().min() > 1e-3  # ε = 0.1 takes its part


def test_epsilon_preset_is_gradient_times_input():
    model, images = similarity_model(chain(bias=False, pool=nn.MaxPool2d)), pictures()
    model.encoder[4] = model.encoder[10] = nn.ReLU()
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)["heel"][:, 1].sum(), leaf)
    relevance = explain(model, images, "heel", 1, preset=[((nn.Conv2d, nn.Linear), Epsilon(1e-12))]).relevance
    assert torch.allclose(relevance, images * gradient, atol=1e-8)


def test_second_call_is_bit_identical():
    model, images = similarity_model(dtype=torch.float32), pictures(dtype=torch.float32)
    assert same(explain(model, images, "heel", 1), explain(model, images, "heel", 1))


def snapshot(model):
    return {name: (module.training, *planted(module)) for name, module in model.named_modules()}


def planted(module):
    return sorted(module.__dict__), [len(value) for key, value in module.__dict__.items() if "hooks" in key and value]


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_was(training):
    model = similarity_model(PlainCNN(5, size=8, channels=2, widths=(3, 4), dropout=0.5), dtype=torch.float32)
    model.train(training)
    model.encoder.layers[1].eval()  # frozen statistics
    model.encoder.layers[0].weight.requires_grad_(False)
    images = pictures(dtype=torch.float32)
    modules, state = snapshot(model), copy.deepcopy(model.state_dict())
    needs = [parameter.requires_grad for parameter in model.parameters()]
    storage = [parameter.data_ptr() for parameter in model.parameters()]
    kept = images.clone()
    explain(model, images, "heel", 1)
    explain_pair(model, images, images.flip(0))
    assert snapshot(model) == modules
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert [parameter.data_ptr() for parameter in model.parameters()] == storage
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(images, kept)
    assert not images.requires_grad


def test_train_mode_explains_evaluation_mode():
    model = similarity_model(PlainCNN(5, size=8, channels=2, widths=(3, 4), dropout=0.5), dtype=torch.float32)
    images = pictures(dtype=torch.float32)
    assert same(explain(model.train(), images, "heel", 1), explain(model.eval(), images, "heel", 1))


def test_batch_is_one_by_one_and_chunks_do_not_matter():
    model, images, reference = similarity_model(), pictures(5), torch.tensor([1, 0, 3, 3, 2])
    together = explain(model, images, "heel", reference)
    chunked = explain(model, images, "heel", reference, chunk=2)
    for i in range(5):
        alone = explain(model, images[i : i + 1], "heel", int(reference[i]))
        for other in (together, chunked):
            assert torch.allclose(alone.relevance[0], other.relevance[i], atol=1e-12)
            assert torch.allclose(alone.score[0], other.score[i], atol=1e-12)


def test_chunk_of_one_is_chunk_of_64():
    model, images = similarity_model(), pictures(5)
    for call in (
        lambda n: explain(model, images, "heel", 1, chunk=n),
        lambda n: explain_pair(model, images, images.flip(0), chunk=n),
    ):
        one, all_at_once = call(1), call(64)
        for name in ("relevance", "score", "delta"):
            assert torch.allclose(getattr(one, name), getattr(all_at_once, name), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_dense_encoder_of_the_package(activation):
    model, images = similarity_model(MLP(128, 5, (7, 6), activation)), pictures()
    relevance = explain(model, images, "heel", 1).relevance
    for i in range(len(images)):
        expected = oracles.a_flat(list(model.encoder.layers), images[i], model.head("heel").weight.detach()[1])
        np.testing.assert_allclose(relevance[i], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "encoder", [CifarCNN(5, size=8), ShoeCNN(5, size=20), PlainCNN(5, size=16, widths=(3, 4)), MLP(192, 5, (6,))],
    ids=["cifar", "shoe", "plain", "mlp"],
)  # fmt: skip
def test_encoders_of_the_package_are_explained(encoder):
    size = encoder.options.get("size", 8)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    model = similarity_model(copy.deepcopy(encoder), dtype=torch.float32)
    explanation = explain(model, images, "heel", 3)
    assert explanation.relevance.shape == images.shape
    assert explanation.relevance.isfinite().all()
    assert explanation.relevance.flatten(1).abs().sum(1).min() > 0
    expected = model.eval()(images)["heel"][:, 3].detach()
    assert torch.allclose(explanation.score, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_callers_mode_does_not_matter(mode):
    model = similarity_model(dtype=torch.float32)
    expected = explain(model, pictures(dtype=torch.float32), "heel", torch.tensor([1, 2, 3]))
    expected_pair = explain_pair(model, pictures(dtype=torch.float32), pictures(dtype=torch.float32).flip(0))
    with mode():
        images = pictures(dtype=torch.float32)
        assert same(explain(model, images, "heel", torch.tensor([1, 2, 3])), expected)
        assert same(explain_pair(model, images, images.flip(0)), expected_pair)
        assert torch.is_grad_enabled() == (mode not in (torch.no_grad, torch.inference_mode))


def test_results_are_plain_values():
    images = pictures().requires_grad_()
    explanation = explain(similarity_model(), images, "heel", 1)
    for value in (explanation.relevance, explanation.score, explanation.delta):
        assert not value.requires_grad
        assert not value.is_inference()


def test_half_precision_model_is_explained_in_full():
    model = similarity_model(dtype=torch.float32).bfloat16()
    rounded = copy.deepcopy(model).float()
    images = pictures(dtype=torch.float32)
    explanation = explain(model, images, "heel", 1)
    assert explanation.relevance.dtype == explanation.score.dtype == torch.float32
    assert torch.allclose(explanation.relevance, explain(rounded, images, "heel", 1).relevance, atol=1e-7)


def test_pair_score_is_symmetric_and_the_inner_product():
    model, images, others = similarity_model(), pictures(), pictures(6)[3:]
    there, back = explain_pair(model, images, others), explain_pair(model, others, images)
    product = (model.embed(images) * model.embed(others)).sum(dim=1).detach()
    assert torch.allclose(there.score, product, atol=1e-12)
    assert torch.allclose(back.score, product, atol=1e-12)
    assert not torch.allclose(there.relevance, back.relevance)


def test_pair_is_a_head_whose_rows_are_the_other_embeddings():
    model, images, others = similarity_model(), pictures(), pictures(6)[3:]
    rows = model.embed(others).detach()
    model.heads["others"] = SimilarityHead(5, 3, weight=rows)
    as_reference = explain(model, images, "others", torch.arange(3))
    assert torch.allclose(explain_pair(model, images, others, chunk=2).relevance, as_reference.relevance, atol=1e-12)


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hook_that_changes_values_is_noticed(kind):
    model = similarity_model()
    getattr(model.encoder[3], kind)(lambda module, *values: values[0][0] + 1 if len(values) == 1 else values[1] + 1)
    with pytest.raises(CannotExplain, match="more than its layers say"):
        explain(model, pictures(), "heel", 1)


def test_hook_that_only_watches_is_kept():
    model, expected, seen = similarity_model(), explain(similarity_model(), pictures(), "heel", 1), []
    model.encoder[3].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert same(explain(model, pictures(), "heel", 1), expected)
    assert seen
    assert len(model.encoder[3]._forward_hooks) == 1


def test_encoder_without_weights_is_refused():
    model = similarity_model(nn.Flatten(), dim=128)
    with pytest.raises(CannotExplain, match="an encoder without weights"):
        explain(model, pictures(), "heel", 1)


def test_dense_encoder():
    model = similarity_model(MLP(128, 5, (7,)))
    explanation = explain(model, pictures(), "heel", 0)
    assert (explanation.relevance - explanation.relevance.mean(dim=(1, 2, 3), keepdim=True)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "heal"}, "'heal': did you mean 'heel'.*closure, heel"),
        ({"preset": "aflat"}, "'aflat': did you mean 'a_flat'"),
        ({"reference": 4}, "between 0 and 3, head 'heel' has no 4"),
        ({"reference": -1}, "between 0 and 3, head 'heel' has no -1"),
        ({"reference": torch.tensor([0, 1])}, r"shape \(batch\) = \(3\), got \(2,\)"),
        ({"reference": torch.tensor([0.0, 1.0, 2.0])}, "one index.*float32"),
        ({"reference": torch.tensor([True, False, True])}, "one index.*torch.bool"),
        ({"reference": torch.tensor([0, 1, 7])}, "between 0 and 3, head 'heel' has no 7"),
        ({"head": "closure", "reference": 3}, "between 0 and 2, head 'closure' has no 3"),
        ({"images": pictures()[0]}, r"= \(batch, 8, height, width\)|\(batch, 2, height, width\), got \(2, 8, 8\)"),
        (
            {"images": torch.zeros(3, 3, 8, 8)},
            r"\(batch, 2, height, width\) as the encoder takes them, got \(3, 3, 8, 8\)",
        ),
        ({"images": torch.zeros(3, 2, 9, 12)}, r"as the encoder takes them, got \(3, 2, 9, 12\)"),
        ({"images": torch.zeros(3, 2, 8, 8, dtype=torch.uint8)}, "floating-point numbers, got torch.uint8"),
        ({"images": torch.full((3, 2, 8, 8), torch.nan)}, "finite"),
        ({"images": torch.zeros(0, 2, 8, 8)}, r"got \(0, 2, 8, 8\)"),
    ],
)
def test_mistakes_are_named(arguments, message):
    given = {"images": pictures(), "head": "heel", "reference": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        explain(similarity_model(), **given)


def test_mistakes_in_pairs_are_named():
    with pytest.raises(ValueError, match=r"as many others as images \(3\), got 2"):
        explain_pair(similarity_model(), pictures(), pictures(2))
    with pytest.raises(ValueError, match=r"normalised others of shape .*got \(3, 1, 8, 8\)"):
        explain_pair(similarity_model(), pictures(), torch.zeros(3, 1, 8, 8))


def test_encoder_of_another_output_is_named():
    with pytest.raises(ValueError, match=r"\(batch, embedding\) = \(3, 5\), got \(3, 2, 6, 6\)"):
        explain(similarity_model(nn.Sequential(nn.Conv2d(2, 2, 3))), pictures(), "heel", 1)


def test_what_has_no_rule_is_refused_and_the_mode_comes_back():
    model = similarity_model(nn.Sequential(chain(), nn.Softplus())).train()
    with pytest.raises(CannotExplain, match="1: Softplus"):
        explain(model, pictures(), "heel", 1)
    assert all(module.training for module in model.modules())


def test_import_is_cheap():
    code = "import json, sys, simec_vision.explain; print(json.dumps([*sys.modules]))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert not {"captum", "matplotlib", "matplotlib.pyplot"} & set(modules)
