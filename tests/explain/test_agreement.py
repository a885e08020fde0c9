"""What a model does beside its layers is refused, and nothing is left on it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simec_vision import SimilarityHead, SimilarityModel
from simec_vision.explain import CannotExplain, canonize, explain, explain_pair
from simec_vision.items import InputError
from tests.explain.test_relevance import chain, pictures, same, similarity_model


def ask(model, images, question):
    if question == "reference":
        return explain(model, images, "heel", 1)
    return explain_pair(model, images, images.flip(0))


BOTH = pytest.mark.parametrize("question", ["reference", "pair"])


@BOTH
@pytest.mark.parametrize("row", [0, 5])
def test_hook_of_a_thousandth_on_one_image_is_noticed(question, row):
    model, images = similarity_model(dtype=torch.float32), pictures(7, torch.float32)

    def disturb(module, inputs, output):
        found = (inputs[0] == images[row]).flatten(1).all(dim=1)
        return output * (1 + 1e-3 * found[:, None])

    model.encoder.register_forward_hook(disturb)
    with pytest.raises(CannotExplain, match="more than its layers say"):
        ask(model, images, question)


def test_hook_on_a_head_is_noticed():
    model = similarity_model()
    model.head("heel").register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(CannotExplain, match="more than its layers say"):
        explain(model, pictures(), "heel", 1)
    assert explain(model, pictures(), "closure", 1).score.isfinite().all()


def test_head_of_another_function_is_noticed():
    class Squashed(SimilarityHead):
        def forward(self, embedding):
            return super().forward(embedding).sigmoid()

    model = SimilarityModel(chain(), {"heel": Squashed(5, 4)}).double()
    with pytest.raises(CannotExplain, match="more than its layers say"):
        explain(model, pictures(), "heel", 1)


@BOTH
def test_model_that_embeds_differently_is_noticed(question):
    class Normalising(SimilarityModel):
        def embed(self, images):
            return F.normalize(super().embed(images))

    model = Normalising(chain(), {"heel": SimilarityHead(5, 4)}).double()
    with pytest.raises(CannotExplain, match="more than its layers say"):
        ask(model, pictures(), question)


def test_score_that_is_not_finite_is_refused():
    model = similarity_model()
    model.head("heel").weight.data[1] = torch.inf
    with pytest.raises(CannotExplain, match="not finite"):
        explain(model, pictures(), "heel", 1)


def test_embedding_that_is_a_map_is_refused_in_pairs():
    model = similarity_model(nn.Sequential(nn.Conv2d(2, 4, 8)), dim=4)
    with pytest.raises(InputError, match=r"\(batch, embedding\) = \(8, 4\), got \(8, 4, 1, 1\)"):
        explain_pair(model, pictures(8), pictures(8).flip(0))


class Keeping(nn.Module):
    """An encoder that keeps what it computed last, in every way one does."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.kept = nn.Conv2d(2, 2, 3), nn.Linear(72, 5), {"first": []}
        self.list = []
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images):
        self.last = F.relu(self.conv(images))
        self.list.append(self.last)
        self.kept["last"] = self.last
        self.calls.add_(1)
        return self.linear(self.last.flatten(1))


@BOTH
def test_encoder_that_keeps_values_keeps_none_of_ours(question):
    model = similarity_model(Keeping())
    assert ask(model, pictures(), question).relevance.isfinite().all()
    assert not hasattr(model.encoder, "last")
    assert (model.encoder.list, model.encoder.kept) == ([], {"first": []})
    assert model.encoder.calls == 0


def test_hook_that_watches_a_container_sees_values_only():
    encoder, seen = nn.Sequential(chain()[:8], chain()[8:]), []
    model, expected = (
        similarity_model(encoder),
        explain(similarity_model(copy.deepcopy(encoder)), pictures(), "heel", 1),
    )
    watch = model.encoder[0].register_forward_hook(lambda module, inputs, output: seen.append(float(output.sum())))
    model.encoder[0].register_forward_pre_hook(lambda module, inputs: seen.append(float(inputs[0].sum())))
    assert same(explain(model, pictures(), "heel", 1), expected)
    assert seen
    watch.remove()
    assert not model.encoder[0]._forward_hooks


class Merging(nn.Linear):
    """A linear layer that merges a small change into its weight for evaluation (as LoRA layers do)."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.change, self.merged = 0.5, False

    def train(self, mode=True):
        if self.merged is mode:
            self.weight.data += -self.change if mode else self.change
            self.merged = not mode
        return super().train(mode)


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize("end", [nn.Tanh, nn.Softplus])
def test_weights_that_evaluation_merges_are_taken_apart_again(end, inner):
    model = similarity_model(nn.Sequential(nn.Flatten(), Merging(128, 5), end()))
    model.train()
    model.encoder[1].train(inner)
    before = copy.deepcopy(model.state_dict())
    try:
        explain(model, pictures(), "heel", 1)
    except CannotExplain:
        assert end is nn.Softplus
    assert [model.training, model.encoder[1].training, model.encoder[1].merged] == [True, inner, not inner]
    assert all(torch.allclose(value, before[name], atol=1e-15) for name, value in model.state_dict().items())


def test_batchnorm_that_stays_in_training_is_refused_and_keeps_its_statistics():
    class Stubborn(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(True)

    model = similarity_model(nn.Sequential(nn.Conv2d(2, 2, 3), Stubborn(2), nn.Flatten(), nn.Linear(72, 5)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CannotExplain, match=r"encoder\.1: Stubborn that stays in training mode"):
        explain(model, pictures(), "heel", 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_are_those_that_are_explained(norm):
    encoder = nn.Sequential(norm(nn.Conv2d(2, 2, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    model, images = similarity_model(encoder), pictures()
    model.eval()(images)
    for name, parameter in model.encoder[0].named_parameters():
        if name in ("weight_g", "weight_orig"):
            parameter.data.mul_(3)  # as a step of an optimiser: the weight itself is old now
    plain, stale = copy.deepcopy(model.state_dict()), model.encoder[0].weight
    score = explain(model, images, "heel", 1).score
    assert model.encoder[0].weight is stale
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())
    assert torch.allclose(score, model(images)["heel"][:, 1], rtol=1e-9)


class Asserting(nn.Module):
    def forward(self, x):
        assert isinstance(x, torch.Tensor)
        return x


class Looking(nn.Module):
    def forward(self, x):
        return {8: x}[x.shape[-1]]


class Pooling(nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, (x.shape[2], x.shape[3]))


class Viewing(nn.Module):
    def forward(self, x):
        return x.view(dtype=torch.int32)


ODD = {
    "assertion": (Asserting, "depends on its input's values.*AssertionError"),
    "table": (Looking, "depends on its input's values.*KeyError"),
    "pooling": (Pooling, "1: `avg_pool2d` whose size depends on the image"),
    "view": (Viewing, "1: `view` as another type"),
    "lazy": (lambda: nn.LazyConv2d(2, 3), "1: LazyConv2d without weights yet"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_forward_methods_are_refused(name):
    make, message = ODD[name]
    with pytest.raises(CannotExplain, match=message):
        canonize(nn.Sequential(nn.Conv2d(3, 3, 3), make()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_code_is_refused():
    compiled = torch.jit.trace(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8), check_trace=False)
    with pytest.raises(CannotExplain, match="1: compiled code"):
        canonize(nn.Sequential(nn.Conv2d(3, 3, 3), compiled))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": None}, "one index or a tensor with one per image, got None"),
        ({"reference": "1"}, "one index or a tensor with one per image, got '1'"),
        ({"chunk": 0}, "1 or more, got 0"),
        ({"images": torch.full((3, 2, 8, 8), torch.nan)}, "NaN or infinite values"),
    ],
)
def test_mistakes_are_named(arguments, message):
    given = {"images": pictures(), "head": "heel", "reference": 1, **arguments}
    with pytest.raises(InputError, match=message):
        explain(similarity_model(), **given)


def test_delta_is_relative_to_a_negative_score_too():
    model, images = similarity_model(), pictures(8)
    explanation = explain(model, images, "heel", 0)
    assert (explanation.score < 0).all()
    gap = explanation.relevance.sum(dim=(1, 2, 3)) - explanation.score
    assert torch.allclose(explanation.delta, gap / explanation.score, atol=1e-9)
