"""What `milepost info` says of the robot's numbers together, and of statistics that are not theirs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.datasets import Recording, leave_out_verb, open_dataset, validate, write_dataset
from milepost.datasets.behaviour import Behaviour

FPS, LENGTHS = 10, (60, 50, 50)
NAMES = ("shoulder.pos", "gripper.pos")
Change = Callable[[np.ndarray, np.ndarray], Any]


def path_of(seed: int, length: int) -> np.ndarray:
    """A smooth way of two joints, with the noise of a sensor."""
    rng = np.random.default_rng(seed)
    times = np.arange(length)[:, None] / FPS
    return (40 * np.sin(times * (0.7, 1.1) + seed) + rng.normal(scale=0.05, size=(length, 2))).astype(np.float32)


def write(root: Path, change: Change = lambda state, action: None, episode: int = 1) -> Path:
    recordings = []
    for number, length in enumerate(LENGTHS):
        state = path_of(number, length)
        action = state + 1
        if number == episode:
            change(state, action)
        names = {"observation.state": NAMES, "action": NAMES}
        recordings.append(Recording(("push", "lift")[number % 2], state, action, {}, names=names))
    write_dataset(root, recordings, fps=FPS)
    return root


def codes(root: Path) -> list[tuple[str, int | None]]:
    return [(each.code, each.episode) for each in validate(root).findings]


def rest(state: np.ndarray, action: np.ndarray) -> None:
    state[20:36] = state[20]


def rest_together(state: np.ndarray, action: np.ndarray) -> None:
    state[20:36], action[20:36] = state[20], action[20]


def short_rest(state: np.ndarray, action: np.ndarray) -> None:
    state[20:28] = state[20]


def spike(state: np.ndarray, action: np.ndarray) -> None:
    state[30, 0] += 60


def step(state: np.ndarray, action: np.ndarray) -> None:
    state[30:, 1] += 60  # a gripper that opens at once stays open


def again(state: np.ndarray, action: np.ndarray) -> None:
    state[:], action[:] = path_of(2, 50), path_of(2, 50) + 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state, action: None, []),
        (rest, [("state-rests", 1)]),
        (rest_together, []),
        (short_rest, []),
        (spike, [("spike", 1)]),
        (step, []),
        (again, [("duplicate", 2)]),
    ],
)
def test_the_state_of_an_episode(tmp_path: Path, change: Change, expected: list[tuple[str, int]]) -> None:
    assert codes(write(tmp_path / "set", change)) == expected


def test_a_spike_is_named_with_its_place_and_its_size(tmp_path: Path) -> None:
    (finding,) = validate(write(tmp_path / "set", spike)).findings
    for words in ("frame 30, channel 'shoulder.pos'", "by 5", "usually at most", "copy --without"):
        assert words in finding.message
    assert finding.episode == 1


def noise_at_rest(state: np.ndarray, action: np.ndarray) -> None:
    """Lets a joint stand still, whose sensor is off by next to nothing for one row."""
    state[:, 0] = 1
    state[30, 0] += 1e-5


@pytest.mark.parametrize(("change", "count"), [(spike, 1), (noise_at_rest, 0)])
def test_spikes_do_not_depend_on_how_the_episodes_are_spread_over_files(tmp_path: Path, change: Change, count: int) -> None:
    """LeRobot v2.1 has a file for each episode, v3.0 has one for many: the range of a channel is that of the whole dataset."""
    dataset = open_dataset(write(tmp_path / "set", change))
    table = pq.read_table(next((dataset.root / "data").rglob("*.parquet")), partitioning=None)
    owner = table["episode_index"].to_numpy()
    whole = {name: np.stack(table[name].to_numpy()) for name in ("observation.state", "action")} | {"episode_index": owner}
    words = []
    for files in ([[0, 1, 2]], [[0], [1], [2]], [[1], [2, 0]]):
        behaviour = Behaviour(dataset.root, dataset.meta, dataset.meta.arrays)
        for own in files:
            rows = np.concatenate([np.flatnonzero(owner == number) for number in own])
            behaviour.take({name: values[rows] for name, values in whole.items()})
        words.append([(each.message, each.episode) for each in behaviour.results() if each.code == "spike"])
    assert words[0] == words[1] == words[2]
    assert len(words[0]) == count


@pytest.mark.parametrize("seed", range(8))
def test_the_first_spike_is_the_one_of_the_rule_one_episode_at_a_time(tmp_path: Path, seed: int) -> None:
    """The episodes of one length are looked at together; the rule is of each alone."""
    dataset, rng = open_dataset(write(tmp_path / "set")), np.random.default_rng(seed)
    lengths = rng.integers(1, 30, size=40)
    states = [rng.normal(scale=0.1, size=(length, 2)).cumsum(axis=0) for length in lengths]
    for state in states[seed % 2 :: 7]:
        state[rng.integers(len(state)), rng.integers(2)] += 30
    whole, usual = np.concatenate(states), np.median([np.percentile(abs(np.diff(s, axis=0)), 98, 0) for s in states if len(s) > 1], axis=0)
    limit = np.maximum(0.25 * np.ptp(whole, axis=0), 5 * usual)
    places = []
    for episode, state in enumerate(states):
        for frame, channel in itertools.product(range(1, len(state) - 1), range(2)):
            there, back = np.diff(state[frame - 1 : frame + 2, channel])
            if there * back < 0 and min(abs(there), abs(back)) > limit[channel]:
                places.append((episode, frame, channel))
    behaviour = Behaviour(dataset.root, dataset.meta, dataset.meta.arrays)
    behaviour.take({"observation.state": whole, "episode_index": np.repeat(np.arange(40), lengths)})
    finding = next(each for each in behaviour.results() if each.code == "spike")
    assert finding.episode == places[0][0]
    assert f"frame {places[0][1]}, channel '{NAMES[places[0][2]]}'" in finding.message
    assert f"(so in {len({episode for episode, _, _ in places})} episodes" in finding.message


def test_a_joint_with_one_value_throughout_is_named_where_its_action_moves(tmp_path: Path) -> None:
    def stick(state: np.ndarray, action: np.ndarray) -> None:
        state[:, 1] = 3

    recordings = []
    for number, length in enumerate(LENGTHS):
        state = path_of(number, length)
        action = state.copy()
        stick(state, action)
        recordings.append(Recording("push", state, action, {}, names={"observation.state": NAMES, "action": NAMES}))
    write_dataset(tmp_path / "set", recordings, fps=FPS)
    (finding,) = validate(tmp_path / "set").findings
    assert finding.code == "stuck"
    assert "gripper.pos" in finding.message
    assert "shoulder" not in finding.message


def test_another_task_in_meta_than_in_the_rows_is_said(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path, partitioning=None)
    tasks = pa.array([["push"], ["push"], ["push"]])
    pq.write_table(table.set_column(table.column_names.index("tasks"), "tasks", tasks), path)
    assert codes(root) == [("task-differs", 1)]


def without_state(stats: dict[str, Any]) -> None:
    stats.pop("observation.state")


def nan_std(stats: dict[str, Any]) -> None:
    stats["action"]["std"][0] = float("nan")


def other_unit(stats: dict[str, Any]) -> None:
    stats["observation.state"]["max"] = [value / 57.3 for value in stats["observation.state"]["max"]]


def other_width(stats: dict[str, Any]) -> None:
    stats["action"]["min"] += [0.0]


def words(stats: dict[str, Any]) -> None:
    stats["action"]["mean"] = "unknown"


def rounded(stats: dict[str, Any]) -> None:
    stats["action"]["max"] = [round(value, 1) for value in stats["action"]["max"]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without_state, [("warning", "nothing of 'observation.state'")]),
        (nan_std, [("error", "std of 'action'")]),
        (other_unit, [("warning", "'observation.state' [0] goes from")]),
        (other_width, [("warning", "has 3 numbers for 'action'")]),
        (words, [("error", "mean of 'action'")]),
        (rounded, []),
    ],
)
def test_statistics(tmp_path: Path, change: Callable[[dict[str, Any]], None], expected: list[tuple[str, str]]) -> None:
    root = write(tmp_path / "set")
    path = root / "meta/stats.json"
    stats = json.loads(path.read_text())
    change(stats)
    path.write_text(json.dumps(stats))
    found = [(each.severity, each.message) for each in validate(root).findings if each.code == "stats"]
    assert len(found) == len(expected)
    for (severity, message), (kind, part) in zip(found, expected, strict=True):
        assert severity == kind
        assert part in message


def test_a_spike_names_the_verb_that_leaves_an_episode_out_of_this_version() -> None:
    verbs = {version: leave_out_verb(version) for version in ("v2.0", "v2.1", "v3.0")}
    assert verbs == {"v2.0": "milepost import", "v2.1": "milepost import", "v3.0": "milepost copy"}
