"""Every way a LeRobot dataset can be broken is refused with one message that names the file and says what to do."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import builders
from builders import EPISODES, MP4, ROWS, TOP, build_dataset, edit_info, edit_parquet, set_column
from milepost.core.errors import DataError, DataWarning, UnreadableError
from milepost.datasets.reader import open_dataset


@pytest.fixture
def small(tmp_path) -> builders.Built:
    """Three episodes, one camera, H.264, the first two in one mp4."""
    return build_dataset(tmp_path / "small")


# What is wrong with the folder or its meta/.


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        open_dataset(tmp_path / "file")
    with pytest.raises(DataError, match=r"not a LeRobot dataset: it has no meta/info\.json"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[1]", '{"codebase_version": "v3.0"}', '{"codebase_version": "v3.0", "fps": 0}'])
def test_broken_info(small, content):
    (small.root / "meta/info.json").write_text(content)
    with pytest.raises(DataError, match=r"info\.json"):
        open_dataset(small.root)


@pytest.mark.parametrize("fps", [0, -3])
def test_fps_must_be_positive(small, fps):
    edit_info(small.root, fps=fps)
    with pytest.raises(DataError, match=f"fps must be above 0, got {fps}"):
        open_dataset(small.root)


@pytest.mark.parametrize("version", ["v1.6", "v2.2", "v4.0", None])
def test_other_versions_are_refused_by_name(small, version):
    edit_info(small.root, codebase_version=version)
    with pytest.raises(DataError, match=rf"version {version}; v3\.0 and v2\.1 are read"):
        open_dataset(small.root)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_an_empty_dataset(tmp_path, version):
    root = build_dataset(tmp_path / "made", version=version).root
    shutil.rmtree(root / "meta/episodes", ignore_errors=True)
    (root / "meta/episodes.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no episodes"):
        open_dataset(root)


def test_incomplete_and_damaged_meta(small, tmp_path):
    (small.root / EPISODES).write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"meta/episodes/chunk-000/file-000\.parquet is damaged"):
        open_dataset(small.root)
    (small.root / EPISODES).unlink()
    with pytest.raises(DataError, match=r"counts 3 episodes, meta/episodes lists 2"):
        open_dataset(small.root)
    shutil.copy(small.root / EPISODES.replace("000.p", "001.p"), small.root / EPISODES)
    edit_info(small.root, total_episodes=2)
    assert len(open_dataset(small.root)) == 2, "an entry that stands there twice, alike, is one"
    set_column(small.root / EPISODES, "length", [13, 6])
    with pytest.raises(UnreadableError, match="lists episode 1 twice"):
        open_dataset(small.root)[0]
    for name in (EPISODES, EPISODES.replace("000.p", "001.p")):
        edit_parquet(small.root / name, lambda table: table.drop_columns(["length", "dataset_to_index"]))
    with pytest.raises(DataError, match=r"no episode can be read: .*episode 1 lacks the field 'length'"):
        open_dataset(small.root)
    old = build_dataset(tmp_path / "old", version="v2.1").root
    for name, content in (("tasks", "{}\n"), ("episodes", '{"episode_index": 0}\n'), ("episodes", "not json")):
        (old / f"meta/{name}.jsonl").write_text(content)
        with pytest.raises(DataError, match=rf"{name}\.jsonl"):
            open_dataset(old)
    (old / "meta/episodes.jsonl").unlink()
    with pytest.raises(DataError, match=r"episodes\.jsonl is missing"):
        open_dataset(old)


def test_broken_proportions(small):
    path = small.root / "meta/temporal_proportions_dense.json"
    for content in ("{", "[0.5]", '{"reach": "half"}'):
        path.write_text(content)
        with pytest.raises(DataError, match="temporal_proportions_dense"):
            open_dataset(small.root).proportions("dense")


# What is wrong with the rows or the pictures: found when the episode is read, without spoiling the others.


def test_missing_and_damaged_parquet(small):
    content = (small.root / ROWS).read_bytes()
    (small.root / ROWS).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"data/chunk-000/file-000\.parquet is damaged or truncated"):
        open_dataset(small.root)[0]
    (small.root / ROWS).unlink()
    with pytest.raises(DataError, match=r"data/chunk-000/file-000\.parquet is missing"):
        open_dataset(small.root)[0]
    assert open_dataset(small.root)[2].length == 6


def test_rows_damaged_inside(small, rng):
    content = bytearray((small.root / ROWS).read_bytes())
    content[10:400] = rng.bytes(390)
    (small.root / ROWS).write_bytes(content)
    with pytest.raises(DataError, match=r"file-000\.parquet"):
        open_dataset(small.root)[0]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("frame_index", [*range(9), *range(1, 15)], "'frame_index' should run from 0 to 13 one by one, it runs from 1 to 14"),
        ("frame_index", [*range(9), 1, 0, *range(2, 14)], "shuffled, repeated or missing"),
        ("index", [*range(9), 9, *range(11, 24)], "'index' should run from 9 to 22"),
        ("episode_index", [0] * 9 + [1] * 13 + [2], "episode 1 has 13 rows, meta/ says 14"),
        ("timestamp", [i / 20 for i in [*range(9), *range(7), *range(6, 13)]], "time stamps must ascend, at frame 7 they do not"),
        ("timestamp", [i / 20 for i in [*range(9), *range(2, 16)]], "shorter than its rows: rows are stamped 0.1000 to 0.7500 s"),
    ],
)
def test_rows_that_do_not_fit_together(small, column, values, message):
    kind = pa.float32() if column == "timestamp" else pa.int64()
    set_column(small.root / ROWS, column, values, kind)
    dataset = open_dataset(small.root)
    with pytest.raises(DataError, match=message):
        dataset[1]
    assert dataset[0].length == 9


def test_columns_that_must_be_there(small):
    edit_parquet(small.root / ROWS, lambda table: table.drop_columns(["frame_index"]))
    with pytest.warns(DataWarning, match="no column 'frame_index'"):
        assert open_dataset(small.root)[1].row == 9
    edit_parquet(small.root / ROWS, lambda table: table.drop_columns(["episode_index"]))
    with pytest.raises(DataError, match="no column 'episode_index'"):
        open_dataset(small.root)[0]


def test_a_state_that_is_nan_is_refused(small):
    state = np.zeros((23, 3), np.float32)
    state[12, 1] = np.nan
    set_column(small.root / ROWS, "observation.state", state.tolist(), pa.list_(pa.float32(), 3))
    with pytest.raises(DataError, match="episode 1: the robot state is NaN or infinite in 1 frame, first at frame 3"):
        open_dataset(small.root)[1]


def test_missing_truncated_and_swapped_videos(small):
    path = small.root / MP4
    content = path.read_bytes()
    path.write_bytes(content[:2000])
    with pytest.raises(DataError, match=r"file-000\.mp4 cannot be opened: truncated"):
        open_dataset(small.root)[0].cameras[TOP][np.array([0])]
    path.unlink()
    episode = open_dataset(small.root)[0]
    with pytest.raises(DataError, match=r"file-000\.mp4 is missing"):
        list(episode.cameras[TOP].chunks())
    assert episode.state.shape == (9, 3)
    shutil.copy(small.root / MP4.replace("file-000", "file-001"), path)  # 6 frames of another episode where 23 should be
    for number in (0, 1):
        with pytest.raises(UnreadableError, match="is shorter than its rows: it holds 6 pictures for 23 rows"):
            open_dataset(small.root)[number].cameras[TOP][np.array([3])]


def test_stamps_shifted_between_two_frames(small):
    shift = 0.52 / 20
    for name in ("from_timestamp", "to_timestamp"):
        column = f"videos/{TOP}/{name}"
        values = pq.read_table(small.root / EPISODES)[column].to_pylist()
        set_column(small.root / EPISODES, column, [value - shift for value in values])
    with pytest.raises(DataError, match=r"frame 0 of the episode is wanted at -0\.0260 s, the nearest picture is at 0\.0000 s"):
        open_dataset(small.root)[0].cameras[TOP][np.array([0])]


def test_broken_pictures_in_parquet(tmp_path):
    root = build_dataset(tmp_path / "made", cameras={TOP: "png"}).root
    cells = pq.read_table(root / ROWS)[TOP].to_pylist()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells[3]["bytes"] = cells[3]["bytes"][:60]
    cells[4] = {"bytes": None, "path": None}
    cells[5] = {"bytes": None, "path": "images/gone.png"}
    set_column(root / ROWS, TOP, cells, kind)
    frames = open_dataset(root)[0].cameras[TOP]
    assert len(frames[np.array([0, 8])]) == 2
    for frame, words in ((3, "cannot be read"), (4, "is empty"), (5, "cannot be read")):
        with pytest.raises(DataError, match=rf"file-000\.parquet: the picture of camera '{TOP}', episode 0, frame {frame} {words}"):
            frames[np.array([frame])]
