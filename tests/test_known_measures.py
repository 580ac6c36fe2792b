"""`milepost evaluate` prints no row, and no column, that is dashes alone: a sentence names it and says why."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from milepost.cli import evaluate
from milepost.cli.entry import main
from milepost.cli.known_measures import OF_CURVES, OF_TRUTH, PLAIN
from milepost.core import Episode
from milepost.datasets.writer import Recording, write_dataset
from milepost.metrics import MEASURES, MORE
from milepost.testing import dot_episodes, write_dots

NO_TRUTH = "left out, because no truth is known (no annotation, no column truth.progress): error; stage accuracy"
NO_OUTCOME = (
    "left out, because the dataset does not say which episodes succeeded (no fact 'success', no column next.success): AUC; final, succ"
)


def bare(episode: Episode) -> Recording:
    """Returns the episode without truth, stages and outcome."""
    images = {name: iter(frames[np.arange(episode.length)]) for name, frames in episode.cameras.items()}
    return Recording(episode.task, episode.state, episode.state, images)


def evaluated(root: str, capsys: pytest.CaptureFixture, *options: str) -> str:
    """Returns what the command prints."""
    capsys.readouterr()
    assert main(["evaluate", root, *options]) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("bare"), map(bare, dot_episodes(4)), fps=10, codec="libx264", robot_type="dot")
    write_dots("dots", dot_episodes(4, failing=2))
    for root in ("bare", "dots"):
        assert main(["label", root, "--model", "elapsed"]) == 0


def dashes(out: str) -> list[str]:
    """Returns the lines of the first table that have no number."""
    return [line for line in out.partition("episodes with such events")[0].splitlines() if line.endswith("  -")]


def test_rows_without_a_number_are_left_out(capsys: pytest.CaptureFixture) -> None:
    out = evaluated("bare", capsys)
    assert not dashes(out)
    assert NO_TRUTH in out
    assert NO_OUTCOME in out
    assert len(out.partition("left out")[0].splitlines()) == 3 + len(("VOC", "VOC-r", "stagnation", "regret"))


def test_json_keeps_every_measure(capsys: pytest.CaptureFixture) -> None:
    numbers = json.loads(evaluated("bare", capsys, "--json"))
    assert numbers["elapsed"]["error"]["value"] is None
    assert numbers["elapsed"]["measures"]["auprc"]["value"] is None


def test_columns_without_a_number_are_left_out(capsys: pytest.CaptureFixture) -> None:
    shutil.copy("bare/elapsed_progress.parquet", "again.parquet")
    out = evaluated("bare", capsys, "--progress", "bare/elapsed_progress.parquet", "again.parquet")
    assert NO_TRUTH in out
    assert NO_OUTCOME in out
    assert "VOC" in out.splitlines()[1]
    assert "error" not in out.splitlines()[1]


@pytest.mark.parametrize(
    ("episodes", "words"), [("2-3", "no episode succeeded: error; stage"), ("0-1", "no episode failed: AUC; final, f")]
)
def test_episodes_of_one_outcome(episodes: str, words: str, capsys: pytest.CaptureFixture) -> None:
    out = evaluated("dots", capsys, "--episodes", episodes)
    assert f"left out, because {words}" in out
    assert not dashes(out)


def test_nothing_is_left_out_where_all_is_known(capsys: pytest.CaptureFixture) -> None:
    assert "left out, because" not in evaluated("dots", capsys)


def test_a_line_says_where_the_measures_of_the_table_are_explained(capsys: pytest.CaptureFixture) -> None:
    line = "milepost evaluate --help says what they mean: VOC, "
    assert line + "AUC, VOC-r, AUPRC, tau-a, milestone coverage, stagnation, regret\n" in evaluated("dots", capsys)
    assert line + "VOC-r, stagnation, regret\n" in evaluated("bare", capsys)


def test_the_help_explains_every_measure() -> None:
    for name, words in {**MEASURES, **MORE}.items():
        assert name in PLAIN or f"{words}: " in " ".join(evaluate.__doc__.split())
    assert {*OF_TRUTH, *OF_CURVES, *PLAIN} <= {*MEASURES, *MORE}
