"""Every mistake of a user ends in one line that helps, exit code 2, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from simec_vision import SimilarityModel
from simec_vision.cli.finetune import with_epochs
from simec_vision.cli.main import main
from simec_vision.cli.parsing import with_shoes

SHOES = ["--data.count", "60", "--data.size", "32", "--data.cache", "false", "--references", "20"]
QUICK = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]


@pytest.fixture
def table():
    """Twelve 16×16 images, a table of their attributes, and options that name them."""
    folder = Path("images")
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = ["image,price,kind"]
    for number in range(12):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{number * 2},{'ab'[number % 2]}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return ["--data", "ImageTable", "--data.root", "images", "--data.table", "table.csv"]


def fails(capsys, command, *options):
    """Run a command that must fail; give its one line."""
    before = {path for path in Path(".").rglob("*") if "cache" not in path.parts}
    assert main(command, [*([] if command == "explain" else QUICK), *options]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    assert "Traceback" not in line
    left = {path for path in Path(".").rglob("*") if "cache" not in path.parts} - before
    assert not [path for path in left if path.is_file()], left
    return line


def replaced(path, old, new):
    Path(path).write_text(Path(path).read_text().replace(old, new))


BAD_TABLES = {
    "missing folder": (lambda: os.rename("images", "other"), [], r"images"),
    "no such table": (lambda: os.remove("images/table.csv"), [], r"table\.csv"),
    "no needed column": (lambda: replaced("images/table.csv", "image,", "picture,"), [], r"column image.*table\.csv"),
    "no number": (lambda: replaced("images/table.csv", ",6,", ",six,"), "price", r"'price'.*3\.png.*'six'"),
    "named twice": (lambda: replaced("images/table.csv", "4.png", "3.png"), [], r"3\.png"),
    "no such file": (lambda: os.remove("images/5.png"), [], r"5\.png"),
    "no image": (lambda: Path("images/5.png").write_text("hello"), [], r"5\.png"),
    "another size": (lambda: Image.new("RGB", (20, 16)).save("images/5.png"), [], r"5\.png.*16.*20"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_and_images(capsys, table, case):
    spoil, attribute, message = BAD_TABLES[case]
    spoil()
    chosen = ["--similarities.s=AttributeDistance", f"--similarities.s.attribute={attribute}"] if attribute else []
    assert_matches(message, fails(capsys, "pretrain", *table, *chosen))


def assert_matches(pattern, line):
    import re

    assert re.search(pattern, line), line


def test_grey_and_transparent_images_are_fine(table):
    Image.new("L", (16, 16), 90).save("images/1.png")
    Image.new("RGBA", (16, 16), (255, 0, 0, 10)).save("images/2.png")
    assert main("pretrain", [*table, *QUICK, "--out", "run", "--heatmaps", "false"]) == 0
    assert json.loads(Path("run/summary.json").read_text())["epochs"] == 1


def test_empty_folder(capsys):
    Path("empty").mkdir()
    assert "empty" in fails(capsys, "pretrain", "--data", "ImageTable", "--data.root", "empty")


BAD_REFERENCES = {
    "too many": ("1000", r"\(48\), got 1000"),
    "no such file": ("names.txt", r"names\.txt"),
    "not among the items": ("given.txt", r"got 'shoe-99999'"),
}


@pytest.mark.parametrize("case", BAD_REFERENCES)
def test_bad_references(capsys, case):
    Path("given.txt").write_text("shoe-00003\nshoe-99999\n")
    given, message = BAD_REFERENCES[case]
    assert_matches(message, fails(capsys, "pretrain", *SHOES, "--references", given))


def test_named_references_are_taken():
    Path("given.txt").write_text("shoe-00003\nshoe-00007\n")
    assert main("pretrain", [*SHOES, *QUICK, "--references", "given.txt", "--out", "run", "--heatmaps", "false"]) == 0
    assert SimilarityModel.load("run/model").about["references"]["heel"] == ["shoe-00003", "shoe-00007"]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.zeros((60, 7)), r"\(60, 60\).*\(60, 20\), got \(60, 7\)"), (np.full((60, 60), np.nan), "every one is NaN")],
)
def test_bad_matrices(capsys, matrix, message):
    np.save("s.npy", matrix)
    options = ["--similarities.s=Precomputed", "--similarities.s.matrix=s.npy"]
    assert_matches(message, fails(capsys, "pretrain", *SHOES, *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--refrences", "10"], "did you mean references"),
        (["--trainer.max_epoch", "10"], "did you mean .*trainer.max_epochs"),
        (["--data", "DrawnShos"], "did you mean 'DrawnShoes'"),
        (["--encoder", "CifarCN"], "did you mean 'CifarCNN'"),
        (["--data.cuont", "10"], "did you mean count"),
        (["--data.count", "many"], "many"),
        (["--data.spurious", "color"], "did you mean 'colour'"),
        (["--similarities.s=SetOverlap", "--similarities.s.attribute=Closre"], "did you mean 'Closure'"),
        (["--similarities.s=SetOverlp", "--similarities.s.attribute=Closure"], "did you mean 'SetOverlap'"),
        (["--encoder", "TorchvisionEncoder", "--encoder.name", "resnet81"], "did you mean 'resnet18'"),
        (["--encoder", "CifarCNN", "--encoder.size", "64"], r"--encoder.size 32"),
        (["--objective.loss", "rmse"], "mse"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--resume", "nowhere"], r"nowhere.config\.yaml"),
        (["--data.batches.size", "0"], "at least 1"),
        (["--trainer.accelerator", "gpux"], "gpux"),
        (["--similarities.keys=SetOverlap", "--similarities.keys.attribute=Closure"], "'keys', which has another"),
        (["--objective.weights", '{"hel": 3}'], "got one of 'hel': did you mean 'heel'"),
        (["--objective.loss", "bce"], "gram_penalty 0 beside the loss bce"),
        (["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:01:00"], "an end for the schedule cosine"),
        (["--encoder", "TorchvisionEncoder", "--encoder.name", "vit_b_16"], r"takes images of .* = 3, 32, 32, but"),
    ],
)
def test_unknown_options_and_names(capsys, options, message):
    assert_matches(message, fails(capsys, "pretrain", *SHOES, *options))


BAD_CONFIGS = {
    "no YAML": ("a: [1", r"config at options\.yaml: .*line 1"),
    "no options": ("- 1\n- 2\n", r"file options\.yaml, got \[1, 2\]"),
    "no such source": ("data: DrawnShos\n", "--data, got 'DrawnShos': did you mean 'DrawnShoes'"),
    "no such encoder": ("encoder:\n  class_path: simec_vision.encoders.CifarCN\n", "did you mean 'CifarCNN'"),
    "no such similarity": ("similarities:\n  s:\n    class_path: SetOverlp\n", "did you mean 'SetOverlap'"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configs(capsys, case):
    text, message = BAD_CONFIGS[case]
    Path("options.yaml").write_text(text)
    assert_matches(message, fails(capsys, "pretrain", "--config", "options.yaml"))


def test_cross_entropy_needs_similarities_between_0_and_1(capsys):
    options = ["--similarities.s=Kernel", "--objective.loss", "bce", "--objective.gram_penalty", "0"]
    assert_matches(
        "Head 's': Expected target similarities between 0 and 1", fails(capsys, "pretrain", *SHOES, *options)
    )


def test_nothing_held_out(capsys, table):
    message = "Expected items held out for validation, got none"
    assert message in fails(capsys, "pretrain", *table, "--data.validation", "0", "--data.test", "0")


def test_eigen_start_needs_known_similarities(capsys, table):
    Path("images/pairs.csv").write_text("a,b,similarity\n0.png,1.png,0.5\n2.png,3.png,0.1\n")
    pairs = [*table, "--data.pairs", "pairs.csv", "--references", "2", "--head_start", "eigen"]
    assert "head_start eigen can use. Expected gram without NaN" in fails(capsys, "pretrain", *pairs)


def test_head_called_pairs_keeps_its_figure(table):
    pairs = [f"{a}.png,{b}.png,{abs(a - b) / 12}" for a in range(12) for b in range(a, 12)]
    Path("images/pairs.csv").write_text("\n".join(["a,b,similarity", *pairs]) + "\n")
    assert main("pretrain", [*table, *QUICK, "--data.pairs", "pairs.csv", "--references", "2", "--out", "run"]) == 0
    summary = json.loads(Path("run/heatmaps/summary.json").read_text())
    assert summary["files"] == ["pairs.png", "all_pairs.png", "relevance.npz"]
    with np.load("run/heatmaps/relevance.npz", allow_pickle=False) as arrays:
        assert arrays["pairs"].shape[:2] == (2, 1)
        assert arrays["all_pairs"].shape[:2] == (1, 1)


def test_output_that_cannot_be_written(capsys):
    Path("file").write_text("mine")
    assert "file is a file" in fails(capsys, "pretrain", *SHOES, "--out", "file")
    assert "file" in fails(capsys, "pretrain", *SHOES, "--out", "file/below")
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    assert "full holds files" in fails(capsys, "pretrain", *SHOES, "--out", "full")
    assert Path("full/mine.txt").read_text() == "mine"


def test_full_disk_is_named():
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    from simec_vision.cli.parsing import user_mistake

    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "w") as file:
        file.write("x" * 100_000)
    assert "No space left on device" in user_mistake(error.value)


@pytest.mark.parametrize("file", ["last.ckpt", "model.safetensors"])
def test_full_disk_leaves_nothing_half_written(capsys, monkeypatch, file):
    write = Path.write_bytes

    def write_half(path, content):
        if path.name.startswith(f".{file.split('.')[0]}."):
            write(path, bytes(content)[:100])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_half)
    assert main("pretrain", [*SHOES, *QUICK, "--out", "run", "--heatmaps", "false"]) == 2
    line = capsys.readouterr().err
    assert_matches(rf"^error: .*run.*{file}: No space left on device\. .*\n$", line)
    assert not list(Path("run").rglob(f"*{file.split('.')[0]}*.{file.split('.')[1]}"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    options = [*SHOES, "--data.count", "200", *QUICK, "--out", str(folder / "run")]
    before = os.environ.pop("SIMEC_VISION_RUN", None)
    assert main("pretrain", options) == 0
    os.environ.pop("SIMEC_VISION_RUN", None)
    if before:
        os.environ["SIMEC_VISION_RUN"] = before
    return folder / "run"


def test_run_folder_holds_what_is_promised(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    assert names == {"config.yaml", "metrics.csv", "summary.json", "checkpoints", "model", "heatmaps"}
    assert {path.name for path in (pretrained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    summary = json.loads((pretrained / "summary.json").read_text())
    expected = {f"similarity/{head}/{m}" for head in ("heel", "closure") for m in ("mse", "r2", "spearman")}
    assert expected | {"images_per_second", "seconds", "epochs"} <= set(summary)
    assert {path.name for path in (pretrained / "heatmaps").iterdir()} == {
        "heel.png", "closure.png", "all_pairs.png", "relevance.npz", "summary.json",
    }  # fmt: skip


def test_predictors_that_see_no_image_are_measured_beside(capsys):
    options = [*SHOES, *QUICK, "--heatmaps", "false", "--out", "run"]
    assert main("pretrain", [*options, "--compare_with", "Category"]) == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert 0 < summary["constant/heel/mse"] < 1
    assert {f"Category/closure/{measure}" for measure in ("mse", "r2", "spearman")} <= set(summary)
    assert_matches(r"closure: held-out r².*\n  constant: mse 0.*\n  Category: r²", capsys.readouterr().out)
    assert_matches("did you mean 'Category'", fails(capsys, "pretrain", *SHOES, "--compare_with", "Categry"))


def test_config_repeats_the_run(pretrained):
    assert not {"out:", "resume:"} & set((pretrained / "config.yaml").read_text().split())
    assert main("pretrain", ["--config", str(pretrained / "config.yaml"), "--out", "again", "--heatmaps", "false"]) == 0
    first, again = (SimilarityModel.load(path / "model").state_dict() for path in (pretrained, Path("again")))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_checkpoint_of_another_model(capsys, pretrained):
    shutil.copytree(pretrained, "run")
    replaced("run/config.yaml", "seed: 0\ncompile", "seed: 0\nhead_frozen: false\ncompile")
    options = ["--resume", "run", "--encoder", "CifarCNN", "--encoder.size", "32"]
    assert main("pretrain", options) == 2
    assert_matches(r"checkpoint of this model.*encoder", capsys.readouterr().err)
    Path("run/checkpoints/last.ckpt").write_bytes(b"no checkpoint")
    assert main("pretrain", ["--resume", "run"]) == 2
    assert_matches(r"checkpoint at run.checkpoints.last\.ckpt", capsys.readouterr().err)


def test_finetuning_reports_what_is_promised(capsys, pretrained):
    options = ["--model", str(pretrained), "--labels", "40", "--seed", "5", *QUICK]
    assert main("finetune", [*options, "--out", "tuned"]) == 0
    summary = json.loads(Path("tuned/summary.json").read_text())
    assert (summary["labels"], summary["seed"], summary["pretraining"]) == (40, 5, "simec_heel_closure")
    assert {"test/accuracy", "probe/accuracy", "neighbours/accuracy", "seconds"} <= set(summary)
    assert main("finetune", [*options, "--from_scratch", "true", "--out", "scratch", "--probe", "false"]) == 0
    assert json.loads(Path("scratch/summary.json").read_text())["pretraining"] == "none"
    assert_matches(r"\(160\), got 4000", fails(capsys, "finetune", "--model", str(pretrained), "--labels", "4000"))
    assert_matches("Category", fails(capsys, "finetune", "--model", str(pretrained), "--label", "Categry"))
    assert_matches("at least two classes", fails(capsys, "finetune", "--model", str(pretrained), "--labels", "1"))
    assert f"model: {pretrained}" in Path("tuned/config.yaml").read_text()
    assert_matches("nowhere", fails(capsys, "finetune", "--model", "nowhere"))
    other = ["--data", "DrawnShoes", "--data.count", "60", "--data.size", "40", "--data.cache", "false"]
    assert_matches(r"\(3, 32, 32\).*\(3, 40, 40\)", fails(capsys, "finetune", "--model", str(pretrained), *other))


def test_the_last_epoch_needs_no_label_of_validation_images(capsys, table):
    rows = Path("images/table.csv").read_text().splitlines()
    splits = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    marked = [
        f"{row[:-1] if split == 'validation' else row},{split}" for row, split in zip(rows[1:], splits, strict=True)
    ]
    Path("images/table.csv").write_text("\n".join([f"{rows[0]},split", *marked]) + "\n")
    options = [*table, "--encoder", "PlainCNN", "--encoder.size", "16", "--labels", "null"]
    assert_matches(r"--label.*'label'.*Known: .*kind", fails(capsys, "finetune", *options))
    assert_matches(
        "labels of items held out for validation.*none of 3.*--choose last",
        fails(capsys, "finetune", *options, "--label", "kind"),
    )
    last = [*options, *QUICK, "--label", "kind", "--choose", "last"]
    assert main("finetune", [*last, "--out", "last"]) == 0
    summary = json.loads(Path("last/summary.json").read_text())
    assert {"probe/accuracy", "test/accuracy"} <= set(summary)
    assert not {"probe/validation", "validation/accuracy"} & set(summary)
    assert {path.name for path in Path("last/checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert main("evaluate", ["embedding", "--model", "last", "--per_class", "[1]", "--matched", "3"]) == 0
    probe = json.loads(Path("runs/embedding/summary.json").read_text())["probe"]
    assert (probe["strength"], "validation" in probe) == (0.01, False)


def test_the_newest_pretraining_is_found_and_named(capsys, pretrained):
    shutil.copytree(pretrained, "runs/mine")
    assert main("evaluate", ["embedding", "--per_class", "[2]", "--matched", "5"]) == 0
    assert "Using runs/mine\n" in capsys.readouterr().out
    assert "model: runs/mine\n" in Path("runs/embedding/config.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "labels", "validation", "epochs", "every"),
    [
        ({}, 100, 200, 200, 4),  # 800 steps of 32; 50 validations
        ({}, 50, 5000, 400, 80),  # at least 5
        ({}, 500, 5000, 50, 10),  # 5 validations of 5000 images
        ({"max_epochs": 50}, 25, 5000, 50, 10),
        ({"max_epochs": 50}, 1000, 5000, 50, 5),  # 10 see as many images
        ({"max_epochs": 50, "check_val_every_n_epoch": 3}, 1000, 5000, 50, 3),
        ({"max_epochs": -1, "max_steps": 9}, 1000, 5000, -1, 1),
        ({"max_epochs": 200, "max_steps": 50}, 100, 5000, 200, 1),
    ],
)
def test_fine_tuning_validates_as_often_as_it_is_worth(options, labels, validation, epochs, every):
    result = with_epochs(options, labels, 32, validation)
    assert (result["max_epochs"], result["check_val_every_n_epoch"]) == (epochs, every)


def test_several_labels_and_seeds_give_what_each_gives_alone(capsys, pretrained):
    options = ["--model", str(pretrained), "--probe", "false", *QUICK, "--trainer.max_epochs", "2"]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))  # the share of each of two processes
    try:
        assert main("finetune", [*options, "--labels", "40", "--seed", "6", "--out", "alone"]) == 0
    finally:
        torch.set_num_threads(threads)
    alone = json.loads(Path("alone/summary.json").read_text())
    several = ["--labels", "[40,80]", "--seed", "[5,6]", "--out", "all"]
    assert main("finetune", [*options, *several, "--processes", "2"]) == 0
    summary = json.loads(Path("all/summary.json").read_text())
    assert [(run["labels"], run["seed"]) for run in summary["runs"]] == [(40, 5), (40, 6), (80, 5), (80, 6)]
    assert summary["runs"][1]["test/accuracy"] == alone["test/accuracy"]
    first = [run["test/accuracy"] for run in summary["runs"][:2]]
    assert summary["accuracies"][0] == pytest.approx(
        {"labels": 40, "mean": sum(first) / 2, "std": abs(first[0] - first[1]) / 2, "seeds": 2}
    )
    weights = [load_file(f"{run}/model/classifier.safetensors") for run in ("alone", "all/labels-40-seed-6")]
    assert all((weights[0][name] - weights[1][name]).abs().max() < 1e-4 for name in weights[0])
    before = load_file("all/labels-80-seed-5/model/classifier.safetensors")
    shutil.rmtree("all/labels-80-seed-5")
    kept = Path("all/labels-80-seed-6/summary.json").stat().st_mtime_ns
    assert main("finetune", ["--resume", "all"]) == 0
    assert Path("all/labels-80-seed-6/summary.json").stat().st_mtime_ns == kept
    after = load_file("all/labels-80-seed-5/model/classifier.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = json.loads(Path("all/summary.json").read_text())["runs"]
    assert [run["test/accuracy"] for run in again] == [run["test/accuracy"] for run in summary["runs"]]
    capsys.readouterr()
    assert main("finetune", ["--resume", "all", "--optimisation.lr", "0.5"]) == 2
    assert_matches(r"labels-40-seed-5.yaml to go on", capsys.readouterr().err)
    assert "lr: 0.5" not in Path("all/config.yaml").read_text()
    many = ["--model", str(pretrained), "--labels", "[40,4000]"]
    assert_matches(r"\(160\), got 4000", fails(capsys, "finetune", *many))
    assert_matches("at least one process", fails(capsys, "finetune", *many[:2], "--seed", "[]"))
    assert_matches(r"every value of seed once, got \[5, 5\]", fails(capsys, "finetune", *many[:2], "--seed", "[5,5]"))


def test_what_is_fast_can_be_taken_back(capsys, pretrained):
    options = ["--model", str(pretrained), "--labels", "40", "--probe", "false", *QUICK, "--batches.size", "128"]
    assert main("finetune", [*options, "--trainer.precision", "bf16-mixed", "--out", "fast"]) == 0
    assert "bf16-mixed, channels last, not compiled, batch 128, adamw, lr 0.006" in capsys.readouterr().out
    assert main("finetune", [*options, "--fast", "false", "--out", "plain"]) == 0
    assert "32-true, contiguous, not compiled, batch 128, adamw, lr 0.003" in capsys.readouterr().out


def test_all_labels_stay_all_labels_in_the_configuration(pretrained):
    options = ["--model", str(pretrained), "--labels", "null", "--probe", "false", *QUICK]
    assert main("finetune", [*options, "--out", "first"]) == 0
    assert main("finetune", ["--config", "first/config.yaml", "--out", "again"]) == 0
    assert main("finetune", [*options, "--seed", "[5]", "--out", "several"]) == 0
    summaries = [json.loads(Path(f"{run}/summary.json").read_text()) for run in ("first", "again")]
    assert [each["labels"] for each in summaries] == [160, 160]
    assert summaries[0]["test/accuracy"] == summaries[1]["test/accuracy"]
    assert "labels: null" in Path("several/labels-None-seed-5/config.yaml").read_text()


def test_explaining_reports_what_is_promised(capsys, pretrained):
    options = ["--model", str(pretrained), "--head", "heel"]
    assert main("explain", [*options, "--images", "2", "--references", "3", "--out", "told"]) == 0
    summary = json.loads(Path("told/summary.json").read_text())
    assert len(summary["explained"]) == 2 * 3 + 2 * 2
    assert all({"score", "baseline", "delta"} <= set(row) for row in summary["explained"])
    assert all(row["baseline"] != 0 and abs(row["delta"]) < 1e-3 for row in summary["explained"])
    assert summary["files"] == ["heel.png", "all_pairs.png", "relevance.npz"]
    arrays = np.load("told/relevance.npz", allow_pickle=False)
    assert arrays["heel"].shape == (3, 2, 3, 32, 32)
    assert set(summary["localisation"]["heel"]) == {"heel", "closure"}
    name = json.loads((pretrained / "model" / "model.json").read_text())["about"]["references"]["heel"][4]
    assert "bilrp" not in summary
    named = ["--images", "shoe-00001,shoe-00004", "--references", f'["{name}"]', "--pairs", "false"]
    assert main("explain", [*options, *named, "--out", "named"]) == 0
    assert np.load("named/relevance.npz", allow_pickle=False)["images"].tolist() == ["shoe-00001", "shoe-00004"]
    few = ["--images", "2", "--references", "3", "--pairs", "false", "--rather", "true", "--out", "rather"]
    assert main("explain", [*options, *few]) == 0
    summary = json.loads(Path("rather/summary.json").read_text())
    assert summary["files"] == ["heel.png", "heel_rather.png", "relevance.npz"]
    single = {(row["reference"], row["image"]): row["score"] for row in summary["explained"][:6]}
    for row in summary["explained"][6:]:
        difference = single[row["reference"], row["image"]] - single[row["rather_than"], row["image"]]
        assert row["score"] == pytest.approx(difference, abs=1e-5)
    assert np.load("rather/relevance.npz", allow_pickle=False)["heel_rather"].shape == (3, 2, 3, 32, 32)
    one = ["--references", "1", "--rather", "true"]
    assert_matches("--references to be at least 2 for --rather", fails(capsys, "explain", *options, *one))
    assert_matches("did you mean 'heel'", fails(capsys, "explain", "--model", str(pretrained), "--head", "hel"))
    assert_matches("did you mean 'a_flat'", fails(capsys, "explain", *options, "--preset", "a_flt"))
    assert_matches("shoe-00999", fails(capsys, "explain", *options, "--images", '["shoe-00999"]'))


def test_explaining_connects_cells(capsys, pretrained):
    options = ["--model", str(pretrained), "--head", "heel", "--bilrp", "true", "--pairs", "false", "--references", "1"]
    look = ["--colours", "balanced", "--scale", "all", "--format", "pdf"]
    assert main("explain", [*options, "--images", "3", "--cells", "8", *look, "--out", "connected"]) == 0
    summary = json.loads(Path("connected/summary.json").read_text())
    assert summary["files"] == ["heel.pdf", "bilrp.pdf", "relevance.npz"]
    assert all(Path("connected", name).read_bytes().startswith(b"%PDF") for name in summary["files"][:2])
    arrays = np.load("connected/relevance.npz", allow_pickle=False)
    names, factors = arrays["images"].tolist(), arrays["bilrp"]
    assert factors.shape[0] == 3
    assert factors.shape[2:] == (8, 8)
    assert [{row["image"], row["other"]} for row in summary["bilrp"]] == [
        {names[0], names[1]}, {names[0], names[2]}, {names[1], names[2]},
    ]  # fmt: skip
    for row in summary["bilrp"]:
        first, second = (factors[names.index(row[side])].sum(axis=(1, 2)) for side in ("image", "other"))
        explained = row["score"] - row["baseline"]
        assert row["delta"] == pytest.approx((first @ second - explained) / row["score"], rel=1e-3, abs=1e-6)
        assert row["kept"] == 1
    assert main("explain", [*options, "--images", "2", "--directions", "2", "--out", "some"]) == 0
    assert np.load("some/relevance.npz")["bilrp"].shape == (2, 2, 16, 16)
    assert json.loads(Path("some/summary.json").read_text())["bilrp"][0]["kept"] != 1
    assert_matches("at least 2 for --bilrp, got 1", fails(capsys, "explain", *options, "--images", "1"))
    assert_matches("between 1 and 32.*got 33", fails(capsys, "explain", *options, "--cells", "33"))
    assert_matches("--directions between 1 and .*got 0", fails(capsys, "explain", *options, "--directions", "0"))


def test_workers_end_with_a_killed_parent():
    Path("parent.py").write_text(
        "import os, time\n"
        "from simec_vision.cli.sweep import workers\n"
        "if __name__ == '__main__':\n"
        "    with workers(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    for _ in range(100):
        if not running(worker):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {worker} goes on without its parent")


def running(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_help_has_a_line_for_every_option(capsys):
    for command in ("pretrain", "finetune", "explain"):
        assert main(command, ["--help"]) == 0
        text = capsys.readouterr().out
        assert main(command, ["-h"]) == 0  # kept from before
        assert capsys.readouterr().out == text
        assert "--out" in text
        assert "Run folder" in text or "Folder" in text
    assert main("evaluate", ["--help"]) == 0
    assert "trap, embedding, line" in capsys.readouterr().out


def test_heatmaps_in_files_are_those_of_single_explanations(pretrained):
    from simec_vision.cli.saved import run_options
    from simec_vision.explain import explain, explain_pair

    # Measured from a blank, the scores of a model that is hardly trained are differences of almost equal numbers.
    options = ["--model", str(pretrained), "--images", "3", "--references", "2", "--out", "told", "--preset", "a_flat"]
    assert main("explain", options) == 0
    summary, arrays = json.loads(Path("told/summary.json").read_text()), np.load("told/relevance.npz")
    model, data = SimilarityModel.load(pretrained / "model"), run_options(pretrained).data
    rows = iter(summary["explained"])
    names = arrays["images"].tolist()
    images = data.normalised(data.items.positions(names))
    for head in ("heel", "closure"):
        for grid_row in arrays[head]:
            for column, relevance in enumerate(grid_row):
                row = next(rows)
                place = model.about["references"][head].index(row["reference"])
                told = explain(model, images[column : column + 1], head=head, reference=place)
                assert (row["head"], row["image"]) == (head, names[column])
                assert np.allclose(relevance, told.relevance[0], atol=1e-5 * abs(relevance).max())
                assert row["score"] == pytest.approx(float(told.score[0]), abs=1e-5)
    for grid_row, other in zip(arrays["all_pairs"], images, strict=True):
        for relevance, image in zip(grid_row, images, strict=True):
            told = explain_pair(model, image[None], other[None])
            assert np.allclose(relevance, told.relevance[0], atol=1e-5 * abs(relevance).max())
            assert next(rows)["score"] == pytest.approx(float(told.score[0]), abs=1e-4)


def test_items_chosen_to_differ_do():
    from simec_vision.cli.explain import different

    rows = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [0.0, 0.9], [0.0, 0.0], [float("nan"), 0.0]])
    assert different(rows, 4).tolist() == [0, 2, 3, 5]
    assert sorted(different(torch.zeros(7, 3), 7).tolist()) == list(range(7))
    two_classes = torch.eye(2)[torch.arange(20) % 2]
    assert len(set(different(two_classes, 12).tolist())) == 12


def test_localisation_is_the_share_of_positive_relevance():
    from simec_vision.cli.questions import mask_shares

    heatmaps = torch.tensor([[1.0, 3.0, 0.0, -5.0], [1.0, 1.0, 1.0, 1.0], [5.0, 0.0, 0.0, 0.0]]).reshape(3, 2, 2)
    mask = np.array([[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).reshape(3, 2, 2) > 0  # nothing is there in the third
    shares = mask_shares(heatmaps, {"heel": mask, "nowhere": mask & False})
    assert shares == {"heel": {"mass": 0.625, "area": 0.375, "gain": 1.67}}


def test_shoes_are_only_named_where_nothing_else_is():
    from simec_vision.cli.parsing import make_parser, read_configs
    from simec_vision.cli.pretrain import pretrain

    parser = make_parser(pretrain)
    Path("with.yaml").write_text("data:\n  class_path: CIFAR10\n")
    Path("without.yaml").write_text("seed: 1\n")
    assert with_shoes(["--seed", "1"], parser)[:2] == ["--data", "DrawnShoes"]
    assert with_shoes(["--config", "without.yaml"], parser)[:2] == ["--data", "DrawnShoes"]
    for given in (["--data", "CIFAR10"], ["--data=CIFAR10"], ["--config", "with.yaml"], ["--config=with.yaml"]):
        assert with_shoes(given, parser, read_configs(given)) == given


def test_import_is_light():
    code = (
        "import time, torch; start = time.perf_counter(); import simec_vision; took = time.perf_counter() - start; "
        "import sys; heavy = {'pytorch_lightning', 'captum', 'matplotlib', 'sklearn', 'torchvision', 'scipy'}; "
        "print(took); assert took < 0.3, took; assert not heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
