import json
import pickle

import pytest
import torch
from torch import nn

from simec_vision import InputError, SimilarityHead, SimilarityModel
from simec_vision.encoders import (
    ENCODERS,
    MLP,
    CifarCNN,
    PlainCNN,
    PooledResidualNet,
    ResidualNet,
    ShoeCNN,
    TorchvisionEncoder,
)

ENCODER_CASES = [
    (CifarCNN(16), 32),
    (CifarCNN(16, size=(24, 32), channels=1), (24, 32)),
    (ShoeCNN(8, size=40), 40),
    (PlainCNN(8), 136),
    (PlainCNN(8, size=32), 32),
    (PlainCNN(8, size=(102, 136)), (102, 136)),
    (ResidualNet(8, width=4), 32),
    (PooledResidualNet(8, widths=(4, 6)), (16, 24)),
    (TorchvisionEncoder("squeezenet1_1", 8), 64),
    (TorchvisionEncoder("mobilenet_v3_small", 8), 64),
    (MLP(48, 5, (7,)), 4),
]


@pytest.mark.parametrize(("encoder", "size"), ENCODER_CASES, ids=lambda value: type(value).__name__)
def test_every_encoder_embeds_and_is_rebuilt(encoder, size, tmp_path):
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.randn(2, encoder.options.get("channels", 3), height, width)
    model = SimilarityModel(encoder, {"s": SimilarityHead(encoder.embedding_dim, 6)}, {"note": [1, 2]}).eval()
    model.save(tmp_path)
    loaded = SimilarityModel.load(tmp_path).eval()
    assert model.embed(images).shape == (2, encoder.embedding_dim)
    assert torch.equal(loaded(images)["s"], model(images)["s"])
    assert loaded.about == {"note": [1, 2]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_classifiers_are_rebuilt_as_with_pretrained_weights(name, tmp_path, monkeypatch):
    from torchvision import models

    given = models.get_model(name, weights=None, init_weights=False).state_dict()  # what a download would give
    monkeypatch.setattr(models.get_model_weights(name), "get_state_dict", lambda *_, **__: given)
    encoder = TorchvisionEncoder(name, 4, weights="DEFAULT")
    model = SimilarityModel(encoder, {"s": SimilarityHead(4, 6)}).eval()
    model.save(tmp_path)
    loaded, images = SimilarityModel.load(tmp_path).eval(), torch.randn(1, 3, 96, 96)
    assert loaded.encoder.options == {"name": name, "embedding_dim": 4, "transform_input": True}
    assert torch.equal(loaded(images)["s"], model(images)["s"])
    assert not any("aux" in key.lower() for key in model.state_dict())
    assert TorchvisionEncoder(name, 4).options["transform_input"] is False
    with pytest.raises(InputError, match="transform_input of googlenet or inception_v3 only"):
        TorchvisionEncoder("alexnet", 4, transform_input=True)


def test_the_original_cnns_have_the_original_sizes():
    def count(encoder):
        return [tuple(p.shape) for name, p in encoder.named_parameters() if name.endswith("weight")]

    assert count(CifarCNN()) == [(16, 3, 5, 5), (8, 16, 3, 3), (512, 512), (512, 512)]
    assert count(ShoeCNN()) == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (512, 64 * 32 * 32)]


def test_branch_is_encoder_then_head_and_shares_weights():
    model = SimilarityModel(MLP(12, 4), {"a": SimilarityHead(4, 5), "b": SimilarityHead(4, 3)})
    images = torch.randn(2, 3, 2, 2)
    assert torch.equal(model.branch("b")(images), model(images)["b"])
    assert torch.equal(model(images)["a"], model.embed(images) @ model.head("a").weight.T)
    with torch.no_grad():
        model.head("b").weight.zero_()
    assert model.branch("b")(images).abs().sum() == 0


def test_user_module_is_loaded_with_its_encoder(tmp_path):
    own = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    model = SimilarityModel(own, {"a": SimilarityHead(4, 5)})
    model.save(tmp_path)
    with pytest.raises(InputError, match=r"'Sequential'.*encoder="):
        SimilarityModel.load(tmp_path)
    again = SimilarityModel.load(tmp_path, encoder=nn.Sequential(nn.Flatten(), nn.Linear(12, 4)))
    images = torch.randn(2, 3, 2, 2)
    assert torch.equal(again(images)["a"], model(images)["a"])


def test_wrong_names_and_sizes_are_named():
    model = SimilarityModel(MLP(12, 4), {"heel": SimilarityHead(4, 5)})
    with pytest.raises(InputError, match="got 'hel': did you mean 'heel'"):
        model.branch("hel")
    with pytest.raises(ValueError, match=r"'heel' for embeddings of length 4.*got one for 7"):
        SimilarityModel(MLP(12, 4), {"heel": SimilarityHead(7, 5)})
    with pytest.raises(InputError, match="got 'resnet81': did you mean 'resnet18'"):
        TorchvisionEncoder("resnet81")


def test_damaged_or_foreign_files_are_refused(tmp_path):
    model = SimilarityModel(MLP(12, 4), {"heel": SimilarityHead(4, 5)})
    with pytest.raises(InputError, match=r"no .*model\.json"):
        SimilarityModel.load(tmp_path)
    model.save(tmp_path)
    SimilarityModel(MLP(12, 3), {"heel": SimilarityHead(3, 5)}).save(tmp_path / "other")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"belongs to another one.*size mismatch"):
        SimilarityModel.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"weights of a model in .*model\.safetensors"):
        SimilarityModel.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"encoder": {"kind": "CifarCN", "options": {}}, "heads": {}}))
    with pytest.raises(InputError, match="did you mean 'CifarCNN'"):
        SimilarityModel.load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(InputError, match=r"description of a model in .*model\.json"):
        SimilarityModel.load(tmp_path)


def test_encoders_are_known_by_their_class_names():
    assert all(ENCODERS[type(encoder).__name__] is type(encoder) for encoder, _ in ENCODER_CASES)
