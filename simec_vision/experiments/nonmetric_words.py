"""Words in the experiment ``nonmetric``: alike are those that stand in the same documents, tales or news."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.cells import Cell
from simec_vision.experiments.figures import Map, draw_maps
from simec_vision.experiments.results import error
from simec_vision.experiments.sources import documents, term_counts
from simec_vision.items import InputError
from simec_vision.kernels import centre

TALES = """little king away old good man time day home father thought fox last mother cried wife long way nothing door
great cat gretel eat head beautiful son house morning water horse child woman wood wolf bird princess tree daughter
master night gold forest evening castle heart eyes fire queen bed"""
NEWS = """space nasa flight earth phone mission research science washington technology program station data system
headquarters information spacecraft first university launch international office shuttle operations agency orbit
astronaut atmosphere solar years future missions additional scientists safety national team laboratory scientific
internet crew engineers field air software work satellite environment control hubble"""


def planned(seeds: list[int], root: str | None) -> Iterator[Cell]:
    """List the cells of encoders."""
    for seed in seeds:
        for row in ("SimEc", "SimEc, original recipe"):
            yield Cell("words", row, "one", encoded_words, {"root": root, "original": row != "SimEc"}, seed)


@cache
def words(root: str) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Give the words' counts ``(word, document)``, their similarities ``(word, word)``, and the words.

    Two words are the more similar the more documents with one of them have both: log (both / either), over the largest
    absolute value, centred.
    """
    counts, terms = term_counts(documents(root))
    chosen = [*TALES.split(), *NEWS.split()]
    if lacking := [word for word in chosen if word not in terms]:
        told = ", ".join(lacking[:3])
        raise InputError(f"Expected the tales and news of the original in {root}, but no text has the words {told}")
    table = counts[:, [terms.index(word) for word in chosen]].T
    has = (table > 0).astype(np.float64)
    both = has @ has.T
    either = has.sum(axis=1)[:, None] + has.sum(axis=1) - both
    similarity = np.log(np.where(both > 0, both / either, np.finfo(float).eps))
    return table, centre(similarity / np.abs(similarity).max()), chosen


def encoded_words(root: str, original: bool, seed: int) -> dict[str, Any]:
    """Measure an encoder of the words' counts."""
    from simec_vision.estimator import SimilarityEncoder

    counts, similarity, _ = words(root)
    options: dict[str, Any] = {"gram_penalty": 0.0, "epochs": 400, "lr": 3e-3}
    if original:
        options = {"recipe": "keras", "lr": 0.03, "epochs": 400, "l2_hidden": 1e-5, "l2_embedding": 1e-4}
    made = SimilarityEncoder(2, hidden=[10], seed=seed, **options).fit(counts, similarity)
    return {"mse": error(made.predict(counts), similarity), "embedding": made.transform(counts)}


def draw(embedding: NDArray[Any], similarity: NDArray[np.float64], told: list[str], folder: Path) -> None:
    """Draw the words along the directions of most variance, and by the largest and the smallest eigenvalue."""
    from sklearn.decomposition import PCA

    values, vectors = np.linalg.eigh(similarity)
    shown = {
        "Similarity Encoder": PCA(2).fit_transform(embedding),
        "eigenvectors: largest, smallest": vectors[:, [-1, 0]] * np.sqrt(np.abs(values[[-1, 0]])),
    }
    groups = np.arange(len(told)) // 50
    draw_maps([Map(title, at, groups, told) for title, at in shown.items()], folder / "words.png", columns=2, size=8)
