"""The one way to refuse a network that cannot be explained truthfully."""

from simec_vision.items import InputError

EXPLAINABLE = (
    "Explained can be networks of Conv2d, Linear, BatchNorm, LayerNorm, ReLU and its kin, Tanh, SiLU, GELU, Hardswish, "
    "pooling, addition, concatenation, gates (Sigmoid, Hardsigmoid), constant factors and shifts, reshaping and dropout"
)


class CannotExplain(InputError):  # noqa: N818 (reads as the sentence it stands for)
    """A network does something that has no rule; the message names what and where, in one line."""


def refusal(place: str, operation: str) -> CannotExplain:
    """Say that an operation at a place cannot be explained, and what can be.

    Args:
        place: Path of the module, such as ``layer2.0``; empty for the whole network.
        operation: What it does there.
    """
    return CannotExplain(f"Cannot explain {place or 'the network'}: {operation}. {EXPLAINABLE}")
