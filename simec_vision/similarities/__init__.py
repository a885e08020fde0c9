"""What similar means: rules that give the target similarities of any items to the references, a batch at a time.

A :class:`Similarity` is a description (``AttributeDistance("HeelHeight")``). Bound to items and references it becomes
a :class:`TargetSimilarity`, a module that computes the rows of a batch on its device. No items × references matrix is
ever built; only one that the user brought is read, row by row.
"""

from simec_vision.similarities.attributes import AttributeDistance as AttributeDistance
from simec_vision.similarities.attributes import SameClass as SameClass
from simec_vision.similarities.attributes import SetOverlap as SetOverlap
from simec_vision.similarities.base import Similarity as Similarity
from simec_vision.similarities.base import TargetSimilarity as TargetSimilarity
from simec_vision.similarities.base import choose_references as choose_references
from simec_vision.similarities.combined import Function as Function
from simec_vision.similarities.combined import WeightedSum as WeightedSum
from simec_vision.similarities.given import Precomputed as Precomputed
from simec_vision.similarities.kernels import Kernel as Kernel
from simec_vision.similarities.pairs import PairList as PairList
