"""`copy --trim-idle`, `--drop`, `--keep`: some frames of some episodes, image for image, renumbered; the source stays as it was."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import ROWS, TOP, WRIST, build_dataset, set_column
from idle import RESTS, facts, proportions_of, require_part, resting_dataset
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.language_shift import shifted_language
from milepost.datasets.parts import copy_parts
from milepost.datasets.placement import Part, place
from milepost.datasets.reader import open_dataset
from milepost.datasets.statistics import column_stats
from milepost.datasets.trim import active_frames, plan_trim
from milepost.datasets.validation import validate
from milepost.viewer.marks import Mark, Marks, marks_file
from parquet_content import tree
from reviewed import write_progress

MARGIN = 10
"""Half a second at 20 frames a second."""


@pytest.fixture(scope="module")
def resting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = resting_dataset(tmp_path_factory.mktemp("idle") / "idle")
    dataset = open_dataset(root)
    write_progress(root, "sarm", {number: np.linspace(0, 1, dataset.length(number)) for number in dataset.episode_indices})
    marks = Marks(marks_file(dataset), dataset)
    marks.set(0, Mark("drop"))
    marks.set(2, Mark("unsure"))
    marks.set(3, Mark("keep"))
    return root


def copy(*words: object) -> int:
    return main(["copy", *map(str, words)])


def errors(root: Path) -> list[str]:
    return [f"{finding.code}: {finding.message}" for finding in validate(root, deep=True).findings if finding.severity != "note"]


def both_ends(before: int, motion: int, after: int) -> tuple[int, int]:
    """The last frame at rest before the motion, and the first one after it, half a second around them."""
    return max(0, before - MARGIN), min(before + motion + after, before + motion + MARGIN)


def test_idle_ends_are_gone_and_all_else_agrees(resting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(resting)
    assert copy(resting, "--output-dir", tmp_path / "new", "--trim-idle", "both") == 0
    assert tree(resting) == before
    ranges = {number: both_ends(*rests) for number, rests in enumerate(RESTS)}
    require_part(resting, tmp_path / "new", ranges)
    assert errors(tmp_path / "new") == []
    out = capsys.readouterr().out
    left_out = sum(map(sum, RESTS)) - sum(stop - start for start, stop in ranges.values())
    assert f"idle frames: {left_out} of {sum(map(sum, RESTS))}" in out
    new = open_dataset(tmp_path / "new")
    for number, (start, stop) in ranges.items():
        middle = RESTS[number][0] + RESTS[number][1] // 2
        assert new[number].segments["sparse"] == (Segment("reach", 0, middle - start), Segment("push", middle - start, stop - start))
        np.testing.assert_array_equal(new[number].columns["progress"], np.linspace(0, 1, sum(RESTS[number]))[start:stop].astype(np.float32))
    assert [bool(each.columns["next.success"][-1]) for each in new] == [True, False, True, False], "said by a frame that is gone"
    assert [float(each.columns["next.reward"][-1]) for each in new] == [1, 0, 1, 0]
    assert facts(tmp_path / "new", "operator") == [f"person {n}" for n in range(4)]
    shares = json.loads((tmp_path / "new/meta/temporal_proportions_sparse.json").read_text())
    assert shares == pytest.approx(
        proportions_of(
            [
                (before - start, motion, stop - before - motion)
                for (start, stop), (before, motion, _) in zip(ranges.values(), RESTS, strict=True)
            ]
        )
    )
    for path in sorted(resting.glob("videos/**/*.mp4")):
        assert (tmp_path / "new" / path.relative_to(resting)).samefile(path), "nothing is encoded again"


def test_statistics_are_those_of_the_frames_that_stay(resting: Path, tmp_path: Path) -> None:
    copy(resting, "--output-dir", tmp_path / "new", "--trim-idle", "both")
    table = pq.read_table(tmp_path / "new/meta/episodes/chunk-000/file-000.parquet")
    whole = json.loads((tmp_path / "new/meta/stats.json").read_text())
    new = open_dataset(tmp_path / "new")
    rows = pq.read_table(tmp_path / "new/data/chunk-000/file-000.parquet")
    for name in (
        "observation.state",
        "action",
        "timestamp",
        "index",
        "episode_index",
        "frame_index",
        "task_index",
        "next.success",
        "progress",
    ):
        column = np.array(rows[name].to_pylist())
        for number in range(4):
            start, stop = new.row_range(number)
            expected = column_stats(column[start:stop])
            for key, value in expected.items():
                np.testing.assert_allclose(table[f"stats/{name}/{key}"].to_pylist()[number], value, rtol=1e-6, atol=1e-9)
        assert whole[name]["count"] == [rows.num_rows]
        np.testing.assert_allclose(whole[name]["mean"], column_stats(column)["mean"], rtol=1e-6, atol=1e-9)
    for camera in (TOP, WRIST):
        images = new[0].camera(camera)[np.arange(new[0].length)].astype(np.float64) / 255
        np.testing.assert_allclose(table[f"stats/{camera}/mean"].to_pylist()[0], images.mean(axis=(0, 1, 2)).reshape(3, 1, 1), atol=1e-9)


@pytest.mark.parametrize("side", ["start", "end"])
def test_one_side(resting: Path, tmp_path: Path, side: str) -> None:
    copy(resting, "--output-dir", tmp_path / "new", "--trim-idle", side, "--trim-margin-s", 0)
    ranges = {}
    for number, (before, motion, after) in enumerate(RESTS):
        ranges[number] = (before, before + motion + after) if side == "start" else (0, before + motion)
    require_part(resting, tmp_path / "new", ranges)
    assert errors(tmp_path / "new") == []


def test_what_is_motion() -> None:
    """Worked by hand: rest, a step, rest; a drift within the tolerance; an unknown value; nothing at all."""
    step = np.array([0.0, 0, 0, 1, 1, 1])[:, None]
    assert active_frames(step, np.array([0.1])) == (2, 4), "between frames 2 and 3"
    drift = np.array([0.0, 0.02, 0.04, 0.06, 1, 1])[:, None]
    assert active_frames(drift, np.array([0.05])) == (2, 5)
    assert active_frames(np.array([0.0, np.nan, 0, 0])[:, None], np.array([0.1])) == (0, 3)
    assert active_frames(np.zeros((5, 2)), np.zeros(2)) is None


def test_noise_is_taken_for_motion_and_a_still_episode_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = resting_dataset(tmp_path / "noisy", RESTS[:1], noise=0.002)
    plan = plan_trim(open_dataset(noisy))
    assert plan.shortened == {}, "the third channel has nothing but noise"
    still = resting_dataset(tmp_path / "still", (RESTS[0], (20, 1, 0)))
    for path in still.glob("data/**/*.parquet"):
        rows = pq.read_table(path)
        state = [
            cell if episode == 0 else [0.0, -1.0, 0.0]
            for cell, episode in zip(*(rows[n].to_pylist() for n in ("observation.state", "episode_index")), strict=True)
        ]
        action = [
            cell if episode == 0 else [0.0, 0.0]
            for cell, episode in zip(*(rows[n].to_pylist() for n in ("action", "episode_index")), strict=True)
        ]
        set_column(path, "observation.state", state, rows.schema.field("observation.state").type)
        set_column(path, "action", action, rows.schema.field("action").type)
    assert copy(still, "--output-dir", tmp_path / "new", "--trim-idle", "both") == 0
    assert "does not move in episodes 1" in capsys.readouterr().err
    assert open_dataset(tmp_path / "new")[1].length == 21


def test_a_copy_of_which_nothing_differs_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moving = resting_dataset(tmp_path / "moving", ((0, 20, 0), (0, 15, 0)))
    assert copy(moving, "--output-dir", tmp_path / "new", "--trim-idle", "both") == 2
    assert "so the copy would be the dataset as it is: none is made" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert copy(moving, "--output-dir", tmp_path / "new", "--trim-idle", "both", "--episode-columns") == 0


@pytest.mark.parametrize("option", ["--drop", "--keep"])
def test_a_choice_without_a_mark_is_refused(resting: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert copy(resting, "--output-dir", tmp_path / "new", option) == 2
    assert "need one mark or more" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_stage_is_not_lost(tmp_path: Path) -> None:
    """A stage "wait" that lies in the idle frames as a whole stays, and so does one at the end."""
    root = resting_dataset(tmp_path / "idle", ((40, 20, 40),))
    segments = (Segment("wait", 5, 20), Segment("push", 20, 70), Segment("rest", 75, 95))
    write_annotations(root, {0: {"sparse": segments}}, names={"sparse": ["wait", "push", "rest"]}, overwrite=True)
    assert copy(root, "--output-dir", tmp_path / "new", "--trim-idle", "both") == 0
    episode = open_dataset(tmp_path / "new")[0]
    assert episode.segments["sparse"] == (Segment("wait", 0, 15), Segment("push", 15, 65), Segment("rest", 70, 90))
    assert episode.length == 90
    assert errors(tmp_path / "new") == []


def test_language_rows_move_with_their_frames() -> None:
    """At 10 fps frames [5, 20) stay: the subtask in force at 0.5 s begins at 0, the one from 2 s on is gone; two rephrasings both stay."""
    rows = [
        ("task_aug", "a", 0.0),
        ("task_aug", "b", 0.0),
        ("subtask", "x", 0.0),
        ("subtask", "y", 0.3),
        ("subtask", "z", 1.0),
        ("subtask", "w", 2.0),
    ]
    kind = pa.struct([("role", pa.string()), ("content", pa.string()), ("style", pa.string()), ("timestamp", pa.float32())])
    cell = [{"role": "assistant", "content": content, "style": style, "timestamp": stamp} for style, content, stamp in rows]
    column = pa.chunked_array([pa.array([cell, [], cell], pa.list_(kind))])
    moved, empty, same = shifted_language(column, [(5, 20), (5, 20), None], 10.0).to_pylist()
    assert [(row["content"], round(row["timestamp"], 6)) for row in moved] == [("a", 0), ("b", 0), ("y", 0), ("z", 0.5)]
    assert (empty, same) == ([], column[0].as_py())


def test_images_that_meta_says_belong_to_no_row_are_counted() -> None:
    parts = (Part(0, 0.5, 1.5, 10, before=5, after=0), Part(1, 2.0, 3.0, 10, follows=True, before=5, after=4))
    placed = place(parts, 34, 10.0, 10.0)
    assert [(placed[n].first, placed[n].count, placed[n].fault) for n in (0, 1)] == [(5, 10, ""), (20, 10, "")]
    assert all(place(parts, 33, 10.0, 10.0)[n].fault for n in (0, 1)), "one image is missing, and nobody knows which"
    alone = place((Part(0, 0.5, 1.5, 10, before=5, after=2),), 17, 10.0, 10.0)
    assert (alone[0].first, alone[0].count) == (5, 10)


@pytest.mark.parametrize(
    ("words", "stay"),
    [
        (("--drop", "drop"), [1, 2, 3]),
        (("--drop", "drop", "unsure"), [1, 3]),
        (("--keep", "keep"), [3]),
        (("--keep", "keep", "unmarked"), [1, 3]),
    ],
)
def test_episodes_by_their_marks(resting: Path, tmp_path: Path, words: tuple[str, ...], stay: list[int]) -> None:
    before = tree(resting)
    assert copy(resting, "--output-dir", tmp_path / "new", *words, "--episode-columns") == 0
    assert tree(resting) == before
    require_part(resting, tmp_path / "new", {number: (0, sum(RESTS[number])) for number in stay})
    assert errors(tmp_path / "new") == []
    assert facts(tmp_path / "new", "operator") == [f"person {number}" for number in stay]
    assert facts(tmp_path / "new", "mark") == [{0: "drop", 2: "unsure", 3: "keep"}.get(number) for number in stay]
    new, old = open_dataset(tmp_path / "new"), open_dataset(resting)
    assert [each.segments for each in new] == [old[number].segments for number in stay]
    assert not list(tmp_path.glob(".*")), "nothing half-made is left"


def test_files_of_which_nothing_is_left_are_not_copied(tmp_path: Path) -> None:
    """Two episodes a data file and mp4, the second camera one mp4 an episode, pictures in parquet in a third: 0, 1 and 3 go."""
    built = build_dataset(
        tmp_path / "old", lengths=(9, 14, 6, 11, 8), cameras={TOP: "libx264", WRIST: "libx264", "observation.images.eye": "png"}
    )
    copy_parts(built.root, tmp_path / "new", {2: (0, 6), 4: (0, 8)})
    new = open_dataset(tmp_path / "new")
    for place_, number in enumerate((2, 4)):
        for camera in new.cameras:
            np.testing.assert_array_equal(new[place_].camera(camera)[np.arange(new[place_].length)], built.images[camera, number])
    assert sorted(path.name for path in (tmp_path / "new/data").rglob("*.parquet")) == ["file-001.parquet", "file-002.parquet"]
    assert sorted(path.name for path in (tmp_path / f"new/videos/{WRIST}").rglob("*.mp4")) == ["file-002.mp4", "file-004.mp4"]
    rows = pq.read_table(tmp_path / "new/data/chunk-000/file-001.parquet")
    assert rows["index"].to_pylist() == list(range(6))
    assert json.loads((tmp_path / "new/meta/info.json").read_text())["total_frames"] == 14
    copy_parts(built.root, tmp_path / "cut", {1: (3, 12), 4: (0, 8)})
    cut = open_dataset(tmp_path / "cut")
    for camera in cut.cameras:
        np.testing.assert_array_equal(cut[0].camera(camera)[np.arange(9)], built.images[camera, 1][3:12])
    copy_parts(tmp_path / "cut", tmp_path / "again", {0: (2, 8)})
    again = open_dataset(tmp_path / "again")
    for camera in again.cameras:
        np.testing.assert_array_equal(again[0].camera(camera)[np.arange(6)], built.images[camera, 1][5:11])


def test_refused(resting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def because(*words: object) -> str:
        assert copy(*words, "--output-dir", tmp_path / "x") == 2
        assert not (tmp_path / "x").exists()
        err = capsys.readouterr().err.strip()
        assert len(err.splitlines()) == 1, err
        return err

    assert "leave one of them out" in because(resting, "--drop", "drop", "--keep", "keep")
    assert "no episode stays: 1 keep, 1 drop, 1 unsure, 1 unmarked" in because(resting, "--drop", "keep", "drop", "unsure", "unmarked")
    assert "exists already" in (copy(resting, "--output-dir", resting, "--drop", "drop") and capsys.readouterr().err)
    build_dataset(tmp_path / "plain", cameras={})
    assert "mark episodes with milepost view" in because(tmp_path / "plain", "--drop", "drop")
    build_dataset(tmp_path / "old", version="v2.1", cameras={}, lengths=(40, 40))
    with pytest.raises(
        DataError, match=r"of version v2\.1, .* out of v3\.0 alone; .*: milepost import \S+old --without 1 --output-dir NEW"
    ):
        copy_parts(tmp_path / "old", tmp_path / "x", {0: (0, 40)})
    build_dataset(tmp_path / "clock", cameras={}, lengths=(9, 14))
    stamps = np.concatenate([np.arange(9) / 20 + 0.01 * (np.arange(9) > 3), np.arange(14) / 20])
    set_column(tmp_path / "clock" / ROWS, "timestamp", stamps, pa.float32())
    with pytest.raises(DataError, match="add --restamp"):
        copy_parts(tmp_path / "clock", tmp_path / "x", {0: (2, 9)}, even_damaged=True)
    for bad in ((0, 0), (3, 2), (0, 10)):
        with pytest.raises(DataError, match="are to stay"):
            copy_parts(tmp_path / "clock", tmp_path / "x", {0: bad})
    with pytest.raises(DataError, match="no episode 7"):
        copy_parts(tmp_path / "clock", tmp_path / "x", {7: (0, 1)})
    assert not (tmp_path / "x").exists()
