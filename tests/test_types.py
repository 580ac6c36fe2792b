"""The border refuses bad data when it is built."""

import dataclasses

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.core.types import ArrayFrames, Episode, Progress, Segment
from milepost.testing import CAMERA, dot_episodes

EPISODE = dot_episodes(1)[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": 0}, "at least one frame"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"state": np.zeros((3, 2), np.float32)}, "state must be"),
        ({"cameras": {"top": ArrayFrames(np.zeros((3, 8, 8, 3), np.uint8))}}, "camera 'top' has 3 frames"),
        ({"columns": {"action": np.zeros((2, 4))}}, "column 'action' has 2 rows"),
        ({"segments": {"sparse": (Segment("a", 0, 10_000),)}}, "ends after"),
    ],
)
def test_bad_episodes(change: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        dataclasses.replace(EPISODE, **change)


def test_nan_state_says_where() -> None:
    state = EPISODE.state.copy()
    state[5, 1] = np.nan
    with pytest.raises(DataError, match="first at frame 5, channel 1"):
        dataclasses.replace(EPISODE, state=state)


def test_a_wrong_camera_lists_the_right_ones() -> None:
    with pytest.raises(DataError, match=CAMERA):
        EPISODE.camera("wrist")


def test_success_comes_from_facts_then_columns_then_nobody() -> None:
    bare = dataclasses.replace(EPISODE, facts={}, columns={})
    assert bare.success is None
    column = np.zeros(bare.length, bool)
    column[-1] = True
    assert dataclasses.replace(bare, columns={"next.success": column}).success is True
    assert dataclasses.replace(bare, columns={"next.success": column}, facts={"success": False}).success is False


def test_frames_outside_are_refused() -> None:
    with pytest.raises(IndexError):
        EPISODE.camera(CAMERA)[np.array([EPISODE.length])]


@pytest.mark.parametrize(
    "bad",
    [
        {"heads": np.array([1.2], np.float32)},
        {"heads": np.array([-0.1], np.float32)},
    ],
)
def test_bad_progress(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]|frames"):
        Progress(0, **bad)


def test_nan_means_unknown() -> None:
    assert len(Progress(0, np.array([np.nan, 1.0], np.float32))) == 2


@pytest.mark.parametrize(("name", "start", "stop"), [("", 0, 1), ("a", -1, 2), ("a", 3, 2)])
def test_bad_segments(name: str, start: int, stop: int) -> None:
    with pytest.raises(DataError):
        Segment(name, start, stop)


def test_an_episode_is_as_long_as_it_says() -> None:
    assert isinstance(EPISODE, Episode)
    assert len(EPISODE) == EPISODE.length
