"""A network in evaluation for a while, and then exactly as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from simec_vision.explain.refusal import refusal


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation; at the end every module of it has its own mode, attributes and buffers back.

    Modes come back through ``train()``, as a network may do more there than set a flag (merge weights, for one).

    Raises:
        CannotExplain: if a module stays in training mode in spite of ``eval()``.
    """
    modes = {module: module.training for module in network.modules()}
    with restoring(network):
        try:
            network.eval()
            _check_evaluates(network)
            yield
        finally:
            network.train(modes[network])
            for module, training in modes.items():  # a module comes before those inside it
                if module.training != training:
                    module.train(training)


def _check_evaluates(network: nn.Module) -> None:
    for place, module in network.named_modules():
        if module.training:
            raise refusal(place, f"{type(module).__name__} that stays in training mode in spite of `eval()`")


@contextmanager
def restoring(network: nn.Module) -> Iterator[None]:
    """Give every module of a network its attributes (lists and dictionaries among them) and buffers back at the end."""
    kept = [(held, held.copy()) for module in network.modules() for held in _holders(module)]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for held, before in kept:
            _refill(held, before)
        for buffer, values in buffers:
            if not torch.equal(buffer, values):
                buffer.copy_(values)


def _holders(module: nn.Module) -> list[Any]:
    """Give what a forward method could put something into: the attributes, and every container among them."""
    return [module.__dict__, *(value for value in module.__dict__.values() if isinstance(value, dict | list | set))]


def _refill(held: Any, before: Any) -> None:
    """Give a container the entries that it had; it stays the same object."""
    held.clear()
    if isinstance(held, list):
        held.extend(before)
    else:
        held.update(before)


@contextmanager
def unhooked(network: nn.Module) -> Iterator[None]:
    """Switch off the hooks of a network's modules, which would see symbols instead of values while it is traced."""
    with restoring(network):
        for module in network.modules():
            for kind in ("_forward_hooks", "_forward_pre_hooks"):
                module.__dict__[kind] = {}
        yield
