"""Stages as rows of LeRobot's language columns, in a copy: `annotate --to-language`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from language_content import EVENTS, FEATURE, FPS, LANGUAGE, Row, edit_info, event, files_of, kind, replace_cells, row, write_language
from milepost.cli.entry import main
from milepost.core import DataError, Segment
from milepost.datasets import copy_with_language, open_dataset, read_language_subtasks, read_metadata, validate, write_annotations
from milepost.testing import dot_episodes, write_dots


def plain(root: Path) -> Path:
    """A dataset with an annotation in meta/, and without language columns."""
    write_dots(root, dot_episodes(4))
    return root


def cells_of(root: Path, name: str = LANGUAGE) -> dict[int, list[list[Row]]]:
    """Episode -> the rows of each of its frames."""
    cells: dict[int, list[list[Row]]] = {}
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        for episode, cell in zip(table["episode_index"].to_pylist(), table[name].to_pylist(), strict=True):
            cells.setdefault(episode, []).append(cell)
    return cells


def without_meta(root: Path, copy: Path) -> Path:
    """Returns a copy whose meta/ has no annotation, so that the language columns are read."""
    shutil.copytree(root, copy)
    for path in (copy / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.select([name for name in table.column_names if "subtask_" not in name]), path)
    return copy


def active_at(rows: list[Row], time: float) -> Any:
    """The content that LeRobot has for a frame: of the latest row whose time is not after the frame's; an error if there are two."""
    matches = [each for each in rows if each["style"] == "subtask" and each["timestamp"] <= time]
    latest = [each for each in matches if each["timestamp"] == max(other["timestamp"] for other in matches)]
    assert len(latest) < 2
    return (latest[0]["content"] or None) if latest else None


def test_the_annotation_is_in_every_frame_and_reads_back_exactly(tmp_path: Path) -> None:
    root, copy = plain(tmp_path / "dots"), tmp_path / "copy"
    before = files_of(root)
    assert main(["annotate", str(root), "--to-language", str(copy)]) == 0
    assert files_of(root) == before
    segments = {episode.index: episode.segments["sparse"] for episode in open_dataset(root)}
    assert {n: heads["sparse"] for n, heads in read_language_subtasks(copy).items()} == segments
    assert {episode.index: episode.segments["sparse"] for episode in open_dataset(without_meta(copy, tmp_path / "bare"))} == segments
    for episode, cells in cells_of(copy).items():
        assert all(cell == cells[0] for cell in cells)
        assert len(cells) == open_dataset(root).length(episode)
        assert [(each["role"], each["style"], each["camera"], each["tool_calls"]) for each in cells[0]] == [
            ("assistant", "subtask", None, None)
        ] * 3
    info = json.loads((copy / "meta/info.json").read_text())
    assert info["features"][LANGUAGE] == info["features"][EVENTS] == FEATURE
    assert info["codebase_version"] == "v3.0"
    assert validate(copy).findings == ()


def test_every_frame_has_the_subtask_that_lerobot_finds_for_it(tmp_path: Path) -> None:
    root = plain(tmp_path / "dots")
    length = open_dataset(root).length(0)
    parts = (Segment("reach", 3, 7), Segment("reach", 7, 9), Segment("carry", 12, 20), Segment("place", 20, length - 2))
    copy_with_language(root, tmp_path / "copy", {0: {"sparse": parts}})
    (path,) = (tmp_path / "copy/data").rglob("*.parquet")
    table = pq.read_table(path).slice(0, length)
    names = [active_at(rows, time) for rows, time in zip(table[LANGUAGE].to_pylist(), table["timestamp"].to_pylist(), strict=True)]
    assert names == [next((part.name for part in parts if part.start <= frame < part.stop), None) for frame in range(length)]
    assert read_language_subtasks(tmp_path / "copy") == {0: {"sparse": parts}}
    assert cells_of(tmp_path / "copy")[1] == [[]] * open_dataset(root).length(1)


TYPES = {"as LeRobot's writer infers it": None, "as LeRobot's documentation has it": kind()}


@pytest.mark.parametrize("name", TYPES)
def test_rows_of_other_styles_and_of_other_episodes_stay(name: str, tmp_path: Path) -> None:
    def old(n: int) -> list[Row]:
        return [
            row("say it so", 0, "task_aug", "user"),
            row("a plan", 0, "plan"),
            row("old", 0),
            row("done so far", 9, "memory"),
            row("old", 9),
        ]

    def said(n: int, frame: int) -> list[Row]:
        return [event("wait", role="user")] if frame == 4 else []

    root = write_language(tmp_path / "dots", old, column=TYPES[name], events_of=said)
    length = open_dataset(root).length(1)
    parts = (Segment("reach", 0, 9), Segment("carry", 9, length))
    copy_with_language(root, tmp_path / "copy", {1: {"sparse": parts}})
    new = [
        row("a plan", 0, "plan"),
        row("reach", 0),
        row("say it so", 0, "task_aug", "user"),
        row("done so far", 9, "memory"),
        row("carry", 9),
    ]
    cells = cells_of(tmp_path / "copy")
    assert cells[1] == [new] * length
    assert {n: cells[n] for n in (0, 2, 3)} == {n: cells_of(root)[n] for n in (0, 2, 3)}
    assert cells_of(tmp_path / "copy", EVENTS) == cells_of(root, EVENTS)
    assert read_language_subtasks(tmp_path / "copy")[1] == {"sparse": parts}


def test_tool_calls_and_fields_of_other_makers_stay(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "say", "arguments": {"text": "hello"}}}
    root = write_language(tmp_path / "dots", lambda n: [{**row("a plan", 0, "plan"), "tool_calls": [call], "author": "me"}])
    copy_with_language(root, tmp_path / "copy", {0: {"sparse": (Segment("reach", 0, 9),)}})
    rows = cells_of(tmp_path / "copy")[0][5]
    assert [(each["content"], each["tool_calls"], each["author"]) for each in rows] == [
        ("a plan", [call], "me"), ("reach", None, None), ("", None, None),
    ]  # fmt: skip


@pytest.mark.skipif(not hasattr(pa, "json_"), reason="this pyarrow has no JSON type")
def test_tool_calls_in_arrows_json_type_stay(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", lambda n: [row("a plan", 0, "plan") | {"tool_calls": ['{"a": 1}']}], column=kind())
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    old = table[LANGUAGE].combine_chunks()
    old = old.chunk(0) if isinstance(old, pa.ChunkedArray) else old
    flat = old.flatten()
    calls = flat.field("tool_calls")
    json_calls = pa.ListArray.from_arrays(calls.offsets, pa.ExtensionArray.from_storage(pa.json_(), calls.values))
    fields = [json_calls if each.name == "tool_calls" else flat.field(each.name) for each in flat.type]
    rows = pa.StructArray.from_arrays(fields, names=[each.name for each in flat.type])
    pq.write_table(table.set_column(table.column_names.index(LANGUAGE), LANGUAGE, pa.ListArray.from_arrays(old.offsets, rows)), path)
    copy_with_language(root, tmp_path / "copy", {0: {"sparse": (Segment("reach", 0, 9),)}})
    assert [each["tool_calls"] for each in cells_of(tmp_path / "copy")[0][5]] == [['{"a": 1}'], None, None]


def test_dense_stages_are_written_where_there_are_some(tmp_path: Path) -> None:
    root = plain(tmp_path / "dots")
    dense = (Segment("grasp", 0, 5), Segment("pull", 5, 9))
    write_annotations(root, {2: {"dense": dense}})
    assert main(["annotate", str(root), "--to-language", str(tmp_path / "copy"), "--episodes", "2-3"]) == 0
    assert read_language_subtasks(tmp_path / "copy", "dense") == {2: {"dense": dense}}
    assert read_metadata(tmp_path / "copy").episodes[3].segments == read_metadata(root).episodes[3].segments


def refused(root: Path, copy: Path, says: str, annotations: Any = None) -> None:
    before = files_of(root)
    with pytest.raises(DataError, match=says):
        copy_with_language(root, copy, annotations or {0: {"sparse": (Segment("reach", 0, 9),)}})
    assert files_of(root) == before


def test_the_copy_is_never_in_a_dataset_nor_in_the_hubs_cache(tmp_path: Path) -> None:
    root = plain(tmp_path / "dots")
    refused(root, root / "copy", "is in the dataset")
    refused(root, root / "data" / "copy", "is in the dataset")
    refused(root, root, "is in the dataset|exists already")
    snapshot = tmp_path / "hub" / "datasets--me--dots" / "snapshots" / ("c" * 40)
    snapshot.parent.mkdir(parents=True)
    refused(root, snapshot.parent / ("d" * 40), "is in the Hub's cache")
    shutil.copytree(root, snapshot)
    before = files_of(snapshot)
    assert main(["annotate", os.fspath(snapshot), "--to-language", str(snapshot / "copy")]) == 2
    assert main(["annotate", os.fspath(snapshot), "--to-language", str(tmp_path / "copy")]) == 0
    assert files_of(snapshot) == before
    assert len(read_language_subtasks(tmp_path / "copy")) == 4


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    root, copy = plain(tmp_path / "dots"), tmp_path / "copy"
    refused(root, copy, "no episode 9", {9: {"sparse": (Segment("reach", 0, 9),)}})
    refused(root, copy, "ends at frame 9000", {0: {"sparse": (Segment("reach", 0, 9000),)}})
    refused(root, copy, "no annotation of this head", {0: {"dense": (Segment("reach", 0, 9),)}})
    language = write_language(tmp_path / "language", lambda n: [row("reach", 0)])
    replace_cells(language, lambda cells: [*cells[:7], [], *cells[8:]])
    refused(language, copy, "episode 0: 1 frame holds other language rows")
    clash = write_language(tmp_path / "clash", lambda n: [row("reach", 0)])
    edit_info(clash, lambda info: info["features"].update({EVENTS: {"dtype": "string", "shape": [1], "names": None}}))
    refused(clash, copy, "has a feature 'language_events' that holds 'string'")
    (path,) = (root / "data").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    refused(root, copy, "damaged or truncated")
    assert not copy.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["clash", "dots", "language"]


def test_nothing_to_write_and_two_modes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = write_language(tmp_path / "dots", lambda n: [])
    assert main(["annotate", str(root), "--to-language", str(tmp_path / "copy")]) == 2
    assert "has an annotation of these episodes" in capsys.readouterr().err
    assert main(["annotate", str(root), "--to-language", str(tmp_path / "copy"), "--to-file", str(tmp_path / "a.csv")]) == 2
    assert "give one of" in capsys.readouterr().err


def test_what_was_read_is_written_again_alike(tmp_path: Path) -> None:
    root = write_language(tmp_path / "dots", lambda n: [row("a plan", 0, "plan"), row("reach", 0), row("carry", 12 + n)])
    assert main(["annotate", str(root), "--to-language", str(tmp_path / "copy")]) == 0
    assert read_metadata(tmp_path / "copy").from_language
    assert read_language_subtasks(tmp_path / "copy") == read_language_subtasks(root)
    assert cells_of(tmp_path / "copy") == cells_of(root)
    assert open_dataset(tmp_path / "copy").fps == FPS
