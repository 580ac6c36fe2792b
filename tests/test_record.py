"""Writing: what comes back is what went in; a rewritten LeRobot dataset is the one LeRobot wrote; nothing is ever half there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.core.errors import DataError
from milepost.core.types import Segment
from milepost.datasets import writer as record
from milepost.datasets.reader import open_dataset
from milepost.datasets.recording import Recording
from milepost.datasets.statistics import ImageCounter, column_stats, merge, sampled_frames
from milepost.datasets.video import VideoFrames
from milepost.datasets.writer import assemble, encode_episode, is_encoded, write_dataset

DATA = Path(__file__).parent / "data"
TOP, WRIST = "observation.images.top", "observation.images.wrist"
SHARES = {"sparse": {"reach": 0.25, "move": 0.75}}


def pictures(length: int, seed: int = 0) -> list[np.ndarray]:
    ground = np.random.default_rng(seed).integers(0, 255, (8, 12, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return [np.roll(ground, 2 * t, axis=1) for t in range(length)]


def attempt(number: int, length: int = 12, **changes: Any) -> Recording:
    rng = np.random.default_rng(number)
    given: dict[str, Any] = {
        "task": ("open the drawer", "shut the drawer")[number % 2],
        "state": rng.normal(size=(length, 5)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
        "frames": {TOP: (image for image in pictures(length, number)), WRIST: pictures(length, number + 50)},
        "columns": {
            "next.success": np.arange(length) == length - 1,
            "truth.progress": np.linspace(0, 1, length, dtype=np.float32),
            "truth.stage": np.arange(length) // 5,
            "truth.pose": rng.normal(size=(length, 3)),
        },
        "segments": {"sparse": [Segment("reach", 0, length // 2), Segment("move", length // 2, length)]},
        "facts": {"success": number != 1, "kind": "expert", "scene": number},
    }
    return Recording(**{**given, **changes})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_round_trip(tmp_path: Path) -> None:
    kept = [attempt(0), attempt(1, 30, segments={}), attempt(2, 1, segments={}), attempt(3, 17)]
    folders = [tmp_path / f"{number}" for number in range(4)]
    for folder, recording in zip(folders, kept, strict=True):
        encode_episode(folder, recording, fps=10)
    assemble(tmp_path / "set", folders, fps=10, robot_type="toy", proportions=SHARES)
    dataset = open_dataset(tmp_path / "set")
    assert (dataset.fps, dataset.tasks, dataset.cameras) == (10, ("open the drawer", "shut the drawer"), (TOP, WRIST))
    assert dataset.proportions("sparse") == SHARES["sparse"]
    row = 0
    for number, (episode, recording, folder) in enumerate(zip(dataset, kept, folders, strict=True)):
        assert (episode.index, episode.row, episode.task, episode.length) == (number, row, recording.task, len(recording))
        row += len(recording)
        np.testing.assert_array_equal(episode.state, recording.state)
        np.testing.assert_array_equal(episode.columns["action"], recording.action)
        for name, column in recording.columns.items():
            np.testing.assert_array_equal(episode.columns[name], column)
            assert episode.columns[name].dtype == column.dtype
        np.testing.assert_array_equal(episode.columns["timestamp"], (np.arange(len(recording)) / 10).astype(np.float32))
        assert episode.facts == dict(recording.facts)
        assert {head: list(stages) for head, stages in episode.segments.items()} == recording.segments
        for camera in (TOP, WRIST):
            alone = VideoFrames(folder / f"{camera}.mp4", np.arange(len(recording)) / 10, 10)
            every = np.arange(len(recording))
            np.testing.assert_array_equal(episode.cameras[camera][every], alone[every])


def test_pictures_are_the_ones_recorded(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [attempt(0), attempt(1)], fps=10)
    for number, episode in enumerate(open_dataset(tmp_path / "set")):
        seen = episode.cameras[TOP][np.arange(12)].astype(int)
        apart = np.abs(seen[:, None] - np.stack(pictures(12, number))[None].astype(int)).mean(axis=(2, 3, 4))
        assert (apart.argmin(axis=1) == np.arange(12)).all()
        assert np.diag(apart).max() < 15


@st.composite
def anything(draw: st.DrawFn) -> dict[str, Any]:
    """The parts of a recording without pictures. It is built in the test: beartype draws random numbers of its own."""
    length = draw(st.integers(1, 9))
    return {
        "length": length,
        "seed": draw(st.integers(0, 2**32)),
        "task": draw(st.text(min_size=1).filter(str.strip)),
        "cuts": sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=6))) if draw(st.booleans()) else None,
        "facts": {"note": draw(st.text())} if draw(st.booleans()) else {},
    }


def plain_recording(length: int, seed: int, task: str, cuts: list[int] | None, facts: dict[str, str]) -> Recording:
    rng = np.random.default_rng(seed)
    columns = {
        "flag": rng.random(length) < 0.5,
        "wide": rng.integers(-(2**40), 2**40, (length, 3)),
        "level": rng.integers(0, 255, length).astype(np.uint8),
        "x": rng.normal(size=length),
    }
    state, action = (rng.normal(size=(length, width)).astype(np.float32) for width in (1, 2))
    stages = [Segment(f"stage {k}", *pair) for k, pair in enumerate(itertools.pairwise(cuts or []))]
    return Recording(task, state, action, {}, columns=columns, segments={"dense": stages} if cuts else {}, facts=facts)


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(anything(), min_size=1, max_size=4), fps=st.integers(1, 120))
def test_any_recording_comes_back(tmp_path_factory: pytest.TempPathFactory, parts: list[dict[str, Any]], fps: int) -> None:
    kept = [plain_recording(**part) for part in parts]
    root = tmp_path_factory.mktemp("any") / "set"
    write_dataset(root, kept, fps=fps)
    dataset = open_dataset(root)
    for episode, recording in zip(dataset, kept, strict=True):
        assert episode.task == recording.task
        np.testing.assert_array_equal(episode.state, recording.state)
        for name, column in recording.columns.items():
            np.testing.assert_array_equal(episode.columns[name], column)
        assert {head: list(stages) for head, stages in episode.segments.items()} == recording.segments
        assert episode.facts == dict(recording.facts)
    held = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
    assert held["dataset_to_index"].to_pylist() == np.cumsum([len(recording) for recording in kept]).tolist()


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeRobot's own dataset, read and written again."""
    root = tmp_path_factory.mktemp("rewritten") / "set"

    def recordings() -> Iterator[Recording]:
        for episode in open_dataset(DATA / "dataset_v3"):
            extra = {name: episode.columns[name] for name in ("next.reward", "next.success")}
            frames = {camera: (image for chunk in held.chunks() for image in chunk) for camera, held in episode.cameras.items()}
            yield Recording(episode.task, episode.state, episode.columns["action"], frames, columns=extra)

    write_dataset(root, recordings(), fps=20, robot_type="sawyer")
    return root


def whole(root: Path, kind: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((root / kind).glob("*/*.parquet"))])


def test_rewriting_lerobots_dataset_gives_its_info_and_rows(rewritten: Path) -> None:
    theirs = DATA / "dataset_v3"
    assert json.loads((rewritten / "meta/info.json").read_text()) == json.loads((theirs / "meta/info.json").read_text())
    ours, held = whole(rewritten, "data"), whole(theirs, "data")
    assert ours.equals(held)
    assert ours.schema.equals(held.schema)
    tasks = [pq.read_table(root / "meta/tasks.parquet") for root in (rewritten, theirs)]
    assert tasks[0].equals(tasks[1])


def test_rewriting_lerobots_dataset_gives_its_episode_table(rewritten: Path) -> None:
    ours, held = whole(rewritten, "meta/episodes"), whole(DATA / "dataset_v3", "meta/episodes")
    assert ours.schema.equals(held.schema)
    # The fixture was recorded in two sessions with a small file size: only the places differ.
    same = ["episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index"]
    assert ours.select(same).equals(held.select(same))
    for camera in (TOP, WRIST):
        spans = np.array([[e[f"videos/{camera}/{edge}_timestamp"] for edge in ("from", "to")] for e in ours.to_pylist()])
        np.testing.assert_allclose(spans[:, 1], np.cumsum([148, 123, 128, 149, 92, 104]) / 20, atol=1e-9)
        np.testing.assert_allclose(spans[1:, 0], spans[:-1, 1], atol=1e-9)


def test_parquet_files_are_made_as_lerobots(rewritten: Path) -> None:
    ours = pq.ParquetFile(rewritten / "data/chunk-000/file-000.parquet")
    theirs = pq.ParquetFile(DATA / "dataset_v3/data/chunk-000/file-000.parquet")
    assert [ours.metadata.row_group(i).num_rows for i in range(6)] == [148, 123, 128, 149, 92, 104]
    assert ours.metadata.row_group(0).column(0).compression == "SNAPPY"
    features = [json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"] for file in (ours, theirs)]
    assert features[0] == features[1]
    tasks = [pq.read_schema(root / "meta/tasks.parquet").metadata[b"pandas"] for root in (rewritten, DATA / "dataset_v3")]
    assert [json.loads(one)["index_columns"] for one in tasks] == [["task"], ["task"]]
    assert pq.read_schema(rewritten / "meta/episodes/chunk-000/file-000.parquet").metadata is None


@pytest.mark.parametrize(
    "name", ["observation.state", "action", "next.reward", "next.success", "timestamp", "frame_index", "index", "task_index"]
)
def test_statistics_are_lerobots(rewritten: Path, name: str) -> None:
    """LeRobot sums in float32: agreement is to that rounding, 1e-4 of a channel's range."""
    held, ours = whole(DATA / "dataset_v3", "meta/episodes").to_pylist(), whole(rewritten, "meta/episodes").to_pylist()
    for mine, theirs in zip(ours, held, strict=True):
        span = np.maximum(np.subtract(theirs[f"stats/{name}/max"], theirs[f"stats/{name}/min"]), 0.02)
        for key in ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"):
            off = np.abs(np.subtract(mine[f"stats/{name}/{key}"], theirs[f"stats/{name}/{key}"])) / span
            # A variance as E[x^2] - E[x]^2 in float32 loses half the digits: of a still channel it is 1e-3 of its value.
            rounding = 2e-3 * np.abs(theirs[f"stats/{name}/max"]) / span if key == "std" else 0
            assert (off < 1e-4 + rounding).all(), key
    mine, theirs = (json.loads((root / "meta/stats.json").read_text())[name] for root in (rewritten, DATA / "dataset_v3"))
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(mine[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


def test_image_statistics_are_lerobots() -> None:
    """On lossless pictures, so that both see the same ones. LeRobot's float32 sums are off by up to 1e-3, ours are exact."""
    held = json.loads((DATA / "dataset_v3_images_stats.json").read_text())
    for episode, theirs in zip(open_dataset(DATA / "dataset_v3_images"), held, strict=True):
        counter = ImageCounter(episode.length)
        images = episode.cameras[TOP][np.arange(episode.length)]
        for frame, image in enumerate(images):
            counter.add(frame, image)
        stats = counter.stats()
        np.testing.assert_allclose(stats["mean"].reshape(-1), (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(stats["std"].reshape(-1), (images / 255).std(axis=(0, 1, 2)), rtol=1e-9)
        assert list(stats) == list(theirs)
        for key, value in stats.items():
            assert value.shape == np.shape(theirs[key])
            np.testing.assert_allclose(value, theirs[key], atol=1e-3 if key in ("mean", "std") else 2.1e-4, err_msg=key)


def test_large_images_are_thinned() -> None:
    image = np.zeros((300, 600, 3), np.uint8)
    image[::4, ::4] = 255
    counter = ImageCounter(1)
    counter.add(0, image)
    assert counter.stats()["mean"].reshape(-1).tolist() == [1.0] * 3


def test_statistics_by_hand() -> None:
    stats = column_stats(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(stats["mean"], [1.5, 5])
    np.testing.assert_allclose(stats["std"], [np.sqrt(1.25), 0])
    np.testing.assert_allclose(stats["q50"], [1, 5], atol=1e-3)
    assert stats["count"].tolist() == [4]
    alone = column_stats(np.array([7]))
    assert {key: value.tolist() for key, value in alone.items()} == {key: [7.0] for key in alone} | {"std": [0.0], "count": [1]}
    both = merge([column_stats(np.array([0.0, 2.0])), column_stats(np.array([4.0]))])
    np.testing.assert_allclose([both["mean"][0], both["std"][0], both["max"][0]], [2, np.sqrt(8 / 3), 4])


def test_sampled_frames() -> None:
    assert sampled_frames(60).tolist() == list(range(60))
    assert len(sampled_frames(500)) == 105
    assert (sampled_frames(500)[0], sampled_frames(500)[-1]) == (0, 499)
    assert len(sampled_frames(10**6)) == 10_000


def test_tables_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(tmp_path / name, [attempt(0), attempt(1)], fps=10, proportions=SHARES)
    made = files(tmp_path / "a")
    assert made == files(tmp_path / "b")
    for name in made:
        if (tmp_path / "a" / name).is_file():
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_files_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / f"{number}" for number in range(5)]
    for number, folder in enumerate(folders):
        encode_episode(folder, attempt(number), fps=10)
    assemble(tmp_path / "whole", folders, fps=10)
    rows, video = ((folders[0] / name).stat().st_size for name in ("rows.parquet", f"{TOP}.mp4"))
    monkeypatch.setattr(record, "MEGABYTE", 5 * rows // 2)
    monkeypatch.setattr(record, "FILES_PER_CHUNK", 2)
    assemble(tmp_path / "split", folders, fps=10, data_mb=1, video_mb=max(1, video // rows // 3))
    assert {"data/chunk-000/file-001.parquet", f"videos/{TOP}/chunk-001/file-000.mp4"} <= files(tmp_path / "split")
    for one, other in zip(open_dataset(tmp_path / "whole"), open_dataset(tmp_path / "split"), strict=True):
        np.testing.assert_array_equal(one.state, other.state)
        for camera in (TOP, WRIST):
            np.testing.assert_array_equal(one.cameras[camera][np.arange(12)], other.cameras[camera][np.arange(12)])


def test_annotation_columns(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [attempt(0), attempt(1, segments={})], fps=10)
    held = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet")
    assert held["sparse_subtask_names"].to_pylist() == [["reach", "move"], None]
    assert held["sparse_subtask_start_times"].to_pylist() == [[0.0, 0.6], None]
    assert held["sparse_subtask_end_frames"].to_pylist() == [[6, 12], None]
    for name in ("names", "start_times", "end_times", "start_frames", "end_frames"):
        assert held[f"subtask_{name}"].equals(held[f"sparse_subtask_{name}"])
    assert not [name for name in held.column_names if name.startswith("dense")]


def interrupted() -> Iterator[np.ndarray]:
    yield from pictures(5)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (interrupted, KeyboardInterrupt),
        (lambda: iter(pictures(11)), DataError),
        (lambda: iter(pictures(13)), DataError),
        (lambda: iter([*pictures(6), *[image[:, :64] for image in pictures(6)]]), DataError),
        (lambda: iter([image[1:] for image in pictures(12)]), DataError),
        (lambda: iter([]), DataError),
    ],
)
def test_a_broken_recording_leaves_nothing(tmp_path: Path, frames: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        encode_episode(tmp_path / "one" / "episode", attempt(0, frames={TOP: pictures(12), WRIST: frames()}), fps=10)
    assert not is_encoded(tmp_path / "one" / "episode")
    assert not any((tmp_path / "one").iterdir())
    with pytest.raises(error):
        write_dataset(tmp_path / "two" / "set", [attempt(1), attempt(0, frames={TOP: frames(), WRIST: pictures(12)})], fps=10)
    assert not any((tmp_path / "two").iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="exists already"):
        write_dataset(tmp_path / "set", [attempt(0)], fps=10)
    encode_episode(tmp_path / "episode", attempt(0), fps=10)
    with pytest.raises(DataError, match="exists already"):
        assemble(tmp_path / "set", [tmp_path / "episode"], fps=10)
    with pytest.raises(DataError, match="exists already"):
        encode_episode(tmp_path / "episode", attempt(0), fps=10)
    assert is_encoded(tmp_path / "episode")
    assert files(tmp_path) == {"set", "episode", *(f"episode/{name}" for name in files(tmp_path / "episode"))}


def test_states_and_cameras_may_be_absent(tmp_path: Path) -> None:
    bare = attempt(0, frames={}, state=np.zeros((12, 0), np.float32), action=np.zeros((12, 1), np.float32))
    write_dataset(tmp_path / "set", [bare], fps=10)
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    assert info["video_path"] is None
    assert "observation.state" not in info["features"]
    assert info["features"]["action"]["shape"] == [1]
    assert open_dataset(tmp_path / "set")[0].state.shape == (12, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": " "}, "needs a task"),
        ({"state": np.zeros((12,), np.float32)}, "state must be"),
        ({"state": np.zeros((12, 2))}, "state must be float32"),
        ({"action": np.zeros((11, 2), np.float32)}, "has 11 rows"),
        ({"state": np.zeros((0, 2), np.float32)}, "at least one frame"),
        ({"state": np.full((12, 2), np.nan, np.float32)}, "NaN"),
        ({"columns": {"a/b": np.zeros(12)}}, "without '/'"),
        ({"columns": {"": np.zeros(12)}}, "not empty"),
        ({"columns": {"x": np.zeros(12, np.int8)}}, "int8"),
        ({"columns": {"x": np.zeros(12, np.float16)}}, "float16"),
        ({"columns": {"x": np.zeros(12, np.uint16)}}, "uint16"),
        ({"columns": {"x": np.array(["a"] * 12)}}, "need one of"),
        ({"columns": {"x": np.zeros((12, 1))}}, "D > 1"),
        ({"columns": {"x": np.zeros((12, 2, 2))}}, "D > 1"),
        ({"columns": {"x": np.zeros(5)}}, "5 rows"),
        ({"columns": {"x": np.full(12, np.inf)}}, "infinite"),
        ({"columns": {"index": np.arange(12)}}, "taken by the format"),
        ({"columns": {"task": np.arange(12)}}, "taken by the format"),
        ({"columns": {"image_quality": np.zeros(12)}}, "takes a name with 'image'"),
        ({"frames": {"a/b": []}}, "without '/'"),
        ({"segments": {"fine": []}}, "sparse or dense"),
        ({"segments": {"sparse": [Segment("a", 0, 13)]}}, "segment 'a' ends at frame 13, the recording has 12"),
        ({"segments": {"sparse": [Segment("a", 0, 6), Segment("b", 5, 9)]}}, "'b' starts at frame 5, before 'a' ends at 6"),
        ({"facts": {"length": 3}}, "taken by the format"),
        ({"facts": {"dense_subtask_names": "x"}}, "taken by the format"),
        ({"facts": {"stats/x": 3}}, "without '/'"),
        ({"facts": {"score": float("nan")}}, "leave it out"),
        ({"facts": {"score": None}}, "leave it out"),
    ],
)
def test_bad_recordings_are_refused(changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # what users see: the shape checks are of the tests only
    with pytest.raises(DataError, match=message):
        attempt(0, **changes)


def test_episodes_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    def encoded(name: str, recording: Recording, fps: int = 10) -> Path:
        encode_episode(tmp_path / name, recording, fps=fps)
        return tmp_path / name

    first = encoded("first", attempt(0, frames={}))
    others = {
        "differ in 'next.success'": encoded("fewer", attempt(1, frames={}, columns={})),
        "differ in 'observation.state'": encoded("wider", attempt(1, frames={}, state=np.zeros((12, 6), np.float32))),
        "20 frames per second": encoded("faster", attempt(1, frames={}), fps=20),
        "of several kinds": encoded("fact", attempt(1, frames={}, facts={"scene": "kitchen"})),
        "not a complete encoded episode": tmp_path / "nothing",
    }
    for message, other in others.items():
        with pytest.raises(DataError, match=message):
            assemble(tmp_path / "set", [first, other], fps=10)
    with pytest.raises(DataError, match="at least one episode"):
        assemble(tmp_path / "set", [], fps=10)
    with pytest.raises(DataError, match="without a proportion: move"):
        assemble(tmp_path / "set", [first], fps=10, proportions={"sparse": {"reach": 1.0}})
    assert not (tmp_path / "set").exists()
