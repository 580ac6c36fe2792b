"""The comparison of dataset checkers: three damaged and three sound datasets through milepost, how alarms are judged, the page's tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import doctors
from benchmarks.doctor_damage import BASES, GROUPS
from benchmarks.doctor_data import make
from benchmarks.doctor_sound import RECIPES

from milepost.datasets import validate

PAGE = Path(__file__).parents[1] / "docs/beside_others.md"
SOUND = ("5 fps", "an episode of one frame", "v2.1, no camera")
DAMAGED = ("video file 2", "statistics 2", "robot 2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with three sound datasets, small ones, and three damaged ones."""
    root = tmp_path_factory.mktemp("doctors")
    for place in ("sound", "bases"):
        (root / place).mkdir()
    for recipe in RECIPES:
        if recipe.name in SOUND:
            make(root / "sound" / recipe.name, replace(recipe, seconds=(3.6, 3.8), frames=recipe.frames and (30, 1)))
    make(root / "bases" / BASES[2].name, replace(BASES[2], cameras=1))
    for name in DAMAGED:
        group, variant = name.rsplit(" ", 1)
        doctors.damage(root, group, int(variant))
    return root


def test_there_are_sixty_of_each() -> None:
    assert len(GROUPS) == 15
    assert all(len(group.variants) == 4 for group in GROUPS)
    assert len(RECIPES) == 60 - 14  # fourteen come from LeRobot's own writer


def test_sound_ones_have_no_error_and_damages_are_named(folder: Path) -> None:
    paths = [*sorted((folder / "sound").iterdir()), folder / "bases" / BASES[2].name, *(folder / "damaged" / name for name in DAMAGED)]
    of = {path.name: line["alarms"] for path, line in doctors.answers("milepost", sys.executable, paths).items()}
    assert {name: [text for kind, text in of[name] if kind != "warning"] for name in SOUND} == {name: [] for name in SOUND}
    for name in DAMAGED:
        words = next(group.words for group in GROUPS if group.name == name.rsplit(" ", 1)[0])
        assert doctors.judged(words, of[name], of[BASES[2].name])["named"], of[name]


def test_an_alarm_that_the_sound_dataset_has_too_does_not_count() -> None:
    old, new = ("error", "video A is odd"), ("warning", "the task is odd")
    assert doctors.judged("video", [old, new], [old]) == {"named": "", "alarm": True, "alarms": [list(new)]}
    assert doctors.judged("task", [old, new], [old])["named"] == "warning"
    assert doctors.judged("magic", [("stopped", "Magic bytes")], [])["named"] == "error"


def test_the_page_has_the_tables_of_the_measured_lines(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text("utf-8"), "utf-8")
    doctors.main(["--page", str(copy)])
    assert copy.read_text("utf-8") == PAGE.read_text("utf-8")
    lines = [json.loads(line) for line in doctors.OUT.read_text("utf-8").splitlines()]
    for tool in {line["tool"] for line in lines}:
        assert len({line["dataset"] for line in lines if line["tool"] == tool}) == 120


def test_the_robot_of_the_sound_ones_has_no_finding(folder: Path) -> None:
    assert validate(folder / "sound" / "5 fps").findings == ()
