"""The comparison: arms by hand, intervals that are paired, a run that goes on, and a policy at the controls of the real simulator."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from milepost.core.errors import DataError
from milepost.sim.behaviours import paced
from milepost.sim.closed_loop import observations, success_of
from milepost.sim.compare.arms import ARMS, Mix, rabc_config
from milepost.sim.compare.config import CompareConfig, PolicyConfig, PoolConfig
from milepost.sim.compare.demonstrations import Pool, _simulate, scenes
from milepost.sim.compare.experiment import PolicyJob, Pools, jobs, mixture, read_lines, run, run_one
from milepost.sim.compare.policy import Demonstrations
from milepost.sim.compare.table import rates, recovered
from milepost.sim.tasks import TASKS
from milepost.sim.world import SceneState, scripted
from test_cli import assert_refused, milepost

RULE = rabc_config(4)
TINY = PolicyConfig(chunk_size=4, hidden_dim=16, num_layers=1, steps=5, batch_size=8)


def three() -> Mix:
    """A quick success, a slow one, a failure that stands still: 10, 20 and 12 frames."""
    curves = [np.linspace(0, 1, 10), np.linspace(0, 1, 20), np.zeros(12)]
    progress = {name: np.concatenate(curves).astype(np.float32) for name in ("true", "sarm")}
    return Mix(np.repeat([0, 1, 2], [10, 20, 12]), np.array([True, True, False]), progress)


def kept(arm: str, mix: Mix) -> list[float]:
    """Mean weight of each episode."""
    weight = ARMS[arm](mix, RULE, np.random.default_rng(0))
    return [round(float(weight[mix.episode == e].mean()), 3) for e in range(len(mix.success))]


def test_every_arm_by_hand() -> None:
    mix = three()
    assert kept("uniform", mix) == [1, 1, 1]
    assert kept("short", mix) == [1, 0, 1]
    assert kept("success", mix) == [1, 1, 0]
    assert kept("success+short", mix) == [1, 0, 0]
    good, slow, failed = kept("rabc-true", mix)
    assert good == 1.0
    assert 0.3 < slow < 1.0
    assert failed == 0.0


def test_permuted_weights_are_the_same_weights() -> None:
    mix = three()
    weights = [ARMS[arm](mix, RULE, np.random.default_rng(0)) for arm in ("rabc-sarm", "permuted")]
    np.testing.assert_array_equal(*map(np.sort, weights))
    assert not np.array_equal(*weights)


def test_filters_without_a_success_keep_everything() -> None:
    mix = dataclasses.replace(three(), success=np.zeros(3, bool))
    assert kept("success", mix) == kept("success+short", mix) == [1, 1, 1]


def line(arm: str, seed: int, success: list[int], task: str = "a", share: float = 0.8) -> dict:
    return {"seed": seed, "task": task, "share": share, "arm": arm, "success": success, "mean_weight": 1.0, "key": "k"}


def test_differences_are_paired() -> None:
    """Scenes and seeds differ wildly, the arms by exactly one scene in four everywhere: the interval says so."""
    lines = []
    for seed, hard in enumerate(([0, 0, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0])):
        first = [0, *hard] * 20
        lines += [line("uniform", seed, first), line("rabc-sarm", seed, [1, *hard] * 20), line("rabc-true", seed, [1, *hard] * 20)]
    found = rates(lines, 0.8, ("uniform", "rabc-sarm"))
    rate, gain = found["rabc-sarm"]
    assert gain.value == pytest.approx(0.2)
    assert gain.high - gain.low < 0.12 < rate.high - rate.low
    assert recovered(lines, 0.8).value == pytest.approx(1.0)


def test_cells_without_a_partner_are_not_counted() -> None:
    lines = [line("uniform", 0, [0, 1]), line("rabc-sarm", 0, [1, 1]), line("rabc-sarm", 1, [0, 0]), line("uniform", 2, [1, 1])]
    rate, gain = rates(lines, 0.8, ("rabc-sarm",))["rabc-sarm"]
    assert (rate.value, gain.value, rate.episodes) == (1.0, 0.5, 1)
    assert rates(lines, 0.5, ("uniform",)) == {}
    assert recovered(lines, 0.8) is None


def test_tasks_count_alike_however_many_seeds_they_have() -> None:
    lines = [line("uniform", seed, [1, 1], "a") for seed in range(3)] + [line("uniform", 0, [0, 0], "b")]
    assert rates(lines, 0.8, ("uniform",))["uniform"][0].value == 0.5


def test_what_is_refused() -> None:
    for wrong in ({"tasks": ("fold",)}, {"arms": ("rabc",)}, {"shares": (1.2,)}, {"seeds": ()}, {"execute": 9}, {"trials": 0}):
        with pytest.raises(DataError):
            CompareConfig(**wrong)
    with pytest.raises(DataError, match="annotated"):
        CompareConfig(arms=("rabc-sarm",), pool=PoolConfig(annotated=0))


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Real rollouts, few; SARM's curve is the true one here."""
    rollouts, truths = _simulate("drawer-open-v3", 7, {"expert": 4, "slow": 1, "hesitating": 1, "giving_up": 1, "failing_early": 1})
    frames = Demonstrations(
        np.concatenate([observations(rollout.trace) for rollout in rollouts]),
        np.concatenate([rollout.action for rollout in rollouts]),
        np.repeat(np.arange(len(rollouts)), [len(rollout) for rollout in rollouts]),
    )
    true = np.concatenate([truth.progress for truth in truths])
    return Pool(
        "drawer-open-v3", 0, frames, tuple(r.kind for r in rollouts), np.array([r.success for r in rollouts]), {"true": true, "sarm": true}
    )


def test_a_mix_has_its_share_of_bad_ones_and_smaller_shares_are_in_larger_ones(pool: Pool) -> None:
    assert pool.kind[:4] == ("expert",) * 4
    for share, bad in ((0.0, 0), (0.5, 2), (1.0, 4)):
        chosen = pool.mix(4, share)
        assert len(chosen) == 4
        assert sum(pool.kind[e] != "expert" for e in chosen) == bad
    frames, mix = mixture(pool, 4, 0.5)
    assert mix.episode.max() == 3
    assert len(frames.action) == len(mix.episode) == len(mix.progress["sarm"]) == mix.lengths.sum()
    assert len(mix.success) == 4


def test_a_pool_is_kept_on_disk(pool: Pool, tmp_path: Path) -> None:
    pool.save(tmp_path / "pool.npz")
    back = Pool.load(tmp_path / "pool.npz", pool.task, pool.seed)
    assert back.kind == pool.kind
    np.testing.assert_array_equal(back.frames.action, pool.frames.action)
    np.testing.assert_array_equal(back.progress["sarm"], pool.progress["sarm"])


def test_trial_scenes_are_no_demonstrations() -> None:
    assert scenes(0, 3) == [900_000_000, 900_000_001, 900_000_002]
    assert not set(scenes(0, 1000)) & set(scenes(1, 1000))


def test_the_expert_at_the_controls_succeeds_and_standing_still_does_not() -> None:
    """The expert sees only what a policy sees, and its commands are held for a whole frame."""
    task = "pick-place-v3"
    expert = paced(TASKS[task], scripted(task))

    def act(seen: np.ndarray) -> np.ndarray:
        view = SceneState(seen[:3], float(seen[3]), seen[4:7], seen[7:10], np.array([0.0, 0.0, 0.02]), seen[20:23])
        return expert(view)[None]

    assert success_of(task, act, scenes(0, 4), execute=1).all()
    assert not success_of(task, lambda seen: np.zeros((1, 4)), scenes(0, 2), execute=1).any()


def test_same_job_same_line_and_arms_share_all_but_the_weights(pool: Pool) -> None:
    config = CompareConfig(tasks=(pool.task,), shares=(0.5,), seeds=(0,), trials=2, policy=TINY, execute=4, pool=PoolConfig(episodes=5))
    config = dataclasses.replace(config, pool=dataclasses.replace(config.pool, episodes=5))
    lines = [run_one(PolicyJob(0, pool.task, 0.5, arm), pool, config) for arm in ("uniform", "uniform", "rabc-sarm")]
    numbers = [{k: v for k, v in one.items() if not k.endswith("_s")} for one in lines]
    assert numbers[0] == numbers[1]
    assert numbers[0]["mean_weight"] == 1.0 > numbers[2]["mean_weight"]
    assert numbers[2]["good_weight"] > numbers[2]["bad_weight"]


def test_a_stopped_run_goes_on(pool: Pool, tmp_path: Path) -> None:
    """Lines that are there are not made again; half a line is; another config begins anew."""
    arms = ("uniform", "success")
    config = CompareConfig(
        tasks=(pool.task,), shares=(0.5,), arms=arms, seeds=(0,), trials=1, policy=TINY, execute=4, pool=PoolConfig(5, 0)
    )  # fmt: skip
    pool.save(tmp_path / f"demonstrations-{pool.task}-0-{Pools(tmp_path, config.pool).mark}.npz")
    seen: list[tuple[int, int]] = []
    first = run(config, tmp_path, on_progress=lambda name: lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2, 2)
    path = tmp_path / "runs.jsonl"
    assert [one["arm"] for one in read_lines(path)] == list(arms)
    one, two = path.read_text().splitlines()
    path.write_text(f"{one}\n{two[:30]}")
    assert read_lines(path) == [first[0]]
    again = run(config, tmp_path, on_progress=lambda name: lambda done, total: None)
    assert again[0] == first[0]
    assert again[1]["success"] == first[1]["success"]
    assert dataclasses.replace(config, trials=2).key() != config.key()
    assert len(list(jobs(config))) == 2
    assert [json.loads(text)["arm"] for text in (path.read_text().splitlines()[0], path.read_text().splitlines()[-1])] == list(arms)
    assert read_lines(path) == [first[0], again[1]]


def test_the_verb(tmp_path: Path) -> None:
    """Without SARM nothing is drawn; the second call finds everything done, and the table has both arms."""
    small = ("--episodes", 5, "--seeds", 1, "--trials", 1, "--steps", 5, "--output-dir", tmp_path / "out", "--tasks", "drawer-open-v3")
    run = milepost("compare", *small, "--arms", "rabc-true", "--json")
    assert run.returncode == 0, run.stderr
    (said,) = json.loads(run.stdout)
    assert said["share"] == 0.8
    assert set(said["arms"]) == {"uniform", "rabc-true"}
    assert said["arms"]["uniform"]["gain"] == 0
    before = (tmp_path / "out" / "runs.jsonl").read_bytes()
    run = milepost("compare", *small, "--arms", "rabc-true")
    assert run.returncode == 0, run.stderr
    assert "minus uniform" in run.stdout
    assert (tmp_path / "out" / "runs.jsonl").read_bytes() == before
    assert_refused(milepost("compare", "--tasks", "fold"), "unknown task", "pick-place-v3")
    assert_refused(milepost("compare", "--arms", "best", "--output-dir", tmp_path / "no"), "unknown arm", "rabc-sarm")
    assert not (tmp_path / "no").exists()
