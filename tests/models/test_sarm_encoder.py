"""SARM behind a vision-text model: LeRobot's own labels from pixels, training on its features, and the wrong encoder refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from milepost.core.errors import DataError
from milepost.core.windows import strided
from milepost.datasets.reader import open_dataset
from milepost.encoders.clip import ClipEncoder
from milepost.encoders.features import FeatureCache
from milepost.encoders.pixels import PixelImages
from milepost.models.factory import make_reward_pre_post_processors
from milepost.models.registry import load_model
from milepost.models.sarm.augmentation import VARIANTS
from milepost.models.sarm.config import CLIP, SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.train import train_sarm
from milepost.models.training.config import TrainConfig
from milepost.testing import dot_episodes

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "clip_tiny"
LABELS = np.load(DATA / "sarm_labels.npz")
"""What LeRobot's own loop labelled (benchmarks/lerobot_labels.py): every third frame and the last, interpolated between."""
SMALL = SARMConfig(
    annotation_mode="sparse_only", hidden_dim=32, num_layers=1, num_heads=2, max_state_dim=4, n_obs_steps=3, gap_s=0.2,
    max_rewind_steps=0, rewind_probability=0.0, dropout=0.0, encoder=str(TINY),
)  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> ClipEncoder:
    return ClipEncoder.load(str(TINY))


@pytest.mark.parametrize("mode", ["single_stage", "dual"])
def test_lerobots_own_labels_from_pixels(clip: ClipEncoder, tmp_path: Path, mode: str) -> None:
    """Decoding, resizing, CLIP, text, states, windows, both networks, decoding of stages and striding, all at once."""
    dataset = open_dataset(DATA / "dataset_v3")
    stats = DATA / "dataset_v3"
    model = load_model(DATA / "sarm_checkpoint" / mode, encoder=clip, state_stats=stats)
    assert isinstance(model, SARMModel)
    stride = int(LABELS["stride"])
    for position in range(0, len(dataset), 2):
        episode = dataset[position]
        rows = slice(episode.row, episode.row + episode.length)
        said = model.predict(episode, stride=stride)
        np.testing.assert_allclose(said.value, LABELS[f"{mode}/progress_sparse"][rows], atol=2e-6)
        if mode == "dual":
            np.testing.assert_allclose(said.head("dense").value, LABELS["dual/progress_dense"][rows], atol=2e-6)
        if not position:
            model.cache = FeatureCache(tmp_path / mode, "data", encoder=clip)
            np.testing.assert_allclose(model.predict(episode, stride=stride).value, said.value, atol=1e-4)  # half precision on disk
            model.cache = None
    assert LABELS[f"{mode}/progress_sparse"].std() > 0.02


def test_a_stride_looks_at_every_nth_frame_and_the_last(clip: ClipEncoder) -> None:
    model = SARMModel.from_pretrained(DATA / "sarm_checkpoint" / "dual", encoder=clip, state_stats=DATA / "dataset_v3")
    episode = open_dataset(DATA / "dataset_v3", episodes=[5])[0]
    every, some = model.predict(episode), model.predict(episode, stride=7)
    at = strided(episode.length, 7)
    for full, part in ((every.head(name), some.head(name)) for name in ("sparse", "dense")):
        np.testing.assert_allclose(part.value[at], full.value[at], atol=1e-6)
        np.testing.assert_allclose(part.value, np.interp(np.arange(episode.length), at, full.value[at]), atol=1e-6)
        between = np.setdiff1d(np.arange(episode.length), at)
        assert np.isnan(part.signals["raw"].values[between]).all()
        assert np.isnan(part.stage[between]).all()
        np.testing.assert_allclose(part.stage[at], full.stage[at], atol=1e-6)


def test_a_stride_encodes_only_what_its_windows_look_at(clip: ClipEncoder) -> None:
    """Frames 5 apart, every tenth: an episode of 92 frames needs every fifth of them."""

    class Counting(PixelImages):
        seen = 0

        def images(self, images: np.ndarray) -> np.ndarray:
            self.seen += len(images)
            return super().images(images)

    counting = Counting()
    episode = open_dataset(DATA / "dataset_v3", episodes=[4])[0]
    FeatureCache(None, "", encoder=counting).features_at(episode, ["observation.images.top"], np.arange(0, 92, 5))
    assert counting.seen == 19


def test_features_of_some_frames_are_those_of_all(clip: ClipEncoder, tmp_path: Path) -> None:
    episode = open_dataset(DATA / "dataset_v3", episodes=[4])[0]
    cache, at = FeatureCache(tmp_path, "data", encoder=clip), np.array([0, 3, 4, 50, 91])
    first = cache.features_at(episode, list(episode.cameras), at)
    assert not list(tmp_path.rglob("*.npy"))
    whole = cache.features(episode, list(episode.cameras))
    np.testing.assert_allclose(first.astype(np.float32), whole[at].astype(np.float32), atol=2e-3)  # an ulp of half precision
    np.testing.assert_array_equal(cache.features_at(episode, list(episode.cameras), at), whole[at])


def test_step_by_step_through_clip(clip: ClipEncoder) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMALL, sparse_subtask_names=("a", "b"), sparse_temporal_proportions=(0.5, 0.5), state_mean=(15.0, 15.0), state_std=(9.0, 9.0)
    )
    model = SARMModel(config).eval()
    model.use_encoder(clip)
    episode = dot_episodes(1)[0]
    model.reset(task=episode.task, fps=episode.fps)
    images = {name: frames[np.arange(episode.length)] for name, frames in episode.cameras.items()}
    curve = [model.step({name: view[t] for name, view in images.items()}, episode.state[t]).progress for t in range(episode.length)]
    np.testing.assert_allclose(curve, model.predict(episode).value, atol=1e-5)


def test_bfloat16_drifts_little(clip: ClipEncoder) -> None:
    episode = open_dataset(DATA / "dataset_v3", episodes=[4])[0]
    options = {"state_stats": DATA / "dataset_v3", "encoder": str(TINY)}
    exact, coarse = (SARMModel.from_pretrained(DATA / "sarm_checkpoint" / "dual", precision=p, **options) for p in ("float32", "bfloat16"))
    drift = np.abs(exact.predict(episode).value - coarse.predict(episode).value)
    assert 0 < np.median(drift) < 5e-3
    assert coarse.predict(episode).value.dtype == np.float32


# Training


def test_training_on_clip_features(clip: ClipEncoder, tmp_path: Path) -> None:
    """It learns; the model folder knows its encoder; every feature is on disk once and read from there."""
    episodes = dot_episodes(24, failing=6, tasks=2)
    cache = FeatureCache(tmp_path / "cache", "dots", encoder=clip)
    train = TrainConfig(steps=60, batch_size=32, lr=3e-3)
    trained = train_sarm(
        episodes, SMALL, train, folder=tmp_path / "model", stages={}, holdout=0.25, features=cache, on_stage=lambda name: lambda a, b: None
    )
    log = [json.loads(line)["loss"] for line in (tmp_path / "model" / "log.jsonl").read_text().splitlines()]
    assert np.mean(log[-5:]) < 0.6 * log[0]
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == len(trained.train_episodes)
    assert (trained.model.config.image_dim, trained.model.config.text_dim) == (512, 512)
    again = load_model(tmp_path / "model")
    assert isinstance(again, SARMModel)
    assert again.config.encoder_fingerprint == clip.fingerprint
    episode = episodes[trained.held_out[0]]
    again.cache = cache
    np.testing.assert_allclose(again.predict(episode).value, trained.model.predict(episode).value, atol=1e-6)


def test_noise_is_in_units_of_the_features(clip: ClipEncoder) -> None:
    """CLIP's features do not have unit variance; the built-in encoder's do."""
    from milepost.models.sarm.prepare import training_set, with_statistics
    from milepost.models.training.episodes import with_encoder

    episodes = dot_episodes(4)
    cache = FeatureCache(None, "", encoder=clip)
    features = list(cache.stream(episodes, SMALL.cameras))
    config = with_encoder(with_statistics(dataclasses.replace(SMALL, feature_noise=0.5), episodes, {}), clip)
    model = SARMModel(config)
    model.use_encoder(clip)
    data = training_set(model, episodes, features, np.random.default_rng(0))
    assert data.features.dtype == np.float16
    assert data.noise == pytest.approx(0.5 * np.concatenate(features).std(dtype=np.float64))
    batch = data.sample(8, np.random.default_rng(0))
    assert batch["images"].dtype == torch.float32
    assert batch["text"].shape == (8, 512)


# The wrong encoder


def test_another_encoder_is_refused(clip: ClipEncoder, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, annotation_mode="single_stage", encoder_fingerprint=clip.fingerprint)
    SARMModel(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="pixels gives 768"):
        SARMModel.from_pretrained(tmp_path, encoder="pixels")
    other = shutil.copytree(TINY, tmp_path / "other")
    weights = torch.nn.Linear(1, 1).weight  # any change of weights is another encoder
    import safetensors.torch

    tensors = safetensors.torch.load_file(other / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name] + weights.detach().abs().max()
    safetensors.torch.save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="not the one this model learnt with"):
        SARMModel.from_pretrained(tmp_path, encoder=other)
    moved = shutil.copytree(TINY, tmp_path / "moved")  # the same weights under another name are the same encoder
    assert SARMModel.from_pretrained(tmp_path, encoder=moved).frozen.fingerprint == clip.fingerprint
    with pytest.raises(DataError, match="pixels"):
        SARMModel(dataclasses.replace(SMALL, annotation_mode="single_stage", encoder="pixels")).use_encoder(clip)


def test_an_encoder_that_cannot_be_had_says_how_to_name_one() -> None:
    model = load_model(DATA / "sarm_checkpoint" / "dual", state_stats=DATA / "dataset_v3")
    with pytest.raises(DataError, match=rf"{CLIP}.*--encoder"):
        model.predict(open_dataset(DATA / "dataset_v3")[0])


def test_processors_load_the_configs_encoder(clip: ClipEncoder) -> None:
    config = dataclasses.replace(SARMModel.from_pretrained(DATA / "sarm_checkpoint" / "dual").config, encoder=str(TINY))
    before, _ = make_reward_pre_post_processors(config)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 9, 32, 40, 3), dtype=np.uint8)
    batch = before({config.image_key: pictures, "task": "open the door"})
    np.testing.assert_allclose(batch["video_features"][1, :, 0], clip.images(pictures[1]), atol=1e-5)
    np.testing.assert_allclose(batch["text_features"][0], clip.text(["open the door"])[0], atol=1e-5)


def test_training_on_changed_copies(clip: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training episode is encoded as recorded and four times changed; a second training reads all of it from disk."""
    encode, counts = clip.encode, [0]

    def counting(prepared: Tensor) -> np.ndarray:
        counts[-1] += len(prepared)
        return encode(prepared)

    monkeypatch.setattr(clip, "encode", counting)
    episodes = dot_episodes(6)
    heard: list[str] = []
    config = dataclasses.replace(SMALL, augmentation=0.5)
    for folder, times in (("one", 1 + VARIANTS), ("two", 0)):
        counts.append(0)
        cache = FeatureCache(tmp_path / "cache", "dots", encoder=clip)
        trained = train_sarm(
            episodes, config, TrainConfig(steps=3, batch_size=8), folder=tmp_path / folder, stages={}, holdout=0.34, features=cache,
            on_stage=lambda name: heard.append(name) or (lambda done, total: None),
        )  # fmt: skip
        assert counts[-1] == times * sum(episodes[number].length for number in trained.train_episodes)
    assert heard.count("encode changed images") == 2
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("one", "two")]
    assert weights[0] == weights[1]
    plain = train_sarm(
        episodes, SMALL, TrainConfig(steps=3, batch_size=8), folder=tmp_path / "plain", stages={}, holdout=0.34,
        features=FeatureCache(tmp_path / "cache", "dots", encoder=clip),
    )  # fmt: skip
    assert plain.train_episodes == trained.train_episodes
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != weights[0]
