"""Heads whose references outgrow one device: each process holds some of their rows.

Rows lie as PyTorch's DTensor shares them out (``Shard(0)`` on a device mesh), and are looked up as its embedding does:
each process gives its own, the others zeros, and the sum is sent. DTensor's own lookup is not used because its gradient
is made of all rows in every process, and never sparse (torch 2.14). A process's part is an ordinary parameter, so that
optimisers and their states need to know nothing of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.processes import share

CHUNK = 2**24
"""At most about this many numbers of a whole tensor lie on the device while it is put together."""


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors; the gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _summed(tensor, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


def _summed(tensor: Tensor, group: Any) -> Tensor:
    total = tensor.contiguous().clone()
    torch.distributed.all_reduce(total, group=group)
    return total


@dataclass(frozen=True)
class Part:
    """Some rows of a tensor whose rows are shared out over all processes (``Shard(0)`` of a DTensor).

    Args:
        mesh: The processes, a one-dimensional ``DeviceMesh``.
        total: Rows of the whole tensor.
    """

    mesh: Any
    total: int

    @cached_property
    def positions(self) -> range:
        """Which rows this process has: those of ``torch.chunk``, as DTensor shares them out."""
        size = -(-self.total // self.mesh.size())
        start = min(self.total, self.mesh.get_local_rank() * size)
        return range(start, min(self.total, start + size))

    def from_first(self, whole: Tensor) -> Tensor:
        """Give this process's rows of the first process's tensor ``(row, column)``, sent some rows at a time."""
        whole = whole.clone()
        for chunk in whole.split(max(1, CHUNK // max(1, whole.shape[1]))):
            sent = chunk.to(self.mesh.device_type).contiguous()
            share([sent])
            chunk.copy_(sent)
        return self.of(whole)

    def of(self, whole: Tensor) -> Tensor:
        """Give a copy of this process's rows of a whole tensor ``(row, …)``."""
        return whole[self.positions.start : self.positions.stop].clone()

    def rows(self, part: Tensor, columns: Tensor | None = None, sparse: bool = False) -> Tensor:
        """Give rows of the whole tensor, the same in every process; all processes must ask for the same.

        In the gradient the processes' shares of the batch are averaged, as DDP does.

        Args:
            part: This process's rows, shape ``(row, column)``.
            columns: Positions of the rows that are wanted, shape ``(wanted,)``; default: all.
            sparse: Let the gradient be sparse, of these rows alone.

        Returns:
            Shape ``(wanted, column)``.
        """
        if columns is None:
            columns = torch.arange(self.total, device=part.device)
        own = ((columns >= self.positions.start) & (columns < self.positions.stop)).nonzero()[:, 0]
        mine = F.embedding(columns[own] - self.positions.start, part, sparse=sparse)
        padded = part.new_zeros(len(columns), part.shape[1]).index_copy(0, own, mine)
        found: Tensor = _Sum.apply(padded, self.mesh.get_group())
        if found.requires_grad:
            found.register_hook(lambda gradient: gradient / self.mesh.size())
        return found

    @torch.no_grad()
    def whole(self, part: Tensor) -> Tensor:
        """Put the whole tensor ``(row, …)`` together in the processor's memory, in every process; all must ask."""
        flat = part.detach().reshape(len(part), max(1, part.shape[1:].numel()))
        whole = torch.empty(self.total, flat.shape[1], dtype=part.dtype)
        for chunk in torch.arange(self.total, device=part.device).split(max(1, CHUNK // flat.shape[1])):
            whole[chunk[0] : chunk[-1] + 1] = self.rows(flat, chunk).cpu()
        return whole.reshape(self.total, *part.shape[1:])


def all_processes(device: torch.device) -> Any:
    """Give the mesh of all processes."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, (torch.distributed.get_world_size(),))


def clip(parameters: Iterable[nn.Parameter], parts: Iterable[nn.Parameter], largest: float) -> None:
    """Clip the norm of the gradient of everything, where of some tensors each process has a part only.

    Args:
        parameters: Those that every process has whole, with the same gradient.
        parts: Those of which each process has some rows.
        largest: Largest norm.
    """
    own, shared = ([p.grad for p in some if p.grad is not None] for some in (parts, parameters))
    if not own + shared:
        return
    device = (own + shared)[0].device
    squares = torch.stack([_square(own).to(device), _square(shared).to(device)])
    torch.distributed.all_reduce(squares[:1])
    scale = (largest / (squares.sum().sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in own + shared:
        gradient.mul_(scale.to(gradient.dtype))


def _square(gradients: list[Tensor]) -> Tensor:
    return torch.stack([g.norm().double() ** 2 for g in gradients]).sum() if gradients else torch.zeros(()).double()
