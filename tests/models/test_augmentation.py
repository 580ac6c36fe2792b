"""Changes of light, colour, place and noise in training: what they do to an image, and that they are drawn from the seed alone."""

import dataclasses

import numpy as np
import pytest

from milepost.models.sarm.augmentation import PLACE, Changes, changed, draw
from milepost.models.sarm.config import SARMConfig

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 16, 16, 3), dtype=np.uint8)


def nothing(size: int = 2, cameras: int = 2) -> Changes:
    ones, zeros = np.ones(size), np.zeros(size)
    return Changes(ones, ones, zeros, np.zeros((size, cameras, 2)), np.ones((size, cameras)), zeros)


def test_no_change_is_the_image() -> None:
    np.testing.assert_allclose(changed(IMAGES, nothing(), np.random.default_rng(0)), IMAGES, atol=0.02)


def test_each_change_by_hand() -> None:
    rng = np.random.default_rng(0)
    dark = changed(IMAGES, dataclasses.replace(nothing(), brightness=np.array([0.5, 1.0])), rng)
    np.testing.assert_allclose(dark[0], IMAGES[0] / 2, atol=0.02)
    np.testing.assert_allclose(dark[1], IMAGES[1], atol=0.02)
    flat = changed(IMAGES, dataclasses.replace(nothing(), contrast=np.zeros(2)), rng)
    np.testing.assert_allclose(flat, 128)
    turned = changed(IMAGES, dataclasses.replace(nothing(), turn=np.deg2rad([120, 0])), rng)
    np.testing.assert_allclose(turned[0], IMAGES[0][..., [2, 0, 1]], atol=0.02)  # a third of a turn: red becomes green
    place = np.zeros((2, 2, 2))
    place[:, 0] = (1 / 16, 0)
    moved = changed(IMAGES, dataclasses.replace(nothing(), place=place), rng)
    np.testing.assert_allclose(moved[:, :, 0, 1:], IMAGES[:, :, 0, :-1], atol=0.02)  # down by one of 16 rows, in one camera alone
    np.testing.assert_allclose(moved[:, :, 0, 0], IMAGES[:, :, 0, 0], atol=0.02)  # the edge is repeated
    np.testing.assert_allclose(moved[:, :, 1], IMAGES[:, :, 1], atol=0.02)


def test_the_seed_decides_and_one_window_in_five_stays_as_it_was() -> None:
    one, again = (draw(1000, 2, 1.0, np.random.default_rng(3)) for _ in range(2))
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert 0.15 < (one.brightness == 1).mean() < 0.25
    assert abs(draw(1000, 2, 0.5, np.random.default_rng(3)).place).max() <= PLACE / 2


def test_it_is_for_the_built_in_encoder_alone() -> None:
    with pytest.raises(ValueError, match="augmentation is for the built-in encoder 'pixels' alone"):
        SARMConfig(augmentation=1.0)
    with pytest.raises(ValueError, match=r"augmentation must lie in \[0, 3\]"):
        SARMConfig(augmentation=-1.0, encoder="pixels", image_dim=64, text_dim=32)
