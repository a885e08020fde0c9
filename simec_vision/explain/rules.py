"""LRP rules as Captum ``PropagationRule``: how the relevance of a layer's output is distributed over its input.

In every formula x is the layer's input, R_out the relevance of its output, W and b its weight and bias, Wᵀ the
transposed layer without bias; ⊙ and / are elementwise, ⁺ and ⁻ keep the positive and the negative entries and 0
elsewhere. What the bias takes is lost, and ``bias`` says how it takes part:

``keep``: as a whole, as in iNNvestigate (Alber et al. 2019).
``positive``: only its positive part, as in Zennit's rules for positive contributions (Anders et al. 2021); for sums of
    negative contributions, its negative part.
``ignore``: not at all: what remains is shared as if there were none. Where no input contributes (the divisor is
    0), relevance is spread evenly over what the output sees. Conserves relevance, but where contributions cancel, as
    the bias made the output, the ε-rule and the γ-rule divide by little and explode; the z⁺-rule does not.
``share``: as a whole in the divisor, and its own relevance is shared among the inputs in proportion to the size of what
    they contribute, ∣x_i w_ij∣ / Σ_i ∣x_i w_ij∣; where none contributes, evenly. Conserves relevance, and explodes only
    where a bias is much larger than all contributions. (The LRP toolbox of Lapuschkin et al. 2016 always shares it
    evenly, also with inputs that are 0.)
"""

import torch
from torch import Tensor, nn

from simec_vision.explain.contributions import (
    Bias,
    bias_part,
    by_weight,
    check_bias,
    plus_spread,
    signed,
    spread,
    with_bias,
    with_weight,
)
from simec_vision.explain.layers import AVERAGING, aligned_bias, bias_of, linearised, weight_of
from simec_vision.explain.propagation import Rule, Shares, linear_parts, stabilised, transposed
from simec_vision.items import InputError


class PassThrough(Rule):
    """Hand relevance on unchanged, for activations: R_in = R_out.

    An activation has one input per output, to which all relevance goes: in Bach et al. 2015 a neuron's relevance is
    that of its sum before the activation; for smooth activations Achtibat et al. 2024 (AttnLRP, arXiv 2402.05602) call
    this the identity rule.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance as it is."""
        return relevance


class Moves(Rule):
    """Let relevance go back the way that the values came, for layers that only move them; any number of inputs."""

    def forward_hook(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        """Leave it to autograd."""

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return Jᵀ R_out, J having one 1 in every row."""
        (share,) = transposed([(layer.forward, inputs)], lambda _: relevance)
        return share


class SignalTakesAll(Rule):
    """Give a gated value all relevance, and the gate none (Arras et al. 2017, arXiv 1706.07206, "multiplicative").

    R_value = R_out, R_gate = 0: the gate counts as a constant weight.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the relevance as it is, summed where the value was broadcast."""
        return relevance if relevance.shape == inputs.shape else relevance.sum_to_size(inputs.shape)

    def distribute(self, layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
        """Return the relevance for the first input only."""
        return self.propagate(layer, inputs[0], relevance), *[None] * (len(inputs) - 1)


class Epsilon(Rule):
    """Distribute relevance in proportion to each input's contribution, damped by ε (Bach et al. 2015, eq. 58).

    R_in = x ⊙ Wᵀ (R_out / (z + ε · sign z)) with z = W x + b and sign 0 = +1. What ε takes is lost, unless the bias is
    shared: then ε is shared with it. ε = 0 is the z-rule, in which a z of 0 counts as 1e-7. For additions W is
    1 for both summands; for layer normalisation the standard deviation counts as a constant (Ali et al. 2022, arXiv
    2202.07304, "LN-rule").

    Args:
        epsilon: ε ≥ 0, in units of the layer's output.
        bias: How b takes part in z.
    """

    def __init__(self, epsilon: float = 0.1, bias: Bias = "keep") -> None:
        self.epsilon, self.bias = epsilon, check_bias(bias, ("keep", "positive", "ignore", "share"))

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return x ⊙ Wᵀ (R_out / (z + ε · sign z))."""
        (share,) = self.distribute(layer, (inputs,), relevance)
        assert share is not None
        return share

    def distribute(self, layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
        """Return the same for every input."""
        if self.bias == "share" and isinstance(layer, (nn.Linear, nn.Conv2d, *AVERAGING)):
            return (self._with_shared_bias(layer, inputs[0], relevance),)
        function = linearised(with_bias(layer, self.bias))
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_() for each in inputs]
            z = function(*leaves)
        shares = torch.autograd.grad(z, leaves, relevance / stabilised(z.detach(), self.epsilon))
        contributed = tuple(each * share for each, share in zip(inputs, shares, strict=True))
        if self.bias in ("ignore", "share"):
            more = spread(layer, inputs, relevance, z.detach())
            return tuple(map(torch.add, contributed, more)) if more else contributed
        return contributed

    def _with_shared_bias(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return Σ_j (x_i w_ij + ∣x_i w_ij∣ (b_j + ε_j) / Σ_i ∣x_i w_ij∣) R_j / (z_j + ε_j), ε_j being ε · sign z_j."""
        (plus, back_plus), (minus, back_minus) = (signed(layer, inputs, sign) for sign in (1, -1))
        z = plus + minus + bias_part(layer, plus, "keep", 1)
        divisor = stabilised(z, self.epsilon)
        r = relevance / divisor
        size = plus - minus
        rest = (divisor - plus - minus) * r / stabilised(size)
        share = back_plus(r + rest) + back_minus(r - rest)
        return plus_spread(layer, inputs, relevance, size, share)


class GradientTimesInput(Rule):
    """Propagate the gradient times the input: R_in = x ⊙ Jᵀ (R_out / y), y the output, J the layer's Jacobian.

    If R_out = y ⊙ gradient at the output, then R_in = x ⊙ gradient at the input (Shrikumar et al. 2017), for any layer.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return x ⊙ Jᵀ (R_out / y)."""
        (share,) = self.distribute(layer, (inputs,), relevance)
        assert share is not None
        return share

    def distribute(self, layer: nn.Module, inputs: tuple[Tensor, ...], relevance: Tensor) -> Shares:
        """Return the same for every input."""
        with torch.enable_grad():
            leaves = [each.detach().requires_grad_() for each in inputs]
            y = layer.forward(*leaves)
        shares = torch.autograd.grad(y, leaves, relevance / stabilised(y.detach()))
        return tuple(each * share for each, share in zip(inputs, shares, strict=True))


class Flat(Rule):
    """Distribute relevance evenly over all inputs that an output sees (Lapuschkin et al. 2019, "flat").

    R_in = 1ᵀ (R_out / (1 1)): both times the layer with every weight 1 and no bias, so pixel values play no role, and
    at the border only pixels inside the image get relevance.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return 1ᵀ (R_out / (1 1))."""
        return by_weight(layer, torch.ones_like, inputs, relevance)


class WSquare(Rule):
    """Distribute relevance by the squared weights, whatever the input (Montavon et al. 2017, section 4, "w²-rule").

    R_in = (W²)ᵀ (R_out / (W² 1)), without bias; at the border only pixels inside the image get relevance.
    """

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return (W²)ᵀ (R_out / (W² 1))."""
        return by_weight(layer, torch.square, inputs, relevance)


class AlphaBeta(Rule):
    """Distribute relevance over positive and negative contributions apart (Bach et al. 2015, eq. 60).

    R_in = α · (x⁺ ⊙ W⁺ᵀ p + x⁻ ⊙ W⁻ᵀ p) − β · (x⁺ ⊙ W⁻ᵀ n + x⁻ ⊙ W⁺ᵀ n) with p = R_out / z⁺ and n = R_out / z⁻, where
    z⁺ = W⁺ x⁺ + W⁻ x⁻ + b and z⁻ = W⁻ x⁺ + W⁺ x⁻ + b. With ``bias="keep"`` b is the whole bias in both, as in
    iNNvestigate's AlphaBetaRule and Alpha1Beta0Rule, and a negative bias can make z⁺ small or negative; with
    ``positive`` it is b⁺ in z⁺ and b⁻ in z⁻; with ``ignore`` 0. A divisor of 0 counts as 1e-7. α = 1, β = 0 is
    the z⁺-rule; unlike in Captum's rule of that name, inputs may have both signs.

    Args:
        alpha: α ≥ 1.
        beta: β = α − 1.
        bias: How b takes part.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 0.0, bias: Bias = "keep") -> None:
        if beta < 0 or abs(alpha - beta - 1) > 1e-9:
            raise InputError(f"Expected alpha − beta = 1 and beta ≥ 0, got alpha {alpha} and beta {beta}")
        self.alpha, self.beta, self.bias = alpha, beta, check_bias(bias)

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return the positive part's share, and the negative part's if β > 0."""
        share = self.alpha * self._part(layer, inputs, relevance, 1)
        return share if self.beta == 0 else share - self.beta * self._part(layer, inputs, relevance, -1)

    def _part(self, layer: nn.Module, inputs: Tensor, relevance: Tensor, sign: int) -> Tensor:
        """Distribute relevance over the contributions of one sign."""
        z, back = signed(layer, inputs, sign)
        share = back(relevance / stabilised(z + bias_part(layer, z, self.bias, sign)))
        if self.bias != "ignore":
            return share
        return plus_spread(layer, inputs, relevance, z, share)


class Gamma(Rule):
    """Favour contributions that agree with the output's sign by 1 + γ (Montavon et al. 2019, table 10.1).

    Of every output z = W x + b, positive and negative contributions (sums z⁺ and z⁻) count (1 + γ)-fold and once where
    z > 0, once and (1 + γ)-fold elsewhere; R_in is what each input contributes to that sum z', times R_out / z'. For
    x ≥ 0 and z > 0 this is Montavon's x ⊙ (W + γ W⁺)ᵀ (R_out / z'); the form for both signs is that of
    Zennit's Gamma (after Andéol et al. 2021). To z' the bias adds b + γ b⁺ where z > 0 and b + γ b⁻ elsewhere
    (``keep``, ``share``), (1 + γ) b⁺ and (1 + γ) b⁻ (``positive``), or 0 (``ignore``).

    Args:
        gamma: γ ≥ 0; 0 is the z-rule.
        bias: How b takes part.
    """

    def __init__(self, gamma: float = 0.25, bias: Bias = "keep") -> None:
        self.gamma, self.bias = gamma, check_bias(bias, ("keep", "positive", "ignore", "share"))

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return every input's part of z', times R_out / z'."""
        (plus, back_plus), (minus, back_minus) = (signed(layer, inputs, sign) for sign in (1, -1))
        active = plus + minus + bias_part(layer, plus, "keep", 1) > 0
        for_plus, for_minus = 1 + self.gamma * active, 1 + self.gamma * ~active
        bias, size = self._bias(layer, active), plus - minus
        r = relevance / stabilised(for_plus * plus + for_minus * minus + bias)
        rest = bias * r / stabilised(size) if self.bias == "share" else 0
        share = back_plus(for_plus * r + rest) + back_minus(for_minus * r - rest)
        if self.bias in ("keep", "positive"):
            return share
        return plus_spread(layer, inputs, relevance, size, share)

    def _bias(self, layer: nn.Module, active: Tensor) -> Tensor | float:
        bias = bias_of(layer)
        if bias is None or self.bias == "ignore":
            return 0.0
        bias = aligned_bias(layer, bias, active)
        agreeing = torch.where(active, bias.clamp(min=0), bias.clamp(max=0))
        return (1 + self.gamma) * agreeing if self.bias == "positive" else bias + self.gamma * agreeing


class ZBox(Rule):
    """Distribute relevance over pixels that lie between bounds (Montavon et al. 2017, section 4, "zᴮ-rule").

    R_in = x ⊙ Wᵀ r − l ⊙ W⁺ᵀ r − h ⊙ W⁻ᵀ r with r = R_out / z and z = W x − W⁺ l − W⁻ h + b; l and h are images of the
    lowest and highest value that the layer can get. With ``positive`` b⁺ takes part. A z of 0 counts as 1e-7.

    Args:
        low: Lowest value per channel, after normalisation, shape ``(channel,)``, or of each input, in the shape of one;
            None = that of the inputs at hand, per channel.
        high: Highest value, likewise.
        bias: How b takes part.
    """

    def __init__(self, low: Tensor | None = None, high: Tensor | None = None, bias: Bias = "ignore") -> None:
        self.low, self.high, self.bias = low, high, check_bias(bias)

    def propagate(self, layer: nn.Module, inputs: Tensor, relevance: Tensor) -> Tensor:
        """Return x ⊙ Wᵀ r − l ⊙ W⁺ᵀ r − h ⊙ W⁻ᵀ r."""
        weight, (low, high) = weight_of(layer), self._bounds(inputs)
        weights = (weight, -weight.clamp(min=0), -weight.clamp(max=0))
        images = (inputs, low.expand_as(inputs), high.expand_as(inputs))
        parts = [(with_weight(layer, part), image) for part, image in zip(weights, images, strict=True)]
        z, back = linear_parts(parts)
        shares = back(relevance / stabilised(z + bias_part(layer, z, self.bias, 1)))
        return torch.stack([image * share for image, share in zip(images, shares, strict=True)]).sum(dim=0)

    def _bounds(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        axes = (0, *range(2, inputs.ndim))
        low = inputs.amin(axes) if self.low is None else self.low.to(inputs)
        high = inputs.amax(axes) if self.high is None else self.high.to(inputs)
        shape = (-1, *[1] * (inputs.ndim - 2))
        lowest, highest = (end.reshape(shape) if end.ndim == 1 else end for end in (low, high))
        return lowest, highest
