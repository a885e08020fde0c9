"""The run folder: ``config.yaml``, ``metrics.csv``, ``summary.json``, ``checkpoints/`` and ``model/``."""

import csv
import io
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint

from simec_vision.files import replacing
from simec_vision.items import InputError
from simec_vision.optimisation import NO_END, Optimisation

BETWEEN = 5
"""How often a run is saved between two validations that are at least as many epochs apart."""

CHOSEN = "SIMEC_VISION_RUN"
"""Environment variable by which the first process tells those it starts which folder it chose."""


def first_process() -> bool:
    """Say whether this is the one process that writes."""
    return all(int(os.environ.get(name, "0")) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"))


def open_run(out: str | None, command: str, resume: bool = False) -> Path:
    """Choose and make the run folder.

    Args:
        out: The folder that the user named; default: the next free of ``runs/<command>``, ``runs/<command>-2``, …
        command: What is run.
        resume: Whether the folder holds the run that is continued.

    Raises:
        InputError: if a folder that the user named already holds files.
    """
    if not first_process():
        return Path(out or os.environ.get(CHOSEN, f"runs/{command}"))
    folder = Path(out) if out else _next_free(command)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"Expected --out to name a folder, but {folder} is a file")
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"Expected a new or empty folder for --out, but {folder} holds files. Name another one"
            f"{', or continue it with --resume ' + str(folder) if (folder / 'checkpoints').is_dir() else ''}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[CHOSEN] = str(folder)
    return folder


def numbered(command: str) -> Iterator[Path]:
    """Give ``runs/<command>``, ``runs/<command>-2``, …, without end."""
    yield Path("runs") / command
    yield from (Path("runs") / f"{command}-{number}" for number in count(2))


def _next_free(command: str) -> Path:
    return next(folder for folder in numbered(command) if not (folder.exists() and any(folder.iterdir())))


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text)


def with_option(config: str, name: str, value: Any) -> str:
    """Set an option in a configuration written as YAML."""
    import yaml

    return yaml.safe_dump({**yaml.safe_load(config), name: value}, sort_keys=False)


class AtomicCheckpoints(TorchCheckpointIO):
    """Write a checkpoint whole or not at all, so that a full disk leaves the last good one as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(path) as partial:
            partial.write_bytes(content.getbuffer())


class BestCheckpoint(ModelCheckpoint):
    """Keep the last of the best epochs where several are equally good, as the original does."""

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Say whether an epoch is as good as the best so far."""
        best = self.best_model_score
        return (current is not None and best is not None and bool(current == best)) or super().check_monitor_top_k(
            trainer, current
        )


class LastCheckpoint(Checkpoint):
    """Keep the checkpoint of an interrupted run fresh between validations that are many epochs apart.

    Args:
        path: The file, the one that :class:`BestCheckpoint` writes, too.
        every: How many epochs apart.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint, when all else of the epoch is done."""
        if (trainer.current_epoch + 1) % self.every == 0:
            trainer.save_checkpoint(self.path)


class MetricsTable(Callback):
    """Keep ``metrics.csv``: a row an epoch with every logged metric, learning rate, seconds, images per second.

    ``seconds`` and ``images_per_second`` are those of the epoch's training alone; ``elapsed`` are all seconds since the
    start, validation and checkpoints included, without those between an interruption and going on.

    Args:
        path: The file; a resumed run goes on in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._begun = self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rows of the epochs that a resumed run has behind it."""
        self._read(trainer.current_epoch)
        self._begun = time.perf_counter() - self.seconds

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read the rows of a resumed run that had nothing left to train, and so never started."""
        if not self.rows:
            self._read(trainer.current_epoch)

    def _read(self, epochs: int) -> None:
        if self.path.exists():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epochs]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._images = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Count images."""
        batch = args[1]
        self._images += len(batch[1]) * trainer.world_size
        self._last = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row."""
        seconds = self._last - self._started
        metrics = {name: _number(value) for name, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        speed = {"seconds": round(seconds, 3), "images_per_second": round(self._images / seconds, 1)}
        speed["elapsed"] = round(time.perf_counter() - self._begun, 3)
        self.rows.append({"epoch": trainer.current_epoch, "lr": rate, **metrics, **speed})
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with replacing(self.path) as partial, open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(self.rows)

    @property
    def seconds(self) -> float:
        """All seconds that training took up to the end of the last epoch, before an interruption, too."""
        return float(self.rows[-1]["elapsed"]) if self.rows else 0.0

    @property
    def images_per_second(self) -> float:
        """Training images a second over all epochs, validation not counted."""
        seconds = [float(row["seconds"]) for row in self.rows]
        images = [float(row["images_per_second"]) * part for row, part in zip(self.rows, seconds, strict=True)]
        return round(sum(images) / sum(seconds), 1) if seconds else 0.0


def _number(value: torch.Tensor) -> float:
    return float(f"{float(value):.7g}")


def make_trainer(
    options: dict[str, Any], run: Path, monitor: str | None, mode: str, tensorboard: bool, callbacks: list[Callback]
) -> pl.Trainer:
    """Make the Trainer of a run: checkpoints ``last`` and ``best``, and TensorBoard where it is wanted.

    Args:
        options: Options of Lightning's Trainer.
        run: The run folder.
        monitor: The metric that says which epoch is best; default: no checkpoints.
        mode: Whether the best is the ``min`` or the ``max``.
        tensorboard: Log to TensorBoard.
        callbacks: Further callbacks.
    """
    if options.get("enable_checkpointing") is False:
        monitor = None
    every = options.get("check_val_every_n_epoch") or 1
    more = _checkpoints(run, monitor, mode, every) if monitor else []
    logger = _tensorboard(run) if tensorboard else False
    try:
        own = {"default_root_dir": run, "logger": logger, "callbacks": [*callbacks, *more]}
        return pl.Trainer(**{**options, **own, "plugins": _plugins(options.get("plugins"))})
    except (ValueError, TypeError) as error:
        raise InputError(f"Expected options that Lightning's Trainer can take: {error}") from error


def check_end(trainer: pl.Trainer, optimisation: Optimisation) -> None:
    """Make sure that a schedule that needs an end has one, before anything is written.

    Raises:
        InputError: if it has none.
    """
    if optimisation.schedule == "cosine" and trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        raise InputError(NO_END)


def validated(trainer: pl.Trainer) -> list[str]:
    """Give the split that is validated on, none where the Trainer is told not to validate."""
    return ["validation"] if trainer.limit_val_batches else []


def _plugins(given: Any) -> list[Any]:
    several = given if isinstance(given, list) else [given]
    return [AtomicCheckpoints(), *(plugin for plugin in several if plugin is not None)]


def _checkpoints(run: Path, monitor: str, mode: str, every: int) -> list[Callback]:
    """Keep ``best`` and ``last`` of epochs that are validated, and ``last`` in between where these are far apart."""
    # Written when all of an epoch is done, or a resumed run would repeat or lose part of it.
    always: dict[str, Any] = {"save_last": True, "enable_version_counter": False, "save_on_train_epoch_end": True}
    folder = run / "checkpoints"
    best = BestCheckpoint(folder, filename="best", monitor=monitor, mode=mode, every_n_epochs=every, **always)
    return [best, LastCheckpoint(folder / "last.ckpt", every // BETWEEN)] if every >= BETWEEN else [best]


def _tensorboard(run: Path) -> Any:
    from pytorch_lightning.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(run, name="", version="tensorboard")
    except ModuleNotFoundError:
        raise InputError(
            "Expected the package tensorboard for --tensorboard: pip install 'simec-vision[tensorboard]'"
        ) from None


def check_checkpoint(path: Path, module: pl.LightningModule) -> Path:
    """Make sure that a checkpoint can be resumed by a module.

    Raises:
        InputError: if it is missing or damaged, or of another model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"Expected a checkpoint at {path}: {' '.join(str(error).split())[:200]}") from error
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, shape in own.items():
        if name not in state or tuple(state[name].shape) != shape:
            found = tuple(state[name].shape) if name in state else "none"
            raise InputError(f"Expected a checkpoint of this model, with {name} of shape {shape}; {path} has {found}")
    return path
