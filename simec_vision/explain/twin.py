"""The layers of an explainable twin, in the order of their application, with their places in the network."""

from dataclasses import dataclass

from torch import fx, nn

from simec_vision.explain.layers import MOVING, ScaleShift

PREFIX = "network."
"""What the twin's names begin with, so that no layer is called like something that every twin has."""


@dataclass(frozen=True)
class Placed:
    """A layer of a twin.

    Args:
        place: Its path in the network, such as ``layers.3`` or ``layer1.0.add``.
        layer: The layer.
        sees_pixels: Whether it is a linear or convolution layer that gets the image itself, at most moved or scaled.
    """

    place: str
    layer: nn.Module
    sees_pixels: bool = False


def layers_of(twin: fx.GraphModule) -> list[Placed]:
    """Give the layers of a twin in the order in which they are applied."""
    modules = dict(twin.named_modules())
    called = [(node, modules[str(node.target)]) for node in twin.graph.nodes if node.op == "call_module"]
    seeing = _seeing_pixels(twin, modules)
    weighted = (nn.Linear, nn.Conv2d)
    return [
        Placed(str(node.target).removeprefix(PREFIX), layer, node in seeing and isinstance(layer, weighted))
        for node, layer in called
    ]


def chain_of(twin: fx.GraphModule) -> list[nn.Module] | None:
    """Give the layers of a twin whose every layer gets what the one before it gave and nothing else; else None."""
    modules = dict(twin.named_modules())
    *calls, output = (node for node in twin.graph.nodes if node.op != "placeholder")
    (before,) = (node for node in twin.graph.nodes if node.op == "placeholder")
    for node in (*calls, output):
        if node.all_input_nodes != [before] or len(before.users) != 1:
            return None
        before = node
    return [modules[str(node.target)] for node in calls]


def _seeing_pixels(twin: fx.GraphModule, modules: dict[str, nn.Module]) -> set[fx.Node]:
    """Give the nodes that get the image, moved or scaled at most."""
    raw = {node for node in twin.graph.nodes if node.op == "placeholder"}
    seeing = set()
    for node in twin.graph.nodes:
        if node.op == "call_module" and raw.intersection(node.all_input_nodes):
            seeing.add(node)
            if isinstance(modules[str(node.target)], (*MOVING, ScaleShift)):
                raw.add(node)
    return seeing
