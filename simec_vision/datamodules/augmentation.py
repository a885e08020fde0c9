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
    batch, channels, height, width = images.shape
    move = (random[:, 1:3] * (2 * shift + 1)).long() - shift
    rows = (torch.arange(height, device=images.device) + move[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + move[:, 1:]).clamp(0, width - 1)
    if flip:
        columns = torch.where(random[:, :1] < 0.5, width - 1 - columns, columns)
    item = torch.arange(batch, device=images.device)[:, None]
    moved = images.permute(0, 2, 3, 1)[item, rows].reshape(batch, height, width * channels)  # whole rows: fast
    values = (columns[:, :, None] * channels + torch.arange(channels, device=images.device)).flatten(1)
    moved = moved.gather(2, values[:, None, :].expand_as(moved))
    return moved.view(batch, height, width, channels).permute(0, 3, 1, 2)


def mix_colours(images: Tensor, random: Tensor, strength: float) -> Tensor:
    """Mix the colour channels of each image at random; white stays white, so a white background does, too.

    The distance c of a pixel from white becomes (1 + strength · U) c, where an image's U has numbers in [−1, 1).

    Args:
        images: uint8 of shape ``(batch, channel, height, width)``.
        random: Numbers in [0, 1), shape ``(batch, channel · channel)``.
        strength: Largest change of a weight.

    Returns:
        uint8 images of the same shape, channels last in memory.
    """
    batch, channels, height, width = images.shape
    change = strength * (2 * random.view(batch, channels, channels) - 1)
    mix = torch.eye(channels, device=images.device) + change
    pixels = 255 - images.permute(0, 2, 3, 1).reshape(batch, height * width, channels).float()
    mixed = (255 - pixels @ mix.transpose(1, 2)).round_().clamp_(0, 255).to(images.dtype)
    return mixed.view(batch, height, width, channels).permute(0, 3, 1, 2)


def cut_out(images: Tensor, random: Tensor, edge: int) -> Tensor:
    """Paint a square of each image in the image's mean colour ("cutout", DeVries & Taylor 2017, arXiv 1708.04552).

    Its centre lies anywhere in the image, so that a part of the square may lie outside.

    Args:
        images: uint8 of shape ``(batch, channel, height, width)``.
        random: Numbers in [0, 1), shape ``(batch, 2)``: the centre, vertical and horizontal.
        edge: Edge of the square in pixels.

    Returns:
        uint8 images of the same shape, channels last in memory.
    """
    rows, columns = (_span(random[:, axis], images.shape[2 + axis], edge) for axis in (0, 1))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    mean = images.float().mean((2, 3), keepdim=True).round_().to(images.dtype)
    return torch.where(inside, mean, images).contiguous(memory_format=torch.channels_last)


def _span(random: Tensor, length: int, edge: int) -> Tensor:
    """Say which of so many places are in a span of ``edge`` around a random one: ``(batch, length)``."""
    start = (random[:, None] * length).long() - edge // 2
    place = torch.arange(length, device=random.device) - start
    return (place >= 0) & (place < edge)
