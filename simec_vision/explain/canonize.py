"""An explainable twin of a network: the same function as a graph of layers that LRP has rules for, or a refusal.

LRP on a network as it stands fails silently: Captum's relevance of an unprepared residual net can be off by orders of
magnitude. So whatever is not known to be right is refused here, by name and place.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from simec_vision.explain.agreement import check_same
from simec_vision.explain.batchnorm import fold_batchnorm
from simec_vision.explain.evaluating import evaluating
from simec_vision.explain.images import check_images, first_weight
from simec_vision.explain.layers import MOVING, Add, Gate, Rearrange, ScaleShift
from simec_vision.explain.makers import (
    ADDITIONS,
    MOVES,
    PRODUCTS,
    QUOTIENTS,
    SUBTRACTIONS,
    UnsupportedError,
    maker_for,
    maker_of,
    works_in_place,
)
from simec_vision.explain.refusal import refusal
from simec_vision.explain.tracing import check_plain, function_name, is_size, operation_of, place_of, trace
from simec_vision.explain.twin import PREFIX

HALF = (torch.float16, torch.bfloat16)


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Give the type in which a twin of a network of this type computes: float32 for half precision."""
    return torch.float32 if dtype in HALF else dtype


def canonize(network: nn.Module, images: Tensor | None = None) -> fx.GraphModule:
    """Rebuild a network in evaluation mode as a graph of layers that LRP can go back through.

    The network is traced (``torch.fx``); functions and operators become layers, batch normalisation is folded into a
    neighbour or becomes a scale and a shift, and what does nothing in evaluation mode is left out. A layer that is used
    twice becomes two. The network itself is not changed, and shares no memory with its twin.

    Args:
        network: What :data:`~simec_vision.explain.refusal.EXPLAINABLE` lists, as modules or functions.
        images: Some images ``(batch, channel, height, width)``, on which the twin must give what the network gives.
            They are needed where a hook computes weights as the network runs, as ``torch.nn.utils.weight_norm`` does,
            and show where a trace says too little, as of a map that has two names and is changed in place by one.

    Returns:
        A graph in which every call is one of a layer that needs no gradients, or asks for a size; see
        :func:`~simec_vision.explain.twin.layers_of`. Float32, or float64 as the network.

    Raises:
        InputError: if the network does not take the images.
        CannotExplain: if the network does anything else, naming what and where, or the twin's output differs.
    """
    check_plain(network)
    with evaluating(network), torch.no_grad():
        if images is not None:
            check_images(network, images)
        twin = _build(network)
    if images is not None:
        check_same(network, twin, images)
    return twin


def _build(network: nn.Module) -> fx.GraphModule:
    graph, modules = trace(network)
    weight = first_weight(network, torch.zeros(()))
    builder = _Builder(modules, weight.dtype, weight.device)
    _check_modules(graph, modules)
    for node in graph.nodes:
        builder.add(node)
    builder.check_gates()
    fold_batchnorm(builder.graph, builder.layers)
    twin = fx.GraphModule(builder.layers, builder.graph, "Twin").requires_grad_(False).eval()
    half = any(parameter.dtype in HALF for parameter in twin.parameters())
    return twin.float() if half else twin


def _check_modules(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
    """Refuse modules without a rule first: of a transformer one wants to hear of its attention."""
    for node in graph.nodes:
        if node.op == "call_module" and maker_of(modules[str(node.target)]) is None:
            raise refusal(place_of(node), operation_of(node, modules))


class _Builder:
    """Copies a traced graph node by node into one of layers.

    Args:
        modules: The network's modules by name.
        dtype: Type of its weights.
        device: Where they are.
    """

    def __init__(self, modules: Mapping[str, nn.Module], dtype: torch.dtype, device: torch.device) -> None:
        self.modules, self.dtype, self.device = modules, dtype, device
        self.graph, self.layers = fx.Graph(), dict[str, nn.Module]()
        self.copies: dict[fx.Node, fx.Node] = {}
        self.constants: dict[fx.Node, Tensor] = {}
        self.gates: dict[fx.Node, fx.Node] = {}  # copy → what it was copied from

    def add(self, node: fx.Node) -> None:
        """Copy one node.

        Raises:
            CannotExplain: if it has no rule.
        """
        if node.op == "placeholder":
            self._add_input(node)
        elif node.op == "get_attr":
            self.constants[node] = self._constant(str(node.target))
        elif node.op == "output":
            self._add_output(node)
        elif node.target is torch._assert:
            pass  # that an image is as large as it should be has been seen
        elif is_size(node):
            self.copies[node] = self.graph.node_copy(node, lambda before: self.copies[before])
        else:
            self._add_layer(node)

    def _add_input(self, node: fx.Node) -> None:
        if self.copies:
            raise refusal("", f"a network of several inputs ({next(iter(self.copies))}, {node})")
        self.copies[node] = self.graph.placeholder("images")

    def _constant(self, path: str) -> Tensor:
        place, _, name = path.rpartition(".")
        return getattr(self.modules[place], name).detach().clone()

    def _add_output(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node) or result not in self.copies or is_size(result):
            raise refusal("", f"an output that is not one tensor computed from the images (`{result}`)")
        self.graph.output(self.copies[result])
        self.graph.eliminate_dead_code(lambda copy: copy.op in ("placeholder", "output"))

    def _add_layer(self, node: fx.Node) -> None:
        try:
            layer, inputs = self._made(node)
        except UnsupportedError as error:
            raise refusal(place_of(node), f"{operation_of(node, self.modules)} {error}") from None
        except TypeError as error:
            words = f"{operation_of(node, self.modules)} with other arguments than usual ({error})"
            raise refusal(place_of(node), words) from error
        self.copies[node] = self.copies[inputs[0]] if layer is None else self._call(node, layer, inputs)
        self._overwrite(node)

    def _made(self, node: fx.Node) -> tuple[nn.Module | None, list[fx.Node]]:
        """Make the layer of a node and say what it is called with."""
        arithmetic = {**dict.fromkeys(ADDITIONS, self._sum), **dict.fromkeys(SUBTRACTIONS, self._difference)}
        arithmetic |= {**dict.fromkeys(PRODUCTS, self._product), **dict.fromkeys(QUOTIENTS, self._quotient)}
        if node.op != "call_module" and node.target in arithmetic:
            first, second = self._operands(node)
            return arithmetic[node.target](first, second)
        if node.op != "call_module" and node.target in MOVES:
            self._check_computed(node, node.all_input_nodes)
            if any(isinstance(each, torch.dtype) for each in (*node.args, *node.kwargs.values())):
                raise UnsupportedError("as another type")
            layer = Rearrange(MOVES[node.target], node.args, dict(node.kwargs))
            return layer, node.all_input_nodes
        return self._made_of_one(node)

    def _made_of_one(self, node: fx.Node) -> tuple[nn.Module | None, list[fx.Node]]:
        called = self.modules[str(node.target)] if node.op == "call_module" else None
        maker = maker_for(node.target) if called is None else maker_of(called)
        if maker is None:  # a function: modules have been checked
            raise refusal(place_of(node), operation_of(node, self.modules))
        signal: Any = node.args[0] if node.args else node.kwargs.get("input")
        self._check_computed(node, [signal])
        if called is not None:
            return maker(called), [signal]
        given: Any = (node.args[1:], node.kwargs)
        arguments, options = fx.node.map_arg(given, lambda each: self.constants.get(each, each))
        return maker(*arguments, **{name: value for name, value in options.items() if name != "input"}), [signal]

    def _check_computed(self, node: fx.Node, inputs: Any) -> None:
        """Check that what an operation gets was computed from the images, and not from weights."""
        if any(not isinstance(each, fx.Node) or each not in self.copies for each in inputs):
            raise refusal(place_of(node), f"{operation_of(node, self.modules)} of weights")

    def _operands(self, node: fx.Node) -> tuple[Any, Any]:
        """Give the two operands: a node for what is computed from the images, a tensor for what is constant."""
        extra = set(node.kwargs) - {"input", "other"}
        if extra:
            raise UnsupportedError(f"with {', '.join(sorted(extra))}")
        given: list[Any] = [*node.args, *(node.kwargs[name] for name in ("input", "other") if name in node.kwargs)]
        first, second = map(self._operand, given)
        return first, second

    def _operand(self, value: Any) -> Any:
        value = self.constants.get(value, value) if isinstance(value, fx.Node) else value
        if isinstance(value, fx.Node) and is_size(value):
            raise UnsupportedError("with a size of the image")
        return self._number(value) if isinstance(value, int | float) else value

    def _number(self, value: float) -> Tensor:
        return torch.tensor(float(value), dtype=self.dtype, device=self.device)

    def _sum(self, first: Any, second: Any) -> tuple[nn.Module, list[fx.Node]]:
        if isinstance(first, fx.Node) and isinstance(second, fx.Node):
            return Add(), [first, second]
        signal, constant = (first, second) if isinstance(first, fx.Node) else (second, first)
        return self._scale_shift(signal, self._number(1), constant)

    def _difference(self, first: Any, second: Any) -> tuple[nn.Module, list[fx.Node]]:
        one = self._number(1)
        if isinstance(first, fx.Node) and isinstance(second, fx.Node):
            raise UnsupportedError("of two maps")
        return (
            self._scale_shift(first, one, -second)
            if isinstance(first, fx.Node)
            else self._scale_shift(second, -one, first)
        )

    def _product(self, first: Any, second: Any) -> tuple[nn.Module, list[fx.Node]]:
        if not (isinstance(first, fx.Node) and isinstance(second, fx.Node)):
            signal, constant = (first, second) if isinstance(first, fx.Node) else (second, first)
            return self._scale_shift(signal, constant, None)
        gates = [self.copies.get(each) in self.gates for each in (first, second)]
        if gates.count(True) != 1:
            raise UnsupportedError("of two maps of which not exactly one is a gate (Sigmoid or Hardsigmoid)")
        return Gate(), [second, first] if gates[0] else [first, second]

    def _quotient(self, first: Any, second: Any) -> tuple[nn.Module, list[fx.Node]]:
        if isinstance(second, fx.Node):
            raise UnsupportedError("by a map")
        return self._scale_shift(first, 1 / second, None)

    def _scale_shift(self, signal: Any, weight: Tensor, bias: Tensor | None) -> tuple[nn.Module, list[fx.Node]]:
        if not isinstance(signal, fx.Node):
            raise UnsupportedError("of weights")
        return ScaleShift(weight, bias), [signal]

    def _call(self, node: fx.Node, layer: nn.Module, inputs: list[fx.Node]) -> fx.Node:
        copies = [self.copies[each] for each in inputs]
        name = self._name(node)
        self.layers[name] = layer
        call = self.graph.call_module(name, tuple(copies))
        self._note_gate(node, call, layer, copies)
        return call

    def _name(self, node: fx.Node) -> str:
        """Give a path that is no other layer's and lies in none."""
        place, inner = place_of(node), "" if node.op == "call_module" else function_name(node).strip("_")
        wanted = PREFIX + ".".join(part for part in (place, inner) if part)
        taken = {".".join(name.split(".")[:depth]) for name in self.layers for depth in range(1, name.count(".") + 2)}
        names = (wanted, *(f"{wanted}_{count}" for count in range(1, len(taken) + 2)))
        return next(name for name in names if name not in taken)

    def _overwrite(self, node: fx.Node) -> None:
        """Let those who use the input of an operation in place later see what it has become."""
        called = self.modules[str(node.target)] if node.op == "call_module" else None
        overwritten = node.args[0] if node.args else node.kwargs.get("input")
        if works_in_place(node.target, called, dict(node.kwargs)) and isinstance(overwritten, fx.Node):
            self.copies[overwritten] = self.copies[node]

    def _note_gate(self, node: fx.Node, call: fx.Node, layer: nn.Module, inputs: list[fx.Node]) -> None:
        moved = isinstance(layer, (*MOVING, ScaleShift)) and all(each in self.gates for each in inputs)
        if moved or isinstance(layer, nn.Sigmoid | nn.Hardsigmoid):
            self.gates[call] = self.gates[inputs[0]] if moved else node

    def check_gates(self) -> None:
        """Check that what a sigmoid gives is used as a gate only: its value at 0 is not 0, so nothing else has a rule.

        Raises:
            CannotExplain: if it is used otherwise.
        """
        for call, node in self.gates.items():
            for user in call.users:
                gate = user.op == "call_module" and isinstance(self.layers[str(user.target)], Gate)
                if user not in self.gates and not (gate and user.args[1] is call and user.args[0] is not call):
                    words = (
                        f"{operation_of(node, self.modules)} used otherwise than as a gate that maps are multiplied by"
                    )
                    raise refusal(place_of(node), words)
