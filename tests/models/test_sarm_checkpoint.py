"""A SARM folder saved by LeRobot gives LeRobot's numbers; what does not fit is refused by name; ours goes back where LeRobot can run it."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from benchmarks.lerobot_recipe import taught
from torch import Tensor

from milepost.core.errors import DataError
from milepost.core.types import Episode
from milepost.models.registry import load_model
from milepost.models.sarm.checkpoint import StateStats
from milepost.models.sarm.config import CLIP, SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.testing import dot_episodes, tiny_sarm

FOLDER = Path(__file__).parents[1] / "data" / "sarm_checkpoint"
DATASET = Path(__file__).parents[1] / "data" / "dataset_v3"
MODES = ("single_stage", "dual")
EXACT = {"rtol": 0, "atol": 1e-5}


def golden(mode: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / mode / "golden.npz") as file:
        return dict(file)


def inputs(mode: str) -> dict[str, Tensor]:
    """LeRobot's inputs in our shapes: one camera more, states padded, lengths as a mask."""
    given = {name: torch.from_numpy(array) for name, array in golden(mode).items()}
    state = given["state_features"]
    return {
        "images": given["video_features"][:, :, None],
        "text": given["text_features"],
        "state": torch.nn.functional.pad(state, (0, 32 - state.shape[-1])),
        "valid": torch.arange(13) < given["lengths"][:, None],
    }


def read(mode: str, **changes: Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: tensor.numpy() for name, tensor in SARMModel.from_pretrained(FOLDER / mode).read(**inputs(mode) | changes).items()}


@pytest.mark.parametrize("mode", MODES)
def test_lerobots_numbers(mode: str) -> None:
    """All 13 places, real and padded: logits, probabilities, tau, progress. The logit of an only stage says nothing and is not computed."""
    given, wanted = read(mode), golden(mode)
    same = {"logits": "stage_logits"} if mode == "dual" else {}
    for head in ("sparse", "dense") if mode == "dual" else ("sparse",):
        for ours, theirs in {**same, "stage": "stage_probs", "tau": "tau", "progress": "progress"}.items():
            np.testing.assert_allclose(given[f"{head}_{ours}"], wanted[f"{head}/{theirs}"], **EXACT)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["no_lengths", "no_state", "text_per_frame"])
def test_lerobots_numbers_with_other_inputs(mode: str, case: str) -> None:
    usual = inputs(mode)
    changes = {
        "no_lengths": {"valid": torch.ones(6, 13, dtype=torch.bool)},
        "no_state": {"state": torch.zeros(6, 13, 32)},
        "text_per_frame": {"text": usual["text"][:, None] * torch.linspace(0.5, 1.5, 13)[:, None]},
    }[case]
    given, wanted = read(mode, **changes), golden(mode)
    for head in ("sparse", "dense") if mode == "dual" else ("sparse",):
        np.testing.assert_allclose(given[f"{head}_progress"], wanted[f"{head}/progress_{case}"], **EXACT)


@pytest.mark.parametrize("mode", MODES)
def test_the_reward_is_the_current_frames(mode: str) -> None:
    """LeRobot's `compute_reward` answers for place 8, four gaps ahead, and sees the empty rewind places; ours for the middle, place 4."""
    wanted = golden(mode)
    everything = {"valid": torch.ones(6, 13, dtype=torch.bool)}
    np.testing.assert_allclose(read(mode, **everything)["sparse_progress"][:, 8], wanted["compute_reward"], **EXACT)
    np.testing.assert_allclose(read(mode)["sparse_progress"][:, 8], wanted["sparse/progress_default_index"], **EXACT)
    model = SARMModel.from_pretrained(FOLDER / mode)
    batch = {name: torch.from_numpy(wanted[name]) for name in ("video_features", "text_features", "state_features", "lengths")}
    reward = model.compute_reward(batch)
    assert reward.shape == (6,)
    np.testing.assert_allclose(reward, wanted["sparse/progress"][:, 4], **EXACT)
    nine = model.compute_reward(batch | {"lengths": torch.full((6,), 9)})
    np.testing.assert_allclose(model.compute_reward({k: v for k, v in batch.items() if k != "lengths"}), nine, **EXACT)


@pytest.mark.parametrize("mode", MODES)
def test_the_reward_takes_the_features_as_they_come(mode: str) -> None:
    """A camera axis or none; no state is a state of zeros."""
    model, wanted = SARMModel.from_pretrained(FOLDER / mode), golden(mode)
    batch = {name: torch.from_numpy(wanted[name]) for name in ("video_features", "text_features", "lengths")}
    flat = model.compute_reward(batch)
    np.testing.assert_allclose(flat, wanted["sparse/progress_no_state"][:, 4], **EXACT)
    np.testing.assert_array_equal(model.compute_reward(batch | {"video_features": batch["video_features"][:, :, None]}), flat)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("told", "ratio"), [("teacher_forced", 1.0), ("predicted_stage", 0.0)])
def test_lerobots_loss_and_gradients(mode: str, told: str, ratio: float) -> None:
    """Padding in the loss, as there: by `taught`, which the benchmark trains with. LeRobot's target is stage + tau."""
    model, wanted = SARMModel.from_pretrained(FOLDER / mode), golden(mode)
    model.config = dataclasses.replace(model.config, gt_stage_ratio=ratio)
    batch = inputs(mode)
    for head, stages in model.config.heads.items():
        target = torch.from_numpy(wanted[f"{head}_targets"])
        batch |= {f"{head}_stage": target.long().clamp(0, len(stages) - 1), f"{head}_tau": target % 1}
    loss, parts = model.loss(taught(batch), torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.item() == pytest.approx(wanted[f"loss/{told}/total"], abs=1e-5)
    for head in model.config.heads:
        assert parts[f"{head}_stage_loss"] == pytest.approx(wanted[f"loss/{told}/{head}_stage_loss"], abs=1e-5)
        assert parts[f"{head}_tau_loss"] == pytest.approx(wanted[f"loss/{told}/{head}_subtask_loss"], abs=1e-5)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.norm() for g in gradients]).norm().item()
    assert norm == pytest.approx(wanted[f"loss/{told}/grad_norm"], rel=1e-5)
    learnt = model.stage_model.first_pos.grad  # None: there is one stage, and LeRobot's gradient is zero
    learnt = torch.zeros_like(model.stage_model.first_pos) if learnt is None else learnt
    np.testing.assert_allclose(learnt, wanted[f"loss/{told}/grad_stage_first_pos"], atol=1e-5)
    np.testing.assert_allclose(
        model.subtask_model.state_proj.bias.grad, wanted[f"loss/{told}/grad_subtask_state_proj_bias"], atol=1e-5
    )  # fmt: skip


def test_our_loss_leaves_padding_out() -> None:
    model, batch = SARMModel.from_pretrained(FOLDER / "single_stage"), inputs("single_stage")
    target = torch.from_numpy(golden("single_stage")["sparse_targets"])
    hidden = ~batch["valid"]
    batch |= {"sparse_stage": torch.where(hidden, -1, 0), "sparse_tau": torch.where(hidden, torch.nan, target)}
    loss, _ = model.loss(batch)
    with torch.no_grad():
        tau = model.read(**inputs("single_stage"))["sparse_tau"]
    assert loss.item() == pytest.approx(((tau - target)[batch["valid"]] ** 2).mean().item(), abs=1e-6)


# The config


def test_lerobots_config_in_our_words() -> None:
    config = SARMModel.from_pretrained(FOLDER / "dual").config
    assert (config.window, config.attention, config.decode, config.encoder) == ("centred", "lerobot", "argmax", CLIP)
    assert (config.frame_gap, config.gap(30.0), config.now, config.width) == (5, 5, 4, 9)
    assert config.heads["sparse"].names == ("reach the object", "move the object", "finish the task")
    assert len(config.heads["dense"]) == 5
    assert config.state_stats_from == ""


def edited(tmp_path: Path, mode: str = "dual", **changes: object) -> Path:
    """A copy of the fixture with another config."""
    folder = tmp_path / "model"
    shutil.copytree(FOLDER / mode, folder, copy_function=shutil.copyfile)
    values = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_cameras": 2}, "num_cameras"),
        ({"normalization_mapping": {"STATE": "MIN_MAX"}}, "MIN_MAX"),
        ({"num_dense_stages": 4}, "4 dense stages"),
        ({"dense_subtask_names": ["a", "a", "b", "c", "d"]}, "5 dense stages"),
        ({"hidden_dim": 96}, "should be"),
        ({"annotation_mode": "dense_only"}, r"stage_model.heads.sparse.bias' should be \(1,\) and is \(3,\)"),
        ({"annotation_mode": "triple"}, "triple"),
    ],
)
def test_configs_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SARMModel.from_pretrained(edited(tmp_path, **changes))


def test_unnamed_stages_are_equal_as_in_lerobot(tmp_path: Path) -> None:
    folder = edited(tmp_path, sparse_subtask_names=None, sparse_temporal_proportions=None, dense_temporal_proportions=[2, 5, 3, 0, 0])
    heads = SARMModel.from_pretrained(folder).config.heads
    assert heads["sparse"].names == ("stage 0", "stage 1", "stage 2")
    np.testing.assert_allclose(heads["sparse"].shares, 1 / 3)
    np.testing.assert_allclose(heads["dense"].shares, [0.2, 0.5, 0.3, 0, 0])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda w: w.pop("stage_model.heads.sparse.weight"), r"1 missing \(stage_model.heads.sparse.weight\)"),
        (lambda w: w.update({"stage_model.extra": torch.zeros(1)}), r"1 unknown \(stage_model.extra\)"),
        (lambda w: w.update({"stage_model.first_pos": torch.zeros(2, 48)}), "stage_model.first_pos"),
    ],
)
@pytest.mark.parametrize("ours", [False, True])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, damage: Callable, words: str, ours: bool) -> None:
    folder = edited(tmp_path)
    if ours:
        SARMModel.from_pretrained(folder).save_pretrained(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    damage(weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=words):
        SARMModel.from_pretrained(folder)


# State statistics


def featured(length: int = 30, width: int = 7) -> tuple[Episode, dict[str, np.ndarray]]:
    """An episode without pictures, and the features that would be its pictures' and words'."""
    rng = np.random.default_rng(0)
    episode = dot_episodes(1)[0]
    state = rng.normal(3, 2, (length, width)).astype(np.float32)
    episode = dataclasses.replace(episode, length=length, state=state, cameras={}, segments={}, columns={})
    draw = {"features": (length, 1, 512), "text": (512,)}
    return episode, {name: rng.standard_normal(shape).astype(np.float32) for name, shape in draw.items()}


def test_a_curve_is_lerobots_window_by_window() -> None:
    """Each frame's window as LeRobot's labelling makes it: clamped, 9 of 13 places filled, read in the middle."""
    stats = StateStats((3.0,) * 7, (2.0,) * 7, "the test")
    model = SARMModel.from_pretrained(FOLDER / "dual", state_stats=stats)
    episode, given = featured()
    progress = model.predict_features(episode, **given)
    state = ((episode.state - 3) / (2 + 1e-8)).astype(np.float32)
    assert progress.stage is not None
    assert "dense" in progress.heads
    for frame in (0, 3, 14, 29):
        window = np.clip(frame + np.arange(-4, 5) * 5, 0, 29)
        images, states = np.zeros((1, 13, 512), np.float32), np.zeros((1, 13, 7), np.float32)
        images[0, :9], states[0, :9] = given["features"][window, 0], state[window]
        batch = {"video_features": images, "text_features": given["text"][None], "state_features": states, "lengths": np.array([9])}
        reward = model.compute_reward({name: torch.from_numpy(array) for name, array in batch.items()})
        assert progress.value[frame] == pytest.approx(reward.item(), abs=1e-5)


def test_states_without_statistics_are_refused() -> None:
    episode, given = featured()
    with pytest.raises(DataError, match="state_stats="):
        SARMModel.from_pretrained(FOLDER / "dual").predict_features(episode, **given)


def test_statistics_of_a_dataset_become_the_models_own(tmp_path: Path) -> None:
    model = SARMModel.from_pretrained(FOLDER / "dual", state_stats=DATASET)
    stats = json.loads((DATASET / "meta" / "stats.json").read_text())["observation.state"]
    assert model.config.state_mean == tuple(stats["mean"])
    assert model.config.state_stats_from == "dataset_v3/meta/stats.json"
    episode, given = featured()
    curve = model.predict_features(episode, **given).value
    model.save_pretrained(tmp_path)
    again = SARMModel.from_pretrained(tmp_path)
    assert again.config == model.config
    np.testing.assert_array_equal(again.predict_features(episode, **given).value, curve)


def test_statistics_lerobots_training_left_beside_the_weights(tmp_path: Path) -> None:
    """LeRobot saves its normalizer's state with a checkpoint and never reads it again; what it says is whose data the model knows."""
    folder = edited(tmp_path)
    stats = {"observation.state.mean": torch.arange(7.0), "observation.state.std": torch.ones(7), "action.mean": torch.zeros(2)}
    name = "policy_preprocessor_step_2_normalizer_processor.safetensors"
    safetensors.torch.save_file(stats, folder / name)
    config = SARMModel.from_pretrained(folder).config
    assert (config.state_mean, config.state_std, config.state_stats_from) == (tuple(map(float, range(7))), (1.0,) * 7, name)
    assert SARMModel.from_pretrained(folder, state_stats=StateStats((2.0,), (1.0,), "me")).config.state_stats_from == "me"


def test_statistics_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stats.json is missing"):
        SARMModel.from_pretrained(FOLDER / "dual", state_stats=tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "stats.json").write_text('{"action": {}}')
    with pytest.raises(DataError, match=r"observation.state"):
        SARMModel.from_pretrained(FOLDER / "dual", state_stats=tmp_path)
    with pytest.raises(DataError, match="one std a mean"):
        StateStats((1.0,), (), "x")


def test_the_encoder_is_not_needed_and_asked_for_by_name() -> None:
    model = load_model(FOLDER / "dual")
    assert isinstance(model, SARMModel)
    with pytest.raises(DataError, match=CLIP):
        model.predict(dot_episodes(1)[0])
    with pytest.raises(DataError, match="encoder="):
        model.text_features("open the drawer")


# Back to LeRobot


@pytest.mark.parametrize("mode", MODES)
def test_a_lerobot_checkpoint_survives_the_way_back(tmp_path: Path, mode: str) -> None:
    SARMModel.from_pretrained(FOLDER / mode).save_pretrained(tmp_path, format="lerobot")
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((FOLDER / mode / "config.json").read_text())
    was, now = (safetensors.torch.load_file(folder / "model.safetensors") for folder in (FOLDER / mode, tmp_path))
    assert was.keys() == now.keys()
    unread = {name for name in was if ".heads.dense." in name and mode == "single_stage"}
    assert all(torch.equal(was[name], now[name]) for name in was.keys() - unread)


def test_what_lerobot_cannot_run_is_refused_with_every_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        tiny_sarm(more_image_keys=("observation.images.wrist",)).save_pretrained(tmp_path, format="lerobot")
    for word in ("causal in time", "window is causal", "seconds", "averages", "2 cameras", "'pixels'", "sparse_only"):
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_model_of_ours_for_lerobot(tmp_path: Path) -> None:
    """Our own weights in LeRobot's architecture: saved for it, read back as its checkpoint, the same numbers."""
    torch.manual_seed(0)
    config = SARMConfig(
        hidden_dim=32, num_layers=1, num_heads=2, window="centred", attention="lerobot", frame_gap=3, decode="argmax", encoder=CLIP,
        image_dim=512, text_dim=512, annotation_mode="dense_only", dense_subtask_names=("a", "b"), dense_temporal_proportions=(0.25, 0.75),
        state_mean=(0.0,) * 7, state_std=(1.0,) * 7,
    )  # fmt: skip
    model = SARMModel(config)
    model.save_pretrained(tmp_path, format="lerobot")
    again = SARMModel.from_pretrained(tmp_path)
    episode, given = featured()
    ours, back = (m.predict_features(episode, **given) for m in (model, again))
    np.testing.assert_array_equal(ours.value, back.value)
    np.testing.assert_array_equal(ours.head("dense").value, back.head("dense").value)


EDITS = {
    "gap_s": [None, [1], -1.0], "hidden_dim": ["wide"], "n_obs_steps": [4.5, 0], "state_std": ["abc"], "dropout": [True],
    "frame_gap": ["5"],
    "state_mean": [[0.0, float("nan")], [0.0]], "sparse_subtask_names": [[1, 2, 3]], "more_image_keys": [["observation.images.top"]],
    "window": ["both"],
}  # fmt: skip


def test_a_config_edited_by_hand_is_refused_by_field(tmp_path: Path) -> None:
    """In a process of its own: the tests' own checks of types would be first here."""
    tiny_sarm().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    edits = [[field, values | {field: value}] for field, group in EDITS.items() for value in group]
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    code = """
import json, sys
from pathlib import Path
from milepost.models import load_model
folder = Path(sys.argv[1])
for field, values in json.loads((folder / "edits.json").read_text()):
    (folder / "config.json").write_text(json.dumps(values))
    try:
        load_model(folder)
    except ValueError as error:
        print(field, "|", error)
values = json.loads((folder / "edits.json").read_text())[0][1]
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    said = [line.split(" | ", 1) for line in run.stdout.splitlines()]
    assert [field for field, _ in said] == [field for field, _ in edits], run.stderr
    assert all(field in message or field == "more_image_keys" for field, message in said)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    model = tiny_sarm()
    with torch.no_grad():
        model.stage_model.visual_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"NaN or infinite weights: stage_model\.visual_proj\.weight"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="JSON object"):
        load_model(tmp_path)
