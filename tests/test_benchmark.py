"""The command `benchmark` at tiny sizes, and whether what it measures with is right."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from simec_vision import SimilarityHead, SimilarityModel
from simec_vision.cli.clock import Clock, Epoch, train
from simec_vision.cli.comparison import Comparison
from simec_vision.cli.explanation_speed import HEAD, case, plain_flipping
from simec_vision.cli.loops import BareLoop, NaiveLoop, naive_penalties
from simec_vision.cli.made_images import Part, RandomImages, mapped, write_random_pixels
from simec_vision.cli.main import main
from simec_vision.cli.processes_speed import steady_rate
from simec_vision.cli.timing import in_own_process, interleaved, memory, ratios, spread
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.image_data import Batches
from simec_vision.encoders import MLP, PlainCNN
from simec_vision.explain.flipping import flipping_curve
from simec_vision.items import InputError
from simec_vision.losses import gram_penalty_block
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective, Pretraining

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]
CPU = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
ONCE = ["--repeats", "1", "--out", "measured"]


def measured(*options):
    """Run a benchmark once; give its summary."""
    assert main("benchmark", [*options, *ONCE]) == 0
    assert {path.name for path in Path("measured").iterdir()} == {"config.yaml", "summary.json", "table.md"}
    summary = json.loads(Path("measured/summary.json").read_text())
    assert {"machine", "device", "threads", "precision", "memory_format", "batch"} <= set(summary)
    assert all(figure["min"] <= figure["median"] <= figure["max"] for figure in summary["figures"].values())
    return summary


# --- how it measures --------------------------------------------------------------------------------------------------


def test_contestants_take_turns():
    order = []
    contestants = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    assert interleaved(contestants, 2) == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}
    assert order == list("abcabc")


def test_medians_and_ratios_of_turns(tmp_path):
    assert spread([5.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 5.0}
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    comparison = Comparison("speed", {"batch": 4})
    comparison.add("ours", [1.0, 4.0, 9.0], "images/s")
    comparison.add("bare", [2.0, 4.0, 3.0], "images/s")
    comparison.relate("ours_over_bare", "ours", "bare")
    summary = comparison.summary()
    assert summary["ours_over_bare"] == 1.0  # the median of ½, 1 and 3, not the ratio of the medians, 4/3
    assert (summary["ratios"]["ours_over_bare"]["min"], summary["ratios"]["ours_over_bare"]["max"]) == (0.5, 3.0)
    assert "| ours | 4 | 1 | 9 | images/s |" in comparison.markdown()


def test_clock_leaves_out_the_first_epoch():
    clock = Clock()
    clock.epochs = [Epoch(0.0, [50.0, 100.0], 10, 90.0), Epoch(200.0, [201.0, 203.0, 204.0], 12, 1.0)]
    assert clock.images_per_second() == 12 / 4
    assert clock.waiting() == 1 / 4
    assert clock.step_seconds() == 1.5
    clock.epochs.pop()
    with pytest.raises(InputError, match="at least 2"):
        clock.images_per_second()


def test_clock_counts_what_training_does():
    data = RandomImages(24, size=8, held_out=2, batches=Batches(size=8))
    clock = Clock(every_step=True, waiting=True)
    options = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    train(data, MLP(192, 4, hidden=()), 10, Objective(), Optimisation(), options, clock)
    assert [epoch.images for epoch in clock.epochs] == [24, 24]
    assert all(len(epoch.ends) == 3 for epoch in clock.epochs)
    assert 0 < clock.waiting() < 1
    assert clock.epochs[1].resident[0] >= clock.epochs[1].resident[1] > 0


def test_a_process_of_its_own_has_its_own_memory():
    big = np.ones(50_000_000)
    assert in_own_process(memory, "RssAnon") < memory("RssAnon") - 100 < memory("RssAnon") + big[0]


def test_first_epoch_of_a_table_is_left_out():
    Path("metrics.csv").write_text("epoch,seconds,images_per_second\n0,100,1\n1,1,10\n2,3,2\n")
    assert steady_rate(Path("metrics.csv")) == (10 + 6) / 4


# --- the loops --------------------------------------------------------------------------------------------------------


def slow_penalties(weight, gram):
    """The two means, entry by entry."""
    references, dimensions = weight.shape
    gap = sum(
        (float(weight[i] @ weight[j]) - float(gram[i, j])) ** 2 for i in range(references) for j in range(references)
    )
    columns = weight.T
    correlation = sum(
        float(columns[i] @ columns[j]) ** 2 for i in range(dimensions) for j in range(dimensions) if i != j
    )
    return gap / references**2, correlation / dimensions**2


def test_naive_loss_is_the_slow_formula():
    weight, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    gram = (labels[:, None] == labels).float()
    gap, correlation = slow_penalties(weight, gram)
    assert float(naive_penalties(weight, gram, 100.0, 0.5)) == pytest.approx(100 * gap + 0.5 * correlation, rel=1e-5)


def test_naive_step_is_one_of_adam_on_loss_and_penalties():
    images, targets = torch.randn(4, 1, 2, 2), torch.rand(4, 5)
    gram = torch.eye(5)
    loop = NaiveLoop(MLP(4, 3, hidden=()), images, targets, gram, torch.device("cpu"), rate=0.01, batch=4)
    weight, twin = loop.head.weight.detach().clone(), MLP(4, 3, hidden=())
    twin.load_state_dict(loop.encoder.state_dict())
    error = sum(
        ((twin(image[None]) @ weight.T)[0] - target).pow(2).sum() for image, target in zip(images, targets, strict=True)
    )
    assert loop.error(images, targets) == pytest.approx(float(error) / 20, rel=1e-5)
    assert loop.run(1) == pytest.approx(float(error) / 20, rel=1e-5)
    free = weight.clone().requires_grad_()
    loss = ((twin(images) @ free.T - targets) ** 2).mean() + naive_penalties(free, gram, 100.0, 1.0)
    loss.backward()
    step = -0.01 * free.grad.sign()  # Adam's first step has the learning rate's size, whatever the gradient
    torch.testing.assert_close(loop.head.weight.detach(), weight + step, atol=1e-4, rtol=0)


def test_naive_loop_sees_every_item_once_an_epoch():
    images = torch.arange(10.0).reshape(10, 1, 1, 1)
    loop = NaiveLoop(MLP(1, 2, hidden=()), images, torch.rand(10, 3), torch.eye(3), torch.device("cpu"), batch=4)
    seen = torch.cat([next(loop._batches)[0].flatten() for _ in range(3)])
    assert seen.sort().values.tolist() == list(range(10))
    assert seen.tolist() != list(range(10))


def test_bare_loop_minimises_what_pretraining_minimises():
    data = RandomImages(20, size=8, held_out=2, batches=Batches(size=6))
    objective = Objective(gram_penalty=2.0, gram_block=0, orthogonality_penalty=3.0)
    target = data.similarities()["class"].bind(data.items, np.arange(9))
    model = SimilarityModel(MLP(192, 4, hidden=()), {"class": SimilarityHead(4, 9)})
    images, labels = data.normalised(np.arange(20)), torch.from_numpy(data.items.classes("label")[0])
    bare = BareLoop(model, images, labels, labels[:9], 6, 0, (2.0, 3.0), Optimisation(), "32-true")
    module = Pretraining(model, {"class": target}, objective)
    index = torch.arange(6)
    expected = module.weighted(module.head_losses(model(images[:6]), index)) + module.penalty()
    torch.testing.assert_close(bare.loss(slice(0, 6), slice(0, 9)), expected)


def test_bare_loop_learns():
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    images = labels[:, None, None, None] * 2.0 - 1 + 0.1 * torch.randn(40, 1, 2, 2)
    model = SimilarityModel(MLP(4, 4, hidden=()), {"class": SimilarityHead(4, 10)})
    bare = BareLoop(model, images, labels, labels[:10], 8, 5, (1.0, 0.1), Optimisation(lr=0.02), "32-true")
    before = float(bare.loss(slice(0, 40), slice(0, 10)))
    bare.run(60)
    assert float(bare.loss(slice(0, 40), slice(0, 10))) < before / 3


def test_expected_block_penalty_is_the_full_one():
    weight, labels = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    gram = (labels[:, None] == labels).float()
    pairs = [[i, j] for i in range(5) for j in range(5) if i != j]
    blocks = [float(gram_penalty_block(weight[pair], gram[pair][:, pair], 5, complete=True)) for pair in pairs]
    assert sum(blocks) / len(blocks) == pytest.approx(slow_penalties(weight, gram)[0], rel=1e-5)


# --- the images -------------------------------------------------------------------------------------------------------


def test_written_images_are_random_and_read_back():
    write_random_pixels(Path("images.npy"), 30, 4)
    store = mapped(Path("images.npy"))
    assert store.fetch(np.array([29, 3])).shape == (2, 3, 4, 4)
    assert 100 < float(store.fetch(np.arange(30)).float().mean()) < 155
    assert len({bytes(image) for image in store.images}) == 30


def test_part_has_fewer_images_of_the_same_items():
    whole = RandomImages(30, size=4, held_out=10)
    part = Part(whole, 12, 5)
    assert (len(part.split("train")), len(part.split("validation"))) == (12, 5)
    assert set(part.split("train")) <= set(whole.split("train"))
    assert part.items.names is whole.items.names
    shoes = Part(DrawnShoes(20, 32, cache=False), 9, 1)
    assert list(shoes.similarities()) == ["class"]
    assert len(shoes.split("train")) == 9


def test_repeated_images_are_the_same():
    data = RandomImages(10, size=4, held_out=1, distinct=3)
    np.testing.assert_array_equal(data.images(np.array([0, 1])), data.images(np.array([6, 4])))


# --- the tasks --------------------------------------------------------------------------------------------------------


def test_pretraining():
    sizes = ["--images", "64", "--batch", "32", "--references", "20", "--embedding", "8", "--naive_steps", "1"]
    summary = measured("pretraining", *sizes, "--trainer.max_epochs", "2", *CPU)
    rates = {side: summary["figures"][f"{side}_images_per_second"]["median"] for side in ("ours", "bare", "naive")}
    assert summary["ours_over_bare"] == pytest.approx(rates["ours"] / rates["bare"])
    assert summary["ours_over_naive"] == pytest.approx(rates["ours"] / rates["naive"])
    assert summary["batch"] == 32


def test_time_to_quality():
    source = ["--data", "simec_vision.cli.made_images.RandomImages", "--data.count", "96", "--quality", "true"]
    source += ["--data.size", "8", "--data.held_out", "32"]
    sizes = ["--images", "64", "--batch", "16", "--references", "20", "--embedding", "8", "--naive_steps", "1"]
    more = ["--quality_images", "64", "--trainer.max_epochs", "20", "--optimisation.lr", "0.01"]
    summary = measured(*source, *sizes, *more, *CPU)
    figures = {name: figure["median"] for name, figure in summary["figures"].items()}
    assert figures["ours_error_reached"] <= figures["naive_error_after_an_epoch"]
    assert 0 < figures["ours_seconds_to_naive_error"] < figures["ours_seconds_with_validation"]
    ratio = figures["ours_seconds_to_naive_error"] / figures["naive_seconds_of_an_epoch"]
    assert summary["seconds_to_naive_quality"] == pytest.approx(ratio)


def test_references():
    sizes = ["--references", "[20,60]", "--references_per_step", "10", "--batch", "16", "--embedding", "8"]
    summary = measured("references", *sizes, "--steps", "3")
    step = {count: summary["figures"][f"step_ms/all/{count}"]["median"] for count in (20, 60)}
    assert summary["step_ms/all/60_over_20"] == pytest.approx(step[60] / step[20])
    peaks = [summary["figures"][f"peak_growth_mb/all/{count}"]["median"] for count in (20, 60)]
    grown = (peaks[1] - peaks[0]) / (16 * 40 * 8 / 1e6)
    assert summary["growth_over_head/all/60"] == pytest.approx(grown)
    limited = any("limited" in name for name in summary["figures"])
    assert limited != any("cannot limit" in note for note in summary["notes"])


def test_images():
    sizes = ["--images", "[200,400]", "--size", "8", "--batch", "16", "--references", "20", "--steps", "3"]
    summary = measured("images", *sizes)
    for count in (200, 400):
        assert summary["figures"][f"images_per_second/{count}"]["median"] > 0
        anonymous, resident = (summary["figures"][f"{kind}_mb/{count}"]["median"] for kind in ("anonymous", "resident"))
        assert 10 < anonymous < resident < 10_000


def test_processes():
    sizes = ["--encoder", "CifarCNN", "--images", "64", "--size", "8", "--batch", "32", "--references", "10"]
    summary = measured("processes", *sizes, "--epochs", "2")
    assert set(summary["figures"]) == {"one_images_per_second", "2_images_per_second"}
    assert summary["2_over_one"] > 0


def test_explanation():
    sizes = {"batch": 2, "edge": 32, "small_edge": 8, "embedding": 4, "small_embedding": 2, "flipped": 1}
    options = [word for name, value in sizes.items() for word in (f"--sizes.{name}", str(value))]
    summary = measured("explanation", *options, "--sizes.pool", "16")
    assert {"a_flat_over_gradient/ShoeCNN", "epsilon_gamma_baseline_over_gradient/resnet18"} <= set(summary)
    assert {"bilrp_over_gradients/PlainCNN_32x32_4", "flipping_over_plain/ShoeCNN"} <= set(summary)


def test_plain_flipping_gives_the_same_curve():
    few = case("PlainCNN", PlainCNN(4, 16), 3, 16)
    heatmaps = torch.randn(3, 16, 16)
    ours = flipping_curve(few.model, few.images, heatmaps, HEAD, few.references, pool=4)
    torch.testing.assert_close(plain_flipping(few, heatmaps, 4), ours, atol=1e-5, rtol=1e-4)


def test_loading():
    sizes = ["--images", "40", "--distinct", "3", "--size", "32", "--batch", "16", "--workers", "1"]
    summary = measured("loading", *sizes)
    assert 0 <= summary["figures"]["waiting"]["median"] <= 1
    rates = {side: summary["figures"][f"{side}_images_per_second"]["median"] for side in ("streamed", "bare")}
    assert summary["streamed_over_bare"] == pytest.approx(rates["streamed"] / rates["bare"])


def test_mistakes(capsys):
    for options, message in (
        (["pretrainin"], "did you mean 'pretraining'"),
        (["pretraining", "--quality", "true"], "--data"),
        (["pretraining", "--trainer.max_epochs", "1"], "max_epochs of at least 2"),
        (["pretraining", "--trainer.devices", "2"], "devices 1, got 2"),
        (["pretraining", "--batch", "0"], "at least 1"),
        (["pretraining", "--repeats", "0"], "repeats"),
        (["references", "--references", "[]"], "at least 1"),
        (["images", "--steps", "1"], "steps of at least 2"),
        (["images", "--images", "[900,700]"], "three batches of 256"),
        (["images", "--images", "[1000000000000]"], "free bytes"),
        (["images", "--folder", "nowhere"], "nowhere: No such file"),
        (["processes", "--encoder", "CifarCN"], "did you mean 'CifarCNN'"),
        (["processes", "--batch", "33"], "batch that the processes divide"),
        (["explanation", "--sizes.pool", "137"], "cells no larger"),
        (["loading", "--workers", "0"], "workers.*at least 1"),
        (["loading", "--imges", "3"], "did you mean images"),
    ):
        assert main("benchmark", options) == 2, options
        line = capsys.readouterr().err
        assert re.fullmatch(r"error: [^\n]*\n", line), line
        assert re.search(message, line), line
        assert not list(Path(".").rglob("summary.json"))


def test_the_estimator_beside_the_naive_loop():
    sizes = ["--items", "64", "--references", "16", "--epochs", "4"]
    summary = measured("estimator", *sizes, "--naive_steps", "0")
    figures = {name: figure["median"] for name, figure in summary["figures"].items()}
    assert set(figures) == {"ours_seconds", "ours_mse", "naive_seconds", "naive_mse"}
    assert summary["ours_over_naive"] == pytest.approx(figures["naive_seconds"] / figures["ours_seconds"])
    assert main("benchmark", ["estimator", "--references", "9", "--items", "8"]) == 2
