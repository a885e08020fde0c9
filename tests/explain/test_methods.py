import numpy as np
import pytest
import torch
from torch import nn

from simec_vision import SimilarityHead, SimilarityModel
from simec_vision.encoders import PlainCNN
from simec_vision.explain import CannotExplain, explain, explain_pair
from simec_vision.explain.images import background_colour
from simec_vision.explain.methods import methods, pair_model
from simec_vision.explain.presets import PRESETS
from simec_vision.explain.randomisation import randomisation_curve, randomised_models
from simec_vision.items import InputError

OTHERS = (
    *("integrated_gradients", "saliency", "input_x_gradient", "grad_cam", "guided_grad_cam", "occlusion"),
    *("captum_lrp", "random", "edges"),
)
WORKING = [name for name in OTHERS if name != "captum_lrp"]


def similarity_model(encoder=None, dim=6):
    torch.manual_seed(0)
    encoder = encoder or PlainCNN(dim, size=16, widths=(4, 6))
    return SimilarityModel(encoder, {"heel": SimilarityHead(dim, 5), "closure": SimilarityHead(dim, 3)}).eval()


def pictures(count=3, size=16):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)), torch.tensor(
        [4, 0, 2][:count]
    )


def score(model, images, reference):
    return model(images)["heel"].gather(1, reference[:, None])[:, 0]


def snapshot(model):
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    planted = {
        name: (module.training, sorted(module.__dict__), [len(v) for k, v in module.__dict__.items() if "hooks" in k])
        for name, module in model.named_modules()
    }
    return tensors, planted, [(p.grad, p.requires_grad) for p in model.parameters()]


def test_table_holds_presets_and_others():
    assert list(methods()) == [*PRESETS, *OTHERS]
    assert list(methods(["edges", "a_flat"])) == ["edges", "a_flat"]
    with pytest.raises(InputError, match="did you mean 'occlusion'"):
        methods(["oclusion"])


@pytest.mark.parametrize("context", [torch.enable_grad, torch.inference_mode])
def test_every_method_leaves_the_model_as_it_was(context):
    model = similarity_model()
    model.encoder.layers[3].train()
    images, reference = pictures()
    tensors, planted, gradients = snapshot(model)
    for name, method in methods().items():
        with context():
            if name == "captum_lrp":
                with pytest.raises(CannotExplain, match=r"TypeError.*Flatten"):
                    method(model, images, "heel", reference)
            else:
                heatmap = method(model, images, "heel", reference)
                assert heatmap.shape == (3, 16, 16), name
                assert heatmap.isfinite().all(), name
                assert not heatmap.requires_grad, name
        after = snapshot(model)
        assert all(torch.equal(tensors[key], value) for key, value in after[0].items()), name
        assert after[1:] == (planted, gradients), name
    assert torch.equal(images, pictures()[0])


def test_presets_are_explanations():
    model, (images, reference) = similarity_model(), pictures()
    expected = explain(model, images, "heel", reference, preset="a_flat").relevance.sum(dim=1)
    assert torch.equal(methods()["a_flat"](model, images, "heel", reference), expected)


def test_pairs_are_explained_by_a_head_of_the_others_embeddings():
    model, (images, _) = similarity_model(), pictures()
    others = images.flip(0) + 0.1
    pairs = pair_model(model, others)
    told = explain_pair(model, images, others)
    torch.testing.assert_close(pairs(images)["pair"].diagonal().detach(), told.score, rtol=1e-4, atol=1e-6)
    heatmaps = methods()["a_flat"](pairs, images, "pair", torch.arange(3))
    torch.testing.assert_close(heatmaps, told.relevance.sum(dim=1), rtol=1e-3, atol=1e-7)


def test_gradients():
    model, (images, reference) = similarity_model(), pictures()
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(model, leaf, reference).sum(), leaf)
    saliency, product = (methods()[name](model, images, "heel", reference) for name in ("saliency", "input_x_gradient"))
    torch.testing.assert_close(saliency, gradient.abs().sum(dim=1))
    torch.testing.assert_close(product, (images * gradient).sum(dim=1))


def test_integrated_gradients_sum_to_what_the_background_lacks():
    model, (images, reference) = similarity_model(), pictures()
    heatmaps = methods()["integrated_gradients"](model, images, "heel", reference)
    with torch.no_grad():
        gap = score(model, images, reference) - score(model, background_colour(images).expand_as(images), reference)
    torch.testing.assert_close(heatmaps.sum(dim=(1, 2)), gap, rtol=0.1, atol=0.02 * float(gap.abs().max()))


def test_occlusion_is_what_the_score_loses():
    model, (images, reference) = similarity_model(), pictures(1)
    heatmap = methods()["occlusion"](model, images, "heel", reference)[0]
    covered, background, losses = torch.zeros(16, 16), background_colour(images)[0], torch.zeros(16, 16)
    with torch.no_grad():
        for row in range(15):  # windows of 2 by 2, moved by 1
            for column in range(15):
                other = images.clone()
                other[0, :, row : row + 2, column : column + 2] = background
                lost = float(score(model, images, reference) - score(model, other, reference))
                losses[row : row + 2, column : column + 2] += lost
                covered[row : row + 2, column : column + 2] += 1
    torch.testing.assert_close(heatmap, 3 * losses / covered, rtol=1e-3, atol=1e-5)  # the loss counts for each channel


def test_background_colour_is_that_of_the_outermost_pixels():
    images = torch.zeros(2, 2, 4, 5)
    images[0, 1, 1:-1, 1:-1] = 7.0
    images[0, 0, 0, :] = 14.0  # 5 of 14 pixels: an object that touches the edge
    images[1, 0, 0, :], images[1, 0, :, 0] = 3.0, 3.0  # 8 of 14
    torch.testing.assert_close(background_colour(images)[:, :, 0, 0], torch.tensor([[0.0, 0.0], [3.0, 0.0]]))


def test_captums_lrp_runs_where_the_network_has_only_what_it_knows():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 4, 3, stride=3), nn.ReLU()
            self.embedding_dim = 100

        def forward(self, images):
            return self.relu(self.conv(images)).flatten(1)

    model, (images, reference) = similarity_model(Flat(), 100), pictures()
    shipped = methods()["captum_lrp"](model, images, "heel", reference)
    product = methods()["input_x_gradient"](model, images, "heel", reference)
    torch.testing.assert_close(shipped, product, rtol=1e-3, atol=1e-6)  # which is what it is without other rules


def test_blind_methods():
    model, (images, reference) = similarity_model(), pictures()
    edges = methods()["edges"]
    assert edges(model, torch.full_like(images, 0.7), "heel", reference).abs().max() < 1e-5
    step = torch.zeros(1, 3, 6, 6)
    step[:, :, :, 3:] = 1.0
    columns = edges(model, step, "heel", reference[:1])[0].mean(dim=0)
    np.testing.assert_allclose(columns, [0, 0, 4, 4, 0, 0], atol=1e-6)
    noise = methods()["random"]
    assert not torch.equal(noise(model, images, "heel", reference), noise(model, images, "heel", reference))


def test_weights_become_random_from_the_head_down():
    model = similarity_model()
    model.encoder.layers[4].weight.data.uniform_(0.5, 1.5)  # all 1 at first, which has no spread
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places, changed = [], []
    for place, other in randomised_models(model, "heel"):
        state = other.state_dict()
        places.append(place)
        changed.append({name.rsplit(".", 1)[0] for name in before if not torch.equal(before[name], state[name])})
    assert places == ["heads.heel", *(f"encoder.layers.{layer}" for layer in (9, 4, 3, 0))]
    assert changed == [set(places[: count + 1]) for count in range(5)]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_random_weights_keep_their_scale():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 6))
    model = similarity_model(encoder)
    *_, (_, other) = randomised_models(model, "heel", seed=1)
    old, new = (layer.weight.detach() for layer in (encoder[1], other.encoder[1]))
    assert float(new.std() / old.std()) == pytest.approx(1, abs=0.05)
    assert float(new.mean()) == pytest.approx(float(old.mean()), abs=0.002)
    assert abs(float(torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1])) < 0.1


def test_randomisation_tells_what_shows_the_image_from_what_shows_the_model():
    model, (images, reference) = similarity_model(), pictures()
    curves = {
        name: randomisation_curve(methods()[name], model, images, "heel", reference, seed=2)
        for name in ("edges", "input_x_gradient")
    }
    assert list(curves["edges"].values()) == pytest.approx([1.0] * 5)
    assert abs(list(curves["input_x_gradient"].values())[-1]) < 0.3
    again = randomisation_curve(methods()["input_x_gradient"], model, images, "heel", reference, seed=2)
    assert again == curves["input_x_gradient"]
