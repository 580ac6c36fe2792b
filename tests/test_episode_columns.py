"""`copy --episode-columns`: what is known of each episode stands in meta/episodes of the copy, under stable names; the source stays."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import build_dataset
from idle import resting_dataset
from milepost.cli.entry import main
from milepost.datasets.reader import open_dataset
from milepost.datasets.validation import validate
from milepost.viewer.marks import Mark, Marks, marks_file
from milepost.weights.file import write_weights_file
from parquet_content import tree
from reviewed import LENGTHS, annotated_dataset, write_progress

EVENTS = ("stall_count", "regression_count", "retry_count", "jump_count", "never_finished_count", "idle_tail_count")


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Four episodes: one straight up, one that falls back, one that never finishes, one that nobody labelled; two are marked."""
    root = annotated_dataset(tmp_path / "bench")
    fall = np.concatenate([np.linspace(0, 0.6, 17), np.linspace(0.3, 1, 17)])
    write_progress(root, "sarm", {0: np.linspace(0, 1, 29), 1: fall, 2: np.linspace(0, 0.5, 26)})
    dataset = open_dataset(root)
    marks = Marks(marks_file(dataset), dataset)
    marks.set(1, Mark("drop"))
    marks.set(2, Mark(None, "only a note"))
    marks.set(3, Mark("unsure"))
    index = np.arange(dataset.total_frames)
    weight = np.concatenate([np.full(length, number / 4, np.float32) for number, length in enumerate(LENGTHS)])
    write_weights_file(root / "weights.parquet", index, weight, {"dataset": "bench", "dataset_fingerprint": dataset.fingerprint})
    return root


def entries(root: Path) -> dict[int, dict]:
    return {row["episode_index"]: row for path in sorted(root.glob("meta/episodes/*/*.parquet")) for row in pq.read_table(path).to_pylist()}


def copy(*words: object) -> int:
    return main(["copy", *map(str, words)])


def test_each_episode_has_its_numbers(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, review = tree(bench), marks_file(open_dataset(bench)).read_bytes()
    assert copy(bench, "--output-dir", tmp_path / "new", "--episode-columns") == 1, "episode 3 has no progress"
    out = capsys.readouterr().out
    assert all(name in out for name in ("sarm_progress.parquet", "bench.review.json", "weights.parquet", "mean_weight, mark, success"))
    assert tree(bench) == before
    assert marks_file(open_dataset(bench)).read_bytes() == review
    rows = entries(tmp_path / "new")
    assert [rows[n]["final_progress"] for n in (0, 2)] == pytest.approx([1.0, 0.5]), "both are straight lines, and end at their last frames"
    assert math.isnan(rows[3]["final_progress"]), "a comparison with NaN is False; with None it would raise"
    assert [rows[n]["mean_weight"] for n in range(4)] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert [rows[n]["mark"] for n in range(4)] == [None, "drop", None, "unsure"]
    assert [rows[n]["success"] for n in range(4)] == [True, False, True, False], "from the rows: meta/ of the source has none"
    assert {name: rows[0][name] for name in EVENTS} == dict.fromkeys(EVENTS, 0)
    assert (rows[1]["regression_count"], rows[1]["retry_count"], rows[2]["never_finished_count"]) == (1, 1, 1)
    assert [rows[3][name] for name in EVENTS] == [None] * len(EVENTS)
    facts = open_dataset(tmp_path / "new").facts_of(1)
    assert (facts["mark"], facts["success"], facts["regression_count"]) == ("drop", False, 1)
    assert not [finding for finding in validate(tmp_path / "new").findings if finding.severity == "error"]


def test_a_filter_sees_what_it_asks_for(bench: Path, tmp_path: Path) -> None:
    """The predicates of docs/lerobot.md, on the rows as LeRobot hands them over."""
    copy(bench, "--output-dir", tmp_path / "new", "--episode-columns")
    rows = entries(tmp_path / "new").values()
    chosen = lambda keep: [row["episode_index"] for row in rows if keep(row)]  # noqa: E731
    page = (Path(__file__).parents[1] / "docs" / "lerobot.md").read_text()
    asked = re.findall(r"episode_filter=(lambda .+)\)\n", page)
    assert [chosen(eval(words)) for words in asked] == [[0]]
    assert chosen(lambda episode: episode["final_progress"] > 0.9) == [0, 1]
    assert chosen(lambda episode: episode["success"] and episode["mark"] != "drop") == [0, 2]
    assert chosen(lambda episode: episode["regression_count"] == 0) == [0, 2]


def test_named_files_alone_are_used(bench: Path, tmp_path: Path) -> None:
    marks = marks_file(open_dataset(bench)).rename(tmp_path / "mine.json")
    assert copy(bench, "--output-dir", tmp_path / "marks", "--episode-columns", marks) == 1
    rows = entries(tmp_path / "marks")
    assert rows[1]["mark"] == "drop"
    assert "mean_weight" not in rows[1]
    other = write_progress(bench, "other", {n: np.full(length, 0.25) for n, length in enumerate(LENGTHS)}).rename(tmp_path / "o.parquet")
    weights = (bench / "weights.parquet").rename(tmp_path / "w.parquet")
    assert copy(bench, "--output-dir", tmp_path / "two", "--episode-columns", other, weights) == 1
    rows = entries(tmp_path / "two")
    assert rows[3]["final_progress"] == pytest.approx(0.25)
    assert (rows[3]["mean_weight"], rows[3]["stall_count"]) == (0.75, 1), "40 frames at 20 fps stand still"
    assert "mark" not in rows[3]


def test_without_progress_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Success alone; then a copy of the copy replaces what is there, and says so. v2.1 has the same fields as JSON."""
    build_dataset(tmp_path / "plain", cameras={})
    assert copy(tmp_path / "plain", "--output-dir", tmp_path / "one", "--episode-columns") == 0
    assert "no file of progress or weights or marks" in capsys.readouterr().out
    assert [row["success"] for row in entries(tmp_path / "one").values()] == [True, False, True]
    write_progress(tmp_path / "one", "m", {n: np.full(length, 0.5) for n, length in enumerate((9, 14, 6))})
    capsys.readouterr()
    copy(tmp_path / "one", "--output-dir", tmp_path / "two", "--episode-columns", tmp_path / "one/m_progress.parquet")
    assert "already" not in capsys.readouterr().out, "success is the source's own"
    curves = {n: np.full(length, 0.25) for n, length in enumerate((9, 14, 6))}
    other = write_progress(tmp_path / "two", "m", curves)
    marks = {"dataset": "two", "dataset_footage": open_dataset(tmp_path / "two").footage_fingerprint, "marks": []}
    (tmp_path / "two.review.json").write_text(json.dumps(marks))
    other.rename(tmp_path / "n.parquet")
    assert copy(tmp_path / "two", "--output-dir", tmp_path / "three", "--episode-columns", tmp_path / "n.parquet") == 0
    assert "the dataset has final_progress" in capsys.readouterr().out
    assert [row["final_progress"] for row in entries(tmp_path / "three").values()] == [0.25] * 3
    build_dataset(tmp_path / "old", version="v2.1", cameras={})
    assert copy(tmp_path / "old", "--output-dir", tmp_path / "new21", "--episode-columns") == 0
    lines = [json.loads(line) for line in (tmp_path / "new21/meta/episodes.jsonl").read_text().splitlines()]
    assert [line["success"] for line in lines] == [True, False, True]


def test_refused(bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def because(*words: object) -> str:
        assert copy(*words, "--output-dir", tmp_path / "x") == 2
        assert not (tmp_path / "x").exists()
        return capsys.readouterr().err

    first, second = bench / "sarm_progress.parquet", write_progress(bench, "b", {0: np.linspace(0, 1, 29)})
    assert "both files of progress" in because(bench, "--episode-columns", first, second)
    build_dataset(tmp_path / "plain", cameras={})
    for path in sorted((tmp_path / "plain/data").rglob("*.parquet")):
        pq.write_table(pq.read_table(path).drop_columns(["next.success"]), path)
    info = json.loads((tmp_path / "plain/meta/info.json").read_text())
    del info["features"]["next.success"]
    (tmp_path / "plain/meta/info.json").write_text(json.dumps(info))
    assert "nothing is known of the episodes" in because(tmp_path / "plain", "--episode-columns")
    assert "made for another dataset" in because(tmp_path / "plain", "--episode-columns", first)


def test_a_copy_of_a_copy_has_no_numbers_of_frames_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first copy's numbers are of whole episodes; of those that are cut they say nothing."""
    resting = resting_dataset(tmp_path / "resting")
    lengths = [open_dataset(resting)[n].length for n in open_dataset(resting).episode_indices]
    write_progress(resting, "m", {n: np.linspace(0, 1, length) ** 2 for n, length in enumerate(lengths)})
    assert copy(resting, "--output-dir", tmp_path / "one", "--episode-columns") == 0
    capsys.readouterr()
    assert copy(tmp_path / "one", "--output-dir", tmp_path / "two", "--trim-idle", "both") == 0
    words = capsys.readouterr()
    assert "final_progress" in words.err
    assert "are unknown in the copy" in words.err
    whole, cut = entries(tmp_path / "one"), entries(tmp_path / "two")
    shorter = {number for number, row in cut.items() if row["length"] < whole[number]["length"]}
    assert shorter
    for number, row in cut.items():
        if number in shorter:
            assert math.isnan(row["final_progress"])
            assert row["stall_count"] is None
        else:
            assert (row["final_progress"], row["stall_count"]) == (whole[number]["final_progress"], whole[number]["stall_count"])
    assert copy(tmp_path / "one", "--output-dir", tmp_path / "three", "--trim-idle", "both", "--episode-columns", "m_progress.parquet") == 2
    assert "there is no file m_progress.parquet and no file" in capsys.readouterr().err
    again = ("--episode-columns", "--progress", resting / "m_progress.parquet")
    assert copy(tmp_path / "one", "--output-dir", tmp_path / "three", "--trim-idle", "both", *again) == 0
    assert "the dataset has progress of every frame already; the copy keeps it as it is" in " ".join(capsys.readouterr().out.split())
    assert not any(math.isnan(row["final_progress"]) for row in entries(tmp_path / "three").values())


def test_files_are_looked_for_beside_the_dataset_and_a_missing_one_is_named(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy(bench, "--output-dir", tmp_path / "no", "--episode-columns", "marks.json") == 2
    assert "there is no file marks.json" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert copy(bench, "--output-dir", tmp_path / "yes", "--weights", "weights.parquet", "--episode-columns", "sarm_progress.parquet") == 1
    assert [row["mean_weight"] for row in entries(tmp_path / "yes").values()] == [0.0, 0.25, 0.5, 0.75]
