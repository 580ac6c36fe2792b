"""Importing LeRobot v2.1 as v3.0: rows are equal to the last bit, images are the same but for their encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import milepost
from builders import TOP, WRIST, build_dataset, edit_info
from test_cli import assert_refused
from test_cli import milepost as command
from test_import import FAST, assert_same_images, every
from test_import_hdf5 import imported


@pytest.mark.parametrize("version", ["v2.1", "v2.0"])
def test_an_older_version_becomes_v3(tmp_path: Path, version: str) -> None:
    built = build_dataset(tmp_path / "old", version="v2.1", cameras={TOP: "libx264", WRIST: "png"})
    edit_info(tmp_path / "old", codebase_version=version)
    before = {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()}
    old = milepost.open_dataset(tmp_path / "old")
    run, new = imported(tmp_path / "old", tmp_path / "set")
    assert "3 episodes at 20 fps" in run.stdout
    assert (new.version, new.fps, new.tasks, new.cameras) == ("v3.0", old.fps, old.tasks, old.cameras)
    for number, (one, other) in enumerate(zip(old, new, strict=True)):
        assert (one.task, one.row, one.length) == (other.task, other.row, other.length)
        np.testing.assert_array_equal(one.state, other.state)
        assert one.columns.keys() == other.columns.keys()
        for name in one.columns:
            np.testing.assert_array_equal(one.columns[name].reshape(-1), other.columns[name].reshape(-1))
        for camera in (TOP, WRIST):
            assert_same_images(every(new, number, camera), built.images[camera, number], tolerance=20)
    assert {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()} == before


def test_what_is_no_older_version(tmp_path: Path) -> None:
    build_dataset(tmp_path / "new")
    where = ("--output-dir", tmp_path / "set", *FAST)
    assert_refused(command("import", tmp_path / "new", *where), "v3.0 dataset already", "milepost copy")
    build_dataset(tmp_path / "old", version="v2.1")
    assert_refused(command("import", tmp_path / "old", *where, "--fps", 10), "20 frames per second", "--fps")
    assert_refused(command("import", tmp_path / "old", *where, "--state-keys", "x"), "--state-keys")
    assert_refused(command("import", tmp_path / "old", "--output-dir", tmp_path / "old" / "set"), "would become a part of")
