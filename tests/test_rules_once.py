"""One rule for many doors: the same fault has the same words, whoever meets it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import TOP, build_dataset, edit_info, edit_parquet, set_column
from milepost.annotation.spreadsheet import read_file
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.core.files import json_value, to_json
from milepost.core.stages import require_sound_segments, segment_faults
from milepost.core.types import Segment
from milepost.datasets.annotations import write_annotations
from milepost.datasets.metadata import stamps_of
from milepost.datasets.reader import open_dataset
from milepost.datasets.recording import Recording
from milepost.datasets.validation import validate
from milepost.progress.matching import curves_by_row, find_progress, match_progress, require_episode

EPISODES = "meta/episodes/chunk-000/file-001.parquet"
"""Of episodes 1 and 2: the first has a file of its own."""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three episodes of 5, 6 and 4 frames, without a camera."""
    return build_dataset(tmp_path / "small", lengths=(5, 6, 4), cameras={}).root


# meta/


@pytest.mark.parametrize(
    "broken",
    [
        {"fps": 0},
        {"fps": "fast"},
        {"fps": None},
        {"codebase_version": "v1.6"},
        {"codebase_version": 3},
        {"features": ["observation.state"]},
        {"features": {"action": 7}},
        {"data_path": 7},
    ],
)
def test_a_broken_info_json_has_the_same_words_for_reading_and_for_info(small: Path, broken: dict[str, Any]) -> None:
    edit_info(small, **broken)
    with pytest.raises(DataError) as refused:
        open_dataset(small)
    errors = [finding.message for finding in validate(small).findings if finding.severity == "error"]
    assert any(message in str(refused.value) for message in errors), (str(refused.value), errors)


def test_the_first_fault_is_refused_and_all_are_reported(small: Path) -> None:
    edit_info(small, fps=-1, data_path=7)
    with pytest.raises(DataError, match="fps must be above 0"):
        open_dataset(small)
    messages = " | ".join(finding.message for finding in validate(small).findings)
    assert "fps must be above 0" in messages
    assert "'data_path' should be a path template" in messages


def test_info_lists_the_cameras_that_are_offered(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "depth", lengths=(4,)).root
    features = json.loads((root / "meta/info.json").read_text())["features"]
    depth = {"dtype": "video", "shape": [64, 80, 1], "info": {"is_depth_map": True}}
    edit_info(root, features=features | {"observation.depth": depth})
    report = validate(root, quick=True)
    assert tuple(camera.name for camera in report.cameras) == open_dataset(root).cameras == (TOP,)
    assert report.depth == ("observation.depth",)


def test_an_annotation_in_older_columns_alone_counts_for_all(small: Path) -> None:
    """Two annotators wrote into one table: episode 1 has the older one's columns alone."""
    write_annotations(small, {n: {"sparse": (Segment("reach", 0, 4),)} for n in range(3)})
    for field in ("names", "start_frames", "end_frames", "start_times", "end_times"):
        name = f"sparse_subtask_{field}"
        values = pq.read_table(small / EPISODES)[name]
        set_column(small / EPISODES, name, [None, values[1].as_py()], values.type)
    assert open_dataset(small)[1].segments == {"sparse": (Segment("reach", 0, 4),)}
    report = validate(small)
    assert report.annotated == {"sparse": 3}
    (finding,) = [each for each in report.findings if each.code == "not-annotated"]
    assert finding.episode == 1
    assert "LeRobot reads those, and finds none" in finding.message


def test_writing_into_meta_changes_its_stamps(small: Path) -> None:
    before = stamps_of(small)
    assert stamps_of(small) == before
    write_annotations(small, {0: {"sparse": (Segment("reach", 0, 4),)}})
    assert stamps_of(small) != before


# Segments

FAULTS = {
    "order": ((Segment("reach", 0, 3), Segment("lift", 2, 5)), "'lift' starts at frame 2, before 'reach' ends at 3"),
    "outside": ((Segment("reach", 0, 3), Segment("lift", 3, 7)), "'lift' ends at frame 7, "),
}


def by_check(root: Path, segments: tuple[Segment, ...]) -> None:
    require_sound_segments(segments, None, 6)


def by_recording(root: Path, segments: tuple[Segment, ...]) -> None:
    Recording("lift it", np.zeros((6, 2), np.float32), np.zeros((6, 2), np.float32), {}, segments={"sparse": segments})


def by_writing(root: Path, segments: tuple[Segment, ...]) -> None:
    write_annotations(root, {1: {"sparse": segments}})


def by_table(root: Path, segments: tuple[Segment, ...]) -> None:
    rows = [{"episode": 1, "head": "sparse", "name": s.name, "start_frame": s.start, "stop_frame": s.stop} for s in segments]
    (root / "edited.json").write_text(json.dumps(rows, indent=1))
    read_file(root / "edited.json", lengths={1: 6})


def by_info(root: Path, segments: tuple[Segment, ...]) -> None:
    write_annotations(root, {1: {"sparse": (Segment("reach", 0, 1), Segment("lift", 1, 2))}})
    for field, values in (("start_frames", [s.start for s in segments]), ("end_frames", [s.stop for s in segments])):
        for prefix in ("sparse_subtask_", "subtask_"):
            old = pq.read_table(root / EPISODES)[f"{prefix}{field}"]
            set_column(root / EPISODES, f"{prefix}{field}", [values, None], old.type)
    raise DataError(" | ".join(finding.message for finding in validate(root).findings if finding.severity == "error"))


@pytest.mark.parametrize("door", [by_check, by_recording, by_writing, by_table, by_info])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_wrong_segment_has_the_same_words_at_every_door(small: Path, kind: str, door: Any) -> None:
    segments, words = FAULTS[kind]
    with pytest.raises(DataError) as refused:
        door(small, segments)
    said = str(refused.value).replace(" (line 2)", "")
    assert words in said


def test_all_faults_of_segments_are_named_with_their_places() -> None:
    spans = [("reach", 0, 5), ("fly", 4, 9), ("lift", 3, 2), ("lift", 9, 12)]
    faults = segment_faults(spans, 10, ("reach", "lift"))
    assert [(fault.kind, fault.place) for fault in faults] == [
        ("unknown", 1), ("order", 1), ("order", 2), ("outside", 2), ("outside", 3),
    ]  # fmt: skip
    assert str(faults[0]) == "unknown stage 'fly'; the stages are: reach, lift"
    assert str(faults[2]) == "segment 'lift' starts at frame 3, before 'fly' ends at 9"
    assert not segment_faults([("a", 0, 3), ("b", 3, 3), ("a", 5, 10)], 10, ("a", "b"))


# Whose rows


@pytest.fixture
def foreign(tmp_path: Path, small: Path) -> Path:
    """A progress file of a dataset with other lengths that does not say whose it is."""
    yours = build_dataset(tmp_path / "yours", lengths=(7, 6, 4), cameras={}).root
    assert main(["label", str(yours), "--model", "elapsed"]) == 0
    edit_parquet(yours / "elapsed_progress.parquet", lambda table: table.replace_schema_metadata(None))
    return yours / "elapsed_progress.parquet"


@pytest.mark.parametrize("verb", ["weigh", "evaluate", "copy", "plot"])
def test_rows_of_another_dataset_have_the_same_words_in_every_verb(
    small: Path, foreign: Path, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = {"weigh": "--output-path", "copy": "--output-dir", "plot": "--output-dir"}
    where = [output[verb], str(tmp_path / "out")] if verb in output else []
    assert main([verb, str(small), "--progress", str(foreign), *where]) == 2
    words = "rows do not fit small, first index 5 (episode 0, frame 5), where that episode has rows 0 to 4"
    assert words in capsys.readouterr().err
    with pytest.raises(DataError, match=re.escape(words)):
        match_progress(foreign, open_dataset(small))


def test_missing_rows_are_counted_over_the_episodes_in_use(small: Path) -> None:
    assert main(["label", str(small), "--model", "elapsed", "--episodes", "0,2"]) == 0
    assert find_progress(open_dataset(small)).missing == 6
    assert find_progress(open_dataset(small, episodes="0 2")).missing == 0
    found = find_progress(open_dataset(small, episodes=[1, 2]))
    assert found.missing == 6
    curve = curves_by_row(found.path, found.table, open_dataset(small))["sparse"]
    assert np.isnan(curve).tolist() == [False] * 5 + [True] * 6 + [False] * 4
    require_episode(found.path, found.table, open_dataset(small)[2])


def test_episodes_may_be_written_as_text(small: Path) -> None:
    assert open_dataset(small, episodes="2,0-1").episode_indices == (2, 0, 1)
    for wrong in ("x", "3-1", ""):
        with pytest.raises(ValueError, match="numbers and rising ranges"):
            open_dataset(small, episodes=wrong)
    with pytest.raises(DataError, match="no episode 3; this dataset has 3, numbered 0 to 2"):
        open_dataset(small, episodes="0-3")


# Values


def test_json_has_no_nan() -> None:
    value = {"a": float("nan"), 2: (np.float32(0.5), np.array([1.0, np.inf])), "b": {"c": [None, True, Path("x")]}}
    assert json_value(value) == {"a": None, "2": [0.5, [1.0, None]], "b": {"c": [None, True, "x"]}}
    assert json.loads(to_json(value)) == json_value(value)


@pytest.mark.parametrize(
    "door",
    [
        "milepost.core.types.ArrayFrames(images)",
        "milepost.encoders.pixels.reduce_images(images)",
        "milepost.encoders.resize.Preprocessing((8, 8)).images(images)",
        "milepost.figures.film.planes.to_i420(images[0])",
        "milepost.core.images.as_uint8(images, 'pictures')",
    ],
)
def test_floats_up_to_255_are_refused_at_every_door(door: str) -> None:
    """In a process of its own: the tests' checks of types would refuse them before we do."""
    module = door[: re.search(r"\.[A-Za-z_0-9]+\(", door).start()]  # type: ignore[union-attr]
    script = (
        f"import numpy as np, {module}\nimages = np.full((2, 8, 8, 3), 200.0, np.float32)\ntry:\n    {door}\nexcept ValueError as error:\n"
    )
    script += "    print(type(error).__name__, error)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.startswith("DataError"), out
    assert "uint8" in out
