"""Pictures made small by adding whole numbers: the bits are those of torch's averages, for every size and on every tie."""

from __future__ import annotations

import numpy as np
import pytest

from milepost.encoders.pixels import reduce_by_torch, reduce_images


@pytest.mark.parametrize(
    "size", [(480, 640), (96, 64), (16, 16), (17, 31), (1, 1), (3, 200), (129, 130), (720, 1280), (256, 7), (4200, 40)]
)
def test_the_same_bits(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    images = rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(reduce_images(images), reduce_by_torch(images))


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (37, 50)])
def test_the_same_bits_on_ties(size: tuple[int, int]) -> None:
    """Levels n and n + 1 in about equal numbers: means at or beside n + 1/2."""
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 2, (40, *size, 3)) + rng.integers(0, 255, (40, 1, 1, 1))).astype(np.uint8)
    np.testing.assert_array_equal(reduce_images(images), reduce_by_torch(images))


def test_white_stays_white() -> None:
    assert (reduce_images(np.full((1, 480, 640, 3), 255, np.uint8)) == 255).all()
    assert reduce_images(np.zeros((0, 480, 640, 3), np.uint8)).shape == (0, 768)
