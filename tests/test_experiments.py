"""The few-label study and its companion: on the drawn shoes, resumed, refused, and their reports."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from simec_vision.cli.main import main
from simec_vision.datamodules import DrawnShoes
from simec_vision.experiments.few_labels import VARIANTS, check_labels, similarities_of, to_line, total
from simec_vision.experiments.few_labels_report import claims, improves, write_report
from simec_vision.experiments.recipes import BEST, ORIGINAL, epochs_for, tuning_options
from simec_vision.experiments.results import means, original, original_means, repeats
from simec_vision.experiments.study import Tuned
from simec_vision.items import InputError

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("own_folder")]


def read(path):
    return json.loads(Path(path).read_text())


def test_few_labels_of_drawn_shoes_go_the_way_of_the_claims_and_go_on():
    command = ["few_labels", "--quick", "true", "--processes", "2"]
    assert main("experiment", command) == 0
    folder = Path("runs/few_labels")
    summary = read(folder / "summary.json")
    assert len(summary["checks"]) == 4 + 2
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    lines = [json.loads(line) for line in (folder / "few_labels.jsonl").read_text().splitlines()]
    assert len(lines) == summary["runs"] == 4 * 2
    wanted = {"recipe", "protocol", "pretraining", "labels", "seed", "test/accuracy", "seconds", "validation_labels"}
    assert all(wanted <= set(line) for line in lines)
    assert {line["validation_labels"] for line in lines} == {150}
    assert (folder / "few_labels.png").stat().st_size > 20_000
    assert (folder / "table.csv").read_text().count("\n") == len(lines) + 1
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    shutil.rmtree(folder / "tuning" / "labels" / "labels-20-seed-11")  # as if it had not been made yet
    for file in (folder / "config.yaml", *folder.glob("pretraining/*.yaml")):  # as an earlier version wrote them
        assert "erase" in file.read_text() or file.parent != folder
        file.write_text(re.sub(r"\n *(erase: 0|per_class: false)(?=\n|$)", "", file.read_text()))
    os.environ.pop("SIMEC_VISION_RUN", None)
    assert main("experiment", command) == 0
    again = [json.loads(line) for line in (folder / "few_labels.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in line.items() if "seconds" not in k} for line in again] == [
        {k: v for k, v in line.items() if "seconds" not in k} for line in lines
    ]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")} == kept
    os.environ.pop("SIMEC_VISION_RUN", None)
    assert main("experiment", [*command, "--labels", "[20]", "--variants", "[none]"]) == 0  # nothing is lost
    assert len((folder / "few_labels.jsonl").read_text().splitlines()) == len(lines)
    assert main("experiment", [*command, "--recipe", "original", "--out", "runs/few_labels"]) == 2


@pytest.mark.parametrize(
    ("protocol", "variants"), [("disjoint_classes", "[none,simec_classes]"), ("other_knowledge", "[none,simec_own]")]
)
def test_other_protocols_run(protocol, variants):
    few = ["--labels", "[20]", "--seeds", "[11]", "--epochs", "1", "--tuning_epochs", "1", "--processes", "2"]
    study = ["few_labels", "--quick", "true", "--protocol", protocol, "--variants", variants, *few]
    assert main("experiment", study) == 0
    lines = [json.loads(line) for line in Path("runs/few_labels/few_labels.jsonl").read_text().splitlines()]
    assert [(line["protocol"], line["labels"]) for line in lines] == [(protocol, 20)] * 2
    classes = [
        read(f"runs/few_labels/tuning/{name}/labels-20-seed-11/model/classifier.json")["classes"]
        for name in ("none", variants[6:-1])
    ]
    assert classes[0] == classes[1]
    assert len(classes[0]) == (2 if protocol == "disjoint_classes" else 4)


def test_labels_of_each_class_and_another_weight_decay():
    few = ["--labels", "[5]", "--per_class", "true", "--seeds", "[11]", "--epochs", "1", "--tuning_epochs", "1"]
    study = ["few_labels", "--quick", "true", "--variants", "[labels]", "--weight_decay", "0.25", *few]
    assert main("experiment", study) == 0
    (line,) = [json.loads(line) for line in Path("runs/few_labels/few_labels.jsonl").read_text().splitlines()]
    assert (line["labels"], line["per_class"]) == (5, True)
    run = Path("runs/few_labels/tuning/labels/labels-5-seed-11")
    assert read(run / "summary.json")["labels"] == 4 * 5
    decays = [yaml.safe_load((folder / "config.yaml").read_text())["optimisation"]["weight_decay"]
              for folder in (Path("runs/few_labels/pretraining/labels"), run)]  # fmt: skip
    assert decays == [0.25, 0.01]


def test_transfer_between_tasks_of_drawn_shoes():
    assert main("experiment", ["transfer_tasks", "--quick", "true", "--processes", "2", "--out", "study"]) == 0
    summary = read("study/summary.json")
    assert summary["runs"] == 4 * 2
    assert all(check["ok"] for check in summary["checks"]), summary["checks"]
    assert (Path("study") / "width-128.png").stat().st_size > 20_000
    learned = {
        name: read(f"study/128/pretraining/{name}/model/classifier.json") for name in ("same_task", "other_task")
    }
    assert not set(learned["same_task"]["classes"]) & set(learned["other_task"]["classes"])
    tuned = read("study/128/tuning/other_task/labels-20-seed-11/model/classifier.json")
    assert tuned["classes"] == learned["same_task"]["classes"]


def test_what_an_experiment_cannot_do_is_said_in_a_line(capsys):
    shoes = ["few_labels", "--data.count", "60", "--data.size", "32", "--data.cache", "false"]

    def refused(*options):
        assert main("experiment", [*shoes, *options]) == 2
        assert not Path("runs").exists()
        return capsys.readouterr().err

    assert "'clases'" in refused("--variants", "[clases]")
    assert "without class labels for other_knowledge, got 'labels'" in refused(
        "--protocol", "other_knowledge", "--variants", "[labels]"
    )
    assert "every value of variants once" in refused("--variants", "[none,none]")
    assert "between 1 and 48" in refused("--labels", "[49]")
    assert "those of the largest class, got 48" in refused("--labels", "[48]", "--per_class", "true")
    own = ["--similarities.own", "SameClass", "--similarities.own.attribute", "Category"]
    mixed = [
        "--similarities.own",
        "WeightedSum",
        "--similarities.own.weights",
        "[1]",
        "--similarities.own.similarities",
    ]
    for knowing in (own, [*mixed, "[{class_path: SameClass, init_args: {attribute: Category}}]"]):
        line = refused("--protocol", "other_knowledge", "--labels", "[20]", *knowing)
        assert "do not know 'Category'" in line
        assert "head 'own'" in line
    assert "at least one process" in refused("--processes", "0")
    assert "one value of labels" in refused("--labels", "[]")
    assert "every value of labels once" in refused("--labels", "[20,20]")
    assert "tuning_epochs of at least 1, got None and 0" in refused("--tuning_epochs", "0")
    assert "weight_decay of at least 0, got -1" in refused("--weight_decay", "-1", "--labels", "[20]")
    assert "no trainer.max_epochs" in refused("--trainer.max_epochs", "3", "--labels", "[20]")
    assert "two or more classes, got 1 of one" in refused("--labels", "[1]")
    assert "decoder linear" in refused("--encoder", "ResidualNet", "--labels", "[20]")
    assert "'Shoo'" in refused("--protocol", "disjoint_classes", "--known_classes", "[Shoo]")
    assert main("experiment", ["few_label"]) == 2
    assert "did you mean 'few_labels'" in capsys.readouterr().err


def test_labels_of_each_class_are_tuned_as_what_they_are_in_all():
    data = DrawnShoes(count=200, size=32, cache=False)
    data.prepare_data()
    classes = np.bincount(data.items.classes("Category")[0][data.split("train")])
    assert total(data, "Category", {}, 20, False) == 20
    assert total(data, "Category", {}, 20, True) == np.minimum(classes, 20).sum() > 20


def test_a_test_of_one_class_says_nothing():
    data = DrawnShoes(count=60, size=32, cache=False)
    data.prepare_data()
    codes, names = data.items.classes("Category")
    check_labels(data, "Category", {}, [20], [11])
    data.loaded.splits["test"] = np.flatnonzero(codes == names.index("Boots"))[:5]
    with pytest.raises(InputError, match="two or more classes of 'Category', got Boots alone"):
        check_labels(data, "Category", {}, [20], [11])


def test_experiments_are_listed(capsys):
    assert main("experiment", []) == 0
    told = capsys.readouterr().out
    assert "few_labels" in told
    assert "transfer_tasks" in told


def test_the_original_table_is_that_of_the_notebook():
    table = original("few_labels")
    assert set(table["accuracy"]) <= set(VARIANTS)
    assert len(table["accuracy"]) == 10
    cells = original_means(table["labels"], table["accuracy"])
    assert cells["simec_classes"][250] == (52.09, 1.22)
    assert cells["none"][25] == (16.21, 0.74)
    assert cells["labels"][45000][0] == 67.88


def test_claims_hold_of_the_original_itself():
    table = original("few_labels")
    cells = original_means(table["labels"], table["accuracy"])
    checks = list(claims(cells, same=True))
    assert len(checks) == 11
    assert all(check.ok for check in checks), [check for check in checks if not check.ok]
    assert all(check.ok for check in repeats(cells, cells))
    shifted = {name: {count: (mean + 9, std) for count, (mean, std) in row.items()} for name, row in cells.items()}
    wrong = [check for check in repeats(shifted, cells) if not check.ok]
    assert len(wrong) > 150  # but for a few cells whose standard deviation is larger than 4.5
    assert all(check.ok for check in improves(shifted, {"none": cells["none"]}) if "beats" in check.claim)
    assert not any(check.ok for check in improves(cells, shifted) if "beats" in check.claim)


def test_means_and_deviations_are_those_of_the_seeds():
    lines = [{"pretraining": "a", "labels": 5, "test/accuracy": value} for value in (0.1, 0.2, 0.6)]
    assert means(lines, "pretraining", "labels", "test/accuracy", 100)["a"][5] == pytest.approx(
        (30.0, float(np.std([10, 20, 60])))
    )


def test_validation_chooses_between_tuned_and_probe():
    own = {
        "test/accuracy": 0.5, "validation/accuracy": 0.6, "probe/accuracy": 0.7, "probe/validation": 0.65,
        "validation_labels": 100, "epochs": 3, "seconds": 1.0,
    }  # fmt: skip
    tuning = Tuned("simec_classes", 25, 11, {})
    assert to_line(tuning, own, {}, "best", "all_labels")["test/accuracy"] == 0.7
    assert to_line(tuning, {**own, "probe/validation": 0.6}, {}, "best", "all_labels")["chosen"] == "tuned"
    blind = {**own, "validation_labels": 0}
    assert to_line(tuning, blind, {}, "best", "all_labels")["chosen"] == "probe"
    for other in (Tuned("none", 25, 11, {}), Tuned("simec_classes", 5000, 11, {})):
        assert to_line(other, blind, {}, "best", "all_labels")["test/accuracy"] == 0.5


def test_mixtures_are_weighted_by_their_name():
    parts = similarities_of("simec_mix_0.95", "label", {})["mixture"]["init_args"]
    assert parts["weights"] == [0.95, 0.05]
    assert [part["class_path"] for part in parts["similarities"]] == ["Kernel", "SameClass"]


def test_the_original_recipe_is_that_of_the_notebook():
    assert (ORIGINAL.batches["size"], ORIGINAL.batches["flip"], ORIGINAL.batches["shift"]) == (32, False, 0)
    assert ORIGINAL.own["simec_linear"]["lr"] == 1e-6
    assert tuning_options(ORIGINAL, 45_000)["optimisation"]["schedule"] == "plateau"
    assert [epochs_for(ORIGINAL, count) for count in (25, 45_000)] == [50, 50]
    assert tuning_options(BEST, 45_000)["batches"]["size"] == 256


def test_a_report_of_real_size_is_readable(tmp_path):
    table = original("few_labels")
    lines = [
        {
            "recipe": "original", "protocol": "all_labels", "pretraining": name, "labels": count, "seed": seed,
            "test/accuracy": (mean + std * (seed - 12)) / 100, "seconds": 1.0,
        }
        for name, row in table["accuracy"].items()
        for count, mean, std in zip(table["labels"], row["mean"], row["std"], strict=True)
        for seed in (11, 12, 13)
    ]  # fmt: skip
    told = write_report(tmp_path, lines, comparable=True)
    assert "FAILS" not in told
    assert "  original |" in (tmp_path / "table.md").read_text()
    assert len(read(tmp_path / "summary.json")["checks"]) == 11 + 170
