"""What the machine can do, as default options."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from simec_vision.optimisation import Optimisation, batch_of, scaled_lr


def best_precision() -> str:
    """Choose the fastest safe precision: bf16 autocast on GPUs and processors with matrix units for it, else float32.

    A processor that has bf16 instructions only (AVX-512) trains all encoders of the package faster in float32
    (measured, channels last: CifarCNN 27 against 37 ms a batch, ResidualNet 159 against 235).
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    matrix_units = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16-mixed" if matrix_units() else "32-true"


def apply_speed(
    fast: bool, trainer: dict[str, Any], optimisation: Optimisation, data: Any
) -> tuple[dict[str, Any], Optimisation]:
    """Leave what was measured to be fast, or take it back: float32, contiguous images and weights, lr as given.

    Args:
        fast: Whether to leave everything.
        trainer: Options of Lightning's Trainer.
        optimisation: Optimiser and schedule.
        data: Where images come from; its ``memory_format`` is set.

    Returns:
        Options of the Trainer and optimisation.
    """
    data.memory_format = torch.channels_last if fast else torch.contiguous_format
    if fast:
        return trainer, optimisation
    return {**trainer, "precision": "32-true"}, replace(optimisation, lr_batch=0)


TRIM, MMAP = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of glibc's ``mallopt`` (its ``malloc.h``)."""


KEPT, USUAL = (2**31 - 1, 2**30), (2**26, 2**25)
"""Bytes that may stay free, and from which on a block is the system's own: all and 1 GB, or what glibc arrives at."""


def keep_memory(sizes: tuple[int, int] = KEPT) -> bool:
    """Let the C library keep the memory of freed tensors for the next ones, where it is glibc; say whether it does.

    Otherwise it gives large blocks back to the system and gets them anew at every step, page by page (measured:
    CifarCNN, batches of 256, one thread: 87 to 102 ms a training step against 63 to 66, 50 to 58 ms forward against
    24 to 26). The largest memory of a process changes little, but it does not shrink in between.

    Args:
        sizes: Bytes of free memory that are kept, and of a block from which on it does not come from there.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another system, or another C library
        return False
    # An old glibc refuses large blocks, and one told to trim alone would no longer adapt to the blocks that come.
    return bool(mallopt(MMAP, sizes[1]) or mallopt(MMAP, USUAL[1])) and bool(mallopt(TRIM, sizes[0]))


COUNTED = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""Set by Lightning: torch then counts GPUs through their driver's library, at each step of ``torch.optim.Adam``."""


@contextmanager
def usual_memory() -> Iterator[None]:
    """Give memory back as a program does that nobody has told otherwise, for a while."""
    keep_memory(USUAL)
    try:
        yield
    finally:
        keep_memory()


@contextmanager
def as_usual() -> Iterator[None]:
    """Treat memory, and look for GPUs, as a program without Lightning that nobody has told otherwise, for a while."""
    told = os.environ.pop(COUNTED, None)
    try:
        with usual_memory():
            yield
    finally:
        if told is not None:
            os.environ[COUNTED] = told


def quiet() -> None:
    """Leave Lightning's tips and its advice on loader workers, which do not fit whole batches, unsaid."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*exists and is not empty.*",
        ".*log_every_n_steps.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def described(trainer: pl.Trainer, data: Any, optimisation: Optimisation, compiled: bool = False) -> str:
    """Say in one line what a run computes with."""
    device = torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "CPU"
    processes = f"{trainer.world_size} × " if trainer.world_size > 1 else ""
    batch = batch_of(data, trainer) or optimisation.lr_batch
    memory = "channels last" if data.memory_format == torch.channels_last else "contiguous"
    how = f"{trainer.precision}, {memory}, {'compiled' if compiled else 'not compiled'}"
    rate = f"batch {batch}, {optimisation.optimizer}, lr {scaled_lr(optimisation, batch):.3g}"
    return f"{processes}{device}, {torch.get_num_threads()} threads, {how}, {rate}"
