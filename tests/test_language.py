"""Subtasks of LeRobot's column `language_persistent`: read as segments, checked by `info`, brought over by `annotate --from-language`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from language_content import EVENTS, FPS, LANGUAGE, Row, edit_info, event, files_of, kind, replace_cells, row, write_language
from milepost.cli.entry import main
from milepost.core import DataError, Segment, UnreadableError
from milepost.core.errors import DataWarning
from milepost.datasets import (
    copy_with_language,
    language_rows,
    open_dataset,
    read_language_subtasks,
    read_metadata,
    validate,
    write_annotations,
)
from milepost.datasets.language_rows import EpisodeRows, LanguageRow, language_faults, segments_of_rows
from test_cli import milepost


def two_steps(episode: int) -> list[Row]:
    return [row("a plan", 0, "plan"), row("reach", 0), row("carry", 12 + episode)]


def expected(root: Path) -> dict[int, dict[str, tuple[Segment, ...]]]:
    lengths = open_dataset(root).length
    return {n: {"sparse": (Segment("reach", 0, 12 + n), Segment("carry", 12 + n, lengths(n)))} for n in range(4)}


def rows_of(*rows: LanguageRow, length: int = 20) -> EpisodeRows:
    return EpisodeRows(rows, np.arange(length) / FPS)


DATA = Path(__file__).parent / "data"


@pytest.fixture
def by_lerobot(tmp_path: Path) -> Path:
    """A dataset whose language columns LeRobot 0.6.1's own writer made (benchmarks/lerobot_language.py)."""
    root = tmp_path / "by_lerobot"
    shutil.copytree(DATA / "dataset_v3", root)
    shutil.copytree(DATA / "dataset_v3_language", root, dirs_exist_ok=True)
    return root


def test_what_lerobot_wrote_is_what_its_own_resolver_finds_in_every_frame(by_lerobot: Path) -> None:
    found = json.loads((by_lerobot / "subtasks.json").read_text())
    dataset = open_dataset(by_lerobot)
    assert len(dataset) == len(found) == 6
    for episode in dataset:
        names: list[str | None] = [None] * episode.length
        for segment in episode.segments.get("sparse", ()):
            names[segment.start : segment.stop] = [segment.name] * (segment.stop - segment.start)
        assert names == found[str(episode.index)]
    codes = [each.code for each in validate(by_lerobot).findings]
    assert codes == ["language", "language-none"]  # episode 3 has no rows


def test_the_rest_of_what_lerobot_wrote_stays_in_a_copy(by_lerobot: Path, tmp_path: Path) -> None:
    parts = (Segment("reach", 0, 50), Segment("pull", 50, open_dataset(by_lerobot).length(0)))
    copy_with_language(by_lerobot, tmp_path / "copy", {0: {"sparse": parts}})
    assert read_language_subtasks(tmp_path / "copy") == read_language_subtasks(by_lerobot) | {0: {"sparse": parts}}
    for name in sorted(path.relative_to(by_lerobot) for path in (by_lerobot / "data").rglob("*.parquet")):
        old, new = (pq.read_table(root / name) for root in (by_lerobot, tmp_path / "copy"))
        assert new.drop_columns([LANGUAGE]).equals(old.drop_columns([LANGUAGE]))
        others = [[[each for each in cell if each["style"] != "subtask"] for cell in table[LANGUAGE].to_pylist()] for table in (old, new)]
        assert others[0] == others[1]
    assert json.loads((tmp_path / "copy/meta/info.json").read_text()) == json.loads((by_lerobot / "meta/info.json").read_text())


TYPES = {
    "as LeRobot's writer infers it": None,
    "as LeRobot's documentation has it": kind(),
    "with tool calls in JSON": kind(tool_calls=pa.list_(pa.struct([("type", pa.string())]))),
    "large strings, double stamps": kind(content=pa.large_string(), style=pa.large_string(), timestamp=pa.float64()),
}


@pytest.mark.parametrize("name", TYPES)
def test_rows_are_segments_until_the_next_one(name: str, tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps, column=TYPES[name])
    assert read_language_subtasks(root) == expected(root)
    assert read_language_subtasks(root, "dense") == {n: {"dense": heads["sparse"]} for n, heads in expected(root).items()}


def test_they_are_the_sparse_stages_of_every_episode(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    dataset = open_dataset(root)
    assert {episode.index: dict(episode.segments) for episode in dataset} == expected(root)
    assert {n: record.sound_segments for n, record in dataset.meta.episodes.items()} == expected(root)
    assert dataset[0].annotation_faults == {}
    assert LANGUAGE not in dataset[0].columns
    report = validate(root)
    assert report.annotated == {"sparse": 4}
    assert report.healthy
    assert [each.code for each in report.findings if each.code.startswith("language")] == ["language"]


def test_frame_stamps_of_the_data_count_and_not_the_rate(tmp_path: Path) -> None:
    """LeRobot compares a row's time with the frame's own; here the camera was late by a frame from frame 8 on."""
    root = write_language(tmp_path / "dots", lambda n: [row("reach", 0), row("carry", 12)])
    path = sorted((root / "data").rglob("*.parquet"))[0]
    table = pq.read_table(path)
    frames = table["frame_index"].to_numpy()
    times = pa.array(((frames + (frames >= 8)) / FPS).astype(np.float32))
    pq.write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", times), path)
    assert read_language_subtasks(root)[0]["sparse"][1].start == 11


def test_a_row_between_two_frames_is_in_force_from_the_next_one() -> None:
    rows = rows_of(LanguageRow("reach", 0.0), LanguageRow("carry", 1.04))
    assert segments_of_rows(rows, FPS) == (Segment("reach", 0, 11), Segment("carry", 11, 20))
    rounded = rows_of(LanguageRow("reach", 0.0), LanguageRow("carry", float(np.float32(0.7))), LanguageRow("place", 0.9000001))
    assert [each.start for each in segments_of_rows(rounded, FPS)] == [0, 7, 9]


def test_a_row_without_content_ends_a_subtask() -> None:
    rows = rows_of(LanguageRow("reach", 0.5), LanguageRow("", 1.0), LanguageRow("carry", 1.5))
    assert segments_of_rows(rows, FPS) == (Segment("reach", 5, 10), Segment("carry", 15, 20))
    assert [fault.code for fault in language_faults(rows, FPS)] == ["language-start", "language-gap"]
    assert [fault.message for fault in language_faults(rows, FPS)] == [
        "the first 0.50 s have no subtask", "0.50 s between subtasks or after them have none",
    ]  # fmt: skip


def test_a_file_in_which_no_episode_has_a_row_is_read(tmp_path: Path) -> None:
    """LeRobot's writer then has a list of nothing, without any fields."""
    root = write_language(tmp_path / "dots", lambda n: [])
    assert pa.types.is_null(pq.read_schema(next((root / "data").rglob("*.parquet"))).field(LANGUAGE).type.value_type)
    assert [dict(episode.segments) for episode in open_dataset(root)] == [{}] * 4
    assert validate(root).healthy


def test_an_episode_without_rows_has_no_stages(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", lambda n: two_steps(n) if n != 2 else [row("a plan", 0, "plan")])
    assert [bool(episode.segments) for episode in open_dataset(root)] == [True, True, False, True]
    (finding,) = (each for each in validate(root).findings if each.code == "language-none")
    assert "1 episode without a subtask, while others have some: 2" in finding.message


def test_the_column_is_read_only_when_stages_are_needed_and_only_its_needed_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    asked: list[list[str]] = []
    batches = language_rows._batches
    monkeypatch.setattr(language_rows, "_batches", lambda path, file, names: asked.append(list(names)) or batches(path, file, names))
    dataset = open_dataset(root)
    assert (len(dataset), dataset.fingerprint != "", dataset.task_of(0) != "", asked) == (4, True, True, [])
    assert [len(episode.segments["sparse"]) for episode in dataset] == [2] * 4
    assert asked == [[*(f"{LANGUAGE}.list.element.{field}" for field in ("content", "style", "timestamp")), "episode_index", "timestamp"]]


def test_a_model_learns_from_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_language(tmp_path / "dots", lambda n: [row("reach", 0), row("carry", 8), row("place", 14)], count=6)
    words = ["--annotation-mode", "sparse_only", "--preset", "small", "--steps", "2"]
    assert main(["train", str(root), "--output-dir", str(tmp_path / "sarm"), *words]) == 0
    config = json.loads((tmp_path / "sarm/config.json").read_text())
    assert "reach" in json.dumps(config)
    assert "stage accuracy" in capsys.readouterr().out


def test_a_worker_process_reads_its_own(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    dataset = open_dataset(root)
    assert dataset[0].segments == expected(root)[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert [dict(episode.segments) for episode in again] == list(expected(root).values())


def test_an_annotation_in_meta_wins_and_a_difference_is_said(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps, annotated=True)
    with pytest.warns(DataWarning, match="subtasks in language_persistent differ from the annotation in meta/, which counts"):
        episode = open_dataset(root)[1]
    assert [segment.name for segment in episode.segments["sparse"]] == ["reach", "carry", "place"]
    (finding,) = (each for each in validate(root).findings if each.code == "language-clash")
    assert "(so in 4 episodes: 0-3)" in finding.message
    assert finding.severity == "warning"


def test_the_same_annotation_in_both_forms_is_no_clash(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    assert main(["annotate", str(root), "--from-language", "dense"]) == 0
    assert open_dataset(root).episode(1).segments == {"dense": expected(root)[1]["sparse"]}
    assert not [each for each in validate(root).findings if each.code in ("language-clash", "language")]


def test_they_are_brought_over_and_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    before = {path: path.read_bytes() for path in (root / "data").rglob("*.parquet")}
    assert main(["annotate", str(root), "--from-language", "sparse", "--skip-existing"]) == 0
    assert "sparse stages of 4 episodes read from language_persistent; without any: 0" in " ".join(capsys.readouterr().out.split())
    assert not read_metadata(root).from_language
    assert open_dataset(root).episode(1).segments["sparse"] == read_language_subtasks(root)[1]["sparse"]
    assert {path: path.read_bytes() for path in before} == before
    assert main(["annotate", str(root), "--from-language", "sparse", "--from-subtask-index", "sparse"]) == 2


def test_the_same_stages_once_more_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Proportions that a person has set stay."""
    root = write_language(tmp_path / "dots", two_steps)
    assert main(["annotate", str(root), "--from-language", "sparse"]) == 0
    (proportions,) = (root / "meta").glob("temporal_proportions_sparse.json")
    names = list(json.loads(proportions.read_text()))
    proportions.write_text(json.dumps({name: round(1 / len(names), 6) for name in names}))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert main(["annotate", str(root), "--from-language", "sparse"]) == 0
    assert "nothing, all of it was there" in " ".join(capsys.readouterr().out.split())
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


FAULTS: dict[str, tuple[Callable[[int], list[Row]], str, str]] = {
    "language-start": (lambda n: [row("reach", 3)], "the first 0.30 s have no subtask (so in 4 episodes: 0-3)", "warning"),
    "language-gap": (lambda n: [row("reach", 0), row(None, 10)], "between subtasks or after them have none", "warning"),
    "language-overlap": (lambda n: [row("reach", 0), row("carry", 0)], "1 subtask begins at the same time as another one", "error"),
    "language-hidden": (lambda n: [row("reach", 0), row("carry", 3.3), row("place", 3.6)], "so no frame has it", "warning"),
    "language-stamp": (
        lambda n: [row("reach", 0), row("carry", 10.4)],
        "1 of 2 subtasks begins between two frames, first at 1.04 s; in force from the next frame on",
        "warning",
    ),
    "language-outside": (lambda n: [row("reach", 0), row("carry", 900)], "'carry' begins at 90 s, outside the", "error"),
    "language-style": (
        lambda n: [row("reach", 0), row("what?", 0, "vqa")],
        "of style 'vqa' belong into the column language_events",
        "warning",
    ),
    "language-unknown": (lambda n: [row("reach", 0), row("positive", 0, "advantage")], "the style 'advantage' is not one of", "warning"),
}


@pytest.mark.parametrize("code", FAULTS)
def test_what_is_wrong_is_said_by_info(code: str, tmp_path: Path) -> None:
    content, says, severity = FAULTS[code]
    root = write_language(tmp_path / "dots", content)
    (finding,) = (each for each in validate(root).findings if each.code == code)
    assert says in finding.message
    assert finding.severity == severity
    episode = open_dataset(root)[0]
    if severity == "error":
        assert "cannot be read" in episode.annotation_faults["sparse"]
        assert "sparse" not in episode.segments
        with pytest.raises(DataError, match="episode 0: "):
            read_language_subtasks(root)
    else:
        assert episode.annotation_faults == {}
        assert episode.segments["sparse"][0].name == "reach"


def test_a_stamp_before_the_episode_is_an_error() -> None:
    codes = [each.code for each in language_faults(rows_of(LanguageRow("reach", -1.0)), FPS)]
    assert "language-outside" in codes
    assert "language-stamp" not in codes, "it is between no two frames"


@pytest.mark.parametrize("batch", [4096, 7])
@pytest.mark.parametrize("other", [[], [row("reach", 0), row("carry", 13)], [row("a plan", 0, "plan"), row("grasp", 0), row("carry", 12)]])
def test_frames_that_hold_other_rows_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: list[Row], batch: int) -> None:
    monkeypatch.setattr(language_rows, "_BATCH", batch)
    root = write_language(tmp_path / "dots", two_steps)
    replace_cells(root, lambda cells: [*cells[:7], other, *cells[8:]])
    (finding,) = (each for each in validate(root).findings if each.code == "language-differs")
    assert "1 frame of" in finding.message
    assert finding.episode == 0
    with pytest.raises(DataError, match=r"episode 0: 1 frame of .* hold other language rows than the first frame"):
        read_language_subtasks(root)
    assert open_dataset(root)[1].segments == expected(root)[1]


def test_a_sound_column_is_no_finding_and_no_column_is_an_error(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    assert not [each for each in validate(root).findings if each.code.startswith("language-")]
    plain = write_language(tmp_path / "plain", two_steps)
    for path in (plain / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns([LANGUAGE, EVENTS]), path)
    with pytest.raises(DataError, match="has no column 'language_persistent'"):
        read_language_subtasks(plain)
    assert "has no column 'language_persistent'" in open_dataset(plain)[0].annotation_faults["sparse"]
    none = write_language(tmp_path / "none", lambda n: [row("a plan", 0, "plan")])
    with pytest.raises(DataError, match="has no row of style 'subtask' in language_persistent"):
        read_language_subtasks(none)


SHAPES = {
    "string": (["reach"] * 200, "language_persistent is string; a list of rows with content, style, timestamp is expected"),
    "no stamps": ([[{"content": "reach", "style": "subtask"}]] * 200, "a list of rows with content, style, timestamp is expected"),
    "numbers": ([[{"content": 3, "style": "subtask", "timestamp": 0.0}]] * 200, "'content' of language_persistent is int64"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_column_of_another_shape_is_named(name: str, tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    content, says = SHAPES[name]
    replace_cells(root, lambda cells: content[: len(cells)])
    with pytest.raises(DataError, match=says):
        read_language_subtasks(root)
    assert any(each.code == "language-column" and says in each.message for each in validate(root).findings)
    with pytest.warns(DataWarning, match=says):
        assert open_dataset(root)[0].segments == {}


def test_a_stamp_that_is_no_number_is_the_fault_of_its_episode(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", lambda n: [row("reach", 0), row("carry", float("nan") if n == 1 else 9)])
    dataset = open_dataset(root)
    assert dataset[0].segments["sparse"][1].start == 9
    assert "time stamp nan" in dataset[1].annotation_faults["sparse"]


def test_a_column_of_that_name_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    replace_cells(root, lambda cells: ["reach"] * len(cells))
    edit_info(root, lambda info: info["features"].update({LANGUAGE: {"dtype": "string", "shape": [1], "names": None}}))
    assert open_dataset(root)[0].segments == {}
    (finding,) = (each for each in validate(root).findings if each.code == "language-name")
    assert "info.json says that it holds 'string'" in finding.message


def test_subtasks_among_the_events_are_said(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps, events_of=lambda n, frame: [event("reach", "subtask")] if frame == 3 else [])
    (finding,) = (each for each in validate(root).findings if each.code == "language-style")
    assert "4 rows of style 'subtask' in data/chunk-000/file-000.parquet belong into the column language_persistent" in finding.message


def test_a_damaged_file_is_the_fault_of_its_episodes(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    (path,) = (root / "data").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="damaged or truncated"):
        read_language_subtasks(root)
    with pytest.raises(UnreadableError):
        open_dataset(root)[0]
    assert not validate(root).healthy


def test_a_snapshot_of_the_hub_is_read_and_never_written_into(tmp_path: Path) -> None:
    commit = "c" * 40
    root = tmp_path / "hub" / "datasets--me--dots" / "snapshots" / commit
    root.parent.mkdir(parents=True)
    shutil.move(os.fspath(write_language(tmp_path / "dots", two_steps)), root)
    before = files_of(root)
    assert open_dataset(root)[2].segments == expected(root)[2]
    assert main(["annotate", str(root), "--from-language", "sparse"]) == 2
    assert files_of(root) == before


@pytest.mark.parametrize("version", ["v3.1", "v3.0"])
def test_the_newer_version_opens_alike(version: str, tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    edit_info(root, lambda info: info.update(codebase_version=version))
    dataset = open_dataset(root)
    assert {episode.index: dict(episode.segments) for episode in dataset} == expected(root)
    notes = [each.message for each in validate(root).findings if each.code == "version"]
    assert len(notes) == (version == "v3.1")


def test_writing_one_episode_keeps_the_subtasks_of_the_others(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    dataset = open_dataset(root)
    new = (Segment("reach", 0, 9), Segment("carry", 9, dataset.length(1)))
    with pytest.raises(DataError, match="which would be replaced: give overwrite=True"):
        write_annotations(dataset, {1: {"sparse": new}})
    assert write_annotations(dataset, {1: {"sparse": new}}, overwrite=True).episodes == {"sparse": 4}
    assert {episode.index: dict(episode.segments) for episode in dataset} == expected(root) | {1: {"sparse": new}}
    assert not read_metadata(root).from_language
    write_annotations(dataset, {n: {"sparse": ()} for n in range(4)}, overwrite=True)
    assert [dict(episode.segments) for episode in dataset] == [{}] * 4  # removed is removed


def test_dense_stages_beside_them(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    dense = (Segment("grasp", 0, 5), Segment("pull", 5, open_dataset(root).length(0)))
    assert write_annotations(root, {0: {"dense": dense}}).episodes == {"sparse": 4, "dense": 1}
    assert open_dataset(root)[0].segments == {"sparse": expected(root)[0]["sparse"], "dense": dense}
    assert open_dataset(root)[3].segments == expected(root)[3]


def test_subtasks_that_cannot_be_read_are_counted_when_others_are_written(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", lambda n: two_steps(n) if n != 2 else [row("reach", 0), row("carry", 0)])
    with pytest.warns(DataWarning, match="the subtasks of 1 episode in language_persistent cannot be read, first of episode 2"):
        assert write_annotations(root, {0: {"sparse": ()}}, overwrite=True).episodes == {"sparse": 2}


def test_a_closed_vocabulary_says_which_subtasks_are_not_on_it(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", two_steps)
    whole = (Segment("move", 0, open_dataset(root).length(0)),)
    with pytest.raises(DataError, match="episode 1, sparse: unknown stage 'reach'; the stages are: move; that is what its language column"):
        write_annotations(root, {0: {"sparse": whole}}, names={"sparse": ["move"]}, overwrite=True)
    before = files_of(root)
    table = tmp_path / "stages.csv"
    assert main(["annotate", str(root), "--to-file", str(table)]) == 0
    table.write_text(table.read_text().replace("carry", "cary"))
    assert main(["annotate", str(root), "--import", str(table), "--sparse-subtasks", "reach,carry"]) == 2
    assert files_of(root) == before
    table.write_text(table.read_text().replace("cary", "carry"))
    assert main(["annotate", str(root), "--import", str(table), "--sparse-subtasks", "reach,carry"]) == 0
    assert open_dataset(root)[3].segments == expected(root)[3]
    assert tuple(open_dataset(root).stages["sparse"].names) == ("reach", "carry")


def test_a_copy_of_meta_has_the_subtasks_of_the_other_episodes_too(tmp_path: Path) -> None:
    root, copy = write_language(tmp_path / "dots", two_steps), tmp_path / "copy"
    table = tmp_path / "stages.csv"
    assert main(["annotate", str(root), "--to-file", str(table), "--episodes", "1"]) == 0
    table.write_text(table.read_text().replace("carry", "place"))
    assert main(["annotate", str(root), "--import", str(table), "--output-path", str(copy)]) == 0
    segments = {n: record.segments["sparse"] for n, record in read_metadata(copy).episodes.items()}
    assert {n: [each.name for each in parts] for n, parts in segments.items()} == {
        0: ["reach", "carry"], 1: ["reach", "place"], 2: ["reach", "carry"], 3: ["reach", "carry"],
    }  # fmt: skip
    assert read_metadata(root).from_language


def test_an_episode_that_cannot_be_read_is_not_counted_as_annotated(tmp_path: Path) -> None:
    def overlapping(episode: int) -> list[Row]:
        return [row("reach", 0), row("carry", 0)] if episode == 1 else two_steps(episode)

    report = validate(write_language(tmp_path / "dots", overlapping))
    assert (report.annotated, report.unusable) == ({"sparse": 3}, {"sparse": 1})
    run = milepost("info", tmp_path / "dots", "--quick")
    assert "sparse: 3 of 4 episodes; of 1 episode it cannot be used" in run.stdout


def test_stages_that_contradict_each_other_are_warned_of_when_they_are_written(tmp_path: Path) -> None:
    def other_order(episode: int) -> list[Row]:
        names = ("reach", "carry") if episode % 2 else ("carry", "reach")
        return [row(names[0], 0), row(names[1], 12)]

    root = write_language(tmp_path / "dots", other_order)
    run = milepost("annotate", root, "--from-language", "sparse")
    assert run.returncode == 0, run.stderr
    assert "the sparse stages of language_persistent:" in run.stderr
    sound = milepost("annotate", write_language(tmp_path / "sound", two_steps), "--from-language", "sparse")
    assert (sound.returncode, sound.stderr) == (0, "")
