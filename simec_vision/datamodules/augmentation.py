"""Augmentation of whole batches, on their device, from random numbers that depend on nothing but seed, epoch and item.

So the same item gets the same variation however the batch is split over processes, and a resumed run repeats it.
"""

import torch
from torch import Tensor

_MIX = (-7046029254386353131, -4658895280553007687, -7723592293110705685)  # odd 64-bit constants, two's complement


def uniform(seed: int, epoch: int, index: Tensor, draws: int) -> Tensor:
    """Draw numbers in [0, 1) that depend only on seed, epoch and item (a counter-based generator).

    Two rounds of multiply and xor-shift mix the counter, as in SplitMix64 (Steele et al. 2014).

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch.
        index: Items, shape ``(batch,)``, int64.
        draws: How many numbers an item.

    Returns:
        Shape ``(batch, draws)``, float32.
    """
    lanes = torch.arange(draws, device=index.device)
    state = index[:, None] * _MIX[0] + lanes * _MIX[1] + _wrapped((seed * 1_000_003 + epoch) * _MIX[2])
    for factor in (_MIX[1], _MIX[2]):
        state = (state ^ ((state >> 30) & 0x3FFFFFFFF)) * factor
    return ((state >> 40) & 0xFFFFFF).float() / 2**24


def _wrapped(number: int) -> int:
    """Bring an integer into the range of int64, as its arithmetic would."""
    return (number + 2**63) % 2**64 - 2**63


def flip_and_shift(images: Tensor, random: Tensor, flip: bool, shift: int) -> Tensor:
    """Mirror every other image and move each by up to ``shift`` pixels, repeating the edge.

    Args:
        images: Shape ``(batch, channel, height, width)``, any type.
        random: Numbers in [0, 1), shape ``(batch, 3)``: mirror or not, vertical and horizontal move.
        flip: Whether to mirror left and right.
        shift: Largest move in pixels.

    Returns:
        Images of the same shape and type, channels last in memory.
    """
    batch, _, height, width = images.shape
    move = (random[:, 1:3] * (2 * shift + 1)).long() - shift
    rows = (torch.arange(height, device=images.device) + move[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + move[:, 1:]).clamp(0, width - 1)
    if flip:
        columns = torch.where(random[:, :1] < 0.5, width - 1 - columns, columns)
    item = torch.arange(batch, device=images.device)[:, None, None]
    last = images.permute(0, 2, 3, 1)  # channels last: each gathered pixel is one contiguous read
    return last[item, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
