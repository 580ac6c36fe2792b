"""Subtasks of LeRobot's column `language_persistent`: read as segments, checked by `info`, brought over by `annotate --from-language`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milepost.cli.entry import main
from milepost.core import DataError, Segment
from milepost.datasets import open_dataset, read_language_subtasks, validate
from milepost.datasets.language import LANGUAGE, LanguageRow, language_faults, segments_of_rows
from milepost.testing import dot_episodes, write_dots

ROW = pa.struct(
    [
        ("role", pa.string()), ("content", pa.string()), ("style", pa.string()), ("timestamp", pa.float32()), ("camera", pa.string()),
        ("tool_calls", pa.list_(pa.string())),
    ]
)  # fmt: skip
FPS = 10.0


def row(content: str | None, frame: float, style: str = "subtask") -> dict[str, object]:
    return {"role": "assistant", "content": content, "style": style, "timestamp": frame / FPS, "camera": None, "tool_calls": None}


def with_language(root: Path, rows_of, *, other: int | None = None) -> Path:
    """Writes dots without annotations, and the rows of each episode into every frame; `other`: a frame that has none."""
    write_dots(root, dot_episodes(4))
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        cells = [rows_of(episode) for episode in table["episode_index"].to_pylist()]
        if other is not None:
            cells[other] = []
        pq.write_table(table.append_column(LANGUAGE, pa.array(cells, pa.list_(ROW))), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][LANGUAGE] = {"dtype": "language", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def two_steps(episode: int) -> list[dict[str, object]]:
    return [row("a plan", 0, "plan"), row("reach", 0), row("carry", 12 + episode)]


def test_rows_are_segments_until_the_next_one(tmp_path: Path) -> None:
    root = with_language(tmp_path / "dots", two_steps)
    lengths = open_dataset(root).length
    expected = {n: {"sparse": (Segment("reach", 0, 12 + n), Segment("carry", 12 + n, lengths(n)))} for n in range(4)}
    assert read_language_subtasks(root) == expected
    assert read_language_subtasks(root, "dense") == {n: {"dense": heads["sparse"]} for n, heads in expected.items()}


def test_a_row_without_content_ends_a_subtask() -> None:
    rows = [LanguageRow("reach", 0.5), LanguageRow("", 1.0), LanguageRow("carry", 1.5)]
    assert segments_of_rows(rows, 20, FPS) == (Segment("reach", 5, 10), Segment("carry", 15, 20))
    assert [fault.code for fault in language_faults(rows, 20, FPS)] == ["language-start", "language-gap"]
    assert [fault.message for fault in language_faults(rows, 20, FPS)] == [
        "the first 0.50 s have no subtask", "0.50 s between subtasks or after them have none",
    ]  # fmt: skip


def test_they_are_brought_over_and_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = with_language(tmp_path / "dots", two_steps)
    before = {path: path.read_bytes() for path in (root / "data").rglob("*.parquet")}
    assert main(["annotate", str(root), "--from-language", "sparse", "--overwrite"]) == 0
    assert "sparse stages of 4 episodes read from language_persistent; without any: 0" in " ".join(capsys.readouterr().out.split())
    assert open_dataset(root).episode(1).segments["sparse"] == read_language_subtasks(root)[1]["sparse"]
    assert {path: path.read_bytes() for path in before} == before
    assert main(["annotate", str(root), "--from-language", "sparse", "--from-subtask-index", "sparse"]) == 2


FAULTS = {
    "language-start": (lambda n: [row("reach", 3)], "the first 0.30 s have no subtask; and in 3 other episodes", "warning"),
    "language-gap": (lambda n: [row("reach", 0), row(None, 10)], "between subtasks or after them have none", "warning"),
    "language-overlap": (lambda n: [row("reach", 0), row("carry", 0)], "1 subtask begins in the same frame as another one", "error"),
    "language-stamp": (
        lambda n: [row("reach", 0), row("carry", 10.4)],
        "1 of 2 subtasks begin between two frames",
        "warning",
    ),
    "language-outside": (lambda n: [row("reach", 0), row("carry", 900)], "'carry' begins at 90 s, outside the", "error"),
}


@pytest.mark.parametrize("code", FAULTS)
def test_what_is_wrong_is_said_by_info(code: str, tmp_path: Path) -> None:
    rows_of, says, severity = FAULTS[code]
    root = with_language(tmp_path / "dots", rows_of)
    (finding,) = (each for each in validate(root).findings if each.code == code)
    assert says in finding.message
    assert finding.severity == severity
    if severity == "error":
        with pytest.raises(DataError, match="episode 0: "):
            read_language_subtasks(root)


def test_frames_that_hold_other_rows_are_an_error(tmp_path: Path) -> None:
    root = with_language(tmp_path / "dots", two_steps, other=7)
    (finding,) = (each for each in validate(root).findings if each.code == "language-differs")
    assert "1 frame of" in finding.message
    with pytest.raises(DataError, match="hold other language rows than the first frame"):
        read_language_subtasks(root)


def test_a_sound_column_is_no_finding_and_no_column_is_an_error(tmp_path: Path) -> None:
    root = with_language(tmp_path / "dots", two_steps)
    assert not [each for each in validate(root).findings if each.code.startswith("language-")]
    write_dots(tmp_path / "plain", dot_episodes(2))
    with pytest.raises(DataError, match="has no column 'language_persistent'"):
        read_language_subtasks(tmp_path / "plain")
    none = with_language(tmp_path / "none", lambda n: [row("a plan", 0, "plan")])
    with pytest.raises(DataError, match="has no row of style 'subtask' in language_persistent"):
        read_language_subtasks(none)


def test_a_column_of_another_shape_is_named(tmp_path: Path) -> None:
    root = with_language(tmp_path / "dots", two_steps)
    for path in (root / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        place = table.column_names.index(LANGUAGE)
        pq.write_table(table.set_column(place, LANGUAGE, pa.array(["reach"] * len(table))), path)
    with pytest.raises(DataError, match="language_persistent is string; a list of rows with content, style, timestamp is expected"):
        read_language_subtasks(root)
    assert "language-column" in {each.code for each in validate(root).findings}
