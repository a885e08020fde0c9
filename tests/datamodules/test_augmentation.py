"""Augmentation and normalisation against loops over pixels."""

import numpy as np
import pytest
import torch

from simec_vision.datamodules import Batches, Normalisation
from simec_vision.datamodules.augmentation import cut_out, flip_and_shift, mix_colours, uniform
from simec_vision.items import InputError

IMAGES = torch.randint(0, 256, (6, 3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDEX = torch.tensor([3, 0, 8, 11, 2, 40_000_000_000])


def moved(image, mirror, down, right):
    """Copy each pixel from where it was before the picture was moved, then mirrored."""
    channels, height, width = image.shape
    result = np.empty_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                row, column = min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)
                result[c, y, x] = image[c, row, width - 1 - column if mirror else column]
    return result


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0, 2, 9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flip_and_shift_is_the_loop_over_pixels(flip, shift, layout):
    random = uniform(5, 1, INDEX, draws=3)
    result = flip_and_shift(IMAGES.contiguous(memory_format=layout), random, flip, shift)
    seen = set()
    for image, told, (mirror, down, right) in zip(IMAGES, result, random.tolist(), strict=True):
        moves = [int(draw * (2 * shift + 1)) - shift for draw in (down, right)]
        assert np.array_equal(told.numpy(), moved(image.numpy(), flip and mirror < 0.5, *moves))
        seen.add((flip and mirror < 0.5, *moves))
    assert len(seen) > 1 or not (flip or shift)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_colours_are_mixed_as_said_and_white_stays_white():
    images, random = IMAGES.clone(), uniform(5, 1, INDEX, draws=9)
    images[:, :, 0] = 255
    result = mix_colours(images, random, 0.5)
    assert (result[:, :, 0] == 255).all()
    for image, told, numbers in zip(images.double(), result, random.double(), strict=True):
        mix = torch.eye(3).double() + 0.5 * (2 * numbers.view(3, 3) - 1)
        for y in range(5):
            for x in range(7):
                expected = (255 - mix @ (255 - image[:, y, x])).clamp(0, 255)
                assert (told[:, y, x] - expected).abs().max() <= 0.5 + 1e-4
    assert (result[:, :, 1:] != images[:, :, 1:]).float().mean() > 0.5


def test_a_square_that_may_lie_outside_in_part_becomes_the_mean_colour():
    random = uniform(5, 1, INDEX, draws=2)
    result = cut_out(IMAGES, random, 3)
    assert result.is_contiguous(memory_format=torch.channels_last)
    sizes = set()
    for image, told, (down, right) in zip(IMAGES, result, random.tolist(), strict=True):
        expected = image.clone()
        rows, columns = (slice(max(0, int(at) - 1), int(at) + 2) for at in (down * 5, right * 7))
        expected[:, rows, columns] = image.float().mean((1, 2)).round().to(torch.uint8)[:, None, None]
        assert torch.equal(told, expected)
        sizes.add(expected[0, rows, columns].numel())
    assert len(sizes) > 1
    assert torch.equal(cut_out(IMAGES, random, 99)[0, 0], IMAGES[0, 0].float().mean().round().byte().expand(5, 7))


def test_random_numbers_depend_on_seed_epoch_and_item_only():
    draws = uniform(5, 1, INDEX, draws=12)
    assert torch.equal(uniform(5, 1, INDEX[2:4], draws=3), draws[2:4, :3])
    for other in (uniform(6, 1, INDEX, 12), uniform(5, 2, INDEX, 12), uniform(5, 1, INDEX + 1, 12)):
        assert (other == draws).float().mean() < 0.05
    many = uniform(0, 0, torch.arange(20_000), 2)
    assert many.min() >= 0
    assert many.max() < 1
    assert torch.allclose(many.mean(dim=0), torch.tensor(0.5), atol=0.01)
    assert abs(float(torch.corrcoef(many.T)[0, 1])) < 0.03


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation(layout):
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.25, 0.4)
    result = Normalisation(mean, std)(IMAGES.contiguous(memory_format=layout))
    for channel in range(3):
        expected = (IMAGES[:, channel].double() / 255 - mean[channel]) / std[channel]
        assert (result[:, channel] - expected).abs().max() < 1e-5
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"shift": -1}, {"colour": -0.1}, {"erase": -1}, {"workers": -2}])
def test_batches_that_cannot_be(wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        Batches(**wrong)
