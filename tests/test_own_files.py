"""A dataset's own files, and a person's, are never replaced: whatever the verb, whatever the door, `--overwrite` or not."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import milepost
from milepost.cli.entry import main
from milepost.testing import CAMERA, write_example

INSIDE = ("meta/info.json", "data/chunk-000/file-000.parquet", "meta/new.html")
CALLS: dict[str, Callable[[milepost.LeRobotDataset, str], object]] = {
    "label": lambda d, path: milepost.label(milepost.ElapsedModel(), d, path, overwrite=True),
    "export": lambda d, path: milepost.export_page(d, path, "dots/elapsed_progress.parquet"),
    "label --overwrite": lambda d, path: main(["label", "dots", "--model", "elapsed", "--output-path", path, "--overwrite"]),
    "weigh --overwrite": lambda d, path: main(["weigh", "dots", "--output-path", path, "--overwrite"]),
    "view --export-html": lambda d, path: main(["view", "dots", "--export-html", path]),
    "annotate --to-file": lambda d, path: main(["annotate", "dots", "--to-file", path, "--overwrite"]),
}


@pytest.fixture
def dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> milepost.LeRobotDataset:
    monkeypatch.chdir(tmp_path)
    return write_example("dots")


def contents(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("path", INSIDE)
@pytest.mark.parametrize("name", CALLS)
def test_no_output_lands_among_a_datasets_own_files(name: str, path: str, dots: milepost.LeRobotDataset) -> None:
    before = contents(Path("dots"))
    if name in ("label", "export"):
        with pytest.raises(milepost.DataError, match="whose own files are never replaced"):
            CALLS[name](dots, f"dots/{path}")
    else:
        assert CALLS[name](dots, f"dots/{path}") == 2
    assert contents(Path("dots")) == before


def test_a_video_does_not_replace_a_datasets(dots: milepost.LeRobotDataset) -> None:
    (video,) = Path("dots/videos").rglob("*.mp4")
    before = video.read_bytes()
    with pytest.raises(milepost.DataError, match="whose own files are never replaced"):
        milepost.render(dots, 0, video, "dots/elapsed_progress.parquet")
    assert video.read_bytes() == before


@pytest.mark.parametrize("folder", [".", "dots"])
def test_a_models_card_replaces_nobodys_readme(folder: str, dots: milepost.LeRobotDataset) -> None:
    Path(folder, "README.md").write_text("mine")
    with pytest.raises(milepost.DataError, match=r"README.md"):
        milepost.train(dots, folder, preset="small", steps=2, keep_features=False)
    assert Path(folder, "README.md").read_text() == "mine"


def test_frames_are_named_by_numbers_a_mask_or_a_slice(dots: milepost.LeRobotDataset) -> None:
    camera = dots[0].camera(CAMERA)
    mask = np.zeros(len(camera), dtype=bool)
    mask[[3, 7]] = True
    np.testing.assert_array_equal(camera[mask], camera[np.array([3, 7])])
    np.testing.assert_array_equal(camera[2:5], camera[np.array([2, 3, 4])])
    with pytest.raises(IndexError, match="one entry for each of the"):
        camera[mask[:5]]


@pytest.mark.parametrize("text", ["0-", "3-", "-2"])
def test_a_range_without_an_end_is_refused(text: str, dots: milepost.LeRobotDataset) -> None:
    with pytest.raises(ValueError, match="rising ranges"):
        milepost.open_dataset("dots", episodes=text)
