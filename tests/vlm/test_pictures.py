"""Pixels and sizes as the published video processor makes them."""

import hashlib

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.vlm.patches import FrameProcessor, Resolution

LEROBOT = Resolution("lerobot")
DEFAULTS = FrameProcessor(min_pixels=131_072, max_pixels=786_432)
"""The budgets of transformers itself, which bind; those of the published checkpoints hardly do."""


@pytest.mark.parametrize("case", [0, 4, 8])
def test_rows_are_the_processors_to_the_bit(case, golden, clips):
    case = golden["cases"][case]
    pictures, frames = FrameProcessor(), clips[case["clip"]]
    for each in case["prefixes"]:
        n, facts = each["frames"], each["pixel_values_videos"]
        size = pictures.size(LEROBOT, frames=n, height=frames.shape[1], width=frames.shape[2])
        rows = pictures.rows(frames[:n], size)
        assert each["video_grid_thw"] == [[-(-n // 2), *pictures.grid(size)]]
        assert list(rows.shape) == facts["shape"]
        np.testing.assert_allclose(rows.flatten()[:8], facts["first"], rtol=0, atol=1e-6)
        np.testing.assert_allclose([rows.double().sum(), rows.double().abs().sum()], [facts["sum"], facts["abs_sum"]], rtol=0, atol=1e-3)
        assert hashlib.sha256(rows.numpy().tobytes()).hexdigest() == facts["sha256"]


def test_one_frame_is_doubled_and_an_odd_last_one_repeated(rng):
    frames = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    rows = FrameProcessor().rows(frames, (64, 64))
    np.testing.assert_array_equal(FrameProcessor().rows(frames[2:], (64, 64)), rows[16:])
    np.testing.assert_array_equal(FrameProcessor().rows(frames[[2, 2]], (64, 64)), rows[16:])
    np.testing.assert_array_equal(FrameProcessor().rows(frames[:2], (64, 64)), rows[:16])


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [(2, 300), (3, 234), (4, 192), (8, 88), (20, 35), (64, 12)],
)
def test_lerobots_size_shrinks_as_a_clip_grows(frames, tokens):
    """480 x 640 under transformers' own budgets; the figures were measured with its processor."""
    assert DEFAULTS.tokens(DEFAULTS.size(LEROBOT, frames=frames, height=480, width=640)) == tokens


@pytest.mark.parametrize(("frames", "tokens"), [(2, 64), (3, 49), (15, 49), (16, 36)])
def test_lerobots_size_of_a_short_clip_of_small_frames_is_raised(frames, tokens):
    assert DEFAULTS.tokens(DEFAULTS.size(LEROBOT, frames=frames, height=224, width=224)) == tokens


def test_published_budgets_leave_vga_alone_for_81_frames():
    sizes = {n: FrameProcessor().size(LEROBOT, frames=n, height=480, width=640) for n in (1, 2, 80, 82, 300)}
    assert sizes[2] == sizes[80] == (480, 640)
    assert FrameProcessor().tokens(sizes[82]) == 266
    assert FrameProcessor().tokens(sizes[300]) == 70


def test_our_size_does_not_depend_on_the_frames():
    for resolution in (Resolution(), Resolution(size=(224, 320)), Resolution(max_pixels=50_000)):
        assert len({DEFAULTS.size(resolution, frames=n, height=480, width=640) for n in range(1, 500, 7)}) == 1
    assert DEFAULTS.size(Resolution(), frames=9, height=480, width=640) == (480, 640)
    assert DEFAULTS.size(Resolution(size=(224, 320)), frames=9, height=480, width=640) == (224, 320)
    height, width = DEFAULTS.size(Resolution(max_pixels=50_000), frames=9, height=480, width=640)
    assert 40_000 < height * width <= 50_000


def test_frames_smaller_than_a_token_are_enlarged():
    assert FrameProcessor().size(LEROBOT, frames=2, height=20, width=40) == (32, 64)


@pytest.mark.parametrize(("height", "width", "says"), [(0, 10, "no area"), (10, 0, "no area"), (10, 2001, "too narrow")])
def test_frames_that_are_no_pictures_are_refused(height, width, says):
    with pytest.raises(DataError, match=says):
        FrameProcessor().size(Resolution(), frames=2, height=height, width=width)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"rule": "huge"}, "'milepost'.*'lerobot'"), ({"rule": "lerobot", "size": (32, 32)}, "fixed size"), ({"size": (0, 32)}, "cannot")],
)
def test_a_resolution_that_means_nothing_is_refused(settings, says):
    with pytest.raises((DataError, TypeError), match=says):  # the tests check types before we do
        Resolution(**settings)


def test_a_size_that_is_no_whole_number_of_tokens_is_refused():
    with pytest.raises(DataError, match="multiples of 32"):
        FrameProcessor().size(Resolution(size=(100, 96)), frames=2, height=100, width=96)


@pytest.mark.parametrize("config", [{}, {"size": {"height": 3, "width": 3}}, {"size": {"shortest_edge": 1, "longest_edge": 2}}])
def test_another_processors_config_is_refused(config):
    with pytest.raises(DataError, match="video preprocessor"):
        FrameProcessor.from_config(config)
