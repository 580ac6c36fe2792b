"""The success head: it knows the end of a success, online as offline, its labels, its threshold, resuming, refusals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import milepost
from milepost.cli.entry import main
from milepost.core import SUCCESS, DataError, Episode, UnreadableError, quiet_stage
from milepost.datasets import LeRobotDataset, open_dataset
from milepost.encoders import FeatureCache, load_encoder
from milepost.metrics import Threshold, detect_success, final, separation
from milepost.models.success.config import SuccessConfig
from milepost.models.success.model import SuccessModel
from milepost.models.success.targets import frame_labels, frames_too_early, label_source, outcome_labels
from milepost.models.success.train import SuccessRecipe, _doubt_of, _Scores
from milepost.models.training.config import TrainConfig
from milepost.models.training.recipe import TrainResult, learn
from milepost.testing import CAMERA, check_reward_model, dot_episodes, tiny_clip, tiny_success, write_dots

SMALL = SuccessConfig(image_key=CAMERA, hidden_dim=64, image_dim=12, text_dim=8, dropout=0.0, feature_noise=0.1)


def trained(episodes: list[Episode], folder: Path, steps: int = 200, holdout: float = 0.0, **changes: object) -> TrainResult:
    train = TrainConfig(steps=steps, batch_size=64, lr=3e-3, weight_decay=1e-2, seed=0)
    return learn(SuccessRecipe(dataclasses.replace(SMALL, **changes)), episodes, train, folder=folder, holdout=holdout)


def with_column(episode: Episode, first: int | None) -> Episode:
    """Returns the episode with next.success true from this frame on, never if None; the fact stays what it was."""
    column = np.arange(episode.length) >= (episode.length if first is None else first)
    return dataclasses.replace(episode, columns={**episode.columns, SUCCESS: column})


def with_success(episode: Episode, success: bool | None) -> Episode:
    facts = {name: value for name, value in episode.facts.items() if name != "success"}
    return dataclasses.replace(episode, facts=facts if success is None else {**facts, "success": success})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SuccessModel:
    return trained(dot_episodes(40, failing=16), tmp_path_factory.mktemp("success")).model


@pytest.fixture(scope="module")
def unseen() -> list[Episode]:
    return dot_episodes(24, seed=1, failing=10)


def test_it_keeps_the_contract(model: SuccessModel, unseen: list[Episode]) -> None:
    assert check_reward_model(model, unseen[0], load=SuccessModel.from_pretrained) == []


def test_it_knows_the_end_of_a_success(model: SuccessModel, unseen: list[Episode]) -> None:
    ends: dict[bool, list[float]] = {True: [], False: []}
    for episode in unseen:
        value = model.predict(episode).value
        ends[bool(episode.success)].append(final(value))
        assert value[: episode.length // 2].max() < 0.5
    assert separation(np.array(ends[True]), np.array(ends[False])) >= 0.97


def test_the_curve_is_the_probability_and_detected_follows_its_rule(model: SuccessModel, unseen: list[Episode]) -> None:
    curve = model.predict(unseen[0]).main
    assert curve.score == "success"
    np.testing.assert_array_equal(curve.signals["success"].values, curve.value)
    np.testing.assert_array_equal(curve.signals["detected"].values, detect_success(curve.value, model.config.rule))
    assert curve.signals["detected"].values[-1] == 1


def test_training_and_use_see_the_same_window(model: SuccessModel, unseen: list[Episode]) -> None:
    """What the loss reads in training, what a recorded episode gives and what the moving robot gives are one number, frame by frame."""
    episode, config = unseen[0], model.config
    cache = FeatureCache(None, "", encoder=model.frozen, half=False)
    samples = SuccessRecipe(config).validation_set(model, [episode], [cache.features(episode, config.cameras)])
    batch = samples.plain(episode.length)
    at_training = model.batch_logits(batch)[..., 0].sigmoid().mean(0).detach().numpy()
    looking_back = model.predict(episode).value
    known = ~np.isnan(samples.target)
    assert known.sum() > 20
    np.testing.assert_allclose(at_training, looking_back[known], atol=1e-6)
    model.reset(task=episode.task, fps=episode.fps)
    steps = [model.step({CAMERA: episode.camera(CAMERA)[np.array([t])][0]}, episode.state[t]) for t in range(episode.length)]
    np.testing.assert_allclose([step.progress for step in steps], looking_back, atol=1e-5)
    detected = model.predict(episode).main.signals["detected"].values
    np.testing.assert_array_equal([step.signals["detected"] for step in steps], detected)


def test_every_trained_layer_learns(tmp_path: Path) -> None:
    """LeRobot's classifier leaves its projection as it was drawn; here every parameter moves."""
    torch.manual_seed(0)
    before = {name: weight.clone() for name, weight in SuccessModel(trained(dot_episodes(6, failing=2), tmp_path, steps=1).model.config)
              .named_parameters()}  # fmt: skip
    after = dict(trained(dot_episodes(6, failing=2), tmp_path / "more", steps=5).model.named_parameters())
    assert all(not torch.equal(before[name], weight) for name, weight in after.items())


def test_without_the_state_it_does_not_look_at_it(tmp_path: Path, unseen: list[Episode]) -> None:
    model = trained(dot_episodes(8, failing=3), tmp_path, steps=5, without_state=True).model
    other = dataclasses.replace(unseen[0], state=unseen[0].state + 100)
    np.testing.assert_array_equal(model.predict(other).value, model.predict(unseen[0]).value)
    model.reset(task=unseen[0].task, fps=10.0)
    step = model.step({CAMERA: unseen[0].camera(CAMERA)[np.array([0])][0]}, unseen[0].state[0])
    assert step.progress == pytest.approx(float(model.predict(unseen[0]).value[0]), abs=1e-5)


def test_saved_and_loaded_it_says_the_same(model: SuccessModel, unseen: list[Episode], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = milepost.load_model(tmp_path)
    assert isinstance(loaded, SuccessModel)
    assert loaded.weights_hash() == model.weights_hash()
    np.testing.assert_array_equal(loaded.predict(unseen[0]).value, model.predict(unseen[0]).value)
    stricter = milepost.load_model(tmp_path, success_threshold=0.9)
    assert stricter.success_threshold == 0.9
    assert (stricter.config.rule.threshold, stricter.config.rule.release) == (0.9, 0.45)


# Labels


def test_outcome_labels_by_hand() -> None:
    nan = float("nan")
    np.testing.assert_array_equal(outcome_labels(7, True, 2), [0, 0, 0, nan, nan, 1, 1])
    np.testing.assert_array_equal(outcome_labels(7, False, 2), np.zeros(7))
    np.testing.assert_array_equal(outcome_labels(5, True, 9), [0, nan, nan, 1, 1])  # half of it at most
    np.testing.assert_array_equal(outcome_labels(1, True, 3), [1])


def test_labels_of_the_column_and_of_the_outcome() -> None:
    episodes = [with_column(each, each.length - 4 if each.success else None) for each in dot_episodes(4, failing=1)]
    assert label_source(episodes, "auto") == "next.success"
    config = dataclasses.replace(SMALL, success_labels="next.success")
    assert frame_labels(episodes[0], config).tolist() == [0] * (episodes[0].length - 4) + [1] * 4
    last_alone = [with_column(each, each.length - 1 if each.success else None) for each in dot_episodes(4, failing=1)]
    assert label_source(last_alone, "auto") == "outcome"  # it marks the end, not what is seen
    assert label_source(last_alone, "next.success") == "next.success"
    assert label_source([episodes[0], dot_episodes(1)[0]], "auto") == "outcome"


def test_the_source_is_said(tmp_path: Path) -> None:
    episodes = [with_column(each, each.length - 4 if each.success else None) for each in dot_episodes(6, failing=2)]
    assert trained(episodes, tmp_path / "a", steps=2).model.config.success_labels == "next.success"
    assert trained(dot_episodes(6, failing=2), tmp_path / "b", steps=2).model.config.success_labels == "outcome"


# Threshold


def test_the_threshold_is_fitted_on_held_out_episodes(tmp_path: Path) -> None:
    episodes = dot_episodes(40, failing=16)
    result = trained(episodes, tmp_path, holdout=0.4)
    concluded = SuccessRecipe(SMALL).concluded(result, episodes, tmp_path, quiet_stage)
    threshold = concluded.threshold
    assert threshold is not None
    held_out = [each for each in episodes if each.index in result.held_out]
    assert threshold.successes == sum(bool(each.success) for each in held_out)
    assert threshold.failures == len(held_out) - threshold.successes
    assert threshold.auc >= 0.95
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["success_threshold"] == pytest.approx(threshold.value)
    assert config["threshold_interval"] == pytest.approx(list(threshold.interval))
    assert milepost.load_model(tmp_path).success_threshold == pytest.approx(threshold.value)


def test_a_film_that_ends_at_its_success_is_scored_by_the_frames_that_it_has() -> None:
    """Two frames of success at the end, and a rule of three: the frame before is no part of the success."""
    scores = _Scores()
    scores.add(np.array([0.0, 0.0, 0.001, 0.98, 0.99]), True, 3, 3)
    scores.add(np.array([0.0, 0.9, 0.98, 0.99]), True, 1, 3)
    assert scores.success == [0.98, 0.9]
    assert scores.early[0] < 0.01


def test_a_threshold_that_no_probability_would_pass_for_is_doubted() -> None:
    def threshold(value: float) -> Threshold:
        return Threshold(value, (0.0, 0.5), 1.0, (1.0, 1.0), 1.0, (1.0, 1.0), 3, 2)

    assert _doubt_of(threshold(0.4), 3) == ()
    for value, used in ((0.00015, "0.05 is used"), (0.999, "0.95 is used")):
        (words,) = _doubt_of(threshold(value), 3)
        assert used in words
        assert "--hold" in words


def test_a_task_that_is_given_and_was_not_learnt_is_said(model: SuccessModel) -> None:
    with pytest.warns(UserWarning, match="did not learn the task 'open the fridge'"):
        model.warn_of_unlearnt(["open the fridge"])


def test_without_failures_the_threshold_is_said_to_be_none(tmp_path: Path) -> None:
    episodes = dot_episodes(6)
    result = trained(episodes, tmp_path, steps=2, holdout=0.3)
    concluded = SuccessRecipe(SMALL).concluded(result, episodes, tmp_path, quiet_stage)
    assert concluded.threshold is None
    assert "none of the" in concluded.doubts[0]
    assert "no threshold could be fitted" in concluded.doubts[-1]
    assert concluded.model.success_threshold == 0.5


def test_a_success_is_called_too_early_by_the_labels(tmp_path: Path) -> None:
    """With next.success the moment is known, and too early is more than 0.3 s before it; with outcomes nobody knows."""
    episodes = [with_column(each, each.length - 4 if each.success else None) for each in dot_episodes(2, failing=1)]
    by_column, by_outcome = (dataclasses.replace(SMALL, success_labels=name) for name in ("next.success", "outcome"))
    success, failure = sorted(episodes, key=lambda each: not each.success)
    assert frames_too_early(success, by_column) == success.length - 4 - round(0.3 * success.fps)
    assert frames_too_early(success, by_outcome) is None
    assert frames_too_early(failure, by_column) is None


def test_what_the_threshold_gets_wrong_is_counted_and_on_the_card(tmp_path: Path) -> None:
    episodes = [with_column(each, each.length - 4 if each.success else None) for each in dot_episodes(40, failing=16)]
    recipe = SuccessRecipe(SMALL)
    result = recipe.concluded(trained(episodes, tmp_path, holdout=0.4), episodes, tmp_path, quiet_stage)
    threshold = result.threshold
    assert threshold is not None
    held_out = [each for each in episodes if each.index in result.held_out]
    rule, curves = result.model.config.rule, {each.index: result.model.probability(each) for each in held_out}
    alarms = [each.index for each in held_out if not each.success and detect_success(curves[each.index], rule).any()]
    early = [each.index for each in held_out if each.success and detect_success(curves[each.index], rule)[: each.length - 7].any()]
    assert len(alarms) <= threshold.false_alarms <= 2
    assert len(early) <= threshold.early <= 2
    recipe.save_card(tmp_path, result, "dots", fingerprint="")
    card = (tmp_path / "README.md").read_text()
    assert f"false alarms: {threshold.false_alarms} of {threshold.failures} failures (" in card
    assert "Too early is more than 0.3 s before the first frame that is labelled as done." in card
    assert json.loads((tmp_path / "evaluation.json").read_text())["threshold"]["early"] == threshold.early


def test_a_threshold_outside_the_probabilities_is_moved_to_their_border() -> None:
    model, nan = tiny_success(), float("nan")
    model.use_threshold(Threshold(-1e-6, (nan, nan), 1.0, (1.0, 1.0), 1.0, (1.0, 1.0), 2, 1))
    assert (model.success_threshold, model.config.threshold_interval) == (0.0, ())


# Bad input


def test_no_success_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 3 episodes to learn from succeeded"):
        trained(dot_episodes(3, failing=3), tmp_path)


def test_no_outcome_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 3 episodes has one.*record next.success"):
        trained([with_success(each, None) for each in dot_episodes(3)], tmp_path)


def test_unknown_and_contradicting_outcomes_are_left_out_and_counted(tmp_path: Path) -> None:
    episodes = [with_column(each, each.length - 3 if each.success else None) for each in dot_episodes(8, failing=3)]
    episodes[1] = dataclasses.replace(with_success(episodes[1], None), columns={})
    episodes[2] = with_success(episodes[2], False)
    result = trained(episodes, tmp_path, steps=2)
    assert result.train_episodes == (0, 3, 4, 5, 6, 7)
    assert [str(each) for each in result.left_out] == [
        "1 episode left out, because nobody recorded whether they succeeded: 1",
        "1 episode left out, because next.success and the fact success contradict: 2",
    ]


def test_nothing_but_positive_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every frame of the 3 episodes to learn from is a success"):
        trained([with_column(each, 0) for each in dot_episodes(3)], tmp_path)


def test_positive_from_the_first_frame_is_said(tmp_path: Path) -> None:
    episodes = [with_column(each, 0 if each.success else None) for each in dot_episodes(4, failing=2)]
    assert "2 episodes of 4 are marked as done in the first frame" in trained(episodes, tmp_path, steps=2).doubts


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--success-labels next.success needs that column, and episode 0 has none"):
        trained(dot_episodes(3, failing=1), tmp_path, success_labels="next.success")


def test_another_encoder_is_refused(model: SuccessModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it learnt with|not the one this model learnt with"):
        model.use_encoder(load_encoder(str(tiny_clip(tmp_path / "clip")), device="cpu", text_width=16))


def test_a_missing_camera_is_named(model: SuccessModel, unseen: list[Episode]) -> None:
    model.reset(task=unseen[0].task, fps=10.0)
    with pytest.raises(DataError, match=r"observation.images.top"):
        model.step({"observation.images.side": unseen[0].camera(CAMERA)[np.array([0])][0]}, unseen[0].state[0])


def test_a_blank_instruction_is_refused(model: SuccessModel, unseen: list[Episode]) -> None:
    with pytest.raises(UnreadableError, match="the task is blank"):
        model.predict(dataclasses.replace(unseen[0], task=" "))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("success_threshold", 1.5, "success_threshold must lie in"), ("hold", 0, "hold must be at least 1"), ("release", -1.0, "release"),
        ("positive_s", 0.0, "positive_s"), ("threshold_interval", (0.1,), "threshold_interval"), ("success_labels", "x", "success_labels"),
    ],
)  # fmt: skip
def test_impossible_configs_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{message}|'{field}'"):  # a type checker may be first
        SuccessConfig(**{field: value})


# The whole run


@pytest.fixture
def dots(tmp_path: Path) -> LeRobotDataset:
    write_dots(tmp_path / "dots", dot_episodes(16, failing=7))
    return open_dataset(tmp_path / "dots")


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    episodes, train = dot_episodes(6, failing=2), TrainConfig(steps=8, batch_size=8, lr=1e-3, checkpoint_s=0.0)

    def run(folder: str, stop_at: int | None = None) -> SuccessModel:
        def tick(done: int, total: int) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        return learn(SuccessRecipe(SMALL), episodes, train, folder=tmp_path / folder, holdout=0.0, on_stage=lambda name: tick).model

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", 5)
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    assert run("parts").weights_hash() == whole.weights_hash()


def test_train_label_evaluate_audit_on_the_command_line(
    dots: LeRobotDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    run, root = tmp_path / "run", str(dots.root)
    quick = ("--steps", "60", "--batch-size", "32", "--holdout", "0.4", "--hold", "2", "--positive-s", "0.2")
    assert main(["train", root, "--model", "success", "--output-dir", str(run), *quick]) == 0
    said = capsys.readouterr()
    assert "success threshold: 0." in said.out
    config = json.loads((run / "config.json").read_text())
    assert (config["type"], config["hold"], config["success_labels"]) == ("success", 2, "outcome")
    card = (run / "README.md").read_text()
    assert "Labels: the outcome: the last 0.2 s of a success are positive" in card
    assert json.loads((run / "evaluation.json").read_text())["threshold"]["value"] == pytest.approx(config["success_threshold"])
    assert main(["label", root, "--model", str(run)]) == 0
    assert "success" in capsys.readouterr().out
    table = milepost.read_progress(dots.root / "success_progress.parquet")
    assert set(table.main.signals) == {"success", "detected"}
    assert main(["evaluate", root]) == 0
    assert main(["audit", root, "--model", str(run), "--output-dir", str(tmp_path / "audit")]) in (0, 1)
    assert main(["train", root, "--model", "success", "--output-dir", str(run), *quick]) == 2
    assert "there is a trained model" in capsys.readouterr().err


def test_options_of_another_model_are_refused(dots: LeRobotDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, message in (
        (("--model", "value", "--hold", "2"), "--hold means nothing to a model of type value"),
        (("--model", "success", "--members", "2"), "--members means nothing to a model of type success"),
        (("--model", "success", "--augmentation", "0.5"), "--augmentation means nothing to a success head"),
        (("--model", "success", "--preset", "paper"), "a success head has no preset 'paper'"),
    ):
        assert main(["train", str(dots.root), "--output-dir", str(tmp_path / "run"), *options]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


# While the robot moves


class Scripted(SuccessModel):
    """A success head whose probabilities are written down."""

    script: tuple[float, ...] = ()

    def read(self, features: np.ndarray, *rest: object) -> torch.Tensor:
        """Returns the logits of the next probabilities of the script."""
        now, self.script = self.script[: len(features)], self.script[len(features) :]
        return torch.logit(torch.tensor(now))[None, :, None]


def ends(model: SuccessModel, episode: Episode, frames: int) -> list[int]:
    """Returns the frames at which an attempt that runs begins to count as done."""
    model.reset(task=episode.task, fps=episode.fps)
    image = episode.camera(CAMERA)[np.arange(frames)]
    detected = [model.step({CAMERA: image[t]}, episode.state[t]).signals["detected"] for t in range(frames)]
    return [t for t in range(frames) if detected[t] and not (t and detected[t - 1])]


def test_a_success_ends_once_while_the_robot_moves_and_a_failure_never(model: SuccessModel, unseen: list[Episode]) -> None:
    for episode in unseen[:4] + unseen[-4:]:
        assert len(ends(model, episode, episode.length)) == bool(episode.success)
    assert {each.success for each in unseen[:4] + unseen[-4:]} == {True, False}


@pytest.mark.parametrize(
    ("script", "frames"),
    [
        ((0.1, 0.9) * 8, []),  # it flickers, one frame at a time
        ((0.1, 0.9, 0.9) * 5, []),  # two frames are not three
        ((0.1, 0.9, 0.9, 0.9, 0.3, 0.9, 0.3, 0.3, 0.9, 0.3), [3]),  # above the release it goes on: it ends once
        ((0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9), [2, 6]),  # what is undone can be done again
    ],
)
def test_a_flickering_probability_does_not_end_an_attempt(
    model: SuccessModel, unseen: list[Episode], script: tuple[float, ...], frames: list[int]
) -> None:
    scripted = Scripted(dataclasses.replace(model.config, success_threshold=0.5, hold=3))
    scripted.use_encoder(model.frozen)
    scripted.script = script
    assert ends(scripted, unseen[0], len(script)) == frames
    scripted.script = script  # a reset forgets the attempt before
    assert ends(scripted, unseen[0], len(script)) == frames
