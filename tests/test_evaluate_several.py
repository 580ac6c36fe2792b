"""`evaluate` with several progress files: rows, paired differences worked by hand, episodes that a file lacks, JSON."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import milepost
from milepost.core.errors import DataError
from milepost.core.types import Curve, Episode, Progress, Signal
from milepost.metrics.evaluation import EpisodeScore
from milepost.metrics.paired import paired_differences
from milepost.progress.beside import evaluate_several
from milepost.progress.labelling import label
from milepost.testing import write_example
from test_cli import assert_refused
from test_cli import milepost as command
from test_label_several import Says


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dots") / "dots"
    dataset = write_example(root)
    for value in (0.25, 0.75):
        label(Says(value), dataset, root / f"says{value}_progress.parquet")
    label(Says(0.5), dataset.only([0, 1, 2, 3]), root / "some_progress.parquet")
    return root


def score(episode: int, error: float, end: float, success: bool) -> EpisodeScore:
    return EpisodeScore(episode, "", "", success, error, float("nan"), float("nan"), end, 1.0)


def test_differences_are_of_pairs() -> None:
    """Errors differ by 0.1 and 0.3; a third is unknown to one. Every failure ends higher under the second model than under the first."""
    ends = [(0.9, 0.8, True), (0.8, 0.9, True), (0.1, 0.85, False), (0.2, 0.95, False)]
    errors = [(0.2, 0.3), (0.1, 0.4), (float("nan"), 0.7), (0.5, 0.9)]
    rows = list(zip(ends, errors, strict=True))
    first = [score(n, error[0], end[0], end[2]) for n, (end, error) in enumerate(rows)]
    other = [score(n, error[1], end[1], end[2]) for n, (end, error) in reversed(list(enumerate(rows)))]
    found = paired_differences(first, [*other, score(9, 5.0, 5.0, success=True)], np.random.default_rng(0))
    assert (found["error"].value, found["error"].episodes) == (pytest.approx(0.2), 2)
    assert (found["error"].low, found["error"].high) == (pytest.approx(0.1), pytest.approx(0.3))
    assert found["final_success"].value == pytest.approx(0.0)
    assert found["final_failure"].value == pytest.approx(0.75)
    assert found["auc"].value == pytest.approx(0.25 - 1.0)  # of four pairs one is in order: 0.9 above 0.85
    assert found["succ_fail_diff"].value == pytest.approx(-0.05 - 0.7)
    assert np.isnan(found["order"].value)
    same = paired_differences(first, first, np.random.default_rng(0))
    assert {each.value for each in same.values() if not np.isnan(each.value)} == {0.0}
    alone = paired_differences(first, [dataclasses.replace(each, episode=each.episode + 100) for each in other], np.random.default_rng(0))
    assert all(np.isnan(each.value) for each in alone.values())


def test_a_row_for_each_file_and_the_differences(dots: Path) -> None:
    files = [dots / "says0.25_progress.parquet", dots / "says0.75_progress.parquet", dots / "elapsed_progress.parquet"]
    run = command("evaluate", dots, "--progress", *files)
    assert run.returncode == 0, run.stderr
    lines = [" ".join(line.split()) for line in run.stdout.splitlines()]
    assert lines[0].startswith("6 episodes that all files have, against: simulator")
    starts = [line.split(" ")[0] for line in lines]
    assert starts.count("says0.25") >= 2
    assert starts.count("says0.75") >= 3
    assert "(computed)" in run.stdout
    numbers = json.loads(command("evaluate", dots, "--progress", *files, "--json").stdout)
    assert list(numbers["files"]) == ["says0.25", "says0.75", "elapsed"]
    assert numbers["differences_from"] == "says0.25"
    error = {name: each["error"]["value"] for name, each in numbers["files"].items()}
    assert numbers["differences"]["says0.75"]["error"]["value"] == pytest.approx(error["says0.75"] - error["says0.25"], abs=1e-6)
    assert numbers["files"]["elapsed"]["error"] == numbers["elapsed (computed)"]["error"]
    one = json.loads(command("evaluate", dots, "--progress", files[1], "--json").stdout)
    assert one["says0.75"]["error"] == numbers["files"]["says0.75"]["error"]  # the same episodes: the same numbers as alone
    assert one["success"] == numbers["files"]["says0.75"]["success"]


class TwoProgresses:
    """A model whose signal is called as the curve is, and says the opposite of it."""

    def predict(self, episode: Episode) -> Progress:
        value = np.full(episode.length, float(bool(episode.success)), np.float32)
        return Progress(episode.index, Curve(value, signals={"progress": Signal(1 - value, low=0.0, high=1.0)}))


def test_a_signal_called_progress_has_a_row_of_its_own(dots: Path, tmp_path: Path) -> None:
    """And a file called as another entry of the JSON keeps its numbers."""
    path = tmp_path / "success_progress.parquet"
    label(TwoProgresses(), milepost.open_dataset(dots), path)
    lines = milepost.evaluate(dots, path).thresholds()
    assert (lines["progress"].auc, lines["raw_progress"].auc) == (1.0, 0.0)
    numbers = json.loads(command("evaluate", dots, "--progress", path, "--json").stdout)
    assert {name: line["auc"] for name, line in numbers["success"].items()} == {"progress": 1.0, "raw_progress": 0.0}
    assert numbers["success (file)"]["final_success"]["value"] == pytest.approx(1.0)
    rows = [line.split() for line in command("evaluate", dots, "--progress", path).stdout.splitlines()]
    assert {row[0]: row[1] for row in rows if row and row[0] in ("progress", "raw_progress")} == {
        "progress": "1.000",
        "raw_progress": "0.000",
    }


def test_episodes_that_a_file_lacks_are_in_no_row(dots: Path, tmp_path: Path) -> None:
    files = [dots / "says0.25_progress.parquet", dots / "some_progress.parquet"]
    run = command("evaluate", dots, "--progress", *files)
    assert run.returncode == 0, run.stderr
    assert "4 episodes that all files have" in run.stdout
    assert "says0.25 has 2 more episodes that another file lacks; they are left out" in " ".join(run.stdout.split())
    assert_refused(command("evaluate", dots, "--progress", *files, "--episodes", "5"), "no episode is in all of these files")
    compared = evaluate_several(dots, {"a": files[0], "b": files[1]})
    assert compared.left_out == {"a": 2, "b": 0}
    assert set(compared.summaries()) == {"a", "b", "elapsed"}
    assert len(repr(compared).splitlines()) == 4
    with pytest.raises(DataError, match="at least one"):
        milepost.evaluate_several(dots, {})
    assert_refused(command("evaluate", dots, "--progress", tmp_path / "none.parquet", files[0]), "none.parquet")


def test_episodes_that_one_file_lacks_are_named(dots: Path) -> None:
    run = command("evaluate", dots, "--progress", dots / "some_progress.parquet")
    assert run.returncode == 0
    assert "some_progress.parquet has no row of 2 episodes (" in " ".join(run.stderr.split())
    evaluation = milepost.evaluate(dots, dots / "some_progress.parquet")
    assert len(evaluation.absent) == 2
    assert "Evaluation of 4 episodes, 2 not in the file" in repr(evaluation)
    assert "has no row of" not in command("evaluate", dots, "--progress", dots / "some_progress.parquet", "--episodes", "0").stderr
