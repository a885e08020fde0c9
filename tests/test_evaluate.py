"""The command `evaluate` on tiny runs: what it writes, and how it says what is wrong."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simec_vision.cli.evaluation_report import MEASURES
from simec_vision.cli.main import main
from simec_vision.cli.shoe_reading import held_out, recoloured, slope, with_heel
from simec_vision.cli.trap import MEASURES as TRAP_MEASURES
from simec_vision.cli.trap import areas
from simec_vision.datamodules import DrawnShoes
from tests.test_cli import QUICK, SHOES

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]
FEW = ["--images", "4", "--settings.randomised", "2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two pretraining runs, on shoes whose colour is tied to the heel and on free ones."""
    folder = tmp_path_factory.mktemp("runs")
    options = [*SHOES, "--data.count", "100", *QUICK, "--heatmaps", "false"]
    for name, tie in (("biased", ["--data.spurious", "colour"]), ("unbiased", [])):
        assert main("pretrain", [*options, *tie, "--out", str(folder / name)]) == 0
        os.environ.pop("SIMEC_VISION_RUN", None)
    return folder


def fails(capsys, *options):
    """Run a command that must fail before it writes anything; give its one line."""
    before = set(Path(".").rglob("*"))
    assert main("evaluate", list(options)) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]*\n", line), line
    assert not [path for path in set(Path(".").rglob("*")) - before if path.is_file() and "cache" not in path.parts]
    return line


def test_explanations_are_measured_side_by_side(runs, capsys):
    options = ["explanations", "--model", str(runs / "unbiased"), *FEW]
    assert main("evaluate", [*options, "--out", "measured"]) == 0
    names = {"config.yaml", "summary.json", "table.md", "curves.npz", "explanations.png", "methods.png"}
    assert {path.name for path in Path("measured").iterdir()} == names
    summary = json.loads(Path("measured/summary.json").read_text())
    rows = {(row["method"], row["head"]): row for row in summary["table"]}
    assert {head for _, head in rows} == {"heel", "closure", "pair of images"}
    assert {method for method, _ in rows} >= {"a_flat", "epsilon", "integrated_gradients", "edges", "random"}
    assert set(summary["failed"]) == {"captum_lrp"}
    for row in rows.values():
        assert set(MEASURES) <= set(row)
        assert 0 <= row["background"] <= 1
        if row["head"] != "pair of images":
            assert 0 <= min(row["mass"], row["rank"]) <= max(row["mass"], row["rank"]) <= 1
        assert row["gap"] == pytest.approx(row["least"] - row["most"], abs=2e-4)
    assert rows["edges", "heel"]["randomised"] == rows["edges", "heel"]["heads"] == 1.0
    curve = np.load("measured/curves.npz")["a_flat/heel/most"]
    assert curve.shape == (4 * 4 + 1,)  # regions of 8 pixels in 32, and the whole image before
    table = Path("measured/table.md").read_text()
    assert "| a_flat | " in table
    assert "| captum_lrp | failed |" in table
    assert re.search(r"captum_lrp failed: TypeError.*Flatten", table)
    assert "4 held-out images a case, seed 0" in table
    assert all(0 < share < 1 for share in summary["drawn_anew"].values())
    assert f"drawn anew: {summary['drawn_anew']['heel']:.2f} of what changes" in table
    assert "a_flat: heel mass" in capsys.readouterr().out
    with Image.open("measured/explanations.png") as figure:
        assert figure.size[0] > 1000


def test_configuration_repeats_the_evaluation(runs):
    options = [
        "--model",
        str(runs / "unbiased"),
        *FEW,
        "--head",
        "heel",
        "--methods",
        "[a_flat,random]",
        "--seeds",
        "[1,2]",
    ]
    assert main("evaluate", ["explanations", *options, "--out", "first"]) == 0
    assert main("evaluate", ["--config", "first/config.yaml", "--out", "again"]) == 0  # explanations is the first task
    first, again = (json.loads(Path(f"{name}/summary.json").read_text())["table"] for name in ("first", "again"))
    for row in (*first, *again):
        row.update(seconds=None, seconds_std=None)
    assert first == again
    assert [row["method"] for row in first] == ["a_flat", "a_flat", "random", "random"]
    assert all(row["gap_std"] > 0 for row in first)
    assert "2 seeds" in Path("first/table.md").read_text()


def test_images_without_truth_are_measured_by_what_is_left():
    Path("images").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    rows = [f"{number}.png,{number}" for number in range(24)]
    for number, image in enumerate(noise):
        Image.fromarray(image).save(f"images/{number}.png")
    Path("images/table.csv").write_text("\n".join(["image,price", *rows]) + "\n")
    data = ["--data", "ImageTable", "--data.root", "images", "--data.table", "table.csv"]
    assert main("pretrain", [*data, *QUICK, "--heatmaps", "false", "--out", "run"]) == 0
    options = ["--model", "run", "--methods", "[a_flat,edges]", "--images", "2", "--settings.pairs", "0"]
    assert main("evaluate", ["explanations", *options, "--out", "measured"]) == 0
    (row, _) = json.loads(Path("measured/summary.json").read_text())["table"]
    assert row["mass"] is row["rank"] is row["heads"] is None
    assert row["gap"] is not None


def test_mistakes_of_an_evaluation(runs, capsys):
    model = ["explanations", "--model", str(runs / "unbiased")]
    for options, message in (
        (["explanation"], "did you mean 'explanations'"),
        (["explanations", "--model", "nowhere"], r"nowhere.model.model\.json"),
        ([*model, "--methods", "[a_flat,oclusion]"], "did you mean 'occlusion'"),
        ([*model, "--head", "hel"], "did you mean 'heel'"),
        ([*model, "--images", "11"], "between 1 and 10.*got 11"),
        ([*model, "--settings.pool", "0"], "at least 1"),
        ([*model, "--settings.replacement", "black"], "black"),
        ([*model, "--imges", "3"], "did you mean images"),
    ):
        assert re.search(message, fails(capsys, *options)), options
    assert re.search("between 1 and 32.*got 33", fails(capsys, *model, *FEW, "--settings.pool", "33"))


def test_trap_measures_both_models(runs, capsys):
    models = ["--biased", str(runs / "biased"), "--unbiased", str(runs / "unbiased")]
    assert main("evaluate", ["trap", *models, "--images", "5", "--out", "trap"]) == 0
    assert {path.name for path in Path("trap").iterdir()} == {"config.yaml", "summary.json", "table.md", "trap.png"}
    summary = json.loads(Path("trap/summary.json").read_text())
    for name in ("biased", "unbiased"):
        assert set(summary[name]) == set(TRAP_MEASURES)
        parts = sum(summary[name][part] for part in ("heel", "surface", "outline", "background"))
        assert parts == pytest.approx(1, abs=1e-3)
    assert "| per_colour | " in capsys.readouterr().out


def test_trap_makes_the_models_that_are_not_given(runs):
    options = ["--unbiased", str(runs / "unbiased"), "--epochs", "1", "--images", "2"]
    assert main("evaluate", ["trap", *options, "--out", "trap"]) == 0
    config = Path("trap/biased/config.yaml").read_text()
    assert all(words in config for words in ("spurious: colour", "max_epochs: 1", "count: 100", "size: 32"))
    assert not Path("trap/unbiased").exists()


def test_mistakes_of_a_trap(runs, capsys):
    swapped = ["trap", "--biased", str(runs / "unbiased"), "--unbiased", str(runs / "biased")]
    assert re.search("--biased.*DrawnShoes --data.spurious colour.*spurious None", fails(capsys, *swapped))
    models = ["--biased", str(runs / "biased"), "--unbiased", str(runs / "unbiased")]
    assert re.search("between 1 and 10.*got 11", fails(capsys, "trap", *models, "--images", "11"))
    assert re.search("did you mean 'a_flat'", fails(capsys, "trap", *models, "--method", "a_flt"))


def test_shoes_are_drawn_again_in_all_but_one_thing():
    data = DrawnShoes(40, 48, cache=False, spurious="colour")
    shoes = held_out(data, 4, seed=0)
    images, heels = shoes.drawn(lambda shoe: shoe)
    np.testing.assert_array_equal(images, data.images(shoes.items))
    np.testing.assert_array_equal(heels.numpy(), data.masks(shoes.items)["heel"])
    _, same = shoes.drawn(lambda shoe: recoloured(shoe, 4))
    np.testing.assert_array_equal(same, heels)
    _, higher = shoes.drawn(lambda shoe: with_heel(shoe, 6))
    assert higher.sum() > heels.sum()


def test_parts_of_a_picture_are_disjoint_and_all():
    data = DrawnShoes(10, 64, cache=False)
    shoes = held_out(data, 1, seed=0)
    parts = areas(*shoes.drawn(lambda shoe: shoe), dilation=2)
    assert (sum(part.int() for part in parts.values()) == 1).all()
    assert all(part.any() for part in parts.values())


def test_slope_counts_heights_per_step():
    import torch

    assert slope(torch.tensor([[0, 1, 2, 3], [2, 3, 4, 5]])) == pytest.approx(1)
    assert slope(torch.tensor([[4, 4, 4, 4], [1, 1, 1, 1]])) == pytest.approx(0)
