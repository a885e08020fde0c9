"""Slow, obvious twins of the LRP rules: every layer is written out as a matrix, every image is taken alone; float64.

``x`` is what the layer got, ``r_out`` the relevance of its output, both flat numpy vectors.
"""

import copy
import itertools

import numpy as np
import torch
from torch import nn


def matrix(layer, shape):
    """Matrix and bias of a linear layer for inputs of this shape (channel, height, width) or (feature,)."""
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    units = torch.eye(zero.numel(), dtype=torch.float64)
    with torch.no_grad():
        bias = layer(zero).flatten()
        columns = layer(units.reshape(-1, *shape)).flatten(1) - bias
    return columns.T.numpy(), bias.numpy()


def seen(layer, shape):
    """Which inputs every output sees: the layer's matrix with every weight 1 and no bias."""
    even = copy.deepcopy(layer)
    for parameter in even.parameters():
        parameter.data = torch.ones_like(parameter)
    if getattr(even, "bias", None) is not None:
        even.bias.data.zero_()
    return (matrix(even, shape)[0] != 0).astype(float)


def without_batchnorm(layers):
    """Put every BatchNorm2d into the convolution before it, channel by channel: γ (W x + b − μ) / √(σ² + ε) + β."""
    folded = []
    for layer in layers:
        if not isinstance(layer, nn.BatchNorm2d):
            folded.append(copy.deepcopy(layer).requires_grad_(False))
            continue
        conv = folded[-1]
        bias = torch.zeros(conv.out_channels, dtype=torch.float64) if conv.bias is None else conv.bias.clone()
        for c in range(conv.out_channels):
            scale = layer.weight[c].item() / (layer.running_var[c].item() + layer.eps) ** 0.5
            conv.weight[c] *= scale
            bias[c] = (bias[c] - layer.running_mean[c]) * scale + layer.bias[c].item()
        conv.bias = nn.Parameter(bias, requires_grad=False)
    return folded


def divide(r_out, z):
    return np.array([r / (d if d != 0 else 1e-7) for r, d in zip(r_out, z, strict=True)])


def epsilon(w, b, x, r_out, eps):
    z = w @ x + b
    return x * (w.T @ np.array([r / (d + eps * (1 if d >= 0 else -1)) for r, d in zip(r_out, z, strict=True)]))


def z_rule(w, b, x, r_out):
    return x * (w.T @ divide(r_out, w @ x + b))


def flat(w, b, x, r_out):
    sees = (w != 0).astype(float)
    return sees.T @ divide(r_out, sees.sum(axis=1))


def part_of_bias(b, mode, sign):
    if mode == "ignore":
        return 0.0
    if mode == "positive":
        return max(b, 0) if sign > 0 else min(b, 0)
    return b


def even_share(w, j, r, relevance, sees):
    """Relevance of an output to which nothing contributes."""
    for i in range(w.shape[1]):
        relevance[i] += sees[j, i] * r / sees[j].sum()


def epsilon_with_bias(w, b, x, r_out, eps, mode, sees):
    relevance = np.zeros_like(x)
    for j in range(len(w)):
        parts = [w[j, i] * x[i] for i in range(len(x))]
        z = sum(parts) + part_of_bias(b[j], "keep" if mode == "share" else mode, 1)
        divisor = z + eps * (1 if z >= 0 else -1) or 1e-7
        size = sum(abs(part) for part in parts)
        for i, part in enumerate(parts):
            relevance[i] += part * r_out[j] / divisor
            if mode == "share" and size > 0:
                relevance[i] += abs(part) / size * (divisor - sum(parts)) * r_out[j] / divisor
        if (mode == "share" and size == 0) or (mode == "ignore" and z == 0):
            even_share(w, j, r_out[j], relevance, sees)
    return relevance


def alpha_beta(w, b, x, r_out, alpha, beta, mode, sees):
    """Every contribution x_i w_ji is positive or negative; both kinds share relevance among themselves."""
    relevance = np.zeros_like(x)
    for j in range(len(w)):
        parts = [w[j, i] * x[i] for i in range(len(x))]
        for sign, factor in ((1, alpha), (-1, -beta)):
            kind = [part if part * sign > 0 else 0.0 for part in parts]
            z = sum(kind) + part_of_bias(b[j], mode, sign)
            for i, part in enumerate(kind):
                relevance[i] += factor * part * r_out[j] / (z if z != 0 else 1e-7)
            if mode == "ignore" and sum(kind) == 0:
                even_share(w, j, factor * r_out[j], relevance, sees)
    return relevance


def gamma(w, b, x, r_out, g, mode, sees):
    relevance = np.zeros_like(x)
    for j in range(len(w)):
        parts = [w[j, i] * x[i] for i in range(len(x))]
        sign = 1 if sum(parts) + b[j] > 0 else -1
        favoured = [part * (1 + g) if part * sign > 0 else part for part in parts]
        bias = {
            "keep": b[j] + g * part_of_bias(b[j], "positive", sign),
            "share": b[j] + g * part_of_bias(b[j], "positive", sign),
            "positive": (1 + g) * part_of_bias(b[j], "positive", sign),
            "ignore": 0.0,
        }[mode]
        z = sum(favoured) + bias
        divisor, size = (z if z != 0 else 1e-7), sum(abs(part) for part in parts)
        for i in range(len(x)):
            relevance[i] += favoured[i] * r_out[j] / divisor
            if mode == "share" and size > 0:
                relevance[i] += abs(parts[i]) / size * bias * r_out[j] / divisor
        if mode in ("share", "ignore") and size == 0:
            even_share(w, j, r_out[j], relevance, sees)
    return relevance


def w_square(w, b, x, r_out):
    return (w**2).T @ divide(r_out, (w**2).sum(axis=1))


def z_box(w, b, x, r_out, low, high, mode):
    relevance = np.zeros_like(x)
    for j in range(len(w)):
        parts = [w[j, i] * x[i] - max(w[j, i], 0) * low[i] - min(w[j, i], 0) * high[i] for i in range(len(x))]
        z = sum(parts) + part_of_bias(b[j], mode, 1)
        for i, part in enumerate(parts):
            relevance[i] += part * r_out[j] / (z if z != 0 else 1e-7)
    return relevance


def winners_take_all(pool, maps, r_out):
    """Relevance of a (channel, height, width) map under max-pooling: every window is looked at alone."""
    relevance = np.zeros_like(maps)
    for c, i, j in itertools.product(*map(range, r_out.shape)):
        window = [
            (y, x) for y, x in window_of(pool, maps.shape, i, j) if 0 <= y < maps.shape[1] and 0 <= x < maps.shape[2]
        ]
        best = max(maps[c, y, x] for y, x in window)
        winners = [(y, x) for y, x in window if maps[c, y, x] == best]
        for y, x in winners:
            relevance[c, y, x] += r_out[c, i, j] / len(winners)
    return relevance


def window_of(pool, shape, i, j):
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        sizes = pool.output_size if isinstance(pool.output_size, tuple) else (pool.output_size, pool.output_size)
        spans = [range(k * n // m, -(-(k + 1) * n // m)) for k, n, m in zip((i, j), shape[1:], sizes, strict=True)]
        return list(itertools.product(*spans))
    size, stride, padding, dilation = (
        each if isinstance(each, tuple) else (each, each)
        for each in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    starts = [k * stride[axis] - padding[axis] for axis, k in enumerate((i, j))]
    return [
        (starts[0] + dy * dilation[0], starts[1] + dx * dilation[1])
        for dy, dx in itertools.product(range(size[0]), range(size[1]))
    ]


def a_flat(layers, image, readout):
    """Walk a chain with explicit formulas: the relevance of one image, its embedding read out by one vector."""
    values = [image]
    with torch.no_grad():
        for layer in layers:
            values.append(layer(values[-1][None])[0])
    head = readout[None].numpy()
    relevance = epsilon(head, np.zeros(1), values[-1].numpy(), head @ values[-1].numpy(), 0.1)
    first = next(layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear))
    for layer, value in zip(reversed(layers), reversed(values[:-1]), strict=True):
        relevance = _a_flat_step(layer, layer is first, value, relevance)
    return relevance.reshape(image.shape)


def _a_flat_step(layer, is_first, value, r_out):
    x = value.numpy().ravel()
    if isinstance(layer, nn.MaxPool2d):
        shape = layer(value[None])[0].shape
        return winners_take_all(layer, value.numpy(), r_out.reshape(shape)).ravel()
    if isinstance(layer, nn.ReLU | nn.Tanh | nn.Flatten):
        return r_out
    w, b = matrix(layer, value.shape)
    if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return z_rule(w, b, x, r_out)
    if is_first:
        return flat(w, b, x, r_out)
    return (
        epsilon(w, b, x, r_out, 0.1) if isinstance(layer, nn.Linear) else alpha_beta(w, b, x, r_out, 1, 0, "keep", None)
    )
