"""The experiment ``flowerpots``: what people say of the similarity of 16 plants, from features and from noise.

After notebook 00_flowerpots of Horn's simec (2020). Ratings: Gati & Tversky (1982), "Representations of qualitative and
quantitative dimensions", the experiment on elongation and size; dissimilarities from 0 to 20.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simec_vision.experiments.cells import Cell, arrays_of
from simec_vision.experiments.embedding_cells import curves
from simec_vision.experiments.figures import Map, draw_curves, draw_maps
from simec_vision.experiments.results import Check
from simec_vision.experiments.table_report import Found, Table, exactly, reached, run_experiment

RATINGS = """
7.9
9.5 5.1
10.2 7.3 5.0
3.8 12.6 12.3 14.9
10.7 4.5 9.0 10.5 10.6
11.2 7.3 4.3 7.7 10.6 5.7
11.9 9.8 7.6 4.2 13.0 9.1 5.9
6.7 15.4 16.3 17.6 4.3 13.6 14.4 15.7
15.4 7.1 12.8 15.8 12.1 4.9 10.6 12.5 10.0
15.4 11.9 7.5 11.0 13.2 9.8 4.8 8.5 12.0 7.3
16.4 15.0 11.1 6.5 14.9 13.4 8.2 5.1 13.8 10.6 6.6
9.0 17.7 18.5 19.1 5.8 15.9 16.8 18.2 4.4 13.8 14.7 16.5
17.7 9.1 14.1 17.1 15.2 6.9 12.7 15.5 12.1 4.3 9.3 12.9 11.1
17.2 13.9 9.3 12.9 16.4 12.7 6.8 9.8 13.8 8.4 4.3 8.1 11.5 6.8
18.7 15.8 11.6 8.8 16.9 15.1 10.3 6.0 15.2 13.0 8.2 3.5 13.7 11.1 5.8
"""
"""Dissimilarity of plants 2, 3, … 16, a line each, to those before it."""

HELD_OUT = (14, 4)
FEATURES = ("stem", "leaf", "noise 1", "noise 2", "noise 3")
L2 = 0.01
"""Of the embedding layer in our recipe, against noise that is fitted by chance."""
PLACES = tuple(range(1, 17))
EIGENVALUES = Table("eigenvalues", "value", "Eigenvalues of the plants' similarities", "place", 4)
SPECTRUM = Table("spectrum", "mse", "Two coordinates from the ratings themselves: mean squared error", "coordinates of")
PLANTS = Table("plants", "mse", "Two coordinates from features of the plants, two of which were held out", "features")


def flowerpots(
    config: str,
    seeds: list[int] = [0, 1, 2, 3, 4, 5, 6, 7],  # noqa: B006  # never changed, and the parser shows it
    processes: int = 1,
    quick: bool = False,
    out: str | None = None,
) -> None:
    """Place 16 plants by what people say of their similarity, from the plants' features, with and without noise.

    Args:
        config: All options as YAML, for the experiment's folder.
        seeds: Seeds of training.
        processes: Cells at once; each has its share of the processor's threads.
        quick: Two seeds.
        out: Folder, new, empty or of the same experiment; default: the first such of runs/flowerpots,
            runs/flowerpots-2, …
    """
    cells = [*planned(seeds[:2] if quick else seeds)]
    run_experiment("flowerpots", cells, (EIGENVALUES, SPECTRUM, PLANTS), claims, figures, config, processes, out)


def planned(seeds: list[int]) -> Iterator[Cell]:
    """List the cells."""
    for place in PLACES:
        yield Cell("eigenvalues", "eigenvalue", str(place), eigenvalue, {"place": place})
    for which in ("two largest", "two smallest", "two largest of 14 plants"):
        yield Cell("spectrum", "eigendecomposition", which, spectral, {"which": which})
    for features in ("2 true", "2 true, 3 of noise"):
        options = {"noise": features != "2 true"}
        yield Cell("plants", "kernel PCA", features, kernel_pca, options)
        for seed in seeds:
            yield Cell("plants", "SimEc", features, encoded, options, seed)
            yield Cell("plants", "SimEc, original recipe", features, encoded, {**options, "original": True}, seed)


def similarities() -> NDArray[np.float64]:
    """Turn the ratings into centred similarities, shape ``(16, 16)``."""
    from simec_vision.kernels import centre

    distances = np.zeros((16, 16))
    for plant, line in enumerate(RATINGS.strip().splitlines(), 1):
        distances[plant, :plant] = [float(word) for word in line.split()]
    return centre(1 - (distances + distances.T) / 20)


def plants(noise: bool) -> NDArray[np.float64]:
    """Give the standardised features, shape ``(16, 5)``: stem, leaf, and nothing or noise."""
    drawn = np.random.RandomState(15).randn(16, 5) if noise else np.zeros((16, 5))
    drawn[:, 0], drawn[:, 1] = np.repeat([17, 25, 38, 50], 4), np.tile([4, 3, 2, 1], 4)
    spread = drawn.std(axis=0)
    return (drawn - drawn.mean(axis=0)) / np.where(spread > 0, spread, 1)


def split() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the index of the 14 plants that are learned from, and of the two that are held out."""
    order = np.random.RandomState(25).permutation(16)
    return order[:14], order[14:]


def error(embedding: NDArray[Any], target: NDArray[np.float64]) -> float:
    """Mean squared difference of inner products and similarities, each divided by its largest absolute entry."""
    product = embedding @ embedding.T
    return float(np.mean((target / np.abs(target).max() - product / np.abs(product).max()) ** 2))


def eigenvalue(place: int, seed: int) -> dict[str, float]:
    """Give one eigenvalue of the similarities by its place from the largest, 1."""
    return {"value": np.linalg.eigvalsh(similarities())[-place]}


def spectral(which: str, seed: int) -> dict[str, Any]:
    """Measure two eigenvectors of the similarities."""
    target = similarities()
    target = target[np.ix_(split()[0], split()[0])] if "14" in which else target
    values, vectors = np.linalg.eigh(target)
    chosen = slice(0, 2) if "smallest" in which else slice(-1, -3, -1)
    embedding = vectors[:, chosen] * np.sqrt(np.abs(values[chosen]))
    return {"mse": error(embedding, target), "embedding": embedding}


def kernel_pca(noise: bool, seed: int) -> dict[str, Any]:
    """Measure linear kernel PCA of the features, which knows no rating."""
    from sklearn.decomposition import KernelPCA

    features, (train, _) = plants(noise), split()
    embedding = KernelPCA(2, kernel="linear").fit(features[train]).transform(features)
    return {"mse": error(embedding, similarities()), "embedding": embedding}


def encoded(noise: bool, seed: int, original: bool = False) -> dict[str, Any]:
    """Measure a linear encoder that has learned the ratings of 14 plants."""
    from simec_vision.estimator import SimilarityEncoder

    features, target, (train, _) = plants(noise), similarities(), split()
    made = SimilarityEncoder(2, l2_embedding=L2, seed=seed)
    if original:
        made = SimilarityEncoder(2, recipe="keras", gram_penalty=1.0, lr=0.5, epochs=50, seed=seed)
    embedding = made.fit(features[train], target[np.ix_(train, train)]).transform(features)
    encoder: Any = made.model_.encoder
    weights = encoder.layers[-1].weight.detach().numpy()
    return {"mse": error(embedding, target), "embedding": embedding, "weights": weights}


def contributions(weights: NDArray[Any], features: NDArray[np.float64], one: int, other: int) -> NDArray[np.float64]:
    """Distribute the inner product of two linear embeddings over the features: (x_a W Wᵀ)_f · x_b,f, biases left out.

    Args:
        weights: Of the embedding layer, shape ``(embedding, feature)``.
        features: Shape ``(plant, feature)``.
        one: Which plant.
        other: Which other plant.

    Returns:
        Shape ``(feature,)``.
    """
    return (features[one] @ weights.T @ weights) * features[other]


def claims(found: Found) -> Iterator[Check]:
    """Check the original's claims."""
    yield from exactly(found, EIGENVALUES, ["eigenvalue"])
    yield from exactly(found, SPECTRUM, ["eigendecomposition"])
    yield from exactly(found, PLANTS, ["kernel PCA"])
    yield from reached(found, PLANTS, ["SimEc", "SimEc, original recipe"])
    kernel, ours = (found.cell("plants", row, "2 true, 3 of noise", "mse") for row in ("kernel PCA", "SimEc"))
    if kernel is not None and ours is not None:
        claim = "with features of noise a Similarity Encoder errs less than kernel PCA"
        yield Check(claim, f"below {kernel:.5f}", f"{ours:.5f}", ours < kernel)
    weights = [arrays["weights"] for arrays in _learned(found)]
    ratios = [np.linalg.norm(w[:, 2:], axis=0).max() / np.linalg.norm(w[:, :2], axis=0).min() for w in weights]
    claim = "weights of noise are small beside those of stem and leaf"
    yield Check(claim, "largest at most 0.3 of the smallest", f"{max(ratios):.3f}", max(ratios) <= 0.3)
    yield from _explained(weights)


PAIRS = {(4, 1): (1, -1), (4, 16): (-1, 1), (4, 9): (-1, -1)}
"""Two plants → whether stem and leaf say that they are alike (1) or unlike (-1)."""


def _explained(weights: list[NDArray[Any]]) -> Iterator[Check]:
    """Check that similarities are explained by the features that people see."""
    for ((one, other), (stem, leaf)), each in zip(PAIRS.items(), _told(weights), strict=True):
        told = each.mean(axis=0)
        words = {1: "alike", -1: "unlike"}
        claim = f"plants {one} and {other} are {words[stem]} by stem and {words[leaf]} by leaf"
        measured = ", ".join(f"{name} {value:+.3f}" for name, value in zip(FEATURES, told, strict=True))
        yield Check(claim, "signs", measured, bool(stem * told[0] > 0 and leaf * told[1] > 0))


def _told(weights: list[NDArray[Any]]) -> NDArray[np.float64]:
    """Give what each feature contributes to the similarity of each pair, shape ``(pair, encoder, feature)``."""
    features = plants(noise=True)
    return np.array([[contributions(w, features, one - 1, other - 1) for w in weights] for one, other in PAIRS])


def _learned(found: Found) -> list[dict[str, NDArray[Any]]]:
    cells = [cell for cell in found.cells if (cell.row, cell.column) == ("SimEc", "2 true, 3 of noise")]
    return [arrays_of(cell, found.folder) for cell in cells]


def figures(found: Found) -> None:
    """Draw where the plants are placed by their numbers, of one colour by stem, those held out pale; and why."""
    from simec_vision.explain.charts import Panel, bar_panels

    draw_curves([curves(found, EIGENVALUES, (), "", "eigenvalue")], found.folder / "eigenvalues.png")
    shown: dict[str, NDArray[Any]] = {}
    for cell in (cell for cell in found.cells if cell.table != "eigenvalues"):
        name = f"{cell.row}, {cell.column}" + (" features" if cell.table == "plants" else "")
        shown.setdefault(name, arrays_of(cell, found.folder)["embedding"])
    numbers = np.arange(1, 17)
    panels = []
    for name, embedding in shown.items():
        chosen = split()[0] if len(embedding) == 14 else np.arange(16)
        faint = None if "eigen" in name else np.isin(chosen, HELD_OUT)
        panels.append(Map(name, embedding, chosen // 4, [str(numbers[plant]) for plant in chosen], faint))
    draw_maps(panels, found.folder / "plants.png", columns=3, size=3.6)
    told, pairs = _told([arrays["weights"] for arrays in _learned(found)]), [f"{a} and {b}" for a, b in PAIRS]
    mean, spread = (
        {pair: dict(zip(FEATURES, values, strict=True)) for pair, values in zip(pairs, measured, strict=True)}
        for measured in (told.mean(axis=1), told.std(axis=1))
    )
    panel = Panel(
        "What makes two plants similar", "contribution to their similarity, below 0: unlike", mean, spread, {}
    )
    bar_panels([panel], pairs, FEATURES, found.folder / "contributions.png")
