"""The study of progress as a reward (benchmarks/rl_study.py) on a line of ten places: its rewards, its resuming and its report."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="environments need the extra 'gymnasium'")
pytest.importorskip("stable_baselines3", reason="the study trains with Stable-Baselines3")
pytest.importorskip("metaworld", reason="simulation needs the extra 'sim'")

from benchmarks import rl_report, rl_study  # noqa: E402
from benchmarks.rl_world import true_progress  # noqa: E402

from milepost.core import Step  # noqa: E402
from milepost.online import FrameData  # noqa: E402
from milepost.sim.rollout import SimConfig, roll_out  # noqa: E402
from milepost.sim.truth import Ranking, truth_of_rollouts  # noqa: E402
from milepost.sim.world import SceneState  # noqa: E402


class LineEnv(gymnasium.Env):
    """A walk from 0 to 1; done near 0.9."""

    instruction = "go right"

    def __init__(self, limit: int) -> None:
        self.limit, self.place, self.decisions = limit, 0.0, 0
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.decisions = 0.2, 0
        return np.array([self.place], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = float(np.clip(self.place + 0.1 * action[0], 0, 1))
        self.decisions += 1
        is_done = self.place >= 0.89
        return np.array([self.place], np.float32), float(is_done), is_done, self.decisions >= self.limit, {}

    def progress(self) -> float:
        return self.place


class Brightness:
    """A reward model that takes the brightness of an image for progress, and has never seen a dark one: 0.1 too much there."""

    def begin(self, *, task: str, fps: float) -> None: ...

    def advance(self, attempts: Any, frames: Any, states: Any) -> list[Step]:
        return [Step(min(1.0, 0.1 + float(frame["camera"].mean()) / 255)) for frame in frames]


def frame(env: LineEnv) -> FrameData:
    return FrameData({"camera": np.full((8, 8, 3), int(255 * env.place), np.uint8)})


PLACES = rl_study.Places(lambda task, dense, limit: LineEnv(limit), lambda task, wide: Brightness(), frame)
SAC = {"learning_rate": 1e-3, "batch_size": 8, "buffer_size": 200, "train_freq": 4, "policy_kwargs": {"net_arch": [8]}}
SETTINGS = rl_study.Settings(limit=12, every=30, episodes=2, first=20, sac=SAC)
JOBS = [rl_study.Job("line", name, seed, 60) for seed in (1, 2) for name in ("sparse", "sarm")]


@pytest.mark.parametrize(("condition", "first"), [("sparse", 0.0), ("clock", 0.0), ("true", 0.2), ("sarm", 0.3)])
def test_a_potential_adds_the_same_to_every_way_that_succeeds(condition: str, first: float) -> None:
    """The discounted sum of an episode is that of the sparse reward, minus the potential of its first state."""
    rewards, _ = walk(condition)
    assert discounted(rewards) == pytest.approx(10 * (0.95**6 - first))


def test_absolute_progress_pays_in_every_step() -> None:
    rewards, places = walk("sarm-absolute")
    assert rewards[:-1] == pytest.approx([10 * (place + 0.1) for place in places[:-1]], abs=0.05)


def walk(condition: str) -> tuple[list[float], list[float]]:
    """Walks from 0.2 to success in seven steps; returns rewards and places."""
    env = rl_study.environment(rl_study.Job("line", condition, 0, 10), SETTINGS, PLACES)
    env.reset(seed=0)
    rewards, places, is_done = [], [], False
    while not is_done:
        _, reward, is_done, _, _ = env.step(np.array([1.0]))
        rewards.append(reward)
        places.append(env.unwrapped.progress())
    assert len(rewards) == 7
    return rewards, places


def discounted(rewards: list[float]) -> float:
    return sum(reward * 0.95**place for place, reward in enumerate(rewards))


def test_a_stopped_study_goes_on_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = rl_study.study(JOBS[:3], tmp_path, SETTINGS, PLACES)
    assert [len(line["points"]) for line in lines] == [2, 2, 2]
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-5])  # a kill during the third line
    capsys.readouterr()
    again = rl_study.study(JOBS, tmp_path, SETTINGS, PLACES)
    assert again[:2] == lines[:2]
    assert len(again) == 4
    assert [text.split()[1] for text in capsys.readouterr().out.splitlines()] == ["3", "4"]  # the first two were not run again
    assert again[2]["points"] == lines[2]["points"]  # the same seed gives the same run
    assert len(rl_study.finished(tmp_path, SETTINGS)) == 4
    assert not rl_study.finished(tmp_path, dataclasses.replace(SETTINGS, gamma=0.9))

    row = {"task": "line", "model": "sarm", "progress": 0.5, "truth": 0.1, "far": 0.25}
    (tmp_path / "beyond.json").write_text(json.dumps([row]))
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *rl_report.MARKS, "after"]))
    rl_report.write(again, tmp_path, total=4, page=page, figures=tmp_path / "figures")
    text = page.read_text()
    assert (text[:6], text[-5:]) == ("before", "after")
    assert "| sarm | 2 |" in text
    assert "| line | sarm | 0.500 | 0.100 | 0.250 |" in text
    assert (tmp_path / "figures" / "rl_curves.png").stat().st_size > 1000


def run_line(condition: str, seed: int, rates: list[float], **more: Any) -> dict[str, Any]:
    points = [(100 * (place + 1), rate, rate) for place, rate in enumerate(rates)]
    return {"task": "line", "condition": condition, "seed": seed, "points": points, **more}


def test_differences_are_taken_seed_by_seed() -> None:
    lines = [run_line("sparse", 1, [0, 0.5]), run_line("sparse", 2, [0, 1]), run_line("sarm", 1, [0.5, 1]), run_line("sarm", 2, [1, 1])]
    assert rl_report.paired([*lines, run_line("sarm", 3, [1, 1])], "sarm", "sparse") == [0.5, 0.5]
    value, low, high = rl_report.mean_with_interval([0.2, 0.4, 0.6])  # sd 0.2, t 4.303 of two degrees of freedom
    assert (value, low, high) == pytest.approx((0.4, 0.4 - 4.303 * 0.2 / 3**0.5, 0.4 + 4.303 * 0.2 / 3**0.5))
    assert [rl_report.arrival(line) for line in (lines[0], run_line("sparse", 1, [0.1, 0.4]))] == [200, np.inf]
    assert rl_report.words((0.2, 0.1, 0.3), signed=True) == "**+0.20 [+0.10, +0.30]**"


def test_attempts_that_fool_the_model_are_counted_and_kept(tmp_path: Path) -> None:
    columns = {"success": [1, 0, 0, 0], "progress": [1, 0.1, 0.9, 0.1], "model_end": [1, 0.9, 0.95, 0.2], "model_best": [1, 0.9, 0.95, 0.5]}
    row = rl_report.fooled_table([run_line("sarm", 1, [0.0], **columns)]).splitlines()[2]
    assert row == "| sarm | 3 of 4 | 0.37 | 0.68 | 0.95 | 2 | 1 |"
    images = [np.zeros((8, 8, 3), np.uint8)] * 9
    fooling, honest = (rl_study.Attempt(False, 0.1, 8, [end] * 9, images, [[0.5]] * 9) for end in (0.9, 0.2))
    job = {"task": "line", "condition": "sarm", "seed": 1}
    rl_report.keep_worst(tmp_path, job, [honest])
    assert not (tmp_path / "worst").exists()
    rl_report.keep_worst(tmp_path, job, [honest, fooling])
    assert "SARM ends at 0.90, the truth at 0.10" in rl_report.strip(tmp_path / "worst" / "line-sarm-1.npz").get_suptitle()


def test_true_progress_is_that_of_the_labels() -> None:
    rollouts = roll_out(SimConfig(tasks=("button-press-v3",), episodes={"expert": 24}, seed=301))
    truths, _ = truth_of_rollouts(rollouts)
    rollout, truth = rollouts[3], truths[3]
    trace = rollout.trace
    views = [SceneState(*row, trace.thing[0], trace.goal) for row in zip(trace.hand, trace.opening, trace.thing, trace.tip, strict=True)]
    values = [true_progress("button-press-v3", views[0], view) for view in views]
    assert Ranking("button-press-v3", [each.trace for each in rollouts]).tau(trace)[0] == pytest.approx(truth.tau[0])
    np.testing.assert_allclose(values, truth.progress, atol=1e-6)
