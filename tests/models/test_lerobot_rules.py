"""LeRobot's training labels, number for number, and what a batch of its recipe looks like."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.lerobot_recipe import LeRobotSamples, OneCoin, blanked, combined, rewind, rewind_room, separated, stage_and_tau, taught

from milepost.core.stages import Stages, progress
from milepost.core.types import Segment
from milepost.core.windows import centred
from milepost.encoders.pixels import embed_text
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.model import SARMModel
from milepost.models.sarm.prepare import training_set, with_statistics
from milepost.models.training.distributed import SINGLE_PROCESS
from milepost.testing import dot_episodes, reduced_dots, tiny_sarm

FIXTURE = json.loads((Path(__file__).parents[1] / "data" / "sarm_targets.json").read_text())
FUNCTIONS = FIXTURE["functions"]


def segments(annotation: Mapping | None) -> list[Segment]:
    if annotation is None:
        return []
    return [Segment(*each) for each in zip(annotation["names"], annotation["start_frames"], annotation["end_frames"], strict=True)]


def stages_of(head: str) -> Stages:
    return Stages.from_proportions(FIXTURE["heads"][head]["proportions"]) if head in FIXTURE["heads"] else Stages(("task",), (1.0,))


@pytest.mark.parametrize("number", FIXTURE["episodes"])
@pytest.mark.parametrize("head", ["sparse", "dense", "single_stage"])
def test_targets_of_annotated_episodes(number: str, head: str) -> None:
    episode, stages = FIXTURE["episodes"][number], stages_of(head)
    rows = episode["heads"][head]["frames"]
    frames = np.array([row["frame"] for row in rows])
    annotation = episode["heads"][head].get("annotation")
    stage, tau = stage_and_tau(frames, segments(annotation), stages.names, episode["length"])
    if head != "single_stage":
        np.testing.assert_array_equal(stage, [row["stage"] for row in rows])
        np.testing.assert_allclose(tau, [row["tau"] for row in rows], atol=1e-12)
    target = combined(stage, tau, len(stages))
    np.testing.assert_allclose(target, [row["target"] for row in rows], atol=1e-12)
    # its progress is our eq. 2 of what its loss sees
    wanted = [row["progress"] for row in rows]
    np.testing.assert_allclose(progress(*separated(target, len(stages)), stages), wanted, atol=1e-6)


@pytest.mark.parametrize("case", FUNCTIONS["find_stage_and_tau"]["cases"])
def test_targets_of_strange_annotations(case: str) -> None:
    """Overlaps, gaps, zero length, unknown, missing and repeated names, another order, none at all."""
    about = FUNCTIONS["find_stage_and_tau"]
    (names, starts, ends), rows = about["cases"][case]["annotation"], np.array(about["cases"][case]["frames"])
    marked = [Segment(*each) for each in zip(names or (), starts or (), ends or (), strict=True)]
    stage, tau = stage_and_tau(rows[:, 0].astype(int), marked, about["global_names"], about["episode_length"])
    np.testing.assert_array_equal(stage, rows[:, 1])
    np.testing.assert_allclose(tau, rows[:, 2], atol=1e-12)
    np.testing.assert_allclose(combined(stage, tau, 3), rows[:, 3], atol=1e-12)


@pytest.mark.parametrize("case", FUNCTIONS["apply_rewind_augmentation"], ids=lambda case: f"{case['frame']}-{case['asked']}")
def test_rewind_labels(case: Mapping) -> None:
    at, gap, most = np.array([case["frame"] - case["from"]]), case["frame_gap"], case["max_rewind_steps"]
    steps = np.minimum(case["asked"], rewind_room(at, case["n_obs_steps"], most, gap))
    assert steps[0] == case["got"]
    shown, told, valid = rewind(at, steps, case["n_obs_steps"], most, gap=gap)
    np.testing.assert_array_equal(told[valid] + case["from"], case["indices"])
    np.testing.assert_array_equal(shown[0], np.maximum(at - np.arange(1, most + 1) * gap, 0))


@pytest.mark.parametrize("case", [c for c in FUNCTIONS["compute_absolute_indices"] if c["n_obs_steps"] % 2 == 0])
def test_window_frames(case: Mapping) -> None:
    at, length = np.array([case["frame"] - case["from"]]), case["to"] - case["from"]
    frames, _ = centred(at, case["n_obs_steps"], case["frame_gap"], length)
    np.testing.assert_array_equal(frames[0] + case["from"], case["indices"])


@pytest.mark.parametrize("gap", [5, 30])
def test_whole_windows(gap: int) -> None:
    """13 targets: nine of the window, four of the rewind."""
    first = np.cumsum([0, *(episode["length"] for episode in FIXTURE["episodes"].values())])
    for case in FIXTURE["windows"][f"frame_gap_{gap}"]:
        episode, at = FIXTURE["episodes"][str(case["episode"])], np.array([case["index"] - first[case["episode"]]])
        frames, _ = centred(at, 8, gap, episode["length"])
        np.testing.assert_array_equal(frames[0] + first[case["episode"]], case["frames"])
        steps = np.minimum(case["rewind"], rewind_room(at, 8, 4, gap))
        _, told, valid = rewind(at, steps, 8, 4, gap=gap)
        for head in ("sparse", "dense"):
            marked, names = segments(episode["heads"][head].get("annotation")), stages_of(head).names
            where = np.concatenate([frames[0], told[0]])
            target = combined(*stage_and_tau(where, marked, names, episode["length"]), len(names))
            np.testing.assert_allclose(np.where(np.concatenate([[True] * 9, valid[0]]), target, 0), case[head], atol=1e-6)


# The recipe


def recipe(**changes: object) -> tuple[SARMConfig, LeRobotSamples]:
    config = dataclasses.replace(tiny_sarm().config, window="centred", frame_gap=1, **changes)
    episodes = dot_episodes(6, tasks=3)
    config = with_statistics(config, episodes, {})
    data = training_set(SARMModel(config), episodes, reduced_dots(episodes), np.random.default_rng(0))
    return config, LeRobotSamples(data, episodes)


def batches(count: int = 12, **changes: object) -> Sequence[dict]:
    data = recipe(**changes)[1]
    return [data.sample(32, np.random.default_rng(seed)) for seed in range(count)]


def test_one_coin_and_one_instruction_a_batch() -> None:
    rewound, wrong = set(), set()
    for batch in batches(rewind_probability=0.5, language_perturbation_probability=0.5):
        assert len({tuple(text.tolist()) for text in batch["text"]}) == 1
        assert batch["valid"][:, :5].all()
        assert (batch["valid"][:, 6] <= batch["valid"][:, 5]).all()
        rewound.add(bool(batch["valid"][:, 5:].any()))
        wrong.add(bool((batch["sparse_stage"] <= 0).all() and (batch["sparse_tau"].nan_to_num() == 0).all()))
    assert rewound == wrong == {False, True}


def test_the_instruction_is_the_first_samples() -> None:
    config, data = recipe(language_perturbation_probability=0.0)
    texts = {tuple(embed_text(task, config.text_dim).tolist()) for task in data.data.tasks}
    assert {tuple(data.sample(8, np.random.default_rng(s))["text"][0].tolist()) for s in range(20)} == texts


def test_rewound_pictures_and_labels_are_of_different_frames() -> None:
    """The mistake is restated: two frames apart in a window of 4 steps, where ours has none."""
    config, data = recipe(rewind_probability=1.0, language_perturbation_probability=0.0)
    episodes = data.data.episodes
    taus = {tuple(np.round(state, 5)): (n, t) for n, e in enumerate(episodes) for t, state in enumerate(e.state)}
    checked = 0
    for batch in (data.sample(32, np.random.default_rng(seed)) for seed in range(3)):
        for row, place in np.argwhere(batch["valid"].numpy()):
            number, frame = taus[tuple(np.round(batch["state"][row, place].numpy(), 5))]
            told = frame - (config.n_obs_steps // 2 if place >= config.width else 0)
            assert batch["sparse_stage"][row, place] == episodes[number].stage["sparse"][told]
            assert batch["sparse_tau"][row, place] == pytest.approx(episodes[number].tau["sparse"][told])
            checked += place >= config.width
    assert checked > 30


def test_padding_is_blank_and_taught() -> None:
    model = tiny_sarm(window="centred", frame_gap=1, gt_stage_ratio=1.0)
    batch = batches(1, rewind_probability=0.0)[0]
    assert not batch["images"][:, 5:].any()
    assert not batch["state"][:, 5:].any()
    loss, _ = model.loss(taught(batch))
    masked, _ = model.loss(batch)
    assert abs(loss.item() - masked.item()) > 1e-3


def test_its_loss_on_our_samples_is_taught_blank_padding_too() -> None:
    _, data = recipe(rewind_probability=0.5)
    batch = data.data.sample(32, np.random.default_rng(0))
    padding = ~batch["valid"]
    assert batch["images"][padding].any()
    batch = taught(blanked(batch))
    assert not batch["images"][padding].any()
    assert not batch["state"][padding].any()
    assert not batch["sparse_stage"][padding].any()
    assert not batch["sparse_tau"][padding].any()


def test_the_last_frame_is_never_a_sample() -> None:
    _, data = recipe()
    assert set(np.arange(len(data.data.state))) - set(data.rows) == set(data.data.starts[1:] - 1)


def test_one_coin_for_all_samples_and_one_for_each() -> None:
    config = recipe()[0]
    counts = [len(model.coins(32, torch.Generator().manual_seed(0), SINGLE_PROCESS)) for model in (OneCoin(config), SARMModel(config))]
    assert counts == [1, 32]
