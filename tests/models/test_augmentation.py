"""Changes of light, colour, place and noise in training: what they do to an image, and that they are drawn from the seed alone."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from milepost.core import Episode
from milepost.models.sarm.augmentation import OFTEN, PLACE, VARIANTS, Changes, changed, draw, variants
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.prepare import one_of

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
    np.testing.assert_allclose(flat, 128, atol=0.02)
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


def test_its_strength_is_checked() -> None:
    with pytest.raises(ValueError, match=r"augmentation must lie in \[0, 3\]"):
        SARMConfig(augmentation=-1.0, encoder="pixels", image_dim=64, text_dim=32)


# Changed copies, for encoders that are too slow for each window


class Flat:
    """A camera of one grey, which shows nothing but what was done to it."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, frames: Any) -> np.ndarray:
        return np.full((len(np.atleast_1d(frames)), 24, 32, 3), 100, dtype=np.uint8)

    def chunks(self, size: int = 64) -> Iterator[np.ndarray]:
        yield self[np.arange(6)]


def test_changed_copies_of_an_episode() -> None:
    """One lamp for all frames and cameras of a copy, another for each copy; the same images in whatever order they are read."""
    episode = Episode(3, 0, "task", 10.0, 6, np.zeros((6, 0), np.float32), {"top": Flat(), "wrist": Flat()})
    copies = list(variants(episode, ("top", "wrist"), 1.0, 7))
    assert len(copies) == VARIANTS
    light = np.array([[copy.camera(name)[np.arange(6)].mean((1, 2, 3)) for name in ("top", "wrist")] for copy in copies])
    assert np.ptp(light, axis=(1, 2)).max() < 2  # noise alone
    assert np.ptp(light.mean((1, 2))) > 5
    for name in ("top", "wrist"):
        whole = next(copies[1].camera(name).chunks())
        np.testing.assert_array_equal(copies[1].camera(name)[np.array([4, 2])], whole[[4, 2]])
        np.testing.assert_array_equal(next(list(variants(episode, ("top", "wrist"), 1.0, 7))[1].camera(name).chunks()), whole)
    keys = {copy.cameras["top"].key for copy in copies} | {copy.cameras["top"].key for copy in variants(episode, ("top",), 0.5, 7)}
    assert len(keys) == 2 * VARIANTS


def test_a_window_takes_one_copy_or_the_recording() -> None:
    recording = np.zeros((5, 1, 2), np.float16)
    copies = np.stack([np.full((5, 1, 2), number, np.float16) for number in range(1, VARIANTS + 1)])
    images = one_of(recording, [copies])(np.tile(np.arange(5), (2000, 1)), np.random.default_rng(0))
    assert images.shape == (2000, 5, 1, 2)
    assert images.dtype == np.float32
    assert (images == images[:, :1, :1, :1]).all()
    taken = np.bincount(images[:, 0, 0, 0].astype(int), minlength=VARIANTS + 1) / 2000
    np.testing.assert_allclose(taken, [1 - OFTEN] + [OFTEN / VARIANTS] * VARIANTS, atol=0.04)
