"""Why is A similar to B: layer-wise relevance propagation (LRP) from a predicted similarity back to the pixels.

An encoder is rebuilt as an explainable twin (:mod:`~simec_vision.explain.canonize`), each of its layers gets a rule
(:mod:`~simec_vision.explain.presets`), Captum propagates, and :mod:`~simec_vision.explain.heatmaps` draws.
"""

from simec_vision.explain.answering import Explanation as Explanation
from simec_vision.explain.answering import LostRelevanceWarning as LostRelevanceWarning
from simec_vision.explain.bilrp import Connections as Connections
from simec_vision.explain.bilrp import bilrp as bilrp
from simec_vision.explain.bilrp import connect as connect
from simec_vision.explain.canonize import canonize as canonize
from simec_vision.explain.factors import Factors as Factors
from simec_vision.explain.factors import factors as factors
from simec_vision.explain.factors import leading_directions as leading_directions
from simec_vision.explain.refusal import CannotExplain as CannotExplain
from simec_vision.explain.relevance import explain as explain
from simec_vision.explain.relevance import explain_class as explain_class
from simec_vision.explain.relevance import explain_difference as explain_difference
from simec_vision.explain.relevance import explain_pair as explain_pair
