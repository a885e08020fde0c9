"""Adam that updates only the rows of a head that a step has seen: its cost does not grow with the references.

Dense Adam over a head of 100,000 references reads and writes all of its weight and of both moments at every step.
``torch.optim.SparseAdam`` does not, but corrects the bias of a row's young moments by the number of *all* steps, so
that rows that are seldom seen take steps up to 6.5 times too large, and it has no weight decay.
"""

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def adam_rows(
    weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: Tensor, lr: float, beta: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Update some rows by Adam (Kingma & Ba 2015, algorithm 1), each by its own count of updates t.

    m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², w ← w − lr · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε).

    Args:
        weight: The rows w, shape ``(row, embedding)``.
        gradient: Their gradient g, same shape.
        first: Their first moments m before, same shape.
        second: Their second moments v before, same shape.
        step: How many updates each row has had with this one (t), shape ``(row,)``.
        lr: Learning rate.
        beta: Decay of both moments (β₁, β₂).
        eps: ε, against division by 0.

    Returns:
        Weight, first and second moments after the update.
    """
    first = first.lerp(gradient, 1 - beta[0])
    second = (second * beta[1]).addcmul_(gradient, gradient, value=1 - beta[1])
    step = step.to(torch.promote_types(weight.dtype, torch.float32))[:, None]
    mean, scale = (moment / -torch.expm1(step * log(b)) for moment, b in zip((first, second), beta, strict=True))
    return weight - lr * mean / (scale.sqrt() + eps), first, second


class _Rowwise(Optimizer):
    """A dense Adam that takes parameters with a sparse gradient row by row."""

    decoupled: bool

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = [(p, group) for group in self.param_groups for p in group["params"] if _has_rows(p)]
        gradients = [p.grad for p, _ in sparse]
        for parameter, group in sparse:
            self._update_rows(parameter, group)
            parameter.grad = None  # out of the dense optimiser's sight
        super().step()
        for (parameter, _), gradient in zip(sparse, gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _update_rows(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        state, decay, weight = self._state_of_rows(parameter), group["weight_decay"], parameter[rows]
        if self.decoupled:
            weight = weight * (1 - group["lr"] * decay)
        else:
            values = values + decay * weight
        step = state["step"][rows] + 1
        moments = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        new = adam_rows(weight, values, *moments, step, group["lr"], group["betas"], group["eps"])
        state["step"][rows] = step
        for whole, part in zip((parameter, state["exp_avg"], state["exp_avg_sq"]), new, strict=True):
            whole[rows] = part.to(whole.dtype)

    def _state_of_rows(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(len(parameter), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] = state["step"].to(parameter.device)  # a loaded count comes as it was saved
        return state


def _has_rows(parameter: Tensor) -> bool:
    return parameter.grad is not None and parameter.grad.is_sparse


class RowwiseAdam(_Rowwise, torch.optim.Adam):
    """``torch.optim.Adam`` that updates of a parameter with a sparse gradient only the rows that it holds.

    Each row has its own count of updates, so that it moves as it would under Adam alone with the steps that see it;
    in other steps it rests, and so do its moments and its weight decay (added to the gradient, as Adam's).
    """

    decoupled = False


class RowwiseAdamW(_Rowwise, torch.optim.AdamW):
    """As :class:`RowwiseAdam`, with AdamW's weight decay w ← w (1 − lr · decay), at a row's own updates."""

    decoupled = True
