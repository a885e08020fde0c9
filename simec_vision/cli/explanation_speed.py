"""The command ``benchmark explanation``: relevance beside gradients, flipping beside plain forwards."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simec_vision.cli.comparison import Comparison
from simec_vision.cli.runs import open_run
from simec_vision.cli.timing import check_turns, interleaved, seconds_of, threads
from simec_vision.encoders import CifarCNN, Encoder, PlainCNN, ShoeCNN, TorchvisionEncoder
from simec_vision.explain import bilrp, explain
from simec_vision.explain.flipping import flipping_curve, region_corners, region_order, replaced_by
from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError
from simec_vision.model import SimilarityModel

PRESETS = ("a_flat", "epsilon_gamma_baseline")
HEAD = "similarity"
REFERENCES = 100


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Args:
        batch: Images that are explained at once.
        edge: Height and width of the large images in pixels.
        small_edge: Height and width of the small images, of which one pair is explained in second order.
        embedding: Length of an embedding of the large images, which is BiLRP's number of dimensions.
        small_embedding: Length of an embedding of the small images.
        pool: Height and width of a cell of the large images, of BiLRP and of pixel flipping.
        small_pool: Height and width of a cell of the small images.
        flipped: Images whose pixels are flipped.
    """

    batch: int = 32
    edge: int = 136
    small_edge: int = 32
    embedding: int = 512
    small_embedding: int = 64
    pool: int = 8
    small_pool: int = 4
    flipped: int = 4

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1 or self.pool > self.edge or self.small_pool > self.small_edge:
            raise InputError(
                f"Expected sizes of at least 1 and cells no larger than the images, got {', '.join(self._told())}"
            )

    def _told(self) -> list[str]:
        return [f"{name} {value}" for name, value in vars(self).items()]


@dataclass(frozen=True)
class Case:
    """A model with images to explain.

    Args:
        name: What the network is called.
        model: With random weights, one head.
        images: Random normalised images, shape ``(batch, channel, height, width)``.
    """

    name: str
    model: SimilarityModel
    images: Tensor

    @property
    def dimensions(self) -> int:
        """Length of an embedding."""
        return self.model.head(HEAD).embedding_dim

    @property
    def references(self) -> Tensor:
        """The reference that each image is explained towards, shape ``(batch,)``."""
        return torch.arange(len(self.images), device=self.images.device) % REFERENCES


def benchmark_explanation(
    config: str,
    sizes: Sizes = Sizes(),
    repeats: int = 3,
    num_threads: int = 0,
    out: str | None = None,
) -> None:
    """Compare relevance with plain gradient passes, BiLRP with gradients, and pixel flipping with plain forwards.

    Args:
        config: All options as YAML, for the output folder.
        sizes: How large everything is.
        repeats: How often all are measured in turns.
        num_threads: Threads to compute with; 0 leaves torch's own number.
        out: Folder, new or empty; default: the next free runs/benchmark.
    """
    check_turns(repeats, num_threads)
    torch.manual_seed(0)
    shoe = case("ShoeCNN", ShoeCNN(sizes.embedding, sizes.edge), sizes.batch, sizes.edge)
    resnet = case("resnet18", TorchvisionEncoder("resnet18", sizes.embedding), sizes.batch, sizes.edge)
    plain = case("PlainCNN", PlainCNN(sizes.embedding, sizes.edge), sizes.batch, sizes.edge)
    small = case("CifarCNN", CifarCNN(sizes.small_embedding, sizes.small_edge), sizes.batch, sizes.small_edge)
    folder = open_run(out, "benchmark")
    with threads(num_threads):
        comparison = Comparison("explanation: seconds", {
            "threads": torch.get_num_threads(), "precision": "32-true", "memory_format": "contiguous",
            **{name: value for name, value in vars(sizes).items()},
        })  # fmt: skip
        for each in (shoe, resnet):
            _relevance(comparison, each, repeats)
        for each, pool in ((shoe, sizes.pool), (plain, sizes.pool), (small, sizes.small_pool)):
            _second_order(comparison, each, pool, repeats)
        _flipping(comparison, shoe, sizes, repeats)
    comparison.notes.append(
        "gradient: forward and backward pass of the batch's scores to the pixels; bilrp_over_gradients: against as "
        "many gradients of one image as there are dimensions, for both images"
    )
    print(comparison.write(folder, config))


def case(name: str, encoder: Encoder, batch: int, edge: int) -> Case:
    """Make a model with random weights and random images."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SimilarityModel(encoder, {HEAD: SimilarityHead(encoder.embedding_dim, REFERENCES)}).to(device).eval()
    return Case(name, model, torch.randn(batch, 3, edge, edge, device=device))


def gradients(case: Case) -> Tensor:
    """Give the gradient of each image's score, the plain pass that relevance is compared with."""
    images = case.images.clone().requires_grad_()
    scores = case.model(images)[HEAD].gather(1, case.references[:, None])
    return torch.autograd.grad(scores.sum(), images)[0]


def _times(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Run each once to warm up, then measure in turns."""
    for work in contestants.values():
        work()
    return interleaved({name: lambda work=work: seconds_of(work) for name, work in contestants.items()}, repeats)  # type: ignore[misc]


def _relevance(comparison: Comparison, case: Case, repeats: int) -> None:
    def explained(preset: str) -> Callable[[], Any]:
        return lambda: explain(case.model, case.images, HEAD, case.references, preset, largest_delta=float("inf"))

    contestants = {"gradient": lambda: gradients(case), **{preset: explained(preset) for preset in PRESETS}}
    for name, values in _times(contestants, repeats).items():
        comparison.add(f"{name}_s/{case.name}", values, "s")
    for preset in PRESETS:
        comparison.relate(f"{preset}_over_gradient/{case.name}", f"{preset}_s/{case.name}", f"gradient_s/{case.name}")


def _second_order(comparison: Comparison, case: Case, pool: int, repeats: int) -> None:
    dimensions, batch = case.dimensions, len(case.images)
    mine, others = case.images[:1], case.images[-1:].flip(3)
    contestants = {"gradient": lambda: gradients(case), "bilrp": lambda: bilrp(case.model, mine, others, pool=pool)}
    times = _times(contestants, repeats)
    edge = case.images.shape[2]
    name = f"{case.name}_{edge}x{edge}_{dimensions}"
    comparison.add(f"bilrp_s/{name}", times["bilrp"], "s")
    plain = [seconds / batch * 2 * dimensions for seconds in times["gradient"]]
    comparison.add(f"as_many_gradients_s/{name}", plain, "s")
    comparison.relate(f"bilrp_over_gradients/{name}", f"bilrp_s/{name}", f"as_many_gradients_s/{name}")


def _flipping(comparison: Comparison, case: Case, sizes: Sizes, repeats: int) -> None:
    few = Case(case.name, case.model, case.images[: sizes.flipped])
    heatmaps = torch.randn(len(few.images), sizes.edge, sizes.edge, device=few.images.device)

    def ours() -> Tensor:
        return flipping_curve(few.model, few.images, heatmaps, HEAD, few.references, pool=sizes.pool)

    times = _times({"ours": ours, "plain": lambda: plain_flipping(few, heatmaps, sizes.pool)}, repeats)
    comparison.add(f"flipping_s/{case.name}", times["ours"], "s")
    comparison.add(f"plain_flipping_s/{case.name}", times["plain"], "s")
    comparison.relate(f"flipping_over_plain/{case.name}", f"flipping_s/{case.name}", f"plain_flipping_s/{case.name}")


@torch.no_grad()
def plain_flipping(case: Case, heatmaps: Tensor, pool: int) -> Tensor:
    """Flip pixels with one forward pass of the whole network for every step and image, ``(batch, region + 1)``."""
    images, replacements = case.images.clone(), replaced_by(case.images, "blur", pool)
    top, left = region_corners(images.shape[2], images.shape[3], pool)
    scores = [case.model(images)[HEAD]]
    for regions in region_order(heatmaps, pool).T.tolist():
        for image, region in enumerate(regions):
            place = image, slice(None), slice(top[region], top[region] + pool), slice(left[region], left[region] + pool)
            images[place] = replacements[place]
        scores.append(case.model(images)[HEAD])
    curves = torch.stack(scores, dim=1)
    return curves.gather(2, case.references[:, None, None].expand(-1, curves.shape[1], 1)).squeeze(2)
