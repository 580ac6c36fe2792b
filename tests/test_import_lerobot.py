"""Importing LeRobot v2.1 as v3.0: rows are equal to the last bit, images are the same but for their encoding."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import milepost
from builders import TOP, WRIST, build_dataset, edit_info, set_column
from milepost.cli.entry import main
from milepost.core.errors import DataError
from milepost.datasets.video import VideoFrames
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
    assert_refused(
        command("import", tmp_path / "new", *where, "--without", "1"), f"milepost copy {tmp_path / 'new'} --without 1 --output-dir"
    )
    build_dataset(tmp_path / "old", version="v2.1")
    assert_refused(command("import", tmp_path / "old", *where, "--fps", 10), "20 frames per second", "--fps")
    assert_refused(command("import", tmp_path / "old", *where, "--state-keys", "x"), "--state-keys")
    assert_refused(command("import", tmp_path / "old", "--output-dir", tmp_path / "old" / "set"), "would become a part of")


def _damaged(root: Path) -> Path:
    """A v2.1 dataset of five episodes: the video of episode 1 is cut, and the state of episode 3 has NaN."""
    build_dataset(root, version="v2.1", lengths=(9, 8, 7, 6, 5))
    video = next(root.glob(f"videos/*/{TOP}/episode_000001.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    rows = next(root.glob("data/*/episode_000003.parquet"))
    set_column(rows, "observation.state", [[float("nan")] * 3] * 6)
    return root


def test_info_names_the_import_that_leaves_damaged_episodes_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_damaged(tmp_path / "old").parent)
    assert main(["info", "old"]) == 1
    command = re.findall(r"next: milepost (.+)", capsys.readouterr().out)[0]
    assert command == "import old --without 1,3 --output-dir NEW"
    assert main([*shlex.split(command), *FAST]) == 0
    assert milepost.validate("NEW", deep=True).healthy
    old = milepost.open_dataset("old")
    for number, new in zip((0, 2, 4), milepost.open_dataset("NEW"), strict=True):
        np.testing.assert_array_equal(old[number].state, new.state)


def test_all_damaged_episodes_are_named_before_one_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = [str(_damaged(tmp_path / "old")), "--output-dir", str(tmp_path / "new"), *FAST]

    def refusal(*words: str) -> str:
        assert main(["import", *where, *words]) == 2
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    with monkeypatch.context() as patch:
        patch.setattr("milepost.importing.writing.encode_episode", None)
        says = refusal()
        assert "episode 1: video" in says
        assert "; episode 3: " in says
        assert "leave them out with --without 1,3" in says
        assert "leave it out with --without 0-1,3" in refusal("--without", "0,1")
        assert "--without names episode 5" in refusal("--without", "1,5")
        assert "--episodes names episode 5" in refusal("--episodes", "0-7")
        assert "--without takes numbers" in refusal("--without", "abc")
        assert "no episode stays" in refusal("--without", "0-4")
        assert "--without" not in refusal("--episodes", "1,3")

    whole = VideoFrames.chunks

    def damaged_inside(self: VideoFrames, size: int = 64):
        for place, images in enumerate(whole(self, 2)):
            if place and len(self) in (9, 5):
                raise DataError("the video has a hole")
            yield images

    with monkeypatch.context() as patch:
        patch.setattr(VideoFrames, "chunks", damaged_inside)
        says = refusal("--without", "1,3")
        assert "episode 0: the video has a hole; episode 4: the video has a hole" in says
        assert "--without 0-1,3-4" in says
    assert main(["import", *where, "--episodes", "0-2", "--without", "1"]) == 0
    assert [each.length for each in milepost.open_dataset(tmp_path / "new")] == [9, 7]


def test_copy_of_an_older_version_names_the_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = _damaged(tmp_path / "old")
    for words, line in (
        (("--without", "1,3"), f"milepost import {old} --without 1,3 --output-dir NEW"),
        (("--episodes", "0-2"), f"milepost import {old} --without 3-4 --output-dir NEW"),
        (("--trim-idle", "both"), f"milepost import {old} --output-dir NEW"),
    ):
        assert main(["copy", str(old), *words, "--output-dir", str(tmp_path / "new")]) == 2
        out, err = capsys.readouterr()
        assert line in err
        assert "numbered" not in out
