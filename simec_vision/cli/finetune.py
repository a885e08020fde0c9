"""The command ``finetune``: a classifier from few labels on a pretrained encoder."""

import time
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from simec_vision.cli.building import about, check_held_out, check_images, fitting_encoder
from simec_vision.cli.hardware import apply_speed, described
from simec_vision.cli.pretrain import fit
from simec_vision.cli.runs import (
    MetricsTable,
    check_end,
    make_trainer,
    open_run,
    with_option,
    write_text,
)
from simec_vision.cli.saved import Pretrained, data_of, load_pretrained, pretrained_run, run_options
from simec_vision.cli.sweep import check_choices, plan, run_all, workers
from simec_vision.datamodules.image_data import Batches, ImageDataModule, known_name
from simec_vision.encoders import Encoder
from simec_vision.files import write_json
from simec_vision.finetuning import Classifier, FineTuning, check_smoothing, embed_all, unit_scale
from simec_vision.items import InputError
from simec_vision.metrics import PROBE_STRENGTHS, UNCHOSEN, linear_probe_accuracy, nearest_neighbour_accuracy
from simec_vision.optimisation import Optimisation


def finetune(
    config: str,
    trainer: dict[str, Any],
    model: str | None = None,
    encoder: Encoder | None = None,
    labels: int | list[int] | None = 100,
    seed: int | list[int] = 11,
    per_class: bool = False,
    label: str | None = None,
    data: ImageDataModule | None = None,
    keep: dict[str, list[str]] | None = None,
    frozen: bool = False,
    from_scratch: bool = False,
    classifier_start: Literal["scaled", "random"] = "scaled",
    choose: Literal["validation", "last"] = "validation",
    label_smoothing: float = 0.0,
    batches: Batches = Batches(size=32, shift=8, colour=0.7),
    optimisation: Optimisation = Optimisation(lr=3e-3, lr_batch=32, clip=0.0),
    fast: bool = True,
    probe: bool = True,
    neighbours: int = 20,
    tensorboard: bool = False,
    processes: int = 1,
    out: str | None = None,
    resume: str | None = None,
) -> None:
    """Fine-tune a pretrained encoder for classification with few labels, and report the test accuracy.

    Args:
        config: All options as YAML, for the run folder.
        trainer: Options of Lightning's Trainer.
        model: Run folder of the pretraining, of an auto-encoder or of another fine-tuning; default: the newest
            pretraining under runs/, pretrained first if there is none.
        encoder: Start from this encoder with random weights instead, such as CifarCNN; needs data.
        labels: How many labelled training images, or a list of such numbers; null takes all.
        seed: Seed of the choice of these images (the fewer are among the more) and of the classifier's start, or a
            list of seeds.
        per_class: Take so many labelled images of each class, or all of it where there are fewer; summary.json says how
            many there are in all.
        label: The attribute that is the class; default: what the data suggest, Category for shoes.
        data: Other images than those of the pretraining.
        keep: Attribute → values, such as '{label: [cat, dog]}': only items that have one of them are used.
        frozen: Train only the classifier's linear layer; the encoder stays as it is, batch-norm statistics included.
        from_scratch: Start the same encoder from random weights, which is what pretraining is compared with.
        classifier_start: Bring embeddings to spread 1 and start the linear layer from 0, which spares the encoder, or
            take embeddings as they are and PyTorch's random start, as the original did.
        choose: Take the epoch that is best on validation images, or the last, which needs no label of theirs.
        label_smoothing: Share of a label that is spread over all classes, which keeps the classifier from being
            too certain; for many labels.
        batches: How batches are made; the augmentation is that of training images.
        optimisation: Optimiser and learning-rate schedule.
        fast: Compute as was measured to be fast: trainer.precision by the hardware, images and weights channels last,
            the learning rate by the batch size; false takes float32, contiguous memory and the learning rate as given.
        probe: Fit a linear probe and a nearest-neighbour classifier on the encoder as it starts, too.
        neighbours: Neighbours that vote, at most.
        tensorboard: Log to TensorBoard too (needs the extra simec-vision[tensorboard]).
        processes: How many runs are made at once where there are several labels or seeds; each has its share of the
            processor's threads.
        out: Run folder, new or empty; default: the next free runs/finetune.
        resume: Run folder of an interrupted run that is continued with its own options.
    """
    check_smoothing(label_smoothing)
    source, data = _source(model, encoder, data)
    run = open_run(out, "finetune", resume=resume is not None)
    for name, value in (("model", source and str(source)), ("labels", labels)):  # null is an answer, not a missing one
        config = with_option(config, name, value)
    if isinstance(seed, int):
        pl.seed_everything(seed, verbose=False)
    pretrained = load_pretrained(source) if source else _untrained(fitting_encoder(encoder, data), data)
    check_images(pretrained, data)
    data.use_only(keep or {})
    label = label or data.label
    _check_label(data, label)
    if isinstance(labels, list) or isinstance(seed, list):
        choices = {"labels": _listed(labels), "seed": _listed(seed)}
        check_choices(choices, processes)
        for count in choices["labels"]:
            data.use_labels(label, count, per_class=per_class)  # here the user's mistakes come out
        finetune_many(config, choices, run, processes)
        return
    data.batches = batches
    classes = data.use_labels(label, labels, seed, per_class)
    check_held_out(data, *(["validation"] if choose == "validation" else []), "test")
    _check_classes(data, label)
    pretrained = pretrained.forgotten() if from_scratch else pretrained
    summary = {
        "labels": len(data.subset("train")),
        "validation_labels": len(data.subset("validation")) if choose == "validation" else 0,
        **({"per_class": True} if per_class and labels is not None else {}),
        "seed": seed,
        "pretraining": pretrained.name,
    }
    if probe:
        summary |= probe_accuracies(pretrained.encoder, data, neighbours, choose == "validation")
    classifier = Classifier(
        pretrained.encoder,
        pretrained.embedding_dim,
        classes,
        {**pretrained.about, "label": label, "pretraining": pretrained.name},
        *((_scale(pretrained.encoder, data), "zero") if classifier_start == "scaled" else (1.0, "random")),
    )
    trainer, optimisation = apply_speed(fast, trainer, optimisation, data)
    module = FineTuning(classifier.to(memory_format=data.memory_format), optimisation, frozen, seed, label_smoothing)
    summary |= _train(module, data, run, trainer, tensorboard, resume, config, choose)
    if int(pl.utilities.rank_zero_only.rank) == 0:  # type: ignore[attr-defined]
        classifier.cpu().to(memory_format=torch.contiguous_format).save(run / "model")
        write_json(run / "summary.json", summary)
        print(_report(run, summary))


def _source(
    model: str | None, encoder: Encoder | None, data: ImageDataModule | None
) -> tuple[Path | None, ImageDataModule]:
    """Say which run a classifier starts from, if from any, and which images it learns."""
    if encoder is not None:
        if model is not None or data is None:
            raise InputError("Expected data and no model beside the encoder: it starts from random weights")
        return None, data
    source = pretrained_run(model, or_classifier=True)
    return source, data or data_of(run_options(source))


def _untrained(encoder: Encoder, data: ImageDataModule) -> Pretrained:
    return Pretrained(encoder, encoder.embedding_dim, about(data, {}))


def _listed(choice: Any) -> list[Any]:
    return choice if isinstance(choice, list) else [choice]


def finetune_many(config: str, choices: Mapping[str, Sequence[Any]], folder: Path, processes: int) -> None:
    """Fine-tune with each number of labels and each seed, and write the accuracies' mean and spread over the seeds.

    ``summary.json`` holds ``runs``, one summary each, and ``accuracies``: ``labels``, ``mean``, ``std`` and ``seeds``.
    """
    planned = plan(config, choices, folder)
    write_text(folder / "config.yaml", config)
    started = time.perf_counter()
    with workers(processes) as pool:
        runs = run_all(planned, dict.fromkeys(planned, "finetune"), pool)
    rows = accuracies(runs)
    seconds = round(time.perf_counter() - started, 3)
    write_json(folder / "summary.json", {"runs": runs, "accuracies": rows, "seconds": seconds})
    lines = [
        f"{row['labels']:6d} labels: test accuracy {row['mean']:.4f} ± {row['std']:.4f} ({row['seeds']} seeds)"
        for row in rows
    ]
    print("\n".join([*lines, f"{len(runs)} runs in {seconds:.0f} s", f"Saved {folder}"]))


def accuracies(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give for each number of labels mean and standard deviation of the test accuracy over the seeds."""
    table: dict[int, list[float]] = {}
    for run in runs:
        table.setdefault(run["labels"], []).append(run["test/accuracy"])
    return [
        {"labels": labels, "mean": fmean(values), "std": pstdev(values), "seeds": len(values)}
        for labels, values in table.items()
    ]


def _check_label(data: ImageDataModule, label: str) -> None:
    known, what = list(data.items.columns), "--label to name the attribute that is the class"
    if not known:
        raise InputError(f"Expected {what}, got {label!r}: nothing is known of these images, so give --data.table, too")
    known_name(label, known, what)


def _check_classes(data: ImageDataModule, label: str) -> None:
    chosen = data.labels[data.subset("train")]
    if len(chosen.unique()) < 2:
        raise InputError(
            f"Expected training images of at least two classes of {label!r}, got {len(chosen)} of one: "
            "take more labels or another seed"
        )


def _scale(encoder: torch.nn.Module, data: ImageDataModule) -> float:
    parts = torch.from_numpy(data.subset("train")[:1024]).split(64)
    return unit_scale(embed_all(encoder, [(data.normalised(part.numpy()), data.labels[part]) for part in parts])[0])


def _train(
    module: FineTuning, data: ImageDataModule, run: Path, options: dict[str, Any], tensorboard: bool,
    resume: str | None, config: str, choose: str,
) -> dict[str, Any]:  # fmt: skip
    table = MetricsTable(run / "metrics.csv")
    validation = len(data.subset("validation"))
    options = with_epochs(options, len(data.subset("train")), data.batches.size, validation)
    monitor = ("validation/accuracy", "max") if validation else ("train/loss", "min")
    options = options if validation else {**options, "limit_val_batches": 0}
    trainer = make_trainer(options, run, *monitor, tensorboard, [table])
    check_end(trainer, module.optimisation)
    data.check_for_processes(trainer.world_size, "train", "validation", "test")
    if trainer.is_global_zero:
        write_text(run / "config.yaml", config)
        print(f"Fine-tuning in {run}: {described(trainer, data, module.optimisation)}", flush=True)
    fit(trainer, module, data, run, resume, best=choose == "validation")
    measured = trainer.test(module, datamodule=data, verbose=False)[0]
    accuracies = [
        float(row["validation/accuracy"]) for row in table.rows if row.get("validation/accuracy") not in (None, "")
    ]
    chosen = accuracies[-1:] if choose == "last" else accuracies
    return {
        **measured,
        **({"validation/accuracy": max(chosen)} if chosen else {}),
        "epochs": trainer.current_epoch,
        "seconds": table.seconds,
    }


def with_epochs(options: dict[str, Any], labels: int, batch: int, validation: int) -> dict[str, Any]:
    """Let few labels be seen often, and validate as often as it is worth.

    Where the Trainer is told no end, at least 800 steps and 30 epochs are trained. Where it is not told when to
    validate, 5 to 50 epochs are, evenly spaced, the last among them (more, where a given number of epochs cannot be
    divided so): so many that all together see about as many images as training, which costs three times as much an
    image. Under a limit of steps or of time every epoch is.

    Args:
        options: Options of Lightning's Trainer.
        labels: Training images.
        batch: Batch size.
        validation: Validation images.

    Returns:
        The options with ``max_epochs`` and ``check_val_every_n_epoch``.
    """
    ends = any(options.get(name) not in (None, -1) for name in ("max_epochs", "max_steps", "max_time"))
    epochs = int(options.get("max_epochs") or -1) if ends else max(30, ceil(800 / ceil(labels / batch)))
    every = options.get("check_val_every_n_epoch")
    told = any(options.get(name) not in (None, -1) for name in ("max_steps", "max_time", "val_check_interval"))
    if every is None:
        times = min(50, max(5, labels * epochs // max(1, validation)))
        every = 1 if told else _spacing(epochs, times, exact=ends)
    if not ends:
        options = {**options, "max_epochs": every * ceil(epochs / every)}
    return {**options, "check_val_every_n_epoch": every}


def _spacing(epochs: int, times: int, exact: bool) -> int:
    """Give the distance at which so many epochs are validated at most; if exact, one that divides them."""
    every = max(1, ceil(epochs / times))
    while exact and epochs % every:
        every -= 1
    return every


def probe_accuracies(
    encoder: torch.nn.Module, data: ImageDataModule, neighbours: int, validated: bool = True
) -> dict[str, float]:
    """Classify the embeddings of an encoder as it is: linear probe and nearest neighbours, test accuracy.

    Args:
        encoder: Maps images to embeddings.
        data: The images, with labels.
        neighbours: Neighbours that vote, at most.
        validated: Whether validation images choose the probe's strength; it is 0.01 otherwise, and none is looked at.
    """
    loaders = (data.train_dataloader(), data.test_dataloader(), *([data.val_dataloader()] if validated else []))
    train, test, *others = (
        embed_all(encoder, (data.on_after_batch_transfer(batch, 0) for batch in loader)) for loader in loaders
    )
    validation = others[0] if validated else None
    result = linear_probe_accuracy(train, validation, test, PROBE_STRENGTHS if validated else UNCHOSEN)
    nearest = nearest_neighbour_accuracy(*train, *test, neighbours=max(1, min(neighbours, len(train[0]) // 10)))
    return {**{f"probe/{name}": value for name, value in result.items()}, "neighbours/accuracy": nearest}


def _report(run: Path, summary: dict[str, Any]) -> str:
    lines = [f"test accuracy {summary['test/accuracy']:.4f} with {summary['labels']} labels (seed {summary['seed']})"]
    if "probe/accuracy" in summary:
        lines.append(
            f"frozen encoder: linear probe {summary['probe/accuracy']:.4f}, "
            f"nearest neighbours {summary['neighbours/accuracy']:.4f}"
        )
    return "\n".join([*lines, f"{summary['epochs']} epochs in {summary['seconds']:.0f} s", f"Saved {run}"])
