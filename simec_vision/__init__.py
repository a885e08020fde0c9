"""simec_vision: learn from how similar images are, classify with few labels, and see why two images are similar.

The words used everywhere: an *image* ``(batch, channel, height, width)`` has an *embedding* ``(batch, embedding)``; a
*head* maps it to the *predicted similarity* to every *reference* ``(batch, reference)``, trained on *target
similarities*. The *relevance* ``(batch, channel, height, width)`` distributes one predicted similarity, the *score*,
over the pixels; a *heatmap* draws it.
"""

from typing import TYPE_CHECKING, Any

from simec_vision.heads import SimilarityHead as SimilarityHead
from simec_vision.heads import head_weight as head_weight
from simec_vision.items import InputError as InputError
from simec_vision.items import Items as Items
from simec_vision.model import SimilarityModel as SimilarityModel

if TYPE_CHECKING:
    from simec_vision.estimator import SimilarityEncoder as SimilarityEncoder
    from simec_vision.factorisation import Factorisation as Factorisation
    from simec_vision.factorisation import factorise as factorise

__version__ = "0.1.0"

_LATER = {"SimilarityEncoder": "estimator", "Factorisation": "factorisation", "factorise": "factorisation"}
"""Names whose modules are heavy, and imported when asked for."""


def __getattr__(name: str) -> Any:
    """Import what is asked for the first time."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"simec_vision.{_LATER[name]}"), name)
