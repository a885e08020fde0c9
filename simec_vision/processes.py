"""Several processes that count as one: exact averages over all of them, and the same statistics in each."""

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def place_among_processes() -> tuple[int, int]:
    """Give this process's number and how many there are, as torchrun or SLURM tell it; 0 and 1 where neither does."""
    for number, count in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if number in os.environ and count in os.environ:
            return int(os.environ[number]), int(os.environ[count])
    return 0, 1


def from_all_processes(state: Any) -> list[Any]:
    """Gather a small object from every process; a list of one where there is one process only."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def share_of_mean(known: Tensor) -> tuple[Tensor, int]:
    """Give what a process's mean over its known items counts for, so that the processes' mean is that of all items.

    Args:
        known: Which items of this process's batch count, shape ``(batch,)``.

    Returns:
        processes · count / (count of all processes), 1 where there is one process; and the count of all processes.
    """
    count = known.sum()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return torch.ones((), device=known.device), len(known)
    total = count.clone()
    torch.distributed.all_reduce(total)
    return torch.distributed.get_world_size() * count / total.clamp(min=1), int(total)


def keep_local(module: nn.Module, parameters: Iterable[str] = ()) -> None:
    """Spare DDP from sending all buffers, target similarities among them, at every step, in evaluation too.

    Processes with fewer evaluation batches than others would not answer; :func:`share_buffers` sends what matters.

    Args:
        module: What DDP wraps.
        parameters: Names of parameters that DDP leaves alone, too: those with sparse gradients, which it cannot sum on
            GPUs, as NCCL has no sparse sum. :func:`share` and :func:`average_rows` do its work for them.
    """
    names: Any = [*(name for name, _ in module.named_buffers()), *parameters]
    module._ddp_params_and_buffers_to_ignore = names


def share(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's tensors, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers (batch-normalisation statistics), as DDP does at every step."""
    share(module.buffers())


def average_rows(parameters: Iterable[nn.Parameter]) -> None:
    """Average sparse gradients over all processes, all of which have seen the same rows; others are left alone.

    As the rows are the same, only their values are sent: a dense sum that grows neither with the parameter nor with
    the number of processes, unlike the sum of sparse tensors.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values = parameter.grad.values()
            torch.distributed.all_reduce(values)
            values.div_(torch.distributed.get_world_size())


class Average:
    """The mean of numbers that come as means of some, over all processes, whoever has how many."""

    KEPT = 1000
    """So many means are summed up together."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self.means: list[Tensor] = []
        self.counts: list[int] = []

    def update(self, mean: Tensor, count: int) -> None:
        """Take in the mean of ``count`` numbers; next to nothing is computed before it is asked for."""
        self.means.append(mean.detach())
        self.counts.append(count)
        if len(self.means) >= self.KEPT:
            self._fold()

    def _fold(self) -> None:
        means = torch.stack(self.means).cpu().double().tolist() if self.means else []
        self.total += sum(mean * count for mean, count in zip(means, self.counts, strict=True))
        self.count += sum(self.counts)
        self.means, self.counts = [], []

    def compute(self) -> float:
        """Give the mean of all numbers, NaN of none; every process must ask."""
        self._fold()
        totals, counts = zip(*from_all_processes((self.total, self.count)), strict=True)
        return sum(totals) / sum(counts) if sum(counts) else float("nan")
