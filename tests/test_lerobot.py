"""LeRobot datasets read exactly as LeRobot 0.6.1 reads them (golden files), and every broken one refused in words."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import builders
from builders import EPISODES, ROWS, TASKS, TOP, WRIST, build_dataset, edit_info, edit_parquet, set_column
from milepost.core.errors import DataError, DataWarning
from milepost.core.types import Segment
from milepost.datasets import parquet
from milepost.datasets.reader import open_dataset

DATA = Path(__file__).parent / "data"
GOLDEN = ("dataset_v3", "dataset_v3_images")


def golden(name: str) -> dict:
    return json.loads((DATA / f"{name}_golden.json").read_text())


@pytest.fixture
def small(tmp_path) -> builders.Built:
    """Three episodes, one camera, H.264, the first two in one mp4."""
    return build_dataset(tmp_path / "small")


@pytest.fixture
def annotated(tmp_path) -> Path:
    shutil.copytree(DATA / "dataset_v3", tmp_path / "annotated")
    shutil.copytree(DATA / "dataset_v3_annotated", tmp_path / "annotated", dirs_exist_ok=True)
    return tmp_path / "annotated"


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_tasks_and_episodes_are_lerobots(name):
    told, dataset = golden(name), open_dataset(DATA / name)
    assert (len(dataset), dataset.total_frames, dataset.fps) == (told["num_episodes"], told["num_frames"], told["fps"])
    assert dataset.tasks == tuple(sorted(told["tasks"], key=told["tasks"].get))
    assert dataset.cameras == (TOP, WRIST)
    assert dataset.name == name
    assert dataset.version == "v3.0"
    for number, entry in told["episodes"].items():
        episode = dataset.episode(int(number))
        assert (episode.length, episode.row, episode.task) == (entry["length"], entry["dataset_from_index"], entry["tasks"][0])
        assert dataset.row_range(int(number)) == (entry["dataset_from_index"], entry["dataset_to_index"])
        assert [len(frames) for frames in episode.cameras.values()] == [entry["length"]] * 2


@pytest.mark.parametrize("name", GOLDEN)
def test_rows_are_lerobots(name):
    dataset = open_dataset(DATA / name)
    for row, told in golden(name)["rows"].items():
        episode = dataset.episode(told["episode_index"])
        frame = int(row) - episode.row
        assert frame == told["frame_index"]
        assert episode.state[frame].tolist() == told["observation.state"]
        assert episode.columns["action"][frame].tolist() == told["action"]
        for column in ("timestamp", "next.reward", "next.success"):
            assert episode.columns[column][frame].item() == told[column]
        assert episode.task == told["task"]
        assert set(episode.columns) == {"action", "timestamp", "next.reward", "next.success"}


@pytest.mark.parametrize("name", GOLDEN)
def test_every_golden_frame_bit_for_bit(name):
    dataset, frames = open_dataset(DATA / name), np.load(DATA / f"{name}_golden.npz")
    assert len(frames.files) == {"dataset_v3": 36, "dataset_v3_images": 12}[name]
    for episode in dataset:
        for camera in dataset.cameras:
            here = [row for row in map(int, golden(name)["rows"]) if episode.row <= row < episode.row + episode.length]
            wanted = np.array(here) - episode.row
            told = np.stack([frames[f"{camera}/{row}"] for row in here])
            np.testing.assert_array_equal(episode.cameras[camera][wanted], told)
            whole = np.concatenate([*episode.cameras[camera].chunks(50)])
            assert len(whole) == episode.length
            np.testing.assert_array_equal(whole[wanted], told)


def test_windows_are_lerobots():
    dataset, windows = open_dataset(DATA / "dataset_v3"), golden("dataset_v3")["windows"]
    deltas = np.array(windows["delta_frames"])
    checked = 0
    for row, told in windows["items"].items():
        episode = next(each for each in dataset if each.row <= int(row) < each.row + each.length)
        frames = int(row) - episode.row + deltas
        clamped = frames.clip(0, episode.length - 1)
        assert (frames != clamped).tolist() == told["is_pad"]
        np.testing.assert_array_equal(episode.state[clamped], np.array(told["state"], np.float32))
        checked += 1
    assert checked == len(windows["items"]) > 0


def test_annotations_become_segments(annotated):
    dataset = open_dataset(annotated)
    assert dataset[2].segments["sparse"] == (
        Segment("reach the object", 20, 40),
        Segment("move the object", 60, 100),
        Segment("finish the task", 100, 120),
    )
    assert dataset[3].segments == {}
    assert dataset[5].segments["dense"][1] == Segment("align", 20, 20)
    assert [len(episode.segments.get("dense", ())) for episode in dataset] == [5, 5, 5, 0, dense_of(annotated, 4), 5]
    assert dataset[0].facts == {}
    assert list(dataset.proportions("sparse").values()) == pytest.approx([0.334442, 0.482624, 0.182934], abs=1e-6)
    assert sum(dataset.proportions("dense").values()) == pytest.approx(1)
    assert open_dataset(DATA / "dataset_v3").proportions("sparse") is None


def dense_of(root: Path, number: int) -> int:
    rows = [row for path in (root / "meta/episodes/chunk-000").glob("*") for row in pq.read_table(path).to_pylist()]
    return len(next(row for row in rows if row["episode_index"] == number)["dense_subtask_names"])


def annotate(root: Path, prefix: str, names: list, starts: list, ends: list) -> None:
    """Give episode 0, alone in the first meta file, an annotation."""
    set_column(root / EPISODES, f"{prefix}subtask_names", [names], pa.list_(pa.string()))
    set_column(root / EPISODES, f"{prefix}subtask_start_frames", [starts], pa.list_(pa.int64()))
    set_column(root / EPISODES, f"{prefix}subtask_end_frames", [ends], pa.list_(pa.int64()))


def test_legacy_columns_are_the_sparse_head(small):
    annotate(small.root, "", ["reach", "push"], [0, 4], [4, 20])
    assert open_dataset(small.root)[0].segments == {"sparse": (Segment("reach", 0, 4), Segment("push", 4, 9))}
    annotate(small.root, "sparse_", ["all"], [0], [9])
    assert open_dataset(small.root)[0].segments == {"sparse": (Segment("all", 0, 9),)}


@pytest.mark.parametrize(
    ("starts", "ends"), [([0], [4, 9]), ([0, 4], []), ([0, 7], [4, 6]), ([0, -2], [4, 6]), ([0, None], [4, 6]), ([0, 4], [4, 90])]
)
@pytest.mark.filterwarnings("ignore::milepost.core.errors.DataWarning")
def test_broken_annotations_are_no_segments(small, starts, ends):
    """The episode can be read all the same; who asks for its annotation by meta/ is refused."""
    annotate(small.root, "dense_", ["reach", "push"], starts, ends)
    dataset = open_dataset(small.root)
    assert dataset[0].segments == {}
    assert dataset[0].annotation_faults["dense"].startswith("its dense annotation has")
    with pytest.raises(DataError, match="episode 0: its dense annotation has"):
        assert dataset.meta.episodes[0].segments
    assert open_dataset(small.root)[1].segments == {}


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("codec", ["libsvtav1", "libx264", "libx265", "png", "file"])
def test_every_version_and_kind_of_picture(tmp_path, version, codec):
    built = build_dataset(tmp_path / "made", version=version, cameras={TOP: codec})
    dataset = open_dataset(built.root)
    assert (len(dataset), dataset.tasks, dataset.cameras, dataset.version) == (3, TASKS, (TOP,), version)
    row = 0
    for e, episode in enumerate(dataset):
        assert (episode.index, episode.row, episode.task, episode.success) == (e, row, TASKS[e % 2], e % 2 == 0)
        assert episode.state.shape == (episode.length, 3)
        np.testing.assert_array_equal(np.concatenate([*episode.cameras[TOP].chunks(4)]), built.images[TOP, e])
        wanted = np.array([4, 0, 4, 5])
        np.testing.assert_array_equal(episode.cameras[TOP][wanted], built.images[TOP, e][wanted])
        assert episode.cameras[TOP][wanted[:0]].shape == (0, 64, 80, 3)
        with pytest.raises(IndexError):
            episode.cameras[TOP][np.array([episode.length])]
        row += episode.length


def test_cameras_with_files_of_their_own(tmp_path):
    built = build_dataset(tmp_path / "two", lengths=(9, 14, 6, 8), cameras={TOP: "libx264", WRIST: "libsvtav1"}, per_file=3)
    assert len(list(built.root.glob(f"videos/{TOP}/*/*.mp4"))) == 2
    assert len(list(built.root.glob(f"videos/{WRIST}/*/*.mp4"))) == 4
    for episode in open_dataset(built.root):
        for camera in (TOP, WRIST):
            np.testing.assert_array_equal(np.concatenate([*episode.cameras[camera].chunks()]), built.images[camera, episode.index])
    assert list(open_dataset(built.root, cameras=[WRIST])[0].cameras) == [WRIST]


def test_some_episodes_in_the_order_asked(small):
    dataset = open_dataset(small.root, episodes=[2, 0])
    assert [episode.index for episode in dataset] == [2, 0]
    assert dataset.episode_indices == (2, 0)
    assert dataset[-1].index == 0
    assert dataset.total_frames == 15
    assert dataset.row_range(1) == (9, 23)
    with pytest.raises(IndexError):
        dataset[2]
    with pytest.raises(DataError, match="no episode 7; this dataset has 3, numbered 0 to 2"):
        open_dataset(small.root, episodes=[7])
    with pytest.raises(DataError, match="no episode 3"):
        dataset.row_range(3)
    with pytest.raises(DataError, match="no episode of small is chosen"):
        open_dataset(small.root, episodes=[])


def test_a_wrong_camera_lists_the_right_ones(small):
    for ask in (lambda: open_dataset(small.root, cameras=["front"]), lambda: open_dataset(small.root)[0].camera("front")):
        with pytest.raises(DataError, match=f"no camera 'front'; this dataset has: {TOP}"):
            ask()


def test_no_state_is_a_state_of_width_zero(tmp_path):
    built = build_dataset(tmp_path / "blind", state=0)
    assert open_dataset(built.root)[1].state.shape == (14, 0)
    assert open_dataset(built.root)[1].state.dtype == np.float32


def test_facts_and_extra_columns(small):
    set_column(small.root / EPISODES, "operator", ["ada"])
    set_column(small.root / EPISODES, "success", [None], pa.bool_())
    set_column(small.root / ROWS, "truth.stage", np.arange(23) // 5)
    set_column(small.root / ROWS, "grid", [[[float(i), 0.0], [1.0, 2.0]] for i in range(23)])
    set_column(small.root / ROWS, "note", ["word"] * 23)
    episode = open_dataset(small.root)[0]
    assert episode.facts == {"operator": "ada"}
    assert episode.success is True  # from next.success: a null fact says nothing
    assert episode.columns["grid"].shape == (9, 2, 2)
    assert episode.columns["truth.stage"].tolist() == [0] * 5 + [1] * 4
    assert "note" not in episode.columns
    set_column(small.root / ROWS, "ragged", [[0.0] * (1 + i % 2) for i in range(23)])
    with pytest.warns(DataWarning, match="ragged' holds lists of lengths"):
        assert "ragged" not in open_dataset(small.root)[0].columns


def test_tasks_by_position_or_by_number(small):
    path = small.root / "meta" / "tasks.parquet"
    pq.write_table(pa.table({"task_index": [1, 0], "__index_level_0__": ["one", "zero"]}), path)
    assert open_dataset(small.root).tasks == ("zero", "one")
    assert open_dataset(small.root)[1].task == "one"
    pq.write_table(pa.table({"task": ["zero", "one"]}), path)
    assert open_dataset(small.root)[1].task == "one"
    path.unlink()
    assert open_dataset(small.root)[1].task == TASKS[1]  # what meta/episodes lists
    pq.write_table(pa.table({"words": ["zero"]}), path)
    with pytest.raises(DataError, match="has no column 'task'"):
        open_dataset(small.root)


def test_depth_maps_are_not_cameras_and_channels_may_come_first(small):
    features = json.loads((small.root / "meta/info.json").read_text())["features"]
    depth = {"dtype": "video", "shape": [64, 80, 1], "info": {"is_depth_map": True}}
    legacy = {"dtype": "video", "shape": [64, 80, 1], "video_info": {"video.is_depth_map": True}}
    features[TOP] |= {"shape": [3, 64, 80], "names": ["channels", "height", "width"]}
    edit_info(small.root, features=features | {"observation.depth": depth, "observation.depth2": legacy})
    dataset = open_dataset(small.root)
    assert dataset.cameras == (TOP,)
    assert dataset.image_size(TOP) == (64, 80)
    assert dataset[0].cameras[TOP][np.array([3])].shape == (1, 64, 80, 3)
    assert open_dataset(DATA / "dataset_v3").image_size(WRIST) == (96, 96)


def test_opening_reads_meta_only_and_episodes_read_their_own_row_groups(tmp_path, monkeypatch):
    built = build_dataset(tmp_path / "lazy", lengths=(14, 14, 14), cameras={TOP: "png"}, per_file=3)
    read: list[tuple[list[int], tuple[str, ...]]] = []
    plain = pq.ParquetFile.read_row_groups

    def noting(file, groups, columns=None, **options):
        read.append((list(groups), tuple(columns)))
        return plain(file, groups, columns=columns, **options)

    monkeypatch.setattr(parquet.pq.ParquetFile, "read_row_groups", noting)
    dataset = open_dataset(built.root)
    assert read == []
    episode = dataset[1]
    assert [groups for groups, _ in read] == [[2, 3]]  # rows 14..27, in groups of 7
    assert TOP not in read[0][1]
    list(episode.cameras[TOP].chunks(5))
    episode.cameras[TOP][np.array([3])]
    assert read[1:] == [([2, 3], (TOP, "episode_index"))]
    assert dataset[1].length == 14
    assert len(read) == 2


def test_one_row_group_for_many_episodes_is_read_once(tmp_path, monkeypatch):
    built = build_dataset(tmp_path / "one", lengths=(5,) * 8, per_file=8)
    edit_parquet(built.root / ROWS, lambda table: table)
    reads = []
    plain = parquet.RowReader._read
    monkeypatch.setattr(parquet.RowReader, "_read", lambda *arguments: (reads.append(1), plain(*arguments))[1])
    assert [episode.row for episode in open_dataset(built.root)] == list(range(0, 40, 5))
    assert len(reads) == 1


def test_an_episode_survives_pickling(small):
    dataset = pickle.loads(pickle.dumps(open_dataset(small.root)))
    episode = pickle.loads(pickle.dumps(dataset[1]))
    np.testing.assert_array_equal(episode.cameras[TOP][np.array([2])], small.images[TOP, 1][[2]])


def test_fingerprint_is_of_the_frames_only(annotated, small):
    plain = open_dataset(DATA / "dataset_v3").fingerprint
    assert plain == open_dataset(annotated).fingerprint == open_dataset(annotated, episodes=[1], cameras=[TOP]).fingerprint
    assert len(plain) == 16
    (annotated / "sarm_progress.parquet").write_bytes(b"anything")
    set_column(annotated / EPISODES, "operator", ["ada"] * 3)
    assert open_dataset(annotated).fingerprint == plain
    with (annotated / f"videos/{WRIST}/chunk-000/file-001.mp4").open("ab") as file:
        file.write(b"x")
    assert open_dataset(annotated).fingerprint != plain
    before = open_dataset(small.root).fingerprint
    edit_info(small.root, fps=21)
    assert open_dataset(small.root).fingerprint not in (before, plain)


def test_the_fingerprint_sees_bytes_change_in_place(small):
    """The same size and name with other pictures inside is another dataset: features kept of it would be of the wrong frames."""
    before = open_dataset(small.root).fingerprint
    video = next(small.root.glob("videos/**/*.mp4"))
    whole = bytearray(video.read_bytes())
    third = len(whole) // 3
    whole[third : 2 * third] = bytes(third)
    assert len(whole) == video.stat().st_size
    video.write_bytes(whole)
    assert open_dataset(small.root).fingerprint != before
