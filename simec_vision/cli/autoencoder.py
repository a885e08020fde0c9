"""The command ``pretrain autoencoder``: an encoder from images alone, which other pretraining is compared with."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import nn

from simec_vision.baselines import AutoEncoding
from simec_vision.cli.building import about, check_held_out, fitting_encoder
from simec_vision.cli.hardware import apply_speed, described
from simec_vision.cli.pretrain import fit
from simec_vision.cli.runs import MetricsTable, check_end, make_trainer, open_run, validated, write_text
from simec_vision.datamodules.image_data import ImageDataModule
from simec_vision.decoders import AUTO_ENCODERS
from simec_vision.encoders import Encoder
from simec_vision.explain.grids import picture_rows
from simec_vision.files import write_json
from simec_vision.model import SimilarityModel
from simec_vision.optimisation import Optimisation

SHOWN = 8
"""Held-out images whose reconstructions are drawn."""


def autoencode(
    data: ImageDataModule,
    config: str,
    trainer: dict[str, Any],
    encoder: Encoder | None = None,
    decoder: Literal["full", "linear"] = "full",
    keep: dict[str, list[str]] | None = None,
    optimisation: Optimisation = Optimisation(lr=1e-3, lr_batch=256),
    seed: int = 0,
    fast: bool = True,
    tensorboard: bool = False,
    out: str | None = None,
    resume: str | None = None,
) -> None:
    """Pretrain an encoder as the first half of an auto-encoder, which knows nothing but the images.

    Args:
        data: Where images come from: DrawnShoes, Zappos50K, CIFAR10, ImageTable or your own class.
        config: All options as YAML, for the run folder.
        trainer: Options of Lightning's Trainer.
        encoder: CifarCNN, ShoeCNN, PlainCNN, ResidualNet, PooledResidualNet, TorchvisionEncoder, MLP or your own;
            default: PlainCNN.
        decoder: The encoder's mirror image (plain chains only), or one linear layer.
        keep: Attribute → values: only items that have one of them are used.
        optimisation: Optimiser and learning-rate schedule.
        seed: Seed of the weights and dropout.
        fast: Compute as was measured to be fast: trainer.precision by the hardware, images and weights channels last,
            the learning rate by the batch size; false takes float32, contiguous memory and the learning rate as given.
        tensorboard: Log to TensorBoard too (needs the extra simec-vision[tensorboard]).
        out: Run folder, new or empty; default: the next free runs/autoencoder.
        resume: Run folder of an interrupted run that is continued with its own options.
    """
    run = open_run(out, "autoencoder", resume=resume is not None)
    pl.seed_everything(seed, verbose=False)
    data.prepare_data()
    data.use_only(keep or {})
    check_held_out(data, "validation", "test")
    encoder = fitting_encoder(encoder, data)
    torch.manual_seed(seed + 1)  # the encoder's weights were drawn from the seed; the same numbers must not come again
    autoencoder: nn.Module = AUTO_ENCODERS[decoder](encoder, data.size)
    trainer, optimisation = apply_speed(fast, trainer, optimisation, data)
    module = AutoEncoding(autoencoder.to(memory_format=data.memory_format), optimisation, seed)
    table = MetricsTable(run / "metrics.csv")
    lightning = make_trainer(trainer, run, "validation/loss", "min", tensorboard, [table])
    check_end(lightning, optimisation)
    data.check_for_processes(lightning.world_size, "train", *validated(lightning), "test")
    if lightning.is_global_zero:
        write_text(run / "config.yaml", config)
        print(f"Auto-encoding in {run}: {described(lightning, data, optimisation)}", flush=True)
    fit(lightning, module, data, run, resume)
    measured = lightning.test(module, datamodule=data, verbose=False)[0]
    if lightning.is_global_zero:
        module = module.cpu().to(memory_format=torch.contiguous_format)
        SimilarityModel(encoder, {}, {**about(data, {}), "pretraining": f"ae_{decoder}"}).save(run / "model")
        speed = {"images_per_second": table.images_per_second, "seconds": table.seconds}
        write_json(run / "summary.json", {**measured, **speed, "epochs": lightning.current_epoch})
        _draw(run, module, data)
        print(f"held-out mse {measured['reconstruction/mse']:.4f} of normalised pixels\nSaved {run}")


def _draw(run: Path, module: AutoEncoding, data: ImageDataModule) -> None:
    """Draw some held-out images above what comes out of their embeddings."""
    items = data.split("test")[:SHOWN]
    with torch.no_grad():
        given = module.eval()(data.normalised(items)).float()
    rows = {"held-out images": data.images(items), "given back": _pixels(given, data)}
    picture_rows(rows, run / "reconstructions.png")


def _pixels(images: torch.Tensor, data: ImageDataModule) -> NDArray[np.uint8]:
    """Turn normalised images into uint8 pictures ``(batch, height, width, channel)``."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.normalisation.mean, data.normalisation.std))
    return ((images * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
