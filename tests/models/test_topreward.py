"""TOPReward: LeRobot's numbers under its protocol, one pass per prefix under ours, whole or streamed; and what is refused."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import milepost
from milepost.core.errors import DataError
from milepost.core.types import ArrayFrames, Episode, Progress
from milepost.models.registry import load_model
from milepost.models.topreward.config import TOPRewardConfig
from milepost.models.topreward.model import TOPRewardModel
from milepost.models.topreward.processor import TOPREWARD_FEATURE_PREFIX
from milepost.models.topreward.sampling import looked_at, min_max
from milepost.models.zero_shot.sampling import anchors, grid
from milepost.testing import CAMERA
from milepost.vlm.patches import Resolution
from milepost.vlm.prompt import Prompt
from models.test_contract import VLM, tiny_topreward, tiny_vlm

GOLDEN = json.loads((VLM / "golden.json").read_text())


def raw_of(progress: Progress, name: str = "logprob") -> np.ndarray:
    return progress.main.signals[name].values


CLIPS = dict(np.load(VLM / "clips.npz"))
FRAMES, TASK = f"{TOPREWARD_FEATURE_PREFIX}frames", f"{TOPREWARD_FEATURE_PREFIX}task"
LEROBOTS = {
    "type": "topreward", "input_features": {"observation.images.front": {"type": "VISUAL", "shape": [3, 224, 224]}},
    "output_features": {"reward": {"type": "REWARD", "shape": [1]}}, "device": "cpu", "pretrained_path": None, "pretrained_revision": None,
    "push_to_hub": False, "repo_id": None, "license": "mit", "tags": ["reward-model"], "private": None,
    "vlm_name": "Qwen/Qwen3-VL-4B-Instruct", "torch_dtype": "auto", "attn_implementation": "flash_attention_2",
    "image_key": "observation.images.front", "task_key": "task",
    "default_task": None, "max_frames": 16, "fps": 2.0, "prompt_prefix": "Look. ",
    "prompt_suffix_template": "{instruction} The answer is: True", "add_chat_template": False, "success_threshold": -math.inf,
    "max_input_length": 32768, "normalization_mapping": {"VISUAL": "IDENTITY", "REWARD": "IDENTITY"},
}  # fmt: skip
"""As LeRobot 0.6.1 writes one."""


def moving(length: int, fps: float = 10.0, task: str = "push the dot", size: tuple[int, int] = (48, 64)) -> Episode:
    """A bright square that wanders over a dark picture."""
    images = np.full((length, *size, 3), 20, np.uint8)
    for frame in range(length):
        x = 2 + frame * 5 % (size[1] - 14)
        images[frame, 10:22, x : x + 10, frame // 7 % 3] = 250
    return Episode(3, 100, task, fps, length, np.zeros((length, 0), np.float32), {CAMERA: ArrayFrames(images)})


# The numbers


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['clip']}-{case['add_chat_template']}-{case['instruction'][:5]}")
def test_lerobots_protocol_gives_lerobots_numbers(case: dict) -> None:
    model = tiny_topreward(protocol="lerobot", add_chat_template=case["add_chat_template"])
    batch = {FRAMES: [CLIPS[case["clip"]]], TASK: [case["instruction"]]}
    rewards = [each["reward"] for each in case["prefixes"]]
    said = model.predict_curves(batch)
    np.testing.assert_allclose(said["raw"][0], rewards, rtol=0, atol=2e-5)
    np.testing.assert_allclose(said["progress"][0], case["curve"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.predict_curves(batch, num_prefixes=5)["progress"][0], case["curve_5_samples"], rtol=0, atol=2e-5)
    assert model.compute_reward(batch).item() == pytest.approx(rewards[-1], abs=2e-5)
    space = "" if case["add_chat_template"] else " "
    odds = [each["log_prob"][f"{space}True"] - each["log_prob"][f"{space}False"] for each in case["prefixes"]]
    np.testing.assert_allclose(said["logodds"][0], odds, rtol=0, atol=4e-5)


def test_our_protocol_is_one_pass_per_prefix_with_true_times() -> None:
    """Frames chosen, stamped and asked about by hand, each prefix by the model's own forward."""
    episode = moving(34)
    said = tiny_topreward().predict(episode)
    frames = np.array([0, 5, 10, 15, 20, 25, 30, 33])
    engine = tiny_vlm().with_prompt(Prompt())
    clip = engine.clip(episode.cameras[CAMERA][frames], times_s=(frames / 10).tolist(), resolution=Resolution())
    alone = engine.separate(clip, instructions=[episode.task])[0]
    np.testing.assert_allclose(raw_of(said)[frames], alone[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw_of(said, "logodds")[frames], alone[:, 0] - alone[:, 1], rtol=0, atol=2e-5)
    assert np.isnan(np.delete(raw_of(said), frames)).all()
    low, high = alone[:, 0].min(), alone[:, 0].max()
    np.testing.assert_allclose(said.value[frames], (alone[:, 0] - low) / (high - low), atol=1e-4)
    np.testing.assert_allclose(said.value, np.interp(np.arange(34), frames, said.value[frames]), atol=1e-6)
    assert alone[:, 0].std() > 0.05


def test_fewer_prefixes_are_the_same_numbers() -> None:
    episode = moving(60)
    every, some = tiny_topreward().predict(episode), tiny_topreward().predict(episode, num_prefixes=5)
    asked = np.flatnonzero(~np.isnan(raw_of(some)))
    assert len(asked) == 5
    np.testing.assert_allclose(raw_of(some)[asked], raw_of(every)[asked], atol=1e-5)
    assert (asked[0], asked[-1]) == (0, 59)


def test_many_instructions_share_one_reading() -> None:
    episode, tasks = moving(30), ["push the dot", "pull the dot", "leave"]
    engine = tiny_vlm()
    before = engine.tokens["prefix"]
    together = tiny_topreward().predict_tasks(episode, tasks)
    read = engine.tokens["prefix"] - before
    for task, said in zip(tasks, together, strict=True):
        before = engine.tokens["prefix"]
        alone = tiny_topreward().predict(dataclasses.replace(episode, task=task))
        np.testing.assert_allclose(raw_of(said), raw_of(alone), atol=1e-5)
        assert engine.tokens["prefix"] - before == read  # all three cost one


@pytest.mark.parametrize("length", [1, 2, 33, 36, 40])
def test_step_by_step_is_the_whole(length: int) -> None:
    episode = moving(length)
    model = tiny_topreward()
    whole = model.predict(episode)
    model.reset(episode.task, fps=episode.fps)
    images = episode.cameras[CAMERA][np.arange(length)]
    steps = [model.step({CAMERA: image}, last=frame == length - 1) for frame, image in enumerate(images)]
    fresh = np.array([step.fresh for step in steps])
    np.testing.assert_array_equal(fresh, ~np.isnan(raw_of(whole)))
    np.testing.assert_allclose(np.array([step.signals["logprob"] for step in steps])[fresh], raw_of(whole)[fresh], atol=1e-5)
    np.testing.assert_allclose(np.array([step.signals["logodds"] for step in steps])[fresh], raw_of(whole, "logodds")[fresh], atol=2e-5)
    for frame in np.flatnonzero(fresh):  # progress so far: where now lies between the lowest and the highest up to now
        past = raw_of(whole)[: frame + 1]
        spread = np.nanmax(past) - np.nanmin(past)
        expected = (past[-1] - np.nanmin(past)) / spread if spread else math.nan
        assert steps[frame].progress == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_a_failure_does_not_end_at_one_by_raw_score() -> None:
    """The reason raw is kept: two episodes whose progress both reaches 1 have different scores."""
    model = tiny_topreward()
    ends = [np.nanmax(raw_of(model.predict(moving(30, task=task)))) for task in ("push the dot", "burn the house down")]
    assert abs(ends[0] - ends[1]) > 1e-3


# Which frames


def test_a_fixed_stride_and_the_last_frame() -> None:
    config = TOPRewardConfig()
    frames, times = looked_at(148, 20.0, config)
    assert frames.tolist() == [*range(0, 141, 10), 147]
    np.testing.assert_allclose(times, frames / 20)
    assert looked_at(10, 15.0, config)[0].tolist() == [0, 8, 9]  # 7.5 rounds up
    assert looked_at(4, 1.0, config)[0].tolist() == [0, 1, 2, 3]  # never a frame twice
    frames, times = looked_at(5, 20.0, TOPRewardConfig(protocol="lerobot"))
    assert frames.tolist() == [0, 1, 2, 3, 4]
    assert times.tolist() == [0, 0.5, 1, 1.5, 2]


@given(st.integers(1, 400), st.integers(0, 400), st.floats(0.5, 120), st.floats(0.1, 60))
def test_an_earlier_prefix_never_changes(length: int, more: int, source: float, fps: float) -> None:
    config = TOPRewardConfig(fps=fps)
    short, long = (looked_at(each, source, config)[0] for each in (length, length + more))
    assert short[-1] == length - 1
    assert (np.diff(short) > 0).all()
    inside = short[:-1]
    np.testing.assert_array_equal(inside, long[: len(inside)])
    assert [grid(number, source_fps=source, fps=fps) for number in range(len(inside))] == inside.tolist()


def test_anchors_by_hand() -> None:
    assert anchors(300, 15).tolist() == [1, 22, 44, 65, 86, 108, 129, 150, 172, 193, 215, 236, 257, 279, 300]
    assert anchors(3, 15).tolist() == [1, 2, 3]
    assert anchors(1, None).tolist() == [1]
    with pytest.raises(ValueError, match="at least 2"):
        anchors(9, 1)


def test_min_max_by_hand() -> None:
    np.testing.assert_allclose(min_max(np.array([-4.0, -2.0, np.nan, -3.0]), "milepost"), [0, 1, np.nan, 0.5])
    assert np.isnan(min_max(np.array([-4.0, -4.0]), "milepost")).all()
    assert min_max(np.array([-4.0, -4.0]), "lerobot").tolist() == [1, 1]
    assert np.isnan(min_max(np.array([np.nan]), "lerobot")).all()


# Batches


def test_the_seeds_snippets() -> None:
    """LeRobot's page on TOPReward, with its import lines changed."""
    cfg = milepost.make_reward_model_config("topreward", vlm_name=str(VLM), device="cpu", image_key="observation.images.top")
    reward_model = milepost.make_reward_model(cfg)
    preprocessor, postprocessor = milepost.make_reward_pre_post_processors(cfg)
    frames, task = CLIPS["wide"], "open the drawer"
    batch = {f"{milepost.TOPREWARD_FEATURE_PREFIX}frames": [frames], f"{milepost.TOPREWARD_FEATURE_PREFIX}task": [task]}
    reward = reward_model.compute_reward(batch)
    assert reward.shape == (1,)
    progress = reward_model.predict_curves(batch, num_prefixes=15)["progress"][0].numpy()
    assert progress.shape == (len(frames),)
    assert progress.min() == 0
    assert progress.max() == 1
    loaded = {"observation.images.top": torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255, "task": [task]}
    encoded = preprocessor(loaded)
    np.testing.assert_array_equal(encoded[FRAMES][0], frames)
    assert postprocessor({"reward": reward_model.compute_reward(encoded)})["reward"].item() == pytest.approx(reward.item(), abs=1e-6)
    assert FRAMES not in loaded


@pytest.mark.parametrize(
    ("shape", "task", "clips"),
    [
        ((2, 4, 3, 8, 8), ["a", "b"], [4, 4]),
        ((2, 4, 8, 8, 3), "a", [4, 4]),
        ((4, 3, 8, 8), "a", [4]),
        ((4, 3, 8, 8), list("abcd"), [1] * 4),
    ],
)
def test_batches_of_every_shape(shape: tuple[int, ...], task: str | list[str], clips: list[int]) -> None:
    before, _ = milepost.make_reward_pre_post_processors(TOPRewardConfig())
    out = before({"observation.images.top": torch.rand(shape), "task": task})
    assert [clip.shape for clip in out[FRAMES]] == [(count, 8, 8, 3) for count in clips]
    assert len(out[TASK]) == len(clips)


def test_long_clips_are_thinned() -> None:
    """At most max_frames: spread evenly at their own times, or LeRobot's last ones."""
    clip = moving(40).cameras[CAMERA][np.arange(40)]
    batch = {FRAMES: [clip], TASK: ["push"]}
    engine = tiny_vlm()
    for protocol, chosen, times in (
        ("milepost", np.linspace(0, 39, 5).round().astype(int), np.linspace(0, 39, 5).round() / 2),
        ("lerobot", np.arange(35, 40), np.arange(5) / 2),
    ):
        said = tiny_topreward(protocol=protocol, max_frames=5).compute_reward(batch).item()
        alone = engine.clip(clip[chosen], times_s=times.tolist(), resolution=Resolution("lerobot" if protocol == "lerobot" else "milepost"))
        assert said == pytest.approx(engine.score(alone, instructions=["push"], prefixes=[5])[0, 0, 0], abs=1e-6)


def test_the_threshold_makes_it_a_verdict() -> None:
    batch = {FRAMES: [CLIPS["wide"], CLIPS["square"]], TASK: ["a task", "another"]}
    raw = tiny_topreward().compute_reward(batch)
    middle = raw.mean().item()
    assert tiny_topreward(success_threshold=middle).compute_reward(batch).tolist() == (raw > middle).float().tolist()


# On disk


def test_a_saved_model_is_a_kilobyte_and_needs_no_vlm(tmp_path) -> None:
    config = TOPRewardConfig(
        vlm_name="Qwen/Qwen3-VL-8B-Instruct", reduction="mean", fps=4.0, device="cuda", base_url="http://localhost:1/v1"
    )
    TOPRewardModel(config).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").stat().st_size < 1500
    json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)  # strict JSON: no Infinity
    again = TOPRewardModel.from_pretrained(tmp_path)
    assert again.config == dataclasses.replace(config, device=None, base_url=None)
    assert load_model(tmp_path, "cpu", fps=1.0).config.fps == 1.0
    made = milepost.make_reward_model(milepost.make_reward_model_config("topreward", pretrained_path=str(tmp_path), max_frames=3))
    assert (made.config.fps, made.config.max_frames) == (4.0, 3)


def test_lerobots_config_is_read_and_written(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LEROBOTS))
    config = TOPRewardModel.from_pretrained(tmp_path).config
    assert (config.protocol, config.image_key, config.prompt_prefix) == ("lerobot", "observation.images.front", "Look. ")
    assert (config.vlm_name, config.attn_implementation, config.success_threshold) == ("Qwen/Qwen3-VL-4B-Instruct", None, -math.inf)
    TOPRewardModel(config).save_pretrained(tmp_path, format="lerobot")
    written = json.loads((tmp_path / "config.json").read_text())
    assert written.keys() == LEROBOTS.keys()
    assert {name: value for name, value in written.items() if name != "tags"} == {
        name: value for name, value in LEROBOTS.items() if name != "tags"
    } | {"attn_implementation": None}
    with pytest.raises(DataError, match="LeRobot knows no protocol='milepost'"):
        TOPRewardModel(TOPRewardConfig()).save_pretrained(tmp_path, format="lerobot")


# What is refused


def test_training_is_refused() -> None:
    model = tiny_topreward()
    for attempt in (model.train, model.loss, model.forward, lambda: model({})):
        with pytest.raises(ValueError, match="zero-shot"):
            attempt()
    assert model.eval() is model
    assert model.train(False) is model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt_suffix_template": "Is it done? True"}, "instruction"),
        ({"prompt_suffix_template": "{instruction}"}, "end in the word"),
        ({"prompt_suffix_template": "{instruction} {other} True"}, "no other braces"),
        ({"fps": 0.0}, "above 0"),
        ({"max_frames": 0}, "at least 1"),
        ({"success_threshold": math.nan}, "nan"),
        ({"contrast_answer": "True"}, "another word"),
    ],
)
def test_configs_that_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TOPRewardConfig(**changes)


def test_a_config_edited_by_hand_is_refused_by_field(tmp_path) -> None:
    """In a process of its own: the tests' own checks of types would be first here."""
    edits = {"attn_implementation": "flash_attention_2", "fps": "2", "reduction": "max", "protocol": "paper", "max_frames": 2.5, "vlm": "x"}
    base = TOPRewardConfig().to_dict()
    (tmp_path / "edits.json").write_text(json.dumps([[field, base | {field: value}] for field, value in edits.items()]))
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
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    said = [line.split(" | ", 1) for line in run.stdout.splitlines()]
    assert [field for field, _ in said] == list(edits), run.stderr
    assert all(field in message for field, message in said)


@pytest.mark.parametrize(
    ("frames", "task", "words"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "a", "empty"),
        (np.zeros((2, 0, 8, 3), np.uint8), "a", "empty"),
        (np.zeros((2, 8, 8), np.uint8), "a", "should be"),
        (np.full((2, 8, 8, 3), 3.0), "a", "between 0 and 1"),
        (np.zeros((2, 8, 8, 3), np.uint8), "", "no instruction"),
        (np.zeros((2, 8, 8, 3), np.uint8), " ", "no instruction"),
        (np.zeros((2, 8, 2000, 3), np.uint8), "a", "too narrow"),
    ],
)
def test_clips_that_are_refused(frames: np.ndarray, task: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        tiny_topreward().compute_reward({FRAMES: [frames], TASK: [task]})


def test_what_does_not_fit_together_is_refused(tmp_path) -> None:
    episode = moving(20)
    with pytest.raises(DataError, match="no camera 'front'"):
        tiny_topreward(image_key="front").predict(episode)
    with pytest.raises(DataError, match="episode 3 has no task"):
        tiny_topreward().predict(dataclasses.replace(episode, task=" "))
    assert tiny_topreward(default_task="push").predict(dataclasses.replace(episode, task="")).value.shape == (20,)
    with pytest.raises(DataError, match=r"episode 3: the answer 'Perhaps' should be one token.*\["):
        tiny_topreward(prompt_suffix_template="{instruction} Is it done? Perhaps").predict(episode)
    with pytest.raises(DataError, match="preprocessor"):
        tiny_topreward().compute_reward({"observation.images.top": CLIPS["wide"][None]})
    short = TOPRewardModel(TOPRewardConfig(vlm_name=str(VLM), max_input_length=60))
    with pytest.raises(DataError, match=r"episode 3: .* max_input_length allows 60"):
        short.predict(episode)
    with pytest.raises(DataError, match="hf download"):
        _ = TOPRewardModel(TOPRewardConfig(vlm_name=str(tmp_path))).engine
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(DataError, match="cannot share prefixes"):
        _ = TOPRewardModel(TOPRewardConfig(vlm_name=str(tmp_path))).engine


def test_streams_that_are_refused() -> None:
    model = tiny_topreward()
    with pytest.raises(DataError, match="call reset"):
        model.step(CLIPS["wide"][0])
    with pytest.raises(DataError, match="needs the task"):
        model.reset("")
    with pytest.raises(DataError, match="protocol='milepost'"):
        tiny_topreward(protocol="lerobot").reset("push")
    model.reset("push")
    first = model.step(CLIPS["wide"][0])
    with pytest.raises(DataError, match="camera"):
        model.step({"elsewhere": CLIPS["wide"][0]})
    with pytest.raises(DataError, match="follows one of"):
        model.step(CLIPS["square"][0])
    assert first.fresh
    assert model.step(np.moveaxis(CLIPS["wide"][1], -1, 0)).fresh  # channels first, and after two refusals still the second frame


def test_what_a_stranger_tried() -> None:
    """A forgotten list, two frames for one, marks in the prompt, a device that is not there, a reward through the postprocessor."""
    clip = CLIPS["wide"]
    model = tiny_topreward()
    whole = model.compute_reward({FRAMES: [clip], TASK: ["a"]})
    np.testing.assert_array_equal(model.compute_reward({FRAMES: clip, TASK: ["a"]}), whole)
    half = torch.from_numpy(clip / np.float32(255)).to(torch.bfloat16)
    assert model.compute_reward({FRAMES: [half], TASK: ["a"]}).isfinite().all()
    with pytest.raises(DataError, match="one size"):
        model.compute_reward({FRAMES: [[np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]], TASK: ["a"]})
    model.reset("push")
    with pytest.raises(DataError, match="one frame"):
        model.step(clip[1:3])
    with pytest.raises(DataError, match="is a mark"):
        tiny_topreward(prompt_prefix="see <|video_pad|> ").predict(moving(10))
    if not torch.cuda.is_available():
        with pytest.raises(DataError, match="no GPU"):
            _ = TOPRewardModel(TOPRewardConfig(vlm_name=str(VLM), device="cuda")).engine
    _, after = milepost.make_reward_pre_post_processors(model.config)
    assert after(whole).item() == whole.item()
    with pytest.raises(DataError, match="protocol"):
        TOPRewardConfig.from_dict(LEROBOTS | {"protocol": "foo"})


def test_one_frame_is_doubled_and_says_nothing_of_progress() -> None:
    episode = moving(1)
    said = tiny_topreward().predict(episode)
    assert np.isfinite(raw_of(said)).all()
    assert np.isnan(said.value).all()
    assert tiny_topreward(protocol="lerobot").predict(episode).value.tolist() == [1.0]
