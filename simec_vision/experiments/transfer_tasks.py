"""The experiment ``transfer_tasks``: how transfer depends on the task that was learned before, and on width.

After notebook 00_general_transfer_learning of Horn's simec (2020): feed-forward nets learn one half of CIFAR-10's
classes with few labels, after they have learned the same half, the other half, or both.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simec_vision.cli.runs import write_text
from simec_vision.cli.sweep import check_choices
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import MLP
from simec_vision.experiments.few_labels import check_labels, check_study, known_items, quick_data
from simec_vision.experiments.recipes import ADAM, PLAIN, PLATEAU
from simec_vision.experiments.results import (
    Check,
    Means,
    accuracy_rows,
    learning_curves,
    markdown,
    means,
    original,
    original_means,
    repeats,
    write_csv,
)
from simec_vision.experiments.study import Line, Options, Pretrained, Study, Tuned, open_study
from simec_vision.files import write_json
from simec_vision.items import InputError

BEFORE = ("none", "same_task", "both_tasks", "other_task")
"""What a net has learned before it learns the second task: nothing (B in the original), the second (BnB), both (ABnB)
or the first (AnB)."""

WIDTHS, LABELS, SEEDS = [128, 512], [25, 50, 100, 250, 500, 750, 1000, 2500, 5000], [11, 12, 13]
QUICK: Options = {"widths": [128], "labels": [20, 300], "seeds": [11], "epochs": 20, "lr": 1e-4}
SHOES: Options = {"count": 3000, "size": 32}


def transfer_tasks(
    data: ImageDataModule,
    config: str,
    trainer: dict[str, Any],
    widths: list[int] = WIDTHS,
    labels: list[int] = LABELS,
    seeds: list[int] = SEEDS,
    label: str | None = None,
    first_classes: list[str] | None = None,
    pool: int = 20_000,
    epochs: int | None = None,
    lr: float | None = None,
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Learn one half of the classes with few labels after the same half, the other one, both or none was learned.

    The nets are flattened pixels → width (tanh) → 32 (tanh) → classes, trained by Adam in batches of 32; all layers are
    tuned. An interrupted study goes on when the same command is given again with the same --out. In the original 20,000
    images of each half are learned and 5000 validate: CIFAR-10 with --data.validation 0.2.

    Args:
        data: Where images come from: DrawnShoes, Zappos50K, CIFAR10, ImageTable or your own class.
        config: All options as YAML, for the study's folder.
        trainer: Options of Lightning's Trainer for all runs.
        widths: Units of the first layer; the original had 128, 512, 2048 and 8192.
        labels: How many labels of the second task; the original went up to 20,000.
        seeds: Seeds of the choice of labelled images; the fewer are among the more.
        label: The attribute that is the class; default: what the data suggest, Category for shoes.
        first_classes: Classes of the first task; default: the first half by name. The others are the second task.
        pool: Labels of each task that pretraining sees, at most; a quarter more where it sees both.
        epochs: Of pretraining and of fine-tuning; default: 25, the original's.
        lr: Largest learning rate; default: 5e-5, the original's.
        processes: Runs at once; each has its share of the processor's threads.
        quick: A version that takes a minute, with one width, fewer labels, seeds and epochs, and on smaller drawn
            shoes, unless others are given.
        out: Folder of the study, new, empty or of the same study, which may grow by labels, seeds and widths; default:
            the first such of runs/transfer_tasks, runs/transfer_tasks-2, …
    """
    import yaml

    given = yaml.safe_load(config)
    data, given = quick_data(data, given, SHOES) if quick else (data, given)
    widths = QUICK["widths"] if quick and widths == WIDTHS else widths
    labels = QUICK["labels"] if quick and labels == LABELS else labels
    seeds = QUICK["seeds"] if quick and seeds == SEEDS else seeds
    usual_epochs, usual_rate = (QUICK["epochs"], QUICK["lr"]) if quick else (25, 5e-5)
    epochs, lr = usual_epochs if epochs is None else epochs, usual_rate if lr is None else lr
    data.prepare_data()
    label = label or data.label
    check_choices({"widths": widths, "labels": labels, "seeds": seeds}, processes)
    if min(*widths, epochs, pool) < 1:
        raise InputError(f"Expected widths, epochs and pool of at least 1, got {widths}, {epochs} and {pool}")
    check_study(given, MLP(), data, "validation")
    tasks = two_tasks(data, label, first_classes)
    check_labels(data, label, {label: tasks["same_task"]}, labels, seeds)
    folder = open_study(out, "transfer_tasks", config)
    shared = {"data": given["data"], "label": label, "trainer": {**given["trainer"], "max_epochs": epochs}, "lr": lr}
    count = len(BEFORE) * len(widths) * len(labels) * len(seeds)
    print(f"Transfer between tasks in {folder}: {count} runs", flush=True)
    lines = [
        line for width in widths
        for line in _study(folder / str(width), data, width, shared, tasks, pool, labels, seeds).run(
            processes, folder / str(width) / "transfer_tasks.jsonl"
        )
    ]  # fmt: skip
    same = _cifar(data, label, first_classes) and (epochs, lr, pool) == (25, 5e-5, 20_000)
    print(write_report(folder, lines, same))


def two_tasks(data: ImageDataModule, label: str, first: Sequence[str] | None) -> dict[str, list[str]]:
    """Give what was learned before → its classes.

    Raises:
        InputError: if one of the two tasks has fewer than two classes.
    """
    classes = data.items.classes(label)[1]
    one = list(first) if first else classes[: len(classes) // 2]
    data.items.has(label, one)  # names the value that is unknown
    two = [name for name in classes if name not in one]
    if min(len(one), len(two)) < 2:
        raise InputError(f"Expected first_classes with at least two of {', '.join(classes)} in both tasks, got {one}")
    return {"same_task": two, "both_tasks": classes, "other_task": one}


def _study(
    folder: Path, data: ImageDataModule, width: int, shared: Mapping[str, Any], tasks: Mapping[str, list[str]],
    pool: int, labels: Sequence[int], seeds: Sequence[int],
) -> Study:  # fmt: skip
    channels, height, side = data.size
    net = {"inputs": channels * height * side, "embedding_dim": 32, "hidden": [width], "embedding_activation": "tanh"}
    options: Options = {
        "encoder": {"class_path": f"{MLP.__module__}.{MLP.__name__}", "init_args": net},
        "data": shared["data"],
        "label": shared["label"],
        "trainer": {**shared["trainer"], "check_val_every_n_epoch": 1},
        "batches": PLAIN,
        "optimisation": {**ADAM, **PLATEAU, "lr": shared["lr"]},
        "classifier_start": "random",
        "probe": False,
    }
    pretrainings = [Pretrained("none", "", {})]
    for before, classes in tasks.items():
        keep, most = {shared["label"]: classes}, pool * 5 // 4 if before == "both_tasks" else pool
        own = {"keep": keep, "labels": min(most, len(known_items(data, shared["label"], keep))), "seed": 0}
        pretrainings.append(Pretrained(before, "finetune", {**options, **own}))
    second = {**options, "keep": {shared["label"]: tasks["same_task"]}}
    tunings = [Tuned(name, count, seed, second) for name in BEFORE for count in labels for seed in seeds]

    def line(tuning: Tuned, own: Mapping[str, Any], before: Mapping[str, Any]) -> Line:
        told = {"test/accuracy": own["test/accuracy"], "validation/accuracy": own["validation/accuracy"]}
        cost = {"seconds": own["seconds"], "pretraining/seconds": before.get("seconds", 0.0)}
        which = {"width": width, "before": tuning.pretraining, "labels": tuning.labels, "seed": tuning.seed}
        return {**which, **told, **cost}

    return Study(folder, pretrainings, tunings, line)


def _cifar(data: ImageDataModule, label: str, first: Sequence[str] | None) -> bool:
    """Say whether the tasks are the original's."""
    from simec_vision.datamodules.cifar10 import CLASSES

    return data.items.classes(label)[1] == sorted(CLASSES) and set(first or sorted(CLASSES)[:5]) == set(CLASSES[:5])


def write_report(folder: Path, lines: Sequence[Line], comparable: bool) -> str:
    """Write ``summary.json``, ``table.md``, ``table.csv`` and a figure a width, and give what is to be said.

    Args:
        folder: Where they go.
        lines: The study's results.
        comparable: Whether the original's numbers are those of the same task.
    """
    table, words, checks = original("transfer_tasks"), [], []
    for width in dict.fromkeys(line["width"] for line in lines):
        own = [line for line in lines if line["width"] == width]
        ours = means(own, "before", "labels", "test/accuracy", 100)
        known = table["accuracy"].get(str(width)) if comparable else None
        theirs = original_means(table["labels"], known) if known else {}
        rows = markdown(accuracy_rows(ours, theirs, sorted({line["labels"] for line in own})))
        words.append(f"Width {width}: test accuracy in % on the second task, by what was learned before\n\n{rows}")
        title = f"Width {width}, by what was learned before" + ("; thin: the original" if theirs else "")
        learning_curves(ours, theirs, folder / f"width-{width}.png", title)
        checks += [*_claims(ours, width), *repeats(ours, theirs, f"width {width}: ")]
    write_text(folder / "table.md", "\n".join(words))
    write_csv(folder / "table.csv", lines)
    summary = {"checks": [check.told() for check in checks], "runs": len(lines)}
    write_json(folder / "summary.json", summary | {"seconds": round(sum(line["seconds"] for line in lines), 1)})
    return "\n".join([*words, *(check.verdict() for check in checks), f"Saved {folder}"])


def _claims(ours: Means, width: int) -> Iterator[Check]:
    """Check that what is closest to the second task helps most, with the largest number of labels."""
    many = max(ours["none"])
    gains = {name: ours[name][many][0] - ours["none"][many][0] for name in BEFORE[1:]}
    told = ", ".join(f"{name} {gain:+.2f}" for name, gain in gains.items())
    claim = f"width {width}, {many} labels: the same task before helps at least as much as the other one, up to 1 point"
    yield Check(claim, "same_task at least other_task", told, gains["same_task"] >= gains["other_task"] - 1)
