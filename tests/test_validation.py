"""Validation: healthy datasets have no errors, every kind of damage is found and named, and nothing makes it raise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import build_dataset
from milepost.cli import info
from milepost.core.errors import DataError
from milepost.core.types import ArrayFrames, Segment
from milepost.datasets.findings import Expected, Finding, check_rows, check_segments
from milepost.datasets.recording import Recording
from milepost.datasets.validation import validate
from milepost.datasets.video import encode_video
from milepost.datasets.writer import write_dataset
from milepost.testing import CAMERA, dot_episodes, write_dots

DATA = Path(__file__).parent / "data"
TOP = "observation.images.top"
ROWS = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{TOP}/chunk-000/file-000.mp4"
LENGTHS = (12, 20, 15)


def pictures(length: int, *, height: int = 64, width: int = 96, seed: int = 0) -> list[np.ndarray]:
    ground = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return [np.roll(ground, 2 * t, axis=1) for t in range(length)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "set"
    rng = np.random.default_rng(0)
    recordings = [
        Recording(
            ("open the drawer", "shut the drawer")[number % 2],
            rng.normal(size=(length, 3)).astype(np.float32),
            rng.normal(size=(length, 2)).astype(np.float32),
            {TOP: pictures(length, seed=number)},
            columns={"next.success": np.arange(length) == length - 1},
            segments={"sparse": [Segment("reach", 0, 5), Segment("move", 5, length)]},
            facts={"success": number != 1},
        )
        for number, length in enumerate(LENGTHS)
    ]
    write_dataset(root, recordings, fps=10, robot_type="toy", proportions={"sparse": {"reach": 0.4, "move": 0.6}})
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "set"))


def test_what_is_in_it(sound: Path) -> None:
    report = validate(sound)
    assert (report.findings, report.healthy) == ((), True)
    assert (report.name, report.version, report.robot, report.fps) == ("set", "v3.0", "toy", 10.0)
    assert (report.episodes, report.frames, report.duration_s) == (3, 47, 4.7)
    assert report.tasks == {"open the drawer": 2, "shut the drawer": 1}
    assert [(c.name, c.kind, c.height, c.width, c.codec) for c in report.cameras] == [(TOP, "video", 64, 96, "av1")]
    assert (report.state, report.action, report.annotated) == (3, 2, {"sparse": 3})
    assert (report.succeeded, report.judged) == (2, 3)


def test_lerobots_own_datasets_are_sound() -> None:
    videos = validate(DATA / "dataset_v3")
    assert (videos.findings, videos.episodes, videos.frames, videos.succeeded, videos.judged) == ((), 6, 744, 5, 6)
    assert validate(DATA / "dataset_v3_images").healthy


def test_lerobots_annotations(tmp_path: Path) -> None:
    shutil.copytree(DATA / "dataset_v3", tmp_path / "set")
    shutil.copytree(DATA / "dataset_v3_annotated" / "meta", tmp_path / "set/meta", dirs_exist_ok=True)
    report = validate(tmp_path / "set")
    assert report.annotated == {"sparse": 5, "dense": 5}
    assert {(f.code, f.severity, f.episode) for f in report.findings} == {("not-annotated", "warning", 3)}


def edit(path: Path, name: str, change: Callable[[list[Any]], list[Any] | None]) -> None:
    """Change a column of a parquet file; None takes it out."""
    table = pq.read_table(path)
    values = change(table[name].to_pylist())
    place = table.column_names.index(name)
    if values is None:
        table = table.remove_column(place)
    else:
        try:
            held = pa.array(values, table.schema.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            held = pa.array(values)
        table = table.set_column(place, name, held)
    pq.write_table(table, path)


def put(where: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:where], value, *values[where + 1 :]]


def edit_json(path: Path, **changes: Any) -> None:
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, **changes}))


def take_rows(path: Path, rows: list[int]) -> None:
    pq.write_table(pq.read_table(path).take(rows), path)


def features(root: Path, name: str, **changes: Any) -> None:
    held = json.loads((root / "meta/info.json").read_text())["features"]
    held[name] = {**held[name], **changes}
    edit_json(root / "meta/info.json", features=held)


def other_video(root: Path, count: int, **size: int) -> None:
    (root / VIDEO).unlink()
    encode_video(root / VIDEO, pictures(count, height=size.get("height", 64)), size.get("fps", 10))


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def damage_end(path: Path) -> None:
    """Zeros over the last tenth of the pictures, the index at the end (or the start) left as it is."""
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    size = int.from_bytes(content[begin - 8 : begin - 4], "big") - 8
    content[begin + size * 9 // 10 : begin + size] = bytes(size - size * 9 // 10)
    path.write_bytes(bytes(content))


NAMES, STARTS, ENDS = ("sparse_subtask_names", "sparse_subtask_start_frames", "sparse_subtask_end_frames")
SPAN = f"videos/{TOP}/from_timestamp"

BREAKS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "no data file": ("data-file", "error", lambda r: (r / ROWS).unlink()),
    "cut data file": ("data-file", "error", lambda r: cut(r / ROWS, 0.6)),
    "no video": ("video-file", "error", lambda r: (r / VIDEO).unlink()),
    "cut video": ("video-file", "error", lambda r: (r / VIDEO).write_bytes(b"not a film")),
    "damaged video": ("video-damaged", "error", lambda r: damage_end(r / VIDEO)),
    "no episodes file": ("empty", "error", lambda r: (r / EPISODES).unlink()),
    "cut episodes file": ("episodes", "error", lambda r: cut(r / EPISODES, 0.5)),
    "no tasks file": ("tasks", "error", lambda r: (r / "meta/tasks.parquet").unlink()),
    "no statistics": ("stats", "warning", lambda r: (r / "meta/stats.json").unlink()),
    "info is no JSON": ("info", "error", lambda r: (r / "meta/info.json").write_text("{")),
    "info is a list": ("info", "error", lambda r: (r / "meta/info.json").write_text("[]")),
    "no fps": ("info", "error", lambda r: edit_json(r / "meta/info.json", fps=0)),
    "no features": ("info", "error", lambda r: edit_json(r / "meta/info.json", features=None)),
    "old version": ("version", "error", lambda r: edit_json(r / "meta/info.json", codebase_version="v1.6")),
    "wrong episode total": ("totals", "error", lambda r: edit_json(r / "meta/info.json", total_episodes=4)),
    "wrong frame total": ("totals", "error", lambda r: edit_json(r / "meta/info.json", total_frames=46)),
    "episode missing": ("episode-index", "error", lambda r: edit(r / EPISODES, "episode_index", lambda _: [0, 1, 3])),
    "episode twice": ("episode-index", "error", lambda r: edit(r / EPISODES, "episode_index", lambda _: [0, 1, 1])),
    "episode without number": ("episodes", "error", lambda r: edit(r / EPISODES, "episode_index", put(1, None))),
    "episode without video": ("episodes", "error", lambda r: edit(r / EPISODES, SPAN, lambda _: None)),
    "episode number beyond reason": ("episode-index", "error", lambda r: edit(r / EPISODES, "episode_index", put(1, 10**15))),
    "span is NaN": ("episodes", "error", lambda r: edit(r / EPISODES, SPAN, put(1, float("nan")))),
    "task numbers are lists": ("tasks", "error", lambda r: edit(r / "meta/tasks.parquet", "task_index", lambda _: [[0], [1]])),
    "two episode numbers a row": ("columns", "error", lambda r: edit(r / ROWS, "episode_index", lambda v: [[n, n] for n in v])),
    "rows overlap": ("episode-rows", "error", lambda r: edit(r / EPISODES, "dataset_from_index", put(1, 11))),
    "wrong length": ("row-count", "error", lambda r: edit(r / EPISODES, "length", put(1, 21))),
    "unknown task": ("tasks", "error", lambda r: edit(r / EPISODES, "tasks", put(1, ["sing"]))),
    "tasks out of order": ("tasks", "error", lambda r: edit(r / "meta/tasks.parquet", "task_index", lambda _: [1, 0])),
    "row lost": ("row-count", "error", lambda r: take_rows(r / ROWS, [*range(20), *range(21, 47)])),
    "row twice": ("row-index", "error", lambda r: take_rows(r / ROWS, [*range(20), 19, *range(21, 47)])),
    "gap in index": ("row-index", "error", lambda r: edit(r / ROWS, "index", put(30, 99))),
    "frames from 1": ("frame-index", "error", lambda r: edit(r / ROWS, "frame_index", lambda v: [*v[:12], *range(1, 21), *v[32:]])),
    "stranger's rows": ("stray-rows", "error", lambda r: edit(r / ROWS, "episode_index", put(46, 7))),
    "stray file": ("stray-file", "warning", lambda r: shutil.copy(r / ROWS, (r / ROWS).with_name("file-007.parquet"))),
    "time jumps": ("timestamp", "error", lambda r: edit(r / ROWS, "timestamp", put(14, 0.3))),
    "time is NaN": ("timestamp", "error", lambda r: edit(r / ROWS, "timestamp", put(14, float("nan")))),
    "time jitters": ("timestamp-jitter", "warning", lambda r: edit(r / ROWS, "timestamp", put(14, 0.203))),
    "task out of range": ("task-index", "error", lambda r: edit(r / ROWS, "task_index", put(3, 2))),
    "state is NaN": ("not-finite", "error", lambda r: edit(r / ROWS, "observation.state", put(13, [0.0, float("nan"), 0.0]))),
    "action is infinite": ("not-finite", "error", lambda r: edit(r / ROWS, "action", put(13, [float("inf"), 0.0]))),
    "state stands still": ("constant-state", "warning", lambda r: edit(r / ROWS, "observation.state", lambda v: [*[v[0]] * 12, *v[12:]])),
    "no state column": ("columns", "error", lambda r: edit(r / ROWS, "observation.state", lambda _: None)),
    "no episode column": ("columns", "error", lambda r: edit(r / ROWS, "episode_index", lambda _: None)),
    "ragged action": ("columns", "error", lambda r: edit(r / ROWS, "action", put(5, [0.0]))),
    "state is text": ("columns", "error", lambda r: edit(r / ROWS, "observation.state", lambda v: ["a"] * len(v))),
    "short video": ("video-short", "error", lambda r: other_video(r, 40)),
    "video of another size": ("video-size", "error", lambda r: other_video(r, 47, height=48)),
    "video of another rate": ("video-fps", "error", lambda r: other_video(r, 47, fps=12)),
    "another codec told": ("video-codec", "warning", lambda r: features(r, TOP, info={"video.codec": "h264"})),
    "span too short": ("video-span", "error", lambda r: edit(r / EPISODES, f"videos/{TOP}/to_timestamp", put(1, 2.9))),
    "spans overlap": ("video-overlap", "error", lambda r: edit(r / EPISODES, SPAN, put(2, 1.2))),
    "one not annotated": ("not-annotated", "warning", lambda r: [edit(r / EPISODES, n, put(1, None)) for n in (NAMES, STARTS, ENDS)]),
    "unknown stage": ("segment-unknown", "error", lambda r: edit(r / EPISODES, NAMES, put(1, ["reach", "sing"]))),
    "stage outside": ("segment-outside", "error", lambda r: edit(r / EPISODES, ENDS, put(1, [5, 21]))),
    "stages overlap": ("segment-order", "error", lambda r: edit(r / EPISODES, STARTS, put(1, [0, 4]))),
    "stages out of order": (
        "segment-order",
        "error",
        lambda r: [edit(r / EPISODES, STARTS, put(1, [5, 0])), edit(r / EPISODES, ENDS, put(1, [20, 5]))],
    ),
    "stage lists differ": ("segment-lists", "error", lambda r: edit(r / EPISODES, STARTS, put(1, [0]))),
    "stage without name": ("segment-lists", "error", lambda r: edit(r / EPISODES, NAMES, put(1, ["reach", None]))),
    "no proportions": ("proportions", "note", lambda r: (r / "meta/temporal_proportions_sparse.json").unlink()),
    "bad proportions": ("proportions", "error", lambda r: (r / "meta/temporal_proportions_sparse.json").write_text("[1]")),
    "proportions sum to 2": ("proportions", "warning", lambda r: edit_json(r / "meta/temporal_proportions_sparse.json", reach=1.4)),
    "broken side file": ("side-file", "warning", lambda r: (r / "sarm_progress.parquet").write_text("PAR?")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_damage_is_found(root: Path, name: str) -> None:
    code, severity, damage = BREAKS[name]
    damage(root)
    report = validate(root)
    assert (code, severity) in {(finding.code, finding.severity) for finding in report.findings}, report.findings
    assert report.healthy == (not any(finding.severity == "error" for finding in report.findings))
    assert json.loads(json.dumps(report.to_dict()))["healthy"] == report.healthy


@pytest.mark.parametrize(
    ("name", "episode"), [("time jumps", 1), ("state is NaN", 1), ("stage outside", 1), ("span too short", 1), ("damaged video", 2)]
)
def test_damage_is_laid_to_the_right_episode_only(root: Path, name: str, episode: int) -> None:
    code, _, damage = BREAKS[name]
    damage(root)
    assert {(finding.code, finding.episode) for finding in validate(root).findings} == {(code, episode)}


def test_quick_does_not_decode(root: Path) -> None:
    damage_end(root / VIDEO)
    assert not validate(root).healthy
    assert validate(root, quick=True).healthy


def test_side_files(root: Path) -> None:
    pq.write_table(pa.table({"index": [0, 1], "progress_sparse": [0.0, 1.0]}), root / "sarm_progress.parquet")
    pq.write_table(pa.table({"index": [0], "weight": [1.0]}), root / "weights.parquet")
    report = validate(root)
    assert (report.progress_files, report.weight_files) == (("sarm_progress.parquet",), ("weights.parquet",))
    assert [(f.code, f.severity) for f in report.findings] == [("progress-rows", "note")]


def test_one_frame_episodes_are_pointed_out(tmp_path: Path) -> None:
    still = Recording("wait", np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32), {})
    write_dataset(tmp_path / "set", [still], fps=5)
    assert [(f.code, f.severity, f.episode) for f in validate(tmp_path / "set").findings] == [("one-frame", "warning", 0)]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("codec", ["libx264", "png"])
def test_other_layouts(tmp_path: Path, version: str, codec: str) -> None:
    root = build_dataset(tmp_path / "set", version=version, cameras={TOP: codec}).root
    report = validate(root)
    assert (report.version, report.episodes, report.frames, report.count("error")) == (version, 3, 29, 0), report.findings
    lost = next((root / ("data" if codec == "png" else "videos")).rglob("*.parquet" if codec == "png" else "*.mp4"))
    lost.unlink()
    assert {f.code for f in validate(root).findings if f.severity == "error"} == {"data-file" if codec == "png" else "video-file"}


def test_only_what_is_no_dataset_raises(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(DataError):
            validate(place)


@pytest.mark.parametrize("seed", range(40))
def test_no_damage_makes_it_raise(root: Path, seed: int) -> None:
    """Random bytes changed, cut or swapped between files, one to three times."""
    rng = np.random.default_rng(seed)
    held = sorted(path for path in root.rglob("*") if path.is_file())
    for _ in range(rng.integers(1, 4)):
        path = held[rng.integers(len(held))]
        content = bytearray(path.read_bytes())
        kind = rng.integers(3)
        if kind == 0 and content:
            for place in rng.integers(0, len(content), 20):
                content[place] = rng.integers(256)
        elif kind == 1:
            content = content[: rng.integers(len(content) + 1)]
        else:
            content = bytearray(held[rng.integers(len(held))].read_bytes())
        path.write_bytes(bytes(content))
    json.dumps(validate(root).to_dict())


def test_no_odd_value_in_info_makes_it_raise(root: Path) -> None:
    told = json.loads((root / "meta/info.json").read_text())
    places = [(told, key) for key in told] + [(told["features"][TOP], key) for key in told["features"][TOP]]
    for holder, key in places:
        kept = holder[key]
        for odd in (None, -1, 0.5, "x", "{", [], {}, [1, "a"], True):
            holder[key] = odd
            (root / "meta/info.json").write_text(json.dumps(told))
            json.dumps(validate(root, quick=True).to_dict())
        holder[key] = kept


def test_rows_of_long_episodes_are_not_called_jittery() -> None:
    frame = np.arange(200_000)
    told = Expected(0, len(frame), 0, 30.0, 1)
    assert not list(check_rows({"timestamp": (frame / 30).astype(np.float32)}, told))


def test_segments_that_touch_repeat_or_are_empty_are_fine() -> None:
    lists = (["a", "b", "b", "a"], [0, 3, 3, 5], [3, 3, 5, 9])
    assert not list(check_segments("dense", *lists, length=9, stage_names=("a", "b"), episode=0))


def test_info_says_it_all(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(info.Args(str(root))) == 0
    text = capsys.readouterr().out
    for word in (
        "set: LeRobot v3.0 · 3 episodes · 47 frames · 4.7 s · 10 fps · toy",
        "open the drawer",
        "96 x 64 av1",
        "sparse: 3 of 3 episodes",
        "2 of 3",
        "no errors",
    ):
        assert word in text
    edit(root / ROWS, "timestamp", lambda values: [value + 5 for value in values])
    assert info.main(info.Args(str(root))) == 1
    text = capsys.readouterr().out
    assert "timestamp (3)" in text
    assert "episode 2: 15 time stamps" in text
    assert "✗ 3 errors" in text


def test_info_cuts_long_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = [Recording("wait", np.zeros((1, 2), np.float32), np.zeros((1, 2), np.float32), {}) for _ in range(13)]
    write_dataset(tmp_path / "set", still, fps=5)
    assert info.main(info.Args(str(tmp_path / "set"))) == 0
    text = capsys.readouterr().out
    assert "episode 9:" in text
    assert "and 3 more" in text
    assert "episode 10:" not in text


def test_info_for_machines_and_for_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(info.Args(str(root), json=True)) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 47
    assert info.main(info.Args(str(tmp_path / "nothing"))) == 2
    assert "nothing" in capsys.readouterr().err


def recorded(root: Path, stages: str, *, order: str = "", task: str = "tidy up") -> Path:
    """Three episodes of 30 frames that go through these stages, of unknown success; `order`: the proportions file's."""
    names = stages.split()
    cuts = [30 * k // len(names) for k in range(len(names) + 1)]
    segments = [Segment(name, start, stop) for name, start, stop in zip(names, cuts, cuts[1:], strict=False)]
    moving = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    recordings = [Recording(task, moving, moving[:, :2].copy(), {}, segments={"sparse": segments}) for _ in range(3)]
    listed = order.split() or names
    write_dataset(root, recordings, fps=10, robot_type="toy", proportions={"sparse": {name: 1 / len(listed) for name in listed}})
    return root


def found(root: Path, code: str) -> list[Finding]:
    return [finding for finding in validate(root).findings if finding.code == code]


def test_stages_that_contradict_themselves_are_errors(tmp_path: Path) -> None:
    assert not found(recorded(tmp_path / "fine", "reach lift place"), "stages")
    (backwards,) = found(recorded(tmp_path / "back", "reach lift place", order="place lift reach"), "stages")
    assert "in 3 of 3 annotated episodes" in backwards.message
    assert backwards.severity == "error"
    (unseen,) = found(recorded(tmp_path / "unseen", "reach lift place", order="reach lift place rest"), "stages")
    assert "no annotated episode shows the last stage, 'rest'" in unseen.message


def test_a_blank_task_is_a_warning(tmp_path: Path) -> None:
    (blank,) = found(recorded(tmp_path / "blank", "reach lift", task=" . "), "blank-task")
    assert blank.severity == "warning"
    assert blank.message.startswith("3 episodes without an instruction")


@pytest.mark.parametrize("deep", [False, True])
def test_a_camera_that_stood_still(tmp_path: Path, deep: bool) -> None:
    episodes = dot_episodes(4)
    for number in (1, 2):
        (images,) = (frames[np.arange(len(frames))] for frames in episodes[number].cameras.values())
        frozen = {CAMERA: ArrayFrames(images[:1].repeat(len(images), 0))}
        episodes[number] = replace(episodes[number], cameras=frozen)
    write_dots(tmp_path / "dots", episodes)
    report = validate(tmp_path / "dots", deep=deep)
    assert [(finding.code, finding.severity, finding.episode) for finding in report.findings] == [
        ("frozen", "warning", 1),
        ("frozen", "warning", 2),
    ]
    assert "the camera stood still, or nothing moved" in report.findings[0].message
