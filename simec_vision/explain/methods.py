"""Ways to make a heatmap, side by side: our presets, Captum's methods as they are shipped, and two that see no model.

Every one is a function (model, images, head, reference) → heatmaps ``(batch, height, width)``: relevance summed over
channels, of the predicted similarity to each image's reference. All work on a copy of the user's model.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simec_vision.explain.evaluating import evaluating
from simec_vision.explain.images import background_colour
from simec_vision.explain.refusal import CannotExplain
from simec_vision.explain.relevance import explain
from simec_vision.heads import SimilarityHead
from simec_vision.items import InputError, nearest
from simec_vision.model import SimilarityModel

Method = Callable[[SimilarityModel, Tensor, str, Tensor], Tensor]
Attribution = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(branch, images, target) → relevance ``(batch, channel, height, width)``, Captum's way."""

INTEGRATION_STEPS = 32
WINDOW_SHARE = 8
"""Occlusion's window is the image's side divided by this, and moves by half of itself."""
CHUNK = 16
"""Images that Captum gets at once, which makes some methods 30 times as many of them."""


def methods(names: Sequence[str] | None = None) -> dict[str, Method]:
    """Give the methods by name, all or those named.

    Every preset of :data:`simec_vision.explain.presets.PRESETS`, and:

    ``saliency``: |gradient| (Simonyan et al. 2014). ``input_x_gradient`` (Shrikumar et al. 2016).
    ``integrated_gradients`` (Sundararajan et al. 2017), from the background colour. ``grad_cam``, ``guided_grad_cam``
    (Selvaraju et al. 2017) at the last convolution. ``occlusion`` (Zeiler & Fergus 2014) by the background colour.
    ``captum_lrp``: Captum's LRP as shipped, on the network as it is.
    ``random``: noise of torch's global generator. ``edges``: Sobel's edges of the grey image (as advised by XAI-TRIS,
    Clark et al. 2023).

    Raises:
        InputError: if there is no method of a name.
    """
    from simec_vision.explain.presets import PRESETS

    known: dict[str, Method] = {name: _preset(name) for name in PRESETS}
    known |= {name: _attribution(function) for name, function in CAPTUM.items()}
    known |= {"random": _random, "edges": _edges}
    for name in names or ():
        if name not in known:
            raise InputError(f"Expected the name of a method, got {name!r}: {nearest(name, list(known))}")
    return known if names is None else {name: known[name] for name in names}


def pair_model(model: SimilarityModel, others: Tensor) -> SimilarityModel:
    """Make other images the references of a head ``pair``, so that every method can explain pairs of images.

    The similarity to reference i is embed(image) · embed(others[i]), as in
    :func:`~simec_vision.explain.relevance.explain_pair`.

    Args:
        model: The model whose embeddings are compared; the new one shares its encoder.
        others: Normalised images, shape ``(reference, channel, height, width)``.
    """
    own = model.head(next(iter(model.heads))).weight
    with evaluating(model), torch.no_grad():
        weight = model.embed(others.to(own.device, own.dtype))
    head = SimilarityHead(weight.shape[1], len(others), weight)
    return SimilarityModel(model.encoder, {"pair": head}, model.about)


def _preset(name: str) -> Method:
    def method(model: SimilarityModel, images: Tensor, head: str, reference: Tensor) -> Tensor:
        return explain(model, images, head=head, reference=reference, preset=name).relevance.sum(dim=1)

    return method


def _attribution(function: Attribution) -> Method:
    """Run a method of Captum on a copy of encoder and head; what it plants there, or raises, does not get out."""

    def method(model: SimilarityModel, images: Tensor, head: str, reference: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            branch = _branch(model, head)
            own = next(branch.parameters())
            images, reference = images.detach().clone().to(own.device, own.dtype), reference.to(own.device)
            parts = zip(images.split(CHUNK), reference.split(CHUNK), strict=True)
            maps = [_tried(function, branch, part.requires_grad_(), target) for part, target in parts]
        return torch.cat(maps)

    return method


def _branch(model: SimilarityModel, head: str) -> nn.Sequential:
    """Copy encoder and head, the head as the plain linear layer that it is, which every method knows."""
    weight = model.head(head).weight.detach().clone()
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight)
    return nn.Sequential(copy.deepcopy(model.encoder), linear).eval().requires_grad_(False)


def _tried(function: Attribution, branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    try:
        with warnings.catch_warnings(action="ignore"):  # Captum tells of its hooks
            relevance = function(branch, images, target).detach().sum(dim=1)
    except Exception as error:  # whatever it is, it is the method that does not work on this network
        raise CannotExplain(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if not relevance.isfinite().all():
        raise CannotExplain("relevance that is not finite")
    return relevance


def _saliency(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import Saliency

    return Saliency(branch).attribute(images, target=target)


def _input_x_gradient(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import InputXGradient

    return InputXGradient(branch).attribute(images, target=target)


def _integrated_gradients(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import IntegratedGradients

    baselines = background_colour(images.detach()).expand_as(images)
    explainer = IntegratedGradients(branch)
    return explainer.attribute(
        images, baselines, target, n_steps=INTEGRATION_STEPS, internal_batch_size=4 * INTEGRATION_STEPS
    )


def _grad_cam(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import LayerAttribution, LayerGradCam

    coarse: Any = LayerGradCam(branch, _last_convolution(branch)).attribute(images, target, relu_attributions=True)
    return LayerAttribution.interpolate(coarse, images.shape[2:], "bilinear")


def _guided_grad_cam(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import GuidedGradCam

    return GuidedGradCam(branch, _last_convolution(branch)).attribute(images, target, interpolate_mode="bilinear")


def _last_convolution(branch: nn.Module) -> nn.Module:
    found = [layer for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
    if not found:
        raise ValueError("a network without convolution")
    return found[-1]


def _occlusion(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import Occlusion

    window = [max(side // WINDOW_SHARE, 2) for side in images.shape[2:]]
    baselines, channels = background_colour(images.detach()).expand_as(images), images.shape[1]
    with torch.no_grad():
        return Occlusion(branch).attribute(
            images, (channels, *window), (channels, *(side // 2 for side in window)), baselines, target,
            perturbations_per_eval=8,
        )  # fmt: skip


def _captum_lrp(branch: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    from captum.attr import LRP

    return LRP(branch).attribute(images, target=target)


CAPTUM: dict[str, Attribution] = {
    "integrated_gradients": _integrated_gradients,
    "saliency": _saliency,
    "input_x_gradient": _input_x_gradient,
    "grad_cam": _grad_cam,
    "guided_grad_cam": _guided_grad_cam,
    "occlusion": _occlusion,
    "captum_lrp": _captum_lrp,
}


def _random(model: SimilarityModel, images: Tensor, head: str, reference: Tensor) -> Tensor:
    return torch.rand(images[:, 0].shape).to(images.device)


def _edges(model: SimilarityModel, images: Tensor, head: str, reference: Tensor) -> Tensor:
    """Give the magnitude of Sobel's gradient of the grey image; the edge's pixels go on beyond it."""
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = torch.stack([sobel, sobel.T])[:, None].to(images.device, images.dtype)
    grey = F.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, kernels).norm(dim=1)
