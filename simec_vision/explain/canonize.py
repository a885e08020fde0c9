"""An explainable twin of a network: the same function as a chain of layers that LRP has rules for, or a refusal.

LRP on a network as it stands fails silently: Captum's relevance of an unprepared residual net can be off by orders of
magnitude. So whatever is not known to be right is refused here, by name and place.
"""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from simec_vision.explain.agreement import check_same
from simec_vision.explain.batchnorm import Step, fold_batchnorm
from simec_vision.explain.evaluating import evaluating, unhooked
from simec_vision.explain.images import check_images
from simec_vision.explain.layers import OPERATIONS, UnsupportedError, maker_of
from simec_vision.explain.refusal import refusal


def canonize(network: nn.Module, images: Tensor | None = None) -> nn.Sequential:
    """Rebuild a network in evaluation mode as a chain of layers that LRP can go back through.

    The network is traced (``torch.fx``), functions become layers, batch normalisation is folded into its neighbour,
    and what does nothing in evaluation mode is left out. The network itself is not changed, and shares no memory with
    its twin.

    Args:
        network: A chain of Conv2d, Linear, BatchNorm, ReLU, Tanh, max or average pooling, flatten and dropout, as
            modules or functions.
        images: Some images ``(batch, channel, height, width)``, on which the twin must give what the network gives.
            They are needed where a hook computes weights as the network runs, as ``torch.nn.utils.weight_norm`` does.

    Returns:
        Layers that need no gradients, in the order in which they are applied; float32, or float64 as the network.

    Raises:
        InputError: if the network does not take the images.
        CannotExplain: if the network does anything else, naming what and where, or the twin's output differs.
    """
    check_plain(network)
    with evaluating(network), torch.no_grad():
        if images is not None:
            check_images(network, images)
        steps = _steps(network, _trace(network))
        twin = nn.Sequential(*(step.layer for step in fold_batchnorm(steps))).requires_grad_(False).eval()
    _to_full_precision(twin)
    if images is not None:
        check_same(network, twin, images)
    return twin


def _to_full_precision(twin: nn.Module) -> None:
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in twin.parameters()):
        twin.float()


def check_plain(network: nn.Module) -> None:
    """Check that a network is made of layers in Python that have their weights.

    Raises:
        CannotExplain: if it is not.
    """
    for place, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise refusal(
                place, "compiled code (torch.jit), whose layers cannot be seen; explain the network before it"
            )
        if any(nn.parameter.is_lazy(values) for values in (*module.parameters(False), *module.buffers(False))):
            raise refusal(place, f"{type(module).__name__} without weights yet; run the network once before")


class _Tracer(fx.Tracer):
    """Trace into everything but the layers below, parametrised ones included."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return maker_of(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _trace(network: nn.Module) -> fx.Graph:
    wrapper = nn.Sequential(network) if maker_of(network) else network  # a lone layer would be traced into
    try:
        with unhooked(network):
            return _Tracer().trace(wrapper)
    except Exception as error:  # whatever the user's code raises when it meets a symbol instead of images
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise refusal("", f"a forward method that depends on its input's values ({reason})") from error


def _steps(network: nn.Module, graph: fx.Graph) -> list[Step]:
    """Turn the traced graph into layers.

    What has no rule is refused before what is no chain: of a residual block one wants to hear of its addition.
    """
    modules = {"0": network, **dict(network.named_modules())} if maker_of(network) else dict(network.named_modules())
    nodes = [node for node in graph.nodes if node.op.startswith("call_") and not _is_size(node)]
    made = [(node, _make(node, modules)) for node in nodes]
    _check_chain(graph, nodes)
    _check_used_once(nodes, modules)
    return [Step(_place(node), layer) for node, layers in made for layer in layers]


def _is_size(node: fx.Node) -> bool:
    """Tell whether a node asks for sizes (``x.shape[0]``, ``x.size(0)``), as those who flatten by hand do."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and _is_size(node.args[0])
    return node.target == "size" or (node.target is getattr and bool(node.args[1] == "shape"))


def _make(node: fx.Node, modules: Mapping[str, nn.Module]) -> list[nn.Module]:
    called = modules[str(node.target)] if node.op == "call_module" else None
    maker = OPERATIONS.get(node.target) if called is None else maker_of(called)
    if maker is None:
        raise refusal(_place(node), _operation(node, modules))
    try:
        return maker(*node.args[1:], **_options(node)) if called is None else maker(called)
    except UnsupportedError as error:
        raise refusal(_place(node), f"{_operation(node, modules)} {error}") from None
    except TypeError as error:
        raise refusal(_place(node), f"{_operation(node, modules)} with other arguments than usual ({error})") from error


def _options(node: fx.Node) -> dict[str, Any]:
    """Give a function's named arguments but for its input, which may be named, too."""
    return {name: value for name, value in node.kwargs.items() if name != "input"}


def _check_chain(graph: fx.Graph, nodes: list[fx.Node]) -> None:
    starts = [node for node in graph.nodes if node.op == "placeholder"]
    if len(starts) != 1:
        raise refusal("", f"a network of {len(starts)} inputs ({', '.join(str(node) for node in starts)})")
    (end,) = (node.args[0] for node in graph.nodes if node.op == "output")
    before = starts[0]
    for node in nodes:
        if [other for other in node.all_input_nodes if not _is_size(other)] != [before]:
            raise refusal(_place(node), f"a branch (`{node}` does not continue `{before}`)")
        before = node
    if end is not before:
        raise refusal("", f"an output that is not the result of the last layer (`{before}`)")


def _check_used_once(nodes: list[fx.Node], modules: Mapping[str, nn.Module]) -> None:
    seen: dict[nn.Module, str] = {}
    for node in nodes:
        module = modules[str(node.target)] if node.op == "call_module" else None
        if module is None or next(module.parameters(), None) is None:
            continue
        if module in seen:
            raise refusal(_place(node), f"{type(module).__name__} used twice (first as {seen[module]})")
        seen[module] = _place(node)


def _place(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(node.target) if node.op == "call_module" else next(reversed(stack), "")


WORDS = dict(add="addition", sub="subtraction", mul="multiplication", truediv="division", cat="concatenation")


def _operation(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    if node.op == "call_module":
        return type(modules[str(node.target)]).__name__
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "fn")
    name = node.name if name == "fn" else name  # functions chosen by a flag are all called fn
    word = next((word for key, word in WORDS.items() if name.strip("_") in (key, "i" + key)), None)
    return f"{word} (`{name}`)" if word else f"`{name}`"
