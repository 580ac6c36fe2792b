"""Drawings of two datasets do not replace each other: a file says whose it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import av
import pytest
from PIL import Image

from milepost.cli.entry import main
from milepost.datasets.drawings import drawing_marks, mark_of
from milepost.datasets.reader import open_dataset
from odd_datasets import edit_entries, v3


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    roots = v3(tmp_path / "cups", (12, 9)), v3(tmp_path / "towels", (9, 12))
    for root in roots:
        assert main(["label", str(root), "--model", "elapsed"]) == 0
    return roots


VERBS = [("render", "progress_videos", "mp4"), ("plot", "progress_plots", "png")]


@pytest.mark.parametrize(("verb", "usual", "suffix"), VERBS)
def test_a_drawing_of_another_dataset_is_not_replaced(
    sets: tuple[Path, Path], verb: str, usual: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cups, towels = sets
    out = ["--episodes", "0"]
    made = Path(f"{usual}/episode_000000_progress.{suffix}")
    assert main([verb, str(cups), *out]) == 0
    before = made.read_bytes()
    assert main([verb, str(towels), *out]) == 2
    assert "is there already, of another dataset; choose another --output-dir, or use --overwrite" in flat(capsys)
    assert made.read_bytes() == before
    assert main([verb, str(towels), "--episodes", "1"]) == 0  # another file
    assert main([verb, str(cups), *out]) == 0  # one's own is replaced
    assert main([verb, str(shutil.copytree(cups, "copy")), *out]) == 0  # the same pictures elsewhere
    edit_entries(cups, lambda entries: entries[1].update(length=8))
    assert main([verb, str(towels), *out, "--overwrite"]) == 0
    assert made.read_bytes() != before
    assert main([verb, str(cups), *out]) == 2


def test_a_file_without_a_mark_is_replaced_when_asked(sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a person's own."""
    Path("out").mkdir()
    Path("out/episode_000000_progress.png").write_text("old")
    plot = ["plot", str(sets[0]), "--episodes", "0-1", "--output-dir", "out"]
    assert main(plot) == 2
    assert "is there already, and milepost did not make it of this dataset; choose another --output-dir" in flat(capsys)
    assert main([*plot, "--overwrite"]) == 0
    assert mark_of(Path("out/episode_000000_progress.png"))


def test_a_dataset_that_grows_is_the_same(sets: tuple[Path, Path]) -> None:
    out = ["--output-dir", "out", "--episodes", "0"]
    assert main(["plot", str(sets[0]), *out]) == 0
    shutil.rmtree(sets[0])
    v3(sets[0], (12, 9, 5))
    assert main(["label", str(sets[0]), "--model", "elapsed"]) == 0
    assert main(["plot", str(sets[0]), *out]) == 0


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_marked_figure_is_sound(sets: tuple[Path, Path], form: str) -> None:
    assert main(["plot", str(sets[0]), "--episodes", "0", "--format", form, "--output-dir", "out"]) == 0
    made = Path(f"out/episode_000000_progress.{form}")
    assert mark_of(made) == drawing_marks(open_dataset(sets[0]))
    if form == "png":
        with Image.open(made) as image:
            image.load()
            assert image.info["Comment"].startswith("milepost drawing of ")
    elif form == "svg":
        assert ElementTree.parse(made).getroot().tag.endswith("svg")
    else:
        assert made.read_bytes().index(b"%%EOF") < made.read_bytes().index(b"% milepost drawing of")


def test_a_marked_film_is_sound(sets: tuple[Path, Path]) -> None:
    assert main(["render", str(sets[0]), "--episodes", "0", "--gif", "--output-dir", "out"]) == 0
    film, gif = Path("out/episode_000000_progress.mp4"), Path("out/episode_000000_progress.gif")
    assert mark_of(film) == mark_of(gif) == drawing_marks(open_dataset(sets[0]))
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
    with Image.open(gif) as image:
        assert image.n_frames == 12
        image.seek(11)
        image.load()


def flat(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())
