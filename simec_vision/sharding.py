"""Heads whose references outgrow one device: each process holds some of their rows, by PyTorch's DTensor.

A process's part is an ordinary parameter, so that optimisers, their states and clipping need to know nothing of it.
Rows of all parts together, which a step needs, are looked up in a DTensor made of the parts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHUNK = 2**24
"""At most about this many numbers of a whole tensor lie on the device while it is put together."""


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

    def of(self, whole: Tensor) -> Tensor:
        """Give a copy of this process's rows of a whole tensor ``(row, …)``."""
        return whole[self.positions.start : self.positions.stop].clone()

    def rows(self, part: Tensor, columns: Tensor | None = None) -> Tensor:
        """Give rows of the whole tensor, the same in every process; all processes must ask for the same.

        In the gradient the processes' shares of the batch are averaged, as DDP does.

        Args:
            part: This process's rows, shape ``(row, column)``.
            columns: Positions of the rows that are wanted, shape ``(wanted,)``; default: all.

        Returns:
            Shape ``(wanted, column)``.
        """
        from torch.distributed.tensor import DTensor, Replicate, Shard

        if columns is None:
            columns = torch.arange(self.total, device=part.device)
        shape, stride = torch.Size((self.total, part.shape[1])), (part.shape[1], 1)
        table = DTensor.from_local(part, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
        wanted = DTensor.from_local(columns, self.mesh, [Replicate()], run_check=False)
        found: Tensor = F.embedding(wanted, table).redistribute(placements=[Replicate()]).to_local()  # type: ignore[attr-defined]
        if found.requires_grad:
            found.register_hook(self._average)
        return found

    def _average(self, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        torch.distributed.all_reduce(gradient, group=self.mesh.get_group())
        return gradient / self.mesh.size()

    @torch.no_grad()
    def whole(self, part: Tensor) -> Tensor:
        """Put the whole tensor ``(row, …)`` together in the processor's memory, in every process; all must ask."""
        flat = part.detach().reshape(len(part), part[:1].numel() if len(part) else part.shape[1:].numel())
        chunks = torch.arange(self.total, device=part.device).split(max(1, CHUNK // max(1, flat.shape[1])))
        return torch.cat([self.rows(flat, chunk).cpu() for chunk in chunks]).reshape(self.total, *part.shape[1:])

    def seen(self, gradient: Tensor, columns: Tensor) -> Tensor:
        """Keep of a gradient of this process's rows those that a step has seen, as a sparse tensor.

        Args:
            gradient: Shape ``(row, column)``.
            columns: Positions, among all rows, of those that the step has seen, ascending.
        """
        own = (columns >= self.positions.start) & (columns < self.positions.stop)
        rows = columns[own] - self.positions.start
        shape = gradient.shape
        return torch.sparse_coo_tensor(rows[None], gradient[rows], shape, is_coalesced=True, check_invariants=False)


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
    squares = torch.stack([_square(own), _square(shared)]).to((own + shared)[0].device)
    torch.distributed.all_reduce(squares[:1])
    scale = (largest / (squares.sum().sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in own + shared:
        gradient.mul_(scale.to(gradient.dtype))


def _square(gradients: list[Tensor]) -> Tensor:
    return torch.stack([g.norm().double() ** 2 for g in gradients]).sum() if gradients else torch.zeros(()).double()
