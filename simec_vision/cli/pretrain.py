"""The command ``pretrain``: an encoder from images and what is known about their similarity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from simec_vision.baselines import blind_match
from simec_vision.cli.building import (
    HeadStart,
    References,
    bind_targets,
    build_model,
    check_held_out,
    check_targets,
    fitting_encoder,
)
from simec_vision.cli.hardware import apply_speed, described
from simec_vision.cli.runs import (
    MetricsTable,
    check_checkpoint,
    check_end,
    make_trainer,
    open_run,
    validated,
    write_text,
)
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.encoders import Encoder
from simec_vision.files import write_json
from simec_vision.model import SimilarityModel
from simec_vision.optimisation import Optimisation
from simec_vision.pretraining import Objective, Pretraining
from simec_vision.similarities import Similarity, TargetSimilarity


def pretrain(
    data: ImageDataModule,
    config: str,
    trainer: dict[str, Any],
    encoder: Encoder | None = None,
    similarities: dict[str, Similarity] | None = None,
    references: References = None,
    keep: dict[str, list[str]] | None = None,
    objective: Objective = Objective(),
    optimisation: Optimisation = Optimisation(lr_batch=256),
    head_start: HeadStart = "random",
    head_frozen: bool = False,
    head_sharded: bool = False,
    seed: int = 0,
    fast: bool = True,
    compile: bool = False,
    tensorboard: bool = False,
    compare_with: str | None = None,
    heatmaps: bool = True,
    out: str | None = None,
    resume: str | None = None,
) -> None:
    """Pretrain an encoder so that its embeddings predict how similar images are.

    Args:
        data: Where images come from: DrawnShoes (taken where none is given), Zappos50K, CIFAR10, ImageTable, Shards or
            your own class; --data.help NAME lists the options of one, as --encoder.help NAME does.
        config: All options as YAML, for the run folder.
        trainer: Options of Lightning's Trainer.
        encoder: CifarCNN, ShoeCNN, PlainCNN, ResidualNet, PooledResidualNet, TorchvisionEncoder, MLP or your own;
            default: PlainCNN.
        similarities: Head name → what similar means; default: what the data suggest, heel and closure for shoes.
        references: How many items similarity is measured to, a file of their names, or either by head; default: 1000.
        keep: Attribute → values, such as '{label: [cat, dog]}': only items that have one of them are used.
        objective: What is minimised.
        optimisation: Optimiser and learning-rate schedule.
        head_start: Start heads at small random numbers, from the eigendecomposition of the references' own
            similarities, or as PyTorch starts linear layers, which the original did.
        head_frozen: Keep the heads as they start.
        head_sharded: Let each of several processes hold only some rows of the heads, for more references than one
            device has room for (DDP).
        seed: Seed of the weights, the sample of references and dropout.
        fast: Compute as was measured to be fast: trainer.precision by the hardware, images and weights channels last,
            the learning rate by the batch size; false takes float32, contiguous memory and the learning rate as given.
        compile: Compile the encoder with torch.compile, for long runs on GPUs; on processors it was no faster.
        tensorboard: Log to TensorBoard too (needs the extra simec-vision[tensorboard]).
        compare_with: An attribute, such as Category, whose class means are measured beside the encoder: predictors that
            see no image. A constant is measured, too.
        heatmaps: Draw heatmaps of held-out images at the end.
        out: Run folder, new or empty; default: the next free runs/pretrain.
        resume: Run folder of an interrupted run that is continued with its own options.
    """
    run = open_run(out, "pretrain", resume=resume is not None)
    pl.seed_everything(seed, verbose=False)
    data.prepare_data()
    data.use_only(keep or {})
    check_held_out(data, "validation", "test")
    targets = bind_targets(data, similarities or data.similarities(), references, seed)
    check_targets(targets, objective.loss)
    blind = {} if compare_with is None else blind_measures(data, targets, compare_with)
    model = build_model(data, fitting_encoder(encoder, data), targets, head_start, head_frozen)
    trainer, optimisation = apply_speed(fast, trainer, optimisation, data)
    model = model.to(memory_format=data.memory_format)
    module = Pretraining(model, targets, objective, optimisation, seed, head_sharded)
    table = MetricsTable(run / "metrics.csv")
    lightning = make_trainer(trainer, run, "validation/loss", "min", tensorboard, [table])
    check_end(lightning, optimisation)
    data.check_for_processes(lightning.world_size, "train", *validated(lightning), "test")
    if lightning.is_global_zero:
        write_text(run / "config.yaml", config)
        print(f"Pretraining in {run}: {described(lightning, data, optimisation, compile)}", flush=True)
    if compile:
        model.encoder.compile()
    fit(lightning, module, data, run, resume)
    measured = lightning.test(module, datamodule=data, verbose=False)[0]
    module.gather_heads()
    if lightning.is_global_zero:
        summary = {**measured, **blind, "images_per_second": table.images_per_second, "seconds": table.seconds}
        finish(run, module, {**summary, "epochs": lightning.current_epoch}, data, heatmaps)


def blind_measures(data: ImageDataModule, targets: Mapping[str, TargetSimilarity], attribute: str) -> dict[str, float]:
    """Measure predictors that see no image on held-out items: ``constant/<head>/mse``, ``<attribute>/<head>/…``."""
    codes, classes = data.items.classes(attribute)
    measures: dict[str, float] = {}
    for name, target in targets.items():
        matches = blind_match(target, data.split("train"), data.split("test"), codes, len(classes))
        for predictor, match in zip(("constant", attribute), matches, strict=True):
            measures |= {f"{predictor}/{name}/{measure}": value for measure, value in match.items()}
    return measures


def fit(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, run: Path, resume: str | None,
    best: bool = True,
) -> None:  # fmt: skip
    """Train, or go on, and take the weights of the epoch that is best on validation images, or else the last."""
    checkpoint = check_checkpoint(run / "checkpoints" / "last.ckpt", module) if resume else None
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if best:
        restore_best(trainer, module)


def restore_best(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Load the best checkpoint's weights, if one was kept."""
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if best:
        checkpoint = torch.load(best, map_location="cpu", weights_only=True, mmap=True)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])


def finish(run: Path, module: Pretraining, summary: dict[str, Any], data: ImageDataModule, heatmaps: bool) -> None:
    """Write the model and the summary, and draw heatmaps."""
    module = module.cpu()
    model = module.model.to(memory_format=torch.contiguous_format)
    model.save(run / "model")
    write_json(run / "summary.json", summary)
    print(_report(run, summary))
    if heatmaps:
        _draw(run, model, data, module.targets)


def _report(run: Path, summary: dict[str, Any]) -> str:
    predictors: dict[str, list[str]] = {}
    for predictor, head, _ in (name.split("/") for name in summary if name.endswith("/mse")):
        predictors.setdefault(head, []).append(predictor)
    lines = [
        f"  {predictor}: {_match(summary, predictor, head)}"
        if predictor != "similarity"
        else f"{head}: held-out {_match(summary, predictor, head)}"
        for head in sorted(predictors)
        for predictor in predictors[head]
    ]
    speed = f"{summary['epochs']} epochs in {summary['seconds']:.0f} s, {summary['images_per_second']:.0f} images/s"
    return "\n".join([*lines, speed, f"Saved {run}"])


def _match(summary: dict[str, Any], predictor: str, head: str) -> str:
    names = {"r2": "r²", "spearman": "Spearman", "mse": "mse"}
    measures = {name: summary.get(f"{predictor}/{head}/{name}") for name in names}
    return ", ".join(f"{names[name]} {value:.4f}" for name, value in measures.items() if value is not None)


def _draw(run: Path, model: SimilarityModel, data: ImageDataModule, targets: Any) -> None:
    from simec_vision.cli.explain import draw_defaults
    from simec_vision.explain import CannotExplain

    try:
        files = draw_defaults(model, data, dict(targets.items()), run / "heatmaps")
    except CannotExplain as error:
        print(f"No heatmaps: {error}")
    else:
        print("Drew " + ", ".join(str(path) for path in files))
