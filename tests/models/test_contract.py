"""Every built-in model keeps the same promises. A new one is covered by its line in the registry and a maker here."""

import atexit
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from classifiers import Reference
from milepost.core.capabilities import RewardModel
from milepost.core.errors import DataError
from milepost.models.elapsed import ElapsedModel
from milepost.models.gvl.config import GVLConfig
from milepost.models.gvl.model import GVLModel
from milepost.models.registry import BUILT_IN, load_model
from milepost.models.robometer.config import FORMAT, RobometerConfig
from milepost.models.robometer.model import RobometerModel
from milepost.models.roboreward.config import RoboRewardConfig
from milepost.models.roboreward.model import RoboRewardModel
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.testing import CAMERA, dot_episodes, tiny_sarm, tiny_success, tiny_value
from milepost.testing import tiny_robometer as write_robometer
from milepost.vlm.engine import Engine
from milepost.vlm.head_files import load_frame_engine
from milepost.vlm.heads import FrameEngine
from milepost.vlm.loading import load_engine

VLM = Path(__file__).parents[1] / "data" / "qwen3vl_tiny"


@functools.cache
def tiny_vlm() -> Engine:
    return load_engine(VLM)


def tiny_topreward(**changes: object) -> TOPRewardModel:
    return TOPRewardModel(TOPRewardConfig(vlm_name=str(VLM), **changes), tiny_vlm())


def tiny_roboreward(**changes: object) -> RoboRewardModel:
    return RoboRewardModel(RoboRewardConfig(vlm_name=str(VLM), **changes), tiny_vlm())


@functools.cache
def robometer_folder() -> Path:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return write_robometer(folder)


@functools.cache
def robometer_engine() -> FrameEngine:
    return load_frame_engine(robometer_folder(), layout=FORMAT)


def tiny_robometer(**changes: object) -> RobometerModel:
    return RobometerModel(RobometerConfig(vlm_name=str(robometer_folder()), **changes), robometer_engine())


def tiny_gvl(**changes: object) -> GVLModel:
    return GVLModel(GVLConfig(vlm_name=str(VLM), max_answer_tokens=4, **changes), tiny_vlm())


@functools.cache
def tiny_classifier() -> RewardModel:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return load_model(Reference().write(Path(folder) / "classifier"))


MAKERS: dict[str, Callable[[], RewardModel]] = {
    "elapsed": ElapsedModel,
    "gvl": tiny_gvl,
    "reward_classifier": tiny_classifier,
    "robometer": tiny_robometer,
    "roboreward": tiny_roboreward,
    "sarm": tiny_sarm,
    "success": tiny_success,
    "topreward": tiny_topreward,
    "value": tiny_value,
}


@pytest.fixture(params=BUILT_IN)
def model(request: pytest.FixtureRequest) -> RewardModel:
    return MAKERS[request.param]()


def test_shape_type_and_range(model: RewardModel) -> None:
    for episode in dot_episodes(3):
        progress = model.predict(episode)
        assert progress.episode == episode.index
        assert progress.value.shape == (episode.length,)
        assert progress.value.dtype == np.float32


def test_the_same_answer_twice(model: RewardModel) -> None:
    episode = dot_episodes(1)[0]
    np.testing.assert_array_equal(model.predict(episode).value, model.predict(episode).value)


def test_the_episode_is_left_as_it_was(model: RewardModel) -> None:
    episode, twin = dot_episodes(1)[0], dot_episodes(1)[0]
    model.predict(episode)
    np.testing.assert_array_equal(episode.state, twin.state)
    every = np.arange(episode.length)
    np.testing.assert_array_equal(episode.cameras[CAMERA][every], twin.cameras[CAMERA][every])


def test_a_one_frame_episode_is_no_crash(model: RewardModel) -> None:
    episode = dot_episodes(1)[0]
    one = dataclasses.replace(
        episode,
        length=1,
        state=episode.state[:1],
        cameras={CAMERA: type(episode.cameras[CAMERA])(episode.cameras[CAMERA][np.array([0])])},
        segments={},
        columns={},
    )
    assert model.predict(one).value.shape == (1,)


def test_elapsed_is_a_clock() -> None:
    episode = dot_episodes(1)[0]
    np.testing.assert_allclose(ElapsedModel().predict(episode).value, np.linspace(0, 1, episode.length), atol=1e-6)


def test_load_by_name_or_folder(tmp_path: Path) -> None:
    assert isinstance(load_model("elapsed"), ElapsedModel)
    with pytest.raises(DataError, match=r"no model at"):
        load_model(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"type": "other"}')
    with pytest.raises(DataError, match="type 'other'"):
        load_model(tmp_path)
