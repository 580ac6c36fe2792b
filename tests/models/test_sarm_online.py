"""One frame at a time: the same curve as the recorded episode's, from bounded memory."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch

from milepost.core.errors import DataError
from milepost.core.types import ArrayFrames, Episode
from milepost.core.windows import causal
from milepost.models.online import History
from milepost.models.sarm.config import CLIP
from milepost.models.sarm.model import SARMModel
from milepost.testing import CAMERA, dot_episodes, tiny_sarm

WRIST = "observation.images.wrist"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A step is too small to share: on a busy machine two threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def live(model: SARMModel, episode: Episode) -> list[float]:
    model.reset(task=episode.task, fps=episode.fps)
    images = {name: frames[np.arange(episode.length)] for name, frames in episode.cameras.items()}
    return [model.step({name: view[t] for name, view in images.items()}, episode.state[t]).progress for t in range(episode.length)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decode": "argmax"},
        {"gap_s": 0.1},
        {"n_obs_steps": 1, "max_rewind_steps": 0},
        {"frame_gap": 7},
        {"gap_s": 60.0},
        {"annotation_mode": "dual", "dense_subtask_names": ("a", "b"), "dense_temporal_proportions": (0.4, 0.6)},
    ],
)
def test_step_by_step_is_the_recorded_curve(changes: dict) -> None:
    model, episode = tiny_sarm(**changes), dot_episodes(1)[0]
    np.testing.assert_allclose(live(model, episode), model.predict(episode).value, atol=1e-5)


def test_two_attempts_in_a_row() -> None:
    """Nothing of the first is left in the second."""
    model = tiny_sarm()
    for episode in dot_episodes(2, tasks=2):
        np.testing.assert_allclose(live(model, episode), model.predict(episode).value, atol=1e-5)


def test_several_cameras() -> None:
    model, episode = tiny_sarm(more_image_keys=(WRIST,)), dot_episodes(1)[0]
    flipped = ArrayFrames(episode.cameras[CAMERA][np.arange(episode.length)][:, ::-1])
    episode = dataclasses.replace(episode, cameras={WRIST: flipped, **episode.cameras})
    np.testing.assert_allclose(live(model, episode), model.predict(episode).value, atol=1e-5)
    with pytest.raises(DataError, match=WRIST):
        model.step({CAMERA: np.zeros((32, 32, 3), np.uint8)}, episode.state[0])


def test_features_instead_of_images() -> None:
    """A model whose encoder runs elsewhere is given features, of frames and of words."""
    model, episode = SARMModel(dataclasses.replace(tiny_sarm().config, encoder=CLIP)), dot_episodes(1)[0]
    rng = np.random.default_rng(0)
    features = rng.standard_normal((episode.length, 1, 8), dtype=np.float32)
    text = rng.standard_normal(8, dtype=np.float32)
    model.reset(text=text, fps=episode.fps)
    curve = [model.step(features[t], episode.state[t]).progress for t in range(episode.length)]
    np.testing.assert_allclose(curve, model.predict_features(episode, features, text=text).value, atol=1e-5)
    with pytest.raises(DataError, match=CLIP):
        model.step({CAMERA: np.zeros((32, 32, 3), np.uint8)}, episode.state[0])


def windows(history: History, frames: Iterable[int]) -> None:
    for frame in frames:
        history.push(np.full((1, 2), frame, np.float32), np.full(3, frame, np.float32))
        features, state, valid = history.window()
        wanted, mask = causal(np.array([frame]), history.n_obs_steps, history.gap)
        np.testing.assert_array_equal(features[0, :, 0, 0], wanted[0])
        np.testing.assert_array_equal(state[0, :, 0], wanted[0])
        np.testing.assert_array_equal(valid, mask)


@pytest.mark.parametrize(("n_obs_steps", "gap"), [(1, 1), (1, 5), (2, 1), (4, 3), (8, 30)])
def test_the_ring_holds_the_causal_window_and_no_more(n_obs_steps: int, gap: int) -> None:
    history = History(n_obs_steps, gap, np.zeros(2, np.float32))
    windows(history, range(1000))
    assert len(history.features) == len(history.state) == (n_obs_steps - 1) * gap + 2


def test_a_window_that_looks_ahead_cannot_step() -> None:
    model = tiny_sarm(window="centred")
    with pytest.raises(DataError, match="after now"):
        model.reset(task="x", fps=10.0)
    with pytest.raises(DataError, match="reset"):
        model.step({}, np.zeros(2, np.float32))


def test_a_frame_of_another_shape_is_refused() -> None:
    model = tiny_sarm()
    model.reset(task="x", fps=10.0)
    model.step(np.zeros((1, 8), np.float32), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="frame 1"):
        model.step(np.zeros((2, 8), np.float32), np.zeros(2, np.float32))
    with pytest.raises(DataError, match="2 numbers, got none"):
        model.step(np.zeros((1, 8), np.float32))


def test_images_that_do_not_fit_are_refused_or_scaled() -> None:
    """A float image in [0, 1] is the same picture, not a black one; anything else says what it should be."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    image, state = episode.cameras[CAMERA][np.array([3])][0], episode.state[3]

    def first(picture: np.ndarray) -> float:
        model.reset(task=episode.task, fps=episode.fps)
        return model.step({CAMERA: picture}, state).progress

    wanted = first(image)
    assert abs(first(np.zeros_like(image)) - wanted) > 1e-4
    for same in (image / 255, (image / 255).astype(np.float32), np.moveaxis(image, -1, 0), np.moveaxis(image / 255, -1, 0)):
        assert first(same) == pytest.approx(wanted, abs=1e-6)
    for wrong in (image.astype(np.float32), image[..., :2], image.astype(np.int64), image[None], image / 255 - 1, image[:0]):
        with pytest.raises(DataError, match=CAMERA):
            first(wrong)
    model.reset(task=episode.task, fps=episode.fps)
    for state_, words in ((None, "2 numbers, got none"), (np.zeros(3, np.float32), "got 3"), (np.array([0, np.nan], np.float32), "NaN")):
        with pytest.raises(DataError, match=words):
            model.step({CAMERA: image}, state_)
    assert model.step({CAMERA: image}, state).progress == pytest.approx(wanted, abs=1e-6)  # what was refused has left nothing
