"""SARM: causal, masked, labels from the same index as pixels, every draw per sample, and saved whole."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from milepost.core.edits import reordered
from milepost.core.errors import DataError, DataWarning
from milepost.core.types import ArrayFrames, Episode
from milepost.encoders.pixels import PixelEncoder, embed_text, reduce_images
from milepost.models.instructions import wrong_instruction
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import choose, training_set, with_statistics
from milepost.models.sarm.samples import TrainingSet, label_episode, pad_state
from milepost.testing import CAMERA, NAMES, dot_episodes, reduced_dots, tiny_sarm


def training_data(config: SARMConfig, count: int = 6, failing: int = 0, tasks: int = 1) -> TrainingSet:
    episodes = dot_episodes(count, failing=failing, tasks=tasks)
    config = with_statistics(config, episodes, {})
    return training_set(SARMModel(config), episodes, reduced_dots(episodes), np.random.default_rng(0))


def base(**changes: object) -> SARMConfig:
    return dataclasses.replace(tiny_sarm().config, **changes)


def shortened(episode: Episode, length: int) -> Episode:
    return dataclasses.replace(
        episode,
        length=length,
        state=episode.state[:length],
        cameras={CAMERA: ArrayFrames(episode.cameras[CAMERA][np.arange(length)])},
        segments={},
        columns={},
    )


def test_the_future_changes_nothing() -> None:
    """Cut the episode short: every frame that is left has the same progress."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    whole = model.predict(episode)
    part = model.predict(shortened(episode, 13))
    np.testing.assert_allclose(part.value, whole.value[:13], atol=1e-5)
    assert part.stage is not None
    assert whole.stage is not None
    np.testing.assert_allclose(part.stage, whole.stage[:13], atol=1e-5)


def test_padding_is_invisible() -> None:
    """What stands in a masked position changes neither output nor loss."""
    model = tiny_sarm()
    data = training_data(model.config)
    batch = data.sample(16, np.random.default_rng(0))
    assert not batch["valid"].all()
    other = {k: v.clone() for k, v in batch.items()}
    hidden = ~batch["valid"]
    other["images"][hidden] += 7.0
    other["state"][hidden] -= 3.0
    loss, _ = model.loss(batch, torch.Generator().manual_seed(0))
    again, _ = model.loss(other, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(again.item(), abs=1e-5)
    assert (batch["sparse_stage"][hidden] == -1).all()


def test_labels_and_pixels_come_from_the_same_frame() -> None:
    """The state of the dot world tells the stage exactly, so every gathered label can be checked against its own state, rewind too."""
    config = base(rewind_probability=1.0, language_perturbation_probability=0.0)
    data = training_data(config)
    batch = data.sample(64, np.random.default_rng(1))
    table = {
        tuple(np.round(state, 5)): (stage, tau)
        for episode in data.episodes
        for state, stage, tau in zip(episode.state, episode.stage["sparse"], episode.tau["sparse"], strict=True)
    }
    checked = 0
    for state, valid, stage, tau in zip(batch["state"], batch["valid"], batch["sparse_stage"], batch["sparse_tau"], strict=True):
        for position in np.flatnonzero(valid.numpy()):
            true_stage, true_tau = table[tuple(np.round(state[position].numpy(), 5))]
            assert stage[position] == true_stage
            assert tau[position] == pytest.approx(true_tau)
            checked += position > config.n_obs_steps
    assert checked > 40


def test_draws_are_per_sample() -> None:
    config = base(rewind_probability=0.5, language_perturbation_probability=0.5)
    batch = training_data(config, tasks=2).sample(64, np.random.default_rng(0))
    rewound = batch["valid"][:, config.n_obs_steps + 1 :].any(1)
    assert 0 < rewound.sum() < 64
    told = {tuple(text.tolist()) for text in batch["text"]}
    assert len(told) > 2
    wrong = (batch["sparse_tau"].nan_to_num() == 0).all(1) & (batch["sparse_stage"] <= 0).all(1)
    assert 0 < wrong.sum() < 64


def test_every_sample_has_its_own_instruction() -> None:
    config = base(language_perturbation_probability=0.0)
    data = training_data(config, tasks=3)
    batch = data.sample(32, np.random.default_rng(0))
    texts = {task: tuple(embed_text(task, config.text_dim).tolist()) for task in data.tasks}
    assert {tuple(text.tolist()) for text in batch["text"]} == set(texts.values())


def test_wrong_instructions_are_wrong() -> None:
    rng = np.random.default_rng(0)
    assert all(wrong_instruction("a", ("a", "b"), rng) != "a" for _ in range(50))


def test_failed_episodes_teach_stages_not_tau() -> None:
    config = base(unfinished="mask")
    failed = dot_episodes(3, failing=3)[0]
    labelled = label_episode(failed, np.zeros((failed.length, 1, config.image_dim), np.float32), config)
    assert (labelled.stage["sparse"] >= 0).all()
    assert np.isnan(labelled.tau["sparse"][-1])
    zero = label_episode(failed, np.zeros((failed.length, 1, config.image_dim), np.float32), base(unfinished="zero"))
    assert zero.tau["sparse"][-1] == 0


def test_choosing_counts_what_it_leaves_out() -> None:
    episodes = dot_episodes(6, failing=2)
    kept, left = choose(episodes, SARMConfig(annotation_mode="single_stage"))
    assert [e.index for e in kept] == [0, 1, 2, 3]
    assert left[0].episodes == (4, 5)
    bare = [dataclasses.replace(e, segments={}) if e.index == 2 else e for e in episodes]
    kept, left = choose(bare, SARMConfig(annotation_mode="sparse_only"))
    assert left[0].episodes == (2,)
    with pytest.raises(
        DataError, match=r"finds no episode.*`milepost annotate DATASET` makes annotations, and annotation_mode='single_stage'"
    ):
        choose([dataclasses.replace(e, segments={}) for e in episodes], SARMConfig(annotation_mode="dense_only"))


def test_one_frame_is_refused_in_training() -> None:
    with pytest.raises(DataError, match="one frame"):
        choose([shortened(dot_episodes(1)[0], 1)], SARMConfig())


def test_saved_whole(tmp_path: Path) -> None:
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    model.save_pretrained(tmp_path)
    again = SARMModel.from_pretrained(tmp_path)
    assert again.config == model.config
    np.testing.assert_array_equal(again.predict(episode).value, model.predict(episode).value)


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_config_of_earlier_versions_is_read(tmp_path: Path) -> None:
    """Which had two more fields, nearly always at their defaults."""
    model = tiny_sarm()
    model.save_pretrained(tmp_path)
    edit_config(tmp_path, loss="masked", samples="own")
    assert SARMModel.from_pretrained(tmp_path).config == model.config


def test_statistics_are_the_models_own() -> None:
    """Scaling another dataset's state must change the answer: its own statistics are never used."""
    model, episode = tiny_sarm(), dot_episodes(1)[0]
    scaled = dataclasses.replace(episode, state=episode.state * 2)
    assert np.abs(model.predict(scaled).value - model.predict(episode).value).max() > 1e-4


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text('{"type": "sarm", "colour": 3}'), "unknown fields"),
        (lambda f: edit_config(f, samples="lerobot"), r'^samples: "lerobot" in the SARM config was removed: .*; train the model again'),
        (lambda f: edit_config(f, loss="lerobot"), r'^loss: "lerobot" in the SARM config was removed'),
        (lambda f: edit_config(f, loss="other"), "unknown fields.*: loss"),
    ],
)
def test_broken_models_are_refused(tmp_path: Path, damage: object, words: str) -> None:
    tiny_sarm().save_pretrained(tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words):
        SARMModel.from_pretrained(tmp_path)


def test_another_state_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width 2"):
        pad_state(np.zeros((4, 3), np.float32), tiny_sarm().config)


def test_decoding_by_expectation_or_argmax() -> None:
    episode = dot_episodes(1)[0]
    expected, likeliest = tiny_sarm().predict(episode), tiny_sarm(decode="argmax").predict(episode)
    assert expected.stage is not None
    np.testing.assert_allclose(expected.stage, likeliest.stage, atol=1e-6)
    assert not np.allclose(expected.value, likeliest.value)


@pytest.mark.parametrize("mode", ["single_stage", "sparse_only", "dense_only", "dual"])
def test_every_mode_has_its_heads(mode: str) -> None:
    config = base(annotation_mode=mode, dense_subtask_names=("a", "b"), dense_temporal_proportions=(0.5, 0.5))
    progress = SARMModel(config).predict(dot_episodes(1)[0])
    widths = {"single_stage": (1,), "sparse_only": (3,), "dense_only": (1, 2), "dual": (3, 2)}[mode]
    curves = progress.heads.values()
    assert tuple(curve.stage.shape[1] for curve in curves) == widths


def test_heads_not_asked_for_are_not_computed() -> None:
    model = SARMModel(base(annotation_mode="dual", dense_subtask_names=("a", "b"), dense_temporal_proportions=(0.5, 0.5)))
    episode = dot_episodes(1)[0]
    both, sparse = model.predict(episode), model.predict(episode, heads=["sparse"])
    assert list(sparse.heads) == ["sparse"]
    np.testing.assert_array_equal(sparse.value, both.value)


def test_reduced_images_are_block_means() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    means = images.reshape(2, 16, 2, 16, 3, 3).astype(float).mean(axis=(2, 4))
    assert np.abs(reduce_images(images).reshape(2, 3, 16, 16).transpose(0, 2, 3, 1) - means).max() <= 0.51


def test_features_have_unit_variance() -> None:
    reduced = np.concatenate(reduced_dots(dot_episodes(8)))
    encoder = PixelEncoder(1, 8)
    encoder.fit(reduced)
    np.testing.assert_allclose(encoder.project(reduced)[:, 0].std(axis=0), 1, atol=0.02)


def test_text_depends_on_words_alone() -> None:
    np.testing.assert_array_equal(embed_text("Open the drawer.", 16), embed_text("open  the drawer", 16))
    assert np.abs(embed_text("open the drawer", 16) - embed_text("close the drawer", 16)).max() > 0.1
    assert not embed_text("", 16).any()


@pytest.mark.parametrize(
    "bad",
    [
        {"hidden_dim": 10},
        {"n_obs_steps": 0},
        {"max_rewind_steps": 9},
        {"dropout": 1.5},
        {"encoder": ""},
        {"frame_gap": 0},
        {"window": "centred", "n_obs_steps": 7},
    ],
)
def test_bad_settings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError):
        SARMConfig(**{"hidden_dim": 32, "num_heads": 4, **bad})


def test_config_survives_json() -> None:
    config = tiny_sarm().config
    assert SARMConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["type"] == "sarm"
    assert config.heads["sparse"].names == NAMES


@pytest.mark.parametrize("attention", ["time", "lerobot"])
@pytest.mark.parametrize("decode", ["expected", "argmax"])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_reading_one_place_is_reading_all_and_taking_it(attention: str, decode: str, at: int) -> None:
    """Tokens the place does not depend on are not computed; the two heads of "dual" share what they can."""
    torch.manual_seed(0)
    names = {"dense_subtask_names": ("a", "b"), "dense_temporal_proportions": (0.5, 0.5)}
    model = SARMModel(base(annotation_mode="dual", attention=attention, decode=decode, **names)).eval()
    length = model.config.width
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        valid = torch.ones(3, length, dtype=torch.bool)
        valid[1, 1:3], valid[2, -1] = False, False
        images = torch.randn(3, length, len(model.config.cameras), model.config.image_dim)
        inputs = images, torch.randn(3, model.config.text_dim), torch.randn(3, length, model.config.max_state_dim), valid
        everywhere, here = model.read(*inputs), model.read(*inputs, at=at)
        alone = model.read(*inputs, at=at, heads=["dense"])
    assert everywhere.keys() == here.keys()
    for name, values in everywhere.items():
        torch.testing.assert_close(here[name], values[:, at], atol=2e-6, rtol=0)
    torch.testing.assert_close(alone["dense_progress"], here["dense_progress"], atol=2e-6, rtol=0)


def test_a_state_unlike_all_that_was_learnt_is_said(recwarn: pytest.WarningsRecorder) -> None:
    """A resting arm elsewhere than in training silenced a model of real data without a word; moments far away are no reason to warn."""
    episode = dot_episodes(1)[0]
    model = tiny_sarm()
    model.predict(episode)
    state = episode.state.copy()
    state[: episode.length // 3] += 1000
    model.predict(dataclasses.replace(episode, state=state))
    assert not recwarn.list
    resting = tiny_sarm(state_mean=(15.0, 100.0), state_std=(9.0, 0.01))
    words = "episode 0: the robot's state is unlike what this model learnt from: channel 1 lies 6 or more standard deviations away"
    with pytest.warns(DataWarning, match=words):
        resting.predict(episode)
    resting.predict(reordered(episode, np.zeros(episode.length, dtype=np.int64)))  # an audit's copy: said once is enough
    assert not recwarn.list
