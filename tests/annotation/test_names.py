"""Lists of stages: the flag, both kinds of file, and what is refused."""

import json
from pathlib import Path

import pytest

from milepost.annotation.subtasks import WHOLE, Subtask, SubtaskList, words
from milepost.core.errors import DataError


def test_the_seeds_flag() -> None:
    text = "Bring arms up from starting position,Fold the towel (3 folds in total)"
    stages = SubtaskList.from_flag(text)
    assert stages.names == ("Bring arms up from starting position", "Fold the towel (3 folds in total)")
    assert stages.covers
    assert not any(stage.optional or stage.repeatable or stage.description for stage in stages)


def test_one_name_is_a_list() -> None:
    assert SubtaskList.from_flag("task") == WHOLE


@pytest.mark.parametrize("text", ["", " ", "a,,b", "a,b,", ",", "a,  ,b"])
def test_nothing_between_commas_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="separated by commas"):
        SubtaskList.from_flag(text)


@pytest.mark.parametrize("text", ["a,b,a", "Grab cup,grab the cup!", "reach_cube,reach cube", "A, a"])
def test_names_that_only_a_pedant_tells_apart_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="one name to a reader"):
        SubtaskList.from_flag(text)


@pytest.mark.parametrize("name", ["", " reach", "two\nlines", "...", "reach "])
def test_blank_and_untidy_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="needs a name"):
        Subtask(name)


def test_no_stages_are_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        SubtaskList(())


def test_lines_with_descriptions_and_commas(tmp_path: Path) -> None:
    file = tmp_path / "stages.txt"
    file.write_text("# towel\n\nreach, then grasp: the gripper closes: on the towel\nfold\nlet go:\n")
    stages = SubtaskList.from_file(file)
    assert stages.names == ("reach, then grasp", "fold", "let go")
    assert stages["reach, then grasp"].description == "the gripper closes: on the towel"


def test_a_time_in_a_name_is_no_description(tmp_path: Path) -> None:
    file = tmp_path / "stages"
    file.write_text("wait until 12:30\n")
    assert SubtaskList.from_file(file).names == ("wait until 12:30",)


def test_json_of_names_and_objects(tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    file.write_text(json.dumps(["reach, grasp", {"name": "fold: once", "description": "half", "optional": True, "repeatable": True}]))
    assert SubtaskList.from_file(file) == SubtaskList((Subtask("reach, grasp"), Subtask("fold: once", "half", True, True)))


def test_json_that_does_not_cover(tmp_path: Path) -> None:
    file = tmp_path / "stages.json"
    file.write_text(json.dumps({"subtasks": ["reach"], "covers": False}))
    assert not SubtaskList.from_file(file).covers


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "empty"),
        ("a.json", "", "cannot be read as JSON"),
        ("a.json", "3", "expected a list of names"),
        ("a.json", '[{"name": "a", "optional": "yes"}]', "optional"),
        ("a.json", '[{"name": "a", "colour": "red"}]', "colour"),
        ("a.json", '["a", 3]', "expected a list of names"),
        ("a.json", '["a", " "]', "needs a name"),
        ("a.txt", "", "empty"),
        ("a.txt", "# only this\n", "empty"),
        ("a.txt", ": no name\n", "needs a name"),
        ("a.txt", '["a"]', "name the file .json"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError, match=message) as found:
        SubtaskList.from_file(file)
    assert str(file) in str(found.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        SubtaskList.from_file(tmp_path / "none.txt")


def test_words_of_articles_alone_stay() -> None:
    assert words("The A") == ("the", "a")
