"""Training: learns the dot world, resumes exactly, splits by scene, refuses what would be a lie."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.models.sarm.config import SARMConfig
from milepost.models.sarm.train import train_sarm
from milepost.models.training.config import TrainConfig
from milepost.models.training.episodes import one_sided, split
from milepost.models.training.evaluation import evaluate_held_out
from milepost.models.training.loop import learning_rate
from milepost.models.training.recipe import TrainResult
from milepost.testing import dot_episodes

SMALL = SARMConfig(
    annotation_mode="sparse_only", hidden_dim=32, num_layers=1, num_heads=2, encoder="pixels", image_dim=16, text_dim=8,
    max_state_dim=4, n_obs_steps=3, gap_s=0.2, max_rewind_steps=0, rewind_probability=0.0, dropout=0.0,
)  # fmt: skip
QUICK = TrainConfig(steps=120, batch_size=48, lr=3e-3)


def run(folder: Path, config: SARMConfig = SMALL, train: TrainConfig = QUICK, on_step: object = None, **changes: object) -> TrainResult:
    def on_stage(name: str) -> object:
        return on_step if on_step and name == "train" else lambda done, total: None

    arguments = {"folder": folder, "stages": {}, "holdout": 0.25, "on_stage": on_stage, **changes}
    return train_sarm(dot_episodes(24, failing=6, tasks=2), config, train, **arguments)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_the_dot_world(tmp_path: Path) -> None:
    trained = run(tmp_path)
    held = [e for e in dot_episodes(24, failing=6, tasks=2) if e.index in trained.held_out]
    table = evaluate_held_out(trained.model, held, on_progress=lambda done, total: None, seed=0)
    assert table["sarm"].error.value < 0.08
    assert table["sarm"].stage_accuracy.value > 0.85
    assert table["sarm"].auc.value == 1.0
    assert table["elapsed"].auc.value < 0.9
    assert losses(tmp_path)[-1] < 0.3 * losses(tmp_path)[0]


def test_resume_is_exact(tmp_path: Path) -> None:
    train = dataclasses.replace(QUICK, steps=12)
    run(tmp_path / "whole", train=train)

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", train=train, on_step=interrupt)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    run(tmp_path / "parts", train=train)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_run_is_not_continued(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_step=interrupt)
    train = dataclasses.replace(QUICK, steps=3, seed=1)
    with pytest.raises(DataError, match="unfinished run with other settings"):
        run(tmp_path, train=train)
    run(tmp_path, train=dataclasses.replace(train, overwrite=True))
    assert len(losses(tmp_path)) == 3


def test_same_seed_same_model(tmp_path: Path) -> None:
    train = dataclasses.replace(QUICK, steps=4)
    for name in ("a", "b"):
        run(tmp_path / name, train=train)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_scenes_stay_on_one_side() -> None:
    episodes = [dataclasses.replace(e, facts={**e.facts, "scene": e.index // 2}) for e in dot_episodes(20)]
    train, held = split(episodes, 0.3, np.random.default_rng(0))
    assert not {e.facts["scene"] for e in train} & {e.facts["scene"] for e in held}
    assert len(train) + len(held) == 20
    assert len(held) == 6


def test_the_split_keeps_every_kind_on_both_sides() -> None:
    train, held = split(dot_episodes(24, failing=6, tasks=2), 0.25, np.random.default_rng(0))
    for side in (train, held):
        assert {(e.task, e.facts["kind"]) for e in side} == {(t, k) for t in {e.task for e in train} for k in ("expert", "giving_up")}


def test_without_kinds_both_sides_see_both_outcomes() -> None:
    """Of 12 episodes without a kind every third failed: a quarter held out has its failure, whatever the seed."""
    episodes = [dataclasses.replace(e, facts={"success": e.index % 3 != 0}) for e in dot_episodes(12)]
    for seed in range(10):
        train, unseen = split(episodes, 0.25, np.random.default_rng(seed))
        assert {e.success for e in train} == {e.success for e in unseen} == {True, False}
    assert one_sided(episodes, [0, 1]) == []
    assert one_sided(episodes, []) == []
    assert "no held-out episode failed" in one_sided(episodes, [1, 2])[0]
    assert "no held-out episode succeeded" in one_sided(episodes, [0, 3])[0]
    assert one_sided([e for e in episodes if e.success], [1]) == []


def test_a_small_share_of_many_small_groups_is_still_its_share() -> None:
    """24 episodes, each kind of each task alone or nearly so: a tenth is two of them, not none; who stands alone is learnt from."""
    episodes = [dataclasses.replace(e, facts={**e.facts, "kind": f"kind {e.index % 8}"}) for e in dot_episodes(24, tasks=1)]
    for share, count in ((0.1, 2), (0.3, 8), (0.01, 1), (0.0, 0)):
        train, held = split(episodes, share, np.random.default_rng(0))
        assert len(held) == count
        assert {e.facts["kind"] for e in train} == {f"kind {k}" for k in range(8)}
    alone = [dataclasses.replace(e, facts={**e.facts, "kind": f"kind {e.index}"}) for e in dot_episodes(5)]
    assert split(alone, 0.4, np.random.default_rng(0))[1] == []


def test_nothing_is_held_out_when_not_asked() -> None:
    train, held = split(dot_episodes(5), 0.0, np.random.default_rng(0))
    assert len(train) == 5
    assert not held


def test_single_stage_leaves_failures_out(tmp_path: Path) -> None:
    trained = run(tmp_path, dataclasses.replace(SMALL, annotation_mode="single_stage"), dataclasses.replace(QUICK, steps=2))
    assert "failed" in str(trained.left_out[0])
    assert not set(trained.train_episodes) & set(trained.left_out[0].episodes)


def test_the_schedule() -> None:
    config = TrainConfig(steps=100, lr=1.0, warmup=0.1)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert np.argmax(rates) in (9, 10)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TrainConfig(steps=0)
    with pytest.raises(ValueError, match="holdout"):
        split(dot_episodes(2), 1.0, np.random.default_rng(0))
