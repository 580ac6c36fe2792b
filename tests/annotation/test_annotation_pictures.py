"""Stamped frames and contact sheets: nothing is hidden, the stamp can be read off the pixels, every frame is there."""

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.annotation.sheets import BAND, GAP, SHEET, TILE, _font, beside, sheets, stamped
from milepost.core.errors import DataError


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_a_large_frame_stays_as_it_is_below_its_band() -> None:
    image = noise((1, 480, 640, 3))
    (out,) = stamped(image, np.array([1.5]))
    band = round(BAND * 480 / TILE)
    assert out.shape == (480 + band, 640, 3)
    np.testing.assert_array_equal(out[band:], image[0])


def test_a_small_frame_is_enlarged() -> None:
    (out,) = stamped(noise((1, 96, 96, 3)), np.array([1.5]))
    assert out.shape == (TILE + BAND, TILE, 3)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_the_stamp_is_as_large_and_as_clear_on_any_background(value: int) -> None:
    (out,) = stamped(np.full((1, 96, 96, 3), value, np.uint8), np.array([12.25]))
    band = out[: BAND - 1].max(axis=2)
    assert band.max() == 255
    assert (band == 0).mean() > 0.6
    rows = np.flatnonzero((band > 128).any(axis=1))
    assert np.ptp(rows) + 1 >= 14  # pixels a digit is high at 96 x 96


def test_other_times_look_different() -> None:
    blank = np.zeros((60, 96, 96, 3), np.uint8)
    tiles = stamped(blank, np.arange(60) / 60)
    assert len({tile[:, TILE // 2 :].tobytes() for tile in tiles}) == 60


def test_number_and_time_never_meet() -> None:
    for side in ((96, 96), (160, 90), (480, 640)):
        tile = stamped(np.zeros((120, *side, 3), np.uint8), np.full(120, 3599.98))[-1]
        font = _font(round(0.8 * round(BAND * max(TILE, side[0]) / TILE)))
        free = tile.shape[1] - font.getlength("120") - font.getlength("3599.98 s")
        assert free > 2 * (BAND // 4) + 4


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 45), st.sampled_from([(96, 96), (48, 64), (64, 48), (90, 160), (160, 40)]))
def test_sheets_hold_every_frame_in_order(count: int, size: tuple[int, int]) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (count, 3), dtype=np.uint8)
    images = np.broadcast_to(colours[:, None, None], (count, *size, 3)).copy()
    found = []
    made = sheets(images, np.arange(count) / 2)
    tile = stamped(images[:1], np.array([0.0]))[0].shape
    for sheet in made:
        assert sheet.shape[1] <= max(SHEET[0], tile[1] + 2 * GAP)
        for top in range(GAP, sheet.shape[0], tile[0] + GAP):
            for left in range(GAP, sheet.shape[1], tile[1] + GAP):
                found.append(sheet[top + tile[0] - TILE // 2, left + tile[1] // 2])
    np.testing.assert_array_equal(found[:count], colours)
    assert len({sheet.shape[1] for sheet in made}) == 1


def test_five_by_four_of_four_to_three() -> None:
    made = sheets(noise((41, 48, 64, 3)), np.arange(41.0))
    assert [sheet.shape for sheet in made] == [(4 * 226 + 6, 5 * 262 + 6, 3)] * 2 + [(226 + 6, 5 * 262 + 6, 3)]


def test_cameras_side_by_side() -> None:
    a, b = noise((3, 40, 50, 3)), noise((3, 80, 60, 3))
    both = beside([a, b])
    assert both.shape == (3, 80, 160, 3)
    np.testing.assert_array_equal(both[:, :, 100:], b)
    np.testing.assert_array_equal(beside([a]), a)
    small = np.asarray(PIL.Image.fromarray(a[1]).resize((100, 80), PIL.Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(both[1, :, :100], small)


def test_nonsense_is_refused() -> None:
    with pytest.raises(DataError, match="at least one pixel"):
        stamped(noise((0, 8, 8, 3)), np.zeros(0))
    with pytest.raises(DataError, match="same frames"):
        beside([noise((2, 8, 8, 3)), noise((3, 8, 8, 3))])
