"""The plugin for LeRobot, without LeRobot: what it registers, guards, refuses and computes. `make lerobot` runs it in LeRobot itself."""

import dataclasses
import importlib
import itertools
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import lerobot_stand_in
import milepost
from lerobot_stand_in import SampleWeightingConfig
from milepost import DataError, SampleWeights, WeightedSampler, open_dataset, weighted_mean
from milepost.models import RowTraining
from milepost.testing import dot_episodes, write_dots

MINE = "lerobot_policy_milepost"
TINY = {
    "encoder": "pixels", "image_dim": 4, "text_dim": 4, "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "gap_s": 0.2, "n_obs_steps": 4,
    "max_rewind_steps": 2, "max_state_dim": 4, "keep_features": False,
}  # fmt: skip


@pytest.fixture
def plugin(monkeypatch, tmp_path):
    """Imports the plugin over the stand-in, and gives its modules by name."""
    lerobot_stand_in.install(monkeypatch, tmp_path / "site")
    importlib.import_module(MINE)
    yield lambda name: importlib.import_module(f"{MINE}.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == MINE]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def dots(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("plugin") / "dots"
    write_dots(root, dot_episodes(5, failing=1))
    return root


def weights_file(path: Path, dataset, *, rows: int | None = None, fingerprint: str | None = None) -> Path:
    count = dataset.total_frames if rows is None else rows
    columns = {"index": np.arange(count), "weight": (np.arange(count) % 3 / 2).astype(np.float32)}
    metadata = {} if fingerprint is None else {"milepost.dataset": "dots", "milepost.dataset_fingerprint": fingerprint}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


class PerSample(torch.nn.Module):
    name = "smolvla"

    def forward(self, batch, reduction="mean"):
        loss = batch["loss"]
        return (loss if reduction == "none" else loss.mean()), {}


class Act(torch.nn.Module):
    name = "act"

    def forward(self, batch):
        return batch["loss"].mean(), {}


def test_the_plugin_registers_two_reward_models_and_a_type_of_weights(plugin):
    assert set(lerobot_stand_in.RewardModelConfig.known) == {"milepost_sarm", "milepost_topreward"}
    make = sys.modules["lerobot.utils.sample_weighting"].make_sample_weighter
    assert isinstance(make, plugin("weighting").MakeWeighter)
    other = SampleWeightingConfig("rabc")
    assert make(other, None, "cpu") == ("LeRobot's", other)
    assert make(None, None, "cpu") == ("LeRobot's", None)


def test_the_configs_have_every_field_of_mileposts(plugin):
    for name, theirs, absent, other in (
        ("configuration_milepost_sarm", milepost.SARMConfig, {"device", "pretrained_path"}, {"image_key"}),
        ("configuration_milepost_topreward", milepost.TOPRewardConfig, None, {"success_threshold"}),
    ):
        module = plugin(name)
        own = next(each for each in vars(module).values() if getattr(each, "__name__", "").startswith("Milepost"))
        mine = {field.name: field.default for field in dataclasses.fields(own)}
        for field in dataclasses.fields(theirs):
            if field.name not in (absent or module.ELSEWHERE):
                assert field.name in other or mine[field.name] == field.default


@pytest.mark.parametrize(
    ("version", "words"),
    [(None, "it is not installed: pip install lerobot"), ("0.5.2", "this is 0.5.2: pip install --upgrade"), ("main", "cannot read")],
)
def test_another_lerobot_is_refused_in_a_sentence(monkeypatch, tmp_path, version, words):
    lerobot_stand_in.install(monkeypatch, tmp_path / "site", version=version)
    with pytest.raises(ImportError, match=f"needs LeRobot 0.6.1 or newer.*{words}"):
        importlib.import_module(MINE)


def test_a_changed_factory_is_left_alone_and_named(monkeypatch, tmp_path, caplog):
    lerobot_stand_in.install(monkeypatch, tmp_path / "site")
    there = sys.modules["lerobot.utils.sample_weighting"]
    monkeypatch.setattr(there, "make_sample_weighter", lambda config, model: None)
    importlib.import_module(MINE)
    assert there.make_sample_weighter.__name__ == "<lambda>"
    assert "make_sample_weighter takes (config, model) and not (config, policy, device," in caplog.text


@pytest.mark.parametrize(
    ("config", "policy", "words"),
    [
        ({"kappa": 0.2}, PerSample(), "kappa does nothing with type=milepost.*milepost weigh"),
        ({"extra_params": {"fallback": 1}}, PerSample(), "has 'fallback', and type=milepost knows 'by' alone"),
        ({"extra_params": {"by": "luck"}}, PerSample(), "should be 'loss' or 'sampler', got 'luck'"),
        ({"extra_params": {"by": "loss"}}, Act(), "the policy 'act' gives no loss for each sample.*use by='sampler'"),
        ({}, SimpleNamespace(name="mystery"), "the policy 'mystery' is unknown: it has no forward"),
    ],
)
def test_what_cannot_be_done_is_refused(plugin, config, policy, words):
    with pytest.raises(DataError, match=words):
        plugin("weighting").required_way(SampleWeightingConfig("milepost", **config), policy)


def test_the_way_is_the_policys(plugin):
    way, config = plugin("weighting").required_way, SampleWeightingConfig("milepost")
    assert (way(config, PerSample()), way(config, Act())) == ("loss", "sampler")
    wrapped = torch.nn.Module()
    wrapped.module = PerSample()  # as torch wraps it for several processes
    assert way(config, wrapped) == "loss"
    assert way(SampleWeightingConfig("milepost", extra_params={"by": "sampler"}), PerSample()) == "sampler"


def test_weights_of_another_dataset_are_refused(plugin, dots, tmp_path):
    dataset, load = open_dataset(dots), plugin("weighting").load_weights
    own = weights_file(tmp_path / "own.parquet", dataset, fingerprint=dataset.fingerprint)
    assert len(load(own, dataset)) == dataset.total_frames
    assert len(load(weights_file(tmp_path / "plain.parquet", dataset), dataset)) == dataset.total_frames
    with pytest.raises(DataError, match="made for another dataset"):
        load(weights_file(tmp_path / "other.parquet", dataset, fingerprint="0" * 16), dataset)
    with pytest.raises(DataError, match=f"weights for 7 of the {dataset.total_frames} frames of dots: it was made for another"):
        load(weights_file(tmp_path / "short.parquet", dataset, rows=7), dataset)
    with pytest.raises(DataError, match="made for another dataset"):
        load(weights_file(tmp_path / "long.parquet", dataset, rows=dataset.total_frames + 1), dataset)


def test_weights_that_are_all_zero_are_refused_before_training(plugin, dots, tmp_path):
    path = tmp_path / "zero.parquet"
    count = open_dataset(dots).total_frames
    pq.write_table(pa.table({"index": np.arange(count), "weight": np.zeros(count, np.float32)}), path)
    with pytest.raises(DataError, match=r"zero.parquet has no weight above 0, so nothing would be learnt: make it again by milepost weigh"):
        plugin("weighting").load_weights(path, open_dataset(dots))


def test_a_misspelt_type_of_weights_is_answered_with_all_types(plugin, monkeypatch):
    def lerobots(config, *_, **__):
        raise ValueError(f"Unknown sample weighting type: '{config.type}'. Supported types: 'rabc', 'uniform'")

    make = plugin("weighting").MakeWeighter(lerobots)
    with pytest.raises(ValueError, match=r"types: 'rabc', 'uniform', and 'milepost' of the plugin; did you mean milepost\?"):
        make(SampleWeightingConfig("milepots"), None, "cpu")


def test_an_impossible_option_of_a_reward_model_is_named_in_the_log(plugin, caplog):
    """LeRobot's parser says only that the class could not be made."""
    with pytest.raises(ValueError, match="annotation_mode must be"):
        plugin("configuration_milepost_sarm").MilepostSARMConfig(annotation_mode="sparse")
    words = "--reward_model.annotation_mode must be single_stage or sparse_only or dense_only or dual, got 'sparse'"
    assert words in caplog.text
    with pytest.raises(ValueError, match="fps should be above 0"):
        plugin("configuration_milepost_topreward").MilepostTOPRewardConfig(fps=0.0)
    assert "--reward_model.fps should be above 0" in caplog.text


def test_a_part_of_the_dataset_may_be_weighed(plugin, dots, tmp_path, caplog):
    dataset = open_dataset(dots)
    part = weights_file(tmp_path / "part.parquet", dataset, rows=7, fingerprint=dataset.fingerprint)
    assert len(plugin("weighting").load_weights(part, dataset)) == 7
    assert f"no weight for {dataset.total_frames - 7} frames, which weigh 1" in caplog.text


def test_a_weights_file_is_found_beside_the_dataset(plugin, dots, tmp_path, monkeypatch):
    dataset, path_of = open_dataset(dots), plugin("weighting").path_of
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no weights file .*weights.parquet: make one with milepost weigh"):
        path_of(None, dataset)
    beside = weights_file(dots / "weights.parquet", dataset)
    assert path_of(None, dataset) == path_of("weights.parquet", dataset) == beside
    here = weights_file(tmp_path / "weights.parquet", dataset)
    assert path_of("weights.parquet", dataset).resolve() == here
    beside.unlink()


def lerobots_loss(policy, weighter, batch):
    """Returns the loss as LeRobot's loop computes it from losses and weights of samples: their weighted mean."""
    weight, _ = weighter.compute_batch_weights(batch)
    loss, _ = policy.forward(batch, reduction="none")
    return (loss * weight).sum() / (weight.sum() + 1e-6)


def test_a_weighted_loss_is_the_weighted_mean(plugin):
    policy, weights = PerSample(), SampleWeights(np.arange(6), np.linspace(0, 1, 6, dtype=np.float32))
    weighter = plugin("weighting").MilepostWeighter(weights, "cpu", policy)
    batch = {"index": torch.tensor([5, 0, 3, 3]), "loss": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    assert lerobots_loss(policy, weighter, batch) == weighted_mean(batch["loss"], weights[batch["index"]])
    assert weighter.compute_batch_weights(batch)[1] == pytest.approx({"mean_weight": 0.55, "num_zero_weight": 1, "num_full_weight": 1})
    assert policy.forward(batch)[0] == 2.5
    with pytest.raises(DataError, match="no 'index'"):
        weighter.compute_batch_weights({"loss": batch["loss"]})


def test_a_policy_that_gives_another_loss_is_refused(plugin):
    policy, weights = PerSample(), SampleWeights(np.arange(6), np.ones(6, dtype=np.float32))
    plugin("weighting").MilepostWeighter(weights, "cpu", policy)
    with pytest.raises(DataError, match=r"'smolvla' gave losses \(\) for 2 samples"):
        policy.forward({"index": torch.tensor([0, 1]), "loss": torch.tensor(1.0)}, reduction="none")


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(plugin, monkeypatch):
    weighting, weights = plugin("weighting"), SampleWeights(np.arange(6), np.array([0, 0.1, 0.3, 1, 1, 0.7], np.float32))
    index, loss = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.arange(6.0).view(2, 3)
    whole = weights[index].sum()
    parts = []
    for rank in range(2):
        group = SimpleNamespace(world_size=2, all_reduce=lambda own: whole.clone())
        monkeypatch.setattr(weighting, "current_process_group", lambda group=group: group)
        policy = PerSample()
        batch = {"index": index[rank], "loss": loss[rank]}
        parts.append(lerobots_loss(policy, weighting.MilepostWeighter(weights, "cpu", policy), batch))
    assert torch.stack(parts).mean() == pytest.approx(weighted_mean(loss.flatten(), weights[index.flatten()]).item(), rel=1e-6)


def test_frames_are_drawn_by_weight_where_a_policy_gives_no_losses(plugin, dots, tmp_path):
    dataset, policy = open_dataset(dots), Act()
    path = weights_file(tmp_path / "weights.parquet", dataset, fingerprint=dataset.fingerprint)
    script = sys.modules["lerobot.scripts.lerobot_train"]
    make = sys.modules["lerobot.utils.sample_weighting"].make_sample_weighter
    assert make(SampleWeightingConfig("milepost", str(path)), policy, "cpu", dataset_root=str(dots)) is None
    total = dataset.total_frames
    sampler = script.EpisodeAwareSampler([0], [total], seed=3)
    assert script.EpisodeAwareSampler is lerobot_stand_in.EpisodeAwareSampler
    expected = WeightedSampler(SampleWeights.load(path)[np.arange(total)], seed=3)
    first, second = list(expected), list(expected)
    assert (list(sampler), list(sampler)) == (first, second)
    sampler.load_state_dict({"epoch": 1, "start_index": 5})
    assert list(sampler) == second[5:]
    assert policy.forward({"loss": torch.ones(2)})[0] == 1
    assert not set(first) & set(np.flatnonzero(np.arange(total) % 3 == 0).tolist())


def test_a_part_of_the_episodes_is_drawn_by_its_own_weights(plugin):
    weights = SampleWeights(np.arange(10), np.array([1] * 5 + [0, 1, 1, 0, 0], np.float32))
    relative = {row: row - 5 for row in range(5, 10)}
    sampler = plugin("sampling").WeightedEpisodeAwareSampler(weights, [5], [10], absolute_to_relative_idx=relative)
    assert set(itertools.islice(sampler, 200)) <= {1, 2}


def test_a_streamed_dataset_is_refused_at_the_first_step(plugin):
    policy, script = Act(), sys.modules["lerobot.scripts.lerobot_train"]
    plugin("sampling").draw_by_weight(SampleWeights(np.arange(4), np.ones(4, np.float32)), policy)
    with pytest.raises(DataError, match="a streamed dataset has no sampler"):
        policy.forward({"loss": torch.ones(2)})
    assert script.EpisodeAwareSampler is lerobot_stand_in.EpisodeAwareSampler


def test_a_training_script_without_the_sampler_is_refused(plugin, monkeypatch):
    weights = SampleWeights(np.arange(4), np.ones(4, np.float32))
    monkeypatch.setitem(sys.modules, "lerobot.scripts.lerobot_train", ModuleType("lerobot.scripts.lerobot_train"))
    with pytest.raises(ImportError, match=r"its training script makes no EpisodeAwareSampler; install LeRobot 0.6.1"):
        plugin("sampling").draw_by_weight(weights, Act())


# milepost_sarm


def make_sarm(plugin, root, **changes):
    torch.manual_seed(0)
    config = plugin("configuration_milepost_sarm").MilepostSARMConfig(**{**TINY, "dropout": 0.0, **changes})
    return plugin("modeling_milepost_sarm").MilepostSARMRewardModel(
        config, dataset_meta=None if root is None else SimpleNamespace(root=root)
    )


def test_milepost_sarm_learns_is_saved_and_loaded_by_both(plugin, dots, tmp_path):
    model = make_sarm(plugin, dots)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss, numbers = model.train()({"index": torch.arange(step, step + 60) % 100})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert set(numbers) == {"sparse_stage_loss", "sparse_tau_loss"}
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    model.save_pretrained(tmp_path / "model")
    loaded = milepost.load_model(tmp_path / "model")
    assert loaded.config == model.config.sarm
    assert loaded.weights_hash() == model.sarm.weights_hash()
    again = make_sarm(plugin, None, **{**dataclasses.asdict(model.config), "device": "cpu"})
    again._load_as_safetensor(again, tmp_path / "model" / "model.safetensors", "cpu", False)
    assert again.sarm.weights_hash() == loaded.weights_hash()
    assert model.config.trained_steps == 30


def test_compute_reward_is_mileposts_curve(plugin, dots):
    model, dataset = make_sarm(plugin, dots, window="causal"), open_dataset(dots)
    model.windows()  # the built-in encoder is fitted
    episode = dataset[1]
    curve = model.sarm.predict(episode).value
    offsets = model.config.window_indices(dataset.fps)
    at = np.array([0, 1, 5, episode.length - 1])
    frames = np.clip(at[:, None] + np.array(offsets), 0, episode.length - 1)
    images = np.stack([episode.camera(dataset.cameras[0])[each] for each in frames])
    transition = {
        "observation": {
            dataset.cameras[0]: torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255,
            "observation.state": torch.from_numpy(episode.state[frames]),
        },
        "complementary_data": {
            "task": [episode.task] * len(at), f"{dataset.cameras[0]}_is_pad": torch.from_numpy(at[:, None] + np.array(offsets) < 0),
        },
    }  # fmt: skip
    before, _ = plugin("processor_milepost_sarm").make_milepost_sarm_pre_post_processors(model.config)
    batch = before.steps[1](transition)["observation"]
    np.testing.assert_allclose(model.compute_reward(batch).numpy(), curve[at], atol=1e-6)


def test_single_images_pass_the_processor_unencoded(plugin, dots):
    model = make_sarm(plugin, dots)
    step = plugin("processor_milepost_sarm").MilepostSARMEncoderStep(model.config.sarm.to_dict())
    camera = model.config.image_key
    left = step({"observation": {camera: torch.zeros(2, 3, 8, 8), "observation.state": torch.zeros(2, 2)}})["observation"]
    assert set(left) == {"observation.state"}
    with pytest.raises(DataError, match="needs 5 frames a window"):
        step({"observation": {camera: torch.zeros(2, 3, 3, 8, 8)}})


def test_what_milepost_sarm_cannot_use_is_said(plugin, dots, caplog):
    model = make_sarm(plugin, dots)
    assert "1 episode left out, failed" in caplog.text
    with pytest.raises(DataError, match=r"batch\['index'\] numbers, and this batch has none"):
        model({"observation.state": torch.zeros(2, 2)})
    with pytest.raises(DataError, match="no dataset to learn from"):
        make_sarm(plugin, None)({"index": torch.zeros(2, dtype=torch.int64)})
    with pytest.raises(DataError, match="not of this model: 1 parameters"):
        model.load_weights(dict(list(model.sarm.state_dict().items())[1:]))


def test_validation_draws_nothing_at_random(plugin, dots):
    model = make_sarm(plugin, dots).eval()
    batch = {"index": torch.arange(20)}
    assert model(batch)[0].item() == model(batch)[0].item() > 0
    assert model.config.trained_steps == 0


def test_rows_that_teach_nothing_have_no_labels(dots):
    dataset = open_dataset(dots)
    config = milepost.SARMConfig(**{name: value for name, value in TINY.items() if name != "keep_features"}, image_key="")
    training = RowTraining.plan(dataset, config)
    failed = next(episode for episode in dataset if episode.success is False)
    assert failed.index not in [episode.index for episode in training.episodes]
    model = milepost.SARMModel(training.config)
    windows = training.open(model, model.feature_cache)
    rows = np.array([0, failed.row, dataset.total_frames + 5])
    batch = windows.plain(rows)
    assert (batch["sparse_stage"][0] >= 0).any()
    assert (batch["sparse_stage"][1:] == -1).all()
    assert batch["sparse_tau"][1:].isnan().all()
    with pytest.raises(DataError, match="from 0 on"):
        windows.plain(np.array([-1]))


# milepost_topreward


def test_milepost_topreward_is_saved_as_a_config_that_both_read(plugin, tmp_path):
    config = plugin("configuration_milepost_topreward").MilepostTOPRewardConfig(vlm_name="some/vlm", fps=1.0)
    model = plugin("modeling_milepost_topreward").MilepostTOPRewardRewardModel(config)
    model.save_pretrained(tmp_path / "model")
    assert milepost.load_model(tmp_path / "model").config == dataclasses.replace(config.topreward, device="cpu")
    before, _ = plugin("processor_milepost_topreward").make_milepost_topreward_pre_post_processors(config)
    clips = {"observation": {"observation.images.top": torch.zeros(1, 2, 3, 8, 8)}, "complementary_data": {"task": ["open"]}}
    out = before.steps[0](clips)["observation"]
    assert out["observation.topreward.frames"][0].shape == (2, 8, 8, 3)
    assert out["observation.topreward.task"] == ["open"]
    with pytest.raises(ValueError, match="fps should be above 0"):
        plugin("configuration_milepost_topreward").MilepostTOPRewardConfig(fps=0.0)
