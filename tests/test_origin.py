"""A copy with all rows of its source takes the files of its source; one of which rows are left out refuses them and says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from idle import resting_dataset
from milepost.core import DataError
from milepost.datasets import copy_parts, open_dataset
from milepost.datasets.copy import copy_with_columns
from milepost.datasets.origin import ORIGIN, origin_of
from milepost.progress import match_progress, read_progress
from milepost.weights import match_weights
from test_cli import assert_refused, milepost

CURVE = "elapsed_progress.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = resting_dataset(tmp_path_factory.mktemp("origin") / "rests")
    assert milepost("label", root, "--model", "elapsed").returncode == 0
    assert milepost("weigh", root).returncode == 0
    return root


@pytest.fixture
def rests(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "rests"))


@pytest.mark.parametrize(
    "words",
    [
        ("copy", "--episode-columns", "--output-dir"),
        ("annotate", "--to-language"),
        ("advantage", "--form", "column", "--no-per-task", "--output-dir"),
    ],
    ids=lambda words: words[0],
)
def test_a_copy_with_all_rows_takes_the_files_of_its_source(rests: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    verb, *options = words
    if verb == "advantage":
        give_successes(rests)
    run = milepost(verb, rests, *options, tmp_path / "copy")
    assert run.returncode == 0, run.stderr
    copy = open_dataset(tmp_path / "copy")
    assert copy.fingerprint != open_dataset(rests).fingerprint
    assert match_progress(rests / CURVE, copy).warnings == ()
    assert match_weights(rests / "weights.parquet", copy).is_identified
    again = copy_with_columns(copy.root, tmp_path / "again", {"extra": np.ones(copy.total_frames)})
    assert again.left_out == []
    assert match_progress(rests / CURVE, open_dataset(tmp_path / "again")).missing == 0, "a copy of a copy has the same rows too"


def give_successes(root: Path) -> None:
    """Lets every task have a success, by a fact of the episode, and labels again."""
    for path in (root / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("success", [[True] * table.num_rows]), path)


def test_a_copy_that_was_changed_is_no_copy_any_more(rests: Path, tmp_path: Path) -> None:
    copy_with_columns(rests, tmp_path / "copy", {"extra": np.ones(open_dataset(rests).total_frames)})
    for path in (tmp_path / "copy/data").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.schema.get_field_index("extra"), "extra", [np.zeros(len(table), np.float32)]), path)
    with pytest.raises(DataError, match="was made for another dataset"):
        match_progress(rests / CURVE, open_dataset(tmp_path / "copy"))


def test_a_damaged_record_is_named(rests: Path, tmp_path: Path) -> None:
    copy_with_columns(rests, tmp_path / "copy", {"extra": np.ones(open_dataset(rests).total_frames)})
    (tmp_path / "copy" / ORIGIN).write_text(json.dumps({"fingerprint": "x", "same_rows": 3}))
    with pytest.raises(DataError, match="is not what milepost copy writes"):
        origin_of(open_dataset(tmp_path / "copy"))


@pytest.mark.parametrize("ranges", [{0: (0, 62), 2: (0, 55)}, {0: (5, 62), 1: (0, 25), 2: (0, 55), 3: (0, 64)}], ids=["dropped", "trimmed"])
def test_a_copy_of_some_rows_refuses_and_says_what_to_do(rests: Path, tmp_path: Path, ranges: dict[int, tuple[int, int]]) -> None:
    copy_parts(rests, tmp_path / "part", ranges)
    for name in ("part", "copy"):
        with pytest.raises(DataError, match="is a part of, so its rows have other numbers: label this one"):
            match_progress(rests / CURVE, open_dataset(tmp_path / name))
        if name == "part":  # and a whole copy of the part
            copy_with_columns(tmp_path / "part", tmp_path / "copy", {"extra": np.ones(open_dataset(tmp_path / "part").total_frames)})


def test_a_named_progress_file_is_cut_with_the_frames(rests: Path, tmp_path: Path) -> None:
    run = milepost("copy", rests, "--output-dir", tmp_path / "cut", "--trim-idle", "both", "--progress", rests / CURVE)
    assert run.returncode == 0, run.stderr
    copy, cut = open_dataset(tmp_path / "cut"), match_progress(tmp_path / "cut" / CURVE, open_dataset(tmp_path / "cut"))
    assert copy.total_frames < open_dataset(rests).total_frames
    assert (cut.missing, cut.warnings) == (0, ())
    for episode in copy:
        np.testing.assert_array_equal(cut.table.episode(episode.index, episode.length), episode.columns["progress"].reshape(-1))
    assert cut.table.made_by["part_of"] == open_dataset(rests).fingerprint
    assert cut.table.made_by["model_type"] == read_progress(rests / CURVE).made_by["model_type"]
    assert_refused(milepost("label", tmp_path / "cut", "--model", "elapsed"), "another dataset, of which this one is a part", "--overwrite")


def test_a_file_that_nobody_named_is_not_written_into_the_copy(rests: Path, tmp_path: Path) -> None:
    assert milepost("copy", rests, "--output-dir", tmp_path / "cut", "--trim-idle", "both").returncode == 0
    assert not (tmp_path / "cut" / CURVE).exists()
