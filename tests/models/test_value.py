"""The value model: it falls when a failure follows, its ensemble, its signals, saving, resuming, refusals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import milepost
from milepost.cli.entry import main
from milepost.core import DataError, Episode, UnreadableError
from milepost.datasets import LeRobotDataset, open_dataset
from milepost.metrics import separation
from milepost.models.training.config import TrainConfig
from milepost.models.training.recipe import TrainResult, learn
from milepost.models.value.config import ValueConfig
from milepost.models.value.model import ValueModel
from milepost.models.value.targets import bin_centres
from milepost.models.value.train import ValueRecipe
from milepost.testing import CAMERA, check_reward_model, dot_episodes, tiny_value, write_dots
from milepost.weights.advantage import AdvantageConfig, EpisodeProgress, label_advantages

SMALL = ValueConfig(image_key=CAMERA, hidden_dim=64, image_dim=12, text_dim=8, members=3, dropout=0.0, feature_noise=0.1)


def trained(episodes: list[Episode], folder: Path, steps: int = 250, **changes: object) -> TrainResult:
    train = TrainConfig(steps=steps, batch_size=64, lr=3e-3, weight_decay=1e-2, seed=0)
    return learn(ValueRecipe(dataclasses.replace(SMALL, **changes)), episodes, train, folder=folder, holdout=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ValueModel:
    return trained(dot_episodes(40, failing=16), tmp_path_factory.mktemp("value")).model


@pytest.fixture(scope="module")
def unseen() -> list[Episode]:
    return dot_episodes(24, seed=1, failing=10)


def test_it_keeps_the_contract(model: ValueModel, unseen: list[Episode]) -> None:
    assert check_reward_model(model, unseen[0], load=ValueModel.from_pretrained) == []


def test_it_rises_to_success_and_falls_when_a_failure_follows(model: ValueModel, unseen: list[Episode]) -> None:
    """A dot that stops half-way had a value on its way, and has none where it stands still. Two of ten stop unnoticed."""
    falls, ends = [], []
    for episode in unseen:
        value = model.predict(episode).value
        if episode.success:
            assert value[-1] > 0.8
            continue
        moves = np.linalg.norm(np.diff(episode.state, axis=0), axis=1) > 0.01
        stop = int(np.flatnonzero(moves)[-1]) + 1
        falls.append(value[: stop + 1].max() - value[-1])
        ends.append(value[-1])
    assert len(falls) == 10
    assert np.sum(np.array(falls) > 0.1) >= 8
    assert np.sum(np.array(ends) < 0.1) >= 8


def test_success_and_seconds(model: ValueModel, unseen: list[Episode]) -> None:
    ends: dict[bool, list[float]] = {True: [], False: []}
    errors = []
    for episode in unseen:
        signals = model.predict(episode).main.signals
        ends[bool(episode.success)].append(float(signals["success"].values[-1]))
        if episode.success:
            left = np.arange(episode.length)[::-1] / episode.fps
            errors.append(np.nanmean(np.abs(signals["seconds"].values - left)))
    assert separation(np.array(ends[True]), np.array(ends[False])) > 0.95
    assert np.mean(errors) < 0.35  # of about 2.9 s


def test_the_worst_member_is_the_lowest(model: ValueModel, unseen: list[Episode]) -> None:
    episode, config = unseen[0], model.config
    probability = model.distribution(episode)
    assert probability.shape == (3, episode.length, 201)
    np.testing.assert_allclose(probability.sum(-1), 1, atol=1e-5)
    scale, duration = config.pace(episode.task)
    in_tasks = np.maximum(0, 1 + bin_centres(201).numpy() * scale / duration)
    progress = probability @ in_tasks
    worst = ValueModel(dataclasses.replace(config, reduction="min"))
    worst.load_state_dict(model.state_dict())
    np.testing.assert_allclose(worst.predict(episode).value, progress.min(0), atol=1e-5)
    np.testing.assert_allclose(model.predict(episode).value, progress.mean(0), atol=1e-5)
    np.testing.assert_allclose(model.predict(episode).main.signals["spread"].values, progress.std(0), atol=1e-5)
    assert (worst.predict(episode).value <= model.predict(episode).value + 1e-6).all()
    np.testing.assert_allclose(
        worst.predict(episode).main.signals["value"].values, (probability @ bin_centres(201).numpy()).min(0), atol=1e-5
    )


def test_one_member_has_no_spread() -> None:
    curve = tiny_value(members=1).predict(dot_episodes(1)[0]).main
    np.testing.assert_array_equal(curve.signals["spread"].values, 0)


def test_progress_is_value_plus_one_with_lerobots_returns() -> None:
    curve = tiny_value(normalise="lerobot").predict(dot_episodes(1)[0]).main
    assert list(curve.signals) == ["value", "spread"]
    np.testing.assert_allclose(curve.value, curve.signals["value"].values + 1, atol=1e-6)


def test_saved_and_loaded_it_says_the_same(model: ValueModel, unseen: list[Episode], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = milepost.load_model(tmp_path)
    assert isinstance(loaded, ValueModel)
    assert loaded.weights_hash() == model.weights_hash()
    np.testing.assert_array_equal(loaded.predict(unseen[0]).value, model.predict(unseen[0]).value)
    assert milepost.load_model(tmp_path, reduction="min").config.reduction == "min"


def test_online_is_offline(model: ValueModel, unseen: list[Episode]) -> None:
    episode = unseen[0]
    curve = model.predict(episode).main
    model.reset(task=episode.task, fps=episode.fps)
    steps = [model.step({CAMERA: episode.camera(CAMERA)[np.array([t])][0]}, episode.state[t]) for t in range(episode.length)]
    np.testing.assert_allclose([step.progress for step in steps], curve.value, atol=1e-5)
    np.testing.assert_allclose([step.signals["success"] for step in steps], curve.signals["success"].values, atol=1e-5)


def test_another_instruction_is_a_failure(tmp_path: Path) -> None:
    episodes = dot_episodes(40, failing=12, tasks=2)
    model = trained(episodes, tmp_path, language_perturbation_probability=0.3).model
    right = np.mean([model.predict(each).value[-1] for each in episodes if each.success])
    other = {task: task.replace(task[-1], "10"[int(task[-1])]) for task in model.config.tasks}
    wrong = np.mean([model.predict(each, task=other[each.task]).value[-1] for each in episodes if each.success])
    assert right > 0.8
    assert wrong < 0.3


def test_its_curve_makes_advantages(model: ValueModel, unseen: list[Episode]) -> None:
    progress = [EpisodeProgress(each.index, each.task, model.predict(each).value, each.success) for each in unseen]
    labels = label_advantages(progress, AdvantageConfig(horizon=5, positive=0.5)).episodes
    good, bad = ([x for x, e in zip(labels, unseen, strict=True) if bool(e.success) is outcome] for outcome in (True, False))
    assert np.concatenate([x.is_positive for x in good]).mean() > np.concatenate([x.is_positive for x in bad]).mean() + 0.3


# Bad input


def with_success(episode: Episode, success: bool | None) -> Episode:
    facts = {name: value for name, value in episode.facts.items() if name != "success"}
    return dataclasses.replace(episode, facts=facts if success is None else {**facts, "success": success})


def test_no_success_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 3 episodes to learn from succeeded"):
        trained(dot_episodes(3, failing=3), tmp_path)


def test_no_failure_is_said(tmp_path: Path) -> None:
    result = trained(dot_episodes(4), tmp_path, steps=2)
    assert len(result.doubts) == 1
    assert "none of the 4 episodes learnt from failed" in result.doubts[0]


def test_a_task_without_failures_is_named(tmp_path: Path) -> None:
    episodes = [with_success(each, each.index != 0) for each in dot_episodes(6, tasks=2)]
    (doubt,) = trained(episodes, tmp_path, steps=2).doubts
    assert "no episode of the task 'visit the places with dot 1' failed" in doubt


def test_unknown_outcomes_are_left_out_and_counted(tmp_path: Path) -> None:
    episodes = dot_episodes(6, failing=2)
    episodes = [with_success(each, None) if each.index in (1, 4) else each for each in episodes]
    result = trained(episodes, tmp_path, steps=2)
    assert result.train_episodes == (0, 2, 3, 5)
    assert [str(each) for each in result.left_out] == ["2 episodes left out, because nobody recorded whether they succeeded: 1, 4"]


def test_nothing_but_unknown_outcomes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 3 episodes has one.*record next.success"):
        trained([with_success(each, None) for each in dot_episodes(3)], tmp_path)


def test_one_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least two episodes of known outcome"):
        trained(dot_episodes(1), tmp_path)


def test_a_blank_instruction_is_refused(model: ValueModel, unseen: list[Episode]) -> None:
    with pytest.raises(UnreadableError, match="the task is blank"):
        model.predict(dataclasses.replace(unseen[0], task=" "))
    with pytest.raises(DataError, match="the task is blank"):
        model.reset(task="", fps=10.0)


def test_a_state_of_another_width_is_refused(model: ValueModel, unseen: list[Episode]) -> None:
    with pytest.raises(DataError, match="robot state of width 2, this one has 3"):
        model.predict(dataclasses.replace(unseen[0], state=np.zeros((unseen[0].length, 3), np.float32)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("bins", 2, "bins must lie in"), ("reduction", "max", "reduction must be mean or min"), ("members", 0, "members"),
        ("scales", (1.0,), "as many entries"), ("dropout", 1.0, "dropout"), ("failure_frames", -1, "failure_frames"),
        ("sigma_bins", 0.0, "sigma_bins"), ("target", 3, "target must be two_hot or hl_gauss"),
    ],
)  # fmt: skip
def test_impossible_configs_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{message}|'{field}'"):  # a type checker may be first
        ValueConfig(**{field: value})
    with pytest.raises((DataError, TypeError), match=f"{message}|'{field}'"):
        ValueConfig.from_dict({"type": "value", field: list(value) if isinstance(value, tuple) else value})


def test_a_saved_model_with_a_missing_weight_is_refused(model: ValueModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "members": 4}))
    with pytest.raises(DataError, match="do not fit its config"):
        milepost.load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "worst": 4}))
    with pytest.raises(DataError, match="unknown fields in the value config: worst"):
        milepost.load_model(tmp_path)


# The whole run


@pytest.fixture
def dots(tmp_path: Path) -> LeRobotDataset:
    write_dots(tmp_path / "dots", dot_episodes(12, failing=5))
    return open_dataset(tmp_path / "dots")


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    episodes, train = dot_episodes(6, failing=2), TrainConfig(steps=8, batch_size=8, lr=1e-3, checkpoint_s=0.0)

    def run(folder: str, stop_at: int | None = None) -> ValueModel:
        def tick(done: int, total: int) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        return learn(ValueRecipe(SMALL), episodes, train, folder=tmp_path / folder, holdout=0.0, on_stage=lambda name: tick).model

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", 5)
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    assert run("parts").weights_hash() == whole.weights_hash()


def test_train_label_advantage_on_the_command_line(
    dots: LeRobotDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    run, root = tmp_path / "run", str(dots.root)
    quick = ("--steps", "3", "--batch-size", "8", "--holdout", "0.25", "--members", "2", "--reduction", "min")
    assert main(["train", root, "--model", "value", "--output-dir", str(run), *quick]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["type"], config["members"], config["reduction"], len(config["scales"])) == ("value", 2, "min", 1)
    assert "Value of" in (run / "README.md").read_text()
    assert len(json.loads((run / "evaluation.json").read_text())["held_out"]) == 3
    assert main(["label", root, "--model", str(run), "--reduction", "mean"]) == 0
    table = milepost.read_progress(dots.root / "value_progress.parquet")
    assert set(table.main.signals) == {"value", "spread", "success", "seconds"}
    assert main(["advantage", root, "--progress", str(dots.root / "value_progress.parquet"), "--dry-run"]) == 0
    capsys.readouterr()
    assert main(["train", root, "--model", "value", "--output-dir", str(run), *quick]) == 2
    assert "there is a trained model" in capsys.readouterr().err


def test_options_of_another_model_are_refused(dots: LeRobotDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (("--model", "sarm", "--members", "2"), "--members means nothing to a model of type sarm"),
        (("--model", "value", "--augmentation", "0.5"), "--augmentation means nothing to a value model"),
        (("--model", "value", "--annotation-mode", "dual"), "--annotation-mode means nothing to a value model"),
        (("--model", "value", "--preset", "paper"), "a value model has no preset 'paper'"),
        (("--model", "nothing"), "milepost train can train robometer, roboreward, sarm, success and value"),
    ):
        assert main(["train", str(dots.root), "--output-dir", str(tmp_path / "run"), *options]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_in_python(dots: LeRobotDataset, tmp_path: Path) -> None:
    result = milepost.train(dots, tmp_path / "run", model="value", steps=2, batch_size=4, keep_features=False, members=1)
    assert isinstance(result.model, ValueModel)
    assert result.fit_result.steps == 2


def test_training_improves_on_the_held_back_frames(tmp_path: Path) -> None:
    train = TrainConfig(steps=60, batch_size=64, lr=3e-3, validation=0.25, seed=0)
    result = learn(ValueRecipe(SMALL), dot_episodes(24, failing=8), train, folder=tmp_path, holdout=0.0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert min(losses) < 0.8 * losses[0]
    assert result.fit_result.scores["validation_loss"] == pytest.approx(min(losses))
    assert torch.isfinite(result.model.feature_std).all()
