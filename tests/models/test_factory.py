"""LeRobot's names: a config by name, a model from it, a batch through its processors to a reward."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import milepost
from milepost.core.errors import DataError
from milepost.models.elapsed import ElapsedModel
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.samples import window_frames
from milepost.testing import CAMERA, dot_episodes, tiny_sarm

DUAL = Path(__file__).parents[1] / "data" / "sarm_checkpoint" / "dual"
TINY = Path(__file__).parents[1] / "data" / "clip_tiny"
TOP = "observation.images.top"


class Brightness:
    """An encoder that shows which picture it saw: 512 times the mean level, 512 times the number of letters."""

    def images(self, images: np.ndarray) -> np.ndarray:
        return np.repeat(images.mean(axis=(1, 2, 3))[:, None] / 255, 512, axis=1).astype(np.float32)

    def text(self, sentences: list[str]) -> np.ndarray:
        return np.array([[len(text)] * 512 for text in sentences], dtype=np.float32)


def test_a_config_by_name() -> None:
    config = milepost.make_reward_model_config("sarm", annotation_mode="dual", frame_gap=30, dense_subtask_names=["a", "b"])
    assert isinstance(config, SARMConfig)
    assert (config.gap(10.0), config.dense_subtask_names) == (30, ("a", "b"))
    with pytest.raises(ValueError, match="known: elapsed, gvl, reward_classifier, robometer, roboreward, sarm, success, topreward"):
        milepost.make_reward_model_config("oracle")
    with pytest.raises(ValueError, match="no field colour"):
        milepost.make_reward_model_config("sarm", colour=3)


def test_a_model_of_a_config() -> None:
    assert isinstance(milepost.make_reward_model(milepost.make_reward_model_config("elapsed")), ElapsedModel)
    fresh = milepost.make_reward_model(milepost.make_reward_model_config("sarm", hidden_dim=16, num_heads=2, num_layers=1, device="cpu"))
    assert isinstance(fresh, SARMModel)
    loaded = milepost.make_reward_model(milepost.make_reward_model_config("sarm", pretrained_path=str(DUAL)))
    assert loaded.config.annotation_mode == "dual"
    assert {"device", "pretrained_path"}.isdisjoint(loaded.config.to_dict())
    with pytest.raises(ValueError, match="expected the config"):
        milepost.make_reward_model({"type": "sarm"})


def test_from_pictures_to_a_reward() -> None:
    model = SARMModel.from_pretrained(DUAL)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 9, 6, 8, 3), dtype=np.uint8)
    state = rng.normal(size=(2, 9, 7)).astype(np.float32)
    stats = {"observation.state": {"mean": np.full(7, 0.5), "std": torch.full((7,), 2.0)}}
    before, after = milepost.make_reward_pre_post_processors(model.config, dataset_stats=stats, encoder=Brightness())
    given = {TOP: pictures, "observation.state": state, "task": ["open the door", "shut it"]}
    batch = before(given)
    assert set(given) == {TOP, "observation.state", "task"}
    np.testing.assert_allclose(batch["video_features"][..., 0, 0], pictures.mean(axis=(2, 3, 4)) / 255, atol=1e-6)
    np.testing.assert_array_equal(batch["text_features"][:, 0], [13, 7])
    np.testing.assert_allclose(batch["state_features"][..., :7], (state - 0.5) / 2, atol=1e-6)
    assert not batch["state_features"][..., 7:].any()
    np.testing.assert_array_equal(batch["lengths"], [9, 9])
    reward = after({"reward": model.compute_reward(batch)})["reward"]
    assert reward.shape == (2,)
    assert ((reward >= 0) & (reward <= 1)).all()

    floats = torch.from_numpy(np.moveaxis(pictures, -1, 2).copy()).float() / 255
    meta = SimpleNamespace(stats=stats)
    again, _ = milepost.make_reward_pre_post_processors(model.config, dataset_meta=meta, encoder=Brightness())
    np.testing.assert_array_equal(model.compute_reward(again(given | {TOP: floats})), reward)
    one = before(given | {"task": "open the door"})
    np.testing.assert_array_equal(one["text_features"][:, 0], [13, 13])


def test_batches_that_lack_something_are_refused() -> None:
    config = SARMModel.from_pretrained(DUAL).config
    bare, _ = milepost.make_reward_pre_post_processors(config)
    before, _ = milepost.make_reward_pre_post_processors(config, encoder=Brightness())
    pictures = np.zeros((2, 9, 6, 8, 3), np.uint8)
    for step, batch, words in (
        (bare, {TOP: pictures}, "encoder="),
        (before, {"task": "x"}, TOP),
        (before, {TOP: pictures}, "needs its instructions"),
        (before, {TOP: pictures, "task": ["x"]}, "got 1"),
        (before, {TOP: pictures[0], "task": "x"}, "should be"),
        (before, {TOP: pictures, "task": "x", "observation.state": np.zeros((2, 9, 7))}, "state_stats="),
    ):
        with pytest.raises(DataError, match=words):
            step(batch)
    with pytest.raises(TypeError, match="takes no batches"):
        milepost.make_reward_pre_post_processors(milepost.make_reward_model_config("elapsed"))


def test_features_pass_as_they_are() -> None:
    before, _ = milepost.make_reward_pre_post_processors(SARMModel.from_pretrained(DUAL).config)
    given = {"video_features": torch.zeros(1, 13, 512), "text_features": torch.zeros(1, 512), "lengths": torch.tensor([11])}
    assert before(given) == given


def test_the_reward_of_a_causal_window_is_its_last_frames() -> None:
    """Places after the window are rewind places: without lengths they are left out."""
    model = tiny_sarm()
    batch = {"video_features": torch.randn(3, 7, 8), "text_features": torch.randn(3, 8), "state_features": torch.randn(3, 7, 2)}
    nine = model.compute_reward({name: tensor[:, :5] if tensor.ndim == 3 else tensor for name, tensor in batch.items()})
    np.testing.assert_allclose(model.compute_reward(batch), nine, atol=1e-6)


def test_nothing_is_uploaded_unless_a_repository_is_named() -> None:
    with pytest.raises(DataError, match="nothing is uploaded"):
        tiny_sarm().push_to_hub()
    with pytest.raises(DataError, match="could not be uploaded to 'ada/model'"):
        tiny_sarm().push_to_hub("ada/model")  # the tests run offline


def test_a_model_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's real cache layout on disk, no network."""
    repo, commit = tmp_path / "models--ada--sarm", "0123456789abcdef0123456789abcdef01234567"
    tiny_sarm().save_pretrained(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = milepost.load_model("ada/sarm")
    assert loaded.config == tiny_sarm().config
    assert SARMModel.from_pretrained("ada/sarm").config == loaded.config
    with pytest.raises(DataError, match="Hub model 'ada/other'"):
        milepost.load_model("ada/other")


def test_the_config_of_a_checkpoint_is_the_checkpoints() -> None:
    """But for what is changed, which the model then has."""
    config = milepost.make_reward_model_config("sarm", pretrained_path=str(DUAL), dropout=0.3, encoder=str(TINY))
    saved = SARMModel.from_pretrained(DUAL).config
    assert (config.annotation_mode, config.hidden_dim, config.window, config.dropout) == ("dual", saved.hidden_dim, "centred", 0.3)
    model = milepost.make_reward_model(config)
    assert dataclasses.asdict(model.config) == dataclasses.asdict(saved) | {"dropout": 0.3, "encoder": str(TINY)}
    plain = milepost.make_reward_model(dataclasses.replace(milepost.make_reward_model_config("sarm"), pretrained_path=str(DUAL)))
    assert plain.config == saved
    with pytest.raises(DataError, match="should be"):
        milepost.make_reward_model(milepost.make_reward_model_config("sarm", pretrained_path=str(DUAL), hidden_dim=2 * saved.hidden_dim))


@pytest.mark.parametrize("kind", ["pixels", "clip"])
def test_a_model_stands_for_its_encoder(kind: str) -> None:
    """The reward of a batch of pictures is what `predict` says at the window's frame, whatever the encoder."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    if kind == "clip":
        torch.manual_seed(0)
        model = SARMModel(dataclasses.replace(model.config, encoder=str(TINY), image_dim=512, text_dim=512)).eval()
    before, _ = milepost.make_reward_pre_post_processors(model.config, encoder=model)
    at = np.arange(3, episode.length)
    frames, valid = window_frames(at, model.config, model.config.gap(episode.fps), episode.length)
    whole = at[valid.all(axis=1)]
    frames = frames[valid.all(axis=1)]
    pictures = episode.cameras[CAMERA][frames.ravel()].reshape(*frames.shape, 32, 32, 3)
    batch = {CAMERA: pictures, "observation.state": episode.state[frames], "task": episode.task}
    np.testing.assert_allclose(model.compute_reward(before(batch)), model.predict(episode).value[whole], atol=1e-5)
