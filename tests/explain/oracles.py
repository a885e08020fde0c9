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


def alpha1_beta0(w, b, x, r_out):
    """z_j = Σ_i w⁺_ji x⁺_i + w⁻_ji x⁻_i + b⁺_j + b⁻_j; R_i = Σ_j (x⁺_i w⁺_ji + x⁻_i w⁻_ji) R_j / z_j."""
    relevance = np.zeros_like(x)
    for j in range(len(w)):
        parts = [max(x[i], 0) * max(w[j, i], 0) + min(x[i], 0) * min(w[j, i], 0) for i in range(len(x))]
        z = sum(parts) + max(b[j], 0) + min(b[j], 0)
        for i, part in enumerate(parts):
            relevance[i] += part * r_out[j] / (z if z != 0 else 1e-7)
    return relevance


def winner_takes_all(pool, maps, r_out):
    """Relevance of a (channel, height, width) map under max-pooling without padding."""
    kernel, stride = pool.kernel_size, pool.stride
    relevance = np.zeros_like(maps)
    for c, i, j in itertools.product(*map(range, r_out.shape)):
        window = maps[c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        di, dj = np.unravel_index(window.argmax(), window.shape)
        relevance[c, i * stride + di, j * stride + dj] += r_out[c, i, j]
    return relevance


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
        return winner_takes_all(layer, value.numpy(), r_out.reshape(shape)).ravel()
    if isinstance(layer, nn.ReLU | nn.Tanh | nn.Flatten):
        return r_out
    w, b = matrix(layer, value.shape)
    if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return z_rule(w, b, x, r_out)
    if is_first:
        return flat(w, b, x, r_out)
    return epsilon(w, b, x, r_out, 0.1) if isinstance(layer, nn.Linear) else alpha1_beta0(w, b, x, r_out)
