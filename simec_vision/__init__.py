"""simec_vision: learn from how similar images are, classify with few labels, and see why two images are similar.

The words used everywhere: an *image* ``(batch, channel, height, width)`` has an *embedding* ``(batch, embedding)``; a
*head* maps it to the *predicted similarity* to every *reference* ``(batch, reference)``, trained on *target
similarities*. The *relevance* ``(batch, channel, height, width)`` distributes one predicted similarity, the *score*,
over the pixels; a *heatmap* draws it.
"""

from simec_vision.heads import SimilarityHead as SimilarityHead
from simec_vision.heads import head_weight as head_weight
from simec_vision.items import InputError as InputError
from simec_vision.items import Items as Items
from simec_vision.model import SimilarityModel as SimilarityModel

__version__ = "0.1.0"
