"""Marks: on disk after every change, nobody's work lost, and a command that LeRobot understands."""

import csv
import io
import json
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

from builders import build_dataset
from milepost.core.errors import DataError
from milepost.datasets.reader import open_dataset
from milepost.viewer.marks import LONGEST, Mark, Marks, delete_command, marks_file
from reviewed import annotated_dataset, page_of, review_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return annotated_dataset(tmp_path / "towels")


def test_marks_are_kept_beside_the_dataset(root: Path) -> None:
    dataset = open_dataset(root)
    path = marks_file(dataset)
    assert path == root.with_name("towels.review.json")
    marks = Marks(path, dataset)
    assert not path.exists()
    marks.set(2, Mark("drop", "the gripper slips\nat the end"))
    marks.set(0, Mark("keep"))
    marks.set(1, Mark(None, "look again"))
    again = Marks(path, open_dataset(root))
    assert again.all() == {0: Mark("keep"), 1: Mark(None, "look again"), 2: Mark("drop", "the gripper slips\nat the end")}
    again.set(2, Mark(None))
    assert marks.all() == {0: Mark("keep"), 1: Mark(None, "look again")}  # another page's change is seen
    marks.set(3, Mark("unsure"))
    assert set(again.all()) == {0, 1, 3}


def test_other_files_are_refused_and_left_alone(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    other = open_dataset(build_dataset(tmp_path / "other", lengths=(5, 6)).root)
    Marks(path, other).set(0, Mark("keep"))
    held = path.read_text()
    with pytest.raises(DataError, match="another dataset"):
        Marks(path, open_dataset(root))
    for text in ("", "{", "[]", '{"marks": []}', held.replace("keep", "burn"), held.replace('"episode": 0', '"episode": "x"')):
        path.write_text(text)
        with pytest.raises(DataError, match=r"marks\.json"):
            Marks(path, open_dataset(root))
        assert path.read_text() == text


def test_what_is_no_mark() -> None:
    for kind, note in (("burn", ""), ("keep", "x" * (LONGEST + 1)), ("keep", "\ud800")):
        with pytest.raises(DataError):
            Mark(kind, note)


def test_many_threads_lose_nothing(root: Path, tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks.json", open_dataset(root))
    threads = [threading.Thread(target=marks.set, args=(n, Mark("keep", str(n)))) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {n: mark.note for n, mark in Marks(tmp_path / "marks.json", open_dataset(root)).all().items()} == {n: str(n) for n in range(40)}


def test_the_page_marks_and_downloads(root: Path) -> None:
    with page_of(review_of(root)) as page:
        tag = page.get("/api/episodes").headers["etag"]
        assert page.put("/api/marks", json={"episode": 1, "mark": "drop", "note": 'a, "b"\nc; =1'}).json()["mark"] == "drop"
        assert page.put("/api/marks", json={"episode": 3, "mark": "keep"}).json() == {"episode": 3, "mark": "keep", "note": ""}
        listed = page.get("/api/episodes", headers={"if-none-match": tag})
        assert listed.status_code == 200
        assert listed.json()["mark"] == [None, "drop", None, "keep"]
        assert listed.json()["note"] == {"1": 'a, "b"\nc; =1'}
        assert page.get("/api/episodes/1").json()["mark"] == "drop"
        page.get("/api/events")
        rows = list(csv.DictReader(io.StringIO(page.get("/api/marks.csv").text, newline="")))
        told = page.get("/api/marks.json").json()
        for body in ({"episode": 9}, {"episode": True}, {"episode": "1"}, {"episode": 1.0}, {}):
            assert page.put("/api/marks", json=body).status_code == 404
        for body in (
            {"episode": 1, "mark": "burn"},
            {"episode": 1, "mark": ["keep"]},
            {"episode": 1, "note": 3},
            {"episode": 1, "note": "\ud800"},
        ):
            assert page.put("/api/marks", content=json.dumps(body), headers={"content-type": "application/json"}).status_code == 422
    assert rows[0] == {
        "episode": "1", "mark": "drop", "note": "a, \"b\"\nc; =1", "task": "lift the block", "length": "34", "final_progress": "1.0",
        "success": "False",
    }  # fmt: skip
    assert [row["episode"] for row in told["marks"]] == [1, 3]
    assert shlex.split(told["lerobot_delete_command"])[-2:] == ["--operation.episode_indices", "[1]"]


def test_the_command_is_one_a_shell_takes_apart_as_meant(tmp_path: Path) -> None:
    root = build_dataset(tmp_path / "my towels; rm -rf $HOME", lengths=(5, 6, 7)).root
    dataset = open_dataset(root)
    command = delete_command(dataset, [0, 2])
    assert command is not None
    seen = subprocess.run(
        ["sh", "-c", command.replace("lerobot-edit-dataset", "printf '%s\\n'", 1)], capture_output=True, text=True, check=True
    )
    assert seen.stdout.splitlines() == [
        "--repo_id", root.name, "--root", str(root), "--new_root", f"{root}_kept", "--new_repo_id", f"{root.name}_kept",
        "--operation.type", "delete_episodes", "--operation.episode_indices", "[0, 2]",
    ]  # fmt: skip
    assert delete_command(dataset, []) is None
    assert delete_command(dataset, [0, 1, 2]) is None
