"""Frame by frame gives the numbers of the whole clip, at a cost that does not grow."""

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.vlm.patches import Resolution
from milepost.vlm.prompt import Prompt

TASKS = ["pick up the hammer and drive the nail into the wall", "slide the window open"]


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_is_the_offline_curve(chat, engine, clips):
    engine = engine.with_prompt(Prompt(chat_template=chat))
    stream = engine.stream(instructions=TASKS, fps=2.0)
    live = np.stack([stream.append(frame) for frame in clips["wide"]], axis=1)
    assert stream.frames == 9
    whole = engine.score(engine.clip(clips["wide"], fps=2.0), instructions=TASKS)
    np.testing.assert_allclose(live, whole, rtol=0, atol=1e-5)


def test_times_may_come_with_the_frames(tiny, clips):
    times = [0.1, 0.3, 1.7, 1.8, 5.0]
    stream = tiny.stream(instructions=TASKS[:1], answers=["False"])
    live = np.stack([stream.append(frame, time_s) for frame, time_s in zip(clips["odd_size"], times, strict=True)], axis=1)
    whole = tiny.score(tiny.clip(clips["odd_size"], times_s=times), instructions=TASKS[:1], answers=["False"])
    np.testing.assert_allclose(live, whole, rtol=0, atol=1e-5)


def test_a_step_reads_its_own_group_and_the_question(tiny, clips):
    stream = tiny.stream(instructions=TASKS[:1], fps=2.0)
    steps = []
    for frame in clips["square"]:
        before = tiny.tokens.total()
        stream.append(frame)
        steps.append(tiny.tokens.total() - before)
    assert len(set(steps[2:])) == 1  # the first two have the text before the video as well


def test_a_frame_kept_by_the_stream_is_its_own(tiny, clips):
    stream, frame = tiny.stream(instructions=TASKS[:1], fps=2.0), clips["wide"][0].copy()
    stream.append(frame)
    frame[:] = 0  # a camera's buffer is used again
    said = stream.append(clips["wide"][1])
    whole = tiny.score(tiny.clip(clips["wide"], fps=2.0), instructions=TASKS[:1], prefixes=[2])
    np.testing.assert_allclose(said, whole[:, 0], rtol=0, atol=1e-5)


def test_what_cannot_be_streamed_is_refused(tiny, clips):
    with pytest.raises(DataError, match="change size"):
        tiny.stream(instructions=TASKS, fps=2.0, resolution=Resolution("lerobot"))
    with pytest.raises(DataError, match="above zero"):
        tiny.stream(instructions=TASKS, fps=-1.0)
    with pytest.raises(DataError, match="no instruction"):
        tiny.stream(instructions=[], fps=2.0)
    stream = tiny.stream(instructions=TASKS, fps=2.0)
    with pytest.raises(DataError, match="when was this frame"):
        stream.append(clips["wide"][0], 1.0)
    stream.append(clips["wide"][0])
    with pytest.raises(DataError, match="one shape"):
        stream.append(clips["square"][0])
    late = tiny.stream(instructions=TASKS)
    with pytest.raises(DataError, match="when was this frame"):
        late.append(clips["wide"][0])
    late.append(clips["wide"][0], 3.0)
    with pytest.raises(DataError, match="in order"):
        late.append(clips["wide"][0], 2.0)
