"""What a network computes, as a graph (``torch.fx``), and what its operations are called in messages."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from simec_vision.explain.evaluating import unhooked
from simec_vision.explain.makers import maker_of
from simec_vision.explain.refusal import refusal


def check_plain(network: nn.Module) -> None:
    """Check that a network is made of layers in Python that have their weights.

    Raises:
        CannotExplain: if it is not.
    """
    for place, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise refusal(place, "compiled code (torch.jit), whose layers cannot be seen")
        if any(nn.parameter.is_lazy(values) for values in (*module.parameters(False), *module.buffers(False))):
            raise refusal(place, f"{type(module).__name__} without weights yet; run the network once before")


class _Symbol(fx.Proxy):
    """A symbol that has no attributes but a tensor's, so that ``getattr(output, "logits", output)`` works."""

    def __getattr__(self, name: str) -> Any:
        if not hasattr(Tensor, name):
            raise AttributeError(f"a tensor has no attribute {name!r}")
        return super().__getattr__(name)


class _Tracer(fx.Tracer):
    """Trace into everything but the layers with a rule, parametrised ones included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return maker_of(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)


def trace(network: nn.Module) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """Trace a network; give its graph, and its modules by the names that the graph calls them.

    Raises:
        CannotExplain: if its forward method depends on the images' values.
    """
    wrapper = nn.Sequential(network) if maker_of(network) else network  # a lone layer would be traced into
    try:
        with unhooked(network):
            graph = _Tracer().trace(wrapper)
    except Exception as error:  # whatever the user's code raises when it meets a symbol instead of images
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise refusal("", f"a forward method that depends on its input's values ({reason})") from error
    return graph, dict(wrapper.named_modules())


ARITHMETIC = (
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg, operator.eq, int,
)  # fmt: skip


def is_size(node: fx.Node) -> bool:
    """Tell whether a node asks for sizes (``x.shape[0]``, ``x.size(0)``) or computes with them."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_size(node.args[0])
    if node.target in ARITHMETIC:
        return bool(node.all_input_nodes) and all(map(is_size, node.all_input_nodes))
    asks = node.target is getattr and node.args[1] in ("shape", "ndim")
    return asks or (node.op == "call_method" and node.target in ("size", "dim"))


def place_of(node: fx.Node) -> str:
    """Give the path of the module in which an operation stands."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(node.target) if node.op == "call_module" else next(reversed(stack), "")


WORDS = dict(add="addition", sub="subtraction", mul="multiplication", truediv="division", div="division")


def operation_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """Name an operation for a message."""
    if node.op == "call_module":
        return type(modules[str(node.target)]).__name__
    name = function_name(node)
    word = next((word for key, word in WORDS.items() if name.strip("_") in (key, "i" + key)), None)
    return f"{word} (`{name}`)" if word else f"`{name}`"


def function_name(node: fx.Node) -> str:
    """Name the function, method or attribute of a node."""
    name = str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", "fn")
    return node.name if name == "fn" else name  # functions chosen by a flag are all called fn
