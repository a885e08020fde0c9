"""The experiment ``few_labels``: does pretraining pay, on what, and up to how many labels?

After notebook 08 of Horn's simec (2020), which compared ten ways to pretrain the same CNN on CIFAR-10.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simec_vision.cli.building import check_held_out, fitting_encoder
from simec_vision.cli.sweep import check_choices
from simec_vision.datamodules import DrawnShoes
from simec_vision.datamodules.cifar10 import CLASSES
from simec_vision.datamodules.image_data import ImageDataModule, nested_subset
from simec_vision.decoders import MirrorAutoEncoder
from simec_vision.encoders import ENCODERS, CifarCNN, Encoder
from simec_vision.experiments.few_labels_report import write_report
from simec_vision.experiments.recipes import LARGE, RECIPES, Recipe, epochs_for, kind, tuning_options
from simec_vision.experiments.study import Line, Options, Pretrained, Study, Tuned, open_study
from simec_vision.items import InputError, nearest
from simec_vision.similarities import Similarity

Protocol = Literal["all_labels", "disjoint_classes", "other_knowledge"]
"""What pretraining is allowed to see: all labels of the training images, as in the original, which simulates that there
are few; labels of other classes than those that are learned afterwards; or no class label at all."""

MIXED = re.compile(r"simec_mix_(0?\.\d+)")
VARIANTS = ("none", "labels", "ae_linear", "ae_full", "simec_linear", "simec_mix_0.95", "simec_mix_0.9",
            "simec_mix_0.7", "simec_mix_0.5", "simec_classes", "simec_own")  # fmt: skip
"""Random weights; a classifier of all labels; auto-encoders with one linear layer and with the encoder's mirror image
as decoder; Similarity Encoders on the pixels' linear kernel, on w · kernel + (1 − w) · same class, on same class alone,
and on the similarities that are given or that the data suggest."""

SEES_CLASSES = ("labels", "simec_classes")
DEFAULTS = {
    "all_labels": ["none", "labels", "ae_full", "simec_linear", "simec_mix_0.5", "simec_classes"],
    "disjoint_classes": ["none", "labels", "simec_classes"],
    "other_knowledge": ["none", "ae_full", "simec_own"],
}
"""Protocol → the variants that are compared unless told otherwise."""

LABELS, SEEDS = [25, 50, 100, 250, 500, 1000, 5000], [11, 12, 13]
QUICK: Options = {"labels": [20, 300], "seeds": [11], "epochs": 12, "tuning_epochs": 10}
QUICK_VARIANTS = {**DEFAULTS, "all_labels": ["none", "labels", "simec_mix_0.5", "simec_classes"]}
SHOES: Options = {"count": 1500, "size": 48}


def few_labels(
    data: ImageDataModule,
    config: str,
    trainer: dict[str, Any],
    encoder: Encoder | None = None,
    protocol: Protocol = "all_labels",
    variants: list[str] | None = None,
    recipe: Literal["original", "best"] = "best",
    labels: list[int] = LABELS,
    seeds: list[int] = SEEDS,
    per_class: bool = False,
    label: str | None = None,
    similarities: dict[str, Similarity] | None = None,
    references: int = 3000,
    known_classes: list[str] | None = None,
    epochs: int | None = None,
    tuning_epochs: int | None = None,
    weight_decay: float | None = None,
    choose: Literal["validation", "last"] = "validation",
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Compare ways to pretrain by the test accuracy that few labels give afterwards.

    An interrupted study goes on when the same command is given again with the same --out.

    Args:
        data: Where images come from: DrawnShoes, Zappos50K, CIFAR10, ImageTable or your own class.
        config: All options as YAML, for the study's folder.
        trainer: Options of Lightning's Trainer for all runs.
        encoder: CifarCNN, ShoeCNN, PlainCNN, ResidualNet, PooledResidualNet, TorchvisionEncoder or MLP; default:
            PlainCNN.
        protocol: What pretraining may see: all labels (few are simulated, as in the original), labels of other classes
            than those that are tuned on, or no class label.
        variants: Which ways to pretrain: none, labels, ae_linear, ae_full, simec_linear, simec_mix_W (W of the pixels'
            kernel, the rest same class), simec_classes, simec_own; default: by protocol.
        recipe: Train as the original did, or as well as we can.
        labels: How many labels.
        seeds: Seeds of the choice of labelled images; the fewer are among the more.
        per_class: Take so many labels of each class, or all of it where there are fewer; then the lines' labels are
            those of each class.
        label: The attribute that is the class; default: what the data suggest, Category for shoes.
        similarities: Head name → what similar means, for simec_own; default: what the data suggest.
        references: How many items similarity is measured to, at most.
        known_classes: Classes that pretraining sees under disjoint_classes; default: the first half by name.
        epochs: Of pretraining; default: the recipe's.
        tuning_epochs: Of fine-tuning; default: the recipe's.
        weight_decay: Of pretraining; default: the recipe's.
        choose: Take the epoch of fine-tuning, and fine-tuned encoder or linear probe, by validation images, whose
            labels are counted; or the last epoch, and the probe where a pretrained encoder meets fewer than 4000.
        processes: Runs at once; each has its share of the processor's threads.
        quick: A version that takes a minute, with fewer labels, seeds and epochs, and on fewer and smaller drawn shoes,
            unless others are given.
        out: Folder of the study, new, empty or of the same study, which may grow by labels, seeds and variants;
            default: the first such of runs/few_labels, runs/few_labels-2, …
    """
    import yaml

    given = yaml.safe_load(config)
    data, given = quick_data(data, given) if quick else (data, given)
    labels = QUICK["labels"] if quick and labels == LABELS else labels
    seeds = QUICK["seeds"] if quick and seeds == SEEDS else seeds
    chosen = _changed(RECIPES[recipe], epochs, tuning_epochs, weight_decay, quick)
    data.prepare_data()
    encoder = fitting_encoder(encoder, data)
    names = variants or (QUICK_VARIANTS if quick else DEFAULTS)[protocol]
    check_choices({"labels": labels, "seeds": seeds, "variants": names}, processes)
    _check_variants(names, encoder, data, protocol)
    shared = _shared(given, encoder, label or data.label)
    _check_knowledge(names, protocol, shared["label"], similarities or _suggested(data, names))
    check_study(given, encoder, data, choose)
    kept, tuned = _parts(data, shared["label"], protocol, known_classes)
    check_labels(data, shared["label"], tuned, labels, seeds, per_class)
    folder = open_study(out, "few_labels", config)
    some = min(references, len(known_items(data, shared["label"], kept)))
    each = {**shared, "per_class": True} if per_class else shared
    whole = {count: total(data, shared["label"], tuned, count, per_class) for count in labels}
    study = Study(
        folder,
        [_pretrained(name, chosen, shared, kept, some, given) for name in names],
        [
            Tuned(name, count, seed, _tuned(chosen, each, tuned, whole[count], choose))
            for name in names for count in labels for seed in seeds
        ],
        lambda tuning, own, before: to_line(tuning, own, before, recipe, protocol),
    )  # fmt: skip
    print(f"Few labels in {folder}: {len(study.pretrainings)} ways to pretrain, {len(study.tunings)} runs", flush=True)
    lines = study.run(processes, folder / "few_labels.jsonl")
    same = not quick and not per_class and chosen == RECIPES[recipe]
    print(write_report(folder, lines, same and _original_task(data, encoder, shared["label"], protocol)))


def quick_data(
    data: ImageDataModule, given: Options, shoes: Options = SHOES
) -> tuple[ImageDataModule, Options]:  # fmt: skip
    """Take fewer and smaller drawn shoes, where the user gave no other data, and say so in the options."""
    usual = DrawnShoes()
    if not isinstance(data, DrawnShoes) or (data.count, data.edge) != (usual.count, usual.edge):
        return data, given
    path = f"{DrawnShoes.__module__}.{DrawnShoes.__name__}"
    return DrawnShoes(**shoes), {**given, "data": {"class_path": path, "init_args": shoes}}


def _changed(recipe: Recipe, epochs: int | None, tuning: int | None, decay: float | None, quick: bool) -> Recipe:
    """Give a recipe with other numbers of epochs and another weight decay; few images need smaller batches.

    Raises:
        InputError: for fewer epochs than 1, or a weight decay below 0.
    """
    told = {name: value for name, value in {"epochs": epochs, "tuning_epochs": tuning}.items() if value is not None}
    if min(told.values(), default=1) < 1:
        raise InputError(f"Expected epochs and tuning_epochs of at least 1, got {epochs} and {tuning}")
    if decay is not None and decay < 0:
        raise InputError(f"Expected a weight_decay of at least 0, got {decay}")
    small = {"batches": {**recipe.batches, "size": min(64, recipe.batches["size"])}} if quick else {}
    usual = {name: QUICK[name] for name in ("epochs", "tuning_epochs")} if quick else {}
    decayed = {} if decay is None else {"optimisation": {**recipe.optimisation, "weight_decay": decay}}
    return replace(recipe, **{**usual, **small, **decayed, **told})


def _check_variants(names: Sequence[str], encoder: Encoder, data: ImageDataModule, protocol: str) -> None:
    for name in names:
        if name not in VARIANTS and not MIXED.fullmatch(name):
            raise InputError(f"Expected a way to pretrain, got {name!r}: {nearest(name, VARIANTS)}")
        if protocol == "other_knowledge" and (name in SEES_CLASSES or MIXED.fullmatch(name)):
            raise InputError(f"Expected ways to pretrain without class labels for {protocol}, got {name!r}")
    if "ae_full" in names:
        MirrorAutoEncoder(encoder, data.size)  # says so if it cannot


def _suggested(data: ImageDataModule, names: Sequence[str]) -> dict[str, Similarity]:
    return data.similarities() if "simec_own" in names else {}


def _check_knowledge(names: Sequence[str], protocol: str, label: str, own: Mapping[str, Similarity]) -> None:
    """Make sure that the user's similarities do not know the class where nothing else may.

    Raises:
        InputError: naming the head whose similarity does.
    """
    if "simec_own" not in names or protocol != "other_knowledge":
        return
    for head, similarity in own.items():
        if label in attributes_of(similarity):
            raise InputError(
                f"Expected similarities that do not know {label!r} for {protocol}, but that of head {head!r} does: "
                "give others by --similarities, or leave simec_own out of --variants"
            )


def attributes_of(similarity: Similarity) -> set[str]:
    """Give the attributes that a similarity compares, those of its parts among them."""
    own = getattr(similarity, "attribute", None)
    parts = [attributes_of(part) for part in getattr(similarity, "similarities", ())]
    return set().union(*parts, {own} if isinstance(own, str) else ())


def check_study(given: Options, encoder: Encoder, data: ImageDataModule, choose: str) -> None:
    """Make sure that a study can be made and that its test images choose nothing.

    Raises:
        InputError: if not.
    """
    if type(encoder).__name__ not in ENCODERS:
        raise InputError(f"Expected one of the package's encoders for a study, got {type(encoder).__name__}")
    if given["trainer"].get("max_epochs") is not None:
        raise InputError("Expected no trainer.max_epochs, as a study has its own: give epochs or tuning_epochs")
    if choose == "validation" and "test" not in data.loaded.splits:
        raise InputError("Expected a test split beside the validation images, which choose epochs: add one")
    check_held_out(data, "validation", "test")


def known_items(data: ImageDataModule, label: str, kept: Options, split: str = "train") -> NDArray[np.int64]:
    """Give the index of the labelled items of a split, of the classes that are kept, where not all are."""
    items = data.split(split)
    return items[(data.items.has(label, kept[label]) if kept else data.items.classes(label)[0] >= 0)[items]]


def check_labels(
    data: ImageDataModule,
    label: str,
    kept: Options,
    labels: Sequence[int],
    seeds: Sequence[int],
    per_class: bool = False,
) -> None:
    """Make sure that there are so many labels, of at least two classes, whatever the seed, and as many to test on.

    Raises:
        InputError: naming the number that cannot be, or the one class of the test.
    """
    (codes, names), known = data.items.classes(label), known_items(data, label, kept)
    tested = set(codes[known_items(data, label, kept, "test")])
    if len(tested) < 2:
        told = ", ".join(names[code] for code in tested) or "none"
        raise InputError(
            f"Expected test images of two or more classes of {label!r}, got {told} alone: split otherwise "
            "(UT-Zappos50K: --data.report_on all)"
        )
    for count, seed in product(labels, seeds):
        most = max(np.bincount(codes[known]), default=0) if per_class else len(known)
        if not 0 < count <= most:
            whose = "those of the largest class" if per_class else "the labelled training images"
            raise InputError(f"Expected labels between 1 and {most}, {whose}, got {count}")
        if len(set(codes[nested_subset(known, count, seed, codes[known] if per_class else None)])) < 2:
            raise InputError(f"Expected labels of two or more classes, got {count} of one with seed {seed}: take more")


def total(data: ImageDataModule, label: str, kept: Options, labels: int, per_class: bool) -> int:
    """Give how many labels there are in all, which depends on no seed."""
    known = known_items(data, label, kept)
    classes = data.items.classes(label)[0][known] if per_class else None
    return len(nested_subset(known, labels, 0, classes))


def _shared(given: Options, encoder: Encoder, label: str) -> Options:
    """Give the options that all runs share."""
    described = {"class_path": f"{type(encoder).__module__}.{type(encoder).__name__}", "init_args": encoder.options}
    encoded = {"encoder": given.get("encoder") or described}
    return {"data": given["data"], **encoded, "label": label, "trainer": given["trainer"]}


def _parts(data: ImageDataModule, label: str, protocol: str, known: Sequence[str] | None) -> tuple[Options, Options]:
    """Say what is kept for pretraining and for fine-tuning: ``keep`` of each, empty for everything."""
    if protocol != "disjoint_classes":
        return {}, {}
    classes = data.items.classes(label)[1]
    known = list(known) if known else classes[: len(classes) // 2]
    data.items.has(label, known)  # names the value that is unknown
    rest = [name for name in classes if name not in known]
    if not known or len(rest) < 2:
        raise InputError(f"Expected known_classes that leave at least two of {', '.join(classes)}, got {known}")
    return {label: known}, {label: rest}


def _pretrained(
    name: str, recipe: Recipe, shared: Options, kept: Options, references: int, given: Options
) -> Pretrained:
    """Say how a variant is pretrained."""
    own = shared["data"].get("init_args", {})
    batches = {**own.get("batches", {}), **recipe.batches}
    data = {**shared["data"], "init_args": {**own, "batches": batches}}
    # The last epoch counts: to validate each of them would cost more than it tells.
    ends = {"max_epochs": recipe.epochs, "check_val_every_n_epoch": recipe.epochs}
    trainer = {**shared["trainer"], **recipe.trainer, **ends}
    options = {
        "data": data,
        "encoder": shared["encoder"],
        "keep": kept or None,
        "seed": recipe.seed,
        "optimisation": {**recipe.optimisation, **recipe.own.get(kind(name), {})},
        "trainer": trainer,
    }
    if name == "none":
        return Pretrained(name, "", {})
    if name == "labels":
        start = {"batches": batches, "probe": False, "classifier_start": recipe.tuning["classifier_start"]}
        data = {"data": shared["data"], "label": shared["label"], "labels": None, "choose": "last"}
        return Pretrained(name, "finetune", {**options, **data, **start})
    if kind(name) == "ae":
        return Pretrained(name, "pretrain autoencoder", {**options, "decoder": name.removeprefix("ae_")})
    objective = {**recipe.objective, **recipe.objectives.get(name, {})}
    similar = {"similarities": similarities_of(name, shared["label"], given), "references": references}
    how = {"objective": objective, "head_start": recipe.head_start, "heatmaps": False}
    return Pretrained(name, "pretrain", {**options, **similar, **how})


def similarities_of(variant: str, label: str, given: Options) -> Options | None:
    """Give the similarities of a variant as options; None for what the data suggest."""
    classes = {"class_path": "SameClass", "init_args": {"attribute": label}}
    kernel = {"class_path": "Kernel", "init_args": {"kind": "linear", "scale": True}}
    mixed = MIXED.fullmatch(variant)
    if mixed:
        weight = float(mixed[1])
        parts = {"similarities": [kernel, classes], "weights": [weight, round(1 - weight, 6)]}
        return {"mixture": {"class_path": "WeightedSum", "init_args": parts}}
    known = {"simec_linear": {"linear": kernel}, "simec_classes": {"class": classes}}
    return known.get(variant, given.get("similarities"))


def _tuned(recipe: Recipe, shared: Options, kept: Options, labels: int, choose: str) -> Options:
    """Say how an encoder is tuned on so many labels."""
    trainer = {**shared["trainer"], **recipe.trainer, "max_epochs": epochs_for(recipe, labels)}
    if recipe.validated and choose == "validation":
        trainer["check_val_every_n_epoch"] = 1
    return {**shared, **tuning_options(recipe, labels), "keep": kept or None, "choose": choose, "trainer": trainer}


def to_line(tuning: Tuned, own: Any, before: Any, recipe: str, protocol: str) -> Line:
    """Write what a run of fine-tuning gave, and which counts where there is a linear probe, too."""
    probe = "probe/accuracy" in own and _probe_counts(tuning, own)
    told = {name: own[name] for name in ("validation/accuracy", "probe/accuracy", "probe/validation") if name in own}
    return {
        "recipe": recipe,
        "protocol": protocol,
        "pretraining": tuning.pretraining,
        "labels": tuning.labels,
        **({"per_class": True} if own.get("per_class") else {}),
        "validation_labels": own["validation_labels"],
        "seed": tuning.seed,
        "test/accuracy": own["probe/accuracy" if probe else "test/accuracy"],
        "chosen": "probe" if probe else "tuned",
        "tuned/accuracy": own["test/accuracy"],
        **told,
        "epochs": own["epochs"],
        "seconds": own["seconds"],
        "pretraining/seconds": before.get("seconds", 0.0),
        "pretraining/epochs": before.get("epochs", 0),
    }


def _probe_counts(tuning: Tuned, own: Any) -> bool:
    """Say whether the linear probe counts: by validation, or else where a pretrained encoder meets few labels."""
    if own["validation_labels"]:
        return bool(own["probe/validation"] > own["validation/accuracy"])
    return tuning.pretraining != "none" and own.get("labels", tuning.labels) < LARGE


def _original_task(data: ImageDataModule, encoder: Encoder, label: str, protocol: str) -> bool:
    """Say whether the original's numbers are those of the same task: its CNN, CIFAR-10, all labels."""
    same = sorted(CLASSES) == data.items.classes(label)[1] and protocol == "all_labels"
    return same and isinstance(encoder, CifarCNN) and encoder.options == CifarCNN().options
