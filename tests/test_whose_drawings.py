"""Drawings of two datasets do not replace each other: by default each has a folder, and in one folder a file says whose it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from milepost.cli import main
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
def test_each_dataset_has_its_folder(sets: tuple[Path, Path], verb: str, usual: str, suffix: str) -> None:
    for root in sets:
        assert main([verb, str(root), "--episodes", "0"]) == 0
    assert sorted(path.parent.name for path in Path(usual).rglob(f"*.{suffix}")) == ["cups", "towels"]


@pytest.mark.parametrize(("verb", "usual", "suffix"), VERBS)
def test_a_drawing_of_another_dataset_is_not_replaced(
    sets: tuple[Path, Path], verb: str, usual: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cups, towels = sets
    out = ["--output-dir", "out", "--episodes", "0"]
    made = Path(f"out/episode_000000_progress.{suffix}")
    assert main([verb, str(cups), *out]) == 0
    before = made.read_bytes()
    assert main([verb, str(towels), *out]) == 2
    assert "is there already, of another dataset ('cups'); choose another --output-dir, or use --overwrite" in flat(capsys)
    assert made.read_bytes() == before
    assert main([verb, str(towels), "--output-dir", "out", "--episodes", "1"]) == 0  # another file
    assert main([verb, str(cups), *out]) == 0  # one's own is replaced
    assert main([verb, str(shutil.copytree(cups, "copy")), *out]) == 0  # the same pictures elsewhere
    edit_entries(cups, lambda entries: entries[1].update(length=8))
    assert main([verb, str(towels), *out, "--overwrite"]) == 0
    assert made.read_bytes() != before
    assert main([verb, str(cups), *out]) == 2


def test_a_file_that_nobody_claims_is_not_replaced(sets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/episode_000000_progress.png").write_text("mine")
    assert main(["plot", str(sets[0]), "--output-dir", "out"]) == 2
    assert "nothing says which dataset it is of" in flat(capsys)
    assert Path("out/episode_000000_progress.png").read_text() == "mine"


def test_a_dataset_that_grows_is_the_same(sets: tuple[Path, Path]) -> None:
    out = ["--output-dir", "out", "--episodes", "0"]
    assert main(["plot", str(sets[0]), *out]) == 0
    shutil.rmtree(sets[0])
    v3(sets[0], (12, 9, 5))
    assert main(["label", str(sets[0]), "--model", "elapsed"]) == 0
    assert main(["plot", str(sets[0]), *out]) == 0


def flat(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())
