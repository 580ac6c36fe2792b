"""Frames shown: their count, times and ends for every length and rate that recordings have."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.annotation.sampling import BUDGET, FrameSample, every_frame, sample_frames
from milepost.core.errors import DataError

SECONDS = st.floats(5, 600)
FPS = st.sampled_from([5.0, 10.0, 15.0, 20.0, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0]) | st.floats(5, 60)


@given(SECONDS, FPS, st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.integers(2, 200))
def test_count_times_and_ends(seconds: float, fps: float, rate_hz: float, budget: int) -> None:
    length = max(1, round(seconds * fps))
    shown = sample_frames(length, fps, rate_hz=rate_hz, budget=budget)
    last = (length - 1) / fps
    assert len(shown) == min(budget, length, 1 + math.ceil(last * rate_hz - 1e-9))
    assert shown.frames[0] == 0
    assert shown.frames[-1] == length - 1
    np.testing.assert_array_equal(shown.times_s, shown.frames / fps)
    assert 0 < shown.duration_s - shown.times_s[-1] <= shown.step_s + 1e-12
    assert shown.duration_s - shown.times_s[-1] == pytest.approx(1 / fps)
    gaps = np.diff(shown.frames)
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    if len(shown) < min(budget, length):
        assert gaps.max() / fps <= 1 / rate_hz + 1 / fps


def test_a_minute_by_hand() -> None:
    shown = sample_frames(1800, 30.0)
    assert len(shown) == 120 == BUDGET
    assert shown.times_s[[0, 1, -1]] == pytest.approx([0, 0.5, 59.9667], abs=0.02)
    longer = sample_frames(18000, 30.0)
    assert len(longer) == 120
    assert longer.step_s == pytest.approx(600 / 119, abs=0.04)


@given(st.integers(1, 3000), FPS, st.integers(2, 64), st.integers(0, 2**32))
def test_jitter_keeps_order_and_ends(length: int, fps: float, budget: int, seed: int) -> None:
    plain = sample_frames(length, fps, budget=budget)
    moved = sample_frames(length, fps, budget=budget, rng=np.random.default_rng(seed))
    again = sample_frames(length, fps, budget=budget, rng=np.random.default_rng(seed))
    np.testing.assert_array_equal(moved.frames, again.frames)
    assert len(moved) == len(plain)
    assert (moved.frames[0], moved.frames[-1]) == (0, length - 1)
    assert (np.diff(moved.frames) >= 1).all()
    assert np.abs(moved.frames - plain.frames).max() <= (np.diff(plain.frames).max(initial=1) + 1) // 2


def test_repeats_see_other_frames() -> None:
    a, b = (sample_frames(300, 30.0, rng=np.random.default_rng(seed)).frames for seed in (1, 2))
    assert np.mean(a != b) > 0.7
    np.testing.assert_array_equal(sample_frames(5, 5.0, rate_hz=5.0, rng=np.random.default_rng(0)).frames, np.arange(5))


def test_one_frame() -> None:
    assert sample_frames(1, 30.0).frames.tolist() == [0]
    assert sample_frames(1, 30.0).step_s == pytest.approx(1 / 30)


def test_every_frame() -> None:
    assert every_frame(7, 10.0).frames.tolist() == list(range(7))


@pytest.mark.parametrize("bad", [{"length": 0}, {"fps": 0.0}, {"rate_hz": 0.0}, {"budget": 1}])
def test_nonsense_is_refused(bad: dict) -> None:
    settings = {"length": 10, "fps": 10.0, "rate_hz": 2.0, "budget": 10, **bad}
    length, fps = settings.pop("length"), settings.pop("fps")
    with pytest.raises(DataError, match=r"above 0|at least 2"):
        sample_frames(length, fps, **settings)


@pytest.mark.parametrize("frames", [[], [0, 0], [3, 2], [-1, 2], [0, 9]])
def test_frames_that_do_not_rise_are_refused(frames: list[int]) -> None:
    with pytest.raises(DataError, match="rise"):
        FrameSample(np.array(frames, dtype=np.int64), 9, 10.0)
