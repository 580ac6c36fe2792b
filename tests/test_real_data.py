"""The benchmark over real recordings: its walk through the verbs, on a dataset of dots, and the numbers that are its own."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks import real_data, real_walk

from milepost.core import Curve
from milepost.testing import dot_episodes, write_dots


def test_every_verb_goes_through_without_a_step_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MILEPOST_CACHE", str(tmp_path / "cache"))
    write_dots(tmp_path / "sets" / "dots", dot_episodes(3))
    given = [str(tmp_path / "sets"), "--only", "dots", "--steps", "2", "--out", str(tmp_path / "walk")]
    assert real_walk.main(given) == 0, (tmp_path / "walk" / "dots" / "log.txt").read_text()
    line = capsys.readouterr().out
    assert [word for word in line.replace(":", "").split() if word.isalpha() and word not in ("ok", "s", "dots")] == [
        "info", "train", "label", "evaluate", "audit", "plot", "view",
    ]  # fmt: skip
    assert (tmp_path / "walk" / "dots" / "page.html").stat().st_size > 10_000


def test_a_verb_that_fails_and_a_dataset_that_changes_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dots(tmp_path / "dots", dot_episodes(2))

    def verb(words: list[str]) -> int:
        (tmp_path / "dots" / "new").write_text(words[0])
        return {"label": 2, "audit": 1}.get(words[0], 0)

    monkeypatch.setattr(real_walk, "milepost", verb)
    outcome = real_walk.walk(tmp_path / "dots", tmp_path / "out", 2)
    assert {name for name, what in outcome.items() if "FAILS" in what} == {"label", "dataset"}


def test_a_stopwatch_knows_the_usual_length_and_not_this_one() -> None:
    assert real_data.stopwatch(3, usual=5).tolist() == [0, 0.25, 0.5]
    assert real_data.stopwatch(5, usual=3).tolist() == [0, 0.5, 1, 1, 1]


def test_the_error_against_time_is_paired() -> None:
    episodes = dot_episodes(2)
    half = {each.index: Curve(np.full(each.length, 0.5, dtype=np.float32)) for each in episodes}
    right = {each.index: Curve(real_data.clock(each.length)) for each in episodes}
    numbers = real_data.against_time(episodes, half, right, seed=0)
    assert numbers["time_stopwatch"].startswith("0.000")
    assert numbers["time_model"] == numbers["time_difference"]
    expected = np.mean([np.abs(right[each.index].value - 0.5).mean() for each in episodes])
    assert float(numbers["time_model"].split()[0]) == pytest.approx(expected, abs=1e-3)


def test_folds_are_dealt_by_episode_or_by_task() -> None:
    episodes = dot_episodes(8, tasks=4)
    by_episode = real_data.folds(episodes, real_data.Variant(4), 0)
    order = np.random.default_rng(0).permutation(8)
    assert {fold: {i for i in range(8) if by_episode[i] == fold} for fold in range(4)} == {f: set(order[f::4].tolist()) for f in range(4)}
    by_task = real_data.folds(episodes, real_data.Variant(2, by_task=True), 0)
    assert all(len({by_task[each.index] for each in episodes if each.task == task}) == 1 for task in {each.task for each in episodes})
    assert set(by_task.values()) == {0, 1}


def test_variants_are_compared_episode_by_episode() -> None:
    errors = {"errors_clock": {"0": 0.1, "1": 0.1}, "errors_stopwatch": {"0": 0.1, "1": 0.1}}
    lines = [{"set": "a", "variant": name, "errors_model": {"0": at, "1": at + 0.1}, **errors} for name, at in (("x", 0.2), ("y", 0.1))]
    assert real_data.paired(lines, 0)[0] == "- a: x minus y: +0.100 [+0.100, +0.100]"
