"""Windows: hand-worked cases; nothing looks past now, nothing leaves the episode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.core.windows import causal, centred, gap_frames, interpolate, rewind, strided


def test_causal_by_hand() -> None:
    frames, valid = causal(np.array([7]), 4, 2)
    np.testing.assert_array_equal(frames, [[0, 1, 3, 5, 7]])
    assert valid.all()
    frames, valid = causal(np.array([3]), 4, 2)
    np.testing.assert_array_equal(frames, [[0, 0, 0, 1, 3]])
    np.testing.assert_array_equal(valid, [[True, False, False, True, True]])


def test_centred_is_lerobots() -> None:
    frames, valid = centred(np.array([10]), 8, 5, 40)
    np.testing.assert_array_equal(frames, [[0, 0, 0, 5, 10, 15, 20, 25, 30]])
    assert valid.all()


def test_rewind_is_the_reversed_tail() -> None:
    forward, _ = causal(np.array([20]), 4, 3)
    back, valid = rewind(np.array([20]), np.array([3]), 4, 3)
    np.testing.assert_array_equal(back[0, :3], forward[0, 1:4][::-1])
    np.testing.assert_array_equal(valid, [[True, True, True, False]])


def test_rewind_does_not_leave_the_episode() -> None:
    frames, valid = rewind(np.array([4]), np.array([4]), 4, 3)
    np.testing.assert_array_equal(valid, [[True, False, False, False]])
    assert (frames >= 0).all()


@given(st.integers(1, 60), st.integers(1, 10), st.integers(1, 12))
def test_causal_never_looks_ahead_or_out(length: int, count: int, gap: int) -> None:
    at = np.arange(length)
    frames, valid = causal(at, count, gap)
    assert frames.shape == valid.shape == (length, count + 1)
    assert (frames <= at[:, None]).all()
    assert (frames >= 0).all()
    assert valid[:, 0].all()
    assert valid[:, -1].all()


def test_gap_is_in_seconds() -> None:
    assert gap_frames(1.0, 30.0) == 30
    assert gap_frames(0.01, 10.0) == 1
    with pytest.raises(ValueError, match="above 0"):
        gap_frames(0.0, 10.0)


@given(st.integers(1, 200), st.integers(1, 50))
def test_strided_has_first_and_last(length: int, stride: int) -> None:
    frames = strided(length, stride)
    assert frames[0] == 0
    assert frames[-1] == length - 1
    assert (np.diff(frames) > 0).all()


def test_interpolate_keeps_unknown_unknown() -> None:
    at, value = np.array([0, 4, 8, 12]), np.array([0.0, 0.4, np.nan, 1.0])
    curve = interpolate(at, value, 13)
    np.testing.assert_allclose(curve[:5], [0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)
    assert np.isnan(curve[5:12]).all()
    assert curve[12] == 1
