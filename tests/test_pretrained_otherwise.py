"""Encoders pretrained otherwise: auto-encoders, labels, some classes only; and what embeddings are good for."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from simec_vision.cli.main import main
from simec_vision.cli.saved import load_pretrained
from simec_vision.datamodules import DrawnShoes
from simec_vision.finetuning import Mirrored
from simec_vision.items import InputError
from tests.test_cli import QUICK, SHOES, fails

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]
DATA = SHOES[:-2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An auto-encoder, a classifier of all labels, and two Similarity Encoders of two categories."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["--data.count", "200", "--data.size", "32", "--data.cache", "false", *QUICK]
    two = ["--keep", "{Category: [Boots, Sandals]}", "--references", "20", "--heatmaps", "false"]
    chosen = ["--data", "DrawnShoes", "--encoder", "PlainCNN", "--encoder.size", "32", "--labels", "null"]
    for name, command, more in (
        ("ae", "pretrain", ["autoencoder"]),
        ("labels", "finetune", [*chosen, "--probe", "false", "--choose", "last"]),
        ("two", "pretrain", two),
        ("other", "pretrain", [*two, "--optimisation.lr", "1e-4"]),
    ):
        task, rest = (more[:1], more[1:]) if more[0] == "autoencoder" else ([], more)
        first = ["--data", "DrawnShoes"] if "--data" in rest else []
        assert main(command, [*task, *first, *options, *rest, "--out", str(folder / name)]) == 0
        os.environ.pop("SIMEC_VISION_RUN", None)
    return folder


def read(path):
    return json.loads(Path(path).read_text())


def test_an_auto_encoder_writes_a_run_that_can_be_fine_tuned(runs):
    summary = read(runs / "ae" / "summary.json")
    assert 0 < summary["reconstruction/mse"] < 10
    assert (runs / "ae" / "reconstructions.png").stat().st_size > 5000
    assert main("finetune", ["--model", str(runs / "ae"), *QUICK, "--labels", "40", "--out", "tuned"]) == 0
    assert read("tuned/summary.json")["pretraining"] == "ae_full"
    assert main("finetune", ["--config", "tuned/config.yaml", "--out", "again"]) == 0
    assert read("again/summary.json")["test/accuracy"] == read("tuned/summary.json")["test/accuracy"]


def test_what_was_left_out_of_pretraining_is_not_explained(runs):
    assert main("explain", ["--model", str(runs / "two"), "--images", "6", "--pairs", "false", "--out", "drawn"]) == 0
    data = DrawnShoes(count=200, size=32, cache=False)
    with np.load("drawn/relevance.npz") as arrays:
        shown = data.items.column("Category")[data.items.positions(arrays["images"].tolist())]
    assert set(shown) == {"Boots", "Sandals"}


def test_a_decoder_does_not_draw_the_numbers_of_its_encoder():
    data = ["--data", "DrawnShoes", "--data.count", "100", "--data.size", "32", "--data.cache", "false"]
    still = ["--optimisation.lr", "0", "--encoder", "PlainCNN", "--encoder.size", "32"]
    assert main("pretrain", ["autoencoder", *data, *QUICK, *still, "--seed", "3", "--out", "still"]) == 0
    weights = torch.load("still/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    drawn = torch.stack([w.flatten() / w.std() for w in weights.values() if w.dim() == 2])
    assert drawn.shape[0] == 2
    one, other = torch.fft.rfft(drawn.double())
    assert torch.fft.irfft(one * other.conj()).abs().max() < 0.2 * drawn.shape[1]  # at no distance alike


def test_a_fine_tuning_can_be_fine_tuned(runs):
    options = ["--model", str(runs / "labels"), *QUICK, "--labels", "40", "--probe", "false"]
    assert main("finetune", [*options, "--trainer.max_epochs", "0", "--trainer.max_steps", "0", "--out", "same"]) == 0
    assert read("same/summary.json")["pretraining"] == "labels"
    before, after = (load_file(run / "model" / "classifier.safetensors") for run in (runs / "labels", Path("same")))
    names = [name for name in before if name.startswith("encoder.")]
    assert all(torch.equal(before[name], after[name]) for name in names)


def test_the_last_epoch_needs_no_validation_labels(runs):
    summary = read(runs / "labels" / "summary.json")
    assert (summary["validation_labels"], summary["pretraining"], summary["labels"]) == (0, "none", 160)


def test_only_some_classes_are_used(runs):
    names = read(runs / "two" / "model" / "model.json")["about"]["references"]["heel"]
    data = DrawnShoes(200, 32, cache=False)
    categories = data.items.columns["Category"][data.items.positions(names)]
    assert set(categories) == {"Boots", "Sandals"}
    options = ["--model", str(runs / "two"), *QUICK, "--labels", "20", "--probe", "false"]
    assert main("finetune", [*options, "--keep", "{Category: [Shoes, Slippers]}", "--out", "others"]) == 0
    assert read("others/model/classifier.json")["classes"] == ["Shoes", "Slippers"]


def test_use_only_renumbers_classes_and_names_what_is_unknown():
    data = DrawnShoes(200, 32, cache=False)
    everything = {name: data.split(name) for name in ("train", "validation", "test")}
    codes, names = data.items.classes("Category")
    data.use_only({"Category": [names[1], names[3]]})
    assert data.use_labels("Category") == [names[1], names[3]]
    for name, items in everything.items():
        kept = [item for item in items.tolist() if codes[item] in (1, 3)]
        assert data.subset(name).tolist() == kept
        assert data.labels[kept].tolist() == [int(codes[item] == 3) for item in kept]
    with pytest.raises(InputError, match="'Boot': did you mean 'Boots'"):
        data.use_only({"Category": ["Boot"]})
    with pytest.raises(InputError, match="none has what is wanted"):
        data.use_only({"Category": [names[0]], "HeelHeight": ["0"]})


def test_mistakes_are_named(runs, capsys):
    assert main("pretrain", ["autoencode", *DATA]) == 2
    assert "did you mean 'autoencoder'" in capsys.readouterr().err
    assert main("pretrain", ["autoencoder", *DATA, "--encoder", "ResidualNet", *QUICK, "--out", "refused"]) == 2
    assert "decoder linear" in capsys.readouterr().err
    assert "no model beside the encoder" in fails(
        capsys, "finetune", "--model", str(runs / "two"), "--encoder", "PlainCNN", "--encoder.size", "32"
    )
    for labels in ("20", "[20, 30]"):
        wrong = ["--model", str(runs / "two"), "--labels", labels, "--label_smoothing", "1"]
        assert "label_smoothing of at least 0 and below 1, got 1" in fails(capsys, "finetune", *wrong)
    for name, told in (("labels", "model.json"), ("ae", "auto-encoder's")):
        assert main("explain", ["--model", str(runs / name)]) == 2
        assert told in capsys.readouterr().err
    for option, value in (("at", "[0]"), ("per_class", "[]"), ("probe", "1"), ("seed", "-1"), ("matched", "2")):
        assert main("evaluate", ["embedding", "--model", str(runs / "two"), f"--{option}", value]) == 2
        assert f"Expected {option}" in capsys.readouterr().err
    assert main("evaluate", ["embedding", "--model", str(runs / "two"), "--per_class", "[5000]"]) == 2
    assert "the images of the smallest class, got 5000" in capsys.readouterr().err


def test_embeddings_are_measured(runs):
    for name in ("two", "ae", "labels"):
        options = ["--model", str(runs / name), "--per_class", "[1,3]", "--tries", "2", "--at", "[1,5]"]
        assert main("evaluate", ["embedding", *options, "--out", name]) == 0
        summary = read(f"{name}/summary.json")
        assert set(summary["neighbours"]) == {"1", "3"}
        assert set(summary["retrieval"]) == {"precision@1", "precision@5", "map"}
        assert 0 <= summary["kernel_pca"]["r2"] <= 1
        os.environ.pop("SIMEC_VISION_RUN", None)
    measured, told = read("two/summary.json")["similarity"], read(runs / "two" / "summary.json")
    assert set(measured) == {"heel", "heel/dot_product", "closure", "closure/dot_product"}
    assert 0 < measured["heel"]["mse"] < 2 * max(told["similarity/heel/mse"], 0.1)


def test_embeddings_of_images_and_mirror_images(runs):
    options = ["--model", str(runs / "two"), "--per_class", "[1]", "--tries", "2", "--at", "[1]"]
    assert main("evaluate", ["embedding", *options, "--mirrored", "true", "--out", "both"]) == 0
    os.environ.pop("SIMEC_VISION_RUN", None)
    assert main("evaluate", ["embedding", *options, "--out", "one"]) == 0
    both, one = read("both/summary.json"), read("one/summary.json")
    assert both["mirrored"]
    assert "mirrored" not in one
    assert both["kernel_pca"] != one["kernel_pca"]
    assert both["similarity"] == one["similarity"]
    encoder = load_pretrained(runs / "two").encoder.eval()
    images = torch.randn(3, 3, 32, 32)
    expected = (encoder(images) + encoder(images.flip(3))) / 2
    assert torch.allclose(Mirrored(encoder)(images), expected)
    assert torch.allclose(Mirrored(encoder)(images.flip(3)), expected, atol=1e-6)


def test_the_line_between_two_solutions_goes_through_both(runs):
    for model, other in (("two", "other"), (None, "labels")):
        start = [] if model is None else ["--model", str(runs / model)]
        assert main("evaluate", ["line", *start, "--other", str(runs / other), "--points", "4", "--out", other]) == 0
        os.environ.pop("SIMEC_VISION_RUN", None)
        rows = read(f"{other}/summary.json")["line"]
        assert all(math.isfinite(row[name]) for row in rows for name in ("train", "test"))
    line = read("other/summary.json")["line"]
    assert [row["alpha"] for row in line] == [-1, 0, 1, 2]
    assert main("evaluate", ["line", "--model", str(runs / "other"), "--other", str(runs / "two"), "--points", "4",
                             "--out", "back"]) == 0  # fmt: skip
    back = read("back/summary.json")["line"]
    assert [row["test"] for row in back] == pytest.approx([row["test"] for row in line[::-1]], rel=1e-4)
    assert (Path("other") / "line.png").stat().st_size > 5000


def test_solutions_of_two_kinds_have_no_line(runs, capsys):
    assert main("evaluate", ["line", "--model", str(runs / "two"), "--other", str(runs / "labels")]) == 2
    assert "got pretrain and finetune" in capsys.readouterr().err
    assert load_pretrained(runs / "ae").name == "ae_full"


def test_a_run_that_lost_only_its_end_is_finished_as_it_was(runs):
    for name, command in (("labels", "finetune"), ("ae", "pretrain"), ("two", "pretrain")):
        whole = read(runs / name / "summary.json")
        shutil.copytree(runs / name, name)
        Path(name, "summary.json").unlink()
        shutil.rmtree(Path(name, "model"))
        task = ["autoencoder"] if name == "ae" else []
        assert main(command, [*task, "--resume", name]) == 0
        os.environ.pop("SIMEC_VISION_RUN", None)
        assert read(f"{name}/summary.json") == whole


def test_a_run_is_saved_between_validations_that_are_far_apart(runs, monkeypatch):
    from simec_vision.cli.runs import LastCheckpoint

    saved = []
    write = LastCheckpoint.on_train_epoch_end
    monkeypatch.setattr(
        LastCheckpoint,
        "on_train_epoch_end",
        lambda self, trainer, module: (write(self, trainer, module), saved.append(self.path.is_file())),
    )
    far = ["--trainer.max_epochs", "7", "--trainer.check_val_every_n_epoch", "7", "--heatmaps", "false"]
    assert main("pretrain", [*SHOES, *QUICK, *far, "--out", "run"]) == 0
    assert saved == [True] * 7


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_trainer_can_clip_where_the_optimisation_does_not(runs, precision):
    sgd = ["--optimisation.optimizer", "sgd", "--optimisation.schedule", "constant", "--optimisation.lr", "1"]
    options = ["--model", str(runs / "two"), *QUICK, *sgd, "--labels", "32", "--probe", "false", "--choose", "last"]
    options += ["--trainer.precision", precision]
    moved = []
    for more in (["--trainer.gradient_clip_val", "1e-6"], ["--optimisation.clip", "1e-6"], []):
        assert main("finetune", [*options, *more, "--out", f"run{len(moved)}"]) == 0
        os.environ.pop("SIMEC_VISION_RUN", None)
        weights = load_file(Path(f"run{len(moved)}") / "model" / "classifier.safetensors")
        moved.append(float(weights["linear.weight"].norm()))
    assert moved[0] < 1e-5
    assert moved[0] == pytest.approx(moved[1])
    assert moved[2] > 1e-2
